"""The base class of all regularization methods."""

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
    """One regularization: overrides the hooks that it needs.

    Several methods apply in ascending ``order``, then by name. In one training step:

    1. ``transform`` changes the batch (inputs, targets);
    2. ``loss`` replaces the training loss (one method a run at most), ``penalty`` adds to it;
    3. ``perturb`` moves the weights to where the gradient is taken again (one method a run at most);
    4. ``gradient`` changes the gradient;
    5. ``before_step`` and ``after_step`` change the weights around the optimizer's step, in place.

    ``build`` changes the network before training, ``after_epoch`` may end training, ``finish`` sets the final weights
    or returns another network in place of the trained one. ``scheduler`` is for a method that includes a learning-rate
    schedule. The loss that is reported as performance never changes.

    All random numbers come from ``draw``. Numeric settings are 0-d buffers (see ``setting``), and all state of a method
    is in buffers too: it then moves with checkpoints and devices, and stacks over lanes. Where runs are packed,
    ``torch.vmap`` vectorizes hooks 1 to 5 over lanes: they may not read the value of a tensor (``float(t)``,
    ``if t > 0``). Runs of a method that does are trained separately.

    Where several processes train a run (``trainer=ddp``), every process calls ``transform`` with the whole batch, and
    ``perturb``, ``gradient`` and later hooks with the gradient of the whole batch. ``loss`` and ``penalty`` get the
    process's shard of the batch, and are averaged: each must be a mean over the examples or not depend on them, or the
    method says ``whole_batch``.

    Attributes:
        order: methods apply in ascending order.
        members: number of networks that a run trains side by side.
        share_init, share_order: whether these have the initial weights, or the order of batches and random numbers, in
            common.
        per_lane: settings in which the runs of one pack may differ: those on which the operations of a step do not
            depend. None: all numbers but ``counts``.
        counts: numbers on which the operations of a step usually depend.
        alters: why raw curvature of the networks may not be compared with that of others; tables say it.
        m: where ``perturb`` is overridden, the number of examples of a batch that share a perturbation: each such block
            has its own, by its own gradient, and the gradients there are averaged. None: all examples share one.
        whole_batch: a step needs all examples of the batch at once, so that several processes are refused.
    """

    order: int = 0
    members: int = 1
    share_init: bool = False
    share_order: bool = False
    per_lane: tuple[str, ...] | None = None
    counts: tuple[str, ...] = ("members", "n", "steps", "projections", "groups", "cycles")
    alters: str = ""
    m: int | None = None
    whole_batch: bool = False

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "loss" in vars(cls) and not cls.alters:
            cls.alters = "trained on another loss"

    @staticmethod
    def identity(settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings as records hold them and ``run_id`` hashes them: files by content, not by path."""
        return settings

    @staticmethod
    def scheduler(settings: dict[str, Any]) -> dict[str, Any] | None:
        """Return the node of the learning-rate schedule that replaces the run's own, or None."""
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
        """Return the tensors kept under ``name``."""
        return [buffer for key, buffer in self.named_buffers() if re.fullmatch(rf"{name}_\d+", key)]

    def build(self, net: nn.Module) -> nn.Module:
        """Return the network to train; called once, before the initial weights are copied."""
        return net

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        """Return the batch to train on: ``x`` [B, ...], ``y`` classes [B, ...] or class probabilities [B, C, ...]."""
        return x, y

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the training loss in place of the cross-entropy, a mean over the batch."""
        raise NotImplementedError

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        """Return a term to add to the training loss; ``output`` is the network's at ``x``.

        Another forward pass uses the dropout masks of the step; ``frozen_norm_statistics`` keeps batch norms from
        counting it.
        """
        raise NotImplementedError

    def perturb(self, params: Parameters, grads: Parameters) -> Parameters:
        """Return the weights at which the gradient of this step is taken again."""
        raise NotImplementedError

    def gradient(self, params: Parameters, grads: Parameters, draw: StepRandom) -> Parameters:
        """Return the gradient for the optimizer."""
        return grads

    def before_step(self, params: Parameters, lr: Tensor, draw: StepRandom) -> None:
        """Change the weights in place before the optimizer's step at learning rate ``lr``, a float64 number."""

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        """Change or remember the weights after the optimizer's step; ``progress`` is the fraction of all steps done."""

    def after_epoch(self, net: nn.Module, validate: Validate) -> bool:
        """Called at the end of each epoch; ``True`` ends the training of this network.

        ``validate(split)`` is the network's ``{"cross_entropy", "accuracy"}`` on a split, ``"val"`` or ``"train"``.
        """
        return False

    def finish(self, net: nn.Module, batches: Batches) -> nn.Module:
        """Return the final network; ``batches`` are the unaugmented train examples."""
        return net


class WeightPenalty(Method):
    """Adds strength · Σ ``size(p)`` over ``weights`` to the loss, by default over all trainable parameters."""

    order = 100  # sees the parameters that other methods add

    strength: Tensor

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)
        self._frozen: frozenset[str] = frozenset()

    def size(self, parameter: Tensor) -> Tensor:
        """Return the penalty of one parameter, before the strength."""
        raise NotImplementedError

    def weights(self, net: nn.Module) -> list[Tensor]:
        """Return the penalized parameters."""
        return [p for name, p in net.named_parameters() if name not in self._frozen]

    def build(self, net: nn.Module) -> nn.Module:
        # by name: inside vmap a tensor does not know whether it is trained
        self._frozen = frozenset(name for name, p in net.named_parameters() if not p.requires_grad)
        return net

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        return self.strength * torch.stack([self.size(p) for p in self.weights(net)]).sum()


class SlotNormalization(Method):
    """Fills every normalization slot of the network with ``layer(slot)``.

    The same weights then stand for another function: compare raw curvature and norms with care.
    """

    alters = SCALE_FREE

    def layer(self, slot: Normalization) -> nn.Module:
        """Return the layer for a slot."""
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
    """Raise ValueError if the inputs are tokens, by which nothing can be differentiated."""
    if not x.is_floating_point():
        raise ValueError(
            f"regularization {type(method).__name__}: differentiates by the inputs, which tokens do not allow; "
            "accepted: inputs of numbers"
        )


def matrices(params: Iterable[Tensor]) -> list[Tensor]:
    """Return the parameters with two axes or more as matrices out × rest."""
    return [p.flatten(1) for p in params if p.ndim > 1]


def expected(cost: Tensor, y: Tensor) -> Tensor:
    """Return the mean cost of the targets over the batch: ``cost`` [B, C, ...] of each class, ``y`` classes [B, ...] or
    class probabilities [B, C, ...]."""
    return (cost * y).sum(1).mean() if y.is_floating_point() else cost.gather(1, y.unsqueeze(1)).mean()


def overriding(methods: Iterable[Method], hook: str) -> list[Method]:
    """Return the methods that override a hook, in their order. A step calls only these."""
    return [method for method in methods if getattr(type(method), hook) is not getattr(Method, hook)]


def in_order(methods: dict[str, Method]) -> list[Method]:
    """Sort methods by (order, name); raise ValueError if several replace the same thing."""
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
