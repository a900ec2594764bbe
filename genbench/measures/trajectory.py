"""Reduce the curves of a training to numbers: the value at a step, the first step at a level, a mean, a fall."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from genbench.checks import check_flag, check_integer, check_number
from genbench.records.estimate import Estimate

Curve = Sequence[tuple[int, float | None]]
"""(step, value) of each measurement in the order of the steps, which differ; the value is None where it is unknown."""
MISSED = "not reached"


class Reducer(Protocol):
    """Reduces curves to one number, or to several by suffix.

    Attributes:
        metrics: those it reads. The number belongs to the split of the first.
    """

    @property
    def metrics(self) -> tuple[str, ...]: ...

    def __call__(self, curves: Mapping[str, Curve]) -> Estimate | dict[str, Estimate]:
        """Return the number, or several by suffix, of the curves by metric; a curve may be empty."""


class When(Protocol):
    """A reducer that chooses a step."""

    @property
    def metrics(self) -> tuple[str, ...]: ...

    def step(self, curves: Mapping[str, Curve]) -> int | str:
        """Return the step, or the reason why there is none."""


@dataclass(frozen=True, kw_only=True)
class At:
    """The values of a metric at registered steps, ``<name>_at_<step>``.

    Args:
        metric: such as test/performance/accuracy.
        steps: optimizer steps at which it is measured. At another step, or if training ends before it, there is no
            value.
    """

    metric: str
    steps: Sequence[int]

    def __post_init__(self) -> None:
        check_metric(self.metric)
        object.__setattr__(self, "steps", _steps(self.steps))

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, curves: Mapping[str, Curve]) -> dict[str, Estimate]:
        return {f"at_{step}": _at(curves, self.metric, step) for step in self.steps}


@dataclass(frozen=True, kw_only=True)
class Along:
    """The values of a family of metrics, each at a step of its own, ``<name>_<k>`` of the k-th: accuracies on data that
    drift while the network trains on, say, each when the drift is there.

    Args:
        metric: with one ``*`` in place of the numbers 0, 1 and so on, such as test/robustness/drift_shear_*.
        steps: for each number an optimizer step at which the metric is measured; the same one again keeps the network.
    """

    metric: str
    steps: Sequence[int]

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or self.metric.count("*") != 1:
            raise ValueError(f"metric is {self.metric!r}; accepted: a metric with one * in place of the numbers")
        if not isinstance(self.steps, Sequence) or not self.steps:
            raise ValueError(f"steps is {self.steps!r}; accepted: a list of steps")
        for each in self.metrics:
            check_metric(each)
        object.__setattr__(self, "steps", tuple(check_integer("steps", step, least=1) for step in self.steps))

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.metric.replace("*", str(k)) for k in range(len(self.steps)))

    def __call__(self, curves: Mapping[str, Curve]) -> dict[str, Estimate]:
        return {
            str(k): _at(curves, metric, step)
            for k, (metric, step) in enumerate(zip(self.metrics, self.steps, strict=True))
        }


@dataclass(frozen=True, kw_only=True)
class First:
    """The first step at which a metric is at least, or at most, a level.

    It is seen at the next measurement: ``interval`` is (the last step measured before, this one). ``None``, "not
    reached", if no measurement is there; or with ``censor`` the last step measured, which the first one at the level
    exceeds, and ``<name>_censored`` is 1 of such a bound, else 0.

    Args:
        metric: such as train/performance/accuracy.
        at_least, at_most: the level; one of the two.
        censor: whether a curve that does not reach it has the last step instead of no number.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    censor: bool = False

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(
                f"at_least is {self.at_least!r} and at_most {self.at_most!r}; accepted: a number for one of the two"
            )
        check_number("at_least" if self.at_most is None else "at_most", self._level)
        check_flag("censor", self.censor)

    @property
    def _level(self) -> float:
        level = self.at_least if self.at_most is None else self.at_most
        assert level is not None
        return level

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, curves: Mapping[str, Curve]) -> Estimate | dict[str, Estimate]:
        found = self.step(curves)
        if isinstance(found, str):
            last = _known(curves[self.metric])[-1:] if self.censor else []
            first = Estimate(last[0][0] if last else None, note=found)
        else:
            before = max((step for step, _ in curves[self.metric] if step < found), default=0)
            first = Estimate(found, interval=(before, found))
        if not self.censor:
            return first
        censored = None if first.value is None else float(isinstance(found, str))
        return {"": first, "censored": Estimate(censored, note=first.note)}

    def step(self, curves: Mapping[str, Curve]) -> int | str:
        """See :class:`When`."""
        reached = operator.le if self.at_least is None else operator.ge
        known = _known(curves[self.metric])
        found = next((step for step, value in known if reached(value, self._level)), None)
        if found is not None:
            return found
        sign = "at most" if self.at_least is None else "at least"
        if not known:
            return _unknown(self.metric)
        return f"{MISSED}: {self.metric} {sign} {self._level:g} in {curves[self.metric][-1][0]} steps"


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of a metric over registered steps.

    Args:
        metric: such as test/performance/soft_error.
        steps: optimizer steps at which it is measured; ``None`` for all. If one has no value, the mean has none.
    """

    metric: str
    steps: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_metric(self.metric)
        object.__setattr__(self, "steps", None if self.steps is None else _steps(self.steps))

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, curves: Mapping[str, Curve]) -> Estimate:
        steps = [step for step, _ in curves[self.metric]] if self.steps is None else self.steps
        found = [_at(curves, self.metric, step) for step in steps]
        if missing := [each for each in found if each.value is None]:
            return missing[0]
        if not found:
            return Estimate(None, note=_unknown(self.metric))
        return Estimate(sum(each.value for each in found if each.value is not None) / len(found))


@dataclass(frozen=True, kw_only=True)
class Largest:
    """The largest value of a metric, ``<name>``, and the first step at which it has it, ``<name>_step``.

    Args:
        metric: such as val/performance/accuracy.
    """

    metric: str
    _sign = 1

    def __post_init__(self) -> None:
        check_metric(self.metric)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, curves: Mapping[str, Curve]) -> dict[str, Estimate]:
        step = self.step(curves)
        if isinstance(step, str):
            return _without_step(step)
        return {"": _at(curves, self.metric, step), "step": Estimate(step)}

    def step(self, curves: Mapping[str, Curve]) -> int | str:
        """See :class:`When`."""
        known = _known(curves[self.metric])
        return max(known, key=lambda each: self._sign * each[1])[0] if known else _unknown(self.metric)


@dataclass(frozen=True, kw_only=True)
class Smallest(Largest):
    """The smallest value of a metric, ``<name>``, and the first step at which it has it, ``<name>_step``.

    Args:
        metric: such as test/performance/cross_entropy.
    """

    _sign = -1


@dataclass(frozen=True, kw_only=True)
class Value:
    """The value of a metric at the step that another reducer chooses: train accuracy where validation accuracy is
    largest, say.

    Args:
        metric: such as train/performance/accuracy.
        when: :class:`First`, :class:`Largest`, :class:`Smallest` or :class:`Fall`, whose step it is.
    """

    metric: str
    when: When

    def __post_init__(self) -> None:
        check_metric(self.metric)
        check_when("when", self.when)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, *self.when.metrics)

    def __call__(self, curves: Mapping[str, Curve]) -> Estimate:
        step = self.when.step(curves)
        return Estimate(None, note=step) if isinstance(step, str) else _at(curves, self.metric, step)


@dataclass(frozen=True, kw_only=True)
class Fall:
    """The fall of a metric from its peak to the end, ``<name>``, and the step of the peak, ``<name>_step``.

    With s the means of each ``window`` consecutive measurements: max s − the last s, at least 0. The step is that of
    the measurement in the middle of the window of the peak. Without smoothing the maximum of a curve that is flat but
    for noise would lie above its end.

    Args:
        metric: such as train/information/layers.2.
        window: measurements in a mean, odd.
        start: the first step that counts, so that what the initial weights show is no peak.
    """

    metric: str
    window: int
    start: int = 1

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if check_integer("window", self.window, least=1, note="odd") % 2 == 0:
            raise ValueError(f"window is {self.window!r}; accepted: an odd number, as its middle is a measurement")
        check_integer("start", self.start, least=1)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, curves: Mapping[str, Curve]) -> dict[str, Estimate]:
        smooth = self._smooth(curves)
        if isinstance(smooth, str):
            return _without_step(smooth)
        step, peak = max(smooth, key=lambda each: each[1])
        return {"": Estimate(peak - smooth[-1][1]), "step": Estimate(step)}

    def step(self, curves: Mapping[str, Curve]) -> int | str:
        """See :class:`When`."""
        smooth = self._smooth(curves)
        return smooth if isinstance(smooth, str) else max(smooth, key=lambda each: each[1])[0]

    def _smooth(self, curves: Mapping[str, Curve]) -> list[tuple[int, float]] | str:
        """Return (step, mean) of each window, or the reason why there is none."""
        curve = [(step, value) for step, value in curves[self.metric] if step >= self.start]
        known = _known(curve)
        if len(known) < len(curve):
            return f"{self.metric} is null in {len(curve) - len(known)} of {len(curve)} measurements"
        windows = [known[i : i + self.window] for i in range(len(known) - self.window + 1)]
        if not windows:
            return f"{self.metric} has {len(known)} measurements, fewer than the window of {self.window}"
        return [(some[self.window // 2][0], sum(value for _, value in some) / self.window) for some in windows]


@dataclass(frozen=True, kw_only=True)
class Wasserstein:
    """How far the distribution of a metric over the examples moved between registered steps, as ``<name>_at_<b>`` from
    each step a to the next, b: W₁ = ∫|Q_b(p) - Q_a(p)| dp, Q its quantiles.

    The integral is the mean over ``percentiles``, the middles of K equal shares (the midpoint rule): of a distribution
    that shifts as a whole it is exact; what moves within a share, such as the outermost examples, is not seen.

    Args:
        metric: of the quantiles, with one ``*`` in place of the percentile, such as
            train/margin/normalized_margin_q*.
        percentiles: 100 (i + ½) / K for i = 0 … K - 1, such as 5, 15, …, 95.
        steps: optimizer steps at which they are measured, at least two, in ascending order. Where one of two steps has
            no value, the distance between them has none.

    Source: Vallender 1974, Calculation of the Wasserstein distance between probability distributions on the line.
    """

    metric: str
    percentiles: Sequence[float]
    steps: Sequence[int]

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if self.metric.count("*") != 1:
            raise ValueError(f"metric is {self.metric!r}; accepted: a name with one * in place of the percentile")
        object.__setattr__(self, "percentiles", _middles(self.percentiles))
        object.__setattr__(self, "steps", _steps(self.steps))
        if len(self.steps) < 2 or list(self.steps) != sorted(self.steps):
            raise ValueError(f"steps is {list(self.steps)!r}; accepted: at least two, in ascending order")

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.metric.replace("*", f"{q:g}") for q in self.percentiles)

    def __call__(self, curves: Mapping[str, Curve]) -> dict[str, Estimate]:
        return {f"at_{after}": self._distance(curves, before, after) for before, after in pairwise(self.steps)}

    def _distance(self, curves: Mapping[str, Curve], before: int, after: int) -> Estimate:
        total = 0.0
        for metric in self.metrics:
            a, b = _at(curves, metric, before), _at(curves, metric, after)
            if a.value is None or b.value is None:
                return a if a.value is None else b
            total += abs(b.value - a.value)
        return Estimate(total / len(self.metrics))


def _known(curve: Curve) -> list[tuple[int, float]]:
    return [(step, value) for step, value in curve if value is not None]


def _unknown(metric: str) -> str:
    return f"{metric} is null in every measurement"


def _without_step(note: str) -> dict[str, Estimate]:
    return {"": Estimate(None, note=note), "step": Estimate(None, note=note)}


def _at(curves: Mapping[str, Curve], metric: str, step: int) -> Estimate:
    curve = dict(curves[metric])
    if step in curve:
        value = curve[step]
        return Estimate(value, note=f"{metric} is null at step {step}" if value is None else None)
    before = max((other for other in curve if other < step), default=None)
    after = min((other for other in curve if other > step), default=None)
    near = " and ".join(str(other) for other in (before, after) if other is not None)
    return Estimate(None, note=f"{metric} is not measured at step {step}, but at {near}")


def check_metric(metric: Any) -> None:
    """Refuse what is no name of a metric."""
    if not isinstance(metric, str) or metric.count("/") < 2:
        raise ValueError(f"metric is {metric!r}; accepted: split/family/name, such as test/performance/accuracy")


def check_when(name: str, when: Any) -> None:
    """Refuse what is no reducer that chooses a step."""
    if not hasattr(when, "step"):
        raise ValueError(f"{name} is {when!r}; accepted: First, Largest, Smallest, Fall")


def _steps(steps: Any) -> list[int]:
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise ValueError(f"steps is {steps!r}; accepted: a list of optimizer steps")
    found = [check_integer(f"steps[{index}]", step, least=1) for index, step in enumerate(steps)]
    if len(set(found)) < len(found):
        raise ValueError(f"steps is {list(steps)!r}; accepted: each step once")
    return found


def _middles(percentiles: Any) -> list[float]:
    if not isinstance(percentiles, Sequence) or isinstance(percentiles, str) or not percentiles:
        raise ValueError(f"percentiles is {percentiles!r}; accepted: a list of percentiles")
    found = [check_number(f"percentiles[{index}]", q, low=0, high=100) for index, q in enumerate(percentiles)]
    middles = [100 * (index + 0.5) / len(found) for index in range(len(found))]
    if any(abs(q - middle) > 1e-6 for q, middle in zip(found, middles, strict=True)):
        told = ", ".join(f"{q:g}" for q in middles[:2])
        raise ValueError(
            f"percentiles is {list(percentiles)!r}; accepted: the middles of equal shares, of {len(found)} {told}, …"
        )
    return found
