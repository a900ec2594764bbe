"""Networks, plain ``torch.nn.Module`` classes."""

from genbench.models.alexnet import AlexNet
from genbench.models.base import Classifier
from genbench.models.cnn import CNN
from genbench.models.cnn5 import CNN5
from genbench.models.decoder import Decoder
from genbench.models.ensemble import Ensemble
from genbench.models.gru import GRU
from genbench.models.inception import Inception
from genbench.models.linear import Linear
from genbench.models.lstm import LSTM
from genbench.models.mlp import MLP
from genbench.models.random_features import RandomFeatures
from genbench.models.resnet18 import ResNet18
from genbench.models.rnn import RNN
from genbench.models.slots import Dropout, Normalization, use_draw
from genbench.models.transformer import Transformer
from genbench.models.wide_resnet import WideResNet

__all__ = [
    "CNN",
    "CNN5",
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "AlexNet",
    "Classifier",
    "Decoder",
    "Dropout",
    "Ensemble",
    "Inception",
    "Linear",
    "Normalization",
    "RandomFeatures",
    "ResNet18",
    "Transformer",
    "WideResNet",
    "use_draw",
]
