"""Base class and layers of all classifiers."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from genbench.checks import check_choice, check_integer
from genbench.models.slots import Normalization

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class Classifier(nn.Module):
    """A network that maps inputs [B, *input_shape] to logits [B, classes]: a linear ``head`` over ``features``.

    A network may have ``layers``, a sequence of modules whose hidden states [B, ...] are each the whole input of the
    next.

    Initial weights are those of torch's layers, as in the reference models of MNIST-1D: U(±1/√fan_in) for linear and
    convolutional layers, U(±1/√width) for recurrent ones.
    """

    per_lane: tuple[str, ...] = ("dropout",)  # settings in which runs of one pack may differ
    head: nn.Linear

    def __init__(self, *, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.input_shape = tuple(check_integer("model input_shape", size, least=1) for size in input_shape)
        self.classes = check_integer("model classes", classes, least=1)

    def spatial(self, *, least: int) -> tuple[int, list[int]]:
        """Return channels and sides of an input: a sequence or an image of at least ``least`` points a side.

        Raises:
            ValueError: an input of another shape.
        """
        channels, *sides = self.input_shape
        if len(sides) not in (1, 2) or min(sides) < least:
            raise ValueError(
                f"{type(self).__name__} does not fit an input of shape {self.input_shape}; accepted: (channels, "
                f"length) or (channels, height, width) with at least {least} points a side"
            )
        return channels, sides

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the head, [B, F]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f"{type(self).__name__} was given an input of shape {tuple(x.shape)}; "
                f"accepted: (batch, {', '.join(map(str, self.input_shape))})"
            )
        return self.head(self.features(x))


def activation(name: str) -> nn.Module:
    """Return a new activation layer by name."""
    return ACTIVATIONS[check_choice("model.activation", name, tuple(ACTIVATIONS))]()


def convolution(channels: int, width: int, kernel: int, dims: int, **settings: Any) -> nn.Module:
    """Return a convolution in one or two dimensions, with torch's ``stride``, ``padding`` and ``bias``."""
    return (nn.Conv2d if dims == 2 else nn.Conv1d)(channels, width, kernel, **settings)


def max_pool(size: int, dims: int, **settings: Any) -> nn.Module:
    """Return max pooling in one or two dimensions, with torch's ``stride`` and ``padding``."""
    return (nn.MaxPool2d if dims == 2 else nn.MaxPool1d)(size, **settings)


def normalization(name: str, channels: int, dims: int) -> nn.Module:
    """Return an empty normalization slot (``none``) or a filled one (``batch_norm``)."""
    check_choice("model.normalization", name, ("none", "batch_norm"))
    slot = Normalization(channels, dims)
    return slot if name == "none" else slot.batch_norm()
