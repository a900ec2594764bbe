"""A training step of the ablation (MNIST-1D, MLP, Adam, batch 100) against that of a bare LightningModule.

The bare one has automatic optimization, a ``training_step`` that returns the cross-entropy, and nothing else. Both
train the same network on the same batches with the same Trainer flags, without logger, progress bar or other
callbacks than the clock, on one thread, in turns; without a method they end with the same weights. Timed are whole
epochs from the start of training to its end, eight steps each.
"""

import argparse
import statistics
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common import Result, ablation, in_turns, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1200)


def measure(args: argparse.Namespace) -> list[Result]:
    methods = ("none", "dropout", "l2", "sam")
    candidates = {"bare": lambda seed: _fit(seed, "none", steps=args.steps, bare=True)}
    candidates |= {m: lambda seed, m=m: _fit(seed, m, steps=args.steps, bare=False) for m in methods}
    results = in_turns(candidates, repeats=args.repeats)
    for ours, bare in zip(results["none"], results["bare"], strict=True):
        assert torch.equal(ours["weights"], bare["weights"])
    print("| | ms a step | × bare, median | min–max |")
    print("|---|---|---|---|")
    rows = []
    for name, runs in results.items():
        ratios = [ours["step"] / bare["step"] for ours, bare in zip(runs, results["bare"], strict=True)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"
        print(f"| {name} | {1e3 * statistics.median(r['step'] for r in runs):.3f} | {middle:.2f} | {spread} |")
        if name == "none":
            what = "a training step, × that of a bare LightningModule"
            rows.append(Result(what, f"{middle:.2f} ({spread})"))
    return rows


def _fit(seed: int, method: str, *, steps: int, bare: bool) -> dict[str, Any]:
    """Train as genbench does, or a bare module: seconds a ``step``, and the ``weights`` it ended with."""
    import pytorch_lightning as pl

    from genbench.data import Batches
    from genbench.runs import build

    class Bare(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            x, y = batch
            return F.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), **settings)

    class Clock(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.start = perf_counter()

        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.seconds = perf_counter() - self.start

    config = ablation(method, f"seed={seed}", f"trainer.max_steps={steps}")
    settings = {key: value for key, value in config["optimizer"].items() if not key.startswith("_")}
    with build.quiet():
        data = build.build_data(config)
        module = build.build_module(config, data)
        network, clock = module.network, Clock()
        trainer = build.build_trainer(
            config,
            steps_per_epoch=data.steps_per_epoch,
            default_root_dir=None,
            callbacks=[clock],
            enable_checkpointing=False,
        )
        if bare:
            x, y = data.tensors("train")
            trainer.fit(Bare(), Batches(x, y, batch_size=data.batch_size, seed=data.order_seeds[0]))
        else:
            trainer.fit(module, datamodule=data)
    weights = nn.utils.parameters_to_vector(network.parameters()).detach()
    return {"step": clock.seconds / steps, "weights": weights}


if __name__ == "__main__":
    report(measure, __doc__, options)
