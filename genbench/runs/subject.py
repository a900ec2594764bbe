"""The trained network of a checkpoint, with the data that it is measured on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench import records
from genbench.callbacks.splits import ALL, SPLITS, Data, take, with_marks
from genbench.callbacks.views import Views
from genbench.checks import ConfigError, check_choice, nearest
from genbench.config import bind
from genbench.measures import Snapshot
from genbench.measures.base import MeasureOf
from genbench.privacy import HIDDEN
from genbench.records.weights import States, matched, read_state, record_of
from genbench.runs import build, trust

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A trained network with its data; ``record`` is that of its run, if it is a run's."""

    title: str
    network: nn.Module
    data: Any
    initial: dict[str, Tensor] | None
    settings: dict[str, Any]
    digest: str
    record: Mapping[str, Any] | None = None

    @property
    def present(self) -> Sequence[str]:
        """The splits of the data."""
        return getattr(self.data, "splits", SPLITS)

    def splits(self, chosen: str) -> list[str]:
        """The chosen split, and train and test, between which there is a gap."""
        if chosen not in self.present:
            raise ConfigError(f"split={chosen} is not there; accepted: {', '.join(self.present)}")
        return [split for split in SPLITS if split == chosen or (split != "val" and split in self.present)]

    def batches(self, split: str, examples: int | str | None, config: Config) -> Data:
        """The batches of a split, or of ``examples`` of it that the ``seed`` chooses; ``all`` is every split."""
        splits = [each for each in SPLITS if each in self.present] if split == ALL else [split]
        found = [_batches(self.data, each) for each in splits]
        if isinstance(examples, int):
            data = take(found, examples, seed=config["seed"])
        else:
            data = Data(found[0] if len(found) == 1 else [batch for batches in found for batch in batches])
        return with_marks(data, self.data, splits)

    def snapshot(self, batches: Iterable[Any], config: Config, **marks: Any) -> Snapshot:
        """The snapshot of the network on these batches."""
        loss = build.make(config["loss"])
        scaling = getattr(self.data, "scaling", (0.0, 1.0))
        return Snapshot(self.network, loss, batches, initial=self.initial, scaling=scaling, **marks)

    def views(self, measures: Mapping[str, MeasureOf], config: Config, snapshots: Mapping[str, Snapshot]) -> Views:
        """What these measures see; ``snapshots`` are those of splits that there are already.

        Raises:
            ValueError: the network cannot be measured.
        """
        chosen, examples = config["split"], config["examples"]
        notes: dict[str, str | None] = {}

        def snapshot(split: str) -> Snapshot | None:
            if split in snapshots:
                return snapshots[split]
            if split not in (*self.present, ALL):
                return None
            found = self.batches(split, examples, config)
            notes[split] = found.note
            return self.snapshot(found.batches, config, **found.marks)

        views = Views.of(
            measures,
            chosen,
            examples=examples,
            snapshot=snapshot,
            data=lambda number: self.batches(chosen, number, config),
            without=lambda batches: self.snapshot(batches, config),
        )
        views.notes.update(notes)
        return views


def load(config: Config, *, build_data: Callable[[Config], Any] = build.build_data) -> Subject:
    """Load the network that ``checkpoint`` names, and its data: of a run's folder, or of a file of weights.

    ``build_data`` makes the data of a configuration; of several runs it may give those that it has made.

    Raises:
        ConfigError: it cannot be loaded; in one line.
    """
    path = Path(config["checkpoint"])
    if (path / records.RECORD).is_file():
        return _of_run(path, config, build_data)
    if path.is_dir():
        raise ConfigError(
            f"checkpoint={path.name!r} is a folder without {records.RECORD}; accepted: a run's folder, a file"
        )
    if not path.exists() and path.parent.is_dir():
        hint = nearest(path.name, sorted(other.name for other in path.parent.iterdir() if other.is_dir()))
        if hint.startswith("did"):
            raise ConfigError(f"checkpoint: there is no file or folder {path.name!r}; {hint}")
    return _of_file(path, config, build_data)


def _of_run(folder: Path, config: Config, build_data: Callable[[Config], Any]) -> Subject:
    record = record_of(folder, "checkpoint")
    whole = dict(record["config"])
    check_trust(record, config)
    given, lost = config["model"] or {}, hidden(record)
    if given.keys() - lost:
        accepted = ", ".join(f"model.{key}" for key in lost) or "model with a bare state dict only"
        raise ConfigError(f"model is that of the run; accepted: {accepted}")
    if config["key"] is not None:
        raise ConfigError(f"key={config['key']}: a run has one state; accepted with a file of weights only")
    if missing := [key for key in lost if key not in given]:
        raise ConfigError(f"the record does not hold model.{missing[0]}, which was not to be shared; give it again")
    whole["model"] = {**whole["model"], **given}
    if config["data"]:  # other data, or settings of the run's data, such as their place
        whole["data"] = {**({} if "_target_" in config["data"] else whole["data"]), **config["data"]}
    data = _data_of_run(whole, record, config, build_data)
    module = build.build_module(whole, data)
    module.finish([])  # gives the network the form that it has after training
    network = module.network
    initial = config["initial"] or (folder / "initial.pt" if "initial.pt" in record["files"] else None)
    load_weights(network, read_state(folder / "weights.pt"), "checkpoint")
    methods = "+".join(record["choices"]["regularization"]) or "none"
    return Subject(
        title=f"{record['choices'].get('model', 'model')}, {methods}, seed {record['seed']} (run {record['run_id']})",
        network=network.to(device_of(config)),
        data=data,
        initial=matched(read_state(Path(initial)), network, "initial") if initial else None,
        settings=bind({key: whole[key] for key in ("data", "model", "regularization", "optimizer", "trainer", "seed")}),
        digest=record["files"]["weights.pt"],
        record=record,
    )


def hidden(record: Mapping[str, Any]) -> list[str]:
    """The settings of the model that a record does not hold, as they must not be shared."""
    return [key for key, value in (record["config"].get("model") or {}).items() if HIDDEN in str(value)]


def check_trust(record: Mapping[str, Any], config: Config) -> None:
    """Refuse the record of somebody else that names code, unless the command trusts it.

    Raises:
        ConfigError: what is refused; in one line.
    """
    if not config["trust"] and not records.is_own(record):
        typed, whole = config["data"] or {}, record["config"]
        kept = {} if "_target_" in typed else {k: v for k, v in whole.get("data", {}).items() if k not in typed}
        trust.check({**whole, "data": kept}, name=f"the run {record['run_id']}")


def _data_of_run(whole: Config, record: Config, config: Config, build_data: Callable[[Config], Any]) -> Any:
    """The data of a run, or those that the command names instead.

    Raises:
        ConfigError: the data are files and the command does not name their place; or only their place was named, and
            their content is not that of the record.
    """
    chosen, made = config["data"] or {}, record["provenance"]
    if made.get("data_path") and not {"_target_", "path", "hub"} & chosen.keys():
        raise ConfigError(
            "the run was trained on files, and its record does not say where they lie; accepted: data.path=FOLDER, "
            "the same files; or other data: data=digits, say"
        )
    data = build_data(whole)
    if chosen.keys() <= {"path"} and made.get("data") not in (None, data.digest):
        where = f"data.path={Path(chosen['path']).name!r}: they" if chosen else "the data"
        raise ConfigError(
            f"{where} are not those of the run (their digest is {data.digest[:12]}, its record's {made['data'][:12]}); "
            "accepted: the same, or other data chosen as such: data=digits, say"
        )
    return data


def _of_file(path: Path, config: Config, build_data: Callable[[Config], Any]) -> Subject:
    state = read_state(path)
    for group, example in (("data", "data=mnist1d"), ("model", "model=mlp, or model._target_=my_package.Net")):
        if not config[group]:
            raise ConfigError(f"{group} is not chosen, and a bare state dict does not tell; accepted: {example}")
    settings = bind({"data": config["data"], "model": config["model"]})
    data = build_data(config)
    torch.manual_seed(0)  # the weights are replaced
    network = build.build_network(config["model"], data)
    load_weights(network, state, "checkpoint", key=config["key"])
    initial = config["initial"]
    return Subject(
        title=f"{type(network).__name__} ({path.name})",
        network=network.to(device_of(config)),
        data=data,
        initial=matched(read_state(Path(initial)), network, "initial") if initial else None,
        settings=settings,
        digest=records.file_digest(path),
    )


def load_weights(network: nn.Module, states: States, name: str, *, key: str | None = None) -> None:
    """Load weights of the setting ``name`` into a network.

    Raises:
        ConfigError: keys or shapes differ.
    """
    state, wanted = matched(states, network, name, key=key), network.state_dict()
    for own, tensor in wanted.items():
        if own not in state:
            raise ConfigError(f"{name} has no {own!r}; {nearest(own, list(state))}: is it another model's?")
        if state[own].shape != tensor.shape:
            shapes = f"{tuple(state[own].shape)}, the model's {tuple(tensor.shape)}"
            raise ConfigError(f"{name}: {own!r} has shape {shapes}: is it another model's?")
    if strange := [own for own in state if own not in wanted]:
        raise ConfigError(f"{name} has {strange[0]!r}, which the model has not: is it another model's?")
    network.load_state_dict(state)


def device_of(config: Config) -> str:
    """The device that the command measures on.

    Raises:
        ConfigError: there is no such device.
    """
    device = check_choice("device", config["device"], ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda is not available here; accepted: auto, cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _batches(data: Any, split: str) -> Iterable[Any]:
    if hasattr(data, "evaluation_batches"):
        return data.evaluation_batches(split)
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    loader = getattr(data, f"{split}_dataloader")()
    return loader[0] if isinstance(loader, Sequence) else loader
