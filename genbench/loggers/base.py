"""The run's information that loggers get, and how loggers are built and closed."""

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from genbench.checks import missing_extra

Part = Logger | Callable[..., Logger]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a logger knows of the run that it follows.

    ``folder`` is runs/<experiment>/<run_id>, ``config`` the bound configuration, ``choices`` and ``provenance`` the
    record's, and ``overrides`` what sets the run apart in its sweep.

    >>> run = RunInfo(
    ...     folder="runs/ablation/0123456789ab", experiment="ablation", run_id="0123456789ab", seed=1,
    ...     choices={"model": "mlp", "regularization": ["l2", "mixup"]}, config={},
    ...     overrides=["regularization=[l2,mixup]", "data.label_noise=0.2", "seed=1"],
    ... )
    >>> run.strategy
    'l2+mixup, data.label_noise=0.2'
    >>> run.name
    'l2+mixup, data.label_noise=0.2, seed 1'
    """

    folder: str | Path
    experiment: str
    run_id: str
    seed: int
    choices: Mapping[str, Any]
    config: Mapping[str, Any]
    overrides: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def regularization(self) -> str:
        """The methods, joined by "+"; "none" where there are none."""
        return _joined(self.choices.get("regularization", ()))

    @property
    def strategy(self) -> str:
        """The settings that the sweep varies besides the seed; runs of one strategy differ only in their seeds."""
        varied = [override.lstrip("+").split("=", 1) for override in self.overrides]
        parts = [_joined(self.choices.get(key, f"{key}={value}")) for key, value in varied if key != "seed"]
        return ", ".join(parts) or self.regularization

    @property
    def name(self) -> str:
        """A readable name, not necessarily unique."""
        chosen = [self.strategy] if self.overrides else [_joined(choice) for choice in self.choices.values()]
        return ", ".join([*chosen, f"seed {self.seed}"])


def _joined(choice: Any) -> str:
    return choice if isinstance(choice, str) else "+".join(map(str, choice)) or "none"


def check(names: Iterable[str]) -> None:
    """Raise ConfigError for a chosen logger whose package is not installed."""
    for name in names:
        if name in ("tensorboard", "wandb") and importlib.util.find_spec(name) is None:
            raise missing_extra(name, needed_by=f"logger {name}")


def build(parts: Mapping[str, Part], run: RunInfo) -> list[Logger]:
    """Build the loggers of a run; call ``finish`` whatever happens to the run."""
    check(parts)
    return [part if isinstance(part, Logger) else part(run=run) for part in parts.values()]


def finish(loggers: Iterable[Logger], record: Mapping[str, Any] | None = None) -> None:
    """Close the loggers with the run's record; without a record the run failed."""
    for logger in loggers:
        close = getattr(logger, "finish", None)
        if close is not None:
            close(record)
        else:
            logger.finalize("failed" if record is None or record["status"] == "failed" else "success")
