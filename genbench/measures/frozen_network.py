"""A network at fixed weights: put into the live modules while it is measured, and taken out again."""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genbench.measures.guard import plain_kernels, restoring
from genbench.measures.products import flat
from genbench.measures.random_state import restoring_random_state
from genbench.measures.supported import check_weights, shared_memory_note
from genbench.module_state import ModuleTensors, attributes_of, renamed, unwrapped
from genbench.numpy_linear import NumpyLinear
from genbench.process import blas

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", bound="FrozenNetwork")


@dataclass
class Session:
    """State that all views of one network share while it is measured."""

    live: ModuleTensors | None = None  # None while nobody measures
    attributes: Any = ()  # of the modules, restored after each pass
    room: int | None = None  # bytes for the graph of one gradient
    progress: Any = None  # counts the passes over the data
    by_numpy: bool = False  # NumPy computes large linear layers
    differentiates: bool = False  # the forward pass takes derivatives itself, as a potential does by its inputs
    converted: bool = False  # the modules hold other tensors than the live ones, in another dtype
    placed: list[tuple[Any, ...]] = field(default_factory=list)  # weights put into the network, the current ones last


# snapshots of several moments of one network may be measured at once
_SESSIONS: WeakKeyDictionary[nn.Module, Session] = WeakKeyDictionary()


def stepwise(function: Callable[Concatenate[N, P], Iterator[T]]) -> Callable[Concatenate[N, P], Iterator[T]]:
    """Run each step of a generator within :meth:`FrozenNetwork.measuring`, and restore the network between the steps.

    The caller may train, measure another moment, or stop asking between two items.
    """

    @wraps(function)
    def steps(self: N, *args: P.args, **settings: P.kwargs) -> Iterator[T]:
        items = function(self, *args, **settings)
        while True:
            with self.measuring():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    return steps


class FrozenNetwork:
    """A copy of a network's weights and buffers, and the live network to put them into.

    Args:
        model: any network; of a wrapper (torch.compile, DataParallel, DistributedDataParallel) the network inside.
        initial: state dict of the initial weights.

    Attributes:
        parameters: name -> trainable parameter.
        fixed: name -> frozen parameter or buffer.
        size: number of trainable parameters.
        dtype: precision of a view in another precision than the network's own, else None.
        source: refers to what such a view was made of; None for any other.

    Raises:
        ValueError: not a network, no trainable parameters, or weights that are not finite, sharded or quantized.
    """

    def __init__(self, model: nn.Module, *, initial: Mapping[str, Tensor] | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is {type(model).__name__!r}; accepted: a torch.nn.Module")
        inner = unwrapped(model)
        self.model = inner
        self.initial = None if initial is None else renamed(initial, inner)
        live = dict(inner.named_parameters())
        lazy = [name for name, p in live.items() if nn.parameter.is_lazy(p)]
        if lazy:
            raise ValueError(f"parameter {lazy[0]!r} is not initialized: run the model on one batch first")
        if not any(p.requires_grad for p in live.values()):
            raise ValueError("model has no trainable parameters (none has requires_grad)")
        check_weights(inner)
        self.note_of_weights = shared_memory_note(inner)  # added to every estimate
        with torch.no_grad(), torch.inference_mode(False):
            self.parameters = {name: p.detach().clone() for name, p in live.items() if p.requires_grad}
            self.fixed = {name: p.detach().clone() for name, p in live.items() if not p.requires_grad}
            buffers = {name: b.detach().clone() for name, b in inner.named_buffers()}
        for name, p in (self.parameters | self.fixed).items():
            check_finite(name, p)
        for name, b in buffers.items():
            check_finite(name, b, infinite=True)  # an attention mask may be -inf
        self.fixed |= buffers

        self.size = sum(p.numel() for p in self.parameters.values())
        self.device = next(iter(self.parameters.values())).device
        self.recurrent = any(isinstance(m, nn.RNNBase) for m in inner.modules())
        self.session = _SESSIONS.setdefault(inner, Session())
        self.dtype: torch.dtype | None = None
        self.source: Callable[[], Any] | None = None
        self._leaves: dict[str, nn.Parameter] = {}  # of that dtype
        self._shared: dict[Any, Any] = {}

    @property
    def vector(self) -> Tensor:
        """The trainable parameters as one vector [size], float64, in the order of ``parameters``."""
        return self.shared("vector", lambda: flat(self.parameters.values()))

    @property
    def state(self) -> dict[str, Tensor]:
        """All parameters and buffers, trainable or not, by the names of a state dict; shared ones once."""
        return self.parameters | self.fixed

    @property
    def live(self) -> ModuleTensors:
        """The live network's tensors, within :meth:`measuring`."""
        assert self.session.live is not None
        return self.session.live

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector [size] as tensors by the parameters' names, in their shapes and precision."""
        pieces = vector.split([p.numel() for p in self.parameters.values()])
        return {
            name: piece.to(p.dtype).reshape(p.shape)
            for (name, p), piece in zip(self.parameters.items(), pieces, strict=True)
        }

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value that several measures need: made once, kept under ``key``."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def view(self, keep: tuple[str, ...], **changes: Any) -> Self:
        """A copy with some attributes changed that keeps, of the shared values, those under ``keep`` alone."""
        other = copy.copy(self)
        other.source = None
        vars(other).update(changes)
        other._shared = {key: value for key, value in self._shared.items() if key in keep}
        return other

    def in_dtype(self, dtype: torch.dtype, keep: tuple[str, ...], **changes: Any) -> Self:
        """A :meth:`view` whose parameters and buffers are converted to another floating-point dtype."""

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        parameters = {name: cast(p) for name, p in self.parameters.items()}
        fixed = {name: cast(t) for name, t in self.fixed.items()}
        return self.view(keep, parameters=parameters, fixed=fixed, dtype=dtype, _leaves={}, **changes)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output for other arguments, at these weights and in evaluation mode."""
        with self.measuring(), NumpyLinear() if self.session.by_numpy else nullcontext():  # as batches are computed
            return self.model(*args, **kwargs)

    @contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Put other tensors, of any kind and dtype, into the places of some of the network's own."""
        with self.measuring(), self.live.replace_tensors(tensors):
            yield

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Put the snapshot's weights into the network, in evaluation mode with gradients on, and restore everything.

        Restored, also after an exception: weights, buffers, gradients, ``requires_grad``, modes, hooks, the global
        random state and that of the loader's generators.
        """
        if self.is_placed():
            yield
            return
        if self.session.live is not None:
            self._check_names(self.session.live)
            with self.placed():
                yield
            return
        with ExitStack() as stack:
            stack.enter_context(restoring_random_state())
            for module in self.measured_modules():
                stack.enter_context(restoring(module))
                for part in module.modules():
                    part.training = False
            stack.enter_context(plain_kernels(self.device))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # neither fused attention nor cuDNN's recurrent kernels have a second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self.recurrent and self.device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            if "torch._dynamo" in sys.modules:  # compiled code has no second derivative either
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for module in self.model.modules():
                if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                    module.sparse = False  # sparse gradients have none either
            live = ModuleTensors(self.model)
            self._check_names(live)
            self.session.live = live
            self.session.by_numpy = torch.get_num_threads() == 1 and blas.serves_packs()
            self.session.attributes = attributes_of(list(self.model.modules()))
            try:
                with self.placed():
                    yield
            finally:
                self.session.live, self.session.room, self.session.attributes = None, None, []
                self.session.converted = False
                live.restored = True  # a generator that is closed later must not restore again
                self.session.placed.clear()

    def measured_modules(self) -> list[nn.Module]:
        """The modules that run while measuring, and are restored afterwards."""
        return [self.model]

    def is_placed(self) -> bool:
        """Whether this network's own weights are the ones in the live network now."""
        placed = self.session.placed
        return bool(placed) and _identical(placed[-1], (self.parameters, self.fixed, None))

    @contextmanager
    def placed(self, values: Mapping[str, Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        """Put values of the parameters (the network's own for None) and everything else into the live network.

        Forward and backward pass, loss and hooks all see them. Gives the parameters as leaves of autograd; their
        graphs may be used within such a context alone.
        """
        session, live = self.session, self.live
        key = (self.parameters, self.fixed, values)
        leaves = self._own_leaves(live)
        if session.placed and _identical(session.placed[-1], key):
            yield leaves
            return
        state = {**self.fixed, **(self.parameters if values is None else values)}
        # a forward pass may change these in place: it gets copies
        moving = live.buffers.keys() | self.parameters.keys()
        state = {name: t.clone() if name in moving else t for name, t in state.items()}
        with ExitStack() as stack:
            if self.dtype is None:
                if session.converted:  # the modules hold the leaves of a view in another dtype
                    stack.enter_context(live.replace_tensors({name: live.tensors[name] for name in state}))
                stack.enter_context(live.replace_data(state, leaves=self.parameters.keys()))
            else:  # the live tensors keep their dtype: processes that share the network hold on to their gradients
                plain = {name: t.to(live.tensors[name].dtype) for name, t in state.items()}
                stack.enter_context(live.replace_data(plain, leaves=()))
                held = {name: t for name, t in state.items() if name not in leaves}
                stack.enter_context(live.replace_tensors({**held, **leaves}))
                for name, leaf in leaves.items():
                    stack.callback(_set, leaf, leaf.data, leaf.requires_grad)
                    _set(leaf, state[name], True)
                stack.callback(setattr, session, "converted", session.converted)
                session.converted = True
            session.placed.append(key)
            try:
                yield leaves
            finally:
                session.placed[:] = [other for other in session.placed if other is not key]

    def _own_leaves(self, live: ModuleTensors) -> dict[str, Tensor]:
        """The tensors by which autograd knows the parameters: the live ones, or the view's own in another dtype."""
        if self.dtype is None:
            return {name: live.tensors[name] for name in self.parameters}
        if not self._leaves:
            self._leaves.update({name: nn.Parameter(p.clone()) for name, p in self.parameters.items()})
        return {name: self._leaves[name] for name in self.parameters}

    def _check_names(self, live: ModuleTensors) -> None:
        if missing := self.state.keys() ^ live.tensors.keys():
            raise ValueError(f"the model has changed since the snapshot: {min(missing)!r} was added or removed")


def check_finite(name: str, tensor: Tensor, *, infinite: bool = False) -> None:
    """Refuse NaN, and infinities unless ``infinite``.

    Raises:
        ValueError: the name of the tensor.
    """
    bad = tensor.isnan() if infinite else ~torch.isfinite(tensor)
    if bad.any():
        raise ValueError(f"weights {name!r} are not finite ({'NaN' if infinite else 'NaN or infinite'})")


def _set(leaf: Tensor, data: Tensor, requires_grad: bool) -> None:
    leaf.data = data
    leaf.requires_grad_(requires_grad)


def _identical(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return all(x is y for x, y in zip(a, b, strict=True))
