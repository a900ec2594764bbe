"""Calls of the same operations as one CUDA graph: the CPU launches all kernels of a step at once."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


class Replayed(Protocol):
    """What :func:`_captured` returns, with the function's results: the tensors that each replay writes anew."""

    def replay(self) -> None: ...


def graphed(device: torch.device) -> bool:
    """Whether a device has such graphs."""
    return device.type == "cuda"


class CudaGraphs:
    """Calls functions by CUDA graphs, one for each set of shapes.

    A function reads tensors: its arguments, and others that stay where they are in memory. It may change these others.
    One that cannot be captured, as it waits for the GPU or memory lacks, is called as it is, and so is each one after
    it: a warning says so once.

    Args:
        preserved: a context that puts back what the functions change.
    """

    def __init__(self, preserved: Callable[[], AbstractContextManager[Any]]) -> None:
        self._preserved = preserved
        self._graphs: dict[Any, tuple[list[Tensor], Replayed, Any]] = {}
        self._failed = False

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """function(*args), of tensors or containers of such; the results are the caller's own."""
        leaves = tree_leaves(args)
        tensors = [_once(t) for t in leaves]
        key = function, *((whole.shape, t.shape, t.dtype) for whole, t in zip(leaves, tensors, strict=True))
        if key not in self._graphs and not self._failed:
            self._capture(key, function, args)
        if key not in self._graphs:
            return function(*args)
        inputs, graph, results = self._graphs[key]
        torch._foreach_copy_(inputs, tensors)
        graph.replay()
        return tree_map(torch.clone, results)

    def _capture(self, key: Any, function: Callable[..., Any], args: Any) -> None:
        inputs: list[Tensor] = []

        def kept(t: Tensor) -> Tensor:
            inputs.append(_once(t).clone())
            return inputs[-1].expand(t.shape)

        call = partial(function, *tree_map(kept, args))
        with self._preserved():
            _warmed_up(call)
            try:
                self._graphs[key] = inputs, *_captured(call)
            except RuntimeError as error:
                self._failed = True
                cause = error.__context__ or error  # the end of a capture that has failed fails, too
                reason = str(cause).strip().partition("\n")[0]
                warnings.warn(f"a step goes without a CUDA graph, operation by operation: {reason}", stacklevel=2)


def _once(t: Tensor) -> Tensor:
    """Numbers of memory that is written once: an expanded tensor has size 1 in place of its repetitions."""
    return t[tuple(slice(1) if stride == 0 else slice(None) for stride in t.stride())]


def _warmed_up(call: Callable[[], Any]) -> None:
    """Call twice on another stream than the current one, as CUDA wants it before a capture."""
    here, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(here)
    try:
        with torch.cuda.stream(side):
            for _ in range(2):  # the first may trace
                call()
    finally:
        here.wait_stream(side)


def _captured(call: Callable[[], Any]) -> tuple[Replayed, Any]:
    """The graph of a call, with its results."""
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    # the outer context leaves the stream where the capture fails; other threads may go on, as those that load data
    with torch.cuda.stream(side), torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        results = call()
    return graph, results
