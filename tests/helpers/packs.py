"""Runs that train separately and as a pack, and how far they end apart."""

from contextlib import nullcontext

import pytest
import torch

from genbench.runs.build import build_data, build_module
from genbench.training import Pack
from genbench.training.lane import SeparateLanes
from genbench.training.step import training_step
from tests.helpers.choices import needs
from tests.helpers.equality import apart

STEPS = 20
# lanes that differ in all that lanes may differ in
LANES = ({"seed": 0}, {"seed": 1, "data.label_noise": 0.3}, {"seed": 2, "optimizer.lr": 0.003})


def built(config, dtype, device="cpu"):
    data = build_data(config)
    module = build_module(config, data)
    return data.to(device), module.to(device, dtype)


def batches(loader, dtype, steps, device="cpu"):
    found = []
    for epoch in range(steps):
        loader.set_epoch(epoch)
        found += [(x.to(device, dtype if x.is_floating_point() else x.dtype), y.to(device)) for x, y in loader]
        if len(found) >= steps:
            return found[:steps]


def separately(config, dtype, steps, *, shaken=None, device="cpu", around=lambda step: nullcontext()):
    """The lanes of one run after some steps, trained one by one; ``shaken``, a seed, moves each initial weight by one
    rounding, up or down. Each step is taken within the context ``around(step)``."""
    data, module = built(config, dtype, device)
    if shaken is not None:
        generator = torch.Generator().manual_seed(shaken)
        for lane in module.lanes:
            for p in lane.trained:
                up = torch.rand(p.shape, generator=generator) < 0.5
                ends = torch.full_like(p, torch.inf).where(up, -torch.inf)
                p.data = torch.nextafter(p.detach(), ends)
    optimizer = module.make_optimizer([{"params": lane.trained} for lane in module.lanes])
    schedule = module.make_scheduler(optimizer, total_steps=steps)
    lanes = SeparateLanes(list(module.lanes), optimizer)
    settings = {"optimizer": optimizer, "schedule": None if schedule is None else schedule.step, "total_steps": steps}
    for step, (x, y) in enumerate(batches(data.train_dataloader(), dtype, steps, device)):
        with around(step):
            training_step(lanes, x, y, step=step, **settings)
    return list(module.lanes)


def together(configs, dtype, steps, *, device="cpu", around=lambda step: nullcontext()):
    """The lanes of all runs after some steps as one; each step is taken within the context ``around(step)``."""
    runs = [built(config, dtype, device) for config in configs]
    owners = [(module, lane) for _, module in runs for lane in module.lanes]
    pack = Pack(
        [lane for _, lane in owners],
        optimizer=[module.make_optimizer for module, _ in owners],
        scheduler=[module.make_scheduler for module, _ in owners],
        own_batches=True,
    )
    optimizer = pack.prepare(total_steps=steps)
    loaders = [data.train_dataloader() for data, _ in runs]
    loader = type(loaders[0]).merge(loaders, [(i, k) for i, (_, m) in enumerate(runs) for k in range(len(m.lanes))])
    settings = {"optimizer": optimizer, "schedule": optimizer.schedule, "total_steps": steps}
    for step, (x, y) in enumerate(batches(loader, dtype, steps, device)):
        with around(step):
            training_step(pack, x, y, step=step, **settings)
    return [lane for _, lane in owners]


def spread(configure, model, method, optimizer, scheduler, dtype):
    """How far the same separate runs end apart, at most, when their initial weights move by one rounding: what no way
    of training can keep to."""
    chosen = [f"model={model}", f"regularization={method}", f"optimizer={optimizer}", f"scheduler={scheduler}"]
    found = 0.0
    for config in configure(*chosen, *(needs(model, method) or ()), each=LANES):
        plain = separately(config, dtype, STEPS)
        for seed in range(3):
            shaken = separately(config, dtype, STEPS, shaken=seed)
            found = max([found, *map(apart, shaken, plain)])
    return found


def compare(configure, model, method, optimizer, scheduler, dtype, *more, steps=STEPS):
    chosen = [f"model={model}", f"regularization={method}", f"optimizer={optimizer}", f"scheduler={scheduler}", *more]
    settings = needs(model, method)
    if settings is None:
        pytest.skip("no data suits both")
    configs = configure(*chosen, *settings, each=LANES)
    try:
        alone = [lane for config in configs for lane in separately(config, dtype, steps)]
    except ValueError as error:
        if "has no" in str(error):  # a method that fills places which this network lacks
            pytest.skip(str(error))
        raise
    packed = together(configs, dtype, steps)
    start = [lane for config in configs for lane in built(config, dtype)[1].lanes]
    for a, b, before in zip(packed, alone, start, strict=True):
        moved = [float((p - q).detach().norm()) for p, q in zip(b.trained, before.trained, strict=True)]
        assert max(moved) > 1e-4  # they did train
        yield apart(a, b)
