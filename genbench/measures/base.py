"""Parts that all measures share: timing, restoring the network, ensembles; and the evaluation of a set of measures."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial, wraps
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import nn

from genbench.measures.measure_progress import MeasureProgress
from genbench.measures.precision import precise
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

P = ParamSpec("P")
Result = TypeVar("Result", Estimate, dict[str, Estimate])
Measure = Callable[Concatenate[Snapshot, P], Result]
MeasureOf = Callable[[Snapshot], Estimate | dict[str, Estimate]]  # one whose settings are given


def measure(
    family: str,
    *,
    of_weights: bool = False,
    names: Sequence[str] = (),
    by_member: bool = True,
    moves: bool | None = False,
    passes: Callable[[Mapping[str, Any]], int] | None = None,
    check: Callable[[nn.Module, Mapping[str, Any]], None] | None = None,
) -> Callable[[Measure[P, Result]], Measure[P, Result]]:
    """Turn a function of a snapshot into a measure: run it inside ``snapshot.measuring()``, fill in the seconds, and
    replace a value that is not finite by ``None`` with a note.

    ``passes`` maps the settings to the maximum number of passes over the data, for progress messages. ``check`` refuses
    settings that a network does not take: see :func:`check_network`. A measure of
    flatness is computed in the precision that it needs, which is higher for one that ``moves`` the weights: see
    :mod:`genbench.measures.precision`; with ``moves=None`` it chooses that itself. Estimates of more than the weights
    carry the snapshot's note on its loss.

    ``names`` are those of the estimates of a measure that returns several, ``*`` in place of what depends on the
    network or on settings; without them a claim on a misspelt name is refused only after training.

    ``family`` and the split it is measured on are the first parts of its metric key, ``split/family/name``; of a
    measure ``of_weights``, which needs neither data nor loss, ``weights/family/name``. Both are attributes of the
    function.

    For an ensemble (a network with a module list ``members``) the value is the mean over its members, its standard
    error that of the mean, and a note says so; with ``by_member=False`` the ensemble is one network.
    """

    def decorate(function: Measure[P, Result]) -> Measure[P, Result]:
        def taken(snapshot: Snapshot, /, *args: P.args, **settings: P.kwargs) -> Result:
            if of_weights:
                result = function(snapshot, *args, **settings)
                return _noted(result, snapshot.note_of_weights)
            rounding = None
            if family == "flatness" and moves is not None:
                snapshot, rounding = precise(snapshot, moved=moves)
            with snapshot.measuring():
                result = function(snapshot, *args, **settings)
            for note in (rounding, snapshot.note_of_weights, snapshot.note):
                result = _noted(result, note)
            return result

        @wraps(function)
        def measured(snapshot: Snapshot, /, *args: P.args, **settings: P.kwargs) -> Result:
            start = perf_counter()
            with snapshot.measuring():
                members = snapshot.members if by_member else []
                if members:
                    results = []
                    for member in members:
                        with member.measuring():
                            results.append(taken(member, *args, **settings))
                    result = _mean(results)
                else:
                    result = taken(snapshot, *args, **settings)
                if not isinstance(result, Estimate | dict):
                    accepted = "an Estimate, or several in a dict by name"
                    raise TypeError(f"a measure returned {result!r}; accepted: {accepted}")
            seconds = perf_counter() - start
            if isinstance(result, Estimate):
                return _finish(result, seconds)
            # one computation gives all of them: each carries its share
            return {key: _finish(estimate, seconds / len(result)) for key, estimate in result.items()}

        measured.family, measured.of_weights = family, of_weights  # type: ignore[attr-defined]
        measured.names = tuple(names)  # type: ignore[attr-defined]
        measured.passes, measured.check = passes, check  # type: ignore[attr-defined]
        return measured

    return decorate


def evaluate(
    measures: Mapping[str, MeasureOf],
    snapshot: Snapshot,
    *,
    split: str,
    few: Snapshot | None = None,
    known: Mapping[str, Mapping[str, Estimate]] | None = None,
    keep: Callable[[str, dict[str, Estimate]], None] | None = None,
) -> dict[str, Estimate]:
    """The estimates of a set of measures by metric key: ``split/family/name``, or ``weights/family/name``.

    ``name`` is the measure's name in the set, or the name under which it returns an estimate. A function without a
    family (see :func:`measure`) has ``other``. A measure that fails gives an estimate without a value, with the reason:
    see :func:`attempt`.

    Args:
        measures: name -> function of a snapshot.
        snapshot: network, loss and data.
        split: name of the data's split.
        few: the same network on some of the data, for curvature and sharpness.
        known: earlier estimates by the measure's name and by key; these measures are not repeated.
        keep: called with each measure's name and its estimates by key as soon as they are computed.
    """
    results: dict[str, Estimate] = {}
    watch = MeasureProgress([name for name in measures if name not in (known or {})])
    with ExitStack() as protection:
        protection.enter_context(snapshot.measuring())  # once for all
        protection.enter_context(snapshot.reporting(watch))
        for name, function in measures.items():
            prefix = key_prefix(function, split)
            if known and name in known:
                results |= known[name]
                continue
            timed: Any = function if hasattr(_declared(function), "family") else measure("other")(function)
            watch.begin(name, _bound(function))
            found = attempt(name, timed, few if few is not None and of_flatness(function) else snapshot)
            if keep is not None:
                keep(name, {f"{prefix}/{entry}": estimate for entry, estimate in found.items()})
            if name in found and found[name].value is None:  # a measure that raised may leave the network in any state
                protection.close()
                protection.enter_context(snapshot.measuring())
                protection.enter_context(snapshot.reporting(watch))
            for entry, estimate in found.items():
                key = f"{prefix}/{entry}"
                if key in results and results[key].value != estimate.value:
                    estimate = Estimate(None, note="several measures give this key, and different values")
                results[key] = estimate
    return results


class _Unseen(Snapshot):
    """Placeholder for a snapshot: a measure that reads an attribute of it has accepted its settings."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        raise _Looked


class _Looked(BaseException):
    pass


def check_settings(measures: Mapping[str, MeasureOf]) -> None:
    """Let measures check their settings without a snapshot, as far as they do before they read it.

    Raises:
        ValueError: a measure fails before it reads the snapshot, so that it would always fail.
    """
    for name, function in measures.items():
        settings: dict[str, Any] = {}
        plain: Any = function
        while isinstance(plain, partial):
            settings = {**plain.keywords, **settings}
            plain = plain.func
        if hasattr(plain, "family"):  # without what measure() adds, which looks at once
            plain = plain.__wrapped__
        if of_train(function):
            settings["train"] = _Unseen()
        try:
            plain(_Unseen(), **settings)
        except _Looked:
            continue
        except Exception as error:
            text = reason(error)
            own = text.partition(" ")[0] in settings
            raise ValueError(f"measures.{name}{'.' if own else ': '}{text}") from error


def key_prefix(function: MeasureOf, split: str) -> str:
    """The part of a measure's metric key before its name."""
    return f"{split if needs_data(function) else 'weights'}/{getattr(_declared(function), 'family', 'other')}"


def needs_data(function: MeasureOf) -> bool:
    """Whether a measure needs data or loss."""
    return not getattr(_declared(function), "of_weights", False)


def names_of(name: str, function: MeasureOf) -> tuple[str, ...]:
    """The names of the estimates of a measure that is called ``name``, as far as it says; ``*`` stands for what is not
    known."""
    declared = _declared(function)
    if inspect.signature(declared).return_annotation in (Estimate, "Estimate"):
        return (name,)
    return getattr(declared, "names", ()) or ("*",)


def of_train(function: MeasureOf) -> bool:
    """Whether a measure compares its data with those of training, a second snapshot ``train``."""
    bound = function.keywords if isinstance(function, partial) else {}
    parameter = inspect.signature(_declared(function)).parameters.get("train")
    return parameter is not None and parameter.default is parameter.empty and "train" not in bound


def of_flatness(function: MeasureOf) -> bool:
    """Whether a measure is one of curvature or sharpness, which makes many passes over the data."""
    return needs_data(function) and getattr(_declared(function), "family", None) == "flatness"


def check_network(measures: Mapping[str, MeasureOf], model: nn.Module) -> None:
    """Let measures that name a part of the network look for it, before it is trained.

    Raises:
        ValueError: a setting that this network does not take.
    """
    members = getattr(model, "members", None)
    one = members[0] if isinstance(members, nn.ModuleList) and len(members) else model  # measured by member
    for name, function in measures.items():
        declared: Any = _declared(function)
        settings = _settings(function)
        if getattr(declared, "check", None) is not None:
            try:
                declared.check(one, settings)
            except ValueError as error:
                raise ValueError(f"measures.{name}.{error}") from error


def _bound(function: MeasureOf) -> int | None:
    """The maximum number of passes of a measure, if it declares one."""
    declared: Any = _declared(function)
    if getattr(declared, "passes", None) is None:
        return None
    return declared.passes(_settings(function))


def _settings(function: MeasureOf) -> dict[str, Any]:
    """The settings of a measure: those that were bound, else its defaults."""
    bound: dict[str, Any] = {}
    while isinstance(function, partial):
        bound = {**function.keywords, **bound}
        function = function.func
    return {name: p.default for name, p in inspect.signature(function).parameters.items()} | bound


def attempt(name: str, function: MeasureOf, snapshot: Snapshot) -> dict[str, Estimate]:
    """The estimates of a measure by name; if it raises, one without a value and with the reason."""
    start = perf_counter()
    try:
        result = function(snapshot)
    except Exception as error:  # a faulty measure must not end the training
        result = Estimate(None, note=reason(error), seconds=perf_counter() - start)
    return {name: result} if isinstance(result, Estimate) else result


def reason(error: Exception) -> str:
    """The message of an error in one line; of errors other than ValueError with their type."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _declared(function: MeasureOf) -> MeasureOf:
    """The function whose settings were bound."""
    while isinstance(function, partial):
        function = function.func
    return function


def _noted(result: Result, note: str | None) -> Result:
    if note is None or not isinstance(result, Estimate | dict):
        return result
    if isinstance(result, Estimate):
        return replace(result, note="; ".join(filter(None, (result.note, note))))
    return {key: _noted(estimate, note) for key, estimate in result.items()}


def _finish(estimate: Estimate, seconds: float) -> Estimate:
    if estimate.value is not None and not math.isfinite(estimate.value):
        estimate = Estimate(None, note=f"the value is {estimate.value}")
    if estimate.stderr is not None and not math.isfinite(estimate.stderr):
        estimate = replace(estimate, stderr=None)
    return replace(estimate, seconds=seconds)


def _mean(results: Sequence[Result]) -> Result:
    first = results[0]
    if isinstance(first, Estimate):
        return _mean_estimate(results)
    keys = [key for key in first if all(key in result for result in results)]
    return {key: _mean_estimate([result[key] for result in results]) for key in keys}


def _mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    n = len(estimates)
    missing = [e for e in estimates if e.value is None]
    if missing:
        return missing[0]
    errors = [e.stderr for e in estimates if e.stderr is not None]
    flags = [e.converged for e in estimates if e.converged is not None]
    residuals = [e.residual for e in estimates if e.residual is not None]
    intervals = [e.interval for e in estimates if e.interval is not None]
    return Estimate(
        sum(e.value for e in estimates if e.value is not None) / n,
        stderr=math.sqrt(sum(e**2 for e in errors)) / n if errors else None,
        converged=all(flags) if flags else None,
        residual=max(residuals) if residuals else None,
        interval=(sum(low for low, _ in intervals) / n, sum(high for _, high in intervals) / n) if intervals else None,
        note="; ".join(dict.fromkeys([f"mean of {n} members", *(e.note for e in estimates if e.note)])),
    )
