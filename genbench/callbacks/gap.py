"""The train–test gap while a network trains."""

import pytorch_lightning as pl

from genbench.callbacks.base import SPLITS, Measuring
from genbench.measures import Estimate
from genbench.measures.base import attempt, reason
from genbench.measures.gap import PERFORMANCE, gaps


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
            except Exception as error:  # neither weights nor data that cannot be measured end a training
                found[split] = {name: Estimate(None, note=reason(error)) for name in PERFORMANCE}
                continue
            if snapshot is not None:
                with snapshot.measuring():  # entered once for all
                    found[split] = {}
                    for name, measure in PERFORMANCE.items():
                        found[split] |= attempt(name, measure, snapshot)
        results = {f"{split}/performance/{name}": e for split, values in found.items() for name, e in values.items()}
        for split in found.keys() - {"train"}:
            different = gaps(found[split], found.get("train", {}))
            results |= {f"{split}/gap/{name}": estimate for name, estimate in different.items()}
        return results
