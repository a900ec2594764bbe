"""Memory of the process."""

import ctypes
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_M_TOP_PAD = -2  # glibc's mallopt


def keep_freed(size: int = 2**28) -> None:
    """Let the allocator ask the system for ``size`` bytes at a time and keep them when they are freed, where it is
    glibc's. A training step frees all its intermediate tensors: fetching their pages anew from the system, zeroed, took
    a third of the time of a packed step, and of a single one on batches of images."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_TOP_PAD, size)


class Allocated(TorchDispatchMode):
    """Counts the bytes of the tensors that operations allocate."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if _is_stored(t)}
        for t in tree_leaves(result):
            if _is_stored(t) and t.untyped_storage().data_ptr() not in known:
                self.bytes += t.nbytes
        return result


def _is_stored(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def room(device: torch.device) -> int:
    """Bytes that are free: on a GPU, or for this process by the system and by the limits that it runs under."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [psutil.virtual_memory().available]
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free.append(limit - psutil.Process().memory_info().vms)
    try:  # a container's limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        free.append(limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(0, min(free))
