"""A run before it starts, as the process that sweeps keeps it: that one trains nothing and does without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genbench.runs.source import Source


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes:
        run_id: digest of all that could change the run's numbers.
        folder: where the run will live.
        bound: the configuration with the defaults of every constructor filled in.
        choices: what was chosen in each group.
        steps_per_epoch, batch_size: of the training data; None if these do not say.
        typed: the overrides that were typed for the run.
        claims: digest of the claims that are registered before the run.
        source: the user's own code that trains it.
        measures: digest of the code of each of the user's own measures, by ``callbacks.CALLBACK.measures.NAME``.
        data_digest: digest of the data's content.
        data_from_files: whether the data are files of the user's.
        datamodule: the data themselves, so that they are built once in a process. Left out when a plan is pickled.
    """

    run_id: str
    folder: Path
    bound: dict[str, Any]
    choices: dict[str, Any]
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    typed: tuple[str, ...] = ()
    claims: str | None = None
    source: Source = field(default_factory=Source)
    measures: Mapping[str, str] = field(default_factory=dict)
    data_digest: str | None = None
    data_from_files: bool = False
    datamodule: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "datamodule": None}
