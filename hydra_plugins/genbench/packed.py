"""hydra/launcher=packed: the jobs of a multirun, those that can as one network, on processes of this machine."""

from collections.abc import Sequence
from typing import Any

from hydra_plugins.genbench.processes import ProcessLauncher


class PackedLauncher(ProcessLauncher):
    """As ``processes``, but jobs that differ in nothing but seed and numeric settings train together, as the lanes of
    one network; at most ``lanes`` at a time, with ``auto`` as many as fit in memory."""

    def __init__(self, n_jobs: int = 2, lanes: int | str = "auto") -> None:
        super().__init__(n_jobs)
        self.lanes = lanes

    def sweep(self, jobs: Sequence[Any], command: Sequence[str]) -> list[Any]:
        from genbench import sweep

        return sweep.run(jobs, n_jobs=self.n_jobs, command=command, lanes=self.lanes)
