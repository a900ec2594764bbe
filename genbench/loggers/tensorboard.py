"""TensorBoard events without host names."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers

from genbench.checks import check_integer
from genbench.loggers.base import RunInfo, check


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's logger in the run's folder ``tensorboard``; the final metrics are in the HPARAMS tab."""

    def __init__(self, *, run: RunInfo, flush_seconds: int = 120) -> None:
        check(["tensorboard"])
        flush_seconds = check_integer("logger.tensorboard.flush_seconds", flush_seconds, least=1)
        super().__init__(run.folder, name="", version="tensorboard", default_hp_metric=False, flush_secs=flush_seconds)
        self._settings = {"regularization": run.regularization, "strategy": run.strategy, "seed": run.seed}
        self._warned = False
        _drop_host_names(Path(self.log_dir))  # those of a run that was killed

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self._forgiving():
            super().log_metrics(metrics, step)

    def finish(self, record: Mapping[str, Any] | None) -> None:
        """Close the files, then rename them: TensorBoard reopens an open file by its name at every flush."""
        with self._forgiving():
            self._close(record)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Warn once if events cannot be written, as on a full disk, instead of stopping the run."""
        try:
            yield
        except (OSError, ValueError) as error:
            cause = error.__cause__ or error  # Lightning raises ValueError for whatever goes wrong
            if not isinstance(cause, OSError):
                raise
            if not self._warned:
                warnings.warn(f"TensorBoard's events of this run end here ({cause.strerror})", stacklevel=3)
            self._warned = True

    def _close(self, record: Mapping[str, Any] | None) -> None:
        metrics = {key: value for key, value in (record or {}).get("metrics", {}).items() if value is not None}
        self.log_hyperparams({**self._settings, "status": record["status"] if record else "failed"}, metrics)
        self.finalize("success" if record else "failed")
        _drop_host_names(Path(self.log_dir))


def _drop_host_names(folder: Path) -> None:
    """Rename events.out.tfevents.<time>.<host>.<pid>.<n> to events.out.tfevents.<time>.<pid>.<n>."""
    for path in folder.glob("events.out.tfevents.*"):
        words = path.name.removeprefix("events.out.tfevents.").split(".")
        if len(words) > 3:
            path.rename(path.with_name(".".join(["events.out.tfevents", words[0], *words[-2:]])))
