"""Datamodules, label and input corruptions."""

from genbench.data.base import TensorData
from genbench.data.batches import Batches
from genbench.data.digits import Digits
from genbench.data.mnist1d import MNIST1D
from genbench.data.mnist1d_stream import MNIST1DStream, Signals

__all__ = ["MNIST1D", "Batches", "Digits", "MNIST1DStream", "Signals", "TensorData"]
