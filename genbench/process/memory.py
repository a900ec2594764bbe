"""Memory of this process."""

import contextlib
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
_CGROUP = Path("/sys/fs/cgroup")  # a container's limits


def keep_freed(size: int = 2**28) -> None:
    """Make glibc's allocator request ``size`` bytes at a time and keep freed memory. A training step frees all its
    intermediate tensors; requesting zeroed pages again took a third of the time of a packed step, and of a single step
    on batches of images."""
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
    """Return the free bytes: of a GPU, or of this process within the limits of the system and its container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [psutil.virtual_memory().available]
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free.append(limit - psutil.Process().memory_info().vms)
    with contextlib.suppress(OSError, ValueError, KeyError):  # no container, or one without a limit
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free.append(limit - used + int(stat["inactive_file"]))  # files that were read are dropped when needed
    return max(0, min(free))
