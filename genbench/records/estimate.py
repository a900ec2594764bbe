"""A measured number with its error."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of a measure, how sure it is, and what it cost.

    ``value`` is ``None`` where the measure is undefined or could not be computed; ``note`` then says why. ``stderr`` is
    the standard error of a stochastic measure, ``None`` for an exact one. ``converged`` and ``residual`` belong to
    iterative measures, ``interval`` to a search: the value lies between its ends. ``seconds`` is wall-clock time.
    """

    value: float | None
    stderr: float | None = None
    converged: bool | None = None
    residual: float | None = None
    interval: tuple[float, float] | None = None
    seconds: float = 0.0
    note: str | None = None
