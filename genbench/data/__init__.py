"""Datamodules, label and input corruptions."""

from genbench.data.base import TensorData
from genbench.data.batches import Batches
from genbench.data.digits import Digits
from genbench.data.mnist1d import MNIST1D

__all__ = ["MNIST1D", "Batches", "Digits", "TensorData"]
