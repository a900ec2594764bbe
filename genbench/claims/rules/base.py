"""What rules share: their settings, checked, and the evidence of a mean over seeds."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from genbench.analysis.statistics import mean_interval
from genbench.checks import check_number
from genbench.claims.numbers import Numbers
from genbench.claims.p_values import above
from genbench.claims.runs import ClaimRuns, NamedSet, named
from genbench.claims.verdict import Evidence, MeanTest
from genbench.records.settings import show

FEWEST_UNITS = 20
"""Fewer groups of runs, or configurations, are no sample."""
LISTED = 16
"""So many levels or settings are named in the words of a rule; of more their number is."""


class Rule(Protocol):
    """A decision rule."""

    @property
    def words(self) -> str:
        """The claim that the rule decides, in words."""

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """Return what the runs say about the claim.

        Args:
            runs: of the registered seeds.
            worst: runs without a number count with the number in their bounds that is worst for what is to be shown;
                otherwise their seeds are left out.

        Raises:
            ValueError: a metric or setting is not recorded, or runs of several configurations match.
        """


def set_plain(rule: Any, **settings: Any) -> None:
    """Set fields of a frozen rule."""
    for name, value in settings.items():
        object.__setattr__(rule, name, value)


def check_metric(name: str, value: object) -> str:
    """``value`` if it is the name of a metric."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r}; accepted: the name of a metric, such as test/performance/accuracy")
    return value


def check_where(name: str, value: object) -> dict[str, Any]:
    """``value`` as plain settings."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} is {value!r}; accepted: settings and their values, such as {{data.label_noise: 0.2}}")
    plained: dict[str, Any] = plain(value)
    for key, item in plained.items():
        check_setting(name, key)
        if item == []:
            raise ValueError(f"{name}.{key} is []; accepted: a value, or a list of values")
    return plained


def check_setting(name: str, key: str) -> None:
    """Refuse the seed as a setting of a rule, which is about all seeds of its claims."""
    if key == "seed":
        raise ValueError(f"{name} names the seed; accepted: other settings, as a rule is over claims.seeds")


def check_bounds(value: object) -> tuple[float, float] | None:
    """``value`` as the least and the largest number that a metric can be."""
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"bounds is {value!r}; accepted: the least and the largest number of the metric, or null")
    low = check_number("bounds[0]", value[0])
    return low, check_number("bounds[1]", value[1], low=low, open_low=True)


def check_beyond(margin: float, interest: object, *, high: float = math.inf) -> float | None:
    """``interest`` if it lies beyond the margin."""
    if interest is None:
        return None
    return check_number("interest", interest, low=margin, open_low=True, high=high, note="beyond the margin, or null")


def check_other(name: str, value: object, of: object) -> None:
    """Refuse settings of other runs that are those of the runs themselves."""
    if isinstance(value, Mapping) and value == of:
        raise ValueError(
            f"{name} is {named(value)}, as of is; accepted: other runs, as no run says anything beside itself"
        )


def check_apart(runs: ClaimRuns, samples: Sequence[Numbers], settings: Sequence[Mapping[str, Any]]) -> None:
    """Refuse samples of one metric that share a run: it would be compared with itself, or counted twice."""
    positions = [sample.runs for sample in samples if sample.runs is not None]
    if len(positions) < len(samples):
        return
    for seed, column in zip(runs.seeds, np.stack(positions, axis=1), strict=True):
        first: dict[int, int] = {}
        for i, run in enumerate(column.tolist()):
            if run >= 0 and (other := first.setdefault(run, i)) != i:
                raise ValueError(
                    f"{named(settings[other])} and {named(settings[i])} share the run of seed {seed}; accepted: other "
                    "runs in each, as no run says anything beside itself"
                )


def levels_words(key: str, levels: Sequence[Any]) -> str:
    """Return a setting with its levels in words: all of them, or of many the first, the last and their number.

    >>> levels_words("data.x", [1, 2.5, 4]), levels_words("data.x", range(1, 100))
    ('data.x = 1, 2.5, 4', 'data.x = 1 … 99 (99 levels)')
    """
    if len(levels) > LISTED:
        return f"{key} = {show(levels[0])} … {show(levels[-1])} ({len(levels)} levels)"
    return f"{key} = {', '.join(map(show, levels))}"


def interest_words(interest: float | None) -> str:
    """Return the smallest effect that matters, as it stands behind the margin."""
    return "" if interest is None else f" (of interest from {interest:g})"


def check_levels(name: str, value: object, *, least: int) -> tuple[str, list[Any]]:
    """``value`` as a setting and its levels, which are numbers in ascending order."""
    key, levels = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", None)
    fine = isinstance(key, str) and isinstance(levels, Sequence) and not isinstance(levels, str)
    if not fine or levels is None or len(levels) < least:
        raise ValueError(
            f"{name} is {value!r}; accepted: one setting with at least {least} levels, such as {{width: [1, 2, 4]}}"
        )
    check_setting(name, key)
    numbers = [check_number(f"{name}.{key}", level) for level in levels]
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise ValueError(f"{name}.{key} is {list(levels)!r}; accepted: different numbers in ascending order")
    return key, list(levels)


def plain(value: Any) -> Any:
    """Return nested mappings and sequences as dicts and lists; a named set keeps its name."""
    if isinstance(value, Mapping):
        settings = {key: plain(item) for key, item in value.items()}
        return NamedSet(settings, value.name) if isinstance(value, NamedSet) else settings
    return [plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def mean_evidence(
    numbers: Numbers,
    *,
    margin: float,
    interest: float | None,
    what: str,
    worst: bool,
    shown: Callable[[float], float] = float,
) -> Evidence:
    """Return the evidence for "the mean over seeds is above the margin", by t tests.

    Args:
        numbers: the effect in each seed.
        margin, interest: of the effect; interest lies above the margin, or is None.
        what: the name of the mean.
        worst: see :class:`Rule`.
        shown: makes of the mean what is shown, such as a ratio of a logarithm.
    """
    low, high = numbers.ends(worst)
    short = margin if interest is None else interest
    return Evidence(
        supports=above(low, margin, rounding=numbers.rounding),
        contradicts=above(-high, -short, rounding=numbers.rounding),
        n=len(low),
        interest=interest is not None,
        tests=(mean_test(numbers, None if interest is None else interest - margin),),
        missing=numbers.missing,
        unknown=numbers.unknown,
        **described(numbers, what, shown),
    )


def mean_test(numbers: Numbers, distance: float | None, *, both_sides: bool = False) -> MeanTest:
    known, _ = numbers.ends(False)
    spread = float(known.std(ddof=1)) if len(known) > 1 else None
    return MeanTest(distance, spread, len(known), both_sides)


def described(numbers: Numbers, what: str, shown: Callable[[float], float] = float) -> dict[str, Any]:
    """Return the mean of the known numbers, its 95 % interval and both in words; see :func:`mean_evidence`."""
    known, _ = numbers.ends(False)
    if not len(known):
        return {"statistic": None, "interval": None, "words": "no seed gives a number"}
    mean = mean_interval(known.tolist())
    value, interval = shown(mean.value), None
    text = f"{what} {value:.4g}"
    if mean.low is not None and mean.high is not None:
        interval = shown(mean.low), shown(mean.high)
        text += f" [{interval[0]:.4g}, {interval[1]:.4g}]"
    equal = mean.n > 1 and float(np.ptp(known)) <= numbers.rounding
    alike = ", equal in every seed: exact sign test" if equal else ""
    return {"statistic": value, "interval": interval, "words": f"{text}, n = {mean.n}{alike}"}


def exponential(value: float) -> float:
    """Return eˣ, or a number that stands for what a float cannot hold."""
    return math.exp(min(value, 700.0))


def larger(*ps: float | None) -> float | None:
    """Return the largest p, for a conjunction; None if one is undefined."""
    known = [p for p in ps if p is not None]
    return max(known) if len(known) == len(ps) and known else None


def smallest(*ps: float | None) -> float | None:
    """Return the smallest p times their number, at most 1 (Bonferroni); an undefined p counts as 1; None if all are
    undefined."""
    known = [p for p in ps if p is not None]
    return min(1.0, len(ps) * min(known)) if known else None


def constant(runs: ClaimRuns, value: float) -> Numbers:
    """Return one number for all seeds."""
    values = np.full(len(runs.seeds), float(value))
    return Numbers(low=values, high=values, scale=abs(float(value)))
