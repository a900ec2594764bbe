"""Logistic regression."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from genbench.models.base import Classifier


class Linear(Classifier):
    """One linear layer on the flattened input: multinomial logistic regression, 410 parameters on MNIST-1D."""

    def __init__(self, *, input_shape: Sequence[int], classes: int) -> None:
        super().__init__(input_shape=input_shape, classes=classes)
        self.head = nn.Linear(prod(self.input_shape), classes)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)
