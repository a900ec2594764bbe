"""hydra/sweeper=grid: every combination of the swept values, or of several grids of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep

from genbench.checks import ConfigError

MOST = 100_000  # runs of a sweep


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, for one product of values or for several products side by side.

    ``grids`` are dictionaries such as ``params``: each job of ``params`` and of the command line is combined with every
    job of every grid that it does not contradict. So ``regularization=l2`` on the command line selects the grid of
    ``l2`` in an experiment; a value in no grid, such as ``regularization=[l2,mixup]``, runs as it is.

    Hydra's sweeper composes all jobs to validate them before it launches any. This one does not, as it would take
    longer than reading finished jobs; our launcher composes them all, any other one job by job.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: Mapping[str, Any] | None = None,
        grids: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, dict(params or {}))
        self.grids = list(grids or [])

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Left to the launcher."""

    def split_arguments(  # type: ignore[override]  # it is static there, and called on the instance
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Batches of jobs, each a list of overrides.

        Raises:
            ConfigError: no job, or more than ``MOST``.
        """
        _check_size(overrides)
        (jobs,) = super().split_arguments(overrides, None)
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)

        def read(job: Sequence[str]) -> dict[str, Any]:
            return {override.get_key_element(): override.value() for override in parser.parse_overrides(list(job))}

        choices = []
        for grid in self.grids:
            parsed = parser.parse_overrides([f"{key}={values}" for key, values in grid.items()])
            choices += [(job, read(job)) for job in super().split_arguments(parsed, None)[0]]
        combined = []
        for job in jobs:
            given = read(job) if choices else {}
            agreeing = [
                [*job, *(text for text, key in zip(choice, values, strict=True) if key not in given)]
                for choice, values in choices
                if all(given.get(key, value) == value for key, value in values.items())
            ]
            combined += agreeing or [job]
        return [list(batch) for batch in self.split_overrides_to_chunks(combined, max_batch_size)]


def _check_size(overrides: Sequence[Override]) -> None:
    """Count the jobs before listing them: a range may have any number of values."""
    total = 1
    for override in overrides:
        if not override.is_discrete_sweep():
            continue
        values = override.value()
        if isinstance(values, RangeSweep):
            assert values.start is not None
            assert values.stop is not None
            count = max(0, math.ceil((values.stop - values.start) / values.step)) if values.step else 0
        else:
            count = sum(1 for _ in override.sweep_string_iterator())
        if count == 0:
            raise ConfigError(f"{override.input_line} has no values, so the sweep is empty")
        total *= count
        if total > MOST:
            raise ConfigError(f"the sweep has {total:,} runs or more with {override.input_line}; accepted: {MOST:,}")
