"""Long short-term memory."""

from torch import nn

from genbench.models.recurrent import Recurrent


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; with forget gates, Gers et al. 2000): see
    :class:`genbench.models.recurrent.Recurrent`."""

    unit = nn.LSTM
