"""How far the difficulty of examples is their own: the errors of the members of an ensemble, example by example."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from genbench.measures.base import measure
from genbench.measures.margins import check_percentiles
from genbench.measures.outputs import undefined
from genbench.measures.performance import labelled_members
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("performance", by_member=False)
def difficulty_dispersion(snapshot: Snapshot) -> Estimate:
    """The variance over examples of the number of members of an ensemble that err on them, over what it would be if
    each member erred on as many examples and each time on others: Σᵢ (kᵢ − k̄)² / Σᵢₘ (wᵢₘ − w̄ₘ)², with wᵢₘ = 1 where
    member m errs on example i and kᵢ = Σₘ wᵢₘ (after Arpit et al. 2017, arXiv 1706.05394, who show the
    errors of networks trained for an epoch beside a binomial).

    1 in the mean if members err independently; M of M members that err on the same examples. With the mean correlation
    ρ of members that err equally often it is 1 + (M − 1) ρ. The standard error is that over the examples, taken as a
    random sample, for these members.
    """
    wrong = _wrong(snapshot)
    if isinstance(wrong, str):
        return undefined(wrong)
    apart = wrong - wrong.mean(1, keepdim=True)
    together, alone = apart.sum(0).square(), apart.square().sum(0)
    total = float(alone.sum())
    if total == 0:
        return undefined("no member errs on some examples alone")
    ratio, n = float(together.sum()) / total, len(together)
    off = together - ratio * alone
    return Estimate(ratio, stderr=math.sqrt(float(off.square().sum()) * n / (n - 1)) / total if n > 1 else None)


@measure("performance", by_member=False, names=("difficulty_q*", "difficulty_binomial_q*"))
def difficulty_quantiles(
    snapshot: Snapshot, *, percentiles: Sequence[float] = (10, 25, 50, 75, 90)
) -> dict[str, Estimate]:
    """Percentiles over examples of the share of members of an ensemble that err on them, as ``difficulty_q10`` … , and
    of a binomial of as many members with the mean share, as ``difficulty_binomial_q10`` …: the curves that
    Arpit et al. 2017 (arXiv 1706.05394) draw. Between two examples the percentile is interpolated linearly.

    Args:
        snapshot: an ensemble, its loss and data.
        percentiles: at least one, each in [0, 100] and once.
    """
    from scipy.stats import binom

    check_percentiles(percentiles)
    kinds = ("difficulty", "difficulty_binomial")
    wrong = _wrong(snapshot)
    if isinstance(wrong, str):
        return {f"{kind}_q{q:g}": undefined(wrong) for kind in kinds for q in percentiles}
    places = [q / 100 for q in percentiles]
    own = wrong.mean(0).quantile(wrong.new_tensor(places)).tolist()
    chance = (binom.ppf(np.array(places), len(wrong), float(wrong.mean())).clip(min=0) / len(wrong)).tolist()
    return {
        f"{kind}_q{q:g}": Estimate(value)
        for kind, values in zip(kinds, (own, chance), strict=True)
        for q, value in zip(percentiles, values, strict=True)
    }


def _wrong(snapshot: Snapshot) -> Tensor | str:
    """1 where a member of the ensemble errs on an example, else 0, [M, n], float64; or why there is none."""
    if len(snapshot.members) < 2:
        return "one member" if snapshot.members else "the network has no members"
    known = labelled_members(snapshot)
    return known if isinstance(known, str) else (known[0].argmax(2) != known[1]).double()
