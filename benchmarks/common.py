"""What the benchmarks share: networks, data, turns, and the command line of each."""

import argparse
import os
import random
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Result(NamedTuple):
    """One line of what a benchmark measured."""

    what: str
    measured: str


def report(
    measure: Callable[[argparse.Namespace], list[Result]],
    about: str | None,
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Read the options of a benchmark from the command line, run it on one thread and print what it measured."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, load average {os.getloadavg()[0]:.1f} at the start")
    if rows := measure(args):
        print("\n| what | measured |\n|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.measured} |")


def in_turns(candidates: dict[str, Callable[[int], dict[str, Any]]], *, repeats: int) -> dict[str, list[Any]]:
    """Each candidate's results with their ``seconds``, taken in turns after one unrecorded run."""
    results: dict[str, list[Any]] = {name: [] for name in candidates}
    for seed in range(-1, repeats):
        for name, run in candidates.items():
            start = perf_counter()
            found = run(max(seed, 0))
            if seed >= 0:
                results[name].append({**found, "seconds": perf_counter() - start})
    return results


def ablation(method: str, *overrides: str) -> dict[str, Any]:
    """The configuration of one run of ``experiment=ablation`` on the CPU."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from genbench.config import folder

    fixed = ["experiment=ablation", f"regularization={method}", "trainer.accelerator=cpu"]
    with initialize_config_dir(str(folder()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("train", [*fixed, *overrides]), resolve=True)
    return plain


def copies(one: dict[str, Any], runs: Path, number: int, rows: int) -> Path:
    """Write copies of a run's record with other numbers into a folder, ``rows`` learning rates and as many seeds of
    each; return the folder."""
    from genbench import records

    history = next(runs.glob("*/*/history.csv")).read_bytes()
    folder, draw = runs / f"many{number}", random.Random(0)
    for copy in range(number):
        run = {key: value for key, value in one.items() if key not in ("digest", "files")}
        row, seed = divmod(copy, number // rows)
        config = {**one["config"], "seed": seed, "data": {**one["config"]["data"], "seed": seed}}
        config["optimizer"] = {**one["config"]["optimizer"], "lr": 1e-3 * (row + 1)}
        metrics = {k: v and v * draw.uniform(0.8, 1.2) for k, v in one["metrics"].items()}
        target = folder / f"{copy:012x}"
        target.mkdir(parents=True)
        (target / "history.csv").write_bytes(history)
        records.write(target, {**run, "run_id": target.name, "seed": seed, "config": config, "metrics": metrics})
    return folder


def trained(name: str, *, steps: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """MNIST-1D's MLP (15,210 parameters) or CNN (5,210) after Adam on its 4,000 training examples, with those."""
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    x, y = torch.tensor(data["x"]).float()[:, None], torch.tensor(data["y"]).long()
    torch.manual_seed(0)
    model = network(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        rows = torch.randint(len(y), (100,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval(), x, y


def full_measures() -> dict[str, Any]:
    """The measures of ``measures=full``, by name."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from genbench.config import folder
    from genbench.runs import build

    with initialize_config_dir(str(folder()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("measure", ["measures=full"])["measures"])
    return {name: build.make(node) for name, node in plain.items()}


def network(name: str) -> nn.Module:
    from genbench.models import CNN, MLP

    return {"mlp": MLP, "cnn": CNN}[name](input_shape=(1, 40), classes=10)
