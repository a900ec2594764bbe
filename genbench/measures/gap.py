"""The gap between a network's performance on its training data and on other data."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from genbench.measures.base import MeasureOf, attempt, measure
from genbench.measures.outputs import read
from genbench.measures.performance import accuracy, calibration_error, cross_entropy, mean_loss, soft_error
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

PERFORMANCE: dict[str, MeasureOf] = {
    "accuracy": accuracy,
    "cross_entropy": cross_entropy,
    "soft_error": soft_error,
    "calibration_error": calibration_error,
}
LOSS: dict[str, MeasureOf] = {"loss": mean_loss}  # where the outputs are no logits
SIGNS = {"accuracy": -1, "cross_entropy": 1, "soft_error": 1, "loss": 1}  # positive where training looks better


@measure("gap", by_member=False, names=("accuracy", "cross_entropy", "soft_error", "loss"))
def generalization_gap(snapshot: Snapshot, train: Snapshot) -> dict[str, Estimate]:
    """``accuracy`` on train − on the snapshot's data, ``cross_entropy`` and ``soft_error`` on the snapshot's data − on
    train: full passes with the same weights, no augmentation, no penalty. Where the outputs are no logits of labels,
    ``loss``, the snapshot's own, on its data − on train.

    The standard error takes the snapshot's data as a sample, and the training set as fixed.
    """
    results: dict[str, Estimate] = {}
    known: dict[str, Estimate] = {}
    with train.measuring():
        for name, function in _of(snapshot).items():
            if name in SIGNS:
                results |= attempt(name, function, snapshot)
                known |= attempt(name, function, train)
    return _gaps(results, known)


def performance_and_gaps(
    snapshots: Mapping[str, Snapshot | str], *, unmeasured: Iterable[str] = PERFORMANCE
) -> dict[str, Estimate]:
    """Performance on each split and the gaps to ``train``, by metric key: ``split/performance/name``,
    ``split/gap/name``. A split without a snapshot gives the reason, under the names of another split, or else
    ``unmeasured``."""
    found: dict[str, dict[str, Estimate]] = {}
    present = {split: snapshot for split, snapshot in snapshots.items() if not isinstance(snapshot, str)}
    with ExitStack() as protection:
        for split, each in present.items():
            protection.enter_context(each.measuring())  # once for all, if they have the same weights
            found[split] = {}
            for name, function in _of(each).items():
                found[split] |= attempt(name, function, each)
            if any(estimate.value is None for estimate in found[split].values()):  # what raised may leave any state
                protection.close()
    names = next(iter(found.values()), unmeasured)
    for split, snapshot in snapshots.items():
        if isinstance(snapshot, str):
            found[split] = {name: Estimate(None, note=snapshot) for name in names}
    found = {split: found[split] for split in snapshots}
    results = {f"{split}/performance/{name}": e for split, values in found.items() for name, e in values.items()}
    for split in found.keys() - {"train"}:
        different = _gaps(found[split], found.get("train", {}))
        results |= {f"{split}/gap/{name}": estimate for name, estimate in different.items()}
    return results


def _of(snapshot: Snapshot) -> dict[str, MeasureOf]:
    """The measures of performance: accuracy and others for a classifier, else its own loss."""
    try:
        reading = read(snapshot)
    except Exception:  # each of them says so
        return PERFORMANCE
    if isinstance(reading, str):
        return LOSS
    return PERFORMANCE if reading.reason is None else {"accuracy": accuracy, **LOSS}


def _gaps(performance: Mapping[str, Estimate], train: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: _difference(e, train.get(name), SIGNS[name]) for name, e in performance.items() if name in SIGNS}


def _difference(other: Estimate, train: Estimate | None, sign: int) -> Estimate:
    if train is None:
        return Estimate(None, note="there is no train split")
    if other.value is None or train.value is None:
        return Estimate(None, note=other.note or train.note)
    low, high = (other.value, train.value) if sign < 0 else (train.value, other.value)
    return Estimate(high - low, stderr=other.stderr)
