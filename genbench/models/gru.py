"""Gated recurrent units."""

from torch import nn

from genbench.models.recurrent import Recurrent


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014, arXiv 1406.1078): see :class:`genbench.models.recurrent.Recurrent`.

    With the defaults this is MNIST-1D's reference (greydanus/mnist1d, ``notebooks/models.py``, GRUBase), 5,134
    parameters.
    """

    unit = nn.GRU
