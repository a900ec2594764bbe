"""Reduce a part of the curves of a training to numbers: from, or until, a step that another reducer chooses."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from genbench.checks import check_integer
from genbench.measures.trajectory import Curve, When, check_metric, check_when
from genbench.records.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """A metric in a part of training, which the reducer in the field ``_bound`` begins or ends."""

    metric: str
    _bound: ClassVar[str] = "start"

    @property
    def _when(self) -> When:
        when: When = getattr(self, self._bound)
        return when

    def __post_init__(self) -> None:
        check_metric(self.metric)
        check_when(self._bound, self._when)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, *self._when.metrics)

    def __call__(self, curves: Mapping[str, Curve]) -> Estimate:
        step = self._when.step(curves)
        return Estimate(None, note=step) if isinstance(step, str) else self._reduced(curves[self.metric], step)

    def _reduced(self, curve: Curve, step: int) -> Estimate:
        raise NotImplementedError

    def _unknown(self, found: Curve, when: str) -> Estimate | None:
        """The estimate where a measurement is null, or there is none; else None."""
        null = sum(value is None for _, value in found)
        if found and not null:
            return None
        return Estimate(None, note=f"{self.metric} is null in {null} of {len(found)} measurements {when}")


@dataclass(frozen=True, kw_only=True)
class Median(_Phase):
    """The median of a metric over its measurements from a step on.

    Args:
        metric: such as train/flatness/stability_ratio.
        start: :class:`genbench.measures.trajectory.First` or another reducer that chooses the step.
    """

    start: When

    def _reduced(self, curve: Curve, step: int) -> Estimate:
        found = [(at, value) for at, value in curve if at >= step]
        unknown = self._unknown(found, f"from step {step}")
        return unknown or Estimate(median(value for _, value in found if value is not None))


@dataclass(frozen=True, kw_only=True)
class Rises(_Phase):
    """The share of the windows of so many steps, from a step on, over which a metric rises: it is larger at their end
    than at their start. Windows overlap: one starts at each step at whose other end it is measured too.

    Args:
        metric: such as train/optimization/objective.
        start: :class:`genbench.measures.trajectory.First` or another reducer that chooses the step.
        over: steps of a window, at least 1.
    """

    start: When
    over: int = 1
    _sign: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("over", self.over, least=1)

    def _reduced(self, curve: Curve, step: int) -> Estimate:
        values = {at: value for at, value in curve if at >= step and value is not None}
        changes = [values[at + self.over] - values[at] for at in values if at + self.over in values]
        if not changes:
            return Estimate(None, note=f"{self.metric} is not measured {self.over} steps apart from step {step} on")
        return Estimate(sum(self._sign * change > 0 for change in changes) / len(changes))


@dataclass(frozen=True, kw_only=True)
class Falls(Rises):
    """The share of the windows of so many steps, from a step on, over which a metric falls, see :class:`Rises`.

    Args:
        metric: such as train/optimization/objective.
        start: :class:`genbench.measures.trajectory.First` or another reducer that chooses the step.
        over: steps of a window, at least 1.
    """

    _sign: ClassVar[int] = -1


@dataclass(frozen=True, kw_only=True)
class Tau(_Phase):
    """Kendall's τ of a metric with the step, over its measurements until a step: 1 if it rises from each to the next.

    Args:
        metric: such as train/flatness/stability_ratio.
        end: :class:`genbench.measures.trajectory.First` or another reducer that chooses the last step.
        start: the first step that counts.
    """

    end: When
    start: int = 1
    _bound: ClassVar[str] = "end"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("start", self.start, least=1)

    def _reduced(self, curve: Curve, step: int) -> Estimate:
        from scipy.stats import kendalltau

        found = [(at, value) for at, value in curve if self.start <= at <= step]
        when = f"from step {self.start} to {step}"
        if unknown := self._unknown(found, when):
            return unknown
        if len({value for _, value in found}) < 2:
            return Estimate(None, note=f"undefined: {self.metric} has a single value {when}")
        return Estimate(float(kendalltau(*zip(*found, strict=True)).statistic))
