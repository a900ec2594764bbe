"""The train–test gap while a network trains."""

import pytorch_lightning as pl

from genbench.callbacks.base import SPLITS, Measuring, attempt
from genbench.measures import Estimate, accuracy, calibration_error, cross_entropy, soft_error

_MEASURES = {
    "accuracy": accuracy,
    "cross_entropy": cross_entropy,
    "soft_error": soft_error,
    "calibration_error": calibration_error,
}
_SIGNS = {"accuracy": -1, "cross_entropy": 1, "soft_error": 1}  # a gap is positive where training looks better


class Gap(Measuring):
    """Performance on train, val and test by full passes with the current weights, and its gaps.

    ``split/performance/{accuracy, cross_entropy, soft_error, calibration_error}`` on every split there is;
    ``split/gap/{accuracy, cross_entropy, soft_error}`` on val and test: train − split for accuracy, split − train for
    the others. Arguments are those of :class:`Measuring`.
    """

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        found: dict[str, dict[str, Estimate]] = {}
        for split in SPLITS:
            try:
                snapshot = self.snapshot(trainer, pl_module, split)
            except ValueError as error:
                found[split] = {name: Estimate(None, note=str(error)) for name in _MEASURES}
                continue
            if snapshot is not None:
                with snapshot.measuring():  # entered once for all
                    found[split] = {}
                    for name, measure in _MEASURES.items():
                        found[split] |= attempt(name, measure, snapshot)
        results = {f"{split}/performance/{name}": e for split, values in found.items() for name, e in values.items()}
        train = found.get("train", {})
        for split in found.keys() - {"train"}:
            for name, sign in _SIGNS.items():
                results[f"{split}/gap/{name}"] = _difference(found[split][name], train.get(name), sign)
        return results


def _difference(other: Estimate, train: Estimate | None, sign: int) -> Estimate:
    if train is None:
        return Estimate(None, note="there is no train split")
    if other.value is None or train.value is None:
        return Estimate(None, note=other.note or train.note)
    return Estimate(sign * (other.value - train.value))
