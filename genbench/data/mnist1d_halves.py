"""MNIST-1D with two classes: digits below five and the others."""

from genbench.data.mnist1d_stream import MNIST1DStream


class MNIST1DHalves(MNIST1DStream):
    """Tell the first five digits of MNIST-1D from the other five: new examples in every batch, or a frozen set of any
    size. Inputs of shape (1, 40), 2 classes; settings are those of :class:`genbench.data.MNIST1DStream`."""

    name = "mnist1d_halves"
    classes = 2
    class_of = (0, 0, 0, 0, 0, 1, 1, 1, 1, 1)
