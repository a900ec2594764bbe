"""The runs that an experiment's file states, and the settings that a command changed."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from genbench.config import KEYED, bind, resolve
from genbench.records import flatten
from genbench.records.settings import ABSENT, show
from genbench.runs import sweep_plan

_KEPT = ("experiment", "hydra.searchpath")  # of a command's overrides: they say which file it is
_HOW = ("threads", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
"""Settings of the machine that computes, not of the experiment."""
_TOLD = re.compile(r"claims\.rules\.[\w-]+\.(statement|source)")  # change no verdict
_SEED = 1_977_326_743
"""Stands for the seed of any run."""


Run = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The configuration and the choices of a run."""
_PLAIN = re.compile(r"[\w.+-]+")
_NEAR = 50  # configurations, in whose words a run is compared


@dataclass(frozen=True)
class Stated:
    """A configuration, apart from its seed: the bound one, by dotted key, its claims included, and the choices."""

    config: Mapping[str, Any]
    choices: Mapping[str, Any]


def stated(loader: Any, master: DictConfig, typed: Sequence[str], *, run: Run | None = None) -> list[Stated]:
    """Return the configurations that the experiment of a command has by its own file, each once; none if it has no
    claims, or if the command sets nothing but the seed.

    Args:
        loader: Hydra's loader of configurations.
        master: what Hydra composed for the command.
        typed: the settings of the command.
        run: the only one that is to be compared: those alone are composed that may be its own, or where there is none
            those whose words are nearest, as a sweep of thousands takes a minute to compose.
    """
    others: list[str] = list(master.hydra.overrides.hydra)
    keys = {_key(word) for word in typed} - {"experiment", "seed"}
    if not keys and not any(_key(word).startswith("hydra.sweeper") for word in others):
        return []
    kept = [word for word in [*others, *typed] if _key(word) in _KEPT]
    own = loader.load_configuration(master.hydra.job.config_name, kept, run_mode=RunMode.MULTIRUN)
    if own.get("claims") is None:
        return []
    from genbench.report.papers.experiments import jobs_of
    from hydra_plugins.genbench.launcher import Composer

    chosen = [word for word in kept if _key(word) == "experiment"]
    sweeper: Any = OmegaConf.to_container(own.hydra.sweeper, resolve=True)
    jobs = jobs_of(sweeper, loader, chosen)
    seedless = [*dict.fromkeys(tuple(word for word in job if _key(word) != "seed") for job in jobs)]
    if run is not None:
        seedless = _nearest(seedless, run)
    compose = Composer(loader, own)
    return [_of(compose([*job, f"seed={_SEED}"])) for job in seedless]


def _nearest(jobs: list[tuple[str, ...]], run: Run) -> list[tuple[str, ...]]:
    """The jobs no word of which is surely another than the run's, or without one those with the fewest such words."""
    flat, choices = flatten(run[0]), run[1]

    def is_other(word: str) -> bool:
        key, _, text = word.lstrip("+").partition("=")
        value = choices[key] if key in choices else flat.get(key)
        typed = yaml.safe_load(text) if _PLAIN.fullmatch(text) else None
        plain = all(isinstance(each, int | float | str) for each in (value, typed))
        return plain and type(value) is type(typed) and value != typed

    others = [sum(map(is_other, job)) for job in jobs]
    if not min(others, default=0):
        return [job for job, count in zip(jobs, others, strict=True) if not count]
    return [jobs[index] for index in sorted(range(len(jobs)), key=others.__getitem__)[:_NEAR]]


def changed(own: Sequence[Stated], runs: Sequence[Run]) -> list[str]:
    """Return the settings of runs that no configuration of their experiment's file has, in words.

    Args:
        own: see :func:`stated`; if it is empty, nothing was changed.
        runs: the configuration and the choices of each.
    """
    found: dict[str, None] = {}
    decisive = [_decisive(each) for each in own]
    known = set(decisive)
    copies = {key for each in own for key, value in each.config.items() if value == _SEED}
    for config, choices in runs if own else ():
        if config.get("claims") is None:  # it gets no verdict
            continue
        run = _stated(config, choices)
        flat = {key: _SEED if key in copies and value == config["seed"] else value for key, value in run.config.items()}
        run = replace(run, config=flat)
        if (settings := _decisive(run)) not in known:
            known.add(settings)
            distances = [len(settings ^ each) for each in decisive]
            near = sorted(sorted(range(len(own)), key=distances.__getitem__)[:_NEAR])  # words take longer to make
            differences = [list(_differences(run, own[index])) for index in near]
            fewest = min(differences, key=len)
            found |= dict.fromkeys(fewest)
    return list(found)


def _of(composed: DictConfig) -> Stated:
    return _stated(resolve(composed), sweep_plan.choices(composed.hydra.runtime.choices))


def _stated(config: Mapping[str, Any], choices: Mapping[str, Any]) -> Stated:
    bound: Mapping[str, Any] = config
    with contextlib.suppress(ValueError):  # what is not accepted is refused when the runs are planned
        bound = bind(config)
    named = {group: sorted(config.get(group) or {}) for group in KEYED if group != "logger"}
    whole = {**bound, "sources": config.get("sources") or {}, "claims": config.get("claims") or {}}
    return Stated(flatten(whole), {**choices, **named})


def _decisive(of: Stated) -> frozenset[str]:
    """The choices and the settings that can make a difference, in words."""
    settings = {f"{key}={value!r}" for key, value in of.config.items() if key not in _HOW and not _TOLD.fullmatch(key)}
    return frozenset(settings | {f"{group}:{choice!r}" for group, choice in of.choices.items()})


def _differences(run: Stated, own: Stated) -> Iterator[str]:
    """Yield the choices and the settings in which a run differs from a configuration of the file, in words."""
    groups = [group for group, choice in run.choices.items() if choice != own.choices.get(group)]
    for group in groups:
        yield f"{group}={show(run.choices[group])} where the experiment has {show(own.choices.get(group))}"
    for key in sorted({*run.config, *own.config}):
        ours, theirs = (each.config.get(key, ABSENT) for each in (run, own))
        if ours != theirs and key not in _HOW and not _TOLD.fullmatch(key) and key.partition(".")[0] not in groups:
            yield f"{key}={show(ours)} where the experiment has {'the seed' if theirs == _SEED else show(theirs)}"


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")
