"""Manifold mixup."""

from functools import partial

import torch
from torch import Tensor, nn

from genbench.regularization.base import Parameters
from genbench.regularization.shared.inputs import integers
from genbench.regularization.shared.mixing import Mixing, mixed, probabilities
from genbench.rng import StepRandom


class ManifoldMixup(Mixing):
    """Mixes the hidden states h of one random layer, λ · h + (1 − λ) · h' with h' of another example, and the targets.

    For each batch, the layer is drawn among the input and the outputs of ``net.layers``, and λ ~ Beta(α, α) is drawn
    once (Verma et al. 2019, arXiv 1806.05236, Sec. 2); the paper's α is 2 for most networks. Examples are paired anew
    at every step, so batches must be even. ``alpha=0`` leaves everything unchanged. Targets become class probabilities
    [B, C]; classes are read from ``net.classes``.
    """

    name = "manifold_mixup"
    share: Tensor
    layer: Tensor

    def __init__(self, *, alpha: float) -> None:
        super().__init__(alpha=alpha)
        # read by the layers' hooks: λ, and the index of the layer that mixes, 0 for the input
        self.register_buffer("share", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("layer", torch.tensor(0, dtype=torch.int64))
        self._layers = 0

    def build(self, net: nn.Module) -> nn.Module:
        layers = list(getattr(net, "layers", []))
        if not layers:
            raise ValueError(f"regularization manifold_mixup: {type(net).__name__} has no layers to mix the outputs of")
        for place, layer in enumerate(layers, start=1):
            layer.register_forward_hook(partial(self._mix, place))
        self._layers = len(layers)
        return super().build(net)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        self.share.copy_(draw.beta("manifold_mixup.share", self.alpha))
        self.layer.copy_(integers(draw.uniform("manifold_mixup.layer", 1)[0], self._layers + 1))
        # neighbours are pairs, so that a process with a share of the batch has whole pairs
        order = draw.permutation("manifold_mixup.order", len(x))
        x, y = x[order], probabilities(net, y, x)[order]
        return self._at(0, x), mixed(y, neighbours(y), self.share)

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        self.share.fill_(1.0)  # the network does not mix between steps

    def _mix(self, place: int, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self._at(place, output) if layer.training else output

    def _at(self, place: int, h: Tensor) -> Tensor:
        """Return the hidden states after a layer, mixed if the layer was drawn."""
        return mixed(h, neighbours(h), torch.where(self.layer == place, self.share, 1.0))


def neighbours(h: Tensor) -> Tensor:
    """Return the partner of each row: 1, 0, 3, 2, …"""
    if len(h) % 2:
        raise ValueError(f"regularization manifold_mixup: a batch of {len(h)} examples; accepted: an even number")
    return torch.arange(len(h), device=h.device) ^ 1
