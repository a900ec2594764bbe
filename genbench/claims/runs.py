"""The runs of an experiment, as decision rules read them: a metric by seed."""

import copy
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from genbench.analysis.statistics import LARGEST, ROUNDING
from genbench.checks import covers, nearest
from genbench.claims.choice import Choice
from genbench.claims.numbers import Numbers
from genbench.records import flatten
from genbench.records.settings import ABSENT, described, differing, show

Where = Mapping[str, Any]
"""Settings that select runs: a dotted key of the configuration or a group of choices -> a value, or a list of values of
which a run has one. A setting that is a list itself is written as tables show it: ``l2+mixup``."""
ANY_METRIC = frozenset("*")
"""The metric keys of a run of which nothing is known."""
_SECONDS = frozenset({"seconds.fit", "seconds.measure", "seconds.total"})  # of every run


class NamedSet(dict[str, Any]):
    """Settings that select runs, called by ``name`` in words."""

    def __init__(self, settings: Where, name: str) -> None:
        super().__init__(settings)
        self.name = name


class ClaimRuns:
    """The records of an experiment's folder, for decision rules.

    Args:
        records: completed, diverged and failed runs; a failed run counts as missing. One that is planned holds as
            ``keys`` the metric keys that it can have.
        seeds: the seeds whose runs are read, registered before the runs; None: all seeds that the records have.
        complete: settings that none of the records has are refused, as no other run will come.
        choice: of the runs of one seed that have the settings of a set; None: they are refused.
    """

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]],
        seeds: Iterable[int] | None = None,
        *,
        complete: bool = False,
        choice: Choice | None = None,
    ) -> None:
        self._records, self._complete, self._choice = list(records), complete, choice
        found = {record["seed"] for record in self._records}
        self.seeds = tuple(sorted(found if seeds is None else set(seeds)))
        self._indices: dict[str, dict[str, frozenset[int]]] = {}
        self._metrics = {name for record in self._records for name in record["metrics"]}
        self._metrics |= {f"seconds.{name}" for record in self._records for name in record["seconds"]}
        self._completed = any(record["status"] == "completed" for record in self._records)
        self._planned = any("keys" in record for record in self._records)
        self._configs = [flatten(record["config"]) for record in self._records]
        self._known: dict[tuple[tuple[int, ...], str], dict[int, int]] = {}  # by seeds and settings
        self.kept: dict[Any, Any] = {}
        """What rules share about these runs, by what it is about."""

    def of(self, seeds: Iterable[int]) -> "ClaimRuns":
        """Return the same runs, of other ``seeds``."""
        other = copy.copy(self)
        other.seeds, other.kept = tuple(sorted(set(seeds))), {}
        return other

    def check(self, where: Where) -> None:
        """Refuse settings that no record has.

        Raises:
            ValueError: one that is named nowhere; of ``complete`` runs, also values that none has.
        """
        self._matching(where)

    def sample(
        self,
        metric: str,
        where: Where,
        *,
        bounds: Sequence[float] | None = None,
        null: float | None = None,
        diverged: float | None = None,
    ) -> Numbers:
        """Return the metric of the runs that have these settings, by seed.

        Args:
            metric: a metric of the records, or ``seconds.<name>``.
            where: the settings.
            bounds: the least and the largest number that the metric can be. A run that diverged, or whose metric is
                null, has a number between them.
            null: the number of a completed run whose metric is null; None: unknown.
            diverged: the number of a run that diverged; None: unknown.

        Raises:
            ValueError: no record has the metric or a setting, no planned run will have the metric, the runs differ
                in another setting than the seed, or a number is outside the bounds.
        """
        self.check_metric(metric, self.keys([where]))
        by_seed = self._by_seed(where, f"{metric} of {named(where)}")
        least, largest = (-np.inf, np.inf) if bounds is None else bounds
        low, high = np.full(len(self.seeds), np.nan), np.full(len(self.seeds), np.nan)
        positions = np.full(len(self.seeds), -1)
        missing, unknown = [], []
        of = named(where)
        for position, seed in enumerate(self.seeds):
            positions[position] = by_seed.get(seed, -1)
            record = self._records[by_seed[seed]] if seed in by_seed else None
            if record is None:
                missing.append(f"seed {seed} of {of}")
            elif record["status"] == "failed":
                missing.append(f"seed {seed} of {of} (failed)")
            else:
                value, reason = _number(record, metric, null, diverged)
                low[position], high[position] = (least, largest) if value is None else (value, value)
                if value is not None and not least - ROUNDING * abs(least) <= value <= largest + ROUNDING * abs(
                    largest
                ):
                    raise ValueError(
                        f"{metric} of {of} is {value:g} in seed {seed}, outside the bounds "
                        f"[{least:g}, {largest:g}] of its claim"
                    )
                if value is None:
                    unknown.append(f"seed {seed} of {of}: {reason}")
        scale = float(np.abs(low[np.isfinite(low)]).max(initial=0.0))
        told = {"missing": tuple(missing), "unknown": tuple(unknown)}
        names = tuple(f"{metric} of seed {seed} of {of}" for seed in self.seeds)
        return Numbers(low=low, high=high, scale=scale, runs=positions, named=names, **told)

    def settings(self, key: str, sample: Numbers) -> list[Any]:
        """Return a setting of the runs of a sample, of those that have it."""
        positions = [] if sample.runs is None else [int(i) for i in sample.runs if i >= 0]
        return [self._configs[i][key] for i in positions if key in self._configs[i]]

    def placed(self, where: Where) -> tuple[np.ndarray, list[str]]:
        """Return the positions of the runs that have these settings among the records, by seed, and the missing runs in
        words; -1 where a run is missing.

        Raises:
            ValueError: no record has a setting, or the runs differ in another one than the seed.
        """
        of = named(where)
        by_seed = self._by_seed(where, of)
        positions, missing = np.full(len(self.seeds), -1), []
        for i, seed in enumerate(self.seeds):
            if seed not in by_seed:
                missing.append(f"seed {seed} of {of}")
            elif self._records[by_seed[seed]]["status"] == "failed":
                missing.append(f"seed {seed} of {of} (failed)")
            else:
                positions[i] = by_seed[seed]
        return positions, missing

    def column(self, metric: str) -> np.ndarray:
        """Return the metric of every record, NaN where it is unknown; a number may be too large to be averaged."""
        if ("column", metric) not in self.kept:
            numbers = [
                math.nan if record["status"] != "completed" or (value := _value(record, metric)) is None else value
                for record in self._records
            ]
            self.kept["column", metric] = np.array(numbers, dtype=np.float64)
        found: np.ndarray = self.kept["column", metric]
        return found

    def reason(self, metric: str, position: int) -> str:
        """Say why the run at a position has no number."""
        return _number(self._records[position], metric, None, None)[1]

    def keys(self, settings: Iterable[Where]) -> dict[frozenset[frozenset[str]], Where]:
        """Return the metric keys that planned runs will have, those of runs with the same settings together, and the
        first settings of which they are; empty if no run is planned."""
        found: dict[frozenset[frozenset[str]], Where] = {}
        for where in settings if self._planned else ():
            found.setdefault(frozenset(self._records[i].get("keys", ANY_METRIC) for i in self._matching(where)), where)
        return found

    def check_metric(self, metric: str, planned: Mapping[frozenset[frozenset[str]], Where]) -> None:
        """Refuse a metric that no record has, or that none of the runs that are planned will have; see :meth:`keys`."""
        if self._completed and metric not in self._metrics:
            raise ValueError(f"a claim names the metric {metric!r}; {nearest(metric, sorted(self._metrics))}")
        for kinds, where in planned.items():
            found = {_SECONDS} if metric.startswith("seconds.") and kinds else kinds
            if found and not any(covers(keys, metric) for keys in found):
                hint = nearest(metric, sorted(set().union(*found)))
                raise ValueError(
                    f"a claim names the metric {metric!r}, which no run of {named(where)} will have; {hint}"
                )

    def _by_seed(self, where: Where, what: str) -> dict[int, int]:
        """Seed -> the position of its run among the records; ``what`` names the runs in errors."""
        if (key := (self.seeds, repr(dict(where)))) not in self._known:  # rules ask for several metrics of the same
            self._known[key] = self._found(where, what)
        return self._known[key]

    def _found(self, where: Where, what: str) -> dict[int, int]:
        seeds = set(self.seeds)
        found = [i for i in sorted(self._matching(where)) if self._records[i]["seed"] in seeds]
        runs = [self._records[i] for i in found]
        configs = [self._configs[i] for i in found]
        if listed := {key for key, value in where.items() if _is_list(value)}:  # which may differ between seeds
            configs = [{key: config[key] for key in config.keys() - listed} for config in configs]
        differences = differing(configs, [run["seed"] for run in runs])
        if differences and self._choice is not None:
            self.check_metric(self._choice.metric, self.keys([where]))
            found = self._chosen(found, configs, [*differences], self._choice)
            runs = [self._records[i] for i in found]
        elif differences:
            raise ValueError(
                f"{what} mixes configurations: {described(differences)}; name them where the claim selects runs"
            )
        by_seed: dict[int, int] = {}
        for i, run in zip(found, runs, strict=True):
            if (first := by_seed.setdefault(run["seed"], i)) != i:
                both = [self._records[first], run]
                of = [each.get("experiment") for each in both]
                ids = [
                    f"{each['run_id']}{f' of {name}' if of[0] != of[1] else ''}"
                    for each, name in zip(both, of, strict=True)
                ]
                raise ValueError(
                    f"{what} holds seed {run['seed']} twice ({', '.join(ids)}): their experiments, their inputs or "
                    "what the claim lists differ; remove one of the two or name one value where the claim selects runs"
                )
        return by_seed

    def _chosen(
        self, found: Sequence[int], configs: Sequence[Mapping[str, Any]], tried: Sequence[str], choice: Choice
    ) -> list[int]:
        """Return the positions of the runs of the chosen setting, seed by seed."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, config in zip(found, configs, strict=True):
            groups.setdefault(tuple(show(config.get(key, ABSENT)) for key in tried), []).append(i)
        records = [[self._records[i] for i in group] for group in groups.values()]
        positions = [*groups.values()]
        return [
            i
            for seed in sorted({self._records[i]["seed"] for i in found})
            for i in positions[choice.among(records, seed)]
            if self._records[i]["seed"] == seed
        ]

    def _matching(self, where: Where) -> Collection[int]:
        found: frozenset[int] | None = None
        for key, value in where.items():
            index = self._index(key)
            texts = {show(item) for item in value} if _is_list(value) else {show(value)}
            if self._complete and (strange := sorted(texts - index.keys())):
                hint = nearest(strange[0], sorted(index))
                raise ValueError(f"a claim names {key}={strange[0]}, which no run has; {hint}")
            own = frozenset().union(*(index.get(text, frozenset()) for text in texts))
            found = own if found is None else found & own
        if self._complete and found is not None and not found:
            raise ValueError(f"a claim names {named(where)}, which no run has together")
        return range(len(self._records)) if found is None else found

    def _index(self, key: str) -> dict[str, frozenset[int]]:
        """Value of a setting, as shown -> the records that have it."""
        if key not in self._indices:
            positions: dict[str, set[int]] = {}
            for i, (record, config) in enumerate(zip(self._records, self._configs, strict=True)):
                if key in record["choices"]:
                    positions.setdefault(show(record["choices"][key]), set()).add(i)
                elif key in config:
                    positions.setdefault(show(config[key]), set()).add(i)
            if not positions and self._records:
                known = {name for record in self._records for name in record["choices"]}.union(*self._configs)
                raise ValueError(f"a claim names the setting {key!r}, which no run has; {nearest(key, sorted(known))}")
            self._indices[key] = {text: frozenset(found) for text, found in positions.items()}
        return self._indices[key]


def named(where: Where) -> str:
    """Return the settings in words, or the name of a set.

    >>> named({"data.label_noise": 0.0, "model": ["mlp", "cnn"]}), named({})
    ('data.label_noise=0, model=mlp or cnn', 'the runs')
    """
    if isinstance(where, NamedSet):
        return where.name
    shown = (
        f"{key}={' or '.join(map(show, value)) if _is_list(value) else show(value)}" for key, value in where.items()
    )
    return ", ".join(shown) or "the runs"


def merged(*settings: Where) -> Where:
    """Return several settings as one; the name of a set stays in its words.

    Raises:
        ValueError: they give a setting two values.

    >>> merged({"model": "mlp"}, {"seed": 1}), named(merged(NamedSet({"model": "mlp"}, "MLP"), {"seed": 1}))
    ({'model': 'mlp', 'seed': 1}, 'MLP, seed=1')
    """
    both: dict[str, Any] = {}
    for key, value in ((key, value) for each in settings for key, value in each.items()):
        if both.setdefault(key, value) != value:
            raise ValueError(
                f"{' and '.join(named(each) for each in settings if key in each)} give {key} two values, "
                f"{both[key]!r} and {value!r}; accepted: one"
            )
    if not any(isinstance(each, NamedSet) for each in settings):
        return both
    return NamedSet(both, ", ".join(named(each) for each in settings if each))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _number(
    record: Mapping[str, Any], metric: str, null: float | None, diverged: float | None
) -> tuple[float | None, str]:
    """Return the number of a run, or None and the reason."""
    if record["status"] == "diverged":
        return diverged, "diverged"
    value = _value(record, metric)
    if value is None:
        if metric not in record["metrics"] and not metric.startswith("seconds."):
            return None, f"{metric} was not measured"
        return null, f"{metric} is null"
    return (value, "") if abs(value) <= LARGEST else (None, f"{metric} is too large to be averaged")


def _value(record: Mapping[str, Any], metric: str) -> float | None:
    if metric.startswith("seconds."):
        value = record["seconds"].get(metric.removeprefix("seconds."))
    else:
        value = record["metrics"].get(metric)
    return None if value is None else float(value)
