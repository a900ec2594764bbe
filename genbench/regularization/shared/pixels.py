"""Methods that move and blank whole pixels; consecutive ones read and write each pixel once."""

from collections.abc import Sequence
from itertools import groupby

from torch import Tensor, nn

from genbench.inputs.geometry import box
from genbench.regularization.base import Method
from genbench.rng import StepRandom


class Pixels:
    """Collects changes of images [B, C, H, W] or sequences [B, C, L]; :meth:`made` applies them in one pass.

    >>> import torch
    >>> pixels = Pixels(torch.tensor([[[1.0, 2.0, 3.0]]]))
    >>> pixels.move(2, torch.tensor([[1, 2, 3]]), leaving=True)
    >>> pixels.made()
    tensor([[[2., 3., 0.]]])
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._sources: dict[int, Tensor] = {}  # axis -> old point of each new point, [B, side]
        self._kept: Tensor | None = None  # 1 or 0, of a shape that broadcasts to that of x

    def move(self, axis: int, source: Tensor, *, leaving: bool = False) -> None:
        """Replace point i of an axis by point ``source[:, i]``, [B, side]; with ``leaving``, sources may lie outside,
        where values are zero."""
        inside = source.clamp(0, self.x.shape[axis] - 1) if leaving else source
        if axis in self._sources:
            self._sources[axis] = self._sources[axis].gather(1, inside)
        else:
            self._sources[axis] = inside
        if self._kept is not None and self._kept.shape[axis] > 1:
            self._kept = _gathered(self._kept, axis, inside)
        if leaving:
            self._keep(_along(self.x, axis, (source == inside).to(self.x.dtype)))

    def blank(self, start: Tensor, size: Tensor) -> None:
        """Set a box to zero: see :func:`genbench.inputs.geometry.box`."""
        self._keep(1 - box(self.x, start, size))

    def made(self) -> Tensor:
        """Return the changed signals, in their old shape."""
        x, axes = self.x, sorted(self._sources)
        if len(axes) == 2:
            rows, columns = (self._sources[axis] for axis in axes)
            # this order of terms makes the sum twice as fast
            source = columns[:, None] + (rows * x.shape[3])[:, :, None]
            x = _gathered(x.flatten(2), 2, source.flatten(1)).view(x.shape)
        elif axes:
            x = _gathered(x, axes[0], self._sources[axes[0]])
        if self._kept is None:
            return x
        # a product with a float mask is twice as fast as with a boolean one
        return x.mul_(self._kept) if axes else x * self._kept

    def _keep(self, kept: Tensor) -> None:
        self._kept = kept if self._kept is None else self._kept * kept


def _along(x: Tensor, axis: int, values: Tensor) -> Tensor:
    """Return values [B, side] of one axis with as many axes as x."""
    return values.view(len(values), *(x.shape[axis] if i == axis else 1 for i in range(1, x.ndim)))


def _gathered(x: Tensor, axis: int, source: Tensor) -> Tensor:
    return x.gather(axis, _along(x, axis, source).expand(x.shape))


class PixelMethod(Method):
    """A method that moves and blanks whole pixels, as :meth:`rearrange` of a subclass says."""

    def rearrange(self, pixels: Pixels, draw: StepRandom) -> None:
        """Register the changes."""
        raise NotImplementedError

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        return _Together([self]).transform(net, x, y, draw)


class _Together:
    """The transforms of several pixel methods as one."""

    def __init__(self, methods: Sequence[PixelMethod]) -> None:
        self._methods = methods

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        pixels = Pixels(x)
        for method in self._methods:
            method.rearrange(pixels, draw)
        return pixels.made(), y


def together(methods: Sequence[Method]) -> list[Method | _Together]:
    """Join consecutive pixel methods into one transform; batches stay the same bit for bit."""
    found: list[Method | _Together] = []
    for _, row in groupby(methods, lambda method: isinstance(method, PixelMethod)):
        alike = list(row)
        pixels = [method for method in alike if isinstance(method, PixelMethod)]
        found += [_Together(pixels)] if pixels else alike
    return found
