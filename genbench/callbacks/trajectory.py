"""Reduce what other callbacks measured along training to numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch

from genbench.callbacks.base import Measuring, warn
from genbench.callbacks.splits import SPLITS
from genbench.callbacks.subject import is_own
from genbench.checks import covers, nearest
from genbench.measures import Estimate, phases, trajectory
from genbench.measures.base import reason
from genbench.measures.trajectory import MISSED, Curve, Reducer

OBJECTIVE = "train/optimization/objective"
"""The mean training loss of an epoch, in the history of genbench's own module."""


class Trajectory(pl.Callback):
    """Reduces what the other callbacks of a Trainer measured along training to ``split/trajectory/<name>``, at its end.

    It reads the histories of all callbacks that derive from :class:`Measuring`, wherever it stands among them, and
    measures nothing itself: a metric has the steps at which its callback measured it. In genbench's own runs it also
    reads ``train/optimization/objective``, the mean training loss over the steps of each epoch, which has the last of
    them; with full batches it is the loss before each step. The split is that of the metric
    that a reducer reads first. A metric that no callback measures is refused before training if that is known, else the
    number is null with the reason.

    Values go to every logger, to ``trainer.callback_metrics`` and to ``results``.

    Attributes:
        results: the estimates by metric key, at the end of training.
        history: empty, as the numbers belong to no step.
        seconds: wall-clock time spent reducing.

    Args:
        metrics: reducers by name, see :mod:`genbench.measures.trajectory` (``At``, ``First``, ``Mean``, ``Largest``,
            ``Smallest``, ``Value``, ``Fall``, ``Wasserstein``) and :mod:`genbench.measures.phases` (``Median``,
            ``Rises``, ``Falls``, ``Tau``), or any function of curves with the attribute ``metrics``. One that returns
            several numbers adds their suffixes to its name.
    """

    def __init__(self, *, metrics: Mapping[str, Reducer]) -> None:
        for name, reducer in metrics.items():
            if not callable(reducer) or not hasattr(reducer, "metrics"):
                raise ValueError(
                    f"Trajectory metrics.{name} is {reducer!r}; accepted: a reducer of genbench.measures.trajectory"
                )
        self.metrics = dict(metrics)
        self.results: dict[str, Estimate] = {}
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0

    @property
    def state_key(self) -> str:
        return self._generate_state_key(metrics=sorted(self.metrics))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        self.check(_callbacks(trainer), getattr(data, "splits", SPLITS))
        self.results, self.seconds = {}, 0.0

    def check(self, callbacks: Iterable[pl.Callback], splits: Iterable[str] = SPLITS) -> None:
        """Refuse a metric that none of the callbacks measures, as far as is known before training.

        Raises:
            ValueError: there is one; names the nearest.
        """
        measured = [key for part in callbacks if isinstance(part, Measuring) for key in part.keys(list(splits))]
        known = [*measured, OBJECTIVE]
        exact = [key for key in known if not key.endswith("*")]
        for name, reducer in self.metrics.items():
            for metric in reducer.metrics:
                if not covers(known, metric):
                    raise ValueError(
                        f"Trajectory metrics.{name} reads {metric!r}, which no callback measures; "
                        f"{nearest(metric, exact)}"
                    )

    def keys(self, splits: Sequence[str]) -> list[str]:
        """Return the metric keys that it can have, see :meth:`Measuring.keys`."""
        found: list[str] = []
        for name, reducer in self.metrics.items():
            if type(reducer).__module__ in (trajectory.__name__, phases.__name__):
                found += reduced({name: reducer}, {})
            else:  # one of the user's, which may name its numbers by what was measured
                found.append(f"{_prefix(name, reducer)}*")
        return found

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        start = perf_counter()  # the other callbacks measure at the end of training, some of them after this one
        own: Any = pl_module
        training = own.history if is_own(pl_module) else ()
        self.results = reduced(self.metrics, curves(_callbacks(trainer), training))
        self.seconds += perf_counter() - start
        notes = {key: each.note for key, each in self.results.items() if each.value is None}
        warn(trainer, pl_module, {key: note for key, note in notes.items() if not (note or "").startswith(MISSED)})
        numbers = {key: each.value for key, each in self.results.items() if each.value is not None}
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in numbers.items()})
        if numbers:
            for logger in trainer.loggers:
                logger.log_metrics({**numbers, "epoch": trainer.current_epoch}, step=trainer.global_step)


def curves(callbacks: Iterable[pl.Callback], training: Iterable[Mapping[str, Any]] = ()) -> dict[str, Curve]:
    """Return what callbacks have measured, and the rows of ``training`` have, by metric. Where several measured one at
    a step, the first counts."""
    found: dict[str, dict[int, float | None]] = {}
    for history in [*(part.history for part in callbacks if isinstance(part, Measuring)), training]:
        for row in history:
            for key, value in row.items():
                if key not in ("epoch", "step") and not key.startswith("stderr/"):
                    curve = found.setdefault(key, {})
                    if curve.get(row["step"]) is None:
                        curve[row["step"]] = value
    return {key: sorted(curve.items()) for key, curve in found.items()}


def reduced(metrics: Mapping[str, Reducer], curves: Mapping[str, Curve]) -> dict[str, Estimate]:
    """Return the numbers of reducers by metric key; one that fails, or whose metric has no curve, gives the reason."""
    results: dict[str, Estimate] = {}
    for name, reducer in metrics.items():
        start = perf_counter()
        absent = [metric for metric in reducer.metrics if metric not in curves]
        try:
            found = reducer({**dict.fromkeys(absent, ()), **curves})
        except Exception as error:  # a faulty reducer must not end the training
            found = Estimate(None, note=reason(error))
        several = {"": found} if isinstance(found, Estimate) else found
        if absent:
            note = f"no callback measured {absent[0]}; {nearest(absent[0], list(curves))}"
            several = {suffix: Estimate(None, note=note) for suffix in several}
        seconds = (perf_counter() - start) / max(1, len(several))
        prefix = _prefix(name, reducer)
        for suffix, estimate in several.items():
            results[f"{prefix}_{suffix}" if suffix else prefix] = replace(estimate, seconds=seconds)
    return results


def _prefix(name: str, reducer: Reducer) -> str:
    return f"{reducer.metrics[0].partition('/')[0]}/trajectory/{name}"


def _callbacks(trainer: Any) -> list[pl.Callback]:
    return trainer.callbacks
