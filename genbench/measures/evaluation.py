"""A frozen network with a loss and data: passes over the batches, and how they are taken apart."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from genbench.checks import check_function
from genbench.measures.batch_structure import BatchResult, BatchStructure, find_structure
from genbench.measures.batches import Batches
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
from genbench.measures.frozen_network import FrozenNetwork, stepwise
from genbench.measures.products import Loss, flat, gradient
from genbench.measures.random_state import restoring_random_state
from genbench.module_state import restore_attributes
from genbench.numpy_linear import NumpyLinear
from genbench.process.memory import room

Forward = Callable[[nn.Module, Any], tuple[Any, Any]]
Count = Callable[[Any, Any], Any]

FINDINGS = ("structure", "mean", "coupled")  # kept values that do not depend on the weights or their precision
SLICE = 1024  # examples of one graph, on a CPU
_OUTPUTS = 2**24  # bytes of outputs that are kept before anybody has asked for them
_SHARE = 0.25  # of the free memory, for graphs


class Evaluation(FrozenNetwork):
    """A frozen network, its loss and its data. See :class:`genbench.measures.Snapshot` for the arguments.

    Attributes:
        loss: (output, target) -> scalar tensor.
        forward: (model, batch) -> (output, target); None for pairs (input, target).
        count: (output, target) -> weight of a batch in the mean; None for its number of examples.
        passes: the batches, the same at every pass.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[Any],
        *,
        initial: Mapping[str, Tensor] | None = None,
        forward: Forward | None = None,
        count: Count | None = None,
    ) -> None:
        super().__init__(model, initial=initial)
        check_function("loss", loss, of="output and target")
        check_function("forward", forward, of="model and batch", optional=True)
        check_function("count", count, of="output and target", optional=True)
        if not isinstance(batches, Iterable):
            raise ValueError(f"batches is {type(batches).__name__!r}; accepted: an iterable of batches")
        self.loss = _copied(loss, self.model)
        self.forward = forward
        self.count = count
        self.passes = batches if isinstance(batches, Batches) else Batches(batches)

    def measured_modules(self) -> list[nn.Module]:
        """The network, and a loss that is a module."""
        return [self.model, self.loss] if isinstance(self.loss, nn.Module) else [self.model]

    @property
    def findings(self) -> dict[str, Any]:
        """What a pass over the data finds out about the network, the loss and the batches, for :meth:`knowing`."""
        _ = self.losses
        return {key: self._shared[key] for key in FINDINGS}

    def knowing(self, findings: Mapping[str, Any]) -> Self:
        """The same network, loss and data, about which this was found out at other weights. To find it takes several
        forward passes."""
        known = self.view(("vector",))
        known._shared |= findings
        return known

    # -- values of the whole data

    @property
    def batches(self) -> Iterable[Any]:
        """The batches as they were given, the same at every pass over them."""
        return self.passes if self.passes.kept is None else self.passes.kept

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
    def weights(self) -> list[float]:
        """The weight of every batch in the mean."""
        _ = self.losses
        return self._shared["weights"]

    @property
    def mean_loss(self) -> float:
        """L(w)."""
        return mean_of(list(zip((loss for loss, _ in self.losses), self.weights, strict=True)))

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(n for _, n in self.losses)

    @property
    def note(self) -> str | None:
        """The note that every estimate from the data carries; None before the first pass."""
        if len(self._shared.get("losses", ())) <= 1 or self.divisible:
            return None
        if self.structure.layout is None:
            return "the examples of a batch cannot be taken apart: the value may depend on the batches"
        if not self.structure.independent:
            return "an example's output depends on the others of its batch: the value is of these batches"
        if self._shared.get("coupled"):
            return "the loss of an example depends on the others of its batch: the value is of these batches"
        mend = "count= says what one counts" if self.count is None else "count= does not give their weights in it"
        return f"the loss is no mean over the examples: the value depends on the batches, {mend}"

    @stepwise
    def predictions_with(self, parameters: Mapping[str, Tensor]) -> Iterator[tuple[Any, Any, Tensor, float]]:
        """(output, target, mean loss, weight) of each batch at other parameters."""
        for batch in self.each_batch():
            with self.placed(parameters), torch.no_grad():
                result = self.run(batch)
            yield result.output, result.target, result.loss, result.weight
        self.count_pass()

    def loss_with(self, parameters: Mapping[str, Tensor]) -> float:
        """L at other parameters."""
        return mean_of([(loss, weight) for _, _, loss, weight in self.predictions_with(parameters)])

    def gradient_with(self, parameters: Mapping[str, Tensor]) -> tuple[float, Tensor]:
        """L and its gradient [size], float64, at other parameters."""
        values, total = [], torch.zeros(self.size, dtype=torch.float64, device=self.device)
        with self.measuring():
            with self.placed(parameters) as leaves:
                for batch in self.each_batch():
                    for piece in self.pieces(batch):
                        result = self.run(piece)
                        if result.weight:
                            total += result.weight * flat(gradient(result.loss, leaves))
                        values.append((result.loss.detach(), result.weight))
            self.count_pass()
            return mean_of(values), total / sum(weight for _, weight in values)

    # -- one batch

    def each_batch(self) -> Iterator[Any]:
        """The batches on the model's device, in the same order and with the same random numbers at every pass."""
        return (mapped(self._moved_to_model, batch) for batch in self.passes)

    def run(self, batch: Any, *, layout: Layout | None = None) -> BatchResult:
        """Run one batch through the network as it is placed.

        Raises:
            ValueError: a batch without examples, or a loss that fails or is not one number.
        """
        with NumpyLinear() if self.session.by_numpy else nullcontext():
            output, target = self._forward(batch)
        if layout is None:
            structure = self._shared.get("structure")
            layout = (structure and structure.layout) or EXAMPLES_FIRST
        pair = self.is_pair(batch)
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
        weight = n if self.count is None else _checked(self.count(output, target))
        # merged weights or a state that this pass has kept must not reach the next one
        restore_attributes(self.session.attributes)
        return BatchResult(output, target, loss.reshape(()), weight, n)

    def pieces(self, batch: Any, size: int | None = None) -> list[Any]:
        """A batch in parts of at most ``size`` examples; by default of as many as the graph of a gradient has room for.

        A batch whose loss is not the mean of its parts' losses stays whole.
        """
        if self.forward is not None or not self.divisible:
            return [batch]
        layout = self.known_layout()
        n = self.number_of_examples(batch, layout)
        if size is None:
            if self.session.room is None:
                self.session.room = graph_memory(self.device)
            size = max(1, self.session.room // max(1, 3 * self.structure.bytes))
        return list(layout.split(batch, n, size)) if n > size else [batch]

    def is_pair(self, batch: Any) -> bool:
        """Whether a batch is read as (input, target)."""
        return self.forward is None and isinstance(batch, list | tuple) and len(batch) == 2

    def number_of_examples(self, batch: Any, layout: Layout) -> int:
        """The number of examples of a batch, which runs only where the target does not tell."""
        n = 0
        if self.is_pair(batch):
            x, target = batch
            if isinstance(target, Tensor):
                n = length(target, layout.target)
            elif layout.lists and all(isinstance(each, list | tuple) for each in batch) and len(x) == len(target):
                n = len(target)
            elif layout.parts is not None:
                n = layout.count(x, target, (x,))
        if not n:
            with torch.no_grad():
                n = self.run(batch, layout=layout).n
        return n

    # -- how the network and the loss treat the examples of a batch

    @property
    def structure(self) -> BatchStructure:
        """How the network and the loss treat the examples of a batch, found on the first one."""
        if "structure" not in self._shared:
            with self.measuring():
                self._shared["structure"] = self._find_structure(next(self.each_batch()))
        found: BatchStructure = self._shared["structure"]
        return found

    @property
    def target_axis(self) -> int:
        """The axis of targets and outputs that holds the examples: 1 for sequences with the time first, else 0."""
        return (self.structure.layout or EXAMPLES_FIRST).target

    @property
    def divisible(self) -> bool:
        """Whether a batch's loss is the mean of its parts' losses."""
        return self.structure.independent and self._shared.get("mean", self.structure.mean)

    def known_layout(self) -> Layout:
        """Where the examples of a batch lie.

        Raises:
            ValueError: it cannot be told.
        """
        layout = self.structure.layout
        if layout is None:
            raise ValueError(
                "which axis of a batch holds the examples cannot be told; accepted: inputs [B, ...] or [T, B, ...] "
                "and a network that computes any number of examples, each alone"
            )
        return layout

    # -- progress

    @contextmanager
    def reporting(self, progress: Any) -> Iterator[None]:
        """Call ``progress.tick()`` at every pass over the data within the context."""
        before, self.session.progress = self.session.progress, progress
        try:
            yield
        finally:
            self.session.progress = before

    def count_pass(self) -> None:
        """Report one more pass over the data."""
        if self.session.progress is not None:
            self.session.progress.tick()

    # -- how

    def _find_structure(self, batch: Any) -> BatchStructure:
        return find_structure(lambda some, layout: self.run(some, layout=layout), batch, pair=self.is_pair(batch))

    def _evaluate(self, *, keep: float) -> None:
        """Make one forward pass: keep the losses, and the outputs up to ``keep`` bytes."""
        with self.measuring(), torch.no_grad():
            predictions: list[tuple[Any, Any]] | None = []
            losses: list[tuple[Tensor, int]] = []
            weights, held, common = [], 0, None
            samples = None if "mean" in self._shared else Samples(self.loss, self.count)
            for batch in self.each_batch():
                if "structure" not in self._shared:
                    with restoring_random_state():  # later passes must draw the same numbers without this search
                        self._shared["structure"] = self._find_structure(batch)
                result = self.run(batch)
                if self.structure.examples == 1 < result.n:  # one example shows little
                    with restoring_random_state():
                        self._shared["structure"] = self._find_structure(batch)
                common = self._fit_structure(batch, result.n, common)
                losses.append((result.loss, result.n))
                weights.append(result.weight)
                value = (result.output, result.target)
                if samples is not None:
                    samples.add(value, result.n, (result.loss, result.weight), self.structure.layout)
                held += sum(tensor.nbytes for tensor in tensors_of(value))
                if predictions is not None and held <= keep:
                    predictions.append(mapped(Tensor.clone, value))  # the network may write into one buffer
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
        if samples is not None:
            self._shared["mean"] = self.structure.mean and samples.mean
            self._shared["coupled"] = samples.coupled
        if predictions is not None:
            self._shared["predictions"] = predictions

    def _fit_structure(self, batch: Any, n: int, common: list[Any] | None) -> list[Any] | None:
        """Correct the structure by a further batch of ``n`` examples.

        A part of another length does not consist of examples. A part that all examples share although it is as long as
        the batch must be the same in all batches, as in ``common``; else an example's output depends on its batch.
        Gives the shared parts of this batch.
        """
        structure = self.structure
        if structure.layout is None or structure.layout.parts is None:
            return None
        layout = structure.layout.fitting(batch, n)
        if layout is not structure.layout:
            self._shared["structure"] = structure = structure._replace(layout=layout)
        if not structure.shared or not structure.independent:
            return None
        parts, *_ = layout.apart(batch, n)
        found = [parts[i] for i in structure.shared if i < len(parts) and isinstance(parts[i], Tensor)]
        if common is not None and not close(found, common):
            self._shared["structure"] = structure._replace(independent=False)
        return found

    def _moved_to_model(self, tensor: Tensor) -> Tensor:
        if self.dtype is not None and tensor.is_floating_point():
            return tensor.to(self.device, self.dtype)
        return tensor.to(self.device)

    def _forward(self, batch: Any) -> tuple[Any, Any]:
        """(output, target), without a graph where gradients are off."""
        forward = self.forward or forward_pair
        if torch.is_grad_enabled() or not self.session.differentiates:
            try:
                # the network may change its input in place, and the loss its target
                return forward(self.model, copied(batch))
            except RuntimeError as error:
                if torch.is_grad_enabled() or "does not require grad" not in str(error):
                    raise
                self.session.differentiates = True
        with torch.enable_grad():
            return mapped(Tensor.detach, forward(self.model, copied(batch)))


def forward_pair(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """(output, target) of a batch (input, target).

    Raises:
        ValueError: the batch is no pair.
    """
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise ValueError(
            f"batch is {describe(batch)}; accepted: a pair (input, target), "
            "or any other with forward=(model, batch) -> (output, target)"
        )
    x, target = batch
    return model(x), target


def graph_memory(device: torch.device) -> int:
    """Bytes that the graphs of gradients may take."""
    return int(_SHARE * room(device))


def _copied(loss: Loss, model: nn.Module) -> Loss:
    """Copy a loss with parameters or buffers of its own; return one that refers to the network's, or none, as it is."""
    if not isinstance(loss, nn.Module):
        return loss
    own = {id(t) for t in (*loss.parameters(), *loss.buffers())}
    if not own or own & {id(t) for t in (*model.parameters(), *model.buffers())}:
        return loss
    try:
        return copy.deepcopy(loss)
    except Exception:  # it holds something that cannot be copied
        return loss


def _checked(count: Any) -> float:
    weight = float(count)
    if not 0 <= weight < math.inf:
        raise ValueError(f"count is {weight}; accepted: what a batch counts in the mean, a number ≥ 0")
    return weight
