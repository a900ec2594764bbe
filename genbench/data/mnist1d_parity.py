"""MNIST-1D with two classes: even and odd digits."""

from genbench.data.mnist1d_stream import MNIST1DStream


class MNIST1DParity(MNIST1DStream):
    """Tell even from odd digits of MNIST-1D: new examples in every batch, or a frozen set of any size. Inputs of shape
    (1, 40), 2 classes; settings are those of :class:`genbench.data.MNIST1DStream`."""

    name = "mnist1d_parity"
    classes = 2
    class_of = (0, 1, 0, 1, 0, 1, 0, 1, 0, 1)
