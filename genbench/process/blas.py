"""NumPy's matrix products, which packs use on AMD's processors."""

import os
import sys
from functools import cache
from pathlib import Path

_THREADS = "OPENBLAS_NUM_THREADS"
_prepared = False


def prepare() -> None:
    """Import NumPy so that its OpenBLAS computes in the calling thread alone. It reads how from the environment, once.
    Without effect where NumPy is imported already."""
    global _prepared
    if "numpy" in sys.modules:
        return
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        import numpy
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before
    _prepared = "openblas" in numpy.__config__.CONFIG["Build Dependencies"]["blas"]["name"]


@cache
def serves_packs() -> bool:
    """Whether NumPy computes the matrix products of packs. Those of torch, by MKL, take up to three times as long on
    AMD's processors, whose widest vectors MKL does not use. False where :func:`prepare` came too late."""
    try:
        return _prepared and "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
