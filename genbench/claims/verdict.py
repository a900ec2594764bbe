"""Verdicts: what the evidence for each claim of a paper says, after correction for their number and for the looks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from genbench.analysis.statistics import holm

ALPHA = 0.05
FEWEST = 5
"""Fewer seeds decide nothing."""
SEED = "seed"
REPLICATED = "replicated"
NOT_REPLICATED = "not replicated"
UNDECIDED = "undecided"
HOLDS = "holds"
VIOLATED = "violated"
SETTINGS_CHANGED = "settings changed"
"""By the command: a claim is about its experiment as the file states it."""


@dataclass(frozen=True)
class MeanTest:
    """A t test of a mean over seeds.

    Args:
        distance: from the margin to the effect of interest; None without one.
        spread: standard deviation over the ``n`` seeds; None of fewer than two.
        n: seeds.
        both_sides: it must be decided on both sides (equivalence).
        among: the tests of which one is enough: the level is divided by their number.
    """

    distance: float | None
    spread: float | None
    n: int
    both_sides: bool = False
    among: int = 1


@dataclass(frozen=True)
class ShareTest:
    """A binomial test of a share of seeds against ``margin``, where ``interest`` matters; None without one. For
    ``among`` see :class:`MeanTest`."""

    margin: float
    interest: float | None
    among: int = 1


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the runs of some seeds say about a claim.

    Args:
        supports: one-sided p of H0 "the effect is at most the margin"; None: undefined.
        contradicts: one-sided p of H0 "the effect is at least the effect of interest" (without one, "the margin").
        statistic: the measured effect.
        interval: its 95 % interval.
        n: the units that it is computed from.
        words: the finding, in words.
        missing: the missing runs, in words.
        unknown: the runs without a number (diverged, or the metric is null), in words.
        interest: whether the claim has an effect of interest.
        exact: the claim is no statement about chance, and has no p: it fails by one of its ``violations``.
        tests: the tests that must all decide for the claim to be decided.
        unit: what ``n`` counts: seeds, or within any number of seeds groups or configurations.
    """

    supports: float | None
    contradicts: float | None
    statistic: float | None = None
    interval: tuple[float, float] | None = None
    n: int
    words: str
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    interest: bool = False
    exact: bool = False
    violations: tuple[str, ...] = ()
    tests: tuple[MeanTest | ShareTest, ...] = ()
    unit: str = SEED


@dataclass(frozen=True)
class Verdict:
    """A verdict on a claim.

    Args:
        claim: its id.
        status: ``"replicated"``, ``"not replicated"``, ``"undecided"`` or ``"settings changed"``; of a theorem
            ``"holds"`` and ``"violated"`` in place of the first two.
        words: the reason, in words.
        supports, contradicts: p values after Holm's correction; None for an exact claim.
        evidence: of all seeds so far; a decided verdict does not change with it.
        look: the look at which the verdict was given.
    """

    claim: str
    status: str
    words: str
    supports: float | None
    contradicts: float | None
    evidence: Evidence
    look: int = 1


def level(look: int) -> float:
    """Return the one-sided level of a look, 0.05 · 2⁻ᵏ: over all looks less than 0.05.

    >>> level(1), level(2), level(3)
    (0.025, 0.0125, 0.00625)
    """
    if look not in (1, 2, 3):
        raise ValueError(f"look is {look!r}; accepted: 1, 2, 3")
    return ALPHA * 2.0**-look


def judge(claims: Sequence[tuple[str, Evidence, Evidence]], *, family: int, look: int = 1) -> list[Verdict]:
    """Return the verdicts on the claims of a paper, at one look.

    A claim is replicated if its ``supports`` p, after Holm's correction, is at most the level of the look, not
    replicated if its ``contradicts`` p is. If both are, the effect is replicated and smaller than the effect of
    interest. Holm's correction is made for each of the two over the family: an undefined p counts as 1. Exact claims
    have no p. A claim is undecided if runs are missing, with fewer than five seeds, and if its verdicts without and
    with diverged runs differ.

    Args:
        claims: id, the evidence without diverged runs, and with them at their worst.
        family: the number of registered claims that are not exact.
        look: 1, 2 or 3.
    """
    at_most = level(look)
    uncertain = sum(not evidence.exact for _, evidence, _ in claims)
    if isinstance(family, bool) or not isinstance(family, int) or family < uncertain:
        raise ValueError(f"family is {family!r}; accepted: a number of at least {uncertain}, the claims that are given")
    if len({name for name, _, _ in claims}) < len(claims):
        raise ValueError("two claims have one id; accepted: an id for each")
    without = _corrected([evidence for _, evidence, _ in claims], family)
    worst = _corrected([evidence for _, _, evidence in claims], family)
    verdicts = []
    for (name, evidence, at_worst), ps, worst_ps in zip(claims, without, worst, strict=True):
        status, words = _status(evidence, ps, at_most)
        if evidence.unknown and not evidence.exact:
            other, other_words = _status(at_worst, worst_ps, at_most)
            runs = _listed(evidence.unknown, "number is unknown", "numbers are unknown")
            if other != status:
                reason = other_words.removeprefix(at_worst.words).lstrip(":, ")  # the statistic is the same
                told = f"{words}: without them {status}, at the worst {other}{reason and f', {reason}'}"
                status, words = UNDECIDED, f"{told}; {runs}"
            else:
                words = f"{words}; {runs}{'' if status == UNDECIDED else ', which changes nothing'}"
        verdicts.append(Verdict(name, status, words, *ps, evidence, look))
    return verdicts


def _corrected(found: Sequence[Evidence], family: int) -> list[tuple[float | None, float | None]]:
    """Return both p values of each after Holm's correction over the family; None for exact claims."""
    sides: list[list[float | None]] = []
    for side in ("supports", "contradicts"):
        ps = [None if each.exact else _counted(getattr(each, side), each) for each in found]
        rest = family - sum(p is not None for p in ps)
        sides.append(holm([*ps, *[1.0] * rest])[: len(found)])
    return list(zip(*sides, strict=True))


def _counted(p: float | None, evidence: Evidence) -> float:
    """Return a p that can be decided by: 1 if it is undefined, or if the seeds are too few or incomplete."""
    return 1.0 if p is None or p != p or evidence.missing or evidence.n < FEWEST else p


def _status(evidence: Evidence, ps: tuple[float | None, float | None], at_most: float) -> tuple[str, str]:
    """Return status and reason."""
    if evidence.violations:
        return NOT_REPLICATED, _listed(evidence.violations, "run violates it", "runs violate it")
    if evidence.missing:
        return UNDECIDED, _listed(evidence.missing, "run is missing", "runs are missing")
    if evidence.exact:
        if evidence.unknown:
            return UNDECIDED, _listed(evidence.unknown, "number is unknown", "numbers are unknown")
        return (REPLICATED, evidence.words) if evidence.n else (UNDECIDED, "there is no run")
    if evidence.n < FEWEST:
        return UNDECIDED, f"{evidence.n} {evidence.unit}s say something about it; a verdict needs {FEWEST}"
    supports, contradicts = ps
    assert supports is not None
    assert contradicts is not None
    if supports <= at_most:
        small = ", smaller than the effect of interest" if evidence.interest and contradicts <= at_most else ""
        return REPLICATED, f"{evidence.words}{small}"
    if contradicts <= at_most:
        return NOT_REPLICATED, evidence.words
    return UNDECIDED, f"{evidence.words}: neither is shown at the one-sided level {at_most:g}"


def final(looks: Sequence[Sequence[Verdict]], seeds: Sequence[int]) -> list[Verdict]:
    """Return the verdicts on claims from those at each look so far, the first look first.

    The first decided one is final: later looks change only its evidence. An undecided claim has the verdict of the
    last look at which none of its runs was missing, or of the first look. An exact claim is about all runs so far: it
    has the verdict of the first look at which a run violates it, or else of the last such look.

    Args:
        looks: the verdicts at each look.
        seeds: the numbers of seeds at the looks.
    """
    chosen = []
    for verdicts in zip(*looks, strict=True):
        complete = [verdict for verdict in verdicts if not verdict.evidence.missing]
        latest = complete[-1] if complete else verdicts[0]
        if latest.evidence.exact:
            chosen.append(next((verdict for verdict in verdicts if verdict.evidence.violations), latest))
            continue
        decided = next((verdict for verdict in verdicts if verdict.status != UNDECIDED), None)
        chosen.append(latest if decided is None else _standing(decided, latest, seeds) if complete else decided)
    return chosen


def _standing(decided: Verdict, latest: Verdict, seeds: Sequence[int]) -> Verdict:
    """Return a decided verdict with the numbers of the latest look, but for the p that decided it."""
    if latest.look == decided.look:
        return decided
    then, now = seeds[decided.look - 1], seeds[latest.look - 1]
    reason = decided.words.removeprefix(decided.evidence.words)
    words = f"{latest.evidence.words}{reason}; decided, with its p, at the look of {then} seeds"
    if latest.status != decided.status:
        words += f", while that of {now} by itself says: {latest.status}"
    return replace(decided, words=words, evidence=latest.evidence)


def _listed(runs: Sequence[str], one: str, many: str) -> str:
    """Return the number of runs, and the first three.

    >>> _listed(["seed 1", "seed 2", "seed 3", "seed 4"], "run is missing", "runs are missing")
    '4 runs are missing (seed 1; seed 2; seed 3; and 1 more)'
    """
    more = [f"and {len(runs) - 3} more"] if len(runs) > 3 else []
    return f"{len(runs)} {one if len(runs) == 1 else many} ({'; '.join([*runs[:3], *more])})"
