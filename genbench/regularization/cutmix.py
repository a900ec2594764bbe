"""CutMix."""

import torch
from torch import Tensor, nn

from genbench.regularization.shared.geometry import box
from genbench.regularization.shared.inputs import check_signals, integers
from genbench.regularization.shared.mixing import Mixing, mixed, probabilities
from genbench.rng import StepRandom


class CutMix(Mixing):
    """Replaces a box of each input by that of another one of the batch; targets are mixed by the share of points that
    each fills (Yun et al. 2019, arXiv 1905.04899, Eqs. 1 and 2): a rectangle of images [B, C, H, W], a span of
    sequences [B, C, L].

    One box a batch: it has a share 1 − λ of the points, λ ~ Beta(α, α), all its sides the same share of the input's,
    rounded down to whole points. Its centre is a point of the input drawn uniformly; what lies outside is cut off and
    does not count. ``alpha=0`` leaves inputs as they are (λ = 1). Targets become class probabilities [B, C]; classes
    are read from ``net.classes``.
    """

    name = "cutmix"

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_signals("cutmix", x)
        sides = torch.tensor(x.shape[2:], device=x.device)
        size = ((1 - draw.beta("cutmix.share", self.alpha)) ** (1 / len(sides)) * sides).long()
        centre = integers(draw.uniform("cutmix.centre", len(sides)), sides)
        inside = box(x, (centre - size // 2)[None], size)
        partner = draw.permutation("cutmix.partner", len(x))
        share = 1 - inside.mean()
        return torch.where(inside > 0, x[partner], x), mixed(probabilities(net, y, x), partner, share)
