"""The claims of a paper over the looks at its seeds, and how many seeds would decide one."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from genbench.checks import check_number
from genbench.claims.p_values import at_least
from genbench.claims.rules.base import Rule
from genbench.claims.runs import ClaimRuns
from genbench.claims.verdict import FEWEST, UNDECIDED, Evidence, MeanTest, ShareTest, Verdict, final, judge, level

LOOKS = (8, 16, 32)
"""Seeds at the first, second and third look."""
MOST_SEEDS = 200
_SPREAD = 0.8  # level of the upper bound of the spread


def verdicts(
    rules: Mapping[str, Rule],
    runs: ClaimRuns,
    *,
    family: int,
    seeds: Sequence[int] | None = None,
    looks: Sequence[int] = LOOKS,
) -> list[Verdict]:
    """Return the verdicts on the claims of a paper, in their order.

    Look k is at the first ``looks[k - 1]`` seeds, and counts for a claim once none of its runs there is missing. So a
    verdict changes only at looks; a decided one is final. An exact claim is refuted by one violation at any time.

    Args:
        rules: id -> rule.
        runs: all of the experiment.
        family: the number of registered claims that are not exact.
        seeds: the registered seeds in their order; None: 0, 1, …
        looks: up to three numbers of seeds, ascending.

    Raises:
        ValueError: a rule names what no run has, or the looks are not as above.
    """
    looks = list(looks)
    ordered = list(range(max(looks, default=0)) if seeds is None else seeds)
    check_looks(looks, ordered)
    found: list[list[Verdict]] = []
    for look, count in enumerate(looks, 1):
        some = runs.of(ordered[:count])
        claims = []
        for name, rule in rules.items():
            without = rule.evidence(some)
            claims.append((name, without, rule.evidence(some, worst=True) if without.unknown else without))
        if look > 1 and all(evidence.missing and not evidence.violations for _, evidence, _ in claims):
            break
        found.append(judge(claims, family=family, look=look))
    return [_with_outlook(verdict, family, looks) for verdict in final(found, looks)]


def check_looks(looks: Sequence[int], seeds: Sequence[int]) -> None:
    """Refuse looks that are not one to three numbers of seeds, ascending, and seeds that are fewer or not different."""
    rising = all(later > earlier for earlier, later in zip([0, *looks], looks, strict=False))
    if not 1 <= len(looks) <= 3 or not rising:
        raise ValueError(f"looks is {looks!r}; accepted: one to three numbers of seeds, ascending")
    if len(set(seeds)) < len(seeds) or len(seeds) < looks[-1]:
        raise ValueError(f"seeds is {seeds!r}; accepted: {looks[-1]} different seeds, or null")


def _with_outlook(verdict: Verdict, family: int, looks: Sequence[int]) -> Verdict:
    """Say of an undecided claim at how many seeds the next look is, and how many would decide it."""
    if verdict.status != UNDECIDED or verdict.evidence.missing or verdict.evidence.exact:
        return verdict
    said = [f"next look at {looks[verdict.look]} seeds, if they are run"] if verdict.look < len(looks) else []
    with contextlib.suppress(ValueError):
        # the first step of Holm's correction
        n = seeds_needed(verdict.evidence, level=level(min(verdict.look + 1, len(looks))) / family)
        about = f"more than {MOST_SEEDS}" if n is None else f"about {n}"
        beyond = ", more than the last look has" if n is None or n > looks[-1] else ""
        if n is None or n > verdict.evidence.n:  # so many have not decided it
            said.append(f"{about} seeds would decide for or against it{beyond}")
    return replace(verdict, words="; ".join([verdict.words, *said]))


def seeds_needed(evidence: Evidence, *, level: float, power: float = 0.8) -> int | None:
    """Return how many seeds would decide a claim with probability ``power`` if its effect is the effect of interest;
    None: more than 200.

    For means: noncentral t, with the upper 80 % bound of the standard deviation, s · √((n - 1) / χ²₀.₂). Equivalence
    must be shown on both sides, with an effect of 0. For shares: binomial; without a share of interest, as if the
    condition held in every seed. Of several claims of which one is enough (``Any``), the one that needs most, at its
    share of the level, as each may be the one that holds. Unknown for ``Sooner``, as it would take the distribution of
    the times, and for correlations over groups, which more seeds do not add to.

    Args:
        evidence: of the claim so far.
        level: one-sided, after correction: for Holm's in a family of m, that of the look divided by m.
        power: of each of the tests that must decide.

    Raises:
        ValueError: the claim has no effect of interest or no such test, or no two seeds say how much seeds differ.
    """
    check_number("level", level, low=0, high=0.5, open_low=True)
    check_number("power", power, low=0, high=1, open_low=True, open_high=True)
    if not evidence.tests:
        raise ValueError("the number of seeds is known for tests of means and of shares; this claim has none")
    needed = [_needed(test, level / test.among, power) for test in evidence.tests]
    known = [n for n in needed if n is not None]
    return max(known) if len(known) == len(needed) else None


def _needed(test: MeanTest | ShareTest, level: float, power: float) -> int | None:
    if isinstance(test, ShareTest):
        return next((n for n in range(FEWEST, MOST_SEEDS + 1) if _share_power(test, n, level) >= power), None)
    if test.distance is None:
        raise ValueError("the claim has no effect of interest; accepted: a rule with interest, beyond its margin")
    if test.spread is None:
        raise ValueError(f"{test.n} seeds do not say how much seeds differ; accepted: at least two")
    from scipy.special import nctdtr, stdtrit

    if test.both_sides:
        power = 1 - (1 - power) / 2
    spread = _upper_spread(test.spread, test.n)
    for n in range(FEWEST, MOST_SEEDS + 1):
        if spread == 0:
            if 0.5**n <= level:
                return n
            continue
        shift = min(test.distance * math.sqrt(n) / spread, 100.0)  # beyond, the power is 1, and the series fails
        if 1 - float(nctdtr(n - 1, shift, float(stdtrit(n - 1, 1 - level)))) >= power:
            return n
    return None


def smallest_effect(spread: float, n: int, *, level: float, power: float = 0.8) -> float:
    """Return the smallest distance from the margin that a mean over ``n`` seeds shows with probability ``power``, by
    noncentral t as in :func:`seeds_needed`; ``spread`` is their standard deviation, ``level`` is one-sided.
    """
    from scipy.special import nctdtrinc, stdtrit

    shift = float(nctdtrinc(n - 1, 1 - power, float(stdtrit(n - 1, 1 - level))))
    return shift * _upper_spread(spread, n) / math.sqrt(n)


def _upper_spread(spread: float, n: int) -> float:
    """Return the upper 80 % bound of a standard deviation over ``n`` seeds."""
    from scipy.special import chdtri

    return spread * math.sqrt((n - 1) / float(chdtri(n - 1, _SPREAD)))


def _share_power(test: ShareTest, n: int, level: float) -> float:
    """Return the probability that ``n`` seeds show the share to be above the margin."""
    interest = 1.0 if test.interest is None else test.interest
    least = next((count for count in range(n + 1) if (at_least(count, n, test.margin) or 0.0) <= level), None)
    return 0.0 if least is None else at_least(least, n, interest) or 0.0
