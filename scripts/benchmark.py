"""Measures what the README says about speed and memory: one subcommand a claim, ratios taken within one process.

Every subcommand ends with a table of what was measured and what is required; the exit status is 1 if a requirement is
not met.

python scripts/benchmark.py all
python scripts/benchmark.py curvature --dense
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, process_time, time
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Result(NamedTuple):
    """One line of the README's table."""

    what: str
    measured: str
    required: str
    met: bool = True


def step(args: argparse.Namespace) -> list[Result]:
    """A training step of the ablation (MNIST-1D, MLP, Adam, batch 100) against that of a bare LightningModule.

    The bare one has automatic optimization, a ``training_step`` that returns the cross-entropy, and nothing else. Both
    train the same network on the same batches with the same Trainer flags, without logger, progress bar or other
    callbacks than the clock, on one thread, in turns; without a method they end with the same weights. Timed are whole
    epochs from the start of training to its end, eight steps each.
    """
    methods = ("none", "dropout", "l2", "sam")
    candidates = {"bare": lambda seed: _fit(seed, "none", steps=args.steps, bare=True)}
    candidates |= {m: lambda seed, m=m: _fit(seed, m, steps=args.steps, bare=False) for m in methods}
    results = _in_turns(candidates, repeats=args.repeats)
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
            rows.append(Result(what, f"{middle:.2f} ({spread})", "≤ 1.10", middle <= 1.1))
    return rows


def callbacks(args: argparse.Namespace) -> list[Result]:
    """What the default callbacks cost: Σ seconds measuring / Σ seconds training over the completed runs of a folder.

    Without a folder: of ablation runs of ``none``, ``l2`` and ``sam``, trained now.
    """
    from genbench import records
    from genbench.runs import execute

    if args.folder is not None:
        found = [r for r in records.load(args.folder).records if r["status"] == "completed"]
        if not found:
            sys.exit(f"{args.folder} holds no completed runs")
    else:
        with tempfile.TemporaryDirectory() as runs:
            found = [execute.run(_ablation(m, f"runs_dir={runs}")) for m in ("none", "l2", "sam")]
    seconds: dict[str, list[tuple[float, float]]] = {}
    for record in found:
        name = "+".join(record["choices"]["regularization"]) or "none"
        seconds.setdefault(name, []).append((record["seconds"]["measure"], record["seconds"]["fit"]))
    seconds["all"] = [pair for pairs in seconds.values() for pair in pairs]
    print("| | runs | s measuring | s training | ratio |")
    print("|---|---|---|---|---|")
    for name, pairs in seconds.items():
        measure, fit = (sum(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {len(pairs)} | {measure:.2f} | {fit:.2f} | {100 * measure / fit:.1f} % |")
    what = f"the default callbacks, share of the fit time of {len(found)} ablation runs"
    return [Result(what, f"{100 * measure / fit:.1f} %", "≤ 15 %", measure / fit <= 0.15)]


def memory(args: argparse.Namespace) -> list[Result]:
    """Peak resident memory of one ablation run, each in a fresh process of its own (libraries included)."""
    rows = []
    for method in ("none", "sam", "ensemble"):
        with (
            tempfile.TemporaryDirectory() as runs,
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            peak = pool.submit(_peak_memory, _ablation(method, f"runs_dir={runs}")).result() / 2**20
        rows.append(Result(f"peak memory of an ablation run, {method}", f"{peak:.0f} MiB", "< 1024 MiB", peak < 1024))
    return rows


def growth(args: argparse.Namespace) -> list[Result]:
    """Peak resident memory of curvature (five products, and a trace of four) on 1, 10 and 100 times the 4,000 examples,
    read in batches of 1,000, each in a fresh process of its own."""
    peaks = []
    for times in (1, 10, 100):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(_peak_curvature, times).result() / 2**20)
    text = ", ".join(f"{peak:.0f}" for peak in peaks) + " MiB"
    return [Result("peak memory of curvature on 1, 10, 100 × 4,000 examples", text, "flat", peaks[2] <= 1.5 * peaks[0])]


def full(args: argparse.Namespace) -> list[Result]:
    """``measures=full`` on the trained MLP and its 4,000 examples, sharpness on 1,024 of them as in a run, with
    two threads and with one."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from genbench.config import folder
    from genbench.measures import Snapshot
    from genbench.measures.base import evaluate
    from genbench.runs import build

    with initialize_config_dir(str(folder()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("measure", ["measures=full"])["measures"])
    measures = {name: build.make(node) for name, node in plain.items()}
    model, x, y = _trained("mlp", steps=2000)
    torch.manual_seed(0)
    initial = type(model)(input_shape=(1, 40), classes=10).state_dict()

    def measured(measures: dict[str, Any]) -> dict[str, Any]:
        whole = Snapshot(model, F.cross_entropy, [(x, y)], initial=initial)
        return evaluate(measures, whole, split="train", few=whole.on([(x[:1024], y[:1024])]))

    rows = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        seconds = []
        for _ in range(args.repeats):
            start = perf_counter()
            found = measured(measures)
            seconds.append(perf_counter() - start)
        middle, spread = statistics.median(seconds), f"{min(seconds):.1f}–{max(seconds):.1f}"
        what = f"`measures=full` on the MLP, {len(found)} values, {threads} thread{'s' * (threads > 1)}"
        rows.append(Result(what, f"{middle:.1f} s ({spread})", "≤ 20 s", middle <= 20))
    torch.set_num_threads(1)
    cost: dict[str, float] = {}
    for name, function in measures.items():
        start = perf_counter()
        measured({name: function})
        cost[name] = perf_counter() - start
    print("| alone, one thread | seconds |\n|---|---|")
    for name in sorted(cost, key=lambda key: -cost[key])[:10]:
        print(f"| {name} | {cost[name]:.2f} |")
    return rows


def starts(args: argparse.Namespace) -> list[Result]:
    """What the several ascents of SAM and adaptive sharpness cost and find, beside one: processor seconds on 1,024
    examples of the trained MLP, each with a snapshot of its own, in turns."""
    from genbench.measures import Snapshot, adaptive_sharpness, sam_sharpness

    model, x, y = _trained("mlp", steps=2000)
    rows_of = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:1024]

    def run(function: Any, number: int) -> dict[str, Any]:
        start = process_time()
        found = function(Snapshot(model, F.cross_entropy, [(x[rows_of], y[rows_of])]), starts=number)
        return {"cpu": process_time() - start, "found": found}

    most = {"sam_sharpness": (sam_sharpness, 8), "adaptive_sharpness": (adaptive_sharpness, 4)}
    chosen = {(name, n): function for name, (function, default) in most.items() for n in (1, default)}
    candidates = {f"{name}, {n}": lambda _, f=f, n=n: run(f, n) for (name, n), f in chosen.items()}
    results = _in_turns(candidates, repeats=args.repeats)
    rows = []
    for name, (_, n) in most.items():
        one, several = results[f"{name}, 1"], results[f"{name}, {n}"]
        seconds = [statistics.median(r["cpu"] for r in runs) for runs in (one, several)]
        ratios = [b["cpu"] / a["cpu"] for a, b in zip(one, several, strict=True)]
        gain = several[0]["found"].value / one[0]["found"].value
        print(f"{name}: {several[0]['found'].note}; {gain:.3f} × the value of one start")
        what = f"`{name}` on 1,024 examples of the MLP, `starts=1`; `starts={n}` (the default): processor seconds"
        text = f"{seconds[0]:.2f}; {seconds[1]:.2f}, × {statistics.median(ratios):.1f}"
        rows.append(Result(what, f"{text} ({min(ratios):.1f}–{max(ratios):.1f})", ""))
    return rows


def sweep(args: argparse.Namespace) -> list[Result]:
    """Wall-clock of the whole command ``genbench experiment=ablation`` in an empty folder, the data not yet made, and
    of the same command again when its runs are complete."""
    command = [str(Path(sys.executable).with_name("genbench")), "experiment=ablation", *args.overrides]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = perf_counter()
            subprocess.run(command, cwd=folder, env={**os.environ, "GENBENCH_CACHE": f"{folder}/cache"}, check=True)
            seconds.append(perf_counter() - start)
    first, again = seconds
    name = " ".join(["genbench experiment=ablation", *args.overrides])
    return [
        Result(f"`{name}`", f"{first / 60:.1f} min", "≤ 6 min", first <= 360),
        Result("the same command when it is complete", f"{again:.1f} s", "≤ 10 s", again <= 10),
    ]


def tables(args: argparse.Namespace) -> list[Result]:
    """Processor seconds, imports included, and peak memory of a table of many records, read from the disk in a fresh
    process: of the table and its CSV, and of all files and figures. The records are copies of one run's with other
    numbers (Linux)."""
    from genbench import records
    from genbench.runs import execute

    rows = []
    with tempfile.TemporaryDirectory() as runs:
        one = execute.run(_ablation("none", f"runs_dir={runs}", "trainer.max_steps=200"))
        history = next(Path(runs).glob("*/*/history.csv")).read_bytes()
        folder, draw = Path(runs) / "many", random.Random(0)
        for number in range(args.records):
            run = {key: value for key, value in one.items() if key not in ("digest", "files")}
            row, seed = divmod(number, args.records // args.rows)
            config = {**one["config"], "seed": seed, "data": {**one["config"]["data"], "seed": seed}}
            config["optimizer"] = {**one["config"]["optimizer"], "lr": 1e-3 * (row + 1)}
            metrics = {k: v and v * draw.uniform(0.8, 1.2) for k, v in one["metrics"].items()}
            target = folder / f"{number:012x}"
            target.mkdir(parents=True)
            (target / "history.csv").write_bytes(history)
            records.write(target, {**run, "run_id": target.name, "seed": seed, "config": config, "metrics": metrics})
        for made, most, code in (
            ("table and CSV", 20, "render.comma_separated(report.table)"),
            ("all files and figures", 40, "report.write()"),
        ):
            # a process without torch, as genbench-table is; its peak is its own, unlike that of getrusage after a fork
            code = f"""
import sys, time
from genbench.report import Report, render
report = Report(sys.argv[1])
{code}
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), peak, "torch" in sys.modules)
"""
            told = subprocess.run(
                [sys.executable, "-c", code, folder], check=True, capture_output=True, text=True
            ).stdout
            seconds, peak = float(told.split()[0]), int(told.split()[1]) / 1024
            assert told.split()[2] == "False"
            text = f"{made} of {args.records:,} records in {args.rows} rows"
            within = seconds <= most and peak <= 1024
            rows.append(Result(text, f"{seconds:.1f} s, {peak:.0f} MiB", f"≤ {most} s, ≤ 1024 MiB", within))
    return rows


def packed(args: argparse.Namespace) -> list[Result]:
    """Wall-clock of whole commands, from process start to records, table and report written: the same sweep over seeds
    with Hydra's basic launcher (one run after the other), on two processes, and packed; measures off and on.

    The setting of the ablation without methods (1,000 examples, Adam, batch 100).
    """
    rows = []
    required = {"mlp": {"basic": 10.0, "processes": 5.0}, "cnn": {"basic": 4.0, "processes": 2.0}}
    shared = ["data.train_size=1000", "data.val_fraction=0.2", "optimizer.lr=0.01", f"trainer.max_steps={args.steps}"]
    off = [f"callbacks.{name}=null" for name in ("gap", "weight_norms", "measures")]
    for model in args.models:
        for measures, more in (("off", off), ("on", [])):
            taken: dict[str, float] = {}
            launchers = ("packed", "processes", "basic")
            for launcher in launchers:
                with tempfile.TemporaryDirectory() as folder:
                    chosen = [f"hydra/launcher={launcher}", f"model={model}", f"seed=range({args.seeds})"]
                    command = [str(Path(sys.executable).with_name("genbench")), "-m", *chosen, *shared, *more]
                    start = perf_counter()
                    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
                    taken[launcher] = perf_counter() - start
                print(f"{model}, measures {measures}, {launcher}: {taken[launcher]:.1f} s", flush=True)
            for launcher in launchers[1:]:
                ratio, need = taken[launcher] / taken["packed"], required[model][launcher]
                what = f"{model}, {args.seeds} seeds × {args.steps} steps, measures {measures}: packed, × faster than"
                rows.append(Result(f"{what} {launcher}", f"{ratio:.1f}", f"≥ {need:g}", ratio >= need))
    return rows


def lanes(args: argparse.Namespace) -> list[Result]:
    """Milliseconds a lane and step, and memory, against the number of lanes: the step alone, one thread."""
    print("| model | lanes | ms a lane and step | peak MiB |\n|---|---|---|---|")
    found: dict[str, list[tuple[int, float, int]]] = {}
    for model in args.models:
        for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                seconds, memory = pool.submit(_packed_step, model, n).result()
            print(f"| {model} | {n} | {1e3 * seconds / n:.3f} | {memory} |", flush=True)
            found.setdefault(model, []).append((n, 1e3 * seconds / n, memory))
    if args.figure:
        args.figure.write_bytes(_drawn(found))
    return []


def _drawn(found: dict[str, list[tuple[int, float, int]]]) -> bytes:
    """The figure of ``lanes``: milliseconds and memory against the number of lanes."""
    from genbench.report.figures import style

    with style.context():
        figure, axes = style.blank(6.5, 2.6, columns=2)
        for (model, points), colour in zip(found.items(), style.COLOURS, strict=False):
            n, milliseconds, memory = zip(*points, strict=True)
            for axis, values in zip(axes[0], (milliseconds, memory), strict=True):
                axis.loglog(n, values, "o-", color=colour, markersize=3, label=model)
        for axis, title in zip(axes[0], ("ms a lane and step", "peak memory of the process, MiB"), strict=True):
            axis.set(title=title, xlabel="lanes", xticks=n, xticklabels=n)
            axis.minorticks_off()
        axes[0][0].set(yticks=(0.1, 0.2, 0.5, 1, 2, 5), yticklabels=(0.1, 0.2, 0.5, 1, 2, 5))
        axes[0][1].set(yticks=(500, 1000, 2000, 4000), yticklabels=(500, 1000, 2000, 4000))
        axes[0][0].legend()
    return style.saved(style.Drawing("lanes", "", "", figure), "png")


def augmentation(args: argparse.Namespace) -> list[Result]:
    """Batches of 512 images 3 × 32 × 32, flipped, cropped and cut out: as a training step makes them, against a
    DataLoader with two workers, kept and warm, that does the same to each image by itself.

    That is measured twice: with torch's operations on tensors, and with NumPy's, as fast as an image by itself can be
    done. All take batches in random order from 4,096 float32 images in memory; in turns, each through all of them.
    Beside them what nobody can do without: to take the batch out of the set, and to write it once more.
    """
    from torch.utils.data import DataLoader

    from genbench.data.batches import Batches
    from genbench.process.memory import keep_freed
    from genbench.regularization.cutout import Cutout
    from genbench.regularization.flip import Flip
    from genbench.regularization.random_crop import RandomCrop
    from genbench.rng import Draw
    from genbench.training.lane import Lane

    keep_freed()
    torch.set_num_threads(args.threads)
    x, y = torch.rand(4096, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4096) % 10
    batches = Batches(x, y, batch_size=512, seed=0)
    methods = [Flip(probability=0.5), RandomCrop(padding=0.125), Cutout(size=0.5)]
    lane = Lane(nn.Linear(1, 1), methods, seed=0)
    loaders = {
        f"image by image in {name}": DataLoader(
            kind(x, y), batch_size=512, num_workers=2, shuffle=True, persistent_workers=True
        )
        for name, kind in (("torch", _Augmented), ("NumPy", _AugmentedArrays))
    }

    def ours(seed: int) -> dict[str, Any]:
        for step, batch in enumerate(batches):
            lane.transformed(*batch, Draw(seed, step))
        return {}

    def least(seed: int) -> dict[str, Any]:
        for a, _ in batches:
            a.clone()
        return {}

    def theirs(loader: DataLoader) -> dict[str, Any]:
        for _ in loader:
            pass
        return {}

    candidates: dict[str, Callable[[int], dict[str, Any]]] = {"genbench": ours, "taken and copied": least}
    candidates |= {name: lambda seed, loader=loader: theirs(loader) for name, loader in loaders.items()}
    found = _in_turns(candidates, repeats=args.repeats)
    torch.set_num_threads(1)
    seconds = {name: [1e3 * run["seconds"] / len(batches) for run in runs] for name, runs in found.items()}
    print("| | ms a batch, median | min–max |\n|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {statistics.median(taken):.1f} | {min(taken):.1f}–{max(taken):.1f} |")
    rows = []
    for name in loaders:
        ratios = [b / a for a, b in zip(seconds["genbench"], seconds[name], strict=True)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.1f}–{max(ratios):.1f}"
        threads = f"{args.threads} thread{'s' * (args.threads > 1)}"
        what = f"crop, flip and cutout of 512 images, {threads}: × faster than {name}, a DataLoader of two workers"
        rows.append(Result(what, f"{middle:.1f} ({spread})", "≥ 5", middle >= 5))
    return rows


class _Augmented(torch.utils.data.Dataset):
    """Images that are flipped, padded and cropped, and cut out, each when it is asked for."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.x[index]
        if random.random() < 0.5:
            image = image.flip(2)
        top, left = random.randrange(9), random.randrange(9)
        image = F.pad(image, (4, 4, 4, 4))[:, top : top + 32, left : left + 32].clone()
        row, column = random.randrange(32), random.randrange(32)
        image[:, max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
        return image, self.y[index]


class _AugmentedArrays(_Augmented):
    """The same without torch, whose calls cost more than their work on so small an image."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x.numpy(), y.tolist()

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, new = self.x[index], np.zeros((3, 32, 32), np.float32)
        if random.random() < 0.5:
            image = image[:, :, ::-1]
        down, right = random.randrange(-4, 5), random.randrange(-4, 5)
        new[:, max(0, down) : 32 + min(0, down), max(0, right) : 32 + min(0, right)] = image[
            :, max(0, -down) : 32 - max(0, down), max(0, -right) : 32 - max(0, right)
        ]
        row, column = random.randrange(32), random.randrange(32)
        new[:, max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
        return torch.from_numpy(new), self.y[index]


def stream(args: argparse.Namespace) -> list[Result]:
    """Fresh MNIST-1D signals as ``data=mnist1d_stream`` makes them, in batches, against the generator of the package
    ``mnist1d``, which makes one signal at a time: processor time, both on one thread."""
    from mnist1d.data import get_dataset_args, make_dataset

    from genbench.data.mnist1d_stream import Signals
    from genbench.process.memory import keep_freed
    from genbench.rng import Draw

    keep_freed()
    source, package = Signals(), get_dataset_args()

    def ours(seed: int, n: int) -> dict[str, Any]:
        start, batches = process_time(), max(1, 10_000 // n)
        for step in range(batches):
            source.sample(n, Draw(seed, step))
        return {"each": (process_time() - start) / (batches * n)}

    def theirs(seed: int) -> dict[str, Any]:
        package.seed, package.num_samples, start = seed, 500, process_time()
        make_dataset(package)
        return {"each": (process_time() - start) / package.num_samples}

    sizes = (100, 1000, 10_000)
    candidates: dict[str, Callable[[int], dict[str, Any]]] = {"mnist1d": theirs}
    candidates |= {f"genbench, {n:,} at a time": lambda seed, n=n: ours(seed, n) for n in sizes}
    found = _in_turns(candidates, repeats=args.repeats)
    seconds = {name: [1e6 * run["each"] for run in runs] for name, runs in found.items()}
    print("| | µs a signal, median | min–max |\n|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {statistics.median(taken):.2f} | {min(taken):.2f}–{max(taken):.2f} |")
    rows, package_seconds = [], seconds.pop("mnist1d")
    for name, taken in seconds.items():
        ratios = [b / a for a, b in zip(taken, package_seconds, strict=True)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.0f}–{max(ratios):.0f}"
        what = f"fresh MNIST-1D signals, {name.removeprefix('genbench, ')}: × faster than the package mnist1d"
        rows.append(Result(what, f"{middle:.0f} ({spread})", "≥ 100", middle >= 100))
    return rows


def loading(args: argparse.Namespace) -> list[Result]:
    """From the command to the end of its first training step on CIFAR-10 (parquet in the folder cifar10 of
    GENBENCH_DATA), each time in a process of its own: cold, nothing decoded yet, and warm.

    Wall-clock, and beside it processor time of all threads, which other work on the machine stretches less. The files
    of parquet are as the system has them, in its memory as a rule. That a set of 20 GiB takes no more memory than the
    batches in flight is a test: ``pytest tests/data/test_images.py -k memory``.
    """
    folder = Path(os.environ.get("GENBENCH_DATA", "")) / "cifar10"
    if not (folder / "train.parquet").exists():
        print("left out: the environment variable GENBENCH_DATA names no folder with cifar10/train.parquet")
        return []
    settings = ["data=cifar10", f"data.path={folder}", "model=resnet18", "model.width=16"]
    settings += ["regularization=[flip,random_crop]"]
    print("| | until | s, wall-clock | s of processor time |\n|---|---|---|---|")
    rows = []
    for name, most, repeats in (("cold", 30, 1), ("warm", 3, args.repeats)):
        runs = []
        with tempfile.TemporaryDirectory() as cache:
            for seed in range(-1 if name == "warm" else 0, repeats):  # the first one fills the cache
                with tempfile.TemporaryDirectory() as runs_dir:
                    command = [sys.executable, "-c", _FIRST_STEP, str(time()), *settings, f"runs_dir={runs_dir}"]
                    environment = {**os.environ, "GENBENCH_CACHE": cache}
                    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                    runs += [json.loads(said.splitlines()[-1])] if seed >= 0 else []
        for part in runs[0]:
            wall, processor = (statistics.median(run[part][i] for run in runs) for i in range(2))
            print(f"| {name} | {part} | {wall:.1f} | {processor:.1f} |")
        spread = f"{min(run[part][0] for run in runs):.1f}–{max(run[part][0] for run in runs):.1f}"
        measured = f"{wall:.1f} s ({spread}), {processor:.1f} s of processor time"
        rows.append(
            Result(f"CIFAR-10 from the command to its first step, {name}", measured, f"< {most} s", wall < most)
        )
    return rows


# a process of its own, which prints when it had come how far: seconds since it was started, and of processor time
_FIRST_STEP = """
import json, os, sys, time
started, sys.argv = float(sys.argv[1]), ["genbench", *sys.argv[2:]]
marks = {}

def mark(name):
    marks.setdefault(name, [time.time() - started, time.process_time()])

def marked(function, *, before=None, after=None):
    def call(*args, **settings):
        before and mark(before)
        result = function(*args, **settings)
        after and mark(after)
        return result
    return call

from genbench import cli, experiment
from genbench.training import Training
mark("libraries imported")
experiment.bind = marked(experiment.bind, before="configuration composed")
experiment.build_data = marked(experiment.build_data, after="data there")
experiment.check = marked(experiment.check, after="checked, a step tried")
step = Training.training_step

def training_step(self, batch):
    step(self, batch)
    mark("first step")
    print("\\n" + json.dumps(marks), flush=True)
    os._exit(0)

Training.training_step = training_step
cli.train()
"""


def _packed_step(model: str, n: int) -> tuple[float, int]:
    """Median seconds of a step of ``n`` lanes, and the peak memory of the process in MiB."""
    from functools import partial

    from genbench.process.memory import keep_freed
    from genbench.rng import Draw
    from genbench.training import Pack

    torch.set_num_threads(1)
    keep_freed()
    networks = []
    for seed in range(n):
        torch.manual_seed(seed)
        networks.append(_network(model))
    optimizer = partial(torch.optim.Adam, lr=0.01)
    x, y = Draw(0, 0).normal("x", n, 100, 1, 40), torch.arange(100).expand(n, 100) % 10
    pack = Pack(networks, optimizer=optimizer, own_batches=True)
    update = pack.prepare(total_steps=100)
    seconds = []
    for step in range(3 + max(10, 200 // n)):
        start = perf_counter()
        pack.gradient_step(x, y, step=step)
        update.step()
        seconds.append(perf_counter() - start)
    return statistics.median(seconds[3:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def curvature(args: argparse.Namespace) -> list[Result]:
    """Top five eigenvalues, trace and spectral density of the Hessian on 4,000 examples, against other libraries.

    PyHessian 0.1, hessian-eigenthings 1.0.0a5 and curvlinops 3.0 with scipy's eigsh, those that are installed; all
    get the same float32 network, one batch and the same number of threads, and run in turns. Eigenvalues: each
    library with the cheapest of a ladder of settings whose five values are right to 1e-3 of float64 ARPACK
    (``--dense``: of the whole matrix) from each of sixteen starts. Trace: each with the smallest budget, doubled from
    16 products, whose root mean square error over sixteen seeds is at most ours with 24; the exact value is that of
    the Gauss–Newton matrix, equal for these networks. Density: ten runs of eighty steps.
    """
    rows = []
    for name in args.models:
        model, x, y = _trained(name, steps=args.steps)
        print(f"\n{name}, {sum(p.numel() for p in model.parameters()):,} parameters, {torch.get_num_threads()} threads")
        exact = _dense(model, x, y) if args.dense else _arpack(model, x, y)
        print(f"top five eigenvalues: {', '.join(f'{v:.5f}' for v in exact[:5])}")
        libraries = [library(model, x, y) for library in (Ours, PyHessian, HessianEigenthings, Curvlinops)]
        present = [library for library in libraries if library.installed()]
        for absent in (library for library in libraries if library not in present):
            print(f"{absent.name} is not installed here: left out")
        if "eigenvalues" in args.parts:
            rows += _eigenvalues(name, present, exact, args.repeats)
        if "trace" in args.parts:
            rows += _traces(name, present, _exact_trace(model, x, y), args.repeats)
        if "density" in args.parts:
            rows += _densities(name, present, args.repeats)
    return rows


class Library:
    """A way to compute curvature, with ladders of settings from cheap to accurate."""

    name: str
    module: str
    ladder: tuple[Any, ...]
    density: Callable[[int], Any] | None = None

    def __init__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        self.model, self.x, self.y = model, x, y

    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        raise NotImplementedError

    def trace(self, products: int, seed: int) -> float:
        raise NotImplementedError


class Ours(Library):
    name, module, ladder = "genbench", "genbench", (1e-1, 3e-2, 1e-2, 1e-3)

    def _snapshot(self) -> Any:
        from genbench.measures import Snapshot

        return Snapshot(self.model, F.cross_entropy, [(self.x, self.y)])

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        from genbench.measures import hessian_eigenvalues

        found = hessian_eigenvalues(self._snapshot(), k=5, tolerance=setting, seed=seed)
        return [e.value for e in found.values()]

    def trace(self, products: int, seed: int) -> float:
        from genbench.measures import hessian_trace

        deflation = products // 2  # as by default
        return hessian_trace(self._snapshot(), deflation=deflation, probes=products - deflation, seed=seed).value

    def density(self, seed: int) -> Any:
        from genbench.measures.curvature import spectral_density

        return spectral_density(self._snapshot(), runs=10, steps=80, seed=seed).curve()


class PyHessian(Library):
    name, module = "PyHessian 0.1", "pyhessian"
    ladder = ((100, 1e-3),)  # its defaults: ten times as many iterations take minutes

    def _computer(self, seed: int) -> Any:
        from pyhessian import hessian

        torch.manual_seed(seed)
        self.model.zero_grad()
        return hessian(self.model, nn.CrossEntropyLoss(), data=(self.x, self.y), cuda=False)

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        return self._computer(seed).eigenvalues(maxIter=setting[0], tol=setting[1], top_n=5)[0]

    def trace(self, products: int, seed: int) -> float:
        return statistics.mean(self._computer(seed).trace(maxIter=products, tol=0.0))


class HessianEigenthings(Library):
    name, module = "hessian-eigenthings 1.0.0a5", "hessian_eigenthings"
    ladder = (10, 12, 15, 20, 25, 30, 35, 40, 50, 60, 80)

    def _operator(self) -> Any:
        from hessian_eigenthings import HessianOperator, supervised_loss

        return HessianOperator(self.model, [(self.x, self.y)], supervised_loss(F.cross_entropy))

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        from hessian_eigenthings import lanczos

        found = lanczos(self._operator(), k=5, max_iter=setting, which="LA", seed=seed, reorthogonalize=True)
        return sorted(map(float, found.eigenvalues), reverse=True)

    def trace(self, products: int, seed: int) -> float:
        from hessian_eigenthings import trace

        return float(trace(self._operator(), num_matvecs=products, seed=seed).estimate)

    def density(self, seed: int) -> Any:
        from hessian_eigenthings import spectral_density

        return spectral_density(self._operator(), num_runs=10, lanczos_steps=80, seed=seed)


class Curvlinops(Library):
    name, module = "curvlinops 3.0", "curvlinops"
    ladder = (1e-1, 1e-2, 1e-3, 1e-4)

    def _operator(self) -> Any:
        from curvlinops import HessianLinearOperator

        parameters = [p for p in self.model.parameters() if p.requires_grad]
        data = [(self.x, self.y)]
        return HessianLinearOperator(self.model, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        from scipy.sparse.linalg import eigsh

        operator = self._operator().to_scipy()
        start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(seed)).numpy()
        return sorted(map(float, eigsh(operator, k=5, which="LA", tol=setting, v0=start)[0]), reverse=True)

    def trace(self, products: int, seed: int) -> float:
        from curvlinops import xtrace

        torch.manual_seed(seed)
        return float(xtrace(self._operator(), products))

    def density(self, seed: int) -> Any:
        from curvlinops import lanczos_approximate_spectrum

        torch.manual_seed(seed)
        return lanczos_approximate_spectrum(self._operator(), ncv=80, num_repeats=10)


def _eigenvalues(name: str, libraries: list[Library], exact: list[float], repeats: int) -> list[Result]:
    def error(values: list[float]) -> float:
        return max(abs(v / e - 1) for v, e in zip(values, exact, strict=False))

    chosen: dict[str, Any] = {}
    for library in libraries:
        # sixteen starts: at a loose setting Lanczos misses an eigenvalue for one in sixteen
        accurate = (s for s in library.ladder if all(error(library.eigenvalues(s, seed)) <= 1e-3 for seed in range(16)))
        chosen[library.name] = next(accurate, library.ladder[0])  # what is never accurate is timed with its defaults
    runs = _in_turns(
        {
            library.name: lambda seed, library=library: {"values": library.eigenvalues(chosen[library.name], seed)}
            for library in libraries
        },
        repeats=repeats,
    )
    print("| top five eigenvalues | setting | seconds | worst relative error |\n|---|---|---|---|")
    required = {}
    for key, found in list(runs.items()):
        worst = max(error(run["values"]) for run in found)
        print(f"| {key} | {chosen[key]} | {_median(found):.3f} | {worst:.0e} |")
        label = key if worst <= 1e-3 else f"{key}, wrong by {worst:.0e}"
        runs[label] = runs.pop(key)
        required[label] = 3.0 if key.startswith("PyHessian") else 1.5
    return _ratios(f"{name}: top five eigenvalues", runs, required)


def _traces(name: str, libraries: list[Library], exact: float, repeats: int) -> list[Result]:
    def rms(library: Library, products: int) -> float:
        return (sum((library.trace(products, seed) / exact - 1) ** 2 for seed in range(100, 116)) / 16) ** 0.5

    budgets = {libraries[0].name: 24}
    errors = {libraries[0].name: rms(libraries[0], 24)}
    for library in libraries[1:]:
        products = 16
        while (error := rms(library, products)) > errors[libraries[0].name] and products < 1024:
            products *= 2
        budgets[library.name], errors[library.name] = products, error
    candidates = {
        library.name: lambda seed, library=library: {"value": library.trace(budgets[library.name], seed)}
        for library in libraries
    }
    runs = _in_turns(candidates, repeats=repeats)
    print("| trace | products | seconds | root mean square error, relative |\n|---|---|---|---|")
    for key, found in runs.items():
        print(f"| {key} | {budgets[key]} | {_median(found):.3f} | {errors[key]:.1e} |")
    return _ratios(f"{name}: trace at equal error", runs, dict.fromkeys(runs, 1.5))


def _densities(name: str, libraries: list[Library], repeats: int) -> list[Result]:
    able = [library for library in libraries if library.density is not None]
    runs = _in_turns(
        {library.name: lambda seed, library=library: {"curve": library.density(seed)} for library in able},
        repeats=repeats,
    )
    print("| density, 10 runs of 80 steps | seconds |\n|---|---|")
    for key, found in runs.items():
        print(f"| {key} | {_median(found):.2f} |")
    return _ratios(f"{name}: density", runs, dict.fromkeys(runs, 3.0))


def _median(runs: list[dict[str, Any]]) -> float:
    return statistics.median(run["seconds"] for run in runs)


def _ratios(what: str, runs: dict[str, list[dict[str, Any]]], required: dict[str, float]) -> list[Result]:
    rows = []
    for key, found in runs.items():
        if key != "genbench":
            ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in zip(found, runs["genbench"], strict=True)]
            typical = statistics.median(ratios)
            measured = f"{typical:.1f} ({min(ratios):.1f}–{max(ratios):.1f})"
            rows.append(
                Result(f"{what}, × faster than {key}", measured, f"≥ {required[key]:g}", typical >= required[key])
            )
    return rows


def _ablation(method: str, *overrides: str) -> dict[str, Any]:
    """The configuration of one run of ``experiment=ablation`` on the CPU."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from genbench.config import folder

    fixed = ["experiment=ablation", f"regularization={method}", "trainer.accelerator=cpu"]
    with initialize_config_dir(str(folder()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("train", [*fixed, *overrides]), resolve=True)
    return plain


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

    config = _ablation(method, f"seed={seed}", f"trainer.max_steps={steps}")
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


def _peak_memory(config: dict[str, Any]) -> int:
    """Bytes, of this process at its largest, after one run."""
    from genbench.runs import execute

    record = execute.run(config)
    assert record is not None
    assert record["status"] == "completed", record["error"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_curvature(times: int) -> int:
    """Bytes, of this process at its largest, after curvature on ``times`` × 4,000 examples."""
    from genbench.measures import Snapshot, hessian_eigenvalues, hessian_trace

    model, x, y = _trained("mlp", steps=10)

    class Loader:
        def __iter__(self) -> Any:
            for _ in range(times):
                yield from zip(x.split(1000), y.split(1000), strict=True)

    torch.set_num_threads(1)
    snapshot = Snapshot(model, F.cross_entropy, Loader())
    hessian_eigenvalues(snapshot, max_steps=5, tolerance=1e-12)
    hessian_trace(snapshot, deflation=5, probes=4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _trained(name: str, *, steps: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """MNIST-1D's MLP (15,210 parameters) or CNN (5,210) after Adam on its 4,000 training examples, with those."""
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    x, y = torch.tensor(data["x"]).float()[:, None], torch.tensor(data["y"]).long()
    torch.manual_seed(0)
    model = _network(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        rows = torch.randint(len(y), (100,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval(), x, y


def _network(name: str) -> nn.Module:
    from genbench.models import CNN, MLP

    return {"mlp": MLP, "cnn": CNN}[name](input_shape=(1, 40), classes=10)


def _in_turns(candidates: dict[str, Callable[[int], dict[str, Any]]], *, repeats: int) -> dict[str, list[Any]]:
    """Each candidate's results with their ``seconds``, taken in turns after one unrecorded run."""
    results: dict[str, list[Any]] = {name: [] for name in candidates}
    for seed in range(-1, repeats):
        for name, run in candidates.items():
            start = perf_counter()
            found = run(max(seed, 0))
            if seed >= 0:
                results[name].append({**found, "seconds": perf_counter() - start})
    return results


def _products(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rows V [n, ω] -> V ∇²L in float64, by autograd alone."""
    import copy

    model = copy.deepcopy(model).double()
    parameters = list(model.parameters())
    graphs = []
    for a, b in zip(x.double().split(1000), y.split(1000), strict=True):
        loss = F.cross_entropy(model(a), b, reduction="sum") / len(y)
        graphs.append(torch.autograd.grad(loss, parameters, create_graph=True))

    def product(rows: torch.Tensor) -> torch.Tensor:
        pieces = [
            piece.reshape(len(rows), *p.shape)
            for piece, p in zip(rows.split([p.numel() for p in parameters], 1), parameters, strict=True)
        ]
        total = torch.zeros_like(rows)
        for gradient in graphs:
            parts = torch.autograd.grad(gradient, parameters, pieces, retain_graph=True, is_grads_batched=True)
            total += torch.cat([part.reshape(len(rows), -1) for part in parts], 1)
        return total

    return product


def _arpack(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    from scipy.sparse.linalg import LinearOperator, eigsh

    product = _products(model, x, y)
    size = sum(p.numel() for p in model.parameters())
    operator = LinearOperator(
        (size, size), matvec=lambda v: product(torch.from_numpy(v).reshape(1, -1))[0].numpy(), dtype="float64"
    )
    return sorted(map(float, eigsh(operator, k=6, which="LA", tol=1e-10, return_eigenvectors=False)), reverse=True)


def _dense(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    product = _products(model, x, y)
    size = sum(p.numel() for p in model.parameters())
    h = torch.empty(size, size, dtype=torch.float64)
    for first in range(0, size, 30):
        last = min(first + 30, size)
        rows = torch.zeros(last - first, size, dtype=torch.float64)
        rows[torch.arange(last - first), torch.arange(first, last)] = 1
        h[first:last] = product(rows)
    values = torch.linalg.eigvalsh(h)
    off = float(values.sum() - h.trace())
    print(f"the whole float64 Hessian: trace {float(h.trace()):.6f}, sum of its eigenvalues off by {off:.0e}")
    return values.flip(0).tolist()


def _exact_trace(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """tr ∇²L in float64: that of the Gauss–Newton matrix, mean Σₖ ‖Jᵀ cₖ‖² with ∇²ℓ = Σₖ cₖcₖᵀ, equal to it where every
    unit is piecewise linear in each weight."""
    import copy

    from torch.func import functional_call, jacrev, vmap

    model = copy.deepcopy(model).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    jacobians = vmap(jacrev(lambda p, a: functional_call(model, p, (a[None],))[0]), (None, 0))
    total = 0.0
    for part in x.double().split(100):
        p = model(part).softmax(1).detach()
        root = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]  # c cᵀ = diag p − ppᵀ
        for j in jacobians(parameters, part).values():
            total += float(torch.einsum("nik,nid->nkd", root, j.flatten(2)).square().sum())
    return total / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("memory", help="peak memory of an ablation run")
    command.set_defaults(run=memory)

    command = commands.add_parser("growth", help="memory of curvature as the number of examples grows")
    command.set_defaults(run=growth)

    command = commands.add_parser("full", help="time of measures=full")
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=full)

    command = commands.add_parser("starts", help="cost of several ascents of sharpness, beside one")
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=starts)

    command = commands.add_parser("step", help="a training step against a bare LightningModule")
    command.add_argument("--repeats", type=int, default=9)
    command.add_argument("--steps", type=int, default=1200)
    command.set_defaults(run=step)

    command = commands.add_parser("callbacks", help="the default callbacks' share of the time")
    command.add_argument("folder", type=Path, nargs="?", help="an experiment's folder, such as runs/ablation")
    command.set_defaults(run=callbacks)

    command = commands.add_parser("curvature", help="eigenvalues, trace and density against other libraries")
    command.add_argument("--repeats", type=int, default=5)
    parts = ("eigenvalues", "trace", "density")
    command.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    command.add_argument("--models", nargs="+", choices=("mlp", "cnn"), default=["mlp", "cnn"])
    command.add_argument("--steps", type=int, default=2000, help="training steps before the measurement")
    command.add_argument("--dense", action="store_true", help="compare with the whole float64 Hessian (2 GB, minutes)")
    command.set_defaults(run=curvature)

    command = commands.add_parser("sweep", help="the whole ablation, and again when it is complete")
    command.add_argument("overrides", nargs="*", help="further settings of the sweep, such as seed=0")
    command.set_defaults(run=sweep)

    command = commands.add_parser("tables", help="the report of very many records")
    command.add_argument("--records", type=int, default=10_000)
    command.add_argument("--rows", type=int, default=400)
    command.set_defaults(run=tables)

    command = commands.add_parser("packed", help="a sweep over seeds: packed, on two processes, one by one")
    command.add_argument("--models", nargs="+", choices=("mlp", "cnn"), default=["mlp", "cnn"])
    command.add_argument("--seeds", type=int, default=32)
    command.add_argument("--steps", type=int, default=3000)
    command.set_defaults(run=packed)

    command = commands.add_parser("lanes", help="cost of a packed step against the number of lanes")
    command.add_argument("--models", nargs="+", choices=("mlp", "cnn"), default=["mlp", "cnn"])
    command.add_argument("--figure", type=Path, help="draw it into this PNG file")
    command.set_defaults(run=lanes)

    command = commands.add_parser("augmentation", help="augmented batches against a DataLoader with two workers")
    command.add_argument("--repeats", type=int, default=9)
    command.add_argument("--threads", type=int, default=1, help="of the training step")
    command.set_defaults(run=augmentation)

    command = commands.add_parser("stream", help="fresh MNIST-1D signals against the package's generator")
    command.add_argument("--repeats", type=int, default=9)
    command.set_defaults(run=stream)

    command = commands.add_parser("loading", help="from the command to its first step on CIFAR-10, cold and warm")
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=loading)

    # memory first: the peak of a new process starts from what its parent held
    together = (
        "memory",
        "growth",
        "step",
        "callbacks",
        "augmentation",
        "stream",
        "loading",
        "full",
        "starts",
        "curvature",
        "sweep",
        "tables",
    )
    command = commands.add_parser("all", help=f"{', '.join(together)}")
    command.set_defaults(run=lambda args: [row for name in together for row in _run(parser.parse_args([name]))])

    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, load average {os.getloadavg()[0]:.1f} at the start")
    rows = args.run(args)
    print("\n| what | measured | required |\n|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.measured} | {row.required} |")
    sys.exit(int(not all(row.met for row in rows)))


def _run(args: argparse.Namespace) -> list[Result]:
    print(f"\n{args.run.__name__}", flush=True)
    return args.run(args)


if __name__ == "__main__":
    main()
