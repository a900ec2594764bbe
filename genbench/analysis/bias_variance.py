"""Bias and variance: how much of the risk all networks of a configuration share, and how much changes with the seed and
the training subset."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.checks import check_choice
from genbench.records.estimate import Estimate

_LOSSES = ("squared", "cross_entropy")
_NORMED = 1e-2  # by which probabilities in half precision may fail to sum to 1
_BLOCKS = 100  # at most so many are left out in turn
_NAMES = ("risk", "bias2", "variance", "variance_subsets", "variance_seeds")
Array = np.ndarray


def bias_variance(
    predictions: Any, targets: Any, *, loss: str = "squared", subsets: Sequence[Hashable] | None = None
) -> dict[str, Estimate]:
    """The decomposition risk = bias² + variance over runs that differ in their seed and in the subset they were trained
    on, mean over the examples of one test set (Yang et al. 2020, arXiv 2002.11328).

    - ``squared``: the loss ‖p − t‖², summed over the outputs, and the centre of predictions p their mean p̄: bias² is
      ‖E p − t‖², variance E‖p − E p‖² (Geman et al. 1992, Neural Comput. 4, 1);
    - ``cross_entropy``: −log p(label), and the centre the normalized geometric mean p̄ ∝ exp(E log p): bias² is
      −log p̄(label), variance E KL(p̄‖p) (Heskes 1998, Neural Comput. 10, 1425).

    Targets are what is there: the noise of labels is part of the bias². With M runs the variance around their centre is
    multiplied by M / (M − 1) and the bias² is the risk less the variance, as in the authors' code
    (yaodongyu/Rethink-BiasVariance-Tradeoff) for the squared loss, of which both are unbiased then; of the
    cross-entropy, to first order in 1/M.

    With ``subsets``, the variance is that of a run of a random subset and a random seed, in two parts that add up to
    it: ``variance_seeds``, the mean of the variance within a subset, and ``variance_subsets``, the variance of the
    centres of the subsets less what their seeds add to it, ``variance_seeds`` times the mean of one over the runs of a
    subset (Neal et al. 2018, arXiv 1810.08591); subsets weigh equally, also in the risk. Subsets that overlap, drawn
    from one set of examples, vary less than independent ones: n of N examples, by about 1 − n/N. Without ``subsets``
    each run is taken as independent of the others.

    Standard errors are those of a jackknife that leaves out one subset (without subsets, one run) at a time, of more
    than 100 a hundredth of them, and of the mean over the examples as a random sample, added in squares; ``None`` of
    fewer than three. A part that needs more runs is ``None`` with the reason.

    Args:
        predictions: [runs, examples] or [runs, examples, outputs]: probabilities or outputs of a regression, of
            ``cross_entropy`` log-probabilities. :func:`genbench.runs.predictions.predictions` gives those of a folder.
        targets: [examples], or [examples, outputs] of a regression; integers are classes.
        loss: ``squared`` or ``cross_entropy``.
        subsets: of each run, what names the subset that it was trained on; ``None`` if all runs had their own.

    Returns:
        ``risk``, ``bias2`` and ``variance``, with subsets also ``variance_subsets`` and ``variance_seeds``; in the unit
        of the loss, nats for the cross-entropy.

    Raises:
        ValueError: arrays that do not fit together or are no real numbers, predictions that are no log-probabilities
            where these are needed, or one run.
    """
    check_choice("loss", loss, _LOSSES)
    p, t = _arrays(predictions, targets, loss)
    if subsets is not None and len(subsets) != len(p):
        raise ValueError(f"subsets has {len(subsets)} entries; accepted: one for each of {len(p)} runs")
    if strange := [name for name in subsets or () if not isinstance(name, Hashable)]:
        raise ValueError(f"subsets has {strange[0]!r}; accepted: numbers or texts")
    if len(p) < 2:
        raise ValueError(f"predictions are of {len(p)} runs; accepted: at least 2")
    names = _NAMES if subsets is not None else _NAMES[:3]
    if np.isnan(p).any() or (p == np.inf).any() or (loss == "squared" and not np.isfinite(p).all()):
        return dict.fromkeys(names, Estimate(None, note="undefined: a prediction is not finite"))
    if not np.isfinite(t).all():
        return dict.fromkeys(names, Estimate(None, note="undefined: a target is not finite"))
    if loss == "cross_entropy":
        if np.isinf(p).any():
            return dict.fromkeys(names, Estimate(None, note="undefined: a run gives a class the probability 0"))
        sums = np.exp(np.logaddexp.reduce(p, axis=-1))
        worst = float(sums.flat[np.abs(sums - 1).argmax()])
        if abs(worst - 1) > _NORMED:
            raise ValueError(f"exponentials of predictions sum to {worst:.4g}; accepted: 1, as log-probabilities do")
    kind = _SQUARED if loss == "squared" else _CROSS_ENTROPY
    places: dict[Hashable, list[int]] = {}
    for index, name in enumerate(range(len(p)) if subsets is None else subsets):
        places.setdefault(name, []).append(index)
    groups = [np.array(each) for each in places.values()]
    units = groups if len(groups) > 1 else [np.array([i]) for i in groups[0]]
    whole = _parts(p, t, groups, kind)
    blocks = [np.concatenate(units[i::_BLOCKS]) for i in range(min(_BLOCKS, len(units)))]
    others = [_parts(p, t, _without(groups, block), kind) for block in blocks] if len(units) > 2 else []
    results = {name: _estimate(whole[name], [each[name] for each in others], len(units)) for name in names}
    if len(groups) == 1:
        note = "of one subset: variance over the seeds alone"
        for name in ("bias2", "variance"):
            each = results[name]
            results[name] = Estimate(each.value, stderr=each.stderr, note="; ".join(filter(None, (each.note, note))))
    return results


@dataclass(frozen=True)
class _Loss:
    """A loss, the centre of predictions, and the divergence of a prediction from a centre; each by example."""

    loss: Callable[[Array, Array], Array]  # (p [..., N, K], t [N, K]) -> [..., N]
    centre: Callable[[Array], Array]  # p [M, N, K] -> [N, K]
    divergence: Callable[[Array, Array], Array]  # (centre [N, K], p [..., N, K]) -> [..., N]


def _geometric(log_p: Array) -> Array:
    mean = log_p.mean(0)
    return mean - np.logaddexp.reduce(mean, axis=-1, keepdims=True)


_SQUARED = _Loss(
    lambda p, t: ((p - t) ** 2).sum(-1), lambda p: p.mean(0), lambda centre, p: ((p - centre) ** 2).sum(-1)
)
_CROSS_ENTROPY = _Loss(
    lambda p, t: -(p * t).sum(-1), _geometric, lambda centre, p: (np.exp(centre) * (centre - p)).sum(-1)
)


def _parts(p: Array, t: Array, groups: Sequence[Array], kind: _Loss) -> dict[str, Array | None]:
    """The parts of the risk by example [N]; None where there are too few runs."""
    if all(len(own) == 1 for own in groups):  # the same at once
        centres = p[np.concatenate(groups)]
        risk = kind.loss(centres, t).mean(0)
    else:
        centres = np.stack([kind.centre(p[own]) for own in groups])
        risk = np.mean([kind.loss(p[own], t).mean(0) for own in groups], axis=0)
    several = [(own, centre) for own, centre in zip(groups, centres, strict=True) if len(own) > 1]
    seeds, between, variance = None, None, None
    if several:
        within = [kind.divergence(c, p[own]).mean(0) * len(own) / (len(own) - 1) for own, c in several]
        seeds = variance = np.mean(within, axis=0)
    if (g := len(groups)) > 1:
        spread = kind.divergence(kind.centre(centres), centres).mean(0) * g / (g - 1)
        if seeds is None:  # of one run a subset, both parts at once
            variance = spread
        else:
            between = spread - seeds * np.mean([1 / len(own) for own in groups])
            variance = seeds + between
    bias = None if variance is None else risk - variance
    return {"risk": risk, "bias2": bias, "variance": variance, "variance_subsets": between, "variance_seeds": seeds}


def _estimate(value: Array | None, others: Sequence[Array | None], units: int) -> Estimate:
    """The mean over the examples; ``others`` are the same without one subset or run."""
    if value is None:
        return Estimate(None, note="undefined: it needs several subsets, and several runs of a subset")
    n, means = len(value), [float(each.mean()) for each in others if each is not None]
    if n < 2 or len(means) < 3:
        return Estimate(float(value.mean()), note=f"of {units} runs or subsets, too few for a standard error")
    examples = float(value.var(ddof=1)) / n
    runs = (len(means) - 1) / len(means) * float(((np.array(means) - np.mean(means)) ** 2).sum())
    return Estimate(float(value.mean()), stderr=math.sqrt(examples + runs))


def _without(groups: Sequence[Array], unit: Array) -> list[Array]:
    left = [np.setdiff1d(own, unit) for own in groups]
    return [own for own in left if len(own)]


def _numbers(name: str, values: Any) -> Array:
    try:
        found = np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name} are no array; accepted: rows of equal length") from error
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{name} are of type {found.dtype}; accepted: real numbers")
    return found


def _arrays(predictions: Any, targets: Any, loss: str) -> tuple[Array, Array]:
    """Predictions [M, N, K] and targets [N, K], float64."""
    p, t = _numbers("predictions", predictions), _numbers("targets", targets)
    shapes = f"predictions have shape {p.shape}, targets {t.dtype} {t.shape}"
    labels = np.issubdtype(t.dtype, np.integer) and t.ndim == 1 and p.ndim == 3
    if p.ndim == 2 and loss == "squared":
        p, t = p[..., None], t[..., None]
    if p.ndim != 3 or p.shape[1] != len(t) or not p.size or (loss == "cross_entropy" and not labels):
        accepted = "[runs, examples, classes] and integer [examples]"
        if loss == "squared":
            accepted += ", [runs, examples, outputs] and [examples, outputs], or [runs, examples] and [examples]"
        raise ValueError(f"{shapes}; accepted: {accepted}")
    if labels:
        if t.min() < 0 or t.max() >= p.shape[2]:
            raise ValueError(f"labels lie in [{t.min()}, {t.max()}]; accepted: 0 to {p.shape[2] - 1}")
        t = np.eye(p.shape[2])[t]
    if t.shape != p.shape[1:]:
        raise ValueError(f"targets have shape {t.shape}; accepted: {p.shape[1:]}, as the predictions of a run")
    return p.astype(np.float64), t.astype(np.float64)
