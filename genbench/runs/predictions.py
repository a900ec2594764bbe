"""What the runs of a folder predict on one split, for statistics over many runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench import records
from genbench.checks import ConfigError, nearest
from genbench.measures.outputs import with_logits
from genbench.measures.performance import labelled
from genbench.measures.snapshot import Snapshot
from genbench.records.settings import described, differing
from genbench.runs.build import quiet
from genbench.runs.subject import load

_LOSS = {"_target_": "torch.nn.functional.cross_entropy", "_partial_": True}


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of several runs on the same examples.

    Attributes:
        run_ids: of the runs.
        seeds: their seeds, of initial weights, order and random numbers.
        subsets: the seeds of their data, which choose the training subset.
        log_probabilities: [runs, examples, classes], float64.
        labels: [examples].
        trained_on: whether a run was trained on an example, bool [runs, examples]; ``None`` where it is not known.
    """

    run_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    subsets: tuple[int, ...]
    log_probabilities: np.ndarray
    labels: np.ndarray
    trained_on: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """[runs, examples, classes], float64."""
        return np.exp(self.log_probabilities)

    @property
    def right(self) -> np.ndarray:
        """Whether a run answers an example right, bool [runs, examples]."""
        return self.log_probabilities.argmax(2) == self.labels


def predictions(
    folder: str | Path,
    *,
    split: str = "test",
    run_ids: Sequence[str] | None = None,
    data_path: str | None = None,
    trust: bool = False,
) -> Predictions:
    """The predictions of the completed runs of one configuration in a folder ``runs/<experiment>``.

    Args:
        folder: of the experiment.
        split: test, val, or with one ``data.seed`` train; the same examples in all runs.
        run_ids: of the runs, where the folder holds several configurations; all by default.
        data_path: where the data lie now, of runs that were trained on files.
        trust: whether to execute code that runs of somebody else name.

    Raises:
        ConfigError: runs of several configurations, or none; a run that cannot be read or loaded, that is no
            classifier, or that has other examples than the first; in one line.
    """
    chosen = _chosen(Path(folder), run_ids)
    found: list[Tensor] = []
    seen: list[Tensor] = []
    first: tuple[Tensor, Tensor] | None = None
    for record in chosen:
        run = Path(folder) / record["run_id"]
        data = {} if data_path is None else {"path": data_path}
        with quiet():
            subject = load(
                {"checkpoint": str(run), "key": None, "initial": None, "data": data, "model": {}, "device": "auto"}
                | {"trust": trust, "seed": 0, "loss": _LOSS}
            )
        if split not in subject.present:
            raise ConfigError(f"split={split} is not there; accepted: {', '.join(subject.present)}")
        batches = list(subject.batches(split, None, {}).batches)
        x, y = (torch.cat([batch[index] for batch in batches]) for index in (0, 1))
        if first is None:
            first = x, y
        elif not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, (x, y), strict=True)):
            raise ConfigError(f"run {run.name} has other examples in {split} than {chosen[0]['run_id']}")
        snapshot = Snapshot(subject.network, torch.nn.functional.cross_entropy, batches)
        known = labelled(snapshot)
        if isinstance(known, str) or isinstance(with_logits(snapshot), str):
            raise ConfigError(f"run {run.name} has no probabilities: {known}")
        found.append(known[0].cpu())
        if hasattr(subject.data, "trained_on"):
            seen.append(subject.data.trained_on(split).any(1))
        labels = known[1].cpu().numpy()
    return Predictions(
        tuple(record["run_id"] for record in chosen),
        tuple(record["seed"] for record in chosen),
        tuple(_subset(record) for record in chosen),
        torch.stack(found).double().numpy(),
        labels,
        torch.stack(seen).numpy() if len(seen) == len(found) else None,
    )


def _chosen(folder: Path, run_ids: Sequence[str] | None) -> list[dict[str, Any]]:
    loaded = records.load(folder)
    by_id = {record["run_id"]: record for record in loaded.records}
    if run_ids is not None:
        if strange := [run_id for run_id in run_ids if run_id not in by_id]:
            raise ConfigError(f"run_ids has {strange[0]!r}; {nearest(strange[0], list(by_id))}")
        by_id = {run_id: by_id[run_id] for run_id in run_ids}
    elif unread := [f"{path} {reason}" for path, reason in loaded.problems if path.endswith(records.RECORD)]:
        raise ConfigError(f"{folder.name} has a run that cannot be read: {unread[0]}; accepted: run_ids of the others")
    found = [record for record in by_id.values() if record["status"] == "completed"]
    if not found:
        raise ConfigError(f"{folder.name} has no completed run; accepted: a folder runs/<experiment> of runs")
    if len({records.configuration(record["config"]) for record in found}) > 1:
        flat = [records.flatten(record["config"]) for record in found]
        others = [{key: value for key, value in each.items() if key.rpartition(".")[2] != "seed"} for each in flat]
        differences = described(differing(others, [record["seed"] for record in found]))
        raise ConfigError(
            f"{folder.name} holds several configurations: {differences}; accepted: run_ids of one of them"
        )
    return found


def _subset(record: dict[str, Any]) -> int:
    return record["config"]["data"].get("seed", record["seed"])
