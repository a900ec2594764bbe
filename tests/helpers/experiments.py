"""An experiment as its file states it: its rows, made-up records of all its runs for verdicts on its claims, a run."""

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench import config, records
from genbench.claims import registration
from genbench.claims.verdict import Verdict
from genbench.runs import execute
from tests.helpers import claims as made_up
from tests.helpers.choices import merged

Numbers = Callable[[Mapping[str, Any]], Mapping[str, float]]
"""The metrics of a run from its settings: dotted keys, groups and ``seed``."""


@functools.cache
def node(name: str) -> dict[str, Any]:
    """Return the file of an experiment, not composed."""
    return yaml.safe_load((config.folder() / "experiment" / f"{name}.yaml").read_text())


def rows(name: str) -> list[tuple[str, ...]]:
    """Return the overrides of each grid of an experiment, with the first value of what it sweeps."""
    found = []
    for grid in node(name)["hydra"]["sweeper"]["grids"]:
        first = {key: value if str(value).startswith("[") else _values(value)[0] for key, value in grid.items()}
        found.append(tuple(f"{key}={'null' if value is None else value}" for key, value in first.items()))
    return found


@functools.cache
def settings(name: str, seeds: int) -> list[dict[str, Any]]:
    """Return the settings of every run of an experiment on its first so many seeds by dotted key: those of the data, of
    the network, and what its claims name of the trainer. A chosen method is told by the group ``regularization``."""
    experiment = node(name)
    groups = {
        "model": "mlp", "data": "mnist1d", "regularization": "none", "optimizer": "adam", "scheduler": "constant"
    }  # fmt: skip
    for each in experiment["defaults"]:
        if each == "_self_":
            continue
        chosen = {key: value for key, value in each.items() if key.startswith("override /")}
        groups |= {key.removeprefix("override /"): value for key, value in chosen.items()}
    sweeper = experiment["hydra"]["sweeper"]
    params = {key: value for key, value in sweeper.get("params", {}).items() if key != "seed"}
    own_seeds = registration.read(experiment["claims"]).seeds[:seeds]
    found = []
    for grid in sweeper.get("grids") or [{}]:
        axes = {key: _values(value) for key, value in (params | grid).items()}
        for point in itertools.product(*axes.values()):
            chosen = dict(zip(axes, point, strict=True))
            plain = _plain(experiment, groups | {key: chosen.pop(key) for key in groups if key in chosen})
            found += [{**plain, **chosen, "seed": seed} for seed in own_seeds]
    return found


def judged(name: str, numbers: Numbers, *, seeds: int = 8) -> dict[str, Verdict]:
    """Return the verdicts on the claims of an experiment, by id, if its runs had these numbers."""
    block = node(name)["claims"]
    claims = registration.read(block)
    planned, found = [], []
    for run in settings(name, seeds):
        choices = {key: value for key, value in run.items() if "." not in key and key != "seed"}
        own = {key: value for key, value in run.items() if "." in key or key == "seed"}
        planned.append((block, own, choices))
        item = made_up.record(run["seed"], dict(numbers(run)), choices=choices)
        found.append({**item, "config": own, "provenance": {"claims": claims.digest}})
    registration.check(planned)  # the claims name what the runs have
    return {verdict.claim: verdict for verdict in registration.judged(claims, found)}


def _values(value: Any) -> list[Any]:
    """Return the values of a setting of a grid, as Hydra reads them."""
    parts = yaml.safe_load(f"[{value}]") if isinstance(value, str) else [value]
    chosen = [isinstance(part, list) and all(isinstance(name, str) for name in part) for part in parts]
    return ["+".join(part) if names else part for part, names in zip(parts, chosen, strict=True)]


def _plain(experiment: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    trainer = {f"trainer.{key}": value for key, value in experiment.get("trainer", {}).items()}
    claims = str(experiment["claims"])
    found = {**groups, **{key: value for key, value in trainer.items() if key in claims}}
    for group in ("data", "model"):
        chosen = OmegaConf.to_container(
            OmegaConf.create({"seed": 0, group: merged(config.folder() / group / f"{groups[group]}.yaml")}),
            resolve=True,
        )
        own = {**chosen[group], **(experiment.get(group) or {})}
        found |= {
            f"{group}.{key}": value for key, value in records.flatten(own).items() if key not in ("_target_", "seed")
        }
    return found


def trained(runs_dir: Path, *overrides: str) -> dict[str, float | None]:
    """Train a run that completes; return its metrics."""
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    record = execute.run({**plain, "runs_dir": str(runs_dir), "logger": {}})
    assert record["status"] == "completed", record["error"]
    return record["metrics"]
