"""Networks, plain nn.Modules."""

from genbench.models.base import Classifier
from genbench.models.cnn import CNN
from genbench.models.ensemble import Ensemble
from genbench.models.gru import GRU
from genbench.models.linear import Linear
from genbench.models.mlp import MLP
from genbench.models.slots import Dropout, Normalization, use_draw

__all__ = ["CNN", "GRU", "MLP", "Classifier", "Dropout", "Ensemble", "Linear", "Normalization", "use_draw"]
