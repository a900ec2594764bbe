"""The shape of a trajectory of weights: the minimum spanning tree of its points, and the dimension that it shows.

Critique: over a grid of learning rates and batch sizes these numbers go with the generalization gap because both follow
the hyperparameters; within one setting the correlation is weak, and networks trained from a poor (adversarial) start
generalize worse and do not show it (Tan et al. 2024, arXiv 2406.02234).
"""

import math

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

FEWEST = 50  # points of which a dimension is estimated
_BLOCKS = 10  # of consecutive points, left out in turn for the standard error
_SIZES = 5  # numbers of points, from a fifth to all
_ORDERS = 3  # random orders, whose first points are the subsets


class Sketch:
    """A random linear map of weights [size] to ``width`` numbers that preserves distances: each number is a sum of
    size / width weights with random signs, of a random division (Charikar et al. 2002, ICALP; Weinberger et al. 2009,
    arXiv 0902.2206). Squared distances are unbiased with a relative standard deviation of at most √(2 / width)."""

    def __init__(self, size: int, width: int, *, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "sketch"))
        self._shape = (math.ceil(size / width), width)
        padding = torch.zeros(math.prod(self._shape) - size)
        self._places = torch.cat([torch.randperm(size, generator=generator), padding.long()]).to(device)
        self._signs = torch.cat([torch.randint(2, (size,), generator=generator) * 2.0 - 1, padding]).to(device)

    def __call__(self, weights: Tensor) -> Tensor:
        """The numbers [width] of weights [size]."""
        chosen = weights.index_select(0, self._places)  # twice as fast as by an index of two dimensions
        return (chosen * self._signs.to(weights.dtype)).view(self._shape).sum(0)


def lifetimes(points: Tensor) -> Tensor:
    """The lengths of the edges of the minimum spanning tree of points [n, d], ascending [n − 1]: the lifetimes of the
    0-dimensional persistent homology of their Vietoris–Rips complex."""
    return torch.from_numpy(_lifetimes(_distances(points)))


def lifetime_sum(points: Tensor, *, alpha: float = 1.0) -> Estimate:
    """E_α = Σ eᵅ over the lifetimes e of points [n, d], in units of the points to the power α; at α = 1 the length of
    their minimum spanning tree (Andreeva et al. 2024, arXiv 2407.08723, who bound the generalization gap by it for a
    metric of the losses, too; here the distance is Euclidean). It grows with the number of points and the scale of the
    weights: compare it at equal numbers, learning rates and architectures alone."""
    _check_alpha(alpha)
    if (reason := _unfit(points, 2)) is not None:
        return Estimate(None, note=f"undefined: {reason}")
    return Estimate(float((lifetimes(points) ** alpha).sum()))


def homology_dimension(points: Tensor, *, alpha: float = 1.0, seed: int = 0) -> Estimate:
    """α / (1 − m), with m the slope of log E_α (see :func:`lifetime_sum`) of subsets of points [n, d] along the log of
    their number: the persistent homology dimension (Birdal et al. 2021, arXiv 2111.13171). E_α of n independent points
    of a set of dimension D > α grows as n^(1 − α/D) (Steele 1988, Ann. Probab. 16, 1767).

    Equal points count once. The subsets hold five numbers of points, evenly spaced from a fifth to all of them; they
    are the first points of three random orders, of which log E_α is averaged, and m is the slope of least squares. The
    authors' code (tolgabirdal/PHDimGeneralization) has sixteen numbers, 200, 250, … 950 of 1,000 points, and one random
    subset of each. The standard error is that of a jackknife that leaves out ten blocks of consecutive points in
    turn; for independent points it came out up to half too large. The boundary of a set biases the value down: of
    1,000 uniform points of a cube to 1.97, 2.9, 4.5 and 7.0 of 2, 3, 5 and 8 dimensions.

    Args:
        points: at least 50 different ones.
        alpha: power of the lifetimes, > 0.
        seed: of the orders, at least 0.
    """
    _check_alpha(alpha)
    check_integer("seed", seed, least=0)
    if (reason := _unfit(points, FEWEST)) is not None:
        return Estimate(None, note=f"undefined: {reason}")
    points = _different(points)
    n, distances = len(points), _distances(points)
    random = np.random.default_rng(derive_seed(seed, "homology_dimension"))
    orders = [random.permutation(n) for _ in range(_ORDERS)]
    slope = _slope(distances, orders, alpha)
    if slope >= 1:
        return Estimate(
            None, note=f"undefined: the lifetime sum grows as the number of points to the power {slope:.3g}"
        )
    others = []
    for block in np.array_split(np.arange(n), _BLOCKS):
        left = np.delete(np.arange(n), block)
        place = np.full(n, -1)
        place[left] = np.arange(len(left))
        kept = [place[order][place[order] >= 0] for order in orders]
        others.append(_slope(distances[np.ix_(left, left)], kept, alpha))
    # of the slope, whose errors are more symmetric; the dimension's follows to first order
    error = math.sqrt((_BLOCKS - 1) * float(np.var(others)))
    return Estimate(alpha / (1 - slope), stderr=alpha / (1 - slope) ** 2 * error)


def _slope(distances: np.ndarray, orders: list[np.ndarray], alpha: float) -> float:
    """The slope of log E_α of the first points of each order along the log of their number."""
    n = len(distances)
    sizes = np.linspace(n / 5, n, _SIZES).round().astype(int)
    sums = []
    for size in sizes:
        subsets = [order[:size] for order in orders[: 1 if size == n else None]]
        found = [(_lifetimes(distances[np.ix_(some, some)]) ** alpha).sum() for some in subsets]
        sums.append(float(np.mean(np.log(found))))
    return float(np.polyfit(np.log(sizes), sums, 1)[0])


def _lifetimes(distances: np.ndarray) -> np.ndarray:
    """Of the heights of single linkage, which are the edges of the minimum spanning tree; unlike scipy's tree of a
    sparse graph it keeps edges of length zero."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return linkage(squareform(distances, checks=False), "single")[:, 2]


def _distances(points: Tensor) -> np.ndarray:
    """[n, n], float64."""
    x = points.detach().double()
    x = x - x.mean(0)  # or differences would be lost in the norm that all points share
    return torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(0).cpu().numpy()


def _different(points: Tensor) -> Tensor:
    """The first of each group of equal points, in their order."""
    _, first = np.unique(points.detach().cpu().numpy(), axis=0, return_index=True)
    return points[torch.from_numpy(np.sort(first)).to(points.device)]


def _unfit(points: Tensor, least: int) -> str | None:
    if not torch.isfinite(points).all():
        return "weights are not finite"
    n = len(_different(points))
    return f"{n} different weights, at least {least} are needed" if n < least else None


def _check_alpha(alpha: float) -> None:
    check_number("alpha", alpha, low=0, open_low=True)
