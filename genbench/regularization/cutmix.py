"""CutMix."""

import torch
from torch import Tensor, nn

from genbench.inputs.geometry import box, vector
from genbench.regularization.shared.inputs import check_signals, integers
from genbench.regularization.shared.mixing import Mixing, mixed, probabilities
from genbench.rng import StepRandom


class CutMix(Mixing):
    """Replaces a box of each input by that of another input of the batch, and mixes targets by the share of points.

    The box is a rectangle of images [B, C, H, W] or a span of sequences [B, C, L] (Yun et al. 2019, arXiv 1905.04899,
    Eqs. 1 and 2). One box is drawn for each batch: its share of the points is 1 − λ with λ ~ Beta(α, α), its sides are
    the same share of the input's sides, rounded down to whole points, and its centre is a uniformly drawn point. Parts
    outside the input are cut off and do not count. ``alpha=0`` leaves inputs unchanged (λ = 1). Targets become class
    probabilities [B, C]; classes are read from ``net.classes``.
    """

    name = "cutmix"

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_signals("cutmix", x)
        sides = vector(x.shape[2:], dtype=torch.int64, device=x.device)
        size = ((1 - draw.beta("cutmix.share", self.alpha)) ** (1 / len(sides)) * sides).long()
        centre = integers(draw.uniform("cutmix.centre", len(sides)), sides)
        inside = box(x, (centre - size // 2)[None], size)
        partner = draw.permutation("cutmix.partner", len(x))
        share = 1 - inside.mean()
        return torch.where(inside > 0, x[partner], x), mixed(probabilities(net, y, x), partner, share)
