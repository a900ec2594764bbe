"""hydra/launcher=processes: the jobs of a multirun on processes of this machine."""

from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


class ProcessLauncher(Launcher):
    """Composes every job, has all of them checked, then trains what is missing on ``n_jobs`` processes.

    A job that raises, exits or is killed by the system does not end the others. It runs ``genbench.experiment`` itself
    rather than the task function, so that a sweep knows of each run what identifies it before it starts.
    """

    def __init__(self, n_jobs: int = 2) -> None:
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from genbench import sweep

        jobs, composed = [], []
        for overrides in _distinct(job_overrides):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = initial_job_idx + len(jobs)
            HydraConfig.instance().set_config(config)
            jobs.append(sweep.Job(tuple(overrides), _plain(config), sweep.choices(config.hydra.runtime.choices)))
            composed.append(config)
        HydraConfig.instance().set_config(self.config)
        command = list(self.config.hydra.overrides.task)
        outcomes = sweep.run(jobs, n_jobs=self.n_jobs, command=command)
        return [
            JobReturn(
                overrides=job.overrides,
                cfg=config,
                hydra_cfg=OmegaConf.masked_copy(config, "hydra"),
                working_dir=".",
                task_name=config.hydra.job.name,
                _return_value=outcome,
                status=JobStatus.COMPLETED,
            )
            for job, config, outcome in zip(jobs, composed, outcomes, strict=True)
        ]


def _distinct(job_overrides: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The jobs without repetitions; of two overrides of a key (experiment file, then command line) the last counts."""
    jobs: dict[tuple[str, ...], None] = {}
    for overrides in job_overrides:
        last = {override.partition("=")[0]: override for override in overrides}
        jobs[tuple(last.values())] = None
    return list(jobs)


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.masked_copy(config, [k for k in config if k != "hydra"]), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
