"""A network frozen at one point of training, with the loss and the data it is measured on."""

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

Loss = Callable[[Any, Any], Tensor]
Forward = Callable[[nn.Module, Any], tuple[Any, Any]]
Graph = tuple[float, tuple[Tensor, ...], tuple[Tensor, ...]]  # share of the examples, gradient, its parameters

_SLICE = 1024  # examples


class Snapshot:
    """A network with its weights at this moment, its loss and its data.

    L(w) = Σ_b n_b · loss(output_b, target_b) / Σ_b n_b over the batches b, n_b the examples in a batch: the mean over
    all examples, however they are split. ``loss`` must therefore be a mean over the examples of its batch (torch's
    default reduction) and n_b is the length of the target (of the output, where the target has none).

    Weights and buffers are copied: later training does not change a snapshot, and measuring it never changes training.
    The network is measured in evaluation mode and must then be deterministic. Products with the Hessian keep the graph
    of the gradient where the data are one batch (fastest); with several batches, memory is that of the largest.

    Args:
        model: any network. A module list ``model.members`` marks an ensemble: see :func:`genbench.measures.measure`.
        loss: (output, target) -> scalar tensor, the mean over the batch.
        batches: (input, target) pairs, or anything that ``forward`` understands. Passes over a loader all start from
            the same random state, so that they see the same order and the same augmentation.
        initial: state dict of the initial weights, for distances.
        forward: (model, batch) -> (output, target).

    Raises:
        ValueError: not a network, weights that are not finite, no batches, batches of another form, a loss that is
            not a finite number, or a network that draws random numbers in evaluation mode.

    Example:
        >>> batches = [(torch.ones(4, 3), torch.zeros(4, dtype=torch.long))]
        >>> snapshot = Snapshot(nn.Linear(3, 2), nn.functional.cross_entropy, batches)
        >>> snapshot.size, snapshot.examples
        (8, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[Any],
        *,
        initial: Mapping[str, Tensor] | None = None,
        forward: Forward | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is {type(model).__name__!r}; accepted: a torch.nn.Module")
        if not callable(loss):
            raise ValueError(f"loss is {loss!r}; accepted: a function of (output, target)")
        if not isinstance(batches, Iterable):
            raise ValueError(f"batches is {type(batches).__name__!r}; accepted: an iterable of batches")
        self.model = model
        self.loss = loss
        self.initial = initial
        self.forward = forward
        if isinstance(batches, Iterator):  # it gives its batches once
            with preserved_random_state():
                batches = list(batches)
        self.batches = batches

        live = dict(model.named_parameters())
        lazy = [name for name, p in live.items() if nn.parameter.is_lazy(p)]
        if lazy:
            raise ValueError(f"parameter {lazy[0]!r} is not initialized: run the model on one batch first")
        if not any(p.requires_grad for p in live.values()):
            raise ValueError("model has no trainable parameters (none has requires_grad)")
        with torch.no_grad(), torch.inference_mode(False):
            self.parameters = {name: p.detach().clone() for name, p in live.items() if p.requires_grad}
            frozen = {name: p.detach().clone() for name, p in live.items() if not p.requires_grad}
            frozen |= {name: b.detach().clone() for name, b in model.named_buffers()}
        for name, p in (self.parameters | frozen).items():
            if not torch.isfinite(p).all():
                raise ValueError(f"weights {name!r} are not finite (NaN or infinite)")

        self.size = sum(p.numel() for p in self.parameters.values())
        self.device = next(iter(self.parameters.values())).device
        self._frozen = {f"model.{name}": b for name, b in frozen.items()}
        self._program = _Program(model, forward)
        self._random_state = None if isinstance(batches, list | tuple) else _random_state(self.device)
        self._loader_state = [(g, g.get_state()) for g in _generators(batches)]
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
        self._depth = 0
        self._shared: dict[Any, Any] = {}

    # -- what measures ask for

    @property
    def vector(self) -> Tensor:
        """The trainable parameters as one vector [size], float64, in the order of ``parameters``."""
        return self.shared("vector", lambda: _flat(self.parameters.values()))

    @property
    def predictions(self) -> list[tuple[Any, Any]]:
        """(output, target) of every batch: one forward pass, kept."""
        return self._pass[0]

    @property
    def mean_loss(self) -> float:
        """L(w)."""
        return _mean(self._pass[1])

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(n for _, n in self._pass[1])

    @property
    def members(self) -> "list[Snapshot]":
        """A snapshot of each member of an ensemble; empty for any other network."""
        modules = getattr(self.model, "members", None)
        if not isinstance(modules, nn.ModuleList):
            return []
        return self.shared("members", lambda: [self._member(i, m) for i, m in enumerate(modules)])

    def loss_at(self, vector: Tensor) -> float:
        """L at other weights [size]."""
        with self.measuring(), torch.no_grad():
            values = [(self._run(batch, self._split(vector))[2:]) for batch in self._each()]
            return _mean(values)

    def gradient_at(self, vector: Tensor) -> tuple[float, Tensor]:
        """L and its gradient [size], float64, at other weights [size]."""
        with self.measuring():
            leaves = {name: p.requires_grad_() for name, p in self._split(vector).items()}
            values, total = [], torch.zeros_like(self.vector)
            for batch in self._each():
                _, _, loss, n = self._run(batch, leaves)
                total += n * _flat(_gradient(loss, leaves, create_graph=False))
                values.append((loss.detach(), n))
            return _mean(values), total / sum(n for _, n in values)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """∇²L(w) · vector, [size] float64."""
        with self.measuring():
            v = tuple(self._split(vector).values())
            kept: list[Graph] | None = self._shared.get("graphs")
            if kept is not None:
                return _products(kept, v)
            examples, whole = self.examples, self._pass[1]  # the first pass refuses what cannot be measured
            total = torch.zeros_like(self.vector)
            for index, batch in enumerate(self._each()):
                graphs = self._graphs(batch, *whole[index], examples=examples)
                total += _products(graphs, v)
                if len(whole) == 1:
                    self._shared["graphs"] = graphs
                del graphs  # before the next batch's are built
            return total

    def with_loss(self, loss: Loss) -> "Snapshot":
        """The same network and data under another loss."""
        other = copy.copy(self)
        other.loss = loss
        other._shared = {"vector": self.vector}
        return other

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """What several measures need: made once, kept under ``key``."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Evaluation mode with gradients on; everything is as before afterwards, also when something raises: weights,
        buffers, gradients, ``requires_grad``, modes, hooks, global random state and that of the loader's generators."""
        if self._depth:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(preserved_random_state(self.batches))
            stack.enter_context(_preserved(self.model))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # the fused attention and cudnn's recurrent kernels have no second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._recurrent and self.device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            for module in self.model.modules():
                module.training = False
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    # -- how

    @property
    def _pass(self) -> tuple[list[tuple[Any, Any]], list[tuple[Tensor, int]]]:
        """(output, target) of every batch, and its loss and number of examples."""
        return self.shared("pass", self._evaluate)

    def _evaluate(self) -> tuple[list[tuple[Any, Any]], list[tuple[Tensor, int]]]:
        with self.measuring(), torch.no_grad():
            runs = [self._run(batch, self.parameters, deterministic=True) for batch in self._each()]
            finite = torch.isfinite(torch.stack([loss for _, _, loss, _ in runs])).tolist()
            if not all(finite):
                index = finite.index(False)
                raise ValueError(f"loss is {float(runs[index][2])} on batch {index}; accepted: a finite number")
            return [(output, target) for output, target, _, _ in runs], [(loss, n) for _, _, loss, n in runs]

    def _graphs(self, batch: Any, loss: Tensor, n: int, *, examples: int) -> "list[Graph]":
        """The gradient of one batch with its graph; of slices of it, which stay in the processor's cache, where the
        mean of their losses shows that the loss is one of independent examples."""
        leaves = {name: p.clone().requires_grad_() for name, p in self.parameters.items()}
        graphs, losses = [], []
        for piece in self._slices(batch):
            *_, part, m = self._run(piece, leaves)
            losses.append((part, m))
            graphs.append((m / examples, _gradient(part, leaves, create_graph=True), tuple(leaves.values())))
        if len(graphs) > 1 and not math.isclose(_mean(losses), float(loss), rel_tol=1e-5):
            *_, part, m = self._run(batch, leaves)
            graphs = [(n / examples, _gradient(part, leaves, create_graph=True), tuple(leaves.values()))]
        return graphs

    def _slices(self, batch: Any) -> list[Any]:
        if self.forward is None and self.device.type == "cpu":
            x, y = batch
            if isinstance(x, Tensor) and isinstance(y, Tensor) and _length(x) == _length(y) > _SLICE:
                return list(zip(x.split(_SLICE), y.split(_SLICE), strict=True))
        return [batch]

    def _each(self) -> Iterator[Any]:
        """The batches, on the model's device, in the same order with the same random draws at every pass."""
        if self._random_state is not None:
            _set_random_state(self._random_state)
            for generator, state in self._loader_state:
                generator.set_state(state)
        empty = True
        for batch in self.batches:
            empty = False
            yield tree_map(lambda leaf: leaf.to(self.device) if isinstance(leaf, Tensor) else leaf, batch)
        if empty:
            raise ValueError("batches is empty; accepted: at least one batch")

    def _run(
        self, batch: Any, parameters: Mapping[str, Tensor], *, deterministic: bool = False
    ) -> tuple[Any, Any, Tensor, int]:
        """(output, target, loss, number of examples) of one batch."""
        before = _torch_state(self.device) if deterministic else None
        state = {f"model.{name}": p for name, p in parameters.items()} | self._frozen
        output, target = torch.func.functional_call(self._program, state, (batch,))
        if before is not None and not torch.equal(before, _torch_state(self.device)):
            raise ValueError("model draws random numbers in evaluation mode (dropout left on?); it cannot be measured")
        n = _length(target) or _length(output)
        if not n:
            raise ValueError("batch has no examples: neither target nor output has a first dimension")
        try:
            loss = self.loss(output, target)
        except (IndexError, RuntimeError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"loss failed on {_describe(output)} and {_describe(target)}: {reason}") from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ValueError(f"loss returned {_describe(loss)}; accepted: one number, the mean over the batch")
        return output, target, loss.reshape(()), n

    def _split(self, vector: Tensor) -> dict[str, Tensor]:
        pieces = vector.split([p.numel() for p in self.parameters.values()])
        return {
            name: piece.to(p.dtype).reshape(p.shape)
            for (name, p), piece in zip(self.parameters.items(), pieces, strict=True)
        }

    def _member(self, index: int, module: nn.Module) -> "Snapshot":
        prefix = f"members.{index}."
        initial = self.initial and {k.removeprefix(prefix): t for k, t in self.initial.items() if k.startswith(prefix)}
        return Snapshot(module, self.loss, self.batches, initial=initial, forward=self.forward)


class _Program(nn.Module):
    """batch -> (output, target), as a module, so that torch.func.functional_call can set all weights."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        super().__init__()
        self.model = model
        self._call = forward or _pair

    def forward(self, batch: Any) -> tuple[Any, Any]:
        return self._call(self.model, batch)


def _pair(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise ValueError(
            f"batch is {_describe(batch)}; accepted: a pair (input, target), "
            "or any other with forward=(model, batch) -> (output, target)"
        )
    x, target = batch
    return model(x), target


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {', '.join(map(str, value))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"


def _length(value: Any) -> int:
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else 0


def _mean(values: list[tuple[Tensor, int]]) -> float:
    """Σ n·loss / Σ n, summed in float64."""
    losses = torch.stack([loss.detach() for loss, _ in values]).double()
    weights = torch.tensor([n for _, n in values], dtype=torch.float64, device=losses.device)
    return float((losses * weights).sum() / weights.sum())


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1).double() for t in tensors])


def _gradient(loss: Tensor, leaves: Mapping[str, Tensor], *, create_graph: bool) -> tuple[Tensor, ...]:
    if not loss.requires_grad:
        raise ValueError("loss does not depend on the trainable parameters through autograd")
    return torch.autograd.grad(loss, tuple(leaves.values()), create_graph=create_graph, materialize_grads=True)


def _products(graphs: list[Graph], v: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([share * _hessian_product(gradient, leaves, v) for share, gradient, leaves in graphs]).sum(0)


def _hessian_product(gradient: tuple[Tensor, ...], leaves: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> Tensor:
    curved = [(g, u) for g, u in zip(gradient, v, strict=True) if g.requires_grad]
    if not curved:  # a loss that is linear in all its weights
        return _flat(torch.zeros_like(p) for p in leaves)
    outputs, cotangents = zip(*curved, strict=True)
    return _flat(torch.autograd.grad(outputs, leaves, cotangents, retain_graph=True, materialize_grads=True))


# -- nothing is changed by measuring

_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith(("hooks", "hooks_with_kwargs", "always_called")))


@contextmanager
def _preserved(model: nn.Module) -> Iterator[None]:
    """Restores weights, buffers, gradients, modes and hooks of a module."""
    modules = [(m, m.training, {name: getattr(m, name).copy() for name in _HOOKS}) for m in model.modules()]
    live = [*model.parameters(), *model.buffers()]
    saved = [(t, t.detach().clone(), t.requires_grad, t.grad, None if t.grad is None else t.grad.clone()) for t in live]
    try:
        yield
    finally:
        for module, training, hooks in modules:
            module.training = training
            for name, entries in hooks.items():
                current = getattr(module, name)
                if current != entries:
                    current.clear()
                    current.update(entries)
        with torch.no_grad():
            for tensor, value, requires_grad, grad, grad_value in saved:
                _restore(tensor, value)
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if grad is not None and grad_value is not None:
                    _restore(grad, grad_value)
                if tensor.grad is not grad:
                    tensor.grad = grad


def _restore(tensor: Tensor, value: Tensor) -> None:
    if not torch.equal(tensor, value):  # copying would count as a change of the tensor
        tensor.copy_(value)


@contextmanager
def preserved_random_state(batches: object = None) -> Iterator[None]:
    """Restores Python's, NumPy's and torch's global random state, and that of a loader's own generators."""
    state = _random_state(None)
    generators = [(g, g.get_state()) for g in _generators(batches)]
    try:
        yield
    finally:
        _set_random_state(state)
        for generator, before in generators:
            generator.set_state(before)


def _random_state(device: torch.device | None) -> tuple[Any, ...]:
    # a state of the CUDA generators exists once CUDA is in use
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


def _torch_state(device: torch.device) -> Tensor:
    if device.type != "cuda":
        return torch.get_rng_state()
    return torch.cat([torch.get_rng_state(), torch.cuda.get_rng_state(device)])


def _generators(batches: object) -> list[torch.Generator]:
    """The generators of a DataLoader and its samplers, each once."""
    found: dict[int, torch.Generator] = {}
    sampler = getattr(batches, "batch_sampler", None)
    for owner in (batches, getattr(batches, "sampler", None), sampler, getattr(sampler, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            found[id(generator)] = generator
    return list(found.values())
