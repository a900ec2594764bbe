"""One network with its methods: a lane. An ordinary run trains one, an ensemble one for each member."""

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
from genbench.training.attributes import Attributes
from genbench.training.contents import is_foreign
from genbench.training.shard import Shard, synchronized_batch_norms
from genbench.training.step import gradient_step


class Lane(nn.Module):
    """A network and its methods, with the parts of a training step; :mod:`genbench.training.step` states their order.

    A method may replace ``loss`` (output, target) -> mean over the batch. ``shard`` is set where several
    processes train the lane together.
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
        trained = {id(p) for p in self._params}
        # as of a teacher that is not frozen
        self._left_out = {n: p for n, p in self.named_parameters() if p.requires_grad and id(p) not in trained}
        self._transforms = together(overriding(methods, "transform"))
        self._penalties = overriding(methods, "penalty")
        self._gradients = overriding(methods, "gradient")
        self._before = overriding(methods, "before_step")
        self._watching = overriding(methods, "after_epoch")
        self._finishing = overriding(methods, "finish")
        self._after = overriding(methods, "after_step")
        self._loss = next((m.loss for m in overriding(methods, "loss")), loss)
        perturbing = next(iter(overriding(methods, "perturb")), None)
        self._perturb = None if perturbing is None else perturbing.perturb
        self.m = None if perturbing is None else perturbing.m
        # the optional parts of this lane's step
        self.transforms = bool(self._transforms)
        self.perturbs = self._perturb is not None
        self.changes_gradient = bool(self._gradients)
        self.changes_weights_before = bool(self._before)
        self.changes_weights_after = bool(self._after)

    def attributes(self) -> Attributes:
        """What the methods, the user's own modules and the loss keep in Python at this time."""
        methods = list(self.methods)
        foreign = (m for m in self.modules() if is_foreign(m) and m not in methods)
        return Attributes([*methods, *foreign], self, self._loss)

    @property
    def validates(self) -> bool:
        """Whether a method watches the validation split."""
        return bool(self._watching)

    @property
    def left_out(self) -> list[str]:
        """The names of parameters of methods that are not frozen. No optimizer gets them."""
        return list(self._left_out)

    @property
    def trained(self) -> list[Tensor]:
        """The trainable parameters."""
        return self._params

    def gradient_step(
        self,
        x: Tensor,
        y: Tensor,
        *,
        draw: StepRandom,
        lr: float,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> Tensor:
        """Leave in ``.grad`` the gradient for the optimizer; return the training objective, detached.

        Raises:
            ValueError: a parameter of a method has a gradient too. It would look trained.
        """
        objective, grads = gradient_step(self, Direct(self, backward), x, y, draw, lr)
        for name, left_out in self._left_out.items():
            if left_out.grad is not None:
                raise ValueError(
                    f"{name} has a gradient, and the optimizer gets the weights of the network alone; accepted: a part "
                    "that build() adds to the network, or requires_grad_(False)"
                )
        if self.changes_gradient or self.m is not None:
            for p, g in zip(self._params, grads, strict=True):
                p.grad = g
        return objective

    # -- the parts of a step

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
        """The training loss with its penalties; ``again``: at the perturbed weights of the same step, where batch norms
        keep their running statistics."""
        use_draw(self.network, draw)
        norms = nullcontext() if self.shard is None else synchronized_batch_norms(self.network)
        with norms, frozen_norm_statistics(self.network) if again else nullcontext():
            output = self.network(x)
            objective = self._loss(output, y)
            for method in self._penalties:
                objective = objective + method.penalty(self.network, x, y, output, draw)
        return objective

    def perturbed(self, params: Parameters, grads: Parameters) -> Parameters:
        """The weights at which the gradient is taken again."""
        assert self._perturb is not None
        return self._perturb(params, _filled(params, grads))

    def changed(self, params: Parameters, grads: Parameters, draw: StepRandom) -> Parameters:
        """The gradient for the optimizer."""
        grads = _filled(params, grads)
        for method in self._gradients:
            grads = method.gradient(params, grads, draw)
        return grads

    def before_step(self, params: Parameters, lr: float | Tensor, draw: StepRandom) -> None:
        """Let the methods act on the weights before the optimizer moves them."""
        lr = lr if isinstance(lr, Tensor) else torch.tensor(lr, dtype=torch.float64)
        for method in self._before:
            method.before_step(params, lr, draw)

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        """Let the methods act on the weights that the optimizer has moved."""
        for method in self._after:
            method.after_step(params, progress)

    # -- between steps

    def after_epoch(self, validate: Validate) -> None:
        """Ask the methods whether this lane has trained enough; a stopped lane never trains again."""
        if not self.stopped:
            done = [method.after_epoch(self.network, validate) for method in self._watching]
            self.stopped.fill_(any(done))

    def finish(self, batches: Batches) -> None:
        """Set the final network."""
        use_draw(self.network, None)  # training it further must not repeat this run's masks
        for method in self._finishing:
            self.network = method.finish(self.network, batches)


class Direct:
    """The backend of one lane by itself: calls its network, and autograd leaves the gradient in ``.grad``.

    Args:
        lane: the lane.
        backward: runs the backward pass of an objective.
    """

    def __init__(self, lane: Lane, backward: Callable[[Tensor], None]) -> None:
        self._lane, self._backward = lane, backward
        self.weights, self.batch_axis = lane.trained, 0

    def apply(self, part: Callable[..., Any], *args: Any) -> Any:
        return part(*args)

    def differentiate(
        self, objective: Callable[..., Tensor], x: Tensor, y: Tensor, draw: StepRandom, *, at: Parameters | None = None
    ) -> tuple[Tensor, Parameters]:
        """The gradient of a parameter that this batch did not use is None. At other weights, the present ones come back
        bit for bit."""
        shard = self._lane.shard
        if shard is not None:
            x, y, draw = shard.rows(x, y, draw)
        if at is not None:
            kept = [p.detach().clone() for p in self.weights]
            self._copy(at)
        for p in self.weights:
            p.grad = None
        value = objective(x, y, draw, again=at is not None)
        self._backward(value)
        value = value.detach()
        if shard is not None:
            value = shard.average(self.weights, value)
        if at is not None:
            self._copy(kept)
        return value, [p.grad for p in self.weights]  # type: ignore[misc]

    @torch.no_grad()
    def _copy(self, weights: Parameters) -> None:
        torch._foreach_copy_(self.weights, weights)


class SeparateLanes:
    """Lanes that compute one after the other and share an optimizer, which has a parameter group for each.

    An optimizer with the modes ``train()`` and ``eval()`` is in training mode from the gradient to its update only.

    Args:
        lanes: the lanes; a lane that has stopped by the start of an epoch does not move.
        optimizer: its first groups are the lanes', in their order.
        backward: runs the backward pass of an objective.
    """

    def __init__(
        self, lanes: Sequence[Lane], optimizer: Any, *, backward: Callable[[Tensor], None] = Tensor.backward
    ) -> None:
        self._lanes, self._optimizer, self._backward = lanes, optimizer, backward
        self._has_modes = has_modes(optimizer)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Find the lanes that have not stopped: once an epoch, as a GPU waits for who reads its memory."""
        self._running = [lane for lane in self._lanes if not lane.stopped]

    def gradient_step(self, x: Tensor, y: Tensor, *, step: int) -> Tensor:
        """Leave each lane's gradient for the optimizer; return the objectives of the lanes that have not stopped."""
        if self._has_modes:
            self._optimizer.train()
        objectives = []
        for lane, group, inputs, targets in zip(self._lanes, self._optimizer.param_groups, x, y, strict=False):
            if lane in self._running:
                draw = StepRandom(lane.seed, step, device=x.device)
                objectives.append(
                    lane.gradient_step(inputs, targets, draw=draw, lr=group["lr"], backward=self._backward)
                )
            else:
                for p in lane.trained:
                    p.grad = None
        return torch.stack(objectives)

    def after_step(self, progress: float) -> None:
        if self._has_modes:
            self._optimizer.eval()
        for lane in self._running:
            lane.after_step(lane.trained, progress)


def has_modes(optimizer: Any) -> bool:
    """Whether an optimizer trains at other weights than the averaged ones that it is for (``train()``, ``eval()``)."""
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")


def _filled(params: Parameters, grads: Parameters) -> Parameters:
    """Zeros in place of the gradient of a parameter that the batch did not use."""
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
