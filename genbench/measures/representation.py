"""Representations: their dimension, the geometry of the classes in them, and the similarity of two networks.

A layer's representation is its input, flattened to [N, D], under the layer's name. That of the layer called last, the
penultimate features, carries the measure's plain name. The input of the first layer, the data, is left out.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.performance import class_labels
from genbench.measures.sampling import some
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

NO_HIDDEN = Estimate(None, note="undefined: the network has no hidden layer")


@measure("representation", names=("effective_rank", "effective_rank.*"))
def effective_rank(snapshot: Snapshot) -> dict[str, Estimate]:
    """exp(−Σ pᵢ log pᵢ), pᵢ = σᵢ / Σ σ the singular values of the features [N, D], not centred, as shares of their sum
    (Roy & Vetterli 2007, EUSIPCO), in [1, min(N, D)]; of the penultimate features as ``effective_rank``, of each
    layer's as ``effective_rank.<layer>``."""
    return _by_layer(snapshot, "effective_rank", _effective_rank)


@measure("representation", names=("participation_ratio", "participation_ratio.*"))
def participation_ratio(snapshot: Snapshot) -> dict[str, Estimate]:
    """(Σλ)² / Σλ², λ the eigenvalues of the features' covariance, in [1, D] (Gao et al. 2017, bioRxiv 214262); of the
    penultimate features as ``participation_ratio``, of each layer's as ``participation_ratio.<layer>``."""
    return _by_layer(snapshot, "participation_ratio", _participation_ratio)


@measure("representation", names=("intrinsic_dimension", "intrinsic_dimension.*"))
def intrinsic_dimension(snapshot: Snapshot, *, examples: int = 2000, discard: float = 0.1) -> dict[str, Estimate]:
    """TwoNN: the dimension d for which the ratio μ of the distances to a point's second and first neighbour is Pareto,
    P(μ > m) = m^−d (Facco et al. 2017, Sci. Rep. 7, 12140), with its standard error; of the penultimate features as
    ``intrinsic_dimension``, of each layer's as ``intrinsic_dimension.<layer>``.

    Of the largest ratios, the share ``discard`` of n, only that they are the largest is used, as in the paper. Where
    that fits a line, d is here the estimate of maximum likelihood from the r smallest, corrected for its bias:
    (r − 1) / (Σ log μᵢ + (n − r) log μᵣ). Were the ratios independent, its standard error would be d/√r; neighbours
    share points, so the covariances of points whose balls overlap are counted. That is the error of the sample; a
    density or a curvature that changes within a neighbourhood biases d, the more the higher it is. Equal rows count
    once.

    Args:
        snapshot: network, loss and data.
        examples: at most so many, evenly spaced over the data, at least 5; distances cost their square.
        discard: share of the ratios, in [0, 1).
    """
    check_integer("examples", examples, least=5)
    check_number("discard", discard, low=0, high=1, open_high=True)
    return _by_layer(
        snapshot, "intrinsic_dimension", lambda x: _two_nearest_neighbours(x[some(len(x), examples)], discard)
    )


@measure("representation")
def neural_collapse(snapshot: Snapshot) -> Estimate:
    """NC1, tr(Σ_W Σ_B†) / K of the penultimate features: 0 if all examples of a class have the same
    (Papyan, Han & Donoho 2020, arXiv 2008.08186).

    Σ_W is the covariance within a class, averaged over the K classes that occur, Σ_B that of the class means around
    their mean: classes weigh equally, as in the paper, whose classes are of equal size. Undefined if no class has
    two examples, or if all class means are the same.
    """
    features, labels = hidden(snapshot), class_labels(snapshot)
    last = penultimate(features)
    if last is None:
        return NO_HIDDEN
    if labels is None or len(labels) != snapshot.examples:
        return Estimate(None, note="undefined: the targets are not one class an example")
    return _collapse(features[last], labels)


@measure("representation", names=("cka", "cka.*"))
def linear_cka(snapshot: Snapshot, *, other: Snapshot | None = None) -> dict[str, Estimate]:
    """‖YᵀX‖_F² / (‖XᵀX‖_F ‖YᵀY‖_F) of the centred features X and Y of two networks on the same data, in [0, 1]
    (Kornblith et al. 2019, arXiv 1905.00414): of their penultimate features as ``cka``, of each layer that both have as
    ``cka.<layer>``. It does not change when features are rotated or scaled as a whole.

    Args:
        snapshot: network, loss and data.
        other: the second network, on the same data in the same order; by default the same network at its initial
            weights; ``None`` if there are none.

    Raises:
        ValueError: ``other`` has another number of examples, or other targets.
    """
    if other is None:
        if snapshot.initial is None:
            return {"cka": Estimate(None, note="no initial weights given, and no other network")}
        try:
            other = snapshot.with_state(snapshot.initial)
        except ValueError as error:
            return {"cka": Estimate(None, note=f"initial weights do not fit: {error}")}
    check_same_data(snapshot, other)
    ours = hidden(snapshot)
    theirs = {layer: x.to(snapshot.device) for layer, x in hidden(other).items()}
    last, others = penultimate(ours), penultimate(theirs)
    whole = NO_HIDDEN if last is None or others is None else _linear_cka(ours[last], theirs[others])
    return {
        "cka": whole,
        **{f"cka.{layer}": _linear_cka(ours[layer], theirs[layer]) for layer in ours if layer in theirs},
    }


def hidden(snapshot: Snapshot) -> dict[str, Tensor]:
    """The representations but the data, [N, D], by the layer that is given them, in the order of the calls, and
    ``output``; those that are not real numbers, or not one row an example, are left out."""
    found = snapshot.representations
    data = [layer for layer in found if layer != "output"][:1]
    return {
        layer: x.reshape(len(x), -1)
        for layer, x in found.items()
        if layer not in data and len(x) == snapshot.examples and x.is_floating_point() and x.numel()
    }


def penultimate(features: dict[str, Tensor]) -> str | None:
    """The name of the layer called last; None without hidden layers."""
    layers = [layer for layer in features if layer != "output"]
    return layers[-1] if layers else None


def _by_layer(snapshot: Snapshot, name: str, value: Callable[[Tensor], Estimate]) -> dict[str, Estimate]:
    features = hidden(snapshot)
    found = {layer: value(x) for layer, x in features.items()}
    last = penultimate(features)
    whole = NO_HIDDEN if last is None else found[last]
    return {name: whole, **{f"{name}.{layer}": estimate for layer, estimate in found.items()}}


def _effective_rank(x: Tensor) -> Estimate:
    singular = torch.linalg.svdvals(x.double())
    if not singular.any():
        return Estimate(None, note="undefined: the features are all zero")
    return Estimate(float(torch.special.entr(singular / singular.sum()).sum().exp()))


def _participation_ratio(x: Tensor) -> Estimate:
    x = _centred(x)
    squares = float(x.square().sum())
    if not squares:
        return Estimate(None, note="undefined: the features are the same for all examples")
    return Estimate(squares**2 / _overlap(x, x))


def _two_nearest_neighbours(x: Tensor, discard: float) -> Estimate:
    x = torch.unique(x.double(), dim=0)
    n = len(x)
    if n < 5:
        return Estimate(None, note=f"undefined: {n} different examples, at least 5 are needed")
    logs, neighbours = [], []
    for block in x.split(max(1, 2**24 // n)):
        # the shorter way through a matrix product loses small distances to rounding
        distances = torch.cdist(block, x, compute_mode="donot_use_mm_for_euclid_dist")
        nearest, indices = distances.topk(3, largest=False)  # the first is the point itself
        logs.append(nearest[:, 2].log() - nearest[:, 1].log())
        neighbours.append(indices.cpu())
    ratios = torch.cat(logs).cpu()
    r = max(3, round(n * (1 - discard)))
    end = ratios.sort().values[r - 1]
    total = float(ratios.clamp_max(end).sum())
    if not total:
        return Estimate(None, note="undefined: first and second neighbours are equally far")
    dimension = (r - 1) / total
    score = (ratios <= end) / dimension - ratios.clamp_max(end)
    variance = max(_variance(score - score.mean(), torch.cat(neighbours)), r / dimension**2)
    return Estimate(dimension, stderr=dimension**2 * variance**0.5 / r)


def _variance(score: Tensor, balls: Tensor) -> float:
    """The variance of Σ scoreᵢ where only those of overlapping balls, rows of members [N, 3], depend on each other."""
    from scipy.sparse import csr_array

    n = len(balls)
    member = csr_array((np.ones(balls.numel()), (np.repeat(np.arange(n), balls.shape[1]), balls.reshape(-1))), (n, n))
    overlap = (member @ member.T) > 0
    return float(score.numpy() @ (overlap @ score.numpy()))


def _collapse(x: Tensor, labels: Tensor) -> Estimate:
    _, labels, counts = labels.unique(return_inverse=True, return_counts=True)
    k = len(counts)
    if k < 2:
        return Estimate(None, note="undefined: all examples are of one class")
    if counts.max() < 2:
        return Estimate(None, note="undefined: no class has two examples")
    x = x.double()
    means = torch.zeros(k, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, labels, x) / counts[:, None]
    _, singular, axes = torch.linalg.svd((means - means.mean(0)) / k**0.5, full_matrices=False)
    # K classes span K − 1 dimensions: the others are rounding errors of the means
    kept = singular > means.norm() * max(means.shape) * torch.finfo(torch.float64).eps
    if not kept.any():
        return Estimate(None, note="undefined: the means of all classes are the same")
    within = ((x - means[labels]) @ (axes[kept].T / singular[kept])).square().sum(1)
    return Estimate(float((within / counts[labels]).sum()) / k**2)


def _linear_cka(x: Tensor, y: Tensor) -> Estimate:
    x, y = _centred(x), _centred(y)
    sizes = _overlap(x, x), _overlap(y, y)
    if not all(sizes):
        return Estimate(None, note="undefined: the features of a network are the same for all examples")
    return Estimate(_overlap(x, y) / (sizes[0] * sizes[1]) ** 0.5)


def _overlap(x: Tensor, y: Tensor) -> float:
    """‖YᵀX‖_F² = ⟨XXᵀ, YYᵀ⟩, by the side that needs less memory."""
    if len(x) < min(x.shape[1], y.shape[1]):
        return float(((x @ x.T) * (y @ y.T)).sum())
    return float((y.T @ x).square().sum())


def _centred(x: Tensor) -> Tensor:
    x = x.double() - x[0].double()  # equal rows are exactly zero, whatever the rounding of their mean
    return x - x.mean(0)


def check_same_data(snapshot: Snapshot, other: Snapshot) -> None:
    """Refuse a second network with other examples or targets, or in another order."""
    if other.examples != snapshot.examples:
        raise ValueError(f"other has {other.examples} examples; accepted: the same data, {snapshot.examples} examples")
    targets = [
        [
            target.movedim(s.target_axis, 0).flatten(1) if target.ndim > 1 else target
            for _, target in s.predictions
            if isinstance(target, Tensor)
        ]
        for s in (snapshot, other)
    ]
    if all(targets):
        ours, theirs = (torch.cat(parts).to(snapshot.device) for parts in targets)
        if ours.shape != theirs.shape or not torch.equal(ours, theirs):
            raise ValueError("other has other targets; accepted: the same data in the same order")
