"""Check a configuration and identify its run, before anything is written."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object

from genbench import loggers
from genbench.callbacks.base import Measuring
from genbench.checks import check_choice, check_integer, check_number, nearest
from genbench.config import PARTS, ConfigError, bind, one_line
from genbench.records import digest
from genbench.runs import distributed, source
from genbench.runs.build import (
    Config,
    _own_scheduler,
    build_callbacks,
    build_data,
    build_module,
    build_trainer,
    quiet,
    threads_of,
)
from genbench.runs.source import Source

# Lightning's other settings are fixed, or would undo what a run promises.
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
_CHECKED: set[str] = set()  # configurations without their seeds


@dataclass(frozen=True)
class Plan:
    """A run before it starts: what identifies it, where it will live, how many steps an epoch has and of how many
    examples, the overrides that were typed for it, the user's code that trains it, of each of the user's measures
    (``callbacks.CALLBACK.measures.NAME``) the digest of its code, the digest of its data and whether these are files of
    the user's."""

    run_id: str
    folder: Path
    bound: dict[str, Any]
    choices: dict[str, Any]
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    typed: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)
    measures: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    of_files: bool = False


def plan(config: Config, *, choices: Mapping[str, Any] | None = None, typed: Sequence[str] = ()) -> Plan:
    """Check a configuration and identify its run, writing nothing.

    ``run_id`` hashes the bound configuration (see ``config.bind``), in which the content of files stands for their
    paths and a method's own schedule for the run's, the content of the data, and the user's own code (see
    ``genbench.runs.source``). ``choices`` names what was chosen in each group, ``typed`` holds the overrides that gave
    the configuration.
    """
    _check(config)
    bound = bind(config)
    if bound["trainer"].get("accelerator") == "auto":  # what it means here decides the numbers
        bound["trainer"]["accelerator"] = "gpu" if torch.cuda.is_available() else "cpu"
    if distributed.size(bound["trainer"]) == 1:
        bound["trainer"]["strategy"] = "auto"
    for name, node in bound["regularization"].items():
        identity = getattr(get_object(node["_target_"]), "identity", dict)
        bound["regularization"][name] = identity(node)
    chosen = {**(choices or {}), "regularization": sorted(config["regularization"])}
    if (own := _own_scheduler(bound)) is not None:
        bound["scheduler"] = own
        chosen["scheduler"] = own["_target_"].rpartition(".")[2]
    data = build_data(config)
    code = source.of(source.targets(_training(config)))
    inputs = {"data": data.digest, **({"code": code.digest} if code.digest else {})}
    run_id = digest({"config": bound, "inputs": inputs})[:12]
    folder = Path(config["runs_dir"]) / config["name"] / run_id
    steps, examples = (getattr(data, name, None) for name in ("steps_per_epoch", "batch_size"))
    of_files = config["data"].get("path") is not None
    return Plan(
        run_id,
        folder,
        bound,
        chosen,
        steps,
        examples,
        typed=tuple(typed),
        source=code,
        measures=_measures(config),
        data=data.digest,
        of_files=of_files,
    )


def _training(config: Config) -> dict[str, Any]:
    """The part of a configuration on which the weights depend: all but what measures them and follows them."""
    callbacks = {key: {**(node or {}), "measures": None} for key, node in config["callbacks"].items()}
    left_out = ("measures", "logger", "table")
    return {**{key: node for key, node in config.items() if key not in left_out}, "callbacks": callbacks}


def _measures(config: Config) -> dict[str, str]:
    """Digests of the user's own measures: they do not say which run it is, but whether it is to be measured again."""
    found = {}
    for callback, node in config["callbacks"].items():
        for name, measure in ((node or {}).get("measures") or {}).items():
            if (code := source.of(source.targets(measure)).digest) is not None:
                found[f"callbacks.{callback}.measures.{name}"] = code
    return found


def check(config: Config) -> None:
    """Build everything a run needs, try one step, throw it away: what is wrong is said before anything is written.

    Of the runs of a sweep that differ in their seed alone one is checked in each process.
    """
    content = {key: node for key, node in config.items() if key not in ("seed", "name", "runs_dir", "table")}
    content["data"] = {key: value for key, value in config["data"].items() if key != "seed"}
    checked = digest(content)
    if checked in _CHECKED:
        return
    with threads_of(config), quiet():
        data = build_data(config)
        module = build_module(config, data)
        for callback in build_callbacks(config).values():
            if isinstance(callback, Measuring):
                callback.subject(module)  # a part of it may be named
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
        if (processes := distributed.size(config["trainer"])) > 1:
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
    _CHECKED.add(checked)


def other_code(planned: Plan, expected: Plan) -> str | None:
    """Why a run that was planned elsewhere cannot be trained here: the modules whose code differs, in one line."""
    ours, theirs = planned.source.modules, expected.source.modules
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"the source of {', '.join(names[:3])}{more} differs from the planned one: it was changed since, or is another "
        "version on this machine; the same command trains the run with the code that is there then"
    )


def _check(config: Config) -> None:
    """What no component checks for itself."""
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
    distributed.check(config["trainer"])
    if config["trainer"].get("max_epochs") is None and config["trainer"].get("max_steps") is None:
        raise ConfigError("trainer.max_epochs and trainer.max_steps are both null: training would never end; set one")
    lr = config["optimizer"].get("lr", 1)
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise ConfigError(f"optimizer.lr is {'null' if lr is None else repr(lr)}; accepted: a number in (0, inf)")
    for key, value in config["optimizer"].items():  # torch's own say that '<=' is not supported
        if key in ("eps", "weight_decay", "momentum", "alpha") and not isinstance(value, int | float):
            raise ConfigError(f"optimizer.{key} is {'null' if value is None else repr(value)}; accepted: a number")
