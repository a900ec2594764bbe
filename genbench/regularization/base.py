"""What a regularization may change about one training step."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genbench.checks import check_number
from genbench.models.slots import Normalization
from genbench.records import SCALE_FREE
from genbench.rng import StepRandom

Parameters = list[Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]
Validate = Callable[[str], dict[str, float]]


class Method(nn.Module):
    """The implementation of one regularization: override the hooks it needs and nothing else.

    Several methods apply in ascending ``order``, then by name. In one training step:

    1. ``transform`` changes the batch (inputs, targets);
    2. ``loss`` replaces the training loss (one method a run at most), ``penalty`` adds to it;
    3. ``perturb`` moves the weights to where the gradient is taken again (one method a run at most);
    4. ``gradient`` changes the gradient;
    5. ``before_step`` and ``after_step`` change the weights around the optimizer's step, in place.

    ``build`` changes the network before training, ``after_epoch`` may end training, ``finish`` sets the final weights
    or makes another network of the trained one. ``scheduler`` is for a method that a learning-rate schedule is part of.
    The loss that is reported as performance is never touched.

    Randomness comes from ``draw`` alone. Numeric settings are 0-d buffers (see ``setting``) and everything a method
    remembers is a buffer too: the state of a method then travels with checkpoints and devices, and stacks over lanes.
    Steps 1 to 5 are vectorized over lanes by ``torch.vmap`` where runs are packed: they may not read the value of a
    tensor (``float(t)``, ``if t > 0``). A method that cannot be written so has its runs trained separately.

    Where several processes share a run (``trainer=ddp``), ``transform`` is given the whole batch and ``perturb``,
    ``gradient`` and what follows the whole batch's gradient, on every process; ``loss`` and ``penalty`` are given the
    process's share, and averaged: each is a mean over the examples, or does not depend on them.
    """

    order: int = 0
    members: int = 1  # networks this run trains side by side
    per_lane: tuple[str, ...] | None = None  # settings in which runs of one pack may differ; None: all numbers
    alters: str = ""  # why raw curvature of its networks may not be compared with others'; tables say it

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "loss" in vars(cls) and not cls.alters:
            cls.alters = "trained on another loss"

    @staticmethod
    def identity(settings: dict[str, Any]) -> dict[str, Any]:
        """What stands for the constructor's settings in a record and in what identifies a run: of a file, its content
        instead of its path."""
        return settings

    @staticmethod
    def scheduler(settings: dict[str, Any]) -> dict[str, Any] | None:
        """The node of the learning-rate schedule that the method has in place of the run's own, if it has one."""
        return None

    def setting(self, name: str, value: float, **limits: Any) -> None:
        """Keep a numeric setting as a 0-d tensor, checked by :func:`genbench.checks.check_number` with its limits."""
        number = check_number(f"regularization {type(self).__name__}: {name}", value, **limits)
        self.register_buffer(name, torch.tensor(number, dtype=torch.float64))

    def remember(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Keep copies of tensors as buffers ``name_0``, ``name_1``, …"""
        for index, tensor in enumerate(tensors):
            self.register_buffer(f"{name}_{index}", tensor.detach().clone())

    def recall(self, name: str) -> list[Tensor]:
        """The tensors kept under ``name``."""
        return [buffer for key, buffer in self.named_buffers() if re.fullmatch(rf"{name}_\d+", key)]

    def build(self, net: nn.Module) -> nn.Module:
        """The network to train; called once, before the weights are copied as the initial ones."""
        return net

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        """The batch to train on: ``x`` [B, ...], ``y`` classes [B, ...] or class probabilities
        [B, C, ...]."""
        return x, y

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """The training loss in place of the cross-entropy, a mean over the batch."""
        raise NotImplementedError

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        """A term added to the training loss; ``output`` is the network's at ``x``.

        A pass of its own has the masks of the step; ``frozen_norm_statistics`` keeps batch norms from counting it.
        """
        raise NotImplementedError

    def perturb(self, params: Parameters, grads: Parameters) -> Parameters:
        """The weights at which the gradient of this step is taken."""
        raise NotImplementedError

    def gradient(self, params: Parameters, grads: Parameters, draw: StepRandom) -> Parameters:
        """The gradient handed to the optimizer."""
        return grads

    def before_step(self, params: Parameters, lr: Tensor, draw: StepRandom) -> None:
        """Change the weights in place before the optimizer's step at learning rate ``lr``, a float64 number."""

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        """Change or remember the weights after the optimizer's step; ``progress`` is the share of steps done."""

    def after_epoch(self, net: nn.Module, validate: Validate) -> bool:
        """Called at the end of each epoch; ``True`` ends the training of this network.

        ``validate(split)`` is the network's ``{"cross_entropy", "accuracy"}`` on a split, ``"val"`` or ``"train"``.
        """
        return False

    def finish(self, net: nn.Module, batches: Batches) -> nn.Module:
        """The network that training ends with; ``batches`` are the unaugmented train examples."""
        return net


class WeightPenalty(Method):
    """Adds strength · Σ ``size(p)`` over ``weights``, all trainable parameters, to the loss."""

    order = 100  # sees the parameters that other methods add

    strength: Tensor

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)
        self._frozen: frozenset[str] = frozenset()

    def size(self, parameter: Tensor) -> Tensor:
        """What a parameter adds."""
        raise NotImplementedError

    def weights(self, net: nn.Module) -> list[Tensor]:
        """What is penalized."""
        return [p for name, p in net.named_parameters() if name not in self._frozen]

    def build(self, net: nn.Module) -> nn.Module:
        # known by name, as inside vmap no tensor says of itself whether it is trained
        self._frozen = frozenset(name for name, p in net.named_parameters() if not p.requires_grad)
        return net

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        return self.strength * torch.stack([self.size(p) for p in self.weights(net)]).sum()


class SlotNormalization(Method):
    """Fills every normalization slot of the network with ``layer(slot)``.

    It changes the function a set of weights stands for: compare raw curvature and norms across it with care.
    """

    alters = SCALE_FREE

    def layer(self, slot: Normalization) -> nn.Module:
        """What fills a slot."""
        raise NotImplementedError

    def build(self, net: nn.Module) -> nn.Module:
        slots = [
            (parent, name, slot)
            for parent in net.modules()
            for name, slot in parent.named_children()
            if isinstance(slot, Normalization)
        ]
        if not slots:
            raise ValueError(
                f"regularization {type(self).__name__}: {type(net).__name__} has no free normalization slots"
            )
        weight = next(net.parameters())
        for parent, name, slot in slots:
            setattr(parent, name, self.layer(slot).to(weight.device, weight.dtype))
        return net


def refuse_tokens(method: Method, x: Tensor) -> None:
    """For what differentiates by the inputs: an error where they are tokens."""
    if not x.is_floating_point():
        raise ValueError(
            f"regularization {type(method).__name__}: differentiates by the inputs, which tokens do not allow; "
            "accepted: inputs of numbers"
        )


def matrices(params: Iterable[Tensor]) -> list[Tensor]:
    """The weights among parameters, those of two axes or more, as matrices out × rest."""
    return [p.flatten(1) for p in params if p.ndim > 1]


def expected(cost: Tensor, y: Tensor) -> Tensor:
    """The mean over the batch of what the target costs: ``cost`` [B, C, ...] of each class, ``y`` classes [B, ...] or
    class probabilities [B, C, ...]."""
    return (cost * y).sum(1).mean() if y.is_floating_point() else cost.gather(1, y.unsqueeze(1)).mean()


def overriding(methods: Iterable[Method], hook: str) -> list[Method]:
    """The methods that override a hook, in their order; the others cost a step nothing."""
    return [method for method in methods if getattr(type(method), hook) is not getattr(Method, hook)]


def in_order(methods: dict[str, Method]) -> list[Method]:
    """Methods by (order, name), refusing combinations that have no meaning."""
    ordered = [methods[name] for name in sorted(methods, key=lambda name: (methods[name].order, name))]
    names = {id(method): name for name, method in methods.items()}
    exclusive = {
        "loss": "replace the loss",
        "perturb": "choose where the gradient is taken",
        "finish": "set the final weights",
        "scheduler": "have a schedule of their own",
    }
    for hook, what in exclusive.items():
        rivals = [names[id(method)] for method in overriding(ordered, hook)]
        if len(rivals) > 1:
            raise ValueError(f"regularization={'+'.join(sorted(rivals))}: both {what}; choose one")
    return ordered
