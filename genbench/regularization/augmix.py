"""AugMix."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.regularization.base import Method
from genbench.regularization.shared.inputs import check_images, integers
from genbench.regularization.shared.operations import GEOMETRY, Ranges, applied, choice, relative
from genbench.rng import StepRandom

# without the operations that resemble corruptions of CIFAR-10-C
NAMES = ("autocontrast", "equalize", "posterize", "solarize", *GEOMETRY)
RANGES = Ranges(angle=30, shear=0.3, shift=1 / 3, factor=0.0, bits=(4, 4))
VIEWS, CHAINS, DEPTH = 3, 3, 3


class AugMix(Method):
    """Adds consistency · the Jensen–Shannon divergence between predictions for three views of each image to the loss.

    The views are the image [C, H, W] itself, on which the cross-entropy is taken, and two mixtures of chains of
    operations (Hendrycks et al. 2020, arXiv 1912.02781, Eq. 1). A mixture is m · x + (1 − m) · Σᵢ wᵢ chainᵢ(x) of three
    chains of one to three operations, drawn for each image: w uniform on the simplex, m on [0, 1), lengths and
    operations uniform, each at a strength from U(0.1, severity) / 10. All are relative to each image's own range of
    values. A step passes three images for each image of the batch. Targets must be classes, not mixtures of classes.

    Args:
        severity: largest strength, in [0.1, 10]; 10: rotations by 30°, shears by 0.3, shifts by a third of the side.
        consistency: weight of the divergence (in nats), at least 0; 0: training on the images alone.
    """

    alters = "trained on cross-entropy and the divergence between augmented views, another loss"
    order = 30  # makes views of images that all other methods have changed already
    severity: Tensor
    consistency: Tensor

    def __init__(self, *, severity: float, consistency: float) -> None:
        super().__init__()
        self.setting("severity", severity, low=0.1, high=10)
        self.setting("consistency", consistency, low=0)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_images("augmix", x)
        if y.is_floating_point():
            raise ValueError(
                "regularization augmix: targets are class probabilities, which mixup and its like make; "
                "accepted: classes"
            )
        mixtures = relative(x.repeat_interleave(VIEWS - 1, 0), lambda unit: self._mixtures(unit, draw))
        # views of an image are neighbours, so that a process with a share of the batch has all three
        views = torch.cat([x[:, None], mixtures.unflatten(0, (len(x), VIEWS - 1))], 1)
        return views.flatten(0, 1), y.repeat_interleave(VIEWS)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        if len(output) % VIEWS:
            raise ValueError(f"regularization augmix: {len(output)} views; accepted: {VIEWS} of each image")
        logs = output.unflatten(0, (-1, VIEWS)).log_softmax(-1)  # [B, views, classes]
        return F.nll_loss(logs[:, 0], y[::VIEWS]) + self.consistency.to(output.dtype) * divergence(logs)

    def _mixtures(self, x: Tensor, draw: StepRandom) -> Tensor:
        n = len(x)
        length = 1 + integers(draw.uniform("augmix.length", n * CHAINS, 1, 1, 1), DEPTH)
        chains = x.repeat_interleave(CHAINS, 0)
        for step in range(DEPTH):
            site = f"augmix.{step}"
            strength = (0.1 + (self.severity - 0.1) * draw.uniform(f"{site}.strength", n * CHAINS)) / 10
            moved = applied(chains, choice(draw, site, NAMES, strength, n * CHAINS), RANGES)
            chains = torch.where(step < length, moved, chains)
        exponential = -(1 - draw.uniform("augmix.weights", n, CHAINS, 1, 1, 1)).log()
        weights = (exponential / exponential.sum(1, keepdim=True)).to(x.dtype)  # uniform on the simplex
        share = draw.uniform("augmix.share", n, 1, 1, 1).to(x.dtype)
        return share * x + (1 - share) * (weights * chains.unflatten(0, (n, CHAINS))).sum(1)


def divergence(logs: Tensor) -> Tensor:
    """Return the mean Jensen–Shannon divergence, in nats, of log-probabilities [B, views, classes].

    It is the mean Kullback–Leibler divergence of each view's prediction from the mean prediction.
    """
    mean = logs.logsumexp(1, keepdim=True) - math.log(logs.shape[1])
    return (logs.exp() * (logs - mean)).sum(-1).mean()
