"""Networks that the runs of an experiment start from: they are trained first, once."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from genbench.checks import ConfigError
from genbench.runs.sweep_plan import SWEPT, Job, Outcome


def run(
    jobs: Sequence[Job],
    *,
    train: Callable[..., list[Outcome]],
    job_of: Callable[[Sequence[str]], Job],
    dry: bool = False,
) -> list[Outcome]:
    """Train the missing networks that jobs start from, then the jobs.

    ``train`` is ``sweep.run`` for jobs, ``job_of`` composes the job of overrides. With ``dry`` the runs are listed.

    Raises:
        ConfigError: a source cannot be trained, or, before any source is, a job is invalid.
    """
    made = {name: like(job_of(overrides), jobs[0], name=name) for name, overrides in used(jobs).items()}
    if not made:
        return train(jobs, dry=dry)
    sources = list(made.values())
    found = train(sources, dry=True, listed=False)
    if any(outcome.status == "planned" for outcome in found):
        # the run_id of a run that starts from a source is not known yet, but the run can be checked
        planned = train(started(jobs, dict.fromkeys(made)), dry=True, listed=False)
        if dry:
            for words in [*(source.overrides for source in sources), *(job.overrides for job in jobs)]:
                print("train", " ".join(words), sep="  ")
            count = sum(outcome.status == "planned" for outcome in found)
            print(f"{count} source run{'s' if count > 1 else ''}, then {len(jobs)}")
            return planned
        print(f"source: {', '.join(made)}", file=sys.stderr)
        found = train(sources)
    folders: dict[str, Path | None] = {}
    for (name, source), outcome in zip(made.items(), found, strict=True):
        if outcome.status != "completed":
            raise ConfigError(f"the source {name} is {outcome.status}: {outcome.error}")
        folder = Path(source.config["runs_dir"]) / name
        SWEPT.pop(folder, None)  # the table of sources is of no use
        folders[name] = folder / outcome.run_id
    return train(started(jobs, folders), dry=dry)


def used(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """Return the sources of an experiment (``sources: {NAME: [override, …]}``) that a method of some job starts from,
    with their overrides.

    Raises:
        ConfigError: the overrides of a source are no list.
    """
    found: dict[str, list[str]] = {}
    for job in jobs:
        for name in _named(job):
            overrides = job.config["sources"][name]
            if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
                raise ConfigError(f"sources.{name} is {overrides!r}; accepted: a list of overrides, [model=cnn] say")
            found[name] = overrides
    return found


def _named(job: Job) -> set[str]:
    sources = job.config.get("sources") or {}
    methods = job.config["regularization"].values()
    return {node["source"] for node in methods if node and node.get("source") in sources}


def like(source: Job, job: Job, *, name: str) -> Job:
    """Return a source's job with the device and the folder of the experiment's jobs."""
    same = {key: job.config[key] for key in ("runs_dir", "threads", "checkpoint_seconds")}
    trainer = {**source.config["trainer"], "accelerator": job.config["trainer"].get("accelerator", "auto")}
    return replace(source, config={**source.config, **same, "trainer": trainer, "name": name})


def started(jobs: Sequence[Job], folders: Mapping[str, Path | None]) -> list[Job]:
    """Return the jobs with the folders of their sources in place of the names; None: without the sources."""
    return [_started(job, folders) for job in jobs]


def _started(job: Job, folders: Mapping[str, Path | None]) -> Job:
    if not (names := _named(job)):
        return job
    methods = {
        key: {**node, "source": str(folder) if (folder := folders[node["source"]]) else None}
        if node and node.get("source") in names
        else node
        for key, node in job.config["regularization"].items()
    }
    return replace(job, config={**job.config, "regularization": methods})
