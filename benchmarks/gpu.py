"""What a GPU makes of it, against the same work done one by one, by a bare loop, or on the CPU; in minutes on one card.

Packed steps of up to 4,096 lanes, with and without a CUDA graph, how far lanes end from those that train alone in
float64, a packed sweep of whole runs, the step of a ResNet-18 on images of CIFAR-10's shape in bfloat16, and every
measure of ``measures=full``. ``--rehearse`` does a little of each on the CPU.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common import Result, full_measures, network, report, trained

LANES = {"mlp": (1, 16, 128, 1024, 4096), "mlp with dropout": (1, 16, 128), "cnn": (1, 16, 128, 1024, 4096)}
MOST = 1024  # lanes that are measured without a graph, too: the first step of 4,096 takes each by itself


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rehearse", action="store_true", help="small, on the CPU")
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument("--models", nargs="+", choices=("mlp", "cnn"), default=["mlp", "cnn"], help="of the sweeps")
    parser.add_argument("--seeds", type=int, default=128, help="of the packed sweep")
    parser.add_argument("--steps", type=int, default=3000, help="of a run")
    parser.add_argument("--seconds", type=float, default=90, help="for the measures on each device, at most")


def measure(args: argparse.Namespace) -> list[Result]:
    if not (args.rehearse or torch.cuda.is_available()):
        print("there is no CUDA device: left out; --rehearse does a little of each on the CPU")
        return []
    device = "cpu" if args.rehearse else "cuda"
    if args.rehearse:
        args.seeds, args.steps, args.seconds = 2, 20, 5
    else:
        print(torch.cuda.get_device_name())
    steps = _steps(device, args)
    about = {"device": torch.cuda.get_device_name() if device == "cuda" else device, "torch": torch.__version__}
    results = [*_best(steps), _apart(device)]
    for part in (_resnet, _sweep, _measures):
        results += part(device, args)
        if args.json is not None:  # what there is, should the rest take too long
            found = {**about, "steps": steps, "results": [row._asdict() for row in results]}
            args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return results


# -- steps


def _steps(device: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Packed steps: for each model and number of lanes, without a graph and with one."""
    print("| lanes | graph | ms a step | µs a lane | peak MiB | waits in a step |\n|---|---|---|---|---|---|")
    rows = []
    for name, numbers in LANES.items():
        for n in numbers[:2] if args.rehearse else numbers:
            for graphs in (False, True) if n <= MOST else (True,):
                row: dict[str, Any] = {"model": name, "lanes": n, "graph": graphs}
                try:
                    row["seconds"], row["mebibytes"], row["waits"] = _packed_step(name, n, device, graphs)
                except torch.OutOfMemoryError:
                    print(f"| {name}, {n} | {graphs} | out of memory | | | |", flush=True)
                else:
                    print(
                        f"| {name}, {n} | {graphs} | {1e3 * row['seconds']:.2f} | {1e6 * row['seconds'] / n:.1f} "
                        f"| {row['mebibytes']} | {row['waits']} |",
                        flush=True,
                    )
                rows.append(row)
    return rows


def _best(steps: list[dict[str, Any]]) -> list[Result]:
    results = []
    for name in LANES:
        rows = [row for row in steps if row["model"] == name and "seconds" in row]
        single = min(row["seconds"] for row in rows if row["lanes"] == 1)
        best = min(rows, key=lambda row: row["seconds"] / row["lanes"])
        each = best["seconds"] / best["lanes"]
        what = f"{name}: microseconds a lane and step, {best['lanes']} lanes; × less than one lane"
        results.append(Result(what, f"{1e6 * each:.1f}; {single / each:.0f}"))
        pairs = {graphs: {r["lanes"]: r["seconds"] for r in rows if r["graph"] == graphs} for graphs in (False, True)}
        both = sorted(pairs[False].keys() & pairs[True].keys())
        ratios = ", ".join(f"{pairs[False][n] / pairs[True][n]:.2f}" for n in both)
        results.append(Result(f"{name}: × faster with a CUDA graph, {', '.join(map(str, both))} lanes", ratios))
    return results


def _apart(device: str) -> Result:
    """How far packed lanes with random draws end from those that train alone, in float64."""
    from genbench.regularization import Dropout, Mixup
    from genbench.training import Lane, Pack
    from genbench.training.lane import SeparateLanes

    def made() -> list[Any]:
        lanes = []
        for seed in range(3):
            torch.manual_seed(seed)
            lanes.append(Lane(network("mlp"), [Mixup(alpha=0.2), Dropout(rate=0.2)], seed=seed).to(device).double())
        return lanes

    torch.manual_seed(0)
    x, y = torch.randn(3, 100, 1, 40).to(device).double(), (torch.arange(100) % 10).expand(3, 100).to(device)
    pack, alone = Pack(made(), optimizer=partial(torch.optim.Adam, lr=0.01), own_batches=True), made()
    update = pack.prepare(total_steps=20)
    other = torch.optim.Adam([{"params": lane.trained} for lane in alone], lr=0.01)
    lanes = SeparateLanes(alone, other)
    for step in range(20):
        pack.gradient_step(x, y, step=step)
        update.step()
        lanes.gradient_step(x, y, step=step)
        other.step()
    pairs = zip(pack.networks, alone, strict=True)
    vectors = [[torch.cat([p.detach().flatten() for p in t.parameters()]) for t in (a, b.network)] for a, b in pairs]
    far = max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in vectors)
    return Result("mlp with mixup and dropout, 20 steps in float64: packed from alone, relative", f"{far:.0e}")


def _packed_step(name: str, n: int, device: str, graphs: bool) -> tuple[float, int, int]:
    """Median seconds of a step of ``n`` lanes, the peak of the device's memory in MiB, and how often it waits."""
    from genbench.regularization import Dropout
    from genbench.rng import StepRandom
    from genbench.training import Lane, Pack

    lanes = []
    for seed in range(n):
        torch.manual_seed(seed)
        lanes.append(Lane(network(name.split()[0]), [Dropout(rate=0.2)] if "dropout" in name else [], seed=seed))
    x = StepRandom(0, 0).normal("x", 1, 100, 1, 40).expand(n, -1, -1, -1).to(device)
    y = (torch.arange(100) % 10).expand(n, 100).to(device)
    pack = Pack(lanes, optimizer=partial(torch.optim.Adam, lr=0.01), own_batches=True, graphs=graphs).to(device)
    update = pack.prepare(total_steps=100)

    def step(index: int) -> None:
        pack.gradient_step(x, y, step=index)
        update.step()

    seconds = _timed(step, device, repeats=20)
    waits = _waits(lambda: step(30)) if device == "cuda" else 0
    memory = torch.cuda.max_memory_allocated() >> 20 if device == "cuda" else 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return seconds, memory, waits


def _resnet(device: str, args: argparse.Namespace) -> list[Result]:
    """The step of one ResNet-18 as genbench takes it against a bare loop, in turns."""
    from genbench.models import ResNet18
    from genbench.training import Lane
    from genbench.training.lane import SeparateLanes
    from genbench.training.step import training_step

    batch, width = (4, 4) if args.rehearse else (512, 64)
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), device=device)

    def made() -> tuple[Any, Any]:
        torch.manual_seed(0)
        net = ResNet18(input_shape=(3, 32, 32), classes=10, width=width).to(device, memory_format=torch.channels_last)
        return net, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    net, optimizer = made()
    other, update = made()
    lanes = SeparateLanes([Lane(other, seed=0).to(device)], update)

    def bare(index: int) -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()

    def ours(index: int) -> None:
        with torch.autocast(device, torch.bfloat16):
            training_step(lanes, x[None], y[None], optimizer=update, schedule=None, step=index, total_steps=1000)

    ratios = []
    for _ in range(2 if args.rehearse else 5):
        theirs, mine = (_timed(function, device, repeats=3 if args.rehearse else 20) for function in (bare, ours))
        ratios.append(theirs / mine)
    what = f"ResNet-18, batch {batch}, bfloat16, channels last: speed of a step, × that of a bare loop"
    middle, spread = statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"
    print(f"ResNet-18: {1e3 * mine:.2f} ms a step, × the speed of a bare loop {middle:.2f} ({spread})", flush=True)
    return [Result(what, f"{middle:.2f} ({spread})")]


def _timed(function: Callable[[int], None], device: str, *, repeats: int) -> float:
    """Median seconds of a call after three."""
    seconds = []
    for index in range(3 + repeats):
        start = perf_counter()
        function(index)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(perf_counter() - start)
    return statistics.median(seconds[3:])


def _waits(function: Callable[[], None]) -> int:
    """How often a call waits for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(each.message) for each in caught)


# -- measures


def _measures(device: str, args: argparse.Namespace) -> list[Result]:
    """Each measure of ``measures=full`` on the device and on the CPU, of the same trained MLP."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        there, here = pool.map(_every_measure, (device, "cpu"), (args.seconds, args.seconds))
    print("| measure | s on the CPU | s on the device | largest relative difference |\n|---|---|---|---|")
    both = [name for name in here if name in there]
    far = {}
    for name in both:
        (values, seconds), (others, took) = here[name], there[name]
        pairs = [(a, others.get(key)) for key, a in values.items() if a is not None]
        lost = sum(b is None for _, b in pairs)
        apart = max([abs(a - b) / max(abs(a), 1e-9) for a, b in pairs if b is not None], default=math.nan)
        far[name] = math.inf if lost else apart
        print(f"| {name} | {seconds:.2f} | {took:.2f} | {f'{lost} lost' if lost else f'{apart:.1e}'} |", flush=True)
    close = sum(not difference > 1e-3 for difference in far.values())
    sums = [sum(found[name][1] for name in both) for found in (here, there)]
    return [
        Result(f"`measures=full`: measures within 1e-3 of the CPU's, of {len(both)}", f"{close}"),
        Result("`measures=full`: seconds on the CPU, on the device", f"{sums[0]:.0f}, {sums[1]:.0f}"),
    ]


def _every_measure(device: str, limit: float) -> dict[str, tuple[dict[str, float | None], float]]:
    """Values and seconds of each measure, until the limit in seconds has passed."""
    from genbench.measures import Snapshot
    from genbench.measures.base import evaluate

    torch.set_num_threads(1)
    model, x, y = trained("mlp", steps=500)
    torch.manual_seed(0)
    initial = network("mlp").state_dict()
    whole = Snapshot(model.to(device), F.cross_entropy, [(x, y)], initial=initial)
    few = whole.on([(x[:1024], y[:1024])])
    found: dict[str, tuple[dict[str, float | None], float]] = {}
    began = perf_counter()
    for name, function in full_measures().items():
        if perf_counter() - began > limit:
            break
        start = perf_counter()
        values = evaluate({name: function}, whole, split="train", few=few)
        found[name] = {key: each.value for key, each in values.items()}, perf_counter() - start
    return found


# -- whole commands


def _sweep(device: str, args: argparse.Namespace) -> list[Result]:
    """Seconds a run and step of whole commands: packed, and one by one."""
    shared = ["data.train_size=1000", "data.val_fraction=0.2", f"trainer.max_steps={args.steps}", "optimizer.lr=0.01"]
    shared += [f"callbacks.{name}=null" for name in ("gap", "weight_norms", "measures")]
    shared += [f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"]
    rows = []
    for model in args.models:
        taken = {}
        ways = {"packed": args.seeds, "packed, one process": args.seeds, "one by one": 1}
        for way, seeds in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                launcher = "basic" if way == "one by one" else "packed"
                chosen = [f"hydra/launcher={launcher}", f"model={model}", f"seed=range({seeds})"]
                chosen += ["hydra.launcher.n_jobs=1"] * way.endswith("process")
                command = [sys.executable, str(Path(__file__).parents[1] / "scripts" / "train.py"), "-m", *chosen]
                start = perf_counter()
                done = subprocess.run([*command, *shared], cwd=folder, check=False, capture_output=True, text=True)
                taken[way] = (perf_counter() - start) / seeds
                if done.returncode:
                    raise RuntimeError(done.stderr)
            print(f"{model}, {way}, {seeds} seeds: {taken[way]:.2f} s a run", flush=True)
        what = f"{model}, {args.steps} steps, whole commands: s a run of {args.seeds} packed; × faster than one by one"
        rows.append(Result(what, f"{taken['packed']:.2f}; {taken['one by one'] / taken['packed']:.0f}"))
    return rows


if __name__ == "__main__":
    report(measure, __doc__, options)
