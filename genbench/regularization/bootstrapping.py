"""Bootstrapping of noisy labels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.checks import check_choice
from genbench.models.slots import frozen_norm_statistics, use_draw
from genbench.regularization.base import Method
from genbench.rng import StepRandom


class Bootstrapping(Method):
    """Trains on (1 − share) · target + share · prediction, against label noise.

    The prediction of the current network is its class (``hard``) or its class probabilities (``soft``); no gradient
    flows through it (Reed et al. 2015, arXiv 1412.6596, with β = 1 − share). Combined with ``mixup``, targets are
    corrected by predictions for unmixed inputs and then mixed: mixup with static bootstrapping (Arazo et al. 2019,
    arXiv 1904.11238). Their dynamic form, with a share for each example, is not implemented.

    A step costs one more forward pass, with the dropout masks of the step.
    """

    alters = "trained on corrected targets, another loss"
    order = 15  # after augmentation, before mixing
    share: Tensor

    def __init__(self, *, share: float, prediction: str) -> None:
        super().__init__()
        self.setting("share", share, low=0, high=1)
        self.prediction = check_choice("regularization bootstrapping: prediction", prediction, ("hard", "soft"))

    @torch.no_grad()
    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        use_draw(net, draw)
        with frozen_norm_statistics(net):
            predicted = net(x).softmax(1)
        kind, classes = predicted.dtype, predicted.shape[1]
        if self.prediction == "hard":
            predicted = F.one_hot(predicted.argmax(1), classes).movedim(-1, 1).to(kind)
        if not y.is_floating_point():
            y = F.one_hot(y, classes).movedim(-1, 1).to(kind)
        share = self.share.to(kind)
        return x, (1 - share) * y + share * predicted
