"""A network frozen at one point of training, with the loss and the data it is measured on."""

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import accumulate
from types import FunctionType
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from genbench.checks import nearest
from genbench.measures.leaves import open_containers
from genbench.memory import Allocated
from genbench.patches import Patches

Loss = Callable[[Any, Any], Tensor]
Forward = Callable[[nn.Module, Any], tuple[Any, Any]]
Product = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
Graph = tuple[float, Product]  # share of the examples, product with the curvature of their mean loss

_MEANS: WeakSet[FunctionType] = WeakSet()  # losses that were found to be means
_SLICE = 1024  # examples
_GRAPHS = 2**27  # bytes of graphs that are kept over several batches
_OUTPUTS = 2**24  # bytes of outputs that are kept though nobody has asked for them yet
_EXAMPLE_GRADIENTS = 2**22  # entries of per-example gradients at a time: more would leave the cache, and be slower


class Snapshot:
    """A network with its weights at this moment, its loss and its data.

    L(w) = Σ_b n_b · loss(output_b, target_b) / Σ_b n_b over the batches b, n_b the examples in a batch: the mean over
    all examples, however they are split. ``loss`` must therefore be a mean over the examples of its batch (torch's
    default reduction) and n_b is the length of the target (of the output, where the target has none); of its first
    tensor, where it has several.

    Weights and buffers are copied: later training does not change a snapshot, and measuring it never changes training.
    The network is measured in evaluation mode and must then be deterministic. Products with the Hessian keep the graph
    of the gradient where the data are one batch (fastest), and of several batches as many as 128 MiB hold; memory does
    not grow with the number of batches beyond that.

    Args:
        model: any network. A module list ``model.members`` marks an ensemble: see :func:`genbench.measures.measure`.
        loss: (output, target) -> scalar tensor, the mean over the batch.
        batches: (input, target) pairs, or anything that ``forward`` understands. Passes over a loader all start from
            the same random state, so that they see the same order and the same augmentation.
        initial: state dict of the initial weights, for distances; of an ensemble, or one for all its members.
        forward: (model, batch) -> (output, target).
        scaling: mean and std of images that were normalized, one number or one a channel: std · input + mean lies in
            [0, 1], which is what corruptions are of.

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
        scaling: tuple[float | Sequence[float], float | Sequence[float]] = (0.0, 1.0),
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
        self.scaling = scaling
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
        self._depth = [0]  # shared by all views of this network
        self._shared: dict[Any, Any] = {}

    # -- what measures ask for

    @property
    def vector(self) -> Tensor:
        """The trainable parameters as one vector [size], float64, in the order of ``parameters``."""
        return self.shared("vector", lambda: _flat(self.parameters.values()))

    @property
    def predictions(self) -> list[tuple[Any, Any]]:
        """(output, target) of every batch: one forward pass, kept."""
        if "predictions" not in self._shared:
            self._evaluate(keep=math.inf)
        return self._shared["predictions"]

    @property
    def losses(self) -> list[tuple[Tensor, int]]:
        """(mean loss, number of examples) of every batch."""
        if "losses" not in self._shared:
            self._evaluate(keep=_OUTPUTS)
        return self._shared["losses"]

    @property
    def mean_loss(self) -> float:
        """L(w)."""
        return _mean(self.losses)

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(n for _, n in self.losses)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The modules that hold a weight of two or more dimensions themselves, by name, in the order of the model."""
        return {
            name: module
            for name, module in self.model.named_modules()
            if any(p is not None and p.ndim >= 2 for p in module._parameters.values())
        }

    @property
    def representations(self) -> dict[str, Tensor]:
        """What each layer of :attr:`layers` is given, [N, ...] by the layer's name in the order of the calls, and the
        network's ``output``; of a layer that is called several times, the last.

        The first is the data themselves. An input says what the layers before it have made of the data, their
        activations, normalization and residual sums included, whatever the architecture. Kept on the model's device.
        """
        return self.shared("representations", self._represent)

    @property
    def first_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, by position and by name, that the model is given for the first example."""
        return self.shared("first input", self._first_input)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output for other arguments, at these weights and in evaluation mode."""
        with self.measuring():
            return torch.func.functional_call(self.model, self.state, args, kwargs)

    def at_inputs(self) -> Iterator[tuple[tuple[Tensor, ...], Any, Any]]:
        """(inputs, output, target) of some examples at a time, the output differentiable by the inputs: the tensors of
        real numbers in a batch's input (in all of the batch, where ``forward`` is given)."""
        with self.measuring():
            for batch in self._each():
                for piece in self._slices(batch):
                    leaves, spec = tree_flatten(piece if self.forward else piece[0])
                    real = [isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves]
                    leaves = [
                        leaf.detach().clone().requires_grad_() if r else leaf
                        for leaf, r in zip(leaves, real, strict=True)
                    ]
                    moved = tree_unflatten(leaves, spec)
                    output, target, *_ = self._run(moved if self.forward else (moved, piece[1]), self.parameters)
                    yield tuple(leaf for leaf, r in zip(leaves, real, strict=True) if r), output, target

    def blocks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets) of ``size`` examples after the other, the last of what is left, however the batches split
        them: what is drawn for the i-th block does not depend on the batches. On the model's device.

        Raises:
            ValueError: batches that are no pairs of tensors with the examples as first axis.
        """
        left: list[tuple[Tensor, Tensor]] = []
        with self.measuring():
            for batch in self._each():
                pair = self.forward is None and isinstance(batch, list | tuple) and len(batch) == 2
                if (
                    not pair
                    or not all(isinstance(t, Tensor) and t.ndim for t in batch)
                    or len(batch[0]) != len(batch[1])
                ):
                    raise ValueError("batches are of another form; accepted: (inputs [B, ...], targets [B, ...])")
                left.append((batch[0], batch[1]))
                if sum(len(y) for _, y in left) >= size:
                    x, y = (torch.cat(parts) for parts in zip(*left, strict=True))
                    whole = len(y) // size * size
                    yield from zip(x[:whole].split(size), y[:whole].split(size), strict=True)
                    left = [(x[whole:], y[whole:])] if whole < len(y) else []
            if left:
                x, y = (torch.cat(parts) for parts in zip(*left, strict=True))
                yield x, y

    def example_gradients(self, vector: Tensor | None = None) -> Iterator[Tensor]:
        """∇ℓᵢ(w) of each example [b, size], the model's precision, a few examples at a time.

        Raises:
            ValueError: the loss of a batch is not the mean of its examples' losses.
        """
        with self.measuring():
            w = self.vector if vector is None else vector
            whole = self.losses
            rounding = max(1e-3, 8 * max(torch.finfo(p.dtype).eps for p in self.parameters.values()))
            for index, batch in enumerate(self._each()):
                loss, n = whole[index]
                values = []
                for gradients, losses in self._by_example(batch, n, w):
                    values.append(losses)
                    yield gradients
                mean = float(torch.cat(values).double().mean())
                if vector is None and not math.isclose(mean, float(loss), rel_tol=rounding, abs_tol=1e-6):
                    raise ValueError(f"loss of a batch is {float(loss):.6g}, the mean over its examples {mean:.6g}")

    @property
    def members(self) -> "list[Snapshot]":
        """A snapshot of each member of an ensemble; empty for any other network."""
        modules = getattr(self.model, "members", None)
        if not isinstance(modules, nn.ModuleList):
            return []
        return self.shared("members", lambda: [self._member(i, m) for i, m in enumerate(modules)])

    def loss_at(self, vector: Tensor) -> float:
        """L at other weights [size]."""
        return _mean([(loss, n) for _, _, loss, n in self.predictions_at(vector)])

    def predictions_at(self, vector: Tensor) -> Iterator[tuple[Any, Any, Tensor, int]]:
        """(output, target, mean loss, number of examples) of a batch after the other, at other weights [size]."""
        with self.measuring():
            parameters = self._split(vector)
            for batch in self._each():
                with torch.no_grad():
                    result = self._run(batch, parameters)
                yield result

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
        return self._product(vector, _hessian)

    def gauss_newton_product(self, vector: Tensor) -> Tensor:
        """The generalized Gauss–Newton matrix G = mean Jᵀ(∇²ℓ)J times ``vector``, [size] float64: J the derivative of
        the outputs by the weights, ∇²ℓ that of the loss by the outputs (Schraudolph 2002, Neural Comput. 14, 1723).
        G is the Fisher matrix where the loss is the log-likelihood of an exponential family in its natural parameters,
        as cross-entropy of logits is."""
        return self._product(vector, _gauss_newton)

    def with_loss(self, loss: Loss) -> "Snapshot":
        """The same network and data under another loss."""
        return self._view(("vector", "representations"), loss=loss)

    def with_targets(self, targets: Sequence[Any]) -> "Snapshot":
        """The same network, inputs and loss under other targets, one for each batch in the order of the batches."""
        forward = self.forward or _pair

        def replaced(model: nn.Module, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            inner, target = batch
            return forward(model, inner)[0], target

        return self._view(
            ("vector", "representations"),
            batches=_Paired(self.batches, targets),
            forward=replaced,
            _program=_Program(self.model, replaced),
        )

    def with_batches(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "Snapshot":
        """The same network and loss on other data, (input, target) pairs."""
        return self._view(
            ("vector",),
            batches=batches,
            forward=None,
            _program=_Program(self.model, None),
            _random_state=None,
            _loader_state=[],
        )

    @property
    def state(self) -> dict[str, Tensor]:
        """All parameters and buffers, trainable or not, by the names of a state dict; shared ones once."""
        return self.parameters | {name.removeprefix("model."): t for name, t in self._frozen.items()}

    def with_state(self, state: Mapping[str, Tensor]) -> "Snapshot":
        """The same loss and data at other parameters and buffers, all of them: a state dict of the same architecture.

        Raises:
            ValueError: a tensor that the network has and ``state`` has not, not in that shape, or not finite.
        """
        stored = self.model.state_dict().keys()
        found = {}
        for name, own in self.state.items():
            if name not in state:
                if name in stored:
                    raise ValueError(f"state has no {name!r}; accepted: a state dict of the same architecture")
                found[name] = own  # a buffer that no state dict holds
                continue
            if state[name].shape != own.shape:
                shape = tuple(state[name].shape)
                raise ValueError(f"state has {name!r} in shape {shape}; accepted: {tuple(own.shape)}")
            if not torch.isfinite(state[name]).all():
                raise ValueError(f"weights {name!r} are not finite (NaN or infinite)")
            found[name] = state[name].detach().to(own.device, own.dtype, copy=True)
        return self._view(
            (),
            parameters={name: found[name] for name in self.parameters},
            _frozen={key: found[key.removeprefix("model.")] for key in self._frozen},
        )

    def select(self, *names: str) -> "Snapshot":
        """The same network with all but some parameters held fixed, so that any measure of it is that of a layer.

        Args:
            names: of parameters, or of modules for all parameters below them.

        Raises:
            ValueError: a name that is neither.
        """
        chosen: dict[str, Tensor] = {}
        for name in names:
            found = {key: p for key, p in self.parameters.items() if key == name or key.startswith(f"{name}.")}
            if not found:
                raise ValueError(f"no trainable parameter or layer {name!r}; {nearest(name, self._names())}")
            chosen |= found
        if not chosen:
            raise ValueError("no parameters are selected; accepted: names of parameters or layers")
        held = {f"model.{name}": p for name, p in self.parameters.items() if name not in chosen}
        return self._view(
            ("predictions", "losses", "representations"),
            parameters={name: p for name, p in self.parameters.items() if name in chosen},
            size=sum(p.numel() for p in chosen.values()),
            _frozen={**self._frozen, **held},
        )

    def subsets(self, indices: Sequence[Tensor]) -> "list[Snapshot]":
        """The same network on some of the examples, one snapshot for each tensor of their positions in the data [m].

        One pass over the data, of which no more than the chosen examples are kept. Tensors whose first dimension is the
        number of examples are split, all else belongs to every example of its batch.
        """
        pieces: list[list[Any]] = [[] for _ in indices]
        first = 0
        with self.measuring():
            for batch, (_, n) in zip(self._each(), self.losses, strict=True):
                for chosen, found in zip(indices, pieces, strict=True):
                    rows = chosen[(first <= chosen) & (chosen < first + n)] - first
                    if len(rows):
                        found.append(tree_map(partial(_rows, rows=rows, n=n), batch))
                first += n
        return [
            self._view(("vector",), batches=self._joined(found), _random_state=None, _loader_state=[])
            for found in pieces
        ]

    def _joined(self, pieces: list[Any]) -> list[Any]:
        """Pieces of several batches as one batch where they fit together: small ones are slow."""
        if self.forward is not None or not all(isinstance(t, Tensor) and t.ndim for piece in pieces for t in piece):
            return pieces
        if len({tuple((t.shape[1:], t.dtype) for t in piece) for piece in pieces}) != 1:
            return pieces
        return [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]

    def _names(self) -> list[str]:
        parts = {name.rpartition(".")[0] for name in self.parameters} - {""}
        return [*self.parameters, *sorted(parts)]

    def _view(self, keep: tuple[str, ...], **changes: Any) -> "Snapshot":
        """A copy with some attributes changed, and of what was computed only ``keep``."""
        other = copy.copy(self)
        vars(other).update(changes)
        other._shared = {key: value for key, value in self._shared.items() if key in keep}
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
        if self._depth[0]:
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
            self._depth[0] += 1
            try:
                yield
            finally:
                self._depth[0] -= 1

    # -- how

    def _evaluate(self, *, keep: float) -> None:
        """One forward pass: the losses, and the outputs as long as they are no more than ``keep`` bytes."""
        with self.measuring(), torch.no_grad():
            predictions: list[tuple[Any, Any]] | None = []
            losses, held = [], 0
            for batch in self._each():
                output, target, loss, n = self._run(batch, self.parameters, deterministic=True)
                losses.append((loss, n))
                held += sum(leaf.nbytes for leaf in tree_leaves((output, target)) if isinstance(leaf, Tensor))
                if predictions is not None and held <= keep:
                    predictions.append((output, target))
                else:
                    predictions = None
                if len(losses) == 1:
                    self._refuse_sum(batch, n)
            finite = torch.isfinite(torch.stack([loss for loss, _ in losses])).tolist()
            if not all(finite):
                index = finite.index(False)
                raise ValueError(f"loss is {float(losses[index][0])} on batch {index}; accepted: a finite number")
        self._shared["losses"] = losses
        if predictions is not None:
            self._shared["predictions"] = predictions

    def _refuse_sum(self, batch: Any, n: int) -> None:
        """Refuses a loss that adds up its examples', seen on two of them: every measure would be wrong by a factor. A
        function that was found to be a mean is not asked again."""
        if isinstance(self.loss, FunctionType) and self.loss in _MEANS:
            return

        def loss(*rows: int) -> float:
            return float(self._run(tree_map(partial(_rows, rows=torch.tensor(rows), n=n), batch), self.parameters)[2])

        try:
            both, first, second = loss(0, 1), loss(0), loss(1)
        except Exception:  # some batches cannot be taken apart
            return
        if math.isclose(both, first + second, rel_tol=1e-5) and abs(both) > 1e-6:
            raise ValueError("loss is the sum over the examples of a batch; accepted: their mean (reduction='mean')")
        if isinstance(self.loss, FunctionType) and abs(both) > 1e-6:
            _MEANS.add(self.loss)

    def _represent(self) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        now: dict[str, Tensor] = {}

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                if args and isinstance(args[0], Tensor):
                    now.pop(name, None)  # the order is that of the last call
                    steps_first = getattr(module, "batch_first", True) is False and args[0].ndim == 3
                    now[name] = (args[0].movedim(1, 0) if steps_first else args[0]).detach().clone()

            return hook

        with self.measuring(), torch.no_grad():
            handles = [module.register_forward_pre_hook(watch(name)) for name, module in self.layers.items()]
            try:
                for batch in self._each():
                    now.clear()
                    output, *_, n = self._run(batch, self.parameters)
                    if isinstance(output, Tensor):
                        now["output"] = output
                    for name, value in now.items():
                        if _length(value) == n:
                            found.setdefault(name, []).append(value)
            finally:
                for handle in handles:
                    handle.remove()
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _first_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append((args, kwargs))

        with self.measuring(), torch.no_grad():
            batch = next(self._each())
            pair = self.forward is None and isinstance(batch, list | tuple) and len(batch) == 2
            if pair and _length(batch[1]):  # the batch need not be run
                found, n = [((batch[0],), {})], _length(batch[1])
            else:
                handle = self.model.register_forward_pre_hook(hook, with_kwargs=True)
                try:
                    *_, n = self._run(batch, self.parameters)
                finally:
                    handle.remove()
        if not found:
            raise ValueError("forward does not call the model itself; its input is not known")
        return tree_map(lambda leaf: leaf[:1] if isinstance(leaf, Tensor) and _length(leaf) == n else leaf, found[0])

    def _by_example(self, batch: Any, n: int, vector: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(gradients [b, size], losses [b]) of the examples of one batch, a few at a time."""
        leaves, spec = tree_flatten(batch)
        split = [isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == n for leaf in leaves]
        parameters = self._split(vector)

        def loss(p: dict[str, Tensor], parts: tuple[Tensor, ...]) -> Tensor:
            rest = iter(parts)
            whole = [next(rest)[None] if s else leaf for leaf, s in zip(leaves, split, strict=True)]
            return self._run(tree_unflatten(whole, spec), p)[2]

        gradient = torch.func.grad_and_value(loss)
        parts = tuple(leaf for leaf, s in zip(leaves, split, strict=True) if s)
        chunk = max(1, _EXAMPLE_GRADIENTS // self.size)
        # some recurrent layers are batched only where their weights are, too; what is not batched is done one by one
        ways: list[Any] = [(None, 0), (0, 0)] if not self._recurrent or self.device.type == "cpu" else []
        for first in range(0, n, chunk):
            some = tuple(part[first : first + chunk] for part in parts)
            while ways:
                each = parameters
                if ways[0][0] == 0:
                    each = {name: p.expand(len(some[0]), *p.shape) for name, p in parameters.items()}
                try:
                    grads, losses = torch.func.vmap(gradient, ways[0])(each, some)
                    break
                except RuntimeError:  # an operation that has no batching rule, or control flow on values
                    ways.pop(0)
            if not ways:
                pairs = [gradient(parameters, tuple(t[i] for t in some)) for i in range(len(some[0]))]
                grads = {name: torch.stack([g[name] for g, _ in pairs]) for name in parameters}
                losses = torch.stack([value for _, value in pairs])
            yield torch.cat([grads[name].detach().flatten(1) for name in parameters], 1), losses.detach()

    def _product(self, vector: Tensor, curvature: "Curvature") -> Tensor:
        key = f"graphs of {curvature.__name__}"
        with self.measuring():
            v = tuple(self._split(vector).values())
            examples, whole = self.examples, self.losses  # the first pass refuses what cannot be measured
            kept: dict[int, list[Graph]] = self.shared(key, dict)
            total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
            if len(kept) == len(whole):  # the data need not be read again
                for graphs in kept.values():
                    total += _products(graphs, v)
                return total
            for index, batch in enumerate(self._each()):
                graphs = kept.get(index) or self._graphs(batch, *whole[index], examples=examples, curvature=curvature)
                total += _products(graphs, v)
                if index not in kept and self._room(key, batch, index, curvature):
                    kept[index] = graphs
                del graphs  # before the next batch's are built
            return total

    def _room(self, key: str, batch: Any, index: int, curvature: "Curvature") -> bool:
        """Whether the graphs of a batch may be kept: of a single batch always, of several up to a bound."""
        if len(self.losses) == 1:
            return True
        if f"room for {key}" not in self._shared:  # bytes an example, from what one batch allocates
            loss, n = self.losses[index]
            with Allocated() as allocated:
                self._graphs(batch, loss, n, examples=n, curvature=curvature)
            each = max(1, allocated.bytes // n)
            room = [
                index for index, total in enumerate(accumulate(n for _, n in self.losses)) if total * each <= _GRAPHS
            ]
            self._shared[f"room for {key}"] = set(room)
        return index in self._shared[f"room for {key}"]

    def _graphs(self, batch: Any, loss: Tensor, n: int, *, examples: int, curvature: "Curvature") -> list[Graph]:
        """The curvature of one batch; of slices of it, which stay in the processor's cache, where the mean of their
        losses shows that the loss is one of independent examples."""
        leaves = {name: p.clone().requires_grad_() for name, p in self.parameters.items()}
        graphs, losses = [], []
        for piece in self._slices(batch):
            with Patches():
                output, target, part, m = self._run(piece, leaves)
            losses.append((part, m))
            graphs.append((m / examples, curvature(self.loss, output, target, part, leaves)))
        if len(graphs) > 1 and not math.isclose(_mean(losses), float(loss), rel_tol=1e-5):
            output, target, part, m = self._run(batch, leaves)
            graphs = [(n / examples, curvature(self.loss, output, target, part, leaves))]
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
        open_containers(output)
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
        start = self.initial or {}
        own = {k.removeprefix(prefix): t for k, t in start.items() if k.startswith(prefix)}
        initial = own or self.initial  # members of one training have one start
        return Snapshot(module, self.loss, self.batches, initial=initial, forward=self.forward, scaling=self.scaling)


class _Program(nn.Module):
    """batch -> (output, target), as a module, so that torch.func.functional_call can set all weights."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        super().__init__()
        self.model = model
        self._call = forward or _pair

    def forward(self, batch: Any) -> tuple[Any, Any]:
        return self._call(self.model, batch)


class _Paired:
    """Each batch with its other target, at every pass."""

    def __init__(self, batches: Iterable[Any], targets: Sequence[Any]) -> None:
        self.batches = batches
        self.targets = targets

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return zip(self.batches, self.targets, strict=True)


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
    """The number of examples in a tensor, or in the first of several that has any."""
    return next((len(t) for t in tree_leaves(value) if isinstance(t, Tensor) and t.ndim), 0)


def _rows(leaf: Any, *, rows: Tensor, n: int) -> Any:
    return leaf[rows.to(leaf.device)] if _length(leaf) == n else leaf


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
    return torch.stack([share * _flat(product(v)) for share, product in graphs]).sum(0)


def _hessian(loss: Loss, output: Any, target: Any, value: Tensor, leaves: Mapping[str, Tensor]) -> Product:
    """v -> ∇²L v by differentiating the gradient, whose graph is kept."""
    gradient, weights = _gradient(value, leaves, create_graph=True), tuple(leaves.values())

    def product(v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        curved = [(g, u) for g, u in zip(gradient, v, strict=True) if g.requires_grad]
        if not curved:  # a loss that is linear in all its weights
            return tuple(torch.zeros_like(p) for p in weights)
        outputs, cotangents = zip(*curved, strict=True)
        return torch.autograd.grad(outputs, weights, cotangents, retain_graph=True, materialize_grads=True)

    return product


def _gauss_newton(loss: Loss, output: Any, target: Any, value: Tensor, leaves: Mapping[str, Tensor]) -> Product:
    """v -> Jᵀ(∇²ℓ)J v; J v is the derivative of u -> Jᵀu, so that one kept graph serves all products."""
    flat, spec = tree_flatten(output)
    live = [i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not live:
        raise ValueError("output does not depend on the trainable parameters through autograd")
    outputs, weights = tuple(flat[i] for i in live), tuple(leaves.values())
    duals = tuple(torch.zeros_like(f).requires_grad_() for f in outputs)
    pulled = torch.autograd.grad(outputs, weights, duals, create_graph=True, materialize_grads=True)
    points = tuple(f.detach().requires_grad_() for f in outputs)
    for i, point in zip(live, points, strict=True):
        flat[i] = point
    slopes = torch.autograd.grad(
        loss(tree_unflatten(flat, spec), target), points, create_graph=True, materialize_grads=True
    )

    def product(v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        moved, bent = _derivative(pulled, duals, v), [s.requires_grad for s in slopes]
        if not any(bent):  # a loss that is linear in the outputs
            return tuple(torch.zeros_like(p) for p in weights)
        curved = _derivative(slopes, points, moved)
        return torch.autograd.grad(outputs, weights, curved, retain_graph=True, materialize_grads=True)

    return product


def _derivative(values: tuple[Tensor, ...], at: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Σ vᵢ ∂valuesᵢ/∂at, the graph kept."""
    pairs = [(value, u) for value, u in zip(values, v, strict=True) if value.requires_grad]
    outputs, cotangents = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, at, cotangents, retain_graph=True, materialize_grads=True)


Curvature = Callable[[Loss, Any, Any, Tensor, Mapping[str, Tensor]], Product]


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
