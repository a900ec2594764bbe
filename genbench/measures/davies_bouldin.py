"""Davies–Bouldin index: how well the classes are apart in the features of an early layer."""

import math
from statistics import fmean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.checks import check_integer, check_number
from genbench.measures.augmented import augmented_snapshot, without_augmentations
from genbench.measures.base import measure
from genbench.measures.early_layer import check_layer, check_layer_of, early_layer
from genbench.measures.performance import class_labels
from genbench.measures.representation import NO_HIDDEN
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_NAMES = ("davies_bouldin", "davies_bouldin_mean")


@measure(
    "representation",
    check=check_layer_of,
    names=(*_NAMES, *(f"{name}_augmented" for name in _NAMES)),
)
def davies_bouldin(
    snapshot: Snapshot,
    *,
    layer: str | None = None,
    pool: int = 4,
    strength: float = 1.0,
    versions: int = 4,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Davies–Bouldin index of the classes in the features h of an early layer: 0 if all examples of a class have the
    same, the larger the less the classes are apart.

    With c_k the mean of class k, S_k the mean distance of its examples from c_k, and R_kl = (S_k + S_l) / ‖c_k − c_l‖:

    - ``davies_bouldin``: mean over the K classes of max_{l ≠ k} R_kl (Davies & Bouldin 1979, IEEE PAMI 1, 224);
    - ``davies_bouldin_mean``: mean over k of the mean over l ≠ k of R_kl. The winners of the contest on predicting
      generalization have it (Natekar & Sharma 2020, arXiv 2012.02775, whose text has the maximum; their code,
      parthnatekar/pgdl, divides by K instead of K − 1);
    - ``davies_bouldin_augmented`` and ``davies_bouldin_mean_augmented``: the same of augmented inputs (see
      :mod:`genbench.measures.augmented`), mean over ``versions`` of the data with its standard error over them.

    What a convolution is given, maps of channels [N, C, L] or [N, C, H, W], is first max-pooled as theirs: with windows
    of ``pool`` points a side, or the whole side if it is shorter, next to each other, without what is left at the end.
    Differences from them: h is what the second layer is given, after normalization, activation and pooling, where they
    take the output of the first; the index is that of all examples, where they average over sets of 150, whose means of
    ten classes are noisy. The index of one layer does not change when units are permuted or all of h is scaled; a
    network's depends on its width.

    Args:
        snapshot: network, loss and data.
        layer: whose input h is; the second layer by default.
        pool: points of a window, at least 1; 1: no pooling.
        strength: of the augmentations, 1 for those of training, at least 0.
        versions: augmented versions of the data, at least 2; 0 leaves them out.
        seed: of the augmentations, at least 0.
    """
    check_layer(layer)
    check_integer("pool", pool, least=1)
    check_number("strength", strength, low=0)
    if versions:
        check_integer("versions", versions, least=2, note="or 0")
    check_integer("seed", seed, least=0)
    moved = [f"{name}_augmented" for name in _NAMES] if versions else []
    labels = class_labels(snapshot)
    if labels is None or len(labels) != snapshot.examples:
        return dict.fromkeys(
            (*_NAMES, *moved), Estimate(None, note="undefined: the targets are not one class an example")
        )
    name = early_layer(snapshot, layer)
    if name is None:
        return dict.fromkeys((*_NAMES, *moved), NO_HIDDEN)
    found = _indices(snapshot, name, pool, labels)
    if isinstance(found, str):
        return dict.fromkeys((*_NAMES, *moved), Estimate(None, note=f"undefined: {found}"))
    estimates = {key: Estimate(value) for key, value in zip(_NAMES, found, strict=True)}
    if not versions:
        return estimates
    if (reason := without_augmentations(snapshot)) is not None:
        return estimates | dict.fromkeys(moved, Estimate(None, note=f"undefined: {reason}"))
    views = (augmented_snapshot(snapshot, version, strength=strength, seed=seed) for version in range(versions))
    several = [_indices(view, name, pool, labels) for view in views]
    reason = next((each for each in several if isinstance(each, str)), None)
    if reason is not None:
        return estimates | dict.fromkeys(moved, Estimate(None, note=f"undefined: {reason}"))
    for key, values in zip(moved, zip(*several, strict=True), strict=True):
        estimates[key] = Estimate(fmean(values), stderr=stdev(values) / math.sqrt(versions))
    return estimates


def index(x: Tensor, labels: Tensor) -> tuple[float, float] | str:
    """The Davies–Bouldin index of features [N, D] and classes [N], and the same with the mean over the other classes;
    or why there is none."""
    _, labels, counts = labels.unique(return_inverse=True, return_counts=True)
    k = len(counts)
    if k < 2:
        return "all examples are of one class"
    x = x.double()
    means = torch.zeros(k, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, labels, x) / counts[:, None]
    distances = (x - means[labels]).norm(dim=1)
    spread = torch.zeros(k, dtype=x.dtype, device=x.device).index_add_(0, labels, distances) / counts
    # the shorter way through a matrix product loses small distances to rounding
    apart = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")
    apart.fill_diagonal_(math.inf)
    if not apart.all():
        return "two classes have the same mean"
    ratios = (spread[:, None] + spread) / apart
    return float(ratios.amax(1).mean()), float(ratios.sum() / (k * (k - 1)))


def _indices(snapshot: Snapshot, name: str, pool: int, labels: Tensor) -> tuple[float, float] | str:
    x = snapshot.representations[name]
    if len(x) != len(labels):
        return f"{name} is not given one row an example"
    if isinstance(snapshot.layers[name], nn.Conv1d | nn.Conv2d):
        sides = [min(pool, side) for side in x.shape[2:]]
        x = (F.max_pool1d if x.ndim == 3 else F.max_pool2d)(x, sides)
    return index(x.flatten(1), labels)
