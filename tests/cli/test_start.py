"""What a command imports before it trains."""

import subprocess
import sys

import pytest

from genbench.cli import commands

TORCH = ("torch", "pytorch_lightning", "torchmetrics")


@pytest.mark.parametrize("launcher", ["processes", "packed"])
def test_the_process_that_sweeps_does_without_torch(launcher, tmp_path):
    """It composes, plans and reports while its workers import torch, which takes seconds."""
    words = ["-m", f"hydra/launcher={launcher}", "seed=0,1", "data.train_size=200", "trainer.max_steps=2"]
    program = (
        f"import sys; sys.argv = {['genbench', *words]!r}\nfrom genbench import cli\n"
        "try: cli.train()\nexcept SystemExit as end: print(end.code)\n"
        f"print([name for name in {TORCH} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"], done.stderr
    assert len(list(tmp_path.glob("runs/default/*/record.json"))) == 2


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["-m", "seed=0,1"], True),
        (["experiment=ablation"], True),
        (["--dry-run", "experiment=ablation"], True),
        (["seed=1"], False),
        (["-m", "hydra/launcher=basic", "seed=0,1"], False),
        (["experiment=ablation", "--cfg", "job"], False),
        (["experiment=ablation", "--cfg=job"], False),
    ],
)
def test_the_server_of_workers_starts_with_a_command_that_needs_it(words, needed, monkeypatch):
    started = []
    monkeypatch.setattr("genbench.runs.executors.start_server", lambda: started.append(words))
    monkeypatch.setattr(commands, "_hydra", lambda name, task: 0)
    monkeypatch.setattr(sys, "argv", ["genbench", *words])
    with pytest.raises(SystemExit):
        commands.train()
    assert bool(started) == needed


@pytest.mark.parametrize("ends", [False, True])
def test_the_server_of_workers_ends_with_its_command_while_it_imports(ends, tmp_path):
    """A command that is refused for a wrong word leaves nothing that goes on computing."""
    begun = "event == 'exec' and '/torch/__init__.py' in str(args[0]) and print('begun', flush=True)"
    server = (
        f"import sys; sys.addaudithook(lambda event, args: {begun})\n"
        f"import genbench.runs.preload\nopen({str(tmp_path / 'imported')!r}, 'w')"
    )
    command = (
        "import subprocess, sys\n"
        f"server = subprocess.Popen([sys.executable, '-c', {server!r}], stdout=subprocess.PIPE)\n"
        f"server.stdout.readline()\nif not {ends}: server.wait()"
    )
    # standard error closes when the last process that has it ends
    subprocess.run([sys.executable, "-c", command], stderr=subprocess.PIPE, timeout=120, check=True)
    assert (tmp_path / "imported").exists() != ends
