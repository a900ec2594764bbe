"""The task of the information plane: patterns of bits on a sphere with a rotation-invariant label."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.data.base import TensorData, tensors
from genbench.data.boolean_functions import patterns
from genbench.data.table import divided

POINTS, DEGREES = 12, 8


def icosahedron() -> np.ndarray:
    """Return twelve points spread evenly on the unit sphere, [12, 3]: the corners of an icosahedron."""
    golden = (1 + 5**0.5) / 2
    edge = np.array([(0.0, one, other * golden) for one in (1, -1) for other in (1, -1)])
    return np.concatenate([np.roll(edge, turn, axis=1) for turn in range(3)]) / np.hypot(1, golden)


def power_spectrum(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the power spectrum [n, 8] of patterns x [n, k] on points p [k, 3] of the sphere, for degrees l = 0, …, 7.

    By the addition theorem, it is Σ_m |Σ_i x_i Y_lm(p_i)|² = (2l + 1) / 4π · Σ_ij x_i x_j P_l(p_i · p_j).
    """
    from scipy.special import eval_legendre

    angles = points @ points.T
    powers = [
        (2 * degree + 1) / (4 * np.pi) * ((x @ eval_legendre(degree, angles)) * x).sum(1) for degree in range(DEGREES)
    ]
    return np.stack(powers, 1)


class InformationPlane(TensorData):
    """All 4096 patterns of twelve bits with a symmetric binary label, after Shwartz-Ziv & Tishby 2017 (arXiv
    1703.00810, Section 3.1): inputs of shape (1, 12), 2 classes.

    The bits stand for twelve points on a sphere. The label is 1 if a function of the pattern's power spectrum in
    spherical harmonics, which no rotation changes, exceeds a threshold that balances the classes. The authors give
    neither the points, the function, the threshold nor the gain of the sigmoid from which labels are drawn. Here the
    points are the corners of an icosahedron, the function is the total power at degrees 0 to 7, and labels are
    deterministic: 2070 patterns are positive, H(Y) = 0.99992 bits. **This is not the authors' file**, which has 2118
    positives, H(Y) = 0.99916 bits; to compare with published numbers, pass that file as ``path``.

    Args:
        path: the authors' ``var_u.mat``: arrays F [4096, 12] of inputs and y of 4096 labels; ``None``: the rule
            above.
        train_fraction: share of the patterns to train on, in (0, 1), validation included; the first of one random
            order for each seed. The others are the test split.
        settings: the others of :class:`genbench.data.TensorData`.
    """

    name = "information_plane"
    classes = 2

    def __init__(self, *, path: str | None = None, train_fraction: float = 0.8, seed: int = 0, **settings: Any) -> None:
        self._path = path
        self._fraction = check_number("data.train_fraction", train_fraction, low=0, high=1, open_high=True)
        self._seed = check_integer("data.seed", seed, least=0)
        super().__init__(seed=seed, **settings)

    def content(self) -> tuple[dict[str, Tensor], str]:
        x, y = _rule() if self._path is None else _read(Path(self._path))
        return tensors(divided(x[:, None].float(), y, round(self._fraction * len(y)), seed=self._seed), self.name)


def _rule() -> tuple[Tensor, Tensor]:
    x = patterns(POINTS)
    # rounded, so that values that are equal by symmetry are equal
    power = power_spectrum(x.double().numpy(), icosahedron()).sum(1).round(9)
    values, counts = np.unique(power, return_counts=True)
    above = len(power) - counts.cumsum()
    threshold = values[abs(above - len(power) / 2).argmin()]
    return x, torch.from_numpy(power > threshold).long()


def _read(path: Path) -> tuple[Tensor, Tensor]:
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=["F", "y"])
        x, y = torch.from_numpy(found["F"]).double(), torch.from_numpy(found["y"]).double().flatten()
    except OSError as error:
        reason = error.strerror or "no such file"
        raise ValueError(f"data.path is {str(path)!r}, which cannot be read: {reason}") from None
    except (KeyError, ValueError, TypeError, NotImplementedError):
        raise ValueError(f"data.path is {str(path)!r}; accepted: a .mat file with arrays F and y") from None
    shapes = f"F {tuple(x.shape)} and {len(y)} labels"
    if x.shape != (2**POINTS, POINTS) or len(y) != 2**POINTS or not torch.isin(y, torch.tensor([0.0, 1.0])).all():
        raise ValueError(
            f"data.path is {str(path)!r} with {shapes}; accepted: F (4096, 12) and y of 4096 labels that are 0 or 1"
        )
    return x, y.long()
