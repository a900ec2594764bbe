"""Interpolation of the training data with minimum norm, by kernels and in closed form; the network is not used."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.snapshot import Snapshot
from genbench.process.memory import room
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom

_BLOCK = 4096  # examples that are read at once
_FILTERS = 64  # filters whose features are held at once
_FEW = 1000  # examples for the median distance


@measure("interpolation", by_member=False, names=("gaussian_accuracy", "gaussian_train_accuracy", "gaussian_norm"))
def gaussian_interpolation(snapshot: Snapshot, train: Snapshot, *, bandwidth: float = 0.5) -> dict[str, Estimate]:
    """Interpolate the training labels by a Gaussian kernel of the inputs: ``gaussian_accuracy`` on the snapshot's data,
    ``gaussian_train_accuracy`` and ``gaussian_norm``.

    f is the function of minimum norm with f(xᵢ) = the one-hot label of xᵢ, without any regularization (Zhang et al.
    2017, arXiv 1611.03530, section 5): f(x) = Σᵢ αᵢ k(xᵢ, x), α = K⁻¹Y, k(x, z) = exp(−‖x − z‖² / 2σ²). The norm is
    √tr YᵀK⁻¹Y, that of all classes together. It compares kernels of one scale, such as k(x, x) = 1 here.

    Args:
        snapshot: its data are classified.
        train: its data are interpolated; memory grows with the square of their number, time with the cube.
        bandwidth: σ in units of the median distance of the first 1,000 training examples, > 0.

    Raises:
        ValueError: the kernel's matrix does not fit in memory, or inputs are not real numbers.
    """
    check_number("bandwidth", bandwidth, low=0, open_low=True)
    return _interpolated("gaussian", snapshot, train, bandwidth, lambda x: iter((x.flatten(1),)))


@measure(
    "interpolation", by_member=False, names=("convolution_accuracy", "convolution_train_accuracy", "convolution_norm")
)
def convolution_interpolation(
    snapshot: Snapshot,
    train: Snapshot,
    *,
    filters: int = 1000,
    size: int = 9,
    pool: int = 2,
    bandwidth: float = 0.5,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Interpolate the training labels by a Gaussian kernel of random convolution features: ``convolution_accuracy``,
    ``convolution_train_accuracy`` and ``convolution_norm``, as in :func:`gaussian_interpolation`.

    The features of an input [C, ...] are the means over ``pool`` windows a side of max(0, w ∗ x) and max(0, −w ∗ x),
    with random filters w of norm 1 (Coates & Ng 2012, Learning feature representations with k-means, whose filters are
    learned; Zhang et al. 2017, arXiv 1611.03530, section 5, take 32,000 random ones).

    Args:
        snapshot: its data are classified.
        train: its data are interpolated; memory grows with the square of their number, time with the cube.
        filters: number of filters, at least 1.
        size: points of a filter a side, at least 1.
        pool: windows a side, at least 1.
        bandwidth: σ in units of the median distance between the features of the first 1,000 training examples, > 0.
        seed: of the filters, at least 0.

    Raises:
        ValueError: the kernel's matrix does not fit in memory, or inputs have no or more than two axes of points.
    """
    for name, value in (("filters", filters), ("size", size), ("pool", pool)):
        check_integer(name, value, least=1)
    check_integer("seed", seed, least=0)
    check_number("bandwidth", bandwidth, low=0, open_low=True)

    def features(x: Tensor) -> Iterator[Tensor]:
        return convolution_features(x, filters=filters, size=size, pool=pool, seed=seed)

    return _interpolated("convolution", snapshot, train, bandwidth, features)


def minimum_norm(kernel: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    """Return the coefficients α = K⁻¹Y [n, k] of the function of minimum norm with the values Y [n, k] at n points of
    the kernel's matrix K [n, n], and its norm √tr YᵀK⁻¹Y; all in float64.

    Raises:
        ValueError: K is singular to rounding, as where inputs repeat.
    """
    factor, failed = torch.linalg.cholesky_ex(kernel)
    if failed:
        raise ValueError("the kernel's matrix is singular to rounding: inputs repeat, or the bandwidth is too large")
    coefficients = torch.cholesky_solve(targets, factor)
    return coefficients, math.sqrt(float((targets * coefficients).sum()))


def convolution_features(x: Tensor, *, filters: int, size: int, pool: int, seed: int) -> Iterator[Tensor]:
    """Yield the features [n, ...] of inputs [n, C, L] or [n, C, H, W] in parts, some filters at a time; see
    :func:`convolution_interpolation`."""
    if x.ndim not in (3, 4) or min(x.shape[2:]) < size:
        raise ValueError(f"inputs are of shape {list(x.shape[1:])}; accepted: [C, L] or [C, H, W] of at least {size}")
    convolve, mean = (F.conv1d, F.adaptive_avg_pool1d) if x.ndim == 3 else (F.conv2d, F.adaptive_avg_pool2d)
    weights = StepRandom(seed, 0).normal("interpolation.filters", filters, x.shape[1], *[size] * (x.ndim - 2)).to(x)
    weights = weights / weights.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    for some in weights.split(_FILTERS):
        out = convolve(x, some)
        for sign in (1, -1):
            yield mean((sign * out).relu(), pool).flatten(1)


def _interpolated(
    kind: str, snapshot: Snapshot, train: Snapshot, bandwidth: float, features: Callable[[Tensor], Iterator[Tensor]]
) -> dict[str, Estimate]:
    names = [f"{kind}_{name}" for name in ("accuracy", "train_accuracy", "norm")]
    (x, y), (x_test, y_test) = (_data(each) for each in (train, snapshot))
    if y.ndim != 1 or y.is_floating_point() or y_test.ndim != 1:
        return dict.fromkeys(names, undefined("targets are not one label an example"))
    needed, free = (size / 2**30 for size in (8 * len(x) * (4 * len(x) + 2 * len(x_test)), room(x.device)))
    if needed > free:
        raise ValueError(f"the kernel of {len(x):,} training examples takes {needed:.1f} GiB; {free:.1f} are free")
    inner, cross = x.new_zeros(len(x), len(x)), x.new_zeros(len(x_test), len(x))
    square = x.new_zeros(len(x_test))
    for a, b in zip(features(x), features(x_test), strict=True):
        inner += a @ a.T
        cross += b @ a.T
        square += b.square().sum(1)
    own = inner.diagonal().clone()
    apart = (own[:, None] + own - 2 * inner).clamp_(min=0).fill_diagonal_(0)
    few = min(len(x), _FEW)
    i, j = torch.triu_indices(few, few, 1)
    scale = 2 * (bandwidth * float(apart[i, j].sqrt().quantile(0.5))) ** 2
    if not scale > 0:
        return dict.fromkeys(names, undefined("the median distance of the training examples is zero"))
    classes = int(max(y.max(), y_test.max())) + 1
    kernel = (-apart / scale).exp()
    targets = F.one_hot(y, classes).to(kernel)
    alpha, norm = minimum_norm(kernel, targets)
    fitted = kernel @ alpha
    right = ((-(square[:, None] + own - 2 * cross).clamp_(min=0) / scale).exp() @ alpha).argmax(1) == y_test
    share, n = float(right.double().mean()), len(right)
    values = (
        Estimate(share, stderr=math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None),
        Estimate(float((fitted.argmax(1) == y).double().mean())),
        Estimate(norm, residual=float((fitted - targets).abs().max())),
    )
    return dict(zip(names, values, strict=True))


def _data(snapshot: Snapshot) -> tuple[Tensor, Tensor]:
    """Return all inputs, float64, and targets."""
    x, y = (torch.cat(parts) for parts in zip(*snapshot.blocks(_BLOCK), strict=True))
    if not x.is_floating_point():
        raise ValueError(f"inputs are {x.dtype}; accepted: real numbers")
    return x.double(), y
