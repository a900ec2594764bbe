"""Commands as a user types them, run in the process of the tests: one of its own takes six seconds to begin, and its
workers as long again."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest


def typed(folder: Path, name: str, *arguments: str | Path) -> tuple[Any, str, str]:
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
            patch.setenv("COLUMNS", "120")
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


def ended_by(process: subprocess.Popen[str], number: int, *, within: float) -> None:
    """Send a signal to a command alone, as whoever works for it is its own to end: it ends within these seconds, with
    the line that says so."""
    process.send_signal(number)
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < within
    assert process.returncode == 130, err
    assert [line for line in err.splitlines() if "continues" in line] == [
        "genbench: interrupted; the same command continues"
    ]
    assert "Traceback" not in out + err, err


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
