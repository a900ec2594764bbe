"""The program of a process that :mod:`genbench.runs.distributed` starts: one of several that train a run."""

import os
import sys
import threading
from typing import Any

import torch.distributed as dist

from genbench.config import one_line
from genbench.runs import execute, process_group
from genbench.runs.run import Interrupted


def main(config: dict[str, Any], choices: dict[str, Any], overrides: list[str], typed: list[str], run_id: str) -> None:
    """Train the run that another process has planned, checked and locked; exit with status 1 if that fails."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        execute.run_together(config, choices=choices, overrides=overrides, typed=typed, run_id=run_id)
    except Interrupted:
        sys.exit(1)
    except BaseException as error:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        dist.TCPStore(*address, is_master=False).set(process_group.ERROR, one_line(error))
        sys.exit(1)


def _end_with_parent() -> None:
    """End this process with the one that started it, which closes the pipe."""
    while os.read(0, 1):  # nothing more is sent
        pass
    os._exit(1)
