"""What the process that workers are forked from imports."""

import importlib
import os
import signal

from genbench.process.imports import sparing, without_collecting

_command = os.getppid()
_before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the command
with without_collecting(), sparing():
    for _module in ("torch", "pytorch_lightning", "genbench.runs.execute"):
        importlib.import_module(_module)
        if os.getppid() != _command:  # it has ended already, because of a wrong word say
            os._exit(0)
signal.signal(signal.SIGINT, _before)
