"""Data modules, and corruptions of labels and inputs."""

from genbench.data.base import TensorData
from genbench.data.batches import Batches
from genbench.data.boolean_functions import BooleanFunctions
from genbench.data.char_lm import CharLM
from genbench.data.digits import Digits
from genbench.data.gaussian_mixture import GaussianMixture
from genbench.data.images import ImageData
from genbench.data.information_plane import InformationPlane
from genbench.data.mnist1d import MNIST1D
from genbench.data.mnist1d_halves import MNIST1DHalves
from genbench.data.mnist1d_parity import MNIST1DParity
from genbench.data.mnist1d_stream import DriftingSignals, MNIST1DStream, Signals
from genbench.data.modular_arithmetic import ModularArithmetic
from genbench.data.noisy_halfspace import NoisyHalfspace
from genbench.data.sparse_parity import SparseParity
from genbench.data.teacher_student import TeacherStudent
from genbench.data.text_classification import TextClassification

__all__ = [
    "MNIST1D",
    "Batches",
    "BooleanFunctions",
    "CharLM",
    "Digits",
    "DriftingSignals",
    "GaussianMixture",
    "ImageData",
    "InformationPlane",
    "MNIST1DHalves",
    "MNIST1DParity",
    "MNIST1DStream",
    "ModularArithmetic",
    "NoisyHalfspace",
    "Signals",
    "SparseParity",
    "TeacherStudent",
    "TensorData",
    "TextClassification",
]
