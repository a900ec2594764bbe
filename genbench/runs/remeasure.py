"""Measuring a finished run again where the code of a measure of the user's own has changed since."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from genbench import records
from genbench.records.weights import matched, read_state
from genbench.runs.plan import Plan

_PARTS = ("metrics", "stderr", "converged", "residual", "interval", "notes", "measure_seconds")


def codes(planned: Plan, callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """For the record: of each of the user's measures the digest of its code and the keys that it gave."""
    found = {}
    for path, code in planned.measures.items():
        _, callback, _, name = path.split(".", 3)
        keys = getattr(callbacks.get(callback), "origins", {}).get(name, [])
        found[path] = {"code": code, "keys": keys}
    return found


def outdated(planned: Plan, record: Mapping[str, Any]) -> list[str]:
    """The measures whose code is not the one that measured a completed run."""
    if record["status"] != "completed" or "weights.pt" not in record["files"]:
        return []
    known = record["provenance"].get("measures") or {}
    return [path for path, code in planned.measures.items() if (known.get(path) or {}).get("code") != code]


def renewed(config: Mapping[str, Any], planned: Plan, record: dict[str, Any]) -> dict[str, Any]:
    """The record with the estimates of what is :func:`outdated`, taken anew from the final weights and written; as it
    is where nothing is. Who calls holds the run's lock."""
    paths = outdated(planned, record)
    if not paths:
        return record
    from genbench.runs import build
    from genbench.runs.run import parts_of

    start = time.perf_counter()
    with build.threads_of(config), build.quiet():
        estimates, found = _measured(config, planned, paths)
    known = record["provenance"].get("measures") or {}
    gone = {key for path in paths for key in (known.get(path) or {}).get("keys", [])}
    new = parts_of(estimates)
    parts = {
        part: {**{key: value for key, value in record[part].items() if key not in gone | estimates.keys()}, **new[part]}
        for part in _PARTS
    }
    if record["history"] is not None:
        names = ", ".join(path.rpartition(".")[2] for path in paths)
        parts["notes"]["measures"] = f"{names}: measured again with other code; rows of the history are of the earlier"
    seconds = {**record["seconds"], "measure": (record["seconds"].get("measure") or 0.0) + time.perf_counter() - start}
    provenance = {**record["provenance"], "measures": {**known, **found}}
    records.write(planned.folder, {**record, **parts, "seconds": seconds, "provenance": provenance})
    return records.read(planned.folder)


def _measured(config: Mapping[str, Any], planned: Plan, paths: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The estimates of some measures, and what :func:`codes` says of them."""
    from genbench.runs import build
    from genbench.runs.run import Ended

    chosen: dict[str, list[str]] = {}
    for path in paths:
        _, callback, _, name = path.split(".", 3)
        chosen.setdefault(callback, []).append(name)
    nodes = {
        callback: {**node, "measures": {name: node["measures"][name] for name in chosen[callback]}}
        for callback, node in config["callbacks"].items()
        if callback in chosen
    }
    data = build.build_data(config)
    module = build.build_module(config, data)
    module.finish([])  # of the form that training leaves
    module.network.load_state_dict(torch.load(planned.folder / "weights.pt", map_location="cpu", weights_only=True))
    if config["trainer"].get("accelerator") != "cpu" and torch.cuda.is_available():
        module.to("cuda")
    trainer = build.build_trainer(config, steps_per_epoch=data.steps_per_epoch, default_root_dir=None)
    callbacks: dict[str, Any] = build.build_callbacks({**config, "callbacks": nodes})
    estimates: dict[str, Any] = {}
    initial = planned.folder / "initial.pt"
    for measuring in callbacks.values():
        if getattr(measuring, "initial", None) is None and initial.is_file():
            measuring.initial = matched(read_state(initial), module.network, "initial")
        estimates |= measuring.measure(Ended(trainer, data), module.eval())
    found = codes(planned, callbacks)
    return estimates, {path: found[path] for path in paths}
