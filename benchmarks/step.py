"""A single run of the ablation's network (MNIST-1D, MLP, Adam, batch 100) against the same loop written bare in
PyTorch, and against a bare LightningModule.

All train the same network on the same batches on one thread, in turns. genbench without a method ends with the weights
of the bare loop that takes torch's fused kernel, as genbench does. Its seconds are those of its record, from building
the run to writing its files; ``measured``: with the default measures, along training and at its end.
"""

import argparse
import statistics
import tempfile
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import Result, ablation, in_turns, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3000)


def measure(args: argparse.Namespace) -> list[Result]:
    candidates: dict[str, Any] = {
        "loop": lambda seed: _bare(seed, args.steps),
        "loop, fused": lambda seed: _bare(seed, args.steps, fused=True),
        "Lightning": lambda seed: _lightning(seed, args.steps),
    }
    for method in ("none", "dropout", "l2", "sam"):
        candidates[f"genbench, {method}"] = lambda seed, m=method: _run(seed, args.steps, m)
    candidates["genbench, measured"] = lambda seed: _run(seed, args.steps, "none", measured=True)
    results = in_turns(candidates, repeats=args.repeats)
    for ours, bare in zip(results["genbench, none"], results["loop, fused"], strict=True):
        assert torch.equal(ours["weights"], bare["weights"])
    print("| | ms a step | × the bare loop, median | min–max |\n|---|---|---|---|")
    rows = []
    for name, runs in results.items():
        ratios = [one["taken"] / bare["taken"] for one, bare in zip(runs, results["loop"], strict=True)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"
        each = statistics.median(one["taken"] for one in runs) / args.steps
        print(f"| {name} | {1e3 * each:.3f} | {middle:.2f} | {spread} |")
        if name in ("genbench, none", "genbench, measured"):
            what = "with" if "measured" in name else "without"
            rows.append(
                Result(f"a run {what} the default measures, × a bare loop in PyTorch", f"{middle:.2f} ({spread})")
            )
    return rows


def _parts(seed: int, steps: int) -> tuple[dict[str, Any], Any, nn.Module]:
    from genbench.runs import build

    config = ablation("none", f"seed={seed}", f"trainer.max_steps={steps}")
    data = build.build_data(config)
    return config, data, build.build_module(config, data).network


def _bare(seed: int, steps: int, **chosen: Any) -> dict[str, Any]:
    config, data, net = _parts(seed, steps)
    (x, y), loader = data.tensors("train"), data.train_dataloader()
    settings = {key: value for key, value in config["optimizer"].items() if not key.startswith("_")}
    begun = perf_counter()
    optimizer = torch.optim.Adam(net.parameters(), **settings, **chosen)
    step, epoch = 0, 0
    while step < steps:
        for rows in loader.order(0, epoch)[: steps - step]:
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
        epoch += 1
    return {"taken": perf_counter() - begun, "weights": nn.utils.parameters_to_vector(net.parameters()).detach()}


def _lightning(seed: int, steps: int) -> dict[str, Any]:
    import pytorch_lightning as pl

    from genbench.data import Batches
    from genbench.runs import build

    config, data, net = _parts(seed, steps)
    settings = {key: value for key, value in config["optimizer"].items() if not key.startswith("_")}

    class Bare(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = net

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), **settings)

    with build.quiet():
        trainer = build.build_trainer(
            config, steps_per_epoch=data.steps_per_epoch, default_root_dir=None, enable_checkpointing=False
        )
        begun = perf_counter()
        x, y = data.tensors("train")
        trainer.fit(Bare(), Batches(x, y, batch_size=data.batch_size, seed=data.order_seeds[0]))
    return {"taken": perf_counter() - begun}


def _run(seed: int, steps: int, method: str, *, measured: bool = False) -> dict[str, Any]:
    from genbench.runs import execute

    with tempfile.TemporaryDirectory() as folder:
        config = ablation(method, f"seed={seed}", f"trainer.max_steps={steps}", f"runs_dir={folder}")
        if not measured:
            config["callbacks"] = {}
        record = execute.run(config)
        assert record is not None
        assert record["status"] == "completed"
        path = f"{folder}/{record['experiment']}/{record['run_id']}/weights.pt"
        kept = torch.load(path, weights_only=True)
    weights = torch.cat([kept[name].flatten() for name, _ in _parts(seed, steps)[2].named_parameters()])
    return {"taken": record["seconds"]["total"], "weights": weights}


if __name__ == "__main__":
    report(measure, __doc__, options)
