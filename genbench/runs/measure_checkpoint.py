"""Measures of a network that is trained already: from a checkpoint to a table."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench import records
from genbench.callbacks.splits import AUTO, FEW, SPLITS, Data, noted, take
from genbench.callbacks.splits import few as on_few
from genbench.checks import check_choice, check_integer, nearest
from genbench.config import ConfigError, bind
from genbench.measures import Estimate, Snapshot
from genbench.measures.base import check_settings, evaluate, of_flatness, reason
from genbench.measures.gap import performance_and_gaps
from genbench.measures.watch import Say, log, told
from genbench.privacy import HIDDEN, clean, shared
from genbench.records.weights import States, matched, read_state, record_of
from genbench.runs import build, trust
from genbench.runs.provenance import provenance

SCHEMA = 1
PICTURES = {"plane_points": 3, "density_runs": 2, "density_steps": 1}  # their settings, and the least of each

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """What was measured of one checkpoint, and the files that hold it."""

    title: str
    estimates: dict[str, Estimate]
    files: list[Path]


def run(config: Config, *, say: Say = log) -> Measured:
    """Load a checkpoint, measure it, write ``measures.json``, ``measures.csv`` and ``measures.html``.

    What a measure gives is written as soon as it is there, with the names of those that are to come; the same command
    goes on from it. ``say`` is told how far measuring is.

    ``config`` is that of ``conf/measure.yaml``. Raises ``ConfigError``, in one line, for what cannot be loaded; a
    measure that fails is a null with its reason.
    """
    check_choice("split", config["split"], SPLITS)
    check_integer("threads", config["threads"], least=1, most=1024)
    _check_pictures(config["pictures"])
    examples = config["examples"]
    if examples not in (None, AUTO):
        check_integer("examples", examples, least=1, note="or auto, or null")
    bind({"measures": config["measures"], "loss": config["loss"]})
    measures = {name: build.make(node) for name, node in config["measures"].items()}
    check_settings(measures)
    folder = _output(config)
    before = torch.get_num_threads()
    torch.set_num_threads(config["threads"])
    try:
        subject, split = _load(config), config["split"]
        files = _Files(folder, subject, config)
        known = files.known()
        data = {split: subject.batches(split, examples, config) for split in subject.splits(split)}
        snapshots = {split: subject.snapshot(found.batches, config) for split, found in data.items()}
        few, notes = None, {split: found.note for split, found in data.items()}
        if examples == AUTO and any(map(of_flatness, measures.values())):
            chosen = subject.batches(split, FEW, config)
            if note := on_few(split, chosen):
                few, notes[f"{split}/flatness"] = snapshots[split].on(chosen.batches), note

        def keep(name: str, found: dict[str, Estimate]) -> None:
            known[name] = noted(found, notes)
            files.write_unfinished(known, left=[name for name in measures if name not in known])

        with told(say):
            estimates = noted(performance_and_gaps(snapshots), notes)
            found = evaluate(measures, snapshots[split], split=split, few=few, known=dict(known), keep=keep)
            estimates |= noted(found, notes)
            drawn = _Drawn([], {}, {})
            if config["pictures"]:
                say("drawing: loss surfaces and spectral density")
                drawn = _draw(few or snapshots[split], estimates, config)
    finally:
        torch.set_num_threads(before)
    return Measured(subject.title, estimates, files.write(estimates, drawn))


def _check_pictures(settings: Config | None) -> None:
    for name, least in PICTURES.items():
        if settings is not None:
            check_integer(f"pictures.{name}", settings[name], least=least)


# -- what is measured


@dataclass(frozen=True)
class Subject:
    """A trained network with its data."""

    title: str
    network: nn.Module
    data: Any
    initial: dict[str, Tensor] | None
    settings: dict[str, Any]
    digest: str

    def splits(self, chosen: str) -> list[str]:
        """The chosen split, and train and test for the gap between them."""
        present = getattr(self.data, "splits", SPLITS)
        if chosen not in present:
            raise ConfigError(f"split={chosen} is not there; accepted: {', '.join(present)}")
        return [split for split in SPLITS if split == chosen or (split != "val" and split in present)]

    def batches(self, split: str, examples: int | str | None, config: Config) -> Data:
        """A split, or ``examples`` of it by ``seed``."""
        batches = _batches(self.data, split)
        return take([batches], examples, seed=config["seed"]) if isinstance(examples, int) else Data(batches)

    def snapshot(self, batches: Iterable[Any], config: Config) -> Snapshot:
        """The network on these batches."""
        loss = build.make(config["loss"])
        scaling = getattr(self.data, "scaling", (0.0, 1.0))
        return Snapshot(self.network, loss, batches, initial=self.initial, scaling=scaling)


def _load(config: Config) -> Subject:
    path = Path(config["checkpoint"])
    if (path / records.RECORD).is_file():
        return _of_run(path, config)
    if path.is_dir():
        raise ConfigError(
            f"checkpoint={path.name!r} is a folder without {records.RECORD}; accepted: a run's folder, a file"
        )
    return _of_file(path, config)


def _of_run(folder: Path, config: Config) -> Subject:
    record = record_of(folder, "checkpoint")
    whole = dict(record["config"])
    if not config["trust"] and not records.is_own(record):
        typed = config["data"] or {}
        kept = {} if "_target_" in typed else {k: v for k, v in whole.get("data", {}).items() if k not in typed}
        trust.check({**whole, "data": kept}, name=f"the run {folder.name}")
    given = config["model"] or {}
    lost = [key for key, value in whole["model"].items() if HIDDEN in str(value)]  # they were not to be shared
    if given.keys() - lost:
        accepted = ", ".join(f"model.{key}" for key in lost) or "model with a bare state dict only"
        raise ConfigError(f"model is that of the run; accepted: {accepted}")
    if config["key"] is not None:
        raise ConfigError(f"key={config['key']}: a run has one state; accepted with a file of weights only")
    if missing := [key for key in lost if key not in given]:
        raise ConfigError(f"the record does not hold model.{missing[0]}, which was not to be shared; give it again")
    whole["model"] = {**whole["model"], **given}
    if config["data"]:  # other data, or settings of the run's own, such as where they lie now
        whole["data"] = {**({} if "_target_" in config["data"] else whole["data"]), **config["data"]}
    data = _data_of_run(whole, record, config)
    module = build.build_module(whole, data)
    module.finish([])  # of the form that training leaves
    network = module.network
    initial = config["initial"] or (folder / "initial.pt" if "initial.pt" in record["files"] else None)
    _fill(network, read_state(folder / "weights.pt"), "checkpoint")
    methods = "+".join(record["choices"]["regularization"]) or "none"
    return Subject(
        title=f"{record['choices'].get('model', 'model')}, {methods}, seed {record['seed']} (run {record['run_id']})",
        network=_placed(network, data, config),
        data=data,
        initial=matched(read_state(Path(initial)), network, "initial") if initial else None,
        settings=bind({key: whole[key] for key in ("data", "model", "regularization", "optimizer", "trainer", "seed")}),
        digest=record["files"]["weights.pt"],
    )


def _data_of_run(whole: Config, record: Config, config: Config) -> Any:
    """The data of a run, or what the command names in their place.

    Raises:
        ConfigError: they are files, and the command does not say where they lie now; or their content is not that of
            the record, though nothing but their place was named.
    """
    chosen, made = config["data"] or {}, record["provenance"]
    if made.get("data_path") and not {"_target_", "path", "hub"} & chosen.keys():
        raise ConfigError(
            "the run was trained on files, and its record does not say where they lie; accepted: data.path=FOLDER, "
            "the same files; or other data: data=digits, say"
        )
    data = build.build_data(whole)
    if chosen.keys() <= {"path"} and made.get("data") not in (None, data.digest):
        where = f"data.path={Path(chosen['path']).name!r}: they" if chosen else "the data"
        raise ConfigError(
            f"{where} are not those of the run (their digest is {data.digest[:12]}, its record's {made['data'][:12]}); "
            "accepted: the same, or other data chosen as such: data=digits, say"
        )
    return data


def _of_file(path: Path, config: Config) -> Subject:
    state = read_state(path)
    for group, example in (("data", "data=mnist1d"), ("model", "model=mlp, or model._target_=my_package.Net")):
        if not config[group]:
            raise ConfigError(f"{group} is not chosen, and a bare state dict does not tell; accepted: {example}")
    settings = bind({"data": config["data"], "model": config["model"]})
    data = build.build_data(config)
    torch.manual_seed(0)  # the weights are replaced
    network = build.build_network(config["model"], data)
    _fill(network, state, "checkpoint", key=config["key"])
    initial = config["initial"]
    return Subject(
        title=f"{type(network).__name__} ({path.name})",
        network=_placed(network, data, config),
        data=data,
        initial=matched(read_state(Path(initial)), network, "initial") if initial else None,
        settings=settings,
        digest=records.file_digest(path),
    )


def _fill(network: nn.Module, states: States, name: str, *, key: str | None = None) -> None:
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


def _placed(network: nn.Module, data: Any, config: Config) -> nn.Module:
    device = check_choice("device", config["device"], ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda is not available here; accepted: auto, cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device)


def _batches(data: Any, split: str) -> Iterable[Any]:
    if hasattr(data, "evaluation_batches"):
        return data.evaluation_batches(split)
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    loader = getattr(data, f"{split}_dataloader")()
    return loader[0] if isinstance(loader, Sequence) else loader


# -- what is drawn


@dataclass(frozen=True)
class _Drawn:
    """The figures, and the arrays behind them as plain lists; what could not be drawn, with the reason."""

    pictures: list[Any]
    data: dict[str, Any]
    left_out: dict[str, str]


def _draw(snapshot: Snapshot, estimates: Mapping[str, Estimate], config: Config) -> _Drawn:
    """Loss along lines and on a plane, spectra of Hessian and weights, margins, layers."""
    from genbench.measures.curvature import hessian_eigenvectors, spectral_density
    from genbench.measures.margins import example_margins, margin_percentile
    from genbench.measures.spectra import weight_spectrum
    from genbench.measures.surface import interpolation, loss_line, loss_plane
    from genbench.report.figures import network as draw

    settings, seed = config["pictures"], config["seed"]
    drawn = _Drawn([], {}, {})

    def lines() -> tuple[Any, Any]:
        found = {
            "random direction": loss_line(snapshot, direction="random", seed=seed),
            "largest Hessian eigenvector": loss_line(snapshot, direction="hessian", seed=seed),
        }
        if snapshot.initial is not None:
            found["from the initial weights"] = interpolation(snapshot)
        return draw.lines(found), {name: _plain(line) for name, line in found.items()}

    def plane() -> tuple[Any, Any]:
        found = loss_plane(snapshot, points=settings["plane_points"], seed=seed)
        return draw.plane(found), _plain(found)

    def density() -> tuple[Any, Any]:
        top, _ = hessian_eigenvectors(snapshot, k=min(5, snapshot.size), seed=seed)
        runs, steps = settings["density_runs"], settings["density_steps"]
        found = spectral_density(snapshot, runs=runs, steps=steps, seed=seed)
        return draw.density(found, top=[e.value for e in top.values() if e.value is not None]), _plain(found)

    def spectra() -> tuple[Any, Any]:
        found = weight_spectrum(snapshot)
        return draw.spectra(found), {name: _plain(spectrum) for name, spectrum in found.items()}

    def distribution() -> tuple[Any, Any]:
        values, gamma = example_margins(snapshot), margin_percentile(snapshot)
        if isinstance(values, str) or isinstance(gamma, str):
            raise ValueError(f"there are no margins: {values}")
        return draw.margins(values.cpu(), gamma), None

    def layers() -> tuple[Any, Any]:
        return draw.layers(estimates), None

    parts = {
        "loss_lines": lines,
        "loss_plane": plane,
        "spectral_density": density,
        "weight_spectra": spectra,
        "margins": distribution,
        "layers": layers,
    }
    with snapshot.measuring():
        for name, part in parts.items():
            try:
                drawing, data = part()
            except Exception as error:  # one picture less does not cost the others
                drawn.left_out[name] = reason(error)
                continue
            if drawing is not None:
                drawn.pictures.append(draw.picture(drawing))
            if data is not None:
                drawn.data[name] = data
    return drawn


def _plain(value: Any) -> Any:
    """Arrays and dataclasses as JSON holds them; a number that is not finite is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- what is written


def _output(config: Config) -> Path:
    """The folder of the files: beside the checkpoint, or where ``output`` says."""
    path = Path(config["checkpoint"])
    folder = (
        Path(config["output"]) if config["output"] else path / "measures" if path.is_dir() else path.with_suffix("")
    )
    if not config["output"] and not path.is_dir():
        folder = folder.with_name(f"{folder.name}_measures")
    return folder


class _Files:
    """``measures.{json,csv,html}`` in a folder."""

    def __init__(self, folder: Path, subject: Subject, config: Config) -> None:
        self._folder, self._subject = folder, subject
        self._provenance = shared(provenance({"threads": config["threads"], "trainer": {}}))
        self._settings = shared(
            {**subject.settings, **{key: config[key] for key in ("measures", "split", "examples", "seed", "loss")}}
        )

    def known(self) -> dict[str, dict[str, Estimate]]:
        """What the same command, with the same code, has measured of the same network before it was broken off, by the
        measure's name and by key."""
        path = self._folder / "measures.json"
        try:
            content = json.loads(records.read_bytes(path))
            same = {**self._head, "provenance": self._provenance}
            if not content["unfinished"] or any(content[key] != value for key, value in same.items()):
                return {}
            return {
                name: {key: Estimate(**content["measures"][key]) for key in keys}
                for name, keys in content["finished"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    @property
    def _head(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "checkpoint": self._subject.digest,
            "title": self._subject.title,
            "settings": self._settings,
        }

    def write_unfinished(self, known: Mapping[str, Mapping[str, Estimate]], *, left: Sequence[str]) -> None:
        """What there is already; ``left`` are the measures that are to come."""
        if left:
            estimates = {key: estimate for found in known.values() for key, estimate in found.items()}
            finished = {name: list(found) for name, found in known.items()}
            self._write(estimates, {"unfinished": list(left), "finished": finished})

    def write(self, estimates: Mapping[str, Estimate], drawn: _Drawn) -> list[Path]:
        from genbench.report.measures_page import page

        html = page(
            estimates,
            drawn.pictures,
            title=self._subject.title,
            settings=self._settings,
            provenance=self._provenance,
        )
        more = {"unfinished": [], "data": drawn.data, "left_out": shared(drawn.left_out)}
        return self._write(estimates, more, html)

    def _write(self, estimates: Mapping[str, Estimate], more: Mapping[str, Any], html: str | None = None) -> list[Path]:
        content = {
            **self._head,
            "measures": shared({key: asdict(estimate) for key, estimate in estimates.items()}),
            **more,
            "provenance": self._provenance,
        }
        written = {
            "measures.json": json.dumps(content, indent=1, allow_nan=False) + "\n",
            "measures.csv": _comma_separated(estimates),
            **({} if html is None else {"measures.html": html}),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, text in written.items():
                records.write_atomic(self._folder / name, text)
        except OSError as error:
            raise ConfigError(
                f"output={str(self._folder)!r} cannot be written: {error.strerror}; set output="
            ) from None
        return [self._folder / name for name in written]


def _comma_separated(estimates: Mapping[str, Estimate]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["measure", "value", "stderr", "low", "high", "converged", "residual", "seconds", "note"])
    for key, e in estimates.items():
        low, high = e.interval or (None, None)
        note = e.note and clean(e.note)
        writer.writerow([key, e.value, e.stderr, low, high, e.converged, e.residual, e.seconds, note])
    return text.getvalue()
