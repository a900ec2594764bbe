"""The order of a training step, stated once for lanes that compute separately and for lanes that compute as one."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from genbench.regularization.base import Parameters
from genbench.rng import Rows, StepRandom


class Parts(Protocol):
    """The parts of a step, which a lane has, and which of them its methods use."""

    transforms: bool
    perturbs: bool
    m: int | None  # examples that share a perturbation; None: all
    changes_gradient: bool
    changes_weights_before: bool

    @property
    def transformed(self) -> Callable[..., tuple[Tensor, Tensor]]: ...
    @property
    def objective(self) -> Callable[..., Tensor]: ...
    @property
    def perturbed(self) -> Callable[..., Parameters]: ...
    @property
    def changed(self) -> Callable[..., Parameters]: ...
    @property
    def before_step(self) -> Callable[..., None]: ...


class Backend(Protocol):
    """How the parts of a step are computed: for one lane directly, or for many lanes by ``torch.vmap``.

    Attributes:
        weights: the trainable parameters.
        batch_axis: of inputs and targets.
    """

    weights: Parameters
    batch_axis: int

    def apply(self, part: Callable[..., Any], *args: Any) -> Any:
        """part(*args), a method of the lane."""

    def differentiate(
        self, objective: Callable[..., Tensor], x: Tensor, y: Tensor, draw: StepRandom, *, at: Parameters | None = None
    ) -> tuple[Tensor, Parameters]:
        """The objective, detached, and its gradient at ``weights``, or at the perturbed weights ``at``."""


class Lanes(Protocol):
    """Lanes that train side by side."""

    def gradient_step(self, x: Tensor, y: Tensor, *, step: int) -> Tensor:
        """Leave each lane's gradient for the optimizer; return the training objectives [lanes]."""

    def after_step(self, progress: float) -> None:
        """Let the methods act on the weights that the optimizer has moved."""


class Unhooked:
    """An optimizer whose steps the Trainer counts without calling a hook, which takes as long as a small network's
    update.

    Args:
        optimizer: the optimizer itself.
        trainer: the Trainer, with manual optimization.
    """

    def __init__(self, optimizer: Any, trainer: Any) -> None:
        self._optimizer = optimizer
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        self._given = () if closure is None or closure.default is None else (_nothing,)  # as the Trainer would
        self._counted = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress

    @property
    def param_groups(self) -> Any:
        return self._optimizer.param_groups

    def step(self) -> None:
        self._counted.increment_ready()
        self._optimizer.step(*self._given)
        self._counted.increment_completed()


def _nothing() -> None:
    """A closure that computes nothing: the gradient is there."""


def gradient_step(
    lane: Parts, backend: Backend, x: Tensor, y: Tensor, draw: StepRandom, lr: float | Tensor
) -> tuple[Tensor, Parameters]:
    """The training objective, and the gradient for the optimizer.

    A pack traces this function: no branch may depend on the value of a tensor. The lane says which parts it has.
    """
    if lane.transforms:
        x, y = backend.apply(lane.transformed, x, y, draw)
    if lane.m is None or (n := x.shape[backend.batch_axis]) == lane.m:
        objective, grads = _gradient(lane, backend, lane.objective, x, y, draw)
    else:
        parts = [partial(_of_rows, lane.objective, rows, n) for rows in _blocks(n, lane.m)]
        objective, grads = _mean([_gradient(lane, backend, part, x, y, draw) for part in parts])
    if lane.changes_gradient:
        grads = backend.apply(lane.changed, backend.weights, grads, draw)
    if lane.changes_weights_before:
        backend.apply(lane.before_step, backend.weights, lr, draw)
    return objective, grads


def _gradient(
    lane: Parts, backend: Backend, objective: Callable[..., Tensor], x: Tensor, y: Tensor, draw: StepRandom
) -> tuple[Tensor, Parameters]:
    """An objective and its gradient, at the weights that it perturbs where the lane does."""
    value, grads = backend.differentiate(objective, x, y, draw)
    if lane.perturbs:
        perturbed = backend.apply(lane.perturbed, backend.weights, grads)
        _, grads = backend.differentiate(objective, x, y, draw, at=perturbed)
    return value, grads


def _blocks(n: int, m: int) -> list[range]:
    """The rows of each ``m`` examples of a batch of ``n``."""
    if n % m:
        raise ValueError(f"m is {m}, which does not divide a batch of {n} examples; accepted: a divisor, or null")
    return [range(start, start + m) for start in range(0, n, m)]


def _of_rows(
    objective: Callable[..., Tensor], rows: range, n: int, x: Tensor, y: Tensor, draw: StepRandom, **again: bool
) -> Tensor:
    """The objective of some rows of a batch of ``n`` examples."""
    part = slice(rows.start, rows.stop)
    return objective(x[part], y[part], Rows(draw, rows, n), **again)


def _mean(found: Sequence[tuple[Tensor, Parameters]]) -> tuple[Tensor, Parameters]:
    """The mean of objectives and gradients of blocks; None for a parameter that no block uses."""
    objectives, grads = zip(*found, strict=True)
    used = [[g for g in blocks if g is not None] for blocks in zip(*grads, strict=True)]
    means = [torch.stack(blocks).sum(0) / len(found) if blocks else None for blocks in used]
    return torch.stack(objectives).mean(0), means  # type: ignore[return-value]


def training_step(
    lanes: Lanes,
    x: Tensor,
    y: Tensor,
    *,
    optimizer: Any,
    schedule: Callable[[], Any] | None,
    step: int,
    total_steps: int,
) -> Tensor:
    """Move the weights of all lanes once; return the training objectives [lanes].

    Args:
        lanes: compute the gradients that the optimizer applies.
        x: inputs [lanes, B, ...].
        y: targets [lanes, B, ...].
        optimizer: its ``step()`` moves the weights.
        schedule: sets the learning rate of the next step.
        step: number of steps before this one, which keys the random numbers.
        total_steps: number of steps of the whole training.
    """
    objectives = lanes.gradient_step(x, y, step=step)
    optimizer.step()
    if schedule is not None:
        schedule()
    lanes.after_step((step + 1) / total_steps)
    return objectives
