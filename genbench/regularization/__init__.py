"""Regularization methods, one file each."""

from genbench.regularization.adversarial_training import AdversarialTraining
from genbench.regularization.asam import ASAM
from genbench.regularization.augmentation import Augmentation
from genbench.regularization.augmix import AugMix
from genbench.regularization.base import Method
from genbench.regularization.batch_norm import BatchNorm
from genbench.regularization.bootstrapping import Bootstrapping
from genbench.regularization.curriculum import Curriculum
from genbench.regularization.cutmix import CutMix
from genbench.regularization.cutout import Cutout
from genbench.regularization.dropout import Dropout
from genbench.regularization.early_stopping import EarlyStopping
from genbench.regularization.ema import EMA
from genbench.regularization.ensemble import Ensemble
from genbench.regularization.entropy_penalty import EntropyPenalty
from genbench.regularization.entropy_sgd import EntropySGD
from genbench.regularization.flat_minimum_search import FlatMinimumSearch
from genbench.regularization.flip import Flip
from genbench.regularization.focal import Focal
from genbench.regularization.generalized_cross_entropy import GeneralizedCrossEntropy
from genbench.regularization.ghost_batch_norm import GhostBatchNorm
from genbench.regularization.gradient_clipping import GradientClipping
from genbench.regularization.gradient_norm import GradientNorm
from genbench.regularization.gradient_penalty import GradientPenalty
from genbench.regularization.group_norm import GroupNorm
from genbench.regularization.input_noise import InputNoise
from genbench.regularization.jacobian import Jacobian
from genbench.regularization.l1 import L1
from genbench.regularization.l2 import L2
from genbench.regularization.label_smoothing import LabelSmoothing
from genbench.regularization.layer_norm import LayerNorm
from genbench.regularization.least_squares import LeastSquares
from genbench.regularization.manifold_mixup import ManifoldMixup
from genbench.regularization.max_norm import MaxNorm
from genbench.regularization.mixup import Mixup
from genbench.regularization.orthogonality import Orthogonality
from genbench.regularization.rand_augment import RandAugment
from genbench.regularization.random_crop import RandomCrop
from genbench.regularization.random_labels import RandomLabels
from genbench.regularization.random_subspace import RandomSubspace
from genbench.regularization.rotation import Rotation
from genbench.regularization.sam import SAM
from genbench.regularization.self_paced import SelfPaced
from genbench.regularization.snapshots import Snapshots
from genbench.regularization.spectral_norm import SpectralNorm
from genbench.regularization.squared_error import SquaredError
from genbench.regularization.stochastic_depth import StochasticDepth
from genbench.regularization.swa import SWA
from genbench.regularization.transfer import Transfer
from genbench.regularization.trivial_augment import TrivialAugment
from genbench.regularization.warm_start import WarmStart
from genbench.regularization.weight_decay import WeightDecay
from genbench.regularization.weight_elimination import WeightElimination

__all__ = [
    "ASAM",
    "EMA",
    "L1",
    "L2",
    "SAM",
    "SWA",
    "AdversarialTraining",
    "AugMix",
    "Augmentation",
    "BatchNorm",
    "Bootstrapping",
    "Curriculum",
    "CutMix",
    "Cutout",
    "Dropout",
    "EarlyStopping",
    "Ensemble",
    "EntropyPenalty",
    "EntropySGD",
    "FlatMinimumSearch",
    "Flip",
    "Focal",
    "GeneralizedCrossEntropy",
    "GhostBatchNorm",
    "GradientClipping",
    "GradientNorm",
    "GradientPenalty",
    "GroupNorm",
    "InputNoise",
    "Jacobian",
    "LabelSmoothing",
    "LayerNorm",
    "LeastSquares",
    "ManifoldMixup",
    "MaxNorm",
    "Method",
    "Mixup",
    "Orthogonality",
    "RandAugment",
    "RandomCrop",
    "RandomLabels",
    "RandomSubspace",
    "Rotation",
    "SelfPaced",
    "Snapshots",
    "SpectralNorm",
    "SquaredError",
    "StochasticDepth",
    "Transfer",
    "TrivialAugment",
    "WarmStart",
    "WeightDecay",
    "WeightElimination",
]
