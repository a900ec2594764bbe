"""How far the difficulty of examples is their own: the errors of the members of an ensemble, example by example."""

import math

import torch

from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.performance import labelled
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
    if len(snapshot.members) < 2:
        return undefined("the network has no members" if not snapshot.members else "one member")
    wrong = []
    for member in snapshot.members:
        with member.measuring():
            known = labelled(member)
        if isinstance(known, str):
            return undefined(known)
        log_p, labels = known
        wrong.append((log_p.argmax(1) != labels).double())
    apart = torch.stack(wrong)  # [M, n]
    apart = apart - apart.mean(1, keepdim=True)
    together, alone = apart.sum(0).square(), apart.square().sum(0)
    total = float(alone.sum())
    if total == 0:
        return undefined("no member errs on some examples alone")
    ratio, n = float(together.sum()) / total, len(together)
    off = together - ratio * alone
    return Estimate(ratio, stderr=math.sqrt(float(off.square().sum()) * n / (n - 1)) / total if n > 1 else None)
