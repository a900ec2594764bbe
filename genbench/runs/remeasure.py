"""Measure a finished run again after the code of one of the user's own measures has changed."""

import time
from typing import Any

import torch

from genbench import records
from genbench.records.weights import matched, read_state
from genbench.runs.build import build_callbacks, build_data, build_module, build_trainer, quiet, threads_of
from genbench.runs.results import measure_codes, outdated_measures
from genbench.runs.run import FinishedTrainer, Run

_PARTS = ("metrics", "stderr", "converged", "residual", "interval", "notes", "measure_seconds")


def renewed(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a locked run with its outdated measures taken anew from the final weights, and written.

    Returned as it is if no measure is outdated.
    """
    paths = outdated_measures(run.planned, record)
    if not paths:
        return record
    start = time.perf_counter()
    with threads_of(run.config), quiet():
        estimates, found = _measured(run, paths)
    known = record["provenance"].get("measures") or {}
    gone = {key for path in paths for key in (known.get(path) or {}).get("keys", [])}
    new = records.estimate_parts(estimates)
    parts = {
        part: {**{key: value for key, value in record[part].items() if key not in gone | estimates.keys()}, **new[part]}
        for part in _PARTS
    }
    if record["history"] is not None:
        names = ", ".join(path.rpartition(".")[2] for path in paths)
        parts["notes"]["measures"] = f"{names}: measured again with other code; rows of the history are of the earlier"
    seconds = {**record["seconds"], "measure": (record["seconds"].get("measure") or 0.0) + time.perf_counter() - start}
    provenance = {**record["provenance"], "measures": {**known, **found}}
    records.write(run.folder, {**record, **parts, "seconds": seconds, "provenance": provenance})
    return records.read(run.folder)


def _measured(run: Run, paths: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The estimates of some measures, and their part of :func:`measure_codes`."""
    config = run.config
    chosen: dict[str, list[str]] = {}
    for path in paths:
        _, callback, _, name = path.split(".", 3)
        chosen.setdefault(callback, []).append(name)
    nodes = {
        callback: {**node, "measures": {name: node["measures"][name] for name in chosen[callback]}}
        for callback, node in config["callbacks"].items()
        if callback in chosen
    }
    data = build_data(config) if run.data is None else run.data
    module = build_module(config, data)
    module.finish([])  # gives the network the form that it has after training
    module.network.load_state_dict(torch.load(run.folder / "weights.pt", map_location="cpu", weights_only=True))
    if config["trainer"].get("accelerator") != "cpu" and torch.cuda.is_available():
        module.to("cuda")
    trainer = build_trainer(config, steps_per_epoch=data.steps_per_epoch, default_root_dir=None)
    callbacks: dict[str, Any] = build_callbacks({**config, "callbacks": nodes})
    estimates: dict[str, Any] = {}
    initial = run.folder / "initial.pt"
    for measuring in callbacks.values():
        if getattr(measuring, "initial", None) is None and initial.is_file():
            measuring.initial = matched(read_state(initial), module.network, "initial")
        estimates |= measuring.measure(FinishedTrainer(trainer, data), module.eval())
    found = measure_codes(run.planned, callbacks)
    return estimates, {path: found[path] for path in paths}
