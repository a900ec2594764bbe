"""MNIST-1D without end: its generator, vectorized."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.data.stream import StreamData
from genbench.rng import StepRandom

_POINTS = 72  # of a signal while it is made: the template's 12 and at most 60 of padding
_PADDING = range(36, 61)
_SCALING = 100_000  # examples that the mean and standard deviation of the distribution are taken from


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The distribution of MNIST-1D (Greydanus 2020, arXiv 2011.14439; ``mnist1d.transform``), with the constants of the
    frozen set as defaults.

    A template of 12 points is padded with 36 to 60 zeros, stretched to 72 points, multiplied by a factor from
    1 ± ``scale`` / 2, moved circularly by less than ``translation`` points; what is zero is filled with noise of
    standard deviation ``corr_noise``, smoothed by a Gaussian of 2 points; white noise of ``iid_noise`` and a line of
    slope ± ``shear`` / 2 are added, and 40 points are read off. The package draws one example at a time in Python; here
    every pair of a template and a padding at every shift is a row of a table, and all else a product of matrices.
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
        """Signals [n, 1, 40] (float32) and classes [n], uniform; scaled as the distribution with its default constants
        has mean 0 and standard deviation 1."""
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
        """Signals [n, 40], not scaled, of classes [n]: ``padding`` in excess of 36, ``scale`` and ``shear`` on
        (−1/2, 1/2), ``shift`` in points, all [n]; ``corr`` and ``iid`` standard normal [n, 72]."""
        templates, smooth, read, slope = _tables_on(corr.device, corr.dtype)
        rows = (y * len(_PADDING) + padding) * _POINTS + shift
        template = templates.index_select(0, rows)
        filled = torch.where(
            template != 0, template * (1 + self.scale * scale[:, None]), self.corr_noise * (corr @ smooth)
        )
        return (filled + self.iid_noise * iid) @ read - (self.shear * shear)[:, None] * slope


@cache
def _tables() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each class with each padding at each shift [10 · 25 · 72, 72]; the smoothing [72, 72] and the reading [72, 40] as
    matrices; the line, read off [40]."""
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
    return tuple(table.to(device, dtype) for table in _tables())  # kept: to convert them took most of a batch's time


@cache
def _moments() -> tuple[float, float]:
    x, _ = Signals()._raw(_SCALING, StepRandom(0, 0), "mnist1d.moments")
    return float(x.double().mean()), float(x.double().std())


class MNIST1DStream(StreamData):
    """MNIST-1D without end: every batch is of fresh examples, or there is a frozen set of any size.

    Args:
        signals: the distribution of training and validation.
        test_signals: that of the test split; another one is a shift.
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "mnist1d_stream"
    classes = 10

    def __init__(self, *, signals: Signals | None = None, test_signals: Signals | None = None, **settings: Any) -> None:
        self.source = signals or Signals()
        self.test_source = test_signals
        super().__init__(**settings)
