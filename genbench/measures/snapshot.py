"""A network frozen at one point of training, with the loss and the data it is measured on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genbench.checks import nearest
from genbench.measures import model_inputs
from genbench.measures.batches import Batches, BatchesWithTargets
from genbench.measures.effective_weights import layers
from genbench.measures.evaluation import Count, Evaluation, Forward, forward_pair
from genbench.measures.example_gradients import example_gradients
from genbench.measures.examples import EXAMPLES_FIRST, mean_of
from genbench.measures.frozen_network import check_finite, stepwise
from genbench.measures.operators import CurvatureOperator
from genbench.measures.outputs import with_logits
from genbench.measures.precision import movable
from genbench.measures.products import Loss, fisher, gauss_newton, hessian, log_partition
from genbench.module_state import renamed

MARKS = ("mislabelled", "relabelled", "trained_on")
"""What may be known of each example."""


class Snapshot(Evaluation):
    """A network with its weights at this moment, its loss and its data.

    L(w) = Σ_b n_b · loss(output_b, target_b) / Σ_b n_b over the batches b, with n_b the examples of a batch. If
    ``loss`` is a mean over the examples of its batch (torch's default reduction), L is the mean over all examples,
    however they are split. n_b is the length of the target (of the output, if the target has none; of the first tensor,
    if there are several; of a list with one entry an example). For a loss that is another mean, over weighted classes
    or over tokens without padding, ``count`` gives n_b; without it, and with several batches, every estimate says that
    it depends on the batches.

    Weights and buffers are copied: later training does not change a snapshot, and measuring never changes training.
    While measuring, the live network has the snapshot's weights, forward and backward, so that a penalty in the loss, a
    hook, checkpointing, a parametrization and a module that is registered twice see them. The network gets copies of
    the inputs. It is measured in evaluation mode and must then be deterministic. The examples may lie in the first axis
    or in the second (time first); a few examples show which.

    Products with a curvature matrix keep the graphs of the gradient within a quarter of the free memory. Beyond it
    batches are computed in parts, and memory does not grow with their number or size.

    Args:
        model: any network; of a wrapper (torch.compile, DataParallel, DistributedDataParallel) the network inside. A
            module list ``model.members`` marks an ensemble: see :func:`genbench.measures.measure`.
        loss: (output, target) -> scalar tensor, the mean over the batch.
        batches: (input, target) pairs, or anything that ``forward`` understands. All passes over a loader see the same
            data: the first pass is kept within an eighth of the free memory.
        initial: state dict of the initial weights, for distances; of an ensemble, or one for all its members.
        forward: (model, batch) -> (output, target).
        scaling: mean and standard deviation of normalized images, one number or one a channel: std · input + mean lies
            in [0, 1], the range that corruptions are defined for.
        count: (output, target) -> weight of a batch in the mean, e.g. the number of its tokens without padding or the
            sum of its examples' class weights.
        mislabelled: whether the label of each example is known to be wrong, bool [N] in the order of the batches.
        relabelled: whether the label of each example was drawn at random, so that it may still be right, likewise.
        trained_on: whether a network was trained on each example, bool [N, networks], a column for each member of an
            ensemble.

    Raises:
        ValueError: not a network, weights that are not finite, sharded or quantized, no batches, batches of another
            form, a loss that is a sum or not a finite number, or a network that draws random numbers in evaluation
            mode.

    Example:
        >>> batches = [(torch.ones(4, 3), torch.zeros(4, dtype=torch.long))]
        >>> snapshot = Snapshot(nn.Linear(3, 2), nn.functional.cross_entropy, batches)
        >>> snapshot.size, snapshot.examples
        (8, 4)
        >>> snapshot.hessian.matvec(torch.ones(8)).shape
        torch.Size([8])
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
        mislabelled: Tensor | None = None,
        relabelled: Tensor | None = None,
        trained_on: Tensor | None = None,
    ) -> None:
        super().__init__(model, loss, batches, initial=initial, forward=forward, count=count)
        self.scaling = scaling
        self.mislabelled = mislabelled
        self.relabelled = relabelled
        self.trained_on = trained_on

    # -- curvature

    @property
    def hessian(self) -> CurvatureOperator:
        """The Hessian ∇²L(w)."""
        return CurvatureOperator(self, hessian, name="hessian")

    @property
    def gauss_newton(self) -> CurvatureOperator:
        """The generalized Gauss–Newton matrix G = mean Jᵀ(∇²ℓ)J (Schraudolph 2002, Neural Comput. 14, 1723).

        J is the derivative of the outputs by the weights, ∇²ℓ the Hessian of the loss by the outputs. G equals the
        Fisher matrix if the loss is the log-likelihood of an exponential family in its natural parameters, as the
        cross-entropy of logits is.
        """
        return CurvatureOperator(self, gauss_newton, name="gauss_newton")

    @property
    def fisher(self) -> CurvatureOperator:
        """The Fisher matrix F = 1/N Σᵢ E_{y ∼ p(·|xᵢ)} ∇log p(y|xᵢ) ∇log p(y|xᵢ)ᵀ, whatever the loss is.

        p are the network's probabilities; of outputs [N, K, T], F is the mean over the T positions. F is computed as
        the Gauss–Newton matrix of the cross-entropy (Martens 2020, arXiv 1412.1193).

        Raises:
            ValueError: the outputs have no logits.
        """
        reading = with_logits(self)
        if isinstance(reading, str):
            raise ValueError(f"the Fisher matrix is undefined: {reading}")

        def loss(output: Any, _target: Any) -> Tensor:
            return log_partition(reading.logits(output))

        likelihood = self.shared("likelihood", lambda: self.with_loss(loss))
        return CurvatureOperator(likelihood, fisher(reading.logits), name="fisher")

    # -- values at other weights, gradients, inputs

    def loss_at(self, vector: Tensor) -> float:
        """L at other weights [size]."""
        return mean_of([(loss, weight) for _, _, loss, weight in self.predictions_at(vector)])

    def predictions_at(self, vector: Tensor) -> Iterator[tuple[Any, Any, Tensor, float]]:
        """(output, target, mean loss, weight in the mean) of each batch at other weights [size]."""
        view = self._movable()
        return view.predictions_with(view.split(vector))

    def gradient_at(self, vector: Tensor) -> tuple[float, Tensor]:
        """L and its gradient [size], float64, at other weights [size]."""
        view = self._movable()
        with view.measuring():
            if self.passes.kept is None or len(self.passes.kept) > 1:
                _ = self.losses  # the first pass shows whether the loss is the mean over the examples
            return view.gradient_with(view.split(vector))

    @stepwise
    def example_gradients(self, vector: Tensor | None = None) -> Iterator[Tensor]:
        """∇ℓᵢ(w) of each example [b, size], in the model's precision, a few examples at a time.

        Raises:
            ValueError: the loss of a batch is not the mean of its examples' losses, or the axis of the examples cannot
                be told.
        """
        return example_gradients(self, self.vector if vector is None else vector, check=vector is None)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The modules with an effective weight of two or more dimensions, by name, in the order of the model."""
        return layers(self)

    @property
    def representations(self) -> dict[str, Tensor]:
        """The input of each layer of :attr:`layers`, [N, ...] by the layer's name, and the network's ``output``.

        In the order of the calls; the last input of a layer that is called several times. The first is the data. An
        input contains everything that happened before the layer: activations, normalization and residual sums, whatever
        the architecture. One that has not the same shape for all examples, as of sequences that are padded to the
        longest of their batch, has no rows. Kept on the model's device.
        """
        return self.shared("representations", lambda: model_inputs.representations(self))

    @property
    def first_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, by position and by name, that the model gets for the first example."""
        return self.shared("first input", lambda: model_inputs.first_input(self))

    def at_inputs(self, shift: model_inputs.Shift | None = None) -> Iterator[tuple[tuple[Tensor, ...], Any, Any]]:
        """(inputs, output, target) of a few examples at a time, with the output differentiable by the inputs.

        Inputs are the floating-point tensors of a batch's input (of the whole batch with ``forward``), examples first;
        with ``shift``, what it makes of them.

        Raises:
            ValueError: called outside :meth:`measuring`: the graphs are of the weights placed there.
        """
        if not self.is_placed():
            raise ValueError("at_inputs gives graphs of the snapshot's weights; accepted: within snapshot.measuring()")
        return self._at_inputs(shift)

    @stepwise
    def _at_inputs(self, shift: model_inputs.Shift | None) -> Iterator[tuple[tuple[Tensor, ...], Any, Any]]:
        return model_inputs.at_inputs(self, shift)

    @stepwise
    def blocks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets) in blocks of ``size`` consecutive examples, the last one smaller, on the model's device.

        Blocks do not depend on how the batches split the examples, nor do random numbers drawn for the i-th block.

        Raises:
            ValueError: batches that are no pairs of tensors with the examples in the first axis, unless ``forward``
                calls the model with one and returns its output and the other; or examples of several shapes.
        """
        return model_inputs.blocks(self, size)

    # -- other snapshots of the same network

    @property
    def members(self) -> "list[Snapshot]":
        """A snapshot of each member of an ensemble; empty for any other network."""
        modules = getattr(self.model, "members", None)
        if not isinstance(modules, nn.ModuleList):
            return []
        with self.measuring():  # at this snapshot's weights, not at those the live network has now
            chosen = [
                (i, m)
                for i, m in enumerate(modules)
                if any(name.startswith(f"members.{i}.") for name in self.parameters)
            ]
            return self.shared("members", lambda: [self._member(i, m) for i, m in chosen])

    def with_loss(self, loss: Loss, *, count: Count | None = None) -> "Snapshot":
        """The same network and data under another loss, with its weight of a batch in the mean."""
        return self.view(("vector", "representations"), loss=loss, count=count)

    def with_targets(self, targets: Sequence[Any]) -> "Snapshot":
        """The same network, inputs and loss under other targets, one for each batch in the order of the batches."""
        forward = self.forward or forward_pair

        def replaced(model: nn.Module, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            inner, target = batch
            return forward(model, inner)[0], target

        batches = BatchesWithTargets(self.passes, targets)
        unknown = dict.fromkeys(MARKS)
        return self.view(("vector", "representations"), passes=batches, forward=replaced, **unknown)

    def with_batches(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "Snapshot":
        """The same network and loss on other data, (input, target) pairs."""
        return self.on(batches, forward=None)

    def on(self, batches: Iterable[Any], **changes: Any) -> "Snapshot":
        """The same network and loss on other batches of the same form."""
        return self.view(("vector",), passes=Batches(batches), **{**dict.fromkeys(MARKS), **changes})

    def with_state(self, state: Mapping[str, Tensor]) -> "Snapshot":
        """The same loss and data at other parameters and buffers, all of them: a state dict of the same architecture.

        Raises:
            ValueError: a tensor of the network that ``state`` lacks, has in another shape, or not finite.
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
            check_finite(name, state[name], infinite=name in buffers)
            found[name] = state[name].detach().to(own.device, own.dtype, copy=True)
        return self.view(
            ("structure",),
            parameters={name: found[name] for name in self.parameters},
            fixed={name: found[name] for name in self.fixed},
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
                parts = {key.rpartition(".")[0] for key in self.parameters} - {""}
                near = nearest(name, [*self.parameters, *sorted(parts)])
                raise ValueError(f"no trainable parameter or layer {name!r}; {near}")
            chosen |= found
        if not chosen:
            raise ValueError("no parameters are selected; accepted: names of parameters or layers")
        held = {name: p for name, p in self.parameters.items() if name not in chosen}
        return self.view(
            ("predictions", "losses", "weights", "mean", "coupled", "representations", "structure"),
            parameters={name: p for name, p in self.parameters.items() if name in chosen},
            size=sum(p.numel() for p in chosen.values()),
            fixed={**self.fixed, **held},
        )

    def subsets(self, indices: Sequence[Tensor]) -> "list[Snapshot]":
        """The same network on some of the examples: a snapshot for each tensor of positions in the data [m].

        Makes one pass over the data and keeps the chosen examples alone. Splits the tensors whose first dimension is
        the number of examples; everything else belongs to every example of its batch.

        Raises:
            ValueError: a position outside the data.
        """
        outside = [p for p in indices if len(p) and not 0 <= int(p.min()) <= int(p.max()) < self.examples]
        if outside:
            at = (int(outside[0].min()), int(outside[0].max()))
            raise ValueError(f"positions lie in [{at[0]}, {at[1]}]; accepted: 0 to {self.examples - 1}")
        marks = {name: getattr(self, name) for name in MARKS}
        for name, mark in marks.items():
            if mark is not None and len(mark) != self.examples:
                raise ValueError(f"{name} has {len(mark)} entries; accepted: one for each of {self.examples} examples")
        pieces: list[list[Any]] = [[] for _ in indices]
        places: list[list[Tensor]] = [[] for _ in indices]
        first = 0
        with self.measuring():
            layout = self.known_layout()
            for batch, (_, n) in zip(self.each_batch(), self.losses, strict=True):
                for chosen, found, own in zip(indices, pieces, places, strict=True):
                    rows = chosen[(first <= chosen) & (chosen < first + n)] - first
                    if len(rows):
                        found.append(layout.rows(batch, n, rows))
                        own.append(rows + first)
                first += n

        def own_marks(rows: list[Tensor]) -> dict[str, Tensor]:
            known = {name: mark for name, mark in marks.items() if mark is not None}
            return {name: mark[torch.cat(rows).to(mark.device)] for name, mark in known.items()}

        return [
            self.view(("vector", "structure"), passes=Batches(self._joined(found)), **own_marks(own))
            for found, own in zip(pieces, places, strict=True)
        ]

    def _joined(self, pieces: list[Any]) -> list[Any]:
        """Pieces of several batches as one batch if they fit together: small batches are slow."""
        whole = self.forward is None and self.structure.layout == EXAMPLES_FIRST
        if not whole or not all(isinstance(t, Tensor) and t.ndim for piece in pieces for t in piece):
            return pieces
        if len({tuple((t.shape[1:], t.dtype) for t in piece) for piece in pieces}) != 1:
            return pieces
        return [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]

    def _movable(self) -> "Snapshot":
        view = movable(self)
        view.shared("structure", lambda: self.structure)
        return view

    def _member(self, index: int, module: nn.Module) -> "Snapshot":
        prefix = f"members.{index}."
        start = self.initial or {}
        own = {k.removeprefix(prefix): t for k, t in start.items() if k.startswith(prefix)}
        member = Snapshot(
            module,
            self.loss,
            self.passes,
            initial=own or self.initial,  # members of one training have one start
            forward=self.forward,
            scaling=self.scaling,
            count=self.count,
            mislabelled=self.mislabelled,
            relabelled=self.relabelled,
            trained_on=None if self.trained_on is None else self.trained_on[:, index : index + 1],
        )
        return member if self.dtype is None else member.in_dtype(self.dtype, ())
