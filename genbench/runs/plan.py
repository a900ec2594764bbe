"""Plan a run: check its configuration, identify it and build its data, before anything is written."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object

from genbench import loggers
from genbench.callbacks.base import Measuring
from genbench.callbacks.stop import Stop
from genbench.callbacks.trajectory import Trajectory
from genbench.checks import ConfigError, check_choice, check_integer, check_number, nearest
from genbench.config import PARTS, bind, one_line
from genbench.measures.random_state import restoring_random_state
from genbench.records import digest
from genbench.runs import process_group, source
from genbench.runs.build import (
    Config,
    build_callbacks,
    build_data,
    build_module,
    build_trainer,
    quiet,
    scheduler_of_method,
    threads_of,
)
from genbench.runs.planned import Plan

# the settings of Lightning's Trainer that may be chosen; others are fixed, or would make runs irreproducible
TRAINER = (
    "_target_",
    "accelerator",
    "strategy",
    "devices",
    "num_nodes",
    "precision",
    "max_epochs",
    "max_steps",
    "deterministic",
    "benchmark",
    "log_every_n_steps",
)
_CHECKED: dict[str, frozenset[str]] = {}  # digest of a configuration without its seed -> the keys of its metrics


@restoring_random_state()
def plan(config: Config, *, choices: Mapping[str, Any] | None = None, typed: Sequence[str] = ()) -> Plan:
    """Check a configuration, identify its run and build its data; nothing is written, and no global generator moves.

    ``run_id`` hashes the bound configuration (see ``config.bind``), the content of the data and the user's own code
    (see ``genbench.runs.source``). Files are hashed by content, not by path, and the schedule of a method replaces that
    of the run. ``choices`` names what was chosen in each group, ``typed`` holds the overrides that gave the
    configuration.

    Raises:
        ConfigError: a setting that is not accepted.
    """
    _check_settings(config)
    bound = bind(config)
    if bound["trainer"].get("accelerator") == "auto":  # the numbers depend on the device that it means here
        bound["trainer"]["accelerator"] = "gpu" if torch.cuda.is_available() else "cpu"
    if process_group.size(bound["trainer"]) == 1:
        bound["trainer"]["strategy"] = "auto"
    for name, node in bound["regularization"].items():
        identity = getattr(get_object(node["_target_"]), "identity", dict)
        bound["regularization"][name] = identity(node)
    chosen = {**(choices or {}), "regularization": sorted(config["regularization"])}
    if (own := scheduler_of_method(bound)) is not None:
        bound["scheduler"] = own
        chosen["scheduler"] = own["_target_"].rpartition(".")[2]
    data = build_data(config)
    code = source.of(source.targets(training(config)))
    inputs = {"data": data.digest, **({"code": code.digest} if code.digest else {})}
    run_id = digest({"config": bound, "inputs": inputs})[:12]
    return Plan(
        run_id,
        Path(config["runs_dir"]) / config["name"] / run_id,
        bound,
        chosen,
        steps_per_epoch=getattr(data, "steps_per_epoch", None),
        batch_size=getattr(data, "batch_size", None),
        typed=tuple(typed),
        claims=(config.get("claims") or {}).get("digest"),
        source=code,
        measures=_measures(config),
        data_digest=data.digest,
        data_from_files=config["data"].get("path") is not None,
        datamodule=data,
    )


def training(config: Config) -> dict[str, Any]:
    """The part of a configuration on which the weights depend: without measures, loggers, table, claims and paper."""
    callbacks = {key: {**(node or {}), "measures": None} for key, node in config["callbacks"].items()}
    left_out = ("measures", "logger", "table", "claims", "paper")
    return {**{key: node for key, node in config.items() if key not in left_out}, "callbacks": callbacks}


def _measures(config: Config) -> dict[str, str]:
    """Digests of the user's own measures. A changed one does not make another run; the run is measured again."""
    found = {}
    for callback, node in config["callbacks"].items():
        for name, measure in ((node or {}).get("measures") or {}).items():
            if (code := source.of(source.targets(measure)).digest) is not None:
                found[f"callbacks.{callback}.measures.{name}"] = code
    return found


@restoring_random_state()
def check(config: Config, data: Any = None) -> frozenset[str]:
    """Build the parts of a run, try one training step and discard them, so that errors come before files. Return the
    metric keys that the run can have, as far as is known before training; ``*`` stands for what is not known.

    Of runs that differ in their seed alone, a process checks one. ``data`` is the datamodule of the plan; without it
    another is built.

    Raises:
        ConfigError: what is wrong, in one line.
    """
    left_out = ("seed", "name", "runs_dir", "table", "claims", "paper")
    content = {key: node for key, node in config.items() if key not in left_out}
    content["data"] = {key: value for key, value in config["data"].items() if key != "seed"}
    checked = digest(content)
    if checked in _CHECKED:
        return _CHECKED[checked]
    with threads_of(config), quiet():
        data = build_data(config) if data is None else data
        module = build_module(config, data)
        callbacks = build_callbacks(config).values()
        for callback in callbacks:
            if isinstance(callback, Measuring | Stop):
                callback.check(module)
            elif isinstance(callback, Trajectory):
                callback.check(callbacks, data.splits)
        loggers.check(config["logger"])
        build_trainer(config, steps_per_epoch=data.steps_per_epoch, default_root_dir=None)
        if "val" not in data.splits and module.validates:
            raise ConfigError("regularization: a method watches the validation split; set data.val_fraction > 0")
        random = torch.get_rng_state()
        try:
            batch = next(iter(data.train_dataloader()))
            module.try_step(batch)
        except Exception as error:
            raise ConfigError(f"the first training step fails: {one_line(error)}") from error
        if (processes := process_group.size(config["trainer"])) > 1:
            if (examples := batch[1].shape[1]) % processes:
                raise ConfigError(
                    f"a batch has {examples} examples (data.batch_size), which {processes} processes cannot share "
                    f"(trainer.devices × trainer.num_nodes); accepted: a multiple of {processes}"
                )
            if not torch.equal(random, torch.get_rng_state()):
                raise ConfigError(
                    "trainer=ddp: the network, a method or the data draw from torch's global generator (nn.Dropout, "
                    "say), which processes cannot share; accepted: genbench.rng, genbench.models.slots.Dropout"
                )
    _CHECKED[checked] = metric_keys(callbacks, data.splits)
    return _CHECKED[checked]


def metric_keys(callbacks: Iterable[Any], splits: Iterable[str]) -> frozenset[str]:
    """Return the metric keys that a run with these callbacks and splits can have, see :func:`check`."""
    found = {"test/performance/bayes_error"}  # of data that know it
    for part in callbacks:
        if hasattr(part, "results"):
            found |= set(part.keys(list(splits)) if hasattr(part, "keys") else "*")
    return frozenset(found)


def other_code(planned: Plan, expected: Plan) -> str | None:
    """One line that names the modules whose code differs from that of the plan made elsewhere; None if none does."""
    ours, theirs = planned.source.modules, expected.source.modules
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"the source of {', '.join(names[:3])}{more} differs from the planned one: it was changed since, or is another "
        "version on this machine; the same command trains the run with the code that it finds"
    )


def _check_settings(config: Config) -> None:
    """Refuse values of the settings that no component checks for itself."""
    for part in PARTS:
        if not isinstance(config.get(part), Mapping) or config[part].get("_target_", "???") == "???":
            raise ConfigError(
                f"{part} names no _target_; accepted: {part}=CHOICE, as genbench {part} --help lists them"
            )
    check_integer("seed", config["seed"], least=0)
    check_integer("threads", config["threads"], least=1, most=1024)
    check_number("checkpoint_seconds", config["checkpoint_seconds"], low=0)
    name, runs_dir = config["name"], config["runs_dir"]
    if name in ("", ".", "..") or Path(name).name != name or not name.isprintable() or len(os.fsencode(name)) > 255:
        raise ConfigError(f"name={name!r} is not the name of a folder")
    if not runs_dir or not runs_dir.isprintable():
        raise ConfigError(f"runs_dir={runs_dir!r} is not a folder; accepted: runs, say")
    for key in ("max_epochs", "max_steps", "log_every_n_steps"):
        if config["trainer"].get(key) is not None:
            check_integer(f"trainer.{key}", config["trainer"][key], least=1)
    if unknown := sorted(set(config["trainer"]) - set(TRAINER)):
        raise ConfigError(f"trainer.{unknown[0]} is not a setting here; {nearest(unknown[0], TRAINER)}")
    check_choice("trainer.accelerator", config["trainer"].get("accelerator", "auto"), ("auto", "cpu", "gpu", "mps"))
    check_choice("trainer.precision", config["trainer"].get("precision", "32-true"), ("32-true", "bf16-mixed"))
    process_group.check(config["trainer"])
    if config["trainer"].get("max_epochs") is None and config["trainer"].get("max_steps") is None:
        raise ConfigError("trainer.max_epochs and trainer.max_steps are both null: training would never end; set one")
    check_number("optimizer.lr", config["optimizer"].get("lr", 1), low=0, open_low=True)
    for key, value in config["optimizer"].items():  # torch's own error is a TypeError about '<='
        if key in ("eps", "weight_decay", "momentum", "alpha") and not isinstance(value, int | float):
            raise ConfigError(f"optimizer.{key} is {'null' if value is None else repr(value)}; accepted: a number")
