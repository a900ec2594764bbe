"""Metrics in a CSV file."""

import csv
import io
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from genbench.checks import check_number
from genbench.loggers.base import RunInfo
from genbench.records import read_bytes, write_atomic


class CSVLogger(Logger):
    """Writes ``metrics.csv`` in the run's folder: the step, then the metrics in the order of their first appearance.

    A resumed run continues the file and replaces rows from its first step on. (Lightning's logger would delete the
    file, and writes it at every row.) During training at most the last ``flush_seconds`` are missing, and nothing from
    before the checkpoint.
    """

    def __init__(self, *, run: RunInfo, flush_seconds: float = 10) -> None:
        super().__init__()
        self.path = Path(run.folder) / "metrics.csv"
        self.flush_seconds = check_number("logger.csv.flush_seconds", flush_seconds, low=0)
        self._rows: dict[int, dict[str, Any]] | None = None
        self._written = time.monotonic()
        self._warned = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the record contains the configuration."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._rows is None:
            self._rows = {old: row for old, row in _read(self.path).items() if step is not None and old < step}
        if step is None:
            step = max(self._rows, default=-1) + 1
        self._rows.setdefault(step, {}).update(metrics)
        if time.monotonic() - self._written > self.flush_seconds:
            self.flush()

    def finalize(self, status: str) -> None:
        self.flush()

    def flush(self) -> None:
        """Write the rows; if that fails, as on a full disk, try again with the next rows."""
        if not self._rows:
            return
        try:
            self._write(self._rows)
        except OSError as error:
            if not self._warned:
                warnings.warn(f"{self.path.name} could not be written ({error.strerror}): trying again", stacklevel=2)
            self._warned = True
        self._written = time.monotonic()

    def _write(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        keys = dict.fromkeys(key for row in rows.values() for key in row)
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, ["step", *keys])
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in rows.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, file.getvalue(), settle=False)


def _read(path: Path) -> dict[int, dict[str, str]]:
    """Read the rows of an earlier start; none if the file is missing or not written by this logger."""
    try:
        file = io.StringIO(read_bytes(path).decode(), newline="")
        return {int(row.pop("step")): {k: v for k, v in row.items() if v} for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        return {}
