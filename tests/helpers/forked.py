"""Python programs in processes of their own, forked from one that has imported torch and Lightning: they begin in a
tenth of a second, ``python -c`` in five."""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import ModuleType
from typing import Any

from genbench.runs.executors.processes import start_server


class Forked:
    """``python -c program *arguments`` in a folder; what :class:`subprocess.Popen` gives of it, as text.

    It leads a session. The workers that it starts come from the same server, so that their environment is the tests'.
    """

    def __init__(
        self, program: str, *arguments: str, folder: Path | str = ".", environment: Mapping[str, str] | None = None
    ) -> None:
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        theirs, ours = os.pipe()
        self.stdin = open(ours, "wb", buffering=0)  # noqa: SIM115
        context = start_server()
        own = dict(os.environ if environment is None else environment)
        streams = [DupFd(fd) for fd in (theirs, *(file.fileno() for file in self._files))]
        settings = (program, arguments, str(folder), own, _path(), streams)
        self._process = context.Process(target=_become, args=settings)
        self._process.start()
        os.close(theirs)
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("python", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        self.stdin.close()
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _path() -> list[str]:
    """Where a fresh interpreter looks for modules, ``PYTHONPATH`` apart."""
    code = "import sys; print(*sys.path[1:], sep='\\n')"
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def _become(
    program: str, arguments: Sequence[str], folder: str, environment: dict[str, str], path: list[str], streams: Any
) -> None:
    """Make this process what ``python -c`` would be, and run the program."""
    os.setsid()
    # who starts tests in the background has them ignore Ctrl-C, and they would hand that on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream.detach(), number)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    sys.path[:] = ["", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.modules["__main__"] = ModuleType("__main__")
    server = forkserver._forkserver  # type: ignore[attr-defined]
    forkserver.ensure_running = server.ensure_running = lambda: None  # it runs: this process is from it
    status: Any = 0
    try:
        exec(compile(program, "<string>", "exec"), vars(sys.modules["__main__"]))
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.exit(status)
