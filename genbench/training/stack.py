"""Compute modules of one structure as one."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.im2col import Im2col, linear
from genbench.module_state import ModuleTensors
from genbench.training.batch_norm import batch_statistics, by_channel
from genbench.training.contents import OF_MODULES, is_foreign
from genbench.training.program import compiled, quickened, shortened

_VECTOR = 64  # bytes of the longest vectors that processors compute with


class Stack:
    """Modules that differ in nothing but the values of their tensors, computed as one by ``torch.vmap``.

    Their tensors become views of common storage, so that each stays an ordinary module: a change of the module is a
    change of its row, and the other way round.

    Args:
        modules: at least one.
        fixed: names of parameters that are not trained although they are not frozen.

    Attributes:
        flat: the trainable parameters [modules, size], one row per module. Zeros pad a row to whole vectors of the
            processor: a kernel computes a remainder in another way, so that rows in one tensor would change each
            other's bits.
        weights: views [modules, ...] of ``flat``, one per parameter.
        gradient: their gradient, shaped as ``flat``; its last columns are ``padding``.
        rest: buffers and frozen parameters [modules, ...].

    Raises:
        ValueError: modules of different structure, or trainable parameters of several types or devices.
    """

    def __init__(self, modules: Sequence[nn.Module], *, fixed: Collection[str] = ()) -> None:
        def is_trained(name: str, p: Tensor) -> bool:
            return p.requires_grad and name not in fixed

        def rest_of(module: nn.Module) -> dict[str, Tensor]:
            untrained = {name: p for name, p in module.named_parameters() if not is_trained(name, p)}
            return untrained | dict(module.named_buffers())

        first = modules[0]
        for index, other in enumerate(modules):
            if (difference := _difference(first, other)) is not None:
                raise ValueError(f"network {index} cannot be stacked on network 0: {difference}")
        self.modules = list(modules)
        self._tensors = ModuleTensors(first)
        shapes = {name: p.shape for name, p in first.named_parameters() if is_trained(name, p)}
        kinds = sorted({f"{p.dtype} on {p.device}" for name, p in first.named_parameters() if name in shapes})
        if len(kinds) != 1:
            raise ValueError(f"trainable parameters are {' and '.join(kinds) or 'missing'}; accepted: of one type")

        ends = [0, *torch.tensor([shape.numel() for shape in shapes.values()]).cumsum(0).tolist()]
        self._spans = dict(zip(shapes, pairwise(ends), strict=True))
        with torch.no_grad():
            rows = torch.stack(
                [torch.cat([p.detach().reshape(-1) for n, p in m.named_parameters() if n in shapes]) for m in modules]
            )
            self.padding = rows.new_zeros(len(modules), -rows.shape[1] % (_VECTOR // rows.itemsize))
            self.flat = torch.cat([rows, self.padding], 1)
        self.gradient = torch.zeros_like(self.flat)
        self.weights = [self.flat[:, a:b].unflatten(1, shapes[name]) for name, (a, b) in self._spans.items()]
        every = [rest_of(module) for module in modules]
        rest = {name: [tensors[name].detach() for tensors in every] for name in every[0]}
        self._rest = {name: torch.stack(tensors) for name, tensors in rest.items()}
        self.rest = list(self._rest.values())
        for index, module in enumerate(modules):
            self._tie(index, module)

    def __len__(self) -> int:
        return len(self.modules)

    def map(
        self, function: Callable[..., Any], *args: Any, weights: Sequence[Tensor], shared: Sequence[Any] = ()
    ) -> Any:
        """Return function(module, *args, *shared) of every module at once, at ``weights``. ``args`` are tensors with a
        leading axis of modules, or containers of such; ``shared`` is the same for all modules."""
        own = dict(zip(self._spans, weights, strict=True)) | dict(zip(self._rest, self.rest, strict=True))

        def one(own: dict[str, Tensor], *args: Any) -> Any:
            with self._tensors.replace_tensors(own):
                return function(self.modules[0], *args, *shared)

        with Lanewise():
            return torch.vmap(one)(own, *args)

    def traced(self, function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """Trace function(weights, *args) to its operations on stacked tensors, backward passes included. A call then
        runs these alone, without modules, vmap and autograd, which take most of the time of a small step.

        ``args`` are examples for later calls, all tensors. Changes of the modules' tensors in place happen at every
        call; a Python number that the function reads becomes a constant.
        """
        from torch._guards import TracingContext, tracing
        from torch._subclasses import FakeTensorMode
        from torch.fx.experimental.proxy_tensor import make_fx

        def whole(weights: list[Tensor], rest: list[Tensor], *args: Any) -> Any:
            before, self.rest = self.rest, rest
            try:
                return function(weights, *args)
            finally:
                self.rest = before

        # one mode for the shapes of all operations: make_fx would make one for each, which is half of its time
        with self.preserved(), tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
            program = quickened(shortened(make_fx(whole)(self.weights, self.rest, *args)))
        return compiled(program, [*self.weights, *self.rest])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the modules [modules, ...]: the weights as one, and what is not trained by its name."""
        return {"weights": self.flat} | self._rest

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Put back every tensor of every module when the context ends."""
        live = [self.flat, *self.rest]
        kept = [tensor.clone() for tensor in live]
        try:
            yield
        finally:
            for tensor, before in zip(live, kept, strict=True):
                tensor.copy_(before)

    def release(self, index: int) -> None:
        """Give a module tensors of its own, so that changes of its row no longer reach it."""
        module = self.modules[index]
        for p in module.parameters():
            p.data = p.data.clone()
        for owner, name, buffer in _buffers(module):
            owner._buffers[name] = buffer.clone()

    def _tie(self, index: int, module: nn.Module) -> None:
        for name, p in module.named_parameters():
            if name in self._spans:
                a, b = self._spans[name]
                p.data = self.flat[index, a:b].view(p.shape)
            else:
                p.data = self._rest[name][index]
        found = {id(buffer): name for name, buffer in module.named_buffers()}
        for owner, name, buffer in _buffers(module):
            owner._buffers[name] = self._rest[found[id(buffer)]][index]


class Lanewise(Im2col):
    """Replaces convolutions, recurrences and batch normalization by operations whose result for a lane does not depend
    on the number of lanes. torch's own change in the last bit with that number, have no batching rule, or, for the
    padding of an embedding, a wrong one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            return linear(*args, **(kwargs or {}))
        if func is F.embedding:
            return _embedding(*args, **(kwargs or {}))
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        if (unit := _UNITS.get(func)) is not None:
            input, hx, *settings = args
            return _recurrent(unit, input, (hx,) if isinstance(hx, Tensor) else tuple(hx), *settings)
        return super().__torch_function__(func, types, args, kwargs)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm."""
    if training:
        mean, variance, centred = batch_statistics(input)
        if running_mean is not None and running_var is not None:
            n = input.numel() // input.shape[1]
            with torch.no_grad():
                running_mean.mul_(1 - momentum).add_(mean.detach() * momentum)
                running_var.mul_(1 - momentum).add_(variance.detach() * (momentum * n / (n - 1)))
    else:
        assert running_mean is not None
        assert running_var is not None
        centred, variance = input - by_channel(running_mean, input), running_var
    scale = (variance + eps).rsqrt()
    scaled = centred * by_channel(scale if weight is None else scale * weight, input)
    return scaled if bias is None else scaled + by_channel(bias, input)


def _embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """torch.nn.functional.embedding. Under vmap, torch 2.13 trains the padding in all lanes but the first."""
    output = F.embedding(input, weight, None, *args, **kwargs)
    if padding_idx is None:
        return output
    return torch.where((input == padding_idx % len(weight))[..., None], output.detach(), output)


def _recurrent(
    unit: Callable[..., tuple[Tensor, ...]],
    input: Tensor,
    hx: tuple[Tensor, ...],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """torch's recurrent layers, which have no batching rule; both directions of a layer are computed together.

    ``unit(inputs, outputs, *state)`` returns the new state, the output first. ``inputs`` and ``outputs`` are the
    contributions of this step's input and of the previous output, each [directions, B, gates · width].
    """
    if dropout and train:
        raise ValueError("a recurrence's own dropout draws from torch's generator; accepted: slots between layers")
    directions, each = (2 if bidirectional else 1), (4 if has_biases else 2)
    x = input.movedim(1, 0) if batch_first else input  # [T, B, inputs]
    states = []
    for layer in range(num_layers):
        first = layer * directions * each
        weights = [torch.stack(list(params[first + i : first + directions * each : each])) for i in range(each)]
        gates = torch.stack([x, x.flip(0)] if bidirectional else [x]).flatten(1, 2) @ weights[0].mT
        if has_biases:
            gates = gates + weights[2][:, None]
        state, outputs = tuple(h[layer * directions : (layer + 1) * directions] for h in hx), []
        for now in gates.unflatten(1, x.shape[:2]).unbind(1):  # [directions, B, gates · width]
            back = state[0] @ weights[1].mT
            if has_biases:
                back = back + weights[3][:, None]
            state = unit(now, back, *state)
            outputs.append(state[0])
        states.append(state)
        passed = torch.stack(outputs, 1)  # [directions, T, B, width]
        x = torch.cat([passed[0], passed[1].flip(0)], -1) if bidirectional else passed[0]
    return x.movedim(0, 1) if batch_first else x, *(torch.cat(parts) for parts in zip(*states, strict=True))


def _gru(now: Tensor, back: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    reset, update, new = now.chunk(3, -1)
    reset_back, update_back, new_back = back.chunk(3, -1)
    candidate = (new + (reset + reset_back).sigmoid() * new_back).tanh()
    return (candidate + (update + update_back).sigmoid() * (h - candidate),)


def _lstm(now: Tensor, back: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    enter, forget, new, leave = (now + back).chunk(4, -1)
    c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * c.tanh(), c


def _rnn_tanh(now: Tensor, back: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return ((now + back).tanh(),)


def _rnn_relu(now: Tensor, back: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return ((now + back).relu(),)


_UNITS: dict[Any, Callable[..., tuple[Tensor, ...]]] = {
    torch.gru: _gru,
    torch.lstm: _lstm,
    torch.rnn_tanh: _rnn_tanh,
    torch.rnn_relu: _rnn_relu,
}


def _buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """The owner, name and tensor of every buffer."""
    return [(m, name, b) for m in module.modules() for name, b in m._buffers.items() if b is not None]


def _difference(first: nn.Module, other: nn.Module) -> str | None:
    """The difference that keeps two modules from being stacked, or None."""

    def described(module: nn.Module) -> dict[str, str]:
        tensors = [*module.named_parameters(), *module.named_buffers()]
        found = {name: f"{type(m).__qualname__}({m.extra_repr()})" for name, m in module.named_modules()}
        for name, m in list(module.named_modules())[1:]:  # a plain number would be that of module 0 for all
            private = name.startswith("methods.")  # a network's private numbers may be those that it starts from
            plain = {
                k: v
                for k, v in vars(m).items()
                if isinstance(v, int | float | str)
                and k not in OF_MODULES
                and (private or not k.startswith("_"))
                and not is_foreign(m)  # of which a pack looks whether a step reads it
            }
            found |= {f"{name}.{k}": repr(v) for k, v in plain.items()}
        return found | {
            name: f"{tuple(t.shape)} {t.dtype} on {t.device}" + (", trained" if t.requires_grad else "")
            for name, t in tensors
        }

    ours, theirs = described(first), described(other)
    for name in [*ours, *theirs]:
        a, b = ours.get(name, "missing"), theirs.get(name, "missing")
        if a != b:
            return f"{name or 'network'} is {b}, not {a}"
    return None
