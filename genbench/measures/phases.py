"""Reduce a part of the curves of a training to numbers: from, or until, a step that another reducer chooses."""

from dataclasses import dataclass
from statistics import median

from genbench.checks import check_integer
from genbench.measures.trajectory import Curve, When, check_metric, check_when
from genbench.records.estimate import Estimate

Curves = dict[str, Curve]


@dataclass(frozen=True, kw_only=True)
class Median:
    """The median of a metric over its measurements from a step on.

    Args:
        metric: such as train/flatness/stability_ratio.
        start: :class:`genbench.measures.trajectory.First` or another reducer that chooses the step.
    """

    metric: str
    start: When

    def __post_init__(self) -> None:
        check_metric(self.metric)
        check_when("start", self.start)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, *self.start.metrics)

    def __call__(self, curves: Curves) -> Estimate:
        start = self.start.step(curves)
        if isinstance(start, str):
            return Estimate(None, note=start)
        found = [value for step, value in curves[self.metric] if step >= start]
        known = [value for value in found if value is not None]
        if not known or len(known) < len(found):
            return Estimate(None, note=_null(self.metric, len(found) - len(known), len(found), f"from step {start}"))
        return Estimate(median(known))


@dataclass(frozen=True, kw_only=True)
class Rises:
    """The share of the windows of so many steps, from a step on, over which a metric rises: it is larger at their end
    than at their start. Windows overlap: one starts at each step at whose other end it is measured too.

    Args:
        metric: such as train/optimization/objective.
        start: :class:`genbench.measures.trajectory.First` or another reducer that chooses the step.
        over: steps of a window, at least 1.
    """

    metric: str
    start: When
    over: int = 1
    _sign = 1

    def __post_init__(self) -> None:
        check_metric(self.metric)
        check_when("start", self.start)
        check_integer("over", self.over, least=1)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, *self.start.metrics)

    def __call__(self, curves: Curves) -> Estimate:
        start = self.start.step(curves)
        if isinstance(start, str):
            return Estimate(None, note=start)
        values = {step: value for step, value in curves[self.metric] if step >= start and value is not None}
        changes = [values[step + self.over] - values[step] for step in values if step + self.over in values]
        if not changes:
            return Estimate(None, note=f"{self.metric} is not measured {self.over} steps apart from step {start} on")
        return Estimate(sum(self._sign * change > 0 for change in changes) / len(changes))


@dataclass(frozen=True, kw_only=True)
class Falls(Rises):
    """The share of the windows of so many steps, from a step on, over which a metric falls, see :class:`Rises`.

    Args:
        metric: such as train/optimization/objective.
        start: :class:`genbench.measures.trajectory.First` or another reducer that chooses the step.
        over: steps of a window, at least 1.
    """

    _sign = -1


@dataclass(frozen=True, kw_only=True)
class Tau:
    """Kendall's τ of a metric with the step, over its measurements until a step: 1 if it rises from each to the next.

    Args:
        metric: such as train/flatness/stability_ratio.
        end: :class:`genbench.measures.trajectory.First` or another reducer that chooses the last step.
        start: the first step that counts.
    """

    metric: str
    end: When
    start: int = 1

    def __post_init__(self) -> None:
        check_metric(self.metric)
        check_when("end", self.end)
        check_integer("start", self.start, least=1)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, *self.end.metrics)

    def __call__(self, curves: Curves) -> Estimate:
        from scipy.stats import kendalltau

        end = self.end.step(curves)
        if isinstance(end, str):
            return Estimate(None, note=end)
        found = [(step, value) for step, value in curves[self.metric] if self.start <= step <= end]
        known = [(step, value) for step, value in found if value is not None]
        when = f"from step {self.start} to {end}"
        if not known or len(known) < len(found):
            return Estimate(None, note=_null(self.metric, len(found) - len(known), len(found), when))
        if len({value for _, value in known}) < 2:
            return Estimate(None, note=f"undefined: {self.metric} has a single value {when}")
        return Estimate(float(kendalltau(*zip(*known, strict=True)).statistic))


def _null(metric: str, null: int, count: int, when: str) -> str:
    return f"{metric} is null in {null} of {count} measurements {when}"
