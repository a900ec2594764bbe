"""Which runs can train as one pack, and how many lanes fit in memory."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import get_object

from genbench.process.memory import Allocated, room
from genbench.runs.build import Config, build_data, build_module
from genbench.runs.planned import Plan
from genbench.training import Pack, Unpackable

PER_RUN = ("seed", "optimizer", "scheduler", "callbacks")  # what a pack makes for each of its runs
MOST_LANES_ON_CPU = 32  # 256 networks took 4 % longer in packs of 64, and 15 % longer in packs of 128


def key(planned: Plan) -> str:
    """What runs must have in common to train as one: everything but :data:`PER_RUN` and what a component declares as
    ``per_lane``. A datamodule or model that declares nothing has no such settings, a method all its numbers but
    its ``counts``."""
    bound: dict[str, Any] = {name: None if name in PER_RUN else node for name, node in planned.bound.items()}
    for name in ("data", "model"):
        bound[name] = _common(bound[name], _declared(bound[name], "per_lane") or ())
    methods = bound["regularization"]
    bound["regularization"] = {
        name: _common(node, _declared(node, "per_lane"), _declared(node, "counts")) for name, node in methods.items()
    }
    return json.dumps([bound, planned.steps_per_epoch, planned.batch_size], sort_keys=True)


def _declared(node: Config, name: str) -> tuple[str, ...] | None:
    return getattr(get_object(node["_target_"]), name, None)


def _common(node: Any, per_lane: tuple[str, ...] | None, counts: tuple[str, ...] | None = None) -> Any:
    """A node with None in place of the settings in which lanes may differ: those in ``per_lane``, or all numbers
    but ``counts``."""
    if per_lane is not None:
        return {name: None if name in per_lane else value for name, value in node.items()}
    if isinstance(node, Mapping):
        return {n: value if n in (counts or ()) else _common(value, None, counts) for n, value in node.items()}
    return None if isinstance(node, float | int) and not isinstance(node, bool) else node


def lanes_that_fit(config: Config, *, processes: int) -> int:
    """Number of lanes of this run that fit in half the memory, which so many ``processes`` share.

    Computed from the bytes that a step of one lane allocates. At most ``MOST_LANES_ON_CPU`` without a GPU.
    """
    data = build_data(config)
    module = build_module(config, data)
    pack = Pack([module.lanes[0]], optimizer=module.make_optimizer, own_batches=True)
    x, y = next(iter(data.train_dataloader()))
    allocated = Allocated()
    with contextlib.suppress(Unpackable):  # reported when they train
        pack.prepare(total_steps=1)
        pack.gradient_step(x[:1], y[:1], step=0)  # traces the step; the next one runs its operations alone
        with allocated:
            pack.gradient_step(x[:1], y[:1], step=1)
    gpu = torch.cuda.is_available()
    free = room(torch.device("cuda" if gpu else "cpu"))
    fit = max(1, free // (2 * processes * max(1, allocated.bytes)))
    return fit if gpu else min(fit, MOST_LANES_ON_CPU)
