"""One network with what trains it: the training step of every run."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.models.slots import frozen_norm_statistics, use_draw
from genbench.regularization.base import Batches, Method, Parameters, Validate, overriding
from genbench.regularization.shared.pixels import together
from genbench.rng import StepRandom
from genbench.training.shard import Shard, synchronized_batch_norms


class Lane(nn.Module):
    """A network and its methods. A run has one lane; an ensemble has one a member.

    ``gradient_step`` is the whole of a training step but the optimizer's update. ``loss`` (output, target) -> mean over
    the batch is what a method may replace. ``share`` is set where several processes train the lane together.
    """

    network: nn.Module
    stopped: Tensor
    shard: Shard | None = None

    def __init__(
        self,
        network: nn.Module,
        methods: Sequence[Method] = (),
        *,
        seed: int,
        loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
    ) -> None:
        super().__init__()
        for method in methods:
            network = method.build(network)
        self.network = network
        self.methods = nn.ModuleList(methods)
        self.seed = seed
        self.register_buffer("stopped", torch.tensor(False))
        self._params: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        if not self._params:
            raise ValueError(f"model {type(network).__name__} has no trainable parameters")
        self._transforms = together(overriding(methods, "transform"))
        self._penalties = overriding(methods, "penalty")
        self._gradients = overriding(methods, "gradient")
        self._before = overriding(methods, "before_step")
        self._watching = overriding(methods, "after_epoch")
        self._finishing = overriding(methods, "finish")
        self._after = overriding(methods, "after_step")
        self._loss = next((m.loss for m in overriding(methods, "loss")), loss)
        self._perturb = next((m.perturb for m in overriding(methods, "perturb")), None)
        # what a step consists of
        self.transforms = bool(self._transforms)
        self.perturbs = self._perturb is not None
        self.changes_gradient = bool(self._gradients)
        self.changes_weights_before = bool(self._before)
        self.changes_weights_after = bool(self._after)

    @property
    def validates(self) -> bool:
        """Whether a method watches the validation split."""
        return bool(self._watching)

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that training changes."""
        return self._params

    def gradient_step(
        self, x: Tensor, y: Tensor, *, draw: StepRandom, lr: float, backward: Callable[[Tensor], None]
    ) -> Tensor:
        """Leave in ``.grad`` what the optimizer shall apply; returns the training objective, detached."""
        x, y = self.transformed(x, y, draw)
        part = (x, y, draw) if self.shard is None else self.shard.rows(x, y, draw)
        objective = self._backward(*part, backward)
        if self.perturbs:
            self._gradient_at(self.perturbed(self._params, self._grads()), *part, backward)
        if self.changes_gradient:
            for p, g in zip(self._params, self.changed(self._params, self._grads(), draw), strict=True):
                p.grad = g
        if self.changes_weights_before:
            self.before_step(self._params, torch.tensor(lr, dtype=torch.float64), draw)
        return objective

    # -- the parts of a step, which a pack computes for all its lanes at once

    def transformed(self, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        """The batch to train on."""
        for method in self._transforms:
            moved, y = method.transform(self.network, x, y, draw)
            if moved.is_floating_point() and not x.is_floating_point():
                raise ValueError(
                    f"regularization {type(method).__name__}: moves inputs by numbers, which tokens cannot be; "
                    "accepted: methods that leave inputs as they are"
                )
            x = moved
        return x, y

    def objective(self, x: Tensor, y: Tensor, draw: StepRandom, *, again: bool = False) -> Tensor:
        """The training loss with its penalties; ``again``: at the perturbed weights of the same step."""
        use_draw(self.network, draw)
        whole = nullcontext() if self.shard is None else synchronized_batch_norms(self.network)
        with whole, frozen_norm_statistics(self.network) if again else nullcontext():
            output = self.network(x)
            objective = self._loss(output, y)
            for method in self._penalties:
                objective = objective + method.penalty(self.network, x, y, output, draw)
        return objective

    def perturbed(self, params: Parameters, grads: Parameters) -> Parameters:
        """The weights at which the gradient is taken."""
        assert self._perturb is not None
        return self._perturb(params, grads)

    def changed(self, params: Parameters, grads: Parameters, draw: StepRandom) -> Parameters:
        """The gradient for the optimizer."""
        for method in self._gradients:
            grads = method.gradient(params, grads, draw)
        return grads

    def before_step(self, params: Parameters, lr: Tensor, draw: StepRandom) -> None:
        """What the methods do before the optimizer moves the weights."""
        for method in self._before:
            method.before_step(params, lr, draw)

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        """What the methods do once the optimizer has moved the weights."""
        for method in self._after:
            method.after_step(params, progress)

    def after_epoch(self, validate: Validate) -> None:
        """Ask the methods whether this lane has trained enough; a stopped lane never trains again."""
        if not self.stopped:
            done = [method.after_epoch(self.network, validate) for method in self._watching]
            self.stopped.fill_(any(done))

    def finish(self, batches: Batches) -> None:
        """Set the final network."""
        use_draw(self.network, None)  # whoever trains it on shall not meet this run's masks again
        for method in self._finishing:
            self.network = method.finish(self.network, batches)

    def _backward(
        self, x: Tensor, y: Tensor, draw: StepRandom, backward: Callable[[Tensor], None], *, again: bool = False
    ) -> Tensor:
        for p in self._params:
            p.grad = None
        objective = self.objective(x, y, draw, again=again)
        backward(objective)
        objective = objective.detach()
        return objective if self.shard is None else self.shard.average(self._params, objective)

    def _gradient_at(
        self, weights: Parameters, x: Tensor, y: Tensor, draw: StepRandom, backward: Callable[[Tensor], None]
    ) -> None:
        """Replace the gradient by the one at other weights; the present ones come back bit for bit."""
        kept = [p.detach().clone() for p in self._params]
        with torch.no_grad():
            torch._foreach_copy_(self._params, weights)
        self._backward(x, y, draw, backward, again=True)
        with torch.no_grad():
            torch._foreach_copy_(self._params, kept)

    def _grads(self) -> list[Tensor]:
        # a parameter that this batch did not use has no gradient
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self._params]
