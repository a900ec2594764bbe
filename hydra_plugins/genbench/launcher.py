"""The launcher of every hydra/launcher but Hydra's own: it runs the jobs of a multirun as one sweep."""

import copy
import functools
import importlib
import pickle
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_object
from omegaconf import Container, DictConfig, OmegaConf, open_dict, read_write

from genbench.checks import ConfigError
from genbench.cli.commands import registered
from genbench.config import fix, resolve
from genbench.process.imports import without_collecting


class SweepLauncher(Launcher):
    """Composes every job, has all of them checked, then trains the missing ones: ``n_jobs`` units at a time, each one
    run or with ``lanes`` one pack; ``timeout`` and ``retries`` are those of ``genbench.runs.sweep.run``. ``executor``
    names a class of ``genbench.runs.executors``, ``settings`` are its arguments.

    A job that raises, exits or is killed by the system does not end the others. The launcher executes the runs itself
    instead of calling the task function, so that the sweep knows the identity of each run before it starts.
    """

    def __init__(
        self,
        executor: str = "genbench.runs.executors.Processes",
        n_jobs: int = 2,
        lanes: int | str | None = None,
        timeout: float | None = None,
        retries: int = 1,
        dry_run: bool = False,
        **settings: Any,
    ) -> None:
        self.executor, self.n_jobs, self.dry_run = executor, n_jobs, dry_run
        self.how = {"lanes": lanes, "timeout": timeout, "retries": retries}
        self.settings = {
            name: OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
            for name, value in settings.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        distinct = _distinct(job_overrides)
        print(
            f"genbench: a sweep of {len(distinct)}, every run checked before one is trained",
            file=sys.stderr,
            flush=True,
        )
        from genbench.runs import executors, pretrained, sweep, sweep_plan

        executors.start_server()  # while the jobs are composed
        jobs, composed = [], []
        compose = Composer(self.hydra_context.config_loader, self.config)
        for overrides in distinct:
            config = compose(overrides, number=initial_job_idx + len(jobs))
            chosen = sweep_plan.choices(config.hydra.runtime.choices)
            jobs.append(sweep.Job(tuple(overrides), resolve(config), chosen))
            composed.append(config)
        HydraConfig.instance().set_config(self.config)
        experiments = {override for job in jobs for override in job.overrides if override.startswith("experiment=")}
        if len(experiments) > 1:
            raise ConfigError(f"{', '.join(sorted(experiments))}: each experiment is a command of its own")

        own, changed = _stated(self.hydra_context.config_loader, self.config, jobs)
        claims = {id(job.config.get("claims")): job.config for job in jobs}  # nearly always one
        stamped = {key: registered(config, changed).get("claims") for key, config in claims.items()}
        jobs = [replace(job, config={**job.config, "claims": stamped[id(job.config.get("claims"))]}) for job in jobs]
        _say_uncounted([job.config for job in jobs if job.config.get("claims")])

        def train(jobs: Sequence[sweep.Job], **how: Any) -> list[sweep.Outcome]:
            executor = get_object(self.executor)(n_jobs=self.n_jobs, **self.settings)
            load_check = functools.partial(_load_check, own, reported=not self.dry_run)
            return sweep.run(jobs, command=sys.argv[1:], executor=executor, load_check=load_check, **self.how, **how)

        def job_of(overrides: Sequence[str]) -> sweep.Job:
            config = compose(overrides)
            return sweep.Job(tuple(overrides), resolve(config), sweep_plan.choices(config.hydra.runtime.choices))

        outcomes = pretrained.run(jobs, train=train, job_of=job_of, dry=self.dry_run)
        return [
            JobReturn(
                overrides=job.overrides,
                cfg=config,
                hydra_cfg=config,
                working_dir=".",
                task_name=config.hydra.job.name,
                _return_value=outcome.validation,
                status=JobStatus.COMPLETED,
            )
            for job, config, outcome in zip(jobs, composed, outcomes, strict=True)
        ]


_OF_REPORTS = ("genbench.report.figures.sweep", "jinja2", "matplotlib.pyplot", "pandas", "scipy.special")


def _stated(loader: Any, master: DictConfig, jobs: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Return the configurations that the experiment of claims has by its file, and the settings that the command
    changed; neither if there are no claims. See :mod:`genbench.cli.stated`."""
    if not any(job.config.get("claims") for job in jobs):
        return [], []
    from genbench.claims.registration import told
    from genbench.cli import stated

    own = stated.stated(loader, master, master.hydra.overrides.task)
    changed = stated.changed(own, [(job.config, job.choices) for job in jobs])
    if changed:
        print(f"genbench: no claim gets a verdict: {told(changed)}", file=sys.stderr, flush=True)
    return own, changed


def _say_uncounted(configs: Sequence[Mapping[str, Any]]) -> None:
    """Say which seeds of configurations that have claims no verdict counts."""
    if not configs:
        return
    from genbench.claims.registration import read, told

    claims = read(configs[0]["claims"])
    strange = sorted({config["seed"] for config in configs}.difference(claims.seeds, claims.pilots))
    if strange:
        said = told([f"seed={seed}" for seed in strange])
        which = f"the {len(claims.seeds)} of claims.seeds begin at {claims.seeds[0]}"
        print(f"genbench: no verdict counts {said}: {which}", file=sys.stderr, flush=True)


def _load_check(own: Sequence[Any], *, reported: bool) -> Any:
    """Return the check of tables, claims and papers, and import what the report at the end needs; for ``own`` see
    :func:`genbench.cli.stated.stated`."""
    from genbench import records
    from genbench.report import spec

    if reported:
        with without_collecting():
            for module in _OF_REPORTS:
                importlib.import_module(module)

    def check(runs: Sequence[tuple[dict[str, Any], Any]]) -> None:
        for members in _by_folder(runs):
            bound = {key: value for _, one in members for key, value in records.flatten(one.plan.bound).items()}
            choices = {group: choice for _, one in members for group, choice in one.plan.choices.items()}
            for table in {repr(config.get("table")): config.get("table") for config, _ in members}.values():
                spec.check(table, bound, choices)  # a row's setting need not be one of every network
        if config := next((config for config, _ in runs if config.get("paper")), None):
            from genbench.report.papers import paper

            claims = config.get("claims")  # without claims, what was tried for one is not checked
            paper.read(config["paper"], None if claims is None else claims.get("rules") or {})
        if any(config.get("claims") for config, _ in runs):
            from genbench.claims import registration

            for members in _by_folder(runs):
                planned = [(config.get("claims"), one.plan.bound, one.plan.choices) for config, one in members]
                others = [(each.config, each.choices) for each in own]
                registration.check(planned, others, metrics=[one.metrics for _, one in members])

    return check


def _by_folder(runs: Sequence[tuple[dict[str, Any], Any]]) -> list[list[tuple[dict[str, Any], Any]]]:
    """Return the runs of each experiment."""
    found: dict[Any, list[tuple[dict[str, Any], Any]]] = {}
    for config, one in runs:
        found.setdefault(one.plan.folder.parent, []).append((config, one))
    return list(found.values())


class Composer:
    """Composes the jobs of a sweep; jobs that choose the same files share reading them.

    Hydra takes 60 ms a job, nearly all for files that most jobs share. Hydra's own function then applies the values
    that a job sets. What refers to nothing else is one node in all jobs that set nothing in it, and so is Hydra's own.
    """

    def __init__(self, loader: Any, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        parser = OverridesParser.create()
        self._parse = functools.cache(parser.parse_override)
        self._is_group = functools.cache(loader.repository.group_exists)
        # pickled: several times faster than copying a configuration
        self._bases: dict[tuple[tuple[str, ...], frozenset[str]], tuple[bytes, dict[str, Container], bool]] = {}

    def __call__(self, overrides: Sequence[str], number: int | None = None) -> DictConfig:
        """Return the configuration of a job; with its ``number`` it is Hydra's present one, if a setting asks for that
        (``${hydra:job.num}``)."""
        parsed = [self._parse(text) for text in overrides]
        grouped = [self._is_group(override.key_or_group) for override in parsed]
        chosen = tuple(text for text, group in zip(overrides, grouped, strict=True) if group)
        values = [override for override, group in zip(parsed, grouped, strict=True) if not group]
        own = frozenset(override.key_or_group.partition(".")[0] for override in values)
        if (chosen, own) not in self._bases:
            self._bases[chosen, own] = self._base(chosen, own)
        pickled, shared, asks = self._bases[chosen, own]
        config = pickle.loads(pickled)
        for key, node in shared.items():
            node._set_parent(config)
            config._content[key] = node  # an assignment would copy it
        self._loader._apply_overrides_to_config(values, config)
        if asks or any("${hydra" in text for text in overrides):
            with open_dict(config), read_write(config.hydra):
                config.hydra.overrides.task = list(overrides)
                if number is not None:
                    config.hydra.job.id = config.hydra.job.num = number
            if number is not None:
                HydraConfig.instance().set_config(config)
        return config

    def _base(self, chosen: Sequence[str], own: Collection[str]) -> tuple[bytes, dict[str, Container], bool]:
        """The configuration of chosen files, pickled; the nodes that are apart from it, to be shared: those in which a
        job sets none of its ``own`` values; and whether a setting asks for what is Hydra's."""
        config = copy.deepcopy(self._loader.load_sweep_config(self._master, list(chosen)))  # the loader keeps its own
        shared: dict[str, Container] = {}
        asks = False
        for key in map(str, list(config)):
            node = config._content[key]
            written = OmegaConf.to_yaml(node) if isinstance(node, Container) else str(node._value())
            asks |= key != "hydra" and "${hydra" in written
            if isinstance(node, Container) and key not in own and ("${" not in written or key == "hydra"):
                if key != "hydra":
                    fix(node)
                shared[key], config._content[key] = node, None
        return pickle.dumps(config), shared, asks


def _distinct(job_overrides: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the jobs without repetitions; of two overrides of a key (experiment file, then command line) the last
    counts."""
    jobs: dict[tuple[str, ...], None] = {}
    for overrides in job_overrides:
        last = {override.partition("=")[0]: override for override in overrides}
        jobs[tuple(last.values())] = None
    return list(jobs)
