"""What the rules over the runs of a grid share, whose unit is the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.analysis.selection import windows
from genbench.checks import check_integer, check_window, nearest
from genbench.claims.rules.base import FEWEST_UNITS, check_metric, check_where, set_plain
from genbench.claims.rules.grid import Grid, check_grid, grid_words
from genbench.claims.rules.grid_runs import GridRuns, Sample, keys_of
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import Evidence

UNIT = "configuration"
UNDEFINED = {
    "tau": "a measure or the gap is constant: no score",
    "psi": "no two runs differ in one hyperparameter alone: no score",
    "sign_error": "no two values of a hyperparameter have gaps that differ surely in 12 pairs: no score",
}


@dataclass(frozen=True, kw_only=True)
class OfGrid:
    """What the rules of this file share.

    Runs that diverged, whose metric is null or that lie outside ``within`` are left out, and counted. At the worst
    their pairs count against what is to be shown, of sign errors with the largest weight if the gap is unknown, so that
    a selection decides nothing.
    """

    gap: str
    over: Grid
    of: Mapping[str, Any]
    within: Mapping[str, Sequence[float]] | None = None

    def _check(self) -> None:
        check_metric("gap", self.gap)
        set_plain(self, over=check_grid("over", self.over, least=FEWEST_UNITS), of=check_where("of", self.of))
        set_plain(self, within=_check_within(self.within))

    def _check_axes(self, value: object, *, count: int | None = None) -> list[str]:
        keys = keys_of(self.over)
        some = "of over" if count is None else f"of over, {count} of them"
        fine = isinstance(value, Sequence) and not isinstance(value, str) and 0 < len(value) == len(set(value))
        if (
            not fine
            or not isinstance(value, Sequence)
            or not set(value) <= set(keys)
            or count not in (None, len(value))
        ):
            raise ValueError(f"axes is {value!r}; accepted: different settings {some} ({', '.join(keys)})")
        return list(value)

    def _about(self) -> str:
        """The runs, in words."""
        kept = "".join(f", runs with {window}" for window in windows(self.within or {}))
        return (
            f"over {grid_words(self.over)} of {named(self.of)}{kept}, configurations as units, conditional on this grid"
        )

    def _sample(self, runs: ClaimRuns, metrics: Mapping[str, int], gap: str | None = None) -> "Sample":
        return Sample(GridRuns.of(runs, self.of, self.over), metrics, gap or self.gap, self.within or {})


def _rows(samples: Sequence[Sample]) -> tuple[dict[int, str], np.ndarray]:
    """The rows without a number in one of the samples and why, and the configurations of the others."""
    reasons = {row: reason for sample in reversed(samples) for row, reason in sample.unknown.items()}
    grid = samples[0].grid
    return reasons, np.unique(np.delete(grid.configuration, [*reasons]))


def enough(samples: Sequence[Sample]) -> bool:
    return len(_rows(samples)[1]) >= FEWEST_UNITS


def evidence_of(samples: Sequence[Sample], *, words: str = "", **found: Any) -> Evidence:
    """The evidence, with what is said of the runs; without ``words`` configurations are too few."""
    grid = samples[0].grid
    reasons, configurations = _rows(samples)
    left = {"outside the window": len(outside := {row for sample in samples for row in sample.outside})}
    left["without a number"] = len(reasons.keys() - outside)
    runs = f"{len(grid.rows) - len(reasons)} {f'of {len(grid.rows)} ' if reasons else ''}runs"
    said = f"n = {len(configurations)} configurations, {runs}"
    if told := [f"{count} {what}" for what, count in left.items() if count]:
        said += f" (left out: {', '.join(told)})"
    if not words:
        said += f"; a verdict needs {FEWEST_UNITS} configurations with a number"
    return Evidence(
        **{"supports": None, "contradicts": None, **found},
        n=len(configurations),
        words=f"{words}, {said}" if words else said,
        missing=grid.missing,
        unknown=tuple(f"{grid.name(row)}: {reasons[row]}" for row in sorted(reasons)),
        unit=UNIT,
    )


def sign_of(name: str, falls: Sequence[str]) -> int:
    return -1 if name in falls else 1


def turned(name: str, direction: int) -> str:
    return name if direction == 1 else f"minus {name}"


def listed(metrics: Sequence[str], falls: Sequence[str]) -> str:
    return ", ".join(turned(name, sign_of(name, falls)) for name in metrics)


def along_words(axes: Sequence[str] | None) -> str:
    return "" if axes is None else f" along {' and '.join(axes)}"


def check_sign(name: str, value: object) -> None:
    if value not in (1, -1) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; accepted: 1, -1")


def check_metrics(value: object, *, least: int) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < least or len(set(value)) < len(value):
        raise ValueError(f"metrics is {value!r}; accepted: different metrics, at least {least}")
    return [check_metric("metrics", metric) for metric in value]


def check_falls(value: object, metrics: Sequence[str]) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"falls is {value!r}; accepted: a list of metrics")
    for name in value:
        if name not in metrics:
            raise ValueError(f"falls names {name!r}, which is none of metrics; {nearest(str(name), metrics)}")
    return list(value)


def check_test_size(value: object, *, needed: bool) -> None:
    if needed:
        check_integer("test_size", value, least=1, note="the test examples of the gap, for sign errors")
    elif value is not None:
        raise ValueError(f"test_size is {value!r}; accepted with another score than sign_error: null")


def _check_within(value: object) -> dict[str, tuple[float, float]] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"within is {value!r}; accepted: metrics and their least and largest number, or null")
    for name in value:
        check_metric("within", name)
    return {str(name): check_window(f"within.{name}", ends) for name, ends in value.items()}
