"""hydra/sweeper=grid: every combination of the swept values."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, without composing every job a second time.

    Hydra composes all jobs to see whether they are legal before it launches any. So does our launcher, and any other
    one does job by job; for 84 jobs it takes longer than reading their results.
    """

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Left to the launcher."""
