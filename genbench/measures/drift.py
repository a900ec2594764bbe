"""Accuracy along a drift of the data."""

import math
from dataclasses import fields, replace

from genbench.checks import check_choice, check_integer
from genbench.inputs.common_corruptions import CORRUPTIONS, SEVERITIES, corruptions_of
from genbench.measures.base import measure
from genbench.measures.corrupted import INAPPLICABLE, under_corruption
from genbench.measures.performance import accuracy
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("robustness", by_member=False, names=("drift_*",))
def drift_accuracy(
    snapshot: Snapshot,
    *,
    shift: str = "gaussian_noise",
    seed: int = 0,
) -> dict[str, Estimate]:
    """The accuracy while the data drift: ``drift_<shift>_0`` to ``drift_<shift>_5``, on the same examples at severity 0
    (unchanged) to 5.

    Args:
        snapshot: a classifier of sequences [B, C, L] or images [B, C, H, W].
        shift: see :mod:`genbench.inputs.common_corruptions`: of images ``rotation`` (15° a step),
            ``translation`` (5 % of each side a step) or a common corruption; of sequences a corruption.
        seed: of the shift, at least 0.

    Raises:
        ValueError: images outside [0, 1].
    """
    check_integer("seed", seed, least=0)
    check_choice("shift", shift, CORRUPTIONS)
    args, _ = snapshot.first_input
    try:
        known = corruptions_of(args[0])
    except ValueError:
        return {f"drift_{shift}": INAPPLICABLE}
    if shift not in known:
        kind = "sequences" if args[0].ndim == 3 else "images"
        return {f"drift_{shift}": Estimate(None, note=f"undefined: {shift} is no shift of {kind}")}
    return {
        f"drift_{shift}_{severity}": accuracy(
            under_corruption(snapshot, shift, severity, seed=seed) if severity else snapshot
        )
        for severity in range(SEVERITIES + 1)
    }


@measure("robustness", by_member=False, names=("drift_*",))
def generator_drift_accuracy(
    snapshot: Snapshot,
    *,
    parameter: str = "shear",
    end: float = 3.0,
    steps: int = 5,
    examples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The accuracy of a classifier of MNIST-1D while a parameter of the generator of its signals
    (:class:`genbench.data.Signals`) drifts: ``drift_<parameter>_0`` to ``drift_<parameter>_<steps>`` on fresh examples,
    from the value of the frozen set to ``end`` in equal steps. All steps use the same random numbers.

    Args:
        snapshot: a classifier of signals [B, 1, 40]; of its data only the shape counts.
        parameter: ``scale``, ``translation``, ``corr_noise``, ``iid_noise`` or ``shear``.
        end: its last value; see :class:`genbench.data.Signals`.
        steps: at least 1.
        examples: of each step, at least 1.
        seed: of the examples, at least 0.
    """
    from genbench.data.mnist1d_stream import Signals  # with Lightning's data modules
    from genbench.data.stream import some

    names = tuple(field.name for field in fields(Signals))
    check_choice("parameter", parameter, names)
    if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
        raise ValueError(f"end is {end!r}; accepted: a finite number")
    check_integer("steps", steps, least=1)
    check_integer("examples", examples, least=1)
    check_integer("seed", seed, least=0)
    args, _ = snapshot.first_input
    if tuple(args[0].shape[1:]) != (1, 40):
        return {
            f"drift_{parameter}": Estimate(None, note="undefined: inputs are not the signals [B, 1, 40] of MNIST-1D")
        }
    first = getattr(Signals(), parameter)
    found = {}
    for step in range(steps + 1):
        value = first + (end - first) * step / steps
        signals = replace(Signals(), **{parameter: round(value) if parameter == "translation" else value})
        x, y = some(signals, examples, seed=seed, site="drift")
        found[f"drift_{parameter}_{step}"] = accuracy(snapshot.with_batches([(x.to(args[0].dtype), y)]))
    return found
