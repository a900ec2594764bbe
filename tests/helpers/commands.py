"""Commands as a user types them, and the files that they leave. Most run in the process of the tests: a command of its
own takes six seconds to begin, and its workers as long again."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench import records
from genbench.config import folder as config_folder
from tests.helpers.forked import Forked

PROGRAM = "from genbench.cli import train; train()"
GENBENCH = [sys.executable, "-c", PROGRAM]
TINY = [
    "trainer.max_steps=40",
    "trainer.accelerator=cpu",
    "data.train_size=200",
    "data.batch_size=20",
    "checkpoint_seconds=0",
    "measures.sam_sharpness.starts=2",
    "~measures.trace",
    "~measures.adaptive_sharpness",
    "~measures.average_sharpness",
]


def typed(folder: Path, name: str, *arguments: str | Path, columns: int = 120) -> tuple[Any, str, str]:
    """The exit status of a command in a folder, its output and its errors, those of processes that it starts included,
    but for workers, which are forked from the first command's server."""
    from hydra.core.global_hydra import GlobalHydra

    from genbench import cli
    from genbench.runs import sweep_plan

    programs: dict[str, Callable[[], None]] = {
        "genbench": cli.train,
        "genbench-measure": cli.measure,
        "genbench-table": cli.table,
    }
    GlobalHydra.instance().clear()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with pytest.MonkeyPatch.context() as patch, _redirected(out, err):
            patch.chdir(folder)
            patch.setattr(sys, "argv", [name, *map(str, arguments)])
            patch.setattr(sweep_plan, "SWEPT", {})
            patch.setenv("COLUMNS", str(columns))
            patch.delenv("HYDRA_FULL_ERROR", raising=False)
            status: Any = 0
            try:
                programs[name]()
            except SystemExit as end:
                status = end.code or 0
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return status, texts[0], texts[1]


def ended_by(process: "subprocess.Popen[str] | Forked", number: int, *, within: float) -> None:
    """Send a signal to a command alone, as whoever works for it is its own to end: it ends within these seconds, with
    the line that says so."""
    process.send_signal(number)
    asked = time.monotonic()
    out, err = process.communicate(timeout=within)
    assert time.monotonic() - asked < within
    assert process.returncode == 130, err
    assert [line for line in err.splitlines() if "continues" in line] == [
        "genbench: interrupted; the same command continues"
    ]
    assert "Traceback" not in out + err, err


def start(work: Path, *arguments: str, **more: str) -> Forked:
    """A command in a folder, ``more`` in its environment; it can import tests and modules beside its folder."""
    return Forked(PROGRAM, *arguments, folder=work, environment=_environment(work, more))


def start_afresh(
    work: Path, *arguments: str, command: Sequence[str] = GENBENCH, **more: str
) -> "subprocess.Popen[str]":
    """A command that imports all that it needs itself, for what its interpreter or its children must be their own."""
    return subprocess.Popen(
        [*command, *arguments],
        cwd=work,
        env=_environment(work, more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # who starts tests in the background has them ignore Ctrl-C, and they would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _environment(work: Path, more: Mapping[str, str]) -> dict[str, str]:
    own = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{work.parent}", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    environment = {**os.environ, **own, **more}
    environment.pop("HYDRA_FULL_ERROR", None)
    environment.pop("WANDB_SERVICE", None)  # a service of this process, which another test may have ended
    return environment


def alone(work: Path, *arguments: str, command: Sequence[str] | None = None) -> tuple[int | None, str, str]:
    """A command in a process of its own."""
    process = start(work, *arguments) if command is None else start_afresh(work, *arguments, command=command)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def sweep(work, *arguments):
    return typed(work, "genbench", "--config-dir", "../conf", "-m", *TINY, *arguments)


def by_override(folder, override):
    plan = records.read_sweep(folder)
    (run_id,) = [planned["run_id"] for planned in plan["runs"] if override in planned["overrides"]]
    return run_id


CLOCK = ("seconds", "measure_seconds", "digest", "mark", "provenance")


def numbers(folder):
    """All records without what a clock or a process determines."""
    found = {}
    for record in records.load(folder).records:
        found[record["run_id"]] = {k: v for k, v in record.items() if k not in CLOCK}
    return found


def cells(folder):
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if "seconds" not in row["column"]]


def command(words: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """A command of its own, as :func:`subprocess.run` gives it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    process = Forked(program(words), folder=folder, environment=environment)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(list(words), process.wait(), out, err)


def program(words: Sequence[str]) -> str:
    """What a command is in Python."""
    name = {"genbench": "train", "genbench-measure": "measure", "genbench-table": "table"}[words[0]]
    return f"import sys; sys.argv = {list(words)!r}; from genbench.cli import {name}; {name}()"


def composed(*overrides):
    """The configuration of ``genbench-measure`` with these overrides."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(compose("measure", list(overrides)), resolve=True)


def ctrl_c(process: "subprocess.Popen[str] | Forked", *, once: Callable[[], object]) -> None:
    """Press Ctrl-C in the terminal of a command when ``once`` is true: it ends with the line that says so."""
    deadline = time.monotonic() + 240
    while not once() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command continues" in err
    assert "Traceback" not in out + err


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules in a folder can be imported, here and by workers, and are forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


@contextlib.contextmanager
def _redirected(out: IO[bytes], err: IO[bytes]) -> Iterator[None]:
    """The standard output and errors go to files, those of C and of other processes too."""
    streams, kept = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    for fd, file in ((1, out), (2, err)):
        os.dup2(file.fileno(), fd)
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, encoding="utf-8", closefd=False) for fd in (1, 2))  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        for fd, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, fd)
            os.close(saved)
