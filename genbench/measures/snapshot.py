"""A network frozen at one point of training, with the loss and the data it is measured on."""

import copy
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genbench.checks import nearest
from genbench.measures import model_inputs
from genbench.measures.batch_structure import BatchResult, BatchStructure, find_structure
from genbench.measures.batches import Batches, BatchesWithTargets
from genbench.measures.effective_weights import layers
from genbench.measures.example_gradients import by_example
from genbench.measures.examples import (
    EXAMPLES_FIRST,
    Layout,
    Samples,
    close,
    copied,
    describe,
    length,
    mapped,
    mean_of,
    tensors_of,
)
from genbench.measures.guard import plain_kernels, restoring
from genbench.measures.operators import allowed, product_with
from genbench.measures.precision import in_precision, precise
from genbench.measures.products import Loss, flat, gauss_newton, gradient, hessian
from genbench.measures.random_state import restoring_random_state
from genbench.measures.supported import check_weights, shared_memory_note
from genbench.module_state import ModuleTensors, attributes_of, renamed, restore_attributes, unwrapped

P = ParamSpec("P")
T = TypeVar("T")
Forward = Callable[[nn.Module, Any], tuple[Any, Any]]
Count = Callable[[Any, Any], Any]

_OUTPUTS = 2**24  # bytes of outputs that are kept though nobody has asked for them yet


@dataclass
class _Open:
    """What all views of a network share while it is measured."""

    depth: int = 0
    places: ModuleTensors | None = None
    attributes: Any = ()  # of the modules, as each pass finds them
    room: int | None = None  # bytes for the graph of one gradient
    watch: Any = None  # counts the passes over the data
    differentiates: bool = False  # whether the forward pass takes derivatives, as of a potential by its inputs
    placed: list[tuple[Any, ...]] = field(default_factory=list)  # the weights that lie in it, last on top


# a network is one thing, whoever measures it: snapshots of several moments may be open at once
_OPEN: WeakKeyDictionary[nn.Module, _Open] = WeakKeyDictionary()


def _stepwise(
    function: Callable[Concatenate["Snapshot", P], Iterator[T]],
) -> Callable[Concatenate["Snapshot", P], Iterator[T]]:
    """Makes a generator measure within :meth:`Snapshot.measuring` at each of its steps, and leave the network as it was
    between them: whoever is given an item may train, measure another moment, or never ask for the next."""

    @wraps(function)
    def steps(self: "Snapshot", *args: P.args, **settings: P.kwargs) -> Iterator[T]:
        items = function(self, *args, **settings)
        while True:
            with self.measuring():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    return steps


class Snapshot:
    """A network with its weights at this moment, its loss and its data.

    L(w) = Σ_b n_b · loss(output_b, target_b) / Σ_b n_b over the batches b, n_b the examples in a batch: the mean over
    all examples, however they are split, where ``loss`` is a mean over the examples of its batch (torch's default
    reduction). n_b is the length of the target (of the output, where the target has none); of its first tensor, where
    it has several; the entries of a list of what each example has. A loss that is another mean, over classes with
    weights or over tokens that are no padding, has n_b from ``count``; without it, and with several batches, every
    estimate says that it depends on the batches.

    Weights and buffers are copied: later training does not change a snapshot, and measuring it never changes training.
    While it is measured the network itself has the snapshot's weights, forward and backward: a penalty in the loss, a
    hook, checkpointing, a parametrization and a module that is registered twice see them. The inputs are copied before
    the network gets them. It is measured in evaluation mode and must then be deterministic. The examples may lie in the
    first axis or in the second (time first), which is seen from what the network makes of a few of them.

    Products with the Hessian keep the graphs of the gradient as far as a quarter of the free memory holds them; beyond
    that, batches are worked off in parts, and memory does not grow with their number or size.

    Args:
        model: any network; what torch.compile, DataParallel or DistributedDataParallel wrap is measured. A module list
            ``model.members`` marks an ensemble: see :func:`genbench.measures.measure`.
        loss: (output, target) -> scalar tensor, the mean over the batch.
        batches: (input, target) pairs, or anything that ``forward`` understands. All passes over a
            loader see the same data: those of the first are kept, as far as an eighth of the free memory holds them.
        initial: state dict of the initial weights, for distances; of an ensemble, or one for all its members.
        forward: (model, batch) -> (output, target).
        scaling: mean and std of images that were normalized, one number or one a channel: std · input + mean lies in
            [0, 1], which is what corruptions are of.
        count: (output, target) -> what a batch counts in the mean: the number of its tokens that are no padding, or the
            sum of its examples' class weights.

    Raises:
        ValueError: not a network, weights that are not finite, sharded or quantized, no batches, batches of another
            form, a loss that is a sum or not a finite number, or a network that draws random numbers in evaluation
            mode.

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
        count: Count | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is {type(model).__name__!r}; accepted: a torch.nn.Module")
        if not callable(loss):
            raise ValueError(f"loss is {loss!r}; accepted: a function of (output, target)")
        if not isinstance(batches, Iterable):
            raise ValueError(f"batches is {type(batches).__name__!r}; accepted: an iterable of batches")
        inner = unwrapped(model)
        self.model = inner
        self.loss = _copied(loss, inner)
        self.initial = None if initial is None else renamed(initial, inner)
        self.forward = forward
        self.scaling = scaling
        self.count = count
        self._passes = batches if isinstance(batches, Batches) else Batches(batches)

        live = dict(inner.named_parameters())
        lazy = [name for name, p in live.items() if nn.parameter.is_lazy(p)]
        if lazy:
            raise ValueError(f"parameter {lazy[0]!r} is not initialized: run the model on one batch first")
        if not any(p.requires_grad for p in live.values()):
            raise ValueError("model has no trainable parameters (none has requires_grad)")
        check_weights(inner)
        self.note_of_weights = shared_memory_note(inner)  # what every estimate has to say
        with torch.no_grad(), torch.inference_mode(False):
            self.parameters = {name: p.detach().clone() for name, p in live.items() if p.requires_grad}
            self._fixed = {name: p.detach().clone() for name, p in live.items() if not p.requires_grad}
            buffers = {name: b.detach().clone() for name, b in inner.named_buffers()}
        for name, p in (self.parameters | self._fixed).items():
            _check_finite(name, p)
        for name, b in buffers.items():
            _check_finite(name, b, infinite=True)  # a mask of attention may be -inf
        self._fixed |= buffers

        self.size = sum(p.numel() for p in self.parameters.values())
        self.device = next(iter(self.parameters.values())).device
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in inner.modules())
        self._open = _OPEN.setdefault(inner, _Open())
        self._dtype: torch.dtype | None = None  # where another than the network's own
        self._leaves: dict[str, nn.Parameter] = {}  # of that type
        self._shared: dict[Any, Any] = {}

    # -- what measures ask for

    @property
    def batches(self) -> Iterable[Any]:
        """The batches as they were given, the same at every pass over them."""
        return self._passes if self._passes.kept is None else self._passes.kept

    @property
    def vector(self) -> Tensor:
        """The trainable parameters as one vector [size], float64, in the order of ``parameters``."""
        return self.shared("vector", lambda: flat(self.parameters.values()))

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
        losses = [loss for loss, _ in self.losses]
        return mean_of(list(zip(losses, self._shared["weights"], strict=True)))

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(n for _, n in self.losses)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The modules that act with a weight of two or more dimensions, by name, in the order of the model."""
        return self.shared("layers", lambda: layers(self))

    @property
    def representations(self) -> dict[str, Tensor]:
        """What each layer of :attr:`layers` is given, [N, ...] by the layer's name in the order of the calls, and the
        network's ``output``; of a layer that is called several times, the last.

        The first is the data themselves. An input says what the layers before it have made of the data, their
        activations, normalization and residual sums included, whatever the architecture. Kept on the model's device.
        """
        return self.shared("representations", lambda: model_inputs.representations(self))

    @property
    def first_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, by position and by name, that the model is given for the first example."""
        return self.shared("first input", lambda: model_inputs.first_input(self))

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output for other arguments, at these weights and in evaluation mode."""
        with self.measuring():
            return self.model(*args, **kwargs)

    @contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """The network with other tensors, of any kind and type, in the places of some of its own."""
        with self.measuring():
            assert self._open.places is not None
            with self._open.places.replace_tensors(tensors):
                yield

    def at_inputs(self) -> Iterator[tuple[tuple[Tensor, ...], Any, Any]]:
        """(inputs, output, target) of some examples at a time, the output differentiable by the inputs: the tensors of
        real numbers in a batch's input (in all of the batch, where ``forward`` is given), the examples first.

        Raises:
            ValueError: read elsewhere than within :meth:`measuring`: the graphs are of the weights that lie there.
        """
        if not self._is_placed():
            raise ValueError("at_inputs gives graphs of the snapshot's weights; accepted: within snapshot.measuring()")
        return self._at_inputs()

    @_stepwise
    def _at_inputs(self) -> Iterator[tuple[tuple[Tensor, ...], Any, Any]]:
        return model_inputs.at_inputs(self)

    @_stepwise
    def blocks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets) of ``size`` examples after the other, the last of what is left, however the batches split
        them: what is drawn for the i-th block does not depend on the batches. On the model's device.

        Raises:
            ValueError: batches that are no pairs of tensors with the examples as first axis.
        """
        return model_inputs.blocks(self, size)

    @_stepwise
    def example_gradients(self, vector: Tensor | None = None) -> Iterator[Tensor]:
        """∇ℓᵢ(w) of each example [b, size], the model's precision, a few examples at a time.

        Raises:
            ValueError: the loss of a batch is not the mean of its examples' losses, or the axis of the examples cannot
                be told.
        """
        w = self.vector if vector is None else vector
        whole = self.losses
        rounding = max(1e-3, 8 * max(torch.finfo(p.dtype).eps for p in self.parameters.values()))
        for index, batch in enumerate(self._each()):
            loss, n = whole[index]
            values = []
            for gradients, losses in by_example(self, batch, n, w):
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
        with self.measuring():  # of this snapshot's weights, not of those that the network has now
            chosen = [
                (i, m)
                for i, m in enumerate(modules)
                if any(name.startswith(f"members.{i}.") for name in self.parameters)
            ]
            return self.shared("members", lambda: [self._member(i, m) for i, m in chosen])

    def loss_at(self, vector: Tensor) -> float:
        """L at other weights [size]."""
        return mean_of([(loss, weight) for _, _, loss, weight in self.predictions_at(vector)])

    def predictions_at(self, vector: Tensor) -> Iterator[tuple[Any, Any, Tensor, float]]:
        """(output, target, mean loss, what it counts in the mean) of a batch after the other, at other weights
        [size]."""
        view = self.moved()
        view.shared("probe", lambda: self._probe)
        return view._predictions_at(view._split(vector))

    @_stepwise
    def _predictions_at(self, values: Mapping[str, Tensor]) -> Iterator[tuple[Any, Any, Tensor, float]]:
        for batch in self._each():
            with self._placed(values), torch.no_grad():
                run = self._run(batch)
            yield run.output, run.target, run.loss, run.weight
        self._tick()

    def gradient_at(self, vector: Tensor) -> tuple[float, Tensor]:
        """L and its gradient [size], float64, at other weights [size]."""
        view = self.moved()
        with view.measuring():
            if self._passes.kept is None or len(self._passes.kept) > 1:
                _ = self.losses  # they show whether the loss is the mean over the examples
            values, total = [], torch.zeros_like(self.vector)
            view.shared("probe", lambda: self._probe)
            with view._placed(view._split(vector)) as leaves:
                for batch in view._each():
                    for piece in view._pieces(batch):
                        run = view._run(piece)
                        if run.weight:
                            total += run.weight * flat(gradient(run.loss, leaves))
                        values.append((run.loss.detach(), run.weight))
            self._tick()
            return mean_of(values), total / sum(weight for _, weight in values)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """∇²L(w) · vector, [size] float64."""
        return product_with(self, vector, hessian)

    def gauss_newton_product(self, vector: Tensor) -> Tensor:
        """The generalized Gauss–Newton matrix G = mean Jᵀ(∇²ℓ)J times ``vector``, [size] float64: J the derivative of
        the outputs by the weights, ∇²ℓ that of the loss by the outputs (Schraudolph 2002, Neural Comput. 14, 1723).
        G is the Fisher matrix where the loss is the log-likelihood of an exponential family in its natural parameters,
        as cross-entropy of logits is."""
        return product_with(self, vector, gauss_newton)

    def with_loss(self, loss: Loss, *, count: Count | None = None) -> "Snapshot":
        """The same network and data under another loss, and what a batch counts in its mean."""
        return self._view(("vector", "representations"), loss=loss, count=count)

    def with_targets(self, targets: Sequence[Any]) -> "Snapshot":
        """The same network, inputs and loss under other targets, one for each batch in the order of the batches."""
        forward = self.forward or _pair

        def replaced(model: nn.Module, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            inner, target = batch
            return forward(model, inner)[0], target

        return self._view(
            ("vector", "representations"), _passes=BatchesWithTargets(self._passes, targets), forward=replaced
        )

    def with_batches(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "Snapshot":
        """The same network and loss on other data, (input, target) pairs."""
        return self.on(batches, forward=None)

    def on(self, batches: Iterable[Any], **changes: Any) -> "Snapshot":
        """The same network and loss on other batches of the same form."""
        return self._view(("vector",), _passes=Batches(batches), **changes)

    @contextmanager
    def watched(self, watch: Any) -> Iterator[None]:
        """Within it, every pass over the data calls ``watch.tick()``."""
        before, self._open.watch = self._open.watch, watch
        try:
            yield
        finally:
            self._open.watch = before

    def _tick(self) -> None:
        if self._open.watch is not None:
            self._open.watch.tick()

    @property
    def state(self) -> dict[str, Tensor]:
        """All parameters and buffers, trainable or not, by the names of a state dict; shared ones once."""
        return self.parameters | self._fixed

    def with_state(self, state: Mapping[str, Tensor]) -> "Snapshot":
        """The same loss and data at other parameters and buffers, all of them: a state dict of the same architecture.

        Raises:
            ValueError: a tensor that the network has and ``state`` has not, not in that shape, or not finite.
        """
        stored, buffers = self.model.state_dict().keys(), dict(self.model.named_buffers()).keys()
        state = renamed(state, self.model)
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
            _check_finite(name, state[name], infinite=name in buffers)
            found[name] = state[name].detach().to(own.device, own.dtype, copy=True)
        return self._view(
            ("probe",),
            parameters={name: found[name] for name in self.parameters},
            _fixed={name: found[name] for name in self._fixed},
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
        held = {name: p for name, p in self.parameters.items() if name not in chosen}
        return self._view(
            ("predictions", "losses", "weights", "mean", "representations", "probe"),
            parameters={name: p for name, p in self.parameters.items() if name in chosen},
            size=sum(p.numel() for p in chosen.values()),
            _fixed={**self._fixed, **held},
        )

    def subsets(self, indices: Sequence[Tensor]) -> "list[Snapshot]":
        """The same network on some of the examples, one snapshot for each tensor of their positions in the data [m].

        One pass over the data, of which no more than the chosen examples are kept. Tensors whose first dimension is the
        number of examples are split, all else belongs to every example of its batch.

        Raises:
            ValueError: a position that is none of an example.
        """
        outside = [p for p in indices if len(p) and not 0 <= int(p.min()) <= int(p.max()) < self.examples]
        if outside:
            at = (int(outside[0].min()), int(outside[0].max()))
            raise ValueError(f"positions lie in [{at[0]}, {at[1]}]; accepted: 0 to {self.examples - 1}")
        pieces: list[list[Any]] = [[] for _ in indices]
        first = 0
        with self.measuring():
            layout = self._known_layout()
            for batch, (_, n) in zip(self._each(), self.losses, strict=True):
                for chosen, found in zip(indices, pieces, strict=True):
                    rows = chosen[(first <= chosen) & (chosen < first + n)] - first
                    if len(rows):
                        found.append(layout.rows(batch, n, rows))
                first += n
        return [self._view(("vector", "probe"), _passes=Batches(self._joined(found))) for found in pieces]

    def _joined(self, pieces: list[Any]) -> list[Any]:
        """Pieces of several batches as one batch where they fit together: small ones are slow."""
        whole = self.forward is None and self._probe.layout == EXAMPLES_FIRST
        if not whole or not all(isinstance(t, Tensor) and t.ndim for piece in pieces for t in piece):
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

    # -- precision

    def moved(self) -> "Snapshot":
        """This network where its weights are moved: in float32 at least, as half precision rounds small moves away."""
        small = any(p.dtype in (torch.bfloat16, torch.float16) for p in self.parameters.values())
        return self if self._dtype or not small else self.in_precision(torch.float32) or self

    def precise(self, *, moved: bool) -> tuple["Snapshot", str | None]:
        """This network in the precision that rounding asks for, and a note where it refuses that: see
        :mod:`genbench.measures.precision`."""
        return precise(self, moved=moved)

    def in_precision(self, dtype: torch.dtype) -> "Snapshot | None":
        """The same network, its weights, buffers, inputs and the loss's own tensors in another floating-point type;
        None where it cannot be computed so, or would be another function."""
        return self.shared(("in", dtype), lambda: in_precision(self, dtype))

    # -- the network as it is measured

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Evaluation mode with gradients on, at the snapshot's weights; everything is as before afterwards, also when
        something raises: weights, buffers, gradients, ``requires_grad``, modes, hooks, global random state and that of
        the loader's generators."""
        if self._is_placed():
            yield
            return
        if self._open.depth:
            self._check_names(self._open.places)
            with self._placed():
                yield
            return
        with ExitStack() as stack:
            stack.enter_context(restoring_random_state())
            stack.enter_context(restoring(self.model))
            if isinstance(self.loss, nn.Module):
                stack.enter_context(restoring(self.loss))
                for module in self.loss.modules():
                    module.training = False
            stack.enter_context(plain_kernels(self.device))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # the fused attention and cudnn's recurrent kernels have no second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._recurrent and self.device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            if "torch._dynamo" in sys.modules:  # what is compiled has no second derivative either
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for module in self.model.modules():
                module.training = False
                if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                    module.sparse = False  # nor have sparse gradients
            places = ModuleTensors(self.model)
            self._check_names(places)
            self._open.depth, self._open.places = 1, places
            self._open.attributes = attributes_of(list(self.model.modules()))
            try:
                with self._placed():
                    yield
            finally:
                self._open.depth, self._open.places, self._open.room = 0, None, None
                self._open.attributes = []
                places.restored = True  # a generator that is closed later has nothing to put back
                self._open.placed.clear()

    def _is_placed(self) -> bool:
        """Whether the network has this snapshot's weights, the last that were put there."""
        placed = self._open.placed
        return bool(placed) and _same_place(placed[-1], (self.parameters, self._fixed, None))

    def _check_names(self, places: ModuleTensors | None) -> None:
        assert places is not None
        if missing := self.state.keys() ^ places.tensors.keys():
            raise ValueError(f"the model has changed since the snapshot: {min(missing)!r} was added or removed")

    @contextmanager
    def _placed(self, values: Mapping[str, Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        """The network has these values of the snapshot's parameters (its own for None), and its own of everything else,
        wherever the forward or the backward pass, the loss or a hook finds them. Gives the parameters as leaves of
        autograd. A graph of them may be used within such a context alone."""
        open_, places = self._open, self._open.places
        assert places is not None
        key = (self.parameters, self._fixed, values)
        own = self._own(places)
        if open_.placed and _same_place(open_.placed[-1], key):
            yield own
            return
        state = {**self._fixed, **(self.parameters if values is None else values)}
        # what a forward pass changes in place is not the snapshot's
        moving = places.buffers.keys() | self.parameters.keys()
        state = {name: t.clone() if name in moving else t for name, t in state.items()}
        with ExitStack() as stack:
            if self._dtype is None:
                stack.enter_context(places.replace_data(state, leaves=self.parameters.keys()))
            else:  # the network's own tensors keep their type, as processes that share it hold on to their gradients
                plainly = {name: t.to(places.tensors[name].dtype) for name, t in state.items()}
                stack.enter_context(places.replace_data(plainly, leaves=()))
                held = {name: t for name, t in state.items() if name not in own}
                stack.enter_context(places.replace_tensors({**held, **own}))
                for name, leaf in own.items():
                    stack.callback(_set, leaf, leaf.data, leaf.requires_grad)
                    _set(leaf, state[name], True)
            open_.placed.append(key)
            try:
                yield own
            finally:
                open_.placed[:] = [other for other in open_.placed if other is not key]

    def _own(self, places: ModuleTensors) -> dict[str, Tensor]:
        """The tensors that autograd knows the parameters by: the network's own, or in another type the view's."""
        if self._dtype is None:
            return {name: places.tensors[name] for name in self.parameters}
        if not self._leaves:
            self._leaves.update({name: nn.Parameter(p.clone()) for name, p in self.parameters.items()})
        return {name: self._leaves[name] for name in self.parameters}

    @property
    def target_axis(self) -> int:
        """The axis of targets and outputs that holds the examples: 1 for sequences with the time first, else 0."""
        return (self._probe.layout or EXAMPLES_FIRST).target

    # -- how

    @property
    def _probe(self) -> BatchStructure:
        """How the network and the loss treat the examples, seen on the first batch."""
        with self.measuring():
            return self.shared("probe", lambda: self._probed(next(self._each())))

    @property
    def note(self) -> str | None:
        """What every estimate from the data has to say, once they have been looked at."""
        if len(self._shared.get("losses", ())) <= 1 or self._dividable:
            return None
        if self._probe.layout is None:
            return "the examples of a batch cannot be taken apart: the value may depend on the batches"
        if not self._probe.independent:
            return "an example's output depends on the others of its batch: the value is of these batches"
        return "the loss is no mean over the examples: the value depends on the batches, count= says what one counts"

    def _known_layout(self) -> Layout:
        layout = self._probe.layout
        if layout is None:
            raise ValueError(
                "which axis of a batch holds the examples cannot be told; accepted: inputs [B, ...] or [T, B, ...] "
                "and a network that computes any number of examples, each alone"
            )
        return layout

    def _probed(self, batch: Any) -> BatchStructure:
        return find_structure(lambda some, layout: self._run(some, layout=layout), batch, pair=self._paired(batch))

    def _number(self, batch: Any, layout: Layout) -> int:
        """The examples of a batch, which need not be run where it is known what its target is."""
        n = 0
        if self._paired(batch):
            x, target = batch
            if isinstance(target, Tensor):
                n = length(target, layout.target)
            elif layout.lists and all(isinstance(each, list | tuple) for each in batch) and len(x) == len(target):
                n = len(target)
            elif layout.parts is not None:
                n = layout.count(x, target, (x,))
        if not n:
            with torch.no_grad():
                n = self._run(batch, layout=layout).n
        return n

    def _paired(self, batch: Any) -> bool:
        return self.forward is None and isinstance(batch, list | tuple) and len(batch) == 2

    def _evaluate(self, *, keep: float) -> None:
        """One forward pass: the losses, and the outputs as long as they are no more than ``keep`` bytes."""
        with self.measuring(), torch.no_grad():
            predictions: list[tuple[Any, Any]] | None = []
            losses: list[tuple[Tensor, int]] = []
            weights, held, samples, common = [], 0, Samples(self.loss, self.count), None
            for batch in self._each():
                if "probe" not in self._shared:
                    with restoring_random_state():  # the passes to come do not draw what this draws
                        self._shared["probe"] = self._probed(batch)
                run = self._run(batch)
                if self._probe.examples == 1 < run.n:  # one example shows little
                    with restoring_random_state():
                        self._shared["probe"] = self._probed(batch)
                common = self._fitted(batch, run.n, common)
                losses.append((run.loss, run.n))
                weights.append(run.weight)
                samples.add((run.output, run.target), run.n, (run.loss, run.weight), self._probe.layout)
                held += sum(leaf.nbytes for leaf in tensors_of((run.output, run.target)))
                if predictions is not None and held <= keep:
                    predictions.append(mapped(Tensor.clone, (run.output, run.target)))  # one buffer may serve all
                else:
                    predictions = None
            counted = torch.tensor(weights, device=self.device) > 0
            if not counted.any():
                raise ValueError(
                    "count is 0 for every batch; accepted: what a batch counts in the mean, not all of it 0"
                )
            finite = (torch.isfinite(torch.stack([loss for loss, _ in losses])) | ~counted).tolist()
            if not all(finite):
                index = finite.index(False)
                raise ValueError(f"loss is {float(losses[index][0])} on batch {index}; accepted: a finite number")
        self._shared["losses"] = losses
        self._shared["weights"] = weights
        self._shared["mean"] = self._probe.mean and samples.mean
        if predictions is not None:
            self._shared["predictions"] = predictions

    def _fitted(self, batch: Any, n: int, common: list[Any] | None) -> list[Any] | None:
        """Corrects what was found of the first batch's parts by another's: a part of another length is none of the
        examples. What only the network's answers told to be of all examples has to be the same in all batches, as in
        ``common``; else an example's output depends on its batch."""
        probe = self._probe
        if probe.layout is None or probe.layout.parts is None:
            return None
        layout = probe.layout.fitting(batch, n)
        if layout is not probe.layout:
            self._shared["probe"] = probe = probe._replace(layout=layout)
        if not probe.shared or not probe.independent:
            return None
        parts, *_ = layout.apart(batch, n)
        found = [parts[i] for i in probe.shared if i < len(parts) and isinstance(parts[i], Tensor)]
        if common is not None and not close(found, common):
            self._shared["probe"] = probe._replace(independent=False)
        return found

    @property
    def _dividable(self) -> bool:
        """Whether a batch's loss is the mean of its parts' losses."""
        return self._probe.independent and self._shared.get("mean", self._probe.mean)

    def _pieces(self, batch: Any, size: int | None = None) -> list[Any]:
        """A batch in parts of at most ``size`` examples; of as many as a gradient has room for, without."""
        if self.forward is not None or not self._dividable:
            return [batch]
        layout = self._known_layout()
        n = self._number(batch, layout)
        if size is None:
            if self._open.room is None:
                self._open.room = allowed(self.device)
            size = max(1, self._open.room // max(1, 3 * self._probe.bytes))
        return list(layout.split(batch, n, size)) if n > size else [batch]

    def _each(self) -> Iterator[Any]:
        """The batches, on the model's device, in the same order with the same random draws at every pass."""
        return (mapped(self._given, batch) for batch in self._passes)

    def _given(self, tensor: Tensor) -> Tensor:
        if self._dtype is not None and tensor.is_floating_point():
            return tensor.to(self.device, self._dtype)
        return tensor.to(self.device)

    def _run(self, batch: Any, *, layout: Layout | None = None) -> BatchResult:
        """One batch through the network as it is placed."""
        output, target = self._answer(batch)
        if layout is None:
            probe = self._shared.get("probe")
            layout = (probe and probe.layout) or EXAMPLES_FIRST
        pair = self._paired(batch)
        n = layout.count(output, target, (batch[0],) if pair else batch, 1 if pair else 2)
        if not n:
            raise ValueError("batch has no examples: neither target nor output has a first dimension")
        try:
            loss = self.loss(output, target)
        except (IndexError, RuntimeError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"loss failed on {describe(output)} and {describe(target)}: {reason}") from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ValueError(f"loss returned {describe(loss)}; accepted: one number, the mean over the batch")
        weight = n if self.count is None else _weight(self.count(output, target))
        restore_attributes(
            self._open.attributes
        )  # what a pass keeps, weights that are merged or a state, is not the next one's
        return BatchResult(output, target, loss.reshape(()), weight, n)

    def _answer(self, batch: Any) -> tuple[Any, Any]:
        """(output, target) of the forward pass, without a graph where none is asked for."""
        forward = self.forward or _pair
        if torch.is_grad_enabled() or not self._open.differentiates:
            try:
                # a network may change its input in place, and a loss its target
                return forward(self.model, copied(batch))
            except RuntimeError as error:
                if torch.is_grad_enabled() or "does not require grad" not in str(error):
                    raise
                self._open.differentiates = True
        with torch.enable_grad():
            return mapped(Tensor.detach, forward(self.model, copied(batch)))

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
        return Snapshot(
            module,
            self.loss,
            self._passes,
            initial=initial,
            forward=self.forward,
            scaling=self.scaling,
            count=self.count,
        )


def _pair(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise ValueError(
            f"batch is {describe(batch)}; accepted: a pair (input, target), "
            "or any other with forward=(model, batch) -> (output, target)"
        )
    x, target = batch
    return model(x), target


def _copied(loss: Loss, model: nn.Module) -> Loss:
    """A loss with parameters or buffers of its own as it is now; one that refers to the network's stays as it is."""
    if not isinstance(loss, nn.Module):
        return loss
    own = {id(t) for t in (*loss.parameters(), *loss.buffers())}
    if not own or own & {id(t) for t in (*model.parameters(), *model.buffers())}:
        return loss
    try:
        return copy.deepcopy(loss)
    except Exception:  # what it holds cannot be copied
        return loss


def _check_finite(name: str, tensor: Tensor, *, infinite: bool = False) -> None:
    bad = tensor.isnan() if infinite else ~torch.isfinite(tensor)
    if bad.any():
        raise ValueError(f"weights {name!r} are not finite ({'NaN' if infinite else 'NaN or infinite'})")


def _weight(count: Any) -> float:
    weight = float(count)
    if not 0 <= weight < math.inf:
        raise ValueError(f"count is {weight}; accepted: what a batch counts in the mean, a number ≥ 0")
    return weight


def _same(a: Any, b: Any) -> bool:
    return a is b


def _set(leaf: Tensor, data: Tensor, requires_grad: bool) -> None:
    leaf.data = data
    leaf.requires_grad_(requires_grad)


def _same_place(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return all(map(_same, a, b))
