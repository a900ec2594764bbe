"""The description length of a network trained in a random subspace, and its bound on the error."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.bounds import kl_inverse, vacuity
from genbench.measures.outputs import Reading, read, undefined
from genbench.measures.pacbayes import check_share, error_rate, moved
from genbench.measures.performance import answered, error_limit
from genbench.measures.snapshot import Snapshot
from genbench.models.random_subspace import RandomSubspace
from genbench.records.estimate import Estimate

_OUTSIDE = 1e-3  # largest share of ‖w − w⁰‖ outside of the subspace: rounding
_BITS = 16  # of a number of the codebook, a float16

Array = NDArray[np.float64]


@measure(
    "bound",
    by_member=False,
    names=(
        "compression_bound",
        "compression_bits",
        "compression_levels",
        "compression_train_error",
        "compression_error",
        "compression_error_low",
    ),
)
def subspace_compression_bound(
    snapshot: Snapshot,
    train: Snapshot,
    *,
    dimension: int | None = None,
    subspace_seed: int = 0,
    tried: int = 1,
    levels: Sequence[int] = (3, 5, 8, 12, 18, 27),
    delta: float = 0.05,
) -> dict[str, Estimate]:
    """A certified bound on the error of the network w⁰ + Pẑ, ẑ the quantized coordinates of a network that was trained
    in a random subspace (``regularization=random_subspace``; Lotfi et al. 2022, arXiv 2211.13609), as
    ``compression_bound``:

        kl⁻¹( ê, (log(1/P(ẑ)) + log(1/δ)) / m ),

    kl⁻¹(q, c) the largest p with kl(q‖p) ≤ c and ê the error of the quantized network on the m train examples. This is
    the Occam bound (Blumer et al. 1987) with Chernoff's for each ẑ, for data drawn independently of each other, of w⁰
    and of P.

    k-means makes k values of the d coordinates, rounded to 16 bits. P(ẑ) = 2^(−bits) is a prior before the data, whose
    ``compression_bits`` an arithmetic code attains within two bits: log₂ ``tried`` and log₂ of the number of
    ``levels`` for the choice of d and k, 16k for the values, and the adaptive code of the symbols by Laplace's rule,
    log₂[(d + k − 1)! / ((k − 1)! Πᵢ nᵢ!)] with nᵢ symbols of kind i. Of ``levels`` the k with the least bound is taken,
    ``compression_levels``. ``compression_train_error`` is ê, ``compression_error`` the error of the quantized network
    on the snapshot's own data, and ``compression_error_low`` its exact lower confidence limit of level δ.

    Lotfi et al. also train the quantized network and use an upper bound of Catoni; their projection is another one.

    Args:
        snapshot: network, loss and data that were not trained on: those of a classifier.
        train: the same network on its train split.
        dimension: d; ``None`` for a network that was trained otherwise, which has no such bound.
        subspace_seed: of P.
        tried: numbers d among which the smallest bound may be chosen.
        levels: the k to try, each at least 2.
        delta: δ in (0, 1).

    Raises:
        ValueError: the weights do not lie in the subspace.
    """
    if dimension is not None:
        check_integer("dimension", dimension, least=1)
    check_integer("subspace_seed", subspace_seed, least=0)
    check_integer("tried", tried, least=1)
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
        raise ValueError(f"levels is {levels!r}; accepted: a list of numbers")
    for index, level in enumerate(levels):
        check_integer(f"levels[{index}]", level, least=2)
    check_share("delta", delta)
    parts = ("bound", "bits", "levels", "train_error", "error", "error_low")
    names = [f"compression_{part}" for part in parts]
    if dimension is None:
        return dict.fromkeys(names, undefined("the network was not trained in a random subspace"))
    m, n = answered(train), answered(snapshot)
    if isinstance(m, str) or isinstance(n, str):
        return dict.fromkeys(names, undefined(m if isinstance(m, str) else str(n)))
    reading = read(train)
    assert isinstance(reading, Reading)
    delta_w = moved(train)
    if delta_w is None:
        return dict.fromkeys(names, Estimate(None, note="no initial weights given, or of other names or shapes"))
    subspace = RandomSubspace.drawn(train.size, dimension, subspace_seed)
    z = subspace.coordinates(delta_w.cpu())
    outside = float((delta_w.cpu() - subspace.vector(z)).norm())
    if outside > _OUTSIDE * float(delta_w.norm()):
        raise ValueError(f"{outside / float(delta_w.norm()):.3g} of w − w⁰ lies outside of the subspace")
    origin = train.vector - delta_w
    found = []
    for level in levels:
        values, symbols = _quantized(z.numpy(), level)
        nats = math.log(tried * len(levels)) + _BITS * level * math.log(2) + symbol_nats(symbols, level)
        vector = origin + subspace.vector(torch.from_numpy(values[symbols])).to(origin)
        error = error_rate(train, vector)
        bound = kl_inverse(error, (nats + math.log(1 / delta)) / m)
        found.append((bound, nats, level, error, vector))
    bound, nats, level, error, vector = min(found, key=lambda each: each[0])
    unseen = error_rate(snapshot, vector)
    output, _ = train.predictions[0]
    values_of = [
        Estimate(bound, note=vacuity(bound, reading.logits(output).shape[1])),
        Estimate(nats / math.log(2)),
        Estimate(float(level)),
        Estimate(error),
        Estimate(unseen),
        Estimate(error_limit(round(unseen * n), n, delta)),
    ]
    return dict(zip(names, values_of, strict=True))


def symbol_nats(symbols: NDArray[np.int64], kinds: int) -> float:
    """The adaptive code length of symbols 0 … kinds − 1 by Laplace's rule, in nats.

    >>> round(math.exp(symbol_nats(np.array([0, 1, 0]), 2)))  # 2/1 · 3/1 · 4/2
    12
    """
    counts = np.bincount(symbols, minlength=kinds)
    return float(gammaln(len(symbols) + kinds) - gammaln(kinds) - gammaln(counts + 1).sum())


def _quantized(z: Array, level: int) -> tuple[Array, NDArray[np.int64]]:
    """The values of a codebook, as 16 bits hold them, and the symbol of each coordinate."""
    from scipy.cluster.vq import kmeans2

    start = np.quantile(z, (np.arange(level) + 0.5) / level)[:, None]
    with warnings.catch_warnings():  # an empty cluster keeps its value, which no coordinate then takes
        warnings.simplefilter("ignore", UserWarning)
        centers, _ = kmeans2(z[:, None], start, iter=50, minit="matrix", missing="warn")
    values = centers[:, 0].astype(np.float16).astype(np.float64)
    return values, np.abs(z[:, None] - values).argmin(1)
