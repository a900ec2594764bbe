"""Shares of seeds, and times to a level."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genbench.checks import check_choice, check_number
from genbench.claims.numbers import Numbers, gathered, reduced
from genbench.claims.p_values import at_least, at_most, log_rank_scores, sign_changes
from genbench.claims.rules.base import (
    check_apart,
    check_beyond,
    check_bounds,
    check_metric,
    check_other,
    check_where,
    interest_words,
    set_plain,
)
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import Evidence, ShareTest

_HOLDS = {">=": np.greater_equal, ">": np.greater, "<=": np.less_equal, "<": np.less}


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """The share of seeds in which a condition holds is above ``share``.

    With x of n seeds: exact binomial tests, P(X ≥ x) at ``share`` and P(X ≤ x) at ``interest`` (or ``share``).

    Args:
        metric: of the runs.
        of: their settings.
        op: ``>=``, ``>``, ``<=`` or ``<``.
        bound: the condition is metric op bound.
        share: in [0, 1).
        interest: the smallest share that matters, at most 1.
        bounds: the least and the largest number of the metric, for runs that diverged; without them, any.

    Source: Clopper & Pearson 1934, The use of confidence or fiducial limits.
    """

    metric: str
    of: Mapping[str, Any]
    op: str
    bound: float
    share: float
    interest: float | None = None
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        check_choice("op", self.op, tuple(_HOLDS))
        check_number("bound", self.bound)
        share = check_number("share", self.share, low=0, high=1, open_high=True)
        set_plain(
            self,
            of=check_where("of", self.of),
            interest=check_beyond(share, self.interest, high=1),
            bounds=check_bounds(self.bounds),
        )

    @property
    def words(self) -> str:
        condition = f"{self.metric} {self.op} {self.bound:g}"
        return (
            f"in more than {self.share:g} of the seeds of {named(self.of)}, {condition}{interest_words(self.interest)}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        sample = runs.sample(self.metric, self.of, bounds=self.bounds)
        absent, known = np.isnan(sample.low), sample.low == sample.high
        with np.errstate(invalid="ignore"):
            ends = np.stack([_HOLDS[self.op](end, self.bound) for end in (sample.low, sample.high)])
        low, high = ends.min(0).astype(float), ends.max(0).astype(float)
        unsure = ~absent & ~known & (low == high)  # the bounds of the metric say that it holds, or that it does not
        low, high = np.where(absent, np.nan, low), np.where(absent, np.nan, high)
        numbers = reduced([sample], low, high)
        if not worst and unsure.any():  # without its number the seed is left out, even so
            numbers = replace(numbers, low=np.where(unsure, 0.0, low), high=np.where(unsure, 1.0, high))
        return share_evidence(numbers, share=self.share, interest=self.interest, worst=worst)


@dataclass(frozen=True, kw_only=True)
class Sooner:
    """Some runs reach a level sooner than others, by more than a ratio.

    The metric is the number of steps to the level, null if the level is never reached. The time of the ``of`` run of a
    seed, multiplied by ``ratio``, is compared with that of its ``than`` run: log-rank scores over all runs, and the
    exact test of their differences over all swaps within the pairs of a seed. Times beyond ``steps`` (or beyond ratio ·
    steps, if that is less) were not seen in both and count as never. A pair of which both never reach the level says
    nothing. Not replicated by the same test of "later", at ``interest``. A run that diverged counts as never.

    Args:
        metric: steps to the level, positive.
        of: settings of the runs that are sooner.
        than: settings of the others.
        steps: the steps that every run was trained for, at most their ``trainer.max_steps``.
        ratio: of the times, than to of, to exceed.
        interest: the smallest ratio that matters.

    Source: Mantel 1966, Evaluation of survival data; Peto & Peto 1972, Asymptotically efficient rank invariant tests.
    """

    metric: str
    of: Mapping[str, Any]
    than: Mapping[str, Any]
    steps: float
    ratio: float = 1.0
    interest: float | None = None

    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        check_number("steps", self.steps, low=0, open_low=True)
        ratio = check_number("ratio", self.ratio, low=0, open_low=True)
        check_other("than", self.than, self.of)
        set_plain(
            self,
            of=check_where("of", self.of),
            than=check_where("than", self.than),
            interest=check_beyond(ratio, self.interest),
        )

    @property
    def words(self) -> str:
        return (
            f"{self.metric} of {named(self.than)} exceeds that of {named(self.of)} by more than a factor of "
            f"{self.ratio:g}{interest_words(self.interest)}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        of, than = (
            runs.sample(self.metric, where, bounds=(0, math.inf), null=math.inf) for where in (self.of, self.than)
        )
        check_apart(runs, [of, than], [self.of, self.than])
        if of.runs is not None and not self.metric.startswith("seconds."):
            steps = [*runs.settings("trainer.max_steps", of), *runs.settings("trainer.max_steps", than)]
            if (least := min((each for each in steps if each is not None), default=self.steps)) < self.steps:
                raise ValueError(
                    f"steps is {self.steps!r}, while a run is trained for {least}; accepted: at most {least}"
                )
        present = ~np.isnan(of.low) & ~np.isnan(than.low)
        if not worst:
            present &= (of.low == of.high) & (than.low == than.high)
        ours, theirs = of.high[present], than.high[present]
        scores, told = self._scores(ours, theirs, self.ratio)
        short, short_told = (scores, told) if self.interest is None else self._scores(ours, theirs, self.interest)
        sooner, later = int((scores > 0).sum()), int((scores < 0).sum())
        return Evidence(
            supports=sign_changes(scores) if told else None,
            contradicts=sign_changes(-short) if short_told else None,
            statistic=sooner / (sooner + later) if sooner + later else None,
            n=max(told, short_told),  # fewer than five pairs cannot reach any level by this test
            words=(
                f"beyond the factor of {self.ratio:g} in {sooner} seeds, short of it in {later}, "
                f"neither in {len(scores) - sooner - later}"
            ),
            interest=self.interest is not None,
            **gathered((of, than)),
        )

    def _scores(self, ours: np.ndarray, theirs: np.ndarray, ratio: float) -> tuple[np.ndarray, int]:
        """Return the differences of the log-rank scores, positive where ours come sooner, and the number of pairs of
        which one at least reaches the level."""
        end = min(self.steps, ratio * self.steps)
        times = np.round(np.concatenate([ratio * ours, theirs]) / end, 12)  # equal but for rounding: equal
        reached = times <= 1
        scores = log_rank_scores(np.where(reached, times, np.inf), reached)
        n = len(ours)
        return scores[:n] - scores[n:], int((reached[:n] | reached[n:]).sum())


def share_evidence(numbers: Numbers, *, share: float, interest: float | None, worst: bool) -> Evidence:
    """Return the evidence for "the share of seeds whose number is 1 is above ``share``"; the others are 0."""
    low, high = numbers.ends(worst)
    known, _ = numbers.ends(False)
    n, held, short = len(low), int(known.sum()), share if interest is None else interest
    return Evidence(
        supports=at_least(int(low.sum()), n, share),
        contradicts=at_most(int(high.sum()), n, short),
        statistic=held / len(known) if len(known) else None,
        interval=_clopper_pearson(held, len(known)),
        n=n,
        words=f"in {held} of {len(known)} seeds",
        interest=interest is not None,
        missing=numbers.missing,
        unknown=numbers.unknown,
        tests=(ShareTest(share, interest),),
    )


def _clopper_pearson(count: int, n: int) -> tuple[float, float] | None:
    """Return the exact 95 % interval of a probability."""
    from scipy.special import betaincinv

    if n == 0:
        return None
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, 0.025))
    return low, 1.0 if count == n else float(betaincinv(count + 1, n - count, 0.975))
