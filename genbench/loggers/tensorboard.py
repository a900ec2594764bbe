"""TensorBoard events without host names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers

from genbench.checks import check_integer
from genbench.loggers.base import Run, check


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's logger, in the folder ``tensorboard`` of the run's; the final metrics are in the HPARAMS tab."""

    def __init__(self, *, run: Run, flush_seconds: int = 120) -> None:
        check(["tensorboard"])
        flush_seconds = check_integer("logger.tensorboard.flush_seconds", flush_seconds, least=1)
        super().__init__(run.folder, name="", version="tensorboard", default_hp_metric=False, flush_secs=flush_seconds)
        self._settings = {"regularization": run.regularization, "strategy": run.strategy, "seed": run.seed}
        _drop_host_names(Path(self.log_dir))  # of a run that was killed

    def finish(self, record: Mapping[str, Any] | None) -> None:
        """Close the files, then rename them: an open one is reopened by name at every flush."""
        metrics = {key: value for key, value in (record or {}).get("metrics", {}).items() if value is not None}
        self.log_hyperparams({**self._settings, "status": record["status"] if record else "failed"}, metrics)
        self.finalize("success" if record else "failed")
        _drop_host_names(Path(self.log_dir))


def _drop_host_names(folder: Path) -> None:
    """events.out.tfevents.<time>.<host>.<pid>.<n> becomes events.out.tfevents.<time>.<pid>.<n>."""
    for path in folder.glob("events.out.tfevents.*"):
        words = path.name.removeprefix("events.out.tfevents.").split(".")
        if len(words) > 3:
            path.rename(path.with_name(".".join(["events.out.tfevents", words[0], *words[-2:]])))
