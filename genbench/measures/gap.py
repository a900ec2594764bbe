"""The gap between what a network does on the data it was trained on and on others."""

from collections.abc import Mapping

from genbench.measures.base import attempt, measure
from genbench.measures.estimate import Estimate
from genbench.measures.performance import accuracy, calibration_error, cross_entropy, soft_error
from genbench.measures.snapshot import Snapshot

PERFORMANCE = {
    "accuracy": accuracy,
    "cross_entropy": cross_entropy,
    "soft_error": soft_error,
    "calibration_error": calibration_error,
}
_SIGNS = {"accuracy": -1, "cross_entropy": 1, "soft_error": 1}  # a gap is positive where training looks better


@measure("gap", by_member=False)
def generalization_gap(snapshot: Snapshot, train: Snapshot) -> dict[str, Estimate]:
    """``accuracy`` on train − on the snapshot's data, ``cross_entropy`` and ``soft_error`` on the snapshot's data − on
    train: full passes with the same weights, no augmentation, no penalty.

    The standard error is that of the snapshot's data as a sample; the training set is what it is.
    """
    results: dict[str, Estimate] = {}
    known: dict[str, Estimate] = {}
    with train.measuring():
        for name in _SIGNS:
            results |= attempt(name, PERFORMANCE[name], snapshot)
            known |= attempt(name, PERFORMANCE[name], train)
    return _gaps(results, known)


def performance_and_gaps(snapshots: Mapping[str, Snapshot | str]) -> dict[str, Estimate]:
    """Performance on each split and the gaps to ``train``, by metric key: ``split/performance/name``,
    ``split/gap/name``. Where a split could not be made a snapshot of, the reason stands in its place."""
    found: dict[str, dict[str, Estimate]] = {}
    for split, snapshot in snapshots.items():
        if isinstance(snapshot, str):
            found[split] = {name: Estimate(None, note=snapshot) for name in PERFORMANCE}
        else:
            with snapshot.measuring():  # entered once for all
                found[split] = {}
                for name, function in PERFORMANCE.items():
                    found[split] |= attempt(name, function, snapshot)
    results = {f"{split}/performance/{name}": e for split, values in found.items() for name, e in values.items()}
    for split in found.keys() - {"train"}:
        different = _gaps(found[split], found.get("train", {}))
        results |= {f"{split}/gap/{name}": estimate for name, estimate in different.items()}
    return results


def _gaps(performance: Mapping[str, Estimate], train: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: _difference(performance[name], train.get(name), sign) for name, sign in _SIGNS.items()}


def _difference(other: Estimate, train: Estimate | None, sign: int) -> Estimate:
    if train is None:
        return Estimate(None, note="there is no train split")
    if other.value is None or train.value is None:
        return Estimate(None, note=other.note or train.note)
    low, high = (other.value, train.value) if sign < 0 else (train.value, other.value)
    return Estimate(high - low, stderr=other.stderr)
