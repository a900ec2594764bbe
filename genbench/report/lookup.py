"""Look up the settings of runs, and which of them distinguish runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from genbench.records.settings import ABSENT, described, differing, shown
from genbench.report.selection import SelectedRun

Values = tuple[str | None, ...]
"""The values of some settings, as shown."""


def label(row: Values) -> str:
    """Return a row's name."""
    return "/".join(map(str, row))


class Lookup:
    """Looks up a setting of a run; without a record, in its overrides or else the value that all other runs share."""

    def __init__(self, runs: Sequence[SelectedRun]) -> None:
        self.runs = runs
        self._defaults: dict[str, str | None] = {}

    def require(self, key: str) -> None:
        """Raise ValueError (one line) for a setting that no run has; without any record, accept every key."""
        if any(run.record for run in self.runs) and all(run.text(key) is None for run in self.runs):
            known = sorted({name for run in self.runs if run.record for name in run.record["choices"]})
            raise ValueError(
                f"the table names the setting {key!r}, which no run has; accepted: a group "
                f"({', '.join(known) or 'none'}) or a dotted configuration key"
            )

    def value(self, run: SelectedRun, key: str) -> str | None:
        """Return the setting as shown, or ``None`` if it is unknown: no record, no override, no shared value."""
        own = run.text(key)
        if own is not None:
            return own
        return ABSENT if run.record else self._default(key)

    def shown(self, value: Any) -> str:
        """Return a value of a table's spec as shown: weights by their name, also if the spec gives their digest."""
        return shown(value, self.runs[0].names if self.runs else {})

    def row(self, run: SelectedRun, keys: Sequence[str]) -> Values:
        """Return the values of several settings."""
        return tuple(self.value(run, key) for key in keys)

    def rows(self, runs: Sequence[SelectedRun], keys: Sequence[str]) -> dict[Values, list[SelectedRun]]:
        """Group runs by their values of several settings, in order."""
        found: dict[Values, list[SelectedRun]] = {}
        for run in runs:
            found.setdefault(self.row(run, keys), []).append(run)
        return found

    def matching(self, runs: Sequence[SelectedRun], where: Mapping[str, Any]) -> list[SelectedRun]:
        """Return the runs that have these settings: of a list of values, one of them."""
        wanted = {
            key: {self.shown(each) for each in (value if isinstance(value, list | tuple) else [value])}
            for key, value in where.items()
        }
        return [run for run in runs if all(self.value(run, key) in texts for key, texts in wanted.items())]

    def _default(self, key: str) -> str | None:
        if key not in self._defaults:
            found = {run.text(key) or ABSENT for run in self.runs if run.record}
            self._defaults[key] = found.pop() if len(found) == 1 else None
        return self._defaults[key]


def differences(runs: Sequence[SelectedRun]) -> dict[str, list[str]]:
    """Return the settings in which recorded runs differ, except for the seed, with the values as shown."""
    members = [(run.config, run.record["seed"]) for run in runs if run.record]
    return differing([config for config, _ in members], [seed for _, seed in members])


def refuse_mixture(runs: Sequence[SelectedRun], where: str) -> None:
    """Raise ValueError (one line) if a cell would mix two configurations or hold a seed twice."""
    if found := differences(runs):
        raise ValueError(
            f"{where} mixes configurations: {described(found)}; "
            "name them in the table's rows or the column's where, or keep the runs apart with name="
        )
    seen: dict[int, str] = {}
    for run in runs:
        if run.record and (other := seen.setdefault(run.record["seed"], run.run_id)) != run.run_id:
            raise ValueError(
                f"{where} holds seed {run.record['seed']} twice ({other}, {run.run_id}) with one configuration: "
                "their inputs differ; remove one of the two or keep the runs apart with name="
            )


def extend(runs: Sequence[SelectedRun], keys: Sequence[str], wheres: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return ``keys`` and the further settings that distinguish all configurations within each ``where``."""
    lookup, keys = Lookup(runs), list(keys)
    recorded = [run for run in runs if run.record]
    for where in wheres:
        inside = lookup.matching(recorded, where)
        while found := next(filter(None, map(differences, lookup.rows(inside, keys).values())), None):
            keys.append(next(iter(found)))
    return keys
