"""MNIST-1D as a stream of new examples, from a vectorized generator."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.data.stream import Source, StreamData
from genbench.rng import StepRandom

_POINTS = 72  # points of a signal before it is read off: 12 of the template and at most 60 of padding
_PADDING = range(36, 61)
_SCALING = 100_000  # examples for the mean and standard deviation of the distribution


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The distribution of MNIST-1D (Greydanus 2020, arXiv 2011.14439; ``mnist1d.transform``), with the constants of the
    frozen set as defaults.

    A template of 12 points is padded with 36 to 60 zeros, stretched to 72 points, multiplied by a factor from
    1 ± ``scale`` / 2 and shifted circularly by less than ``translation`` points. Noise of standard deviation
    ``corr_noise``, smoothed by a Gaussian of 2 points, replaces zeros; white noise of ``iid_noise`` and a line of slope
    ± ``shear`` / 2 are added, and 40 points are read off. The package draws examples one by one in Python; here a table
    holds every template with every padding and shift, and the rest is matrix products.
    """

    scale: float = 0.4
    translation: int = 48
    corr_noise: float = 0.25
    iid_noise: float = 0.02
    shear: float = 0.75

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name == "translation":
                check_integer("data.translation", self.translation, least=1, most=_POINTS)
            else:
                check_number(f"data.{field.name}", getattr(self, field.name), low=0)

    def sample(self, n: int, draw: StepRandom, site: str = "signals") -> tuple[Tensor, Tensor]:
        """Draw signals [n, 1, 40] (float32) and uniform classes [n].

        Signals are scaled such that the distribution with default constants has mean 0 and standard deviation 1.
        """
        mean, std = _moments()
        x, y = self._raw(n, draw, site)
        return ((x - mean) / std)[:, None], y

    def _raw(self, n: int, draw: StepRandom, site: str) -> tuple[Tensor, Tensor]:
        u = draw.uniform(f"{site}.numbers", 5, n)
        noise = draw.normal(f"{site}.noise", 2, n, _POINTS)
        y, padding, shift = (
            (part * k).long() for part, k in zip(u, (10, len(_PADDING), self.translation), strict=False)
        )
        x = self.made(y, padding=padding, shift=shift, scale=u[3] - 0.5, shear=u[4] - 0.5, corr=noise[0], iid=noise[1])
        return x, y

    def made(
        self, y: Tensor, *, padding: Tensor, scale: Tensor, shift: Tensor, shear: Tensor, corr: Tensor, iid: Tensor
    ) -> Tensor:
        """Make signals [n, 40] of classes y [n], not yet scaled, from given random numbers.

        Args:
            y: classes [n].
            padding: zeros beyond 36, [n].
            scale: amplitude, on (−1/2, 1/2), [n].
            shift: shift in points, [n].
            shear: slope, on (−1/2, 1/2), [n].
            corr: standard normal numbers of the smooth noise, [n, 72].
            iid: standard normal numbers of the white noise, [n, 72].
        """
        templates, smooth, read, slope = _tables_on(corr.device, corr.dtype)
        rows = (y * len(_PADDING) + padding) * _POINTS + shift
        template = templates.index_select(0, rows)
        filled = torch.where(
            template != 0, template * (1 + self.scale * scale[:, None]), self.corr_noise * (corr @ smooth)
        )
        return (filled + self.iid_noise * iid) @ read - (self.shear * shear)[:, None] * slope


@dataclass(frozen=True, kw_only=True)
class DriftingSignals:
    """Signals whose distribution moves from ``start`` to ``end``, constant by constant in equal steps, between two
    epochs; before and after them it stays.

    Args:
        start: the distribution up to ``first_epoch``, also of the train split that is measured.
        end: that from ``last_epoch`` on.
        first_epoch: at least 0, the first of training being 0.
        last_epoch: above ``first_epoch``.
    """

    start: Signals
    end: Signals
    first_epoch: int
    last_epoch: int

    def __post_init__(self) -> None:
        check_integer("data.signals.first_epoch", self.first_epoch, least=0)
        check_integer("data.signals.last_epoch", self.last_epoch, least=self.first_epoch + 1)

    def at(self, epoch: int) -> Signals:
        """Return the distribution of an epoch."""
        share = min(1.0, max(0.0, (epoch - self.first_epoch) / (self.last_epoch - self.first_epoch)))
        values = {
            field.name: (1 - share) * getattr(self.start, field.name) + share * getattr(self.end, field.name)
            for field in fields(Signals)
        }
        return Signals(**{**values, "translation": round(values["translation"])})

    def sample(self, n: int, draw: StepRandom, site: str = "signals") -> tuple[Tensor, Tensor]:
        """Draw from the start."""
        return self.start.sample(n, draw, site)


@cache
def _tables() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return all signals [10 · 25 · 72, 72] by class, padding and shift, and the matrices of a signal's generator.

    These smooth [72, 72] and read off [72, 40]; the last tensor is the line that was read off, [40].
    """
    from mnist1d.data import get_templates
    from scipy.ndimage import gaussian_filter1d

    grid = np.linspace(0, 1, _POINTS)
    stretched = [
        np.interp(grid, np.linspace(0, 1, 12 + p), np.concatenate([x + 1e-8, np.zeros(p)]))
        for x in get_templates()["x"]
        for p in _PADDING
    ]
    templates = np.stack([np.roll(x, k) for x in stretched for k in range(_POINTS)])
    smooth = gaussian_filter1d(np.eye(_POINTS), 2, axis=0).T
    read = np.stack([np.interp(np.linspace(0, 1, 40), grid, row) for row in np.eye(_POINTS)])
    line = np.linspace(-0.5, 0.5, _POINTS) @ read
    return torch.from_numpy(templates), torch.from_numpy(smooth.copy()), torch.from_numpy(read), torch.from_numpy(line)


@cache
def _tables_on(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(table.to(device, dtype) for table in _tables())  # cached: converting them took most of a batch's time


@cache
def _moments() -> tuple[float, float]:
    x, _ = Signals()._raw(_SCALING, StepRandom(0, 0), "mnist1d.moments")
    return float(x.double().mean()), float(x.double().std())


@dataclass(frozen=True)
class _Grouped:
    """Signals whose class is that of their digit's group."""

    signals: Signals
    class_of: tuple[int, ...]

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw signals [n, 1, 40] and classes [n]."""
        x, digits = self.signals.sample(n, draw, site)
        return x, torch.tensor(self.class_of, device=digits.device)[digits]


class MNIST1DStream(StreamData):
    """MNIST-1D with new examples in every batch, or as a frozen set of any size.

    Args:
        signals: distribution of training and validation, :class:`Signals` or :class:`DriftingSignals`; ``None``: that
            of the authors.
        test_signals: distribution of the test split, to study a shift; ``None``: that of training.
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "mnist1d_stream"
    classes = 10
    class_of: ClassVar[tuple[int, ...] | None] = None  # the class of each digit; None: the digit

    def __init__(
        self, *, signals: Signals | DriftingSignals | None = None, test_signals: Signals | None = None, **settings: Any
    ) -> None:
        self.source = self._labelled(signals or Signals())
        self.test_source = None if test_signals is None else self._labelled(test_signals)
        super().__init__(**settings)

    def _labelled(self, signals: Signals | DriftingSignals) -> Source:
        """Signals with the classes of this task."""
        if self.class_of is None:
            return signals
        if isinstance(signals, DriftingSignals):
            raise ValueError("data.signals drift; accepted: signals that stay, where digits are put into groups")
        return _Grouped(signals, self.class_of)
