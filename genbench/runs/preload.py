"""What the process that workers are forked from imports."""

import gc
import importlib
import os
import signal

_command = os.getppid()
_before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the command
gc.disable()  # imports create a million lasting objects
for _module in ("torch", "pytorch_lightning", "genbench.runs.execute"):
    importlib.import_module(_module)
    if os.getppid() != _command:  # it has ended already, because of a wrong word say
        os._exit(0)
gc.freeze()  # no worker looks through them, which would also copy them
gc.enable()
signal.signal(signal.SIGINT, _before)
