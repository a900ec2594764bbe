"""The rehearsal of a GPU, :mod:`tests.device.rehearsal`, in processes of its own.

Autograd knows the devices that there were at the first gradient of a process, and refuses the pretended one after that.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REHEARSAL = Path(__file__).with_name("rehearsal.py")
TESTS = re.findall(r"^def (test_\w+)\(", REHEARSAL.read_text(), re.MULTILINE)
LONG = ["test_trains_alone_and_packed_and_is_evaluated", "test_measures"]  # half of the time each


@pytest.mark.timeout(900)
@pytest.mark.parametrize("names", [[name] for name in LONG] + [[name for name in TESTS if name not in LONG]], ids=len)
def test_rehearsal(names):
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *(f"{REHEARSAL}::{name}" for name in names)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "GENBENCH_"))}
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout[-20_000:]
    assert re.search(r"\d+ (passed|skipped)", ended.stdout), ended.stdout
