"""The largest box around the weights in which no attack that was tried loses a tenth of the examples."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from genbench.measures.margins import signed
from genbench.measures.outputs import Reading
from genbench.measures.perturbations import generator_of, uniform
from genbench.measures.snapshot import Snapshot

_RATE, _LAST = 0.4, 0.05  # of an ascent: its first step relative to the box, and its last relative to the first
_MOMENTUM = 0.8  # of its direction
_RAY = 1.01  # factor within which the shortest breaking point on a ray is found
_RANDOM = 2  # points from which a box is attacked thoroughly, beside those known

Slope = Callable[[Tensor, Tensor], Tensor]


class Attacks:
    """Searches for weights w + scale·u, ‖u‖∞ ≤ α, at which the share of wrong answers has risen by more than ``drop``.

    An ascent takes steps of u by the signs of a slope with momentum 0.8 (Dong et al. 2018, arXiv 1710.06081), the
    first 0.4 α long and the last 0.02 α, cut off at the box, and ends at the first point that breaks it. There are
    three slopes, each of a sum over answers of margin m:

    - ``easiest``: −Σ max(m, 0) over the answers of smallest margin, as many as have to be wrong;
    - ``soft``: Σ σ(−m / τ) over all, τ the size of the largest of those margins;
    - ``loss``: the loss, as in the paper. It makes few examples very wrong.

    Args:
        scale: [size], the unit of u.
        base: the share of wrong answers at w.
    """

    def __init__(
        self, snapshot: Snapshot, reading: Reading, scale: Tensor, *, base: float, drop: float, steps: int, seed: int
    ) -> None:
        self.snapshot, self.reading, self.scale, self.steps = snapshot, reading, scale, steps
        self.allowed = base + drop + 1e-9
        self._cut = self._width = 0.0
        self._easy = snapshot.with_loss(self._of_easiest)
        self._all = snapshot.with_loss(self._of_all)
        self._generator = generator_of(seed, "boxes")

    def quickly(self, alpha: float, known: Tensor | None) -> Tensor | None:
        """A point u that breaks the box, by ``easiest`` from a point ``known`` to break a larger one and from the
        centre; None if both fail."""
        return self._first(self._ascend(u, alpha, self.easiest, self.steps) for u in self._starts(alpha, known))

    def thoroughly(self, alpha: float, known: Tensor | None) -> Tensor | None:
        """The same by all slopes, from random points too, in twice the steps."""
        starts = [
            *self._starts(alpha, known),
            *(alpha * uniform(self.snapshot, self._generator) for _ in range(_RANDOM)),
        ]
        ascents = (
            [(u, self.easiest) for u in starts] + [(u, self.soft) for u in starts[::2]] + [(starts[-1], self.loss)]
        )
        return self._first(self._ascend(u, alpha, slope, 2 * self.steps) for u, slope in ascents)

    def shortest(self, u: Tensor) -> Tensor:
        """The shortest point found on the ray from 0 to u, which breaks its box as u does."""
        low, high = 0.5, 1.0
        while low > 1e-9 and self._look(low * u)[0]:
            low, high = low / 2, low
        while high > low * _RAY:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self._look(middle * u)[0] else (middle, high)
        return high * u

    def easiest(self, u: Tensor, margins: Tensor) -> Tensor:
        self._cut = float(margins.kthvalue(self._needed(margins)).values)
        return -self._easy.gradient_at(self._at(u))[1]

    def soft(self, u: Tensor, margins: Tensor) -> Tensor:
        self._width = max(abs(float(margins.kthvalue(self._needed(margins)).values)), 1e-12)
        return self._all.gradient_at(self._at(u))[1]

    def loss(self, u: Tensor, margins: Tensor) -> Tensor:
        return self.snapshot.gradient_at(self._at(u))[1]

    def _starts(self, alpha: float, known: Tensor | None) -> list[Tensor]:
        centre = torch.zeros_like(self.scale)
        return [centre] if known is None else [known * (alpha / known.abs().max()), centre]

    def _ascend(self, u: Tensor, alpha: float, slope: Slope, steps: int) -> Tensor | None:
        step, falling = _RATE * alpha, _LAST ** (1 / steps)
        direction = torch.zeros_like(u)
        for _ in range(steps):
            broken, margins = self._look(u)
            if broken:
                return u
            rise = (self.scale * slope(u, margins)).nan_to_num()
            direction = _MOMENTUM * direction + rise / rise.abs().mean().clamp_min(1e-300)
            u = (u + step * direction.sign()).clamp(-alpha, alpha)
            step *= falling
        return u if self._look(u)[0] else None

    def _look(self, u: Tensor) -> tuple[bool, Tensor]:
        """Whether too many answers are wrong, and all margins [N], float64, −∞ of outputs that are not finite."""
        wrong, margins = [], []
        for output, target, *_ in self.snapshot.predictions_at(self._at(u)):
            wrong.append(self.reading.wrong(output, target))
            own = self.reading.counted(signed(self.reading, output, target), output, target)
            margins.append(own.nan_to_num(nan=-math.inf))
        return float(torch.cat(wrong).double().mean()) > self.allowed, torch.cat(margins)

    def _needed(self, margins: Tensor) -> int:
        """The number of answers that have to be wrong."""
        return min(math.floor(self.allowed * len(margins)) + 1, len(margins))

    def _of_easiest(self, output: Any, target: Any) -> Tensor:
        m = signed(self.reading, output, target)
        return self._mean(m.clamp_min(0) * (m <= self._cut), output, target)

    def _of_all(self, output: Any, target: Any) -> Tensor:
        m = signed(self.reading, output, target)
        return self._mean(torch.sigmoid(-m / (self._width or 1.0)), output, target)

    def _mean(self, values: Tensor, output: Any, target: Any) -> Tensor:
        """The mean over the examples, with 0 for labels that the loss ignores."""
        return (values * self.reading.counts(output, target) if self.reading.ignored else values).mean()

    def _at(self, u: Tensor) -> Tensor:
        return self.snapshot.vector + self.scale * u

    @staticmethod
    def _first(attempts: Iterator[Tensor | None]) -> Tensor | None:
        return next((u for u in attempts if u is not None), None)


def largest_box(attacks: Attacks, start: float, *, tolerance: float, evaluations: int) -> tuple[float, float, bool]:
    """(low, high, verified): the box ``high`` is broken; ``low`` withstood the attacks on it, those of all kinds where
    ``verified``. 0 and ∞ where none was found.

    Each point that breaks a box is drawn in along its ray, and is where the attack on the next smaller box starts."""
    low, high, known = 0.0, math.inf, None
    trial, reach = start, 1 + tolerance
    for _ in range(evaluations):
        verifying = high <= low * (1 + tolerance)
        found = attacks.thoroughly(low, known) if verifying else attacks.quickly(trial, known)
        if found is None and verifying:
            return low, high, True
        if found is None:
            low = trial
        else:
            known = attacks.shortest(found)
            high = float(known.abs().max())
            if verifying:  # a box that withstood weaker attacks proves nothing
                low, reach = 0.0, 1 + tolerance
        if high == math.inf:
            trial = 4 * low
        elif low == 0:
            trial, reach = high / reach, reach**2
        else:
            trial = math.sqrt(low * high)
    return low, high, False
