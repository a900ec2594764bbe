"""NumPy's matrix products, which packs and measures use on AMD's processors."""

from functools import cache
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController


def serves_packs() -> bool:
    """Whether NumPy computes the matrix products of packs and measures. Those of torch, by MKL, take up to three times
    as long on AMD's processors, whose widest vectors MKL does not use. NumPy's OpenBLAS has to compute in one thread.
    """
    if not _is_amd() or "openblas" not in np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]:
        return False
    return all(library["num_threads"] == 1 for library in _libraries().info() if library["user_api"] == "blas")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # to look for them takes two milliseconds


@cache
def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
