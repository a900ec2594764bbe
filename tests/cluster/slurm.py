"""A stand-in for SLURM on this machine: sbatch, srun, sacct, scancel and scontrol, as far as submitit uses them.

Jobs start at once, whatever they ask for, and really run. ``FAKE_SLURM`` is the folder of its state: of job N the
script (``N.sh``) and the state (``N.state``); that a file ``N.cancel`` or ``N.requeue`` lies there asks for it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel", "scontrol")


def install(folder: Path) -> dict[str, str]:
    """Put the commands into ``folder``/bin; the environment in which they are found."""
    for name in ("bin", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        command.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(folder / "state")}


def scripts(folder: Path) -> list[str]:
    """What was submitted, in order."""
    paths = sorted((folder / "state").glob("*.sh"), key=lambda path: int(path.stem))
    return [path.read_text() for path in paths]


def main(command: str, arguments: list[str]) -> int:
    state = Path(os.environ["FAKE_SLURM"])
    if command == "sbatch":
        script = Path(arguments[-1]).read_text()
        if "--partition=closed" in script:
            print("sbatch: error: invalid partition specified: closed", file=sys.stderr)
            return 1
        number = 1
        while True:
            try:
                with (state / f"{number}.sh").open("x") as file:
                    file.write(script)
                break
            except FileExistsError:
                number += 1
        (state / f"{number}.state").write_text("RUNNING")
        subprocess.Popen(
            [sys.executable, __file__, "daemon", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        print(f"Submitted batch job {number}")
    elif command == "daemon":
        return _daemon(state, arguments[0])
    elif command == "srun":
        names = {}
        while arguments[0].startswith("--"):
            option = arguments.pop(0)
            if option in ("--output", "--error"):
                names[option] = arguments.pop(0).replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
        for number, option in ((1, "--output"), (2, "--error")):
            os.dup2(os.open(names[option], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.execvpe(arguments[0], arguments, {**os.environ, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    elif command == "sacct":
        print("JobID|State|NodeList")
        for number in {b for a, b in pairwise(arguments) if a == "-j"}:
            print(f"{number}|{(state / f'{number}.state').read_text()}|localhost")
    elif command == "scancel":
        (state / f"{arguments[0]}.cancel").touch()
    elif command == "scontrol":
        assert arguments[0] == "requeue"
        (state / f"{arguments[1]}.requeue").touch()
    return 0


def _daemon(state: Path, number: str) -> int:
    """Run a job, again if it asks for that, and end it when somebody asks for that."""
    script, cancel, requeue = (state / f"{number}.{name}" for name in ("sh", "cancel", "requeue"))
    output = re.search(r"--output=(\S+)", script.read_text())
    assert output
    given = {
        "JOB_ID": number,
        "NTASKS": "1",
        "NNODES": "1",
        "JOB_NUM_NODES": "1",
        "NODEID": "0",
        "JOB_NAME": "genbench",
    }
    environment = {**os.environ, **{f"SLURM_{key}": value for key, value in given.items()}}
    while True:
        with open(output[1].strip("'").replace("%j", number), "a") as log:
            process = subprocess.Popen(
                ["bash", str(script)], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        asked = None
        while process.poll() is None:
            time.sleep(0.1)
            if cancel.exists():
                asked = asked or time.monotonic()
                late = time.monotonic() > asked + 3
                os.killpg(process.pid, signal.SIGKILL if late else signal.SIGTERM)
                time.sleep(0.5)
        if cancel.exists() or not requeue.exists():
            break
        requeue.unlink()
    (state / f"{number}.state").write_text(
        "CANCELLED" if cancel.exists() else "FAILED" if process.returncode else "COMPLETED"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
