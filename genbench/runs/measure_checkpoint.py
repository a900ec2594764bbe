"""Measure a network that is trained already: from a checkpoint to ``measures.{json,csv,html}``."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from genbench import records
from genbench.callbacks.splits import AUTO, SPLITS, noted
from genbench.checks import ConfigError, check_choice, check_integer
from genbench.config import bind
from genbench.measures import Estimate
from genbench.measures.base import check_network, check_settings
from genbench.measures.gap import performance_and_gaps
from genbench.measures.measure_progress import Say, log, progress_to
from genbench.privacy import clean, shared
from genbench.runs import build, curves
from genbench.runs.provenance import provenance
from genbench.runs.subject import Config, Subject, load

SCHEMA = 1
Page = Callable[..., tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Measured:
    """The estimates of one checkpoint, and the files that hold them."""

    title: str
    estimates: dict[str, Estimate]
    files: list[Path]


def run(config: Config, *, say: Say = log, page: Page | None = None) -> Measured:
    """Load a checkpoint, measure it, and write ``measures.json``, ``measures.csv`` and with ``page`` ``measures.html``.

    Each measure is written when it is done, with the names of those to come; the same command continues from there.

    Args:
        config: that of ``conf/measure.yaml``.
        say: called with a line that tells how far measuring is.
        page: (estimates, curves, title=, settings=, provenance=) -> the HTML text, and the reason for each picture that
            could not be drawn; ``genbench.report.measures_page.drawn_page``.

    Raises:
        ConfigError: the checkpoint cannot be loaded; in one line. A measure that fails is a null with its reason.
    """
    check_choice("split", config["split"], SPLITS)
    check_integer("threads", config["threads"], least=1, most=1024)
    curves.check_settings(config["pictures"])
    if config["logger"]:
        raise ConfigError(f"logger={next(iter(config['logger']))} is of a folder of runs; accepted here: 'logger=[]'")
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
        subject, split = load(config), config["split"]
        check_network(measures, subject.network)
        files = _Files(folder, subject, config)
        known = files.known()
        data = {split: subject.batches(split, examples, config) for split in subject.splits(split)}
        snapshots = {split: subject.snapshot(found.batches, config, **found.marks) for split, found in data.items()}
        notes = {split: found.note for split, found in data.items()}
        views = subject.views(measures, config, snapshots)
        views.notes.update(notes)

        def keep(name: str, found: dict[str, Estimate]) -> None:
            known[name] = found
            files.write_unfinished(known, left=[name for name in measures if name not in known])

        with progress_to(say):
            estimates = noted(performance_and_gaps(snapshots), notes)
            estimates |= views.evaluate(known=dict(known), keep=keep)
            drawn: dict[str, Any] | None = None
            left_out: dict[str, str] = {}
            if config["pictures"]:
                say("drawing: loss surfaces and spectral density")
                drawn, left_out = curves.compute(views.few or views.snapshot, config["pictures"], seed=config["seed"])
    finally:
        torch.set_num_threads(before)
    return Measured(subject.title, estimates, files.write(estimates, drawn, left_out, page))


def _output(config: Config) -> Path:
    """The folder of the files: that of ``output``, or beside the checkpoint."""
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
        """Estimates of an interrupted command for the same network, settings and code, by measure and key."""
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
        """Write the estimates that are known; ``left`` are the measures to come."""
        if left:
            estimates = {key: estimate for found in known.values() for key, estimate in found.items()}
            finished = {name: list(found) for name, found in known.items()}
            self._write(estimates, {"unfinished": list(left), "finished": finished})

    def write(
        self,
        estimates: Mapping[str, Estimate],
        drawn: Mapping[str, Any] | None,
        left_out: Mapping[str, str],
        page: Page | None,
    ) -> list[Path]:
        """Write all estimates; ``drawn`` are the curves, if there are pictures, ``left_out`` the reasons for others."""
        html = None
        if page is not None:
            html, undrawn = page(
                estimates,
                drawn,
                title=self._subject.title,
                settings=self._settings,
                provenance=self._provenance,
            )
            left_out = {**left_out, **undrawn}
        data = {name: curves.plain(drawn[name]) for name in curves.WRITTEN if drawn and name in drawn}
        return self._write(estimates, {"unfinished": [], "data": data, "left_out": shared(dict(left_out))}, html)

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
