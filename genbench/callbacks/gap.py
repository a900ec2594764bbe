"""Measure the train–test gap during training."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from genbench.callbacks.base import Measuring
from genbench.callbacks.splits import SPLITS
from genbench.measures import Estimate, Snapshot
from genbench.measures.base import reason
from genbench.measures.gap import LOSS, PERFORMANCE, SIGNS, performance_and_gaps


class Gap(Measuring):
    """Measures performance on train, val and test by full passes with the current weights, and the gaps.

    Keys are ``split/performance/{accuracy, cross_entropy, soft_error, calibration_error}`` on every split, and
    ``split/gap/{accuracy, cross_entropy, soft_error}`` on val and test: train − split for accuracy, split − train for
    the others. If outputs are not logits of labels, as in regression, the keys are ``split/performance/loss`` and
    ``split/gap/loss`` of the given loss. Arguments are those of :class:`Measuring`.
    """

    _findings: dict[str, dict[str, Any]]  # by split, the same at all epochs

    def keys(self, splits: Sequence[str]) -> list[str]:
        performance = [f"{split}/performance/{name}" for split in splits for name in (*PERFORMANCE, *LOSS)]
        return performance + [f"{split}/gap/{name}" for split in splits if split != "train" for name in SIGNS]

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        return self.part(pl_module, "all", lambda: self._measured(trainer, pl_module))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._findings.clear()
        super().on_train_start(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._findings.clear()  # the final network may be another one
        super().on_train_end(trainer, pl_module)

    def _measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        found: dict[str, Snapshot | str] = {}
        first: Snapshot | None = None
        for split in SPLITS:
            try:
                snapshot = self.snapshot(trainer, pl_module, split, of=first)
            except Exception as error:  # a failed measurement never ends training
                found[split] = reason(error)
                continue
            if snapshot is not None:
                first = first or snapshot
                found[split] = snapshot.knowing(self._findings.get(split, {}))
        names = LOSS if any(key.endswith("/performance/loss") for key in self.results) else PERFORMANCE
        results = performance_and_gaps(found, unmeasured=names)
        if all(estimate.value is not None for estimate in results.values()):
            self._findings = {split: each.findings for split, each in found.items() if isinstance(each, Snapshot)}
        return results

    def _reset(self) -> None:
        super()._reset()
        self._findings = {}
