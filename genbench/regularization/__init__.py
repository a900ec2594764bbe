"""Regularization methods: one file each."""

from genbench.regularization.augmentation import Augmentation
from genbench.regularization.base import Method
from genbench.regularization.batch_norm import BatchNorm
from genbench.regularization.dropout import Dropout
from genbench.regularization.early_stopping import EarlyStopping
from genbench.regularization.ensemble import Ensemble
from genbench.regularization.gradient_clipping import GradientClipping
from genbench.regularization.l1 import L1
from genbench.regularization.l2 import L2
from genbench.regularization.label_smoothing import LabelSmoothing
from genbench.regularization.mixup import Mixup
from genbench.regularization.sam import SAM
from genbench.regularization.swa import SWA
from genbench.regularization.weight_decay import WeightDecay

__all__ = [
    "L1",
    "L2",
    "SAM",
    "SWA",
    "Augmentation",
    "BatchNorm",
    "Dropout",
    "EarlyStopping",
    "Ensemble",
    "GradientClipping",
    "LabelSmoothing",
    "Method",
    "Mixup",
    "WeightDecay",
]
