"""Coherence and stiffness: whether the gradients of different examples point the same way."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.gram import gram
from genbench.measures.optimization import gradients, gradients_by_place
from genbench.measures.outputs import undefined
from genbench.measures.performance import class_labels
from genbench.measures.precision import in_double
from genbench.measures.sampling import few
from genbench.measures.snapshot import Snapshot
from genbench.process.memory import room
from genbench.records.estimate import Estimate

_SHARE = 0.25  # of the free memory, for the sums of the classes
_PAIRS = ("", "_within", "_between")
_ZERO = "every gradient is zero"
_NO_CLASSES = "the targets are not one class an example"
_ONE_CLASS = "all examples are of one class"


@measure("optimization", names=("coherence", "m_coherence", "coherence_within", "coherence_between"))
def gradient_coherence(snapshot: Snapshot) -> dict[str, Estimate]:
    """What an example gains from a step along another's gradient, relative to one along its own (Chatterjee & Zielinski
    2022, arXiv 2203.10036), over the m examples.

    - ``coherence``: α = E⟨g, g′⟩ / E‖g‖₂² over all pairs, each example with itself included, in [0, 1].
    - ``m_coherence``: mα, the number of examples that gain from a step for one: m for equal gradients, 1 for orthogonal
      ones, less where they oppose each other, 0 at a stationary point; m / (1 + the :func:`gradient_noise_scale`).
    - ``coherence_within`` and ``coherence_between``: E⟨g, g′⟩ over the pairs of one class, self-pairs included, and of
      two classes, over the same E‖g‖². Weighted by their numbers of pairs they add up to α.

    Self-pairs add 1/m to α, and more to the coherence within classes: compare at equal m. Standard errors take the
    examples as a sample, within and between classes one with these numbers of each, to first order; at a minimum of the
    loss of these very examples, which are then no sample for the weights, they are too small. Two passes over the
    examples' gradients, of which only the sum of each class is kept.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    names = ("coherence", "m_coherence", "coherence_within", "coherence_between")
    labels, m = class_labels(snapshot), snapshot.examples
    reason = _NO_CLASSES if labels is None or len(labels) != m else None
    if labels is not None and 8 * labels.unique().numel() * snapshot.size > _SHARE * room(snapshot.device):
        reason = "the sums of the classes' gradients do not fit in memory"
    if labels is None or reason:
        labels = torch.zeros(m, dtype=torch.long, device=snapshot.device)
    _, classes = labels.unique(return_inverse=True)
    sums = torch.zeros(int(classes.max()) + 1, snapshot.size, dtype=torch.float64, device=snapshot.device)
    for rows, g in gradients_by_place(snapshot):
        sums.index_add_(0, classes[rows], g)
    total = sums.sum(0)
    square, along, inside = (torch.zeros(m, dtype=torch.float64, device=snapshot.device) for _ in range(3))
    for rows, g in gradients_by_place(snapshot):
        square[rows] = g.square().sum(1)
        along[rows] = g @ total
        inside[rows] = (g * sums[classes[rows]]).sum(1)
    power = float(square.sum()) / m
    if not power:
        return dict.fromkeys(names, undefined(_ZERO))

    def coherence(products: Tensor, pairs: float, strata: Tensor) -> Estimate:
        """Of each example's gradient, products [m] with the sum of those that it is paired with."""
        value = float(products.sum()) / pairs / power
        influence = 2 * products / pairs / power - value * square / (m * power)
        return Estimate(value, stderr=_error((influence, strata)))

    alpha = coherence(along, m**2, torch.zeros_like(classes))
    assert alpha.value is not None
    found = {
        "coherence": alpha,
        "m_coherence": Estimate(m * alpha.value, stderr=None if alpha.stderr is None else m * alpha.stderr),
    }
    if reason:
        return found | dict.fromkeys(names[2:], undefined(reason))
    own = float(classes.bincount().square().sum())
    apart = coherence(along - inside, m**2 - own, classes) if own < m**2 else undefined(_ONE_CLASS)
    return found | {"coherence_within": coherence(inside, own, classes), "coherence_between": apart}


@measure("optimization")
def train_coherence(snapshot: Snapshot, train: Snapshot) -> Estimate:
    """E⟨g, g′⟩ / √(E‖g‖² E‖g′‖²) of the gradients g of the data and g′ of the train split, in [−1, 1]: what an example
    gains from a step for one of the train split, as :func:`gradient_coherence`.

    Where the data are not the train split itself, no example is its own pair, and independent gradients give 0. The
    standard error takes both as samples, to first order. Two passes over the examples' gradients of each.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    means = [gradients(each).mean for each in (snapshot, train)]
    squares, along = [], []
    for each, mean in zip((snapshot, train), reversed(means), strict=True):
        parts = [(g.square().sum(1), g @ mean) for _, g in gradients_by_place(each)]
        squares.append(torch.cat([square for square, _ in parts]))
        along.append(torch.cat([product for _, product in parts]))
    powers = [float(square.mean()) for square in squares]
    if not all(powers):
        return undefined(_ZERO)
    scale = math.sqrt(powers[0] * powers[1])
    value = float(means[0] @ means[1]) / scale
    influences = [
        (product / scale - value * square / (2 * power)) / len(square)
        for product, square, power in zip(along, squares, powers, strict=True)
    ]
    return Estimate(value, stderr=_error(*((each, torch.zeros_like(each)) for each in influences)))


@measure("optimization", names=tuple(f"stiffness_{kind}{pairs}" for kind in ("cosine", "sign") for pairs in _PAIRS))
def stiffness(snapshot: Snapshot, *, examples: int = 500) -> dict[str, Estimate]:
    """The mean cosine between the gradients of two different examples, ``stiffness_cosine``, and the mean sign of their
    product, ``stiffness_sign``, in [−1, 1] (Fort et al. 2019, arXiv 1901.09491): whether a small step for one example
    lowers the loss of another.

    ``…_within`` is the mean over the classes of that over the pairs of one class, ``…_between`` the mean over the pairs
    of two classes: classes weigh equally. Standard errors take the examples as a sample, within and between classes one
    with these numbers of each, to first order. Gradients are computed in float64 where the network allows, as those of
    well fitted examples are small differences; those that are zero are left out, and a note counts them.

    Args:
        snapshot: network, loss and data.
        examples: at most so many, evenly spaced over the data, at least 2; products cost their square.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    check_integer("examples", examples, least=2)
    return _stiffness("stiffness", [in_double(few(snapshot, examples))])


@measure(
    "optimization", names=tuple(f"train_stiffness_{kind}{pairs}" for kind in ("cosine", "sign") for pairs in _PAIRS)
)
def train_stiffness(snapshot: Snapshot, train: Snapshot, *, examples: int = 500) -> dict[str, Estimate]:
    """As :func:`stiffness`, of an example of the data and one of the train split, as ``train_stiffness_cosine``,
    ``train_stiffness_sign`` and, of both, ``…_within`` and ``…_between``: whether a step for the train split helps the
    data. Where the data are the train split itself, self-pairs are among the pairs.

    Args:
        snapshot: network, loss and data.
        train: the train split.
        examples: at most so many of each, evenly spaced, at least 2.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    check_integer("examples", examples, least=2)
    return _stiffness("train_stiffness", [in_double(few(each, examples)) for each in (snapshot, train)])


def _stiffness(name: str, parts: list[Snapshot]) -> dict[str, Estimate]:
    """Over the pairs of different examples of one part, or of one example of each of two."""
    sources = [(part.examples, part.example_gradients) for part in parts]
    products = gram(sources, size=parts[0].size, device=parts[0].device)
    norms = products.diagonal().sqrt()
    kept = norms > 0
    cosines = products[kept][:, kept] / norms[kept] / norms[kept, None]
    labels = [class_labels(part) for part in parts]
    known = [each for each, part in zip(labels, parts, strict=True) if each is not None and len(each) == part.examples]
    classes = torch.cat(known)[kept] if len(known) == len(parts) else None
    sizes = [int(some.sum()) for some in kept.split([part.examples for part in parts])]
    note = None if kept.all() else f"without {len(kept) - sum(sizes)} examples whose gradient is zero"
    found = {}
    for kind, h in (("cosine", cosines), ("sign", cosines.sign())):
        for pairs in _PAIRS:
            estimate = undefined(_NO_CLASSES) if pairs and classes is None else _over_pairs(h, sizes, classes, pairs)
            found[f"{name}_{kind}{pairs}"] = Estimate(
                estimate.value, stderr=estimate.stderr, note="; ".join(filter(None, (estimate.note, note))) or None
            )
    return found


def _over_pairs(h: Tensor, sizes: list[int], classes: Tensor | None, pairs: str) -> Estimate:
    """The mean of h [N, N] over the pairs of different examples, or over those of one example of each of two parts,
    whose ``sizes`` add up to N; of those within or between ``classes``, which weigh equally."""
    if not len(h):
        return undefined(_ZERO)
    n = sizes[0]
    allowed = torch.zeros_like(h)
    if len(sizes) == 1:
        allowed += 1 - torch.eye(n, dtype=h.dtype, device=h.device)
    else:
        allowed[:n, n:] = 1
    strata = torch.zeros(len(h), dtype=torch.long, device=h.device) if classes is None or not pairs else classes
    _, strata = strata.unique(return_inverse=True)
    of = F.one_hot(strata).to(h)
    number = of.T @ allowed @ of  # of pairs, of each two classes
    same = torch.eye(len(number), dtype=torch.bool, device=h.device)
    chosen = (number > 0) & (~same if pairs == "_between" else same)
    if not chosen.any():
        missing = {"": "there are fewer than two examples", "_between": _ONE_CLASS}
        return undefined(missing.get(pairs, "no class has two examples"))
    weights = allowed * (of @ (chosen / number.clamp_min(1) / chosen.sum()) @ of.T)
    terms = weights * h
    influence = terms.sum(0) + terms.sum(1)
    part = (torch.arange(len(h), device=h.device) >= n).long() * len(number)
    return Estimate(float(terms.sum()), stderr=_error((influence, strata + part)))


def _error(*influences: tuple[Tensor, Tensor]) -> float | None:
    """The standard error of a sum of independent terms [N], which are alike within each stratum [N]; None if a stratum
    has a single one, which is not zero."""
    variance = 0.0
    for terms, strata in influences:
        for stratum in strata.unique():
            own = terms[strata == stratum]
            if len(own) > 1:
                variance += len(own) * float(own.var())
            elif own.any():
                return None
    return math.sqrt(variance)
