"""Manifold mixup."""

from functools import partial

import torch
from torch import Tensor, nn

from genbench.regularization.base import Parameters
from genbench.regularization.shared.inputs import integers
from genbench.regularization.shared.mixing import Mixing, mixed, probabilities
from genbench.rng import StepRandom


class ManifoldMixup(Mixing):
    """Mixup of hidden states: one layer is drawn a batch, among the input and the outputs of ``net.layers``, and what
    it gives for an example becomes λ · h + (1 − λ) · h', with h' that of another one; targets are mixed alike (Verma et
    al. 2019, arXiv 1806.05236, Sec. 2). λ ~ Beta(α, α) is drawn once a batch; the paper's α is 2 for most networks.

    Examples are mixed in pairs drawn anew at every step, one with λ and the other with 1 − λ of the first; batches are
    even. ``alpha=0`` leaves everything as it is. Targets become class probabilities [B, C]; classes are read from
    ``net.classes``.
    """

    name = "manifold_mixup"
    share: Tensor
    layer: Tensor

    def __init__(self, *, alpha: float) -> None:
        super().__init__(alpha=alpha)
        # what the layers are told by the step: which of them mixes, 0 for the input, and λ
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
        # neighbours are the pairs, so that a process that has a share of the batch has whole pairs
        order = draw.permutation("manifold_mixup.order", len(x))
        x, y = x[order], probabilities(net, y, x)[order]
        return self._at(0, x), mixed(y, neighbours(y), self.share)

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        self.share.fill_(1.0)  # who uses the network between steps shall not meet the last one's mixture

    def _mix(self, place: int, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self._at(place, output) if layer.training else output

    def _at(self, place: int, h: Tensor) -> Tensor:
        """The hidden states after a layer: mixed where it is the one that was drawn."""
        return mixed(h, neighbours(h), torch.where(self.layer == place, self.share, 1.0))


def neighbours(h: Tensor) -> Tensor:
    """Of each row its partner: 1, 0, 3, 2, …"""
    if len(h) % 2:
        raise ValueError(f"regularization manifold_mixup: a batch of {len(h)} examples; accepted: an even number")
    return torch.arange(len(h), device=h.device) ^ 1
