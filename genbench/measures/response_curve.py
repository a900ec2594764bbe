"""How fast the accuracy falls as inputs are perturbed more and more."""

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.measures.augmented import augmented_snapshot, without_augmentations
from genbench.measures.base import measure
from genbench.measures.mixup import mixtures
from genbench.measures.outputs import undefined
from genbench.measures.pairs import error_of_mean, pairs_between, pairs_within
from genbench.measures.performance import class_labels, labelled
from genbench.measures.perturbations import generator_of
from genbench.measures.sampling import some
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

PERTURBATIONS = ("within", "between", "augmentation")
_NAMES = tuple(f"{score}_{name}" for name in PERTURBATIONS for score in ("gi_score", "pal_score"))


@measure("robustness", by_member=False, names=_NAMES)
def perturbation_response(
    snapshot: Snapshot,
    *,
    points: int = 11,
    examples: int = 1000,
    top: float = 0.6,
    bottom: float = 0.1,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Scores of perturbation–response curves (Schiff et al. 2021, arXiv 2106.04765): A(s) is the accuracy on examples
    that are perturbed with strength s in [0, 1], P(s) = ∫₀ˢ A(t) dt, which an ideal network makes the line P₀(s) = s.

    - ``gi_score_<perturbation>``: the area between the two curves over that under P₀, 1 − 2 ∫₀¹ P(s) ds, as the Gini
      coefficient is of a Lorenz curve: 0 for an accuracy of 1 at every strength, 1 for an accuracy of 0;
    - ``pal_score_<perturbation>``: ∫ P over the last ``top`` of the strengths over ∫ P over the first ``bottom``, after
      the Palma ratio of incomes: (1 − (1 − top)²) / bottom², 84 by default, for an accuracy that no strength changes,
      and less for one that falls.

    The perturbations:

    - ``within``: (1 − s/2) · x + s/2 · x′ of each example x with another x′ of the same class, drawn at random and the
      same at every s, and the label of x;
    - ``between``: the same with x′ of another class;
    - ``augmentation``: the augmentations of training at s times their settings (see :mod:`genbench.measures.augmented`)
      with the same random numbers at every s.

    A is taken at ``points`` strengths and linear in between. Standard errors are those over the examples as a random
    sample, of the Pal-score to first order. No code of the authors was found: the area of the Gi-score follows the
    caption of their figure, the shares of the Pal-score are not confirmed, and scores of other shares are others.
    Undefined where an example has not one class, of mixtures where it is no tensor of real numbers, and of
    augmentations for data that have none.

    Args:
        snapshot: a classifier.
        points: strengths, evenly spaced from 0 to 1, at least 3.
        examples: at most so many, evenly spaced over the data, at least 2.
        top: share of the strengths, from the largest down, (0, 1].
        bottom: share of the strengths, from 0 up, (0, 1].
        seed: of the pairs and of the augmentations, at least 0.
    """
    check_integer("points", points, least=3)
    check_integer("examples", examples, least=2)
    for name, share in (("top", top), ("bottom", bottom)):
        check_number(name, share, low=0, high=1, open_low=True)
    generator = generator_of(seed, "perturbation_response")
    labels = class_labels(snapshot)
    if labels is None or len(labels) != snapshot.examples:
        return dict.fromkeys(_NAMES, undefined("the targets are not one class an example"))
    rows = some(snapshot.examples, examples)
    few, labels = snapshot.subsets([rows])[0], labels.cpu()[rows]
    strengths = [k / (points - 1) for k in range(points)]
    groups = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    pairs = {
        "within": torch.cat([pairs_within(each, len(each), generator) for each in groups]),
        "between": pairs_between(labels, generator),
    }
    results: dict[str, Estimate] = {}
    for perturbation in PERTURBATIONS:
        own = pairs.get(perturbation)
        curve = _augmented(few, strengths, seed) if own is None else _mixed(few, strengths, own)
        names = (f"gi_score_{perturbation}", f"pal_score_{perturbation}")
        if isinstance(curve, Estimate):
            results |= dict.fromkeys(names, curve)
            continue
        alone = torch.arange(curve.shape[1])[:, None] if own is None else own
        results |= dict(zip(names, scores(curve, alone, top=top, bottom=bottom), strict=True))
    return results


def scores(right: Tensor, pairs: Tensor, *, top: float, bottom: float) -> tuple[Estimate, Estimate]:
    """Gi-score and Pal-score of answers that are right or wrong [points, n], at strengths evenly spaced from 0 to 1,
    with their standard errors over n values, of which those whose ``pairs`` [n, ·] share an example depend on each
    other."""
    whole, low, high = (_areas(len(right), end) @ right.double() for end in (1.0, bottom, 1 - top))
    gi = 1 - 2 * whole
    last = whole - high
    first = Estimate(float(gi.mean()), stderr=error_of_mean(gi, pairs))
    if not low.any():
        return first, undefined("no answer is right at the smallest strengths")
    ratio = float(last.mean() / low.mean())
    return first, Estimate(ratio, stderr=error_of_mean((last - ratio * low) / low.mean(), pairs))


def _areas(points: int, end: float) -> Tensor:
    """Weights [points] with which values A of a curve at evenly spaced strengths, linear in between, give
    ∫₀ᵉⁿᵈ P(s) ds = ∫₀ᵉⁿᵈ (end − t) A(t) dt."""
    grid = np.linspace(0, 1, points)
    knots = np.unique(np.clip(np.append(grid, end), 0, end))
    middles = (knots[1:] + knots[:-1]) / 2
    weights = np.zeros(points)
    for i, unit in enumerate(np.eye(points)):
        ends, inside = ((end - at) * np.interp(at, grid, unit) for at in (knots, middles))
        weights[i] = (np.diff(knots) * (ends[1:] + ends[:-1] + 4 * inside) / 6).sum()  # Simpson's rule, exact here
    return torch.from_numpy(weights)


def _mixed(snapshot: Snapshot, strengths: list[float], pairs: Tensor) -> Tensor | Estimate:
    """Whether the answers to mixtures are right [strengths, n], float64."""
    if not len(pairs):
        return undefined("no example has a partner")
    found = []
    for strength in strengths:
        view = mixtures(snapshot, pairs, strength / 2)
        known = view if isinstance(view, str) else labelled(view)
        if isinstance(known, str):
            return undefined(known)
        found.append((known[0].argmax(1) == known[1]).double().cpu())
    return _whole(found, len(pairs))


def _augmented(snapshot: Snapshot, strengths: list[float], seed: int) -> Tensor | Estimate:
    """The same of augmented examples."""
    if (reason := without_augmentations(snapshot)) is not None:
        return undefined(reason)
    found = []
    for strength in strengths:
        known = labelled(augmented_snapshot(snapshot, 0, strength=strength, seed=seed))
        if isinstance(known, str):
            return undefined(known)
        found.append((known[0].argmax(1) == known[1]).double().cpu())
    return _whole(found, snapshot.examples)


def _whole(found: list[Tensor], n: int) -> Tensor | Estimate:
    if len(found[0]) != n:
        return undefined("the loss ignores some of the labels")
    return torch.stack(found)
