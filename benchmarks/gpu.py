"""What a GPU makes of it, against the same work done one by one, by a bare loop, or on the CPU; in minutes on one card.

The tests that need a GPU; packed steps of up to 4,096 lanes, with and without a CUDA graph; how far lanes end from
those that train alone in float64; the step of a ResNet-18 on images of CIFAR-10's shape in bfloat16; packed sweeps of
whole runs; curvature beside the CPU's and that of curvlinops; and every measure of ``measures=full``. Each part has its
seconds (:data:`PARTS`): what does not fit is left out, and said. ``--rehearse`` does a little of each on the CPU.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch
import torch.nn.functional as F

from benchmarks.common import Result, full_measures, network, report, trained
from benchmarks.peers import Curvlinops, Library, Ours
from genbench.records.files import write_atomic

ROOT = Path(__file__).parents[1]
LANES = {"mlp": (1, 16, 128, 1024, 4096), "mlp with dropout": (1, 16, 128), "cnn": (1, 16, 128, 1024, 4096)}
MOST = 1024  # lanes that are measured without a graph, too: the first step of 4,096 takes each by itself
Found = Iterator[dict[str, Any] | Result]  # what a part finds: rows of numbers, and lines of the table


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rehearse", action="store_true", help="small, on the CPU")
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=("mlp", "cnn"), default=["mlp", "cnn"], help="of the sweeps")
    parser.add_argument("--seeds", type=int, default=128, help="of the packed sweep")
    parser.add_argument("--steps", type=int, default=3000, help="of a run")


def measure(args: argparse.Namespace) -> list[Result]:
    if not (args.rehearse or torch.cuda.is_available()):
        print("there is no CUDA device: left out; --rehearse does a little of each on the CPU")
        return []
    args.device = "cpu" if args.rehearse else "cuda"
    if args.rehearse:
        args.seeds, args.steps = 2, 20
    name = args.device if args.rehearse else torch.cuda.get_device_name()
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "results": [], "left out": [], "failed": {}}
    print(name)
    results = []
    for part in args.parts:
        function, seconds = PARTS[part]
        room = Room(seconds)
        found[part] = []
        print(f"\n{part}, at most {seconds} s", flush=True)
        try:
            for each in function(args, room):
                if isinstance(each, Result):
                    results.append(each)
                    found["results"].append(each._asdict())
                else:
                    found[part].append(each)
                _write(args.json, found)
        except Exception as error:  # the other parts go on
            traceback.print_exc()
            found["failed"][part] = f"{type(error).__name__}: {error}"
        found["left out"] += [f"{part}: {what}" for what in room.left_out]
        _write(args.json, found)
        if args.device == "cuda":
            torch.cuda.empty_cache()
    for what in found["left out"]:
        print(f"left out of {what}")
    for part, why in found["failed"].items():
        print(f"failed: {part}: {why}")
    return results


def _write(path: Path | None, found: dict[str, Any]) -> None:
    """Write what there is, should the rest take too long."""
    if path is not None:
        write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


class Room:
    """The seconds that a part may take, and what it left out, with the reason."""

    def __init__(self, seconds: float) -> None:
        self._until = perf_counter() + seconds
        self.left_out: list[str] = []

    @property
    def seconds(self) -> float:
        return max(0.0, self._until - perf_counter())

    def has(self, what: str, seconds: float = 0.0) -> bool:
        """Whether something that takes so many seconds fits; it is left out where it does not."""
        fits = self.seconds > seconds
        if not fits:
            self.leave([what])
        return fits

    def leave(self, what: Sequence[str], reason: str = "its time was over") -> None:
        if what:
            self.left_out.append(f"{', '.join(what)}: {reason}")
            print(f"left out: {self.left_out[-1]}", flush=True)


def _command(words: list[str], seconds: float, **settings: Any) -> tuple[int | None, str]:
    """Exit status of a Python command and what it printed; None where it was ended, with all that it started, after
    some seconds."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=subprocess.STDOUT, **settings)
        status: int | None = None
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if status is None:
                for each in (*psutil.Process(process.pid).children(recursive=True), process):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
                process.wait()
        output.seek(0)
        return status, output.read()


# -- tests


def _tests(args: argparse.Namespace, room: Room, file: Path = ROOT / "tests" / "device" / "test_cuda.py") -> Found:
    """The tests that need a GPU: how many passed, failed and were skipped."""
    words = ["-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-vv", "--tb=line"]
    words += ["-n", "1" if args.rehearse else str(min(4, os.cpu_count() or 1)), str(file)]
    status, output = _command(words, room.seconds, cwd=ROOT)
    told = re.findall(r"\b(PASSED|FAILED|SKIPPED|ERROR) (\S*::\S+)(?: - (.*))?", output)
    outcomes = {name: outcome for outcome, name, _ in told}
    each = [*outcomes.values()]
    items = re.search(r"(\d+) items?\b", output)
    if items is None and status is None:
        room.leave(["all tests"])
        return
    if items is None:
        raise RuntimeError(output[-2000:])
    row: dict[str, Any] = {"tests": int(items[1]), "passed": each.count("PASSED"), "skipped": each.count("SKIPPED")}
    reasons = {
        name: f"{name}: {why}".removesuffix(": ") for outcome, name, why in told if outcome in ("FAILED", "ERROR")
    }
    wrong = [*reasons.values()]
    row |= {"failed": len(wrong), "failures": wrong}
    if status is None and len(each) < row["tests"]:
        room.leave([f"{row['tests'] - len(each)} tests of {row['tests']}"])
    print("\n".join(wrong), flush=True)
    yield row
    what = f"tests that need a GPU, of {row['tests']}: passed; failed; skipped"
    yield Result(what, f"{row['passed']}; {row['failed']}; {row['skipped']}")


# -- steps


def _steps(args: argparse.Namespace, room: Room) -> Found:
    """Packed steps: for each model and number of lanes, without a graph and with one."""
    print("| lanes | graph | ms a step | µs a lane | peak MiB | waits in a step |\n|---|---|---|---|---|---|")
    rows = []
    took: dict[str, float] = {}  # seconds of a lane, of the last number of lanes
    chosen = [(n, name) for name, numbers in LANES.items() for n in (numbers[:2] if args.rehearse else numbers)]
    for n, name in sorted(chosen, key=lambda pair: pair[0]):
        for graphs in (False, True) if n <= MOST else (True,):
            if not room.has(f"{name}, {n:,} lanes, {'a' if graphs else 'no'} graph", n * took.get(name, 0.0)):
                continue
            start = perf_counter()
            row: dict[str, Any] = {"model": name, "lanes": n, "graph": graphs}
            try:
                row["seconds"], row["mebibytes"], row["waits"] = _packed_step(name, n, args.device, graphs)
            except torch.OutOfMemoryError:
                row["error"] = "out of memory"
                print(f"| {name}, {n} | {graphs} | out of memory | | | |", flush=True)
            else:
                print(
                    f"| {name}, {n} | {graphs} | {1e3 * row['seconds']:.2f} | {1e6 * row['seconds'] / n:.1f} "
                    f"| {row['mebibytes']} | {row['waits']} |",
                    flush=True,
                )
            took[name] = (perf_counter() - start) / n
            rows.append(row)
            yield row
    done = [row for row in rows if "seconds" in row]
    yield Result("waits for the GPU within steps of packs (expected: 0)", f"{sum(row['waits'] for row in done)}")
    yield from _best(done)


def _best(steps: list[dict[str, Any]]) -> Iterator[Result]:
    for name in dict.fromkeys(row["model"] for row in steps):
        rows = [row for row in steps if row["model"] == name]
        fewest = min(row["lanes"] for row in rows)
        single = min(row["seconds"] / row["lanes"] for row in rows if row["lanes"] == fewest)
        best = min(rows, key=lambda row: row["seconds"] / row["lanes"])
        each = best["seconds"] / best["lanes"]
        what = f"{name}: microseconds a lane and step, {best['lanes']} lanes; × less than with {fewest}"
        yield Result(what, f"{1e6 * each:.1f}; {single / each:.0f}")
        pairs = {graphs: {r["lanes"]: r["seconds"] for r in rows if r["graph"] == graphs} for graphs in (False, True)}
        if both := sorted(pairs[False].keys() & pairs[True].keys()):
            ratios = ", ".join(f"{pairs[False][n] / pairs[True][n]:.2f}" for n in both)
            yield Result(f"{name}: × faster with a CUDA graph, {', '.join(map(str, both))} lanes", ratios)


def _apart(args: argparse.Namespace, room: Room) -> Found:
    """How far packed lanes with random draws end from those that train alone, in float64."""
    from genbench.regularization import Dropout, Mixup
    from genbench.training import Lane, Pack
    from genbench.training.lane import SeparateLanes

    def made() -> list[Any]:
        lanes = []
        for seed in range(3):
            torch.manual_seed(seed)
            lane = Lane(network("mlp"), [Mixup(alpha=0.2), Dropout(rate=0.2)], seed=seed)
            lanes.append(lane.to(args.device).double())
        return lanes

    torch.manual_seed(0)
    x, y = torch.randn(3, 100, 1, 40).to(args.device).double(), (torch.arange(100) % 10).expand(3, 100)
    y = y.to(args.device)
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
    yield {"model": "mlp with mixup and dropout", "steps": 20, "largest relative difference": far}
    yield Result("mlp with mixup and dropout, 20 steps in float64: packed from alone, relative (≤ 1e-9)", f"{far:.0e}")


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


def _resnet(args: argparse.Namespace, room: Room) -> Found:
    """The step of one ResNet-18 as genbench takes it against a bare loop, in turns."""
    from genbench.models import ResNet18
    from genbench.training import Lane
    from genbench.training.lane import SeparateLanes
    from genbench.training.step import training_step

    device = args.device
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

    rows = []
    for turn in range(2 if args.rehearse else 5):
        if not room.has(f"turn {turn + 1}"):
            break
        theirs, mine = (_timed(function, device, repeats=3 if args.rehearse else 20) for function in (bare, ours))
        rows.append({"batch": batch, "seconds bare": theirs, "seconds": mine})
        yield rows[-1]
    ratios = [row["seconds bare"] / row["seconds"] for row in rows]
    what = f"ResNet-18, batch {batch}, bfloat16, channels last: speed of a step, × that of a bare loop (≥ 0.9)"
    middle, spread = statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"
    print(f"ResNet-18: {1e3 * mine:.2f} ms a step, × the speed of a bare loop {middle:.2f} ({spread})", flush=True)
    yield Result(what, f"{middle:.2f} ({spread})")


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


def _curvature(args: argparse.Namespace, room: Room) -> Found:
    """The top five eigenvalues and the trace of the Hessian: on the CPU, on the device, and by curvlinops there."""
    if not Curvlinops.installed():
        room.leave([Curvlinops.name], "it is not installed here")
    print("| | s, eigenvalues | from the CPU's | s, trace | from the CPU's |\n|---|---|---|---|---|")
    for name in args.models:
        model, x, y = trained(name, steps=50 if args.rehearse else 2000)
        here = _hessian(Ours(model, x, y), "cpu")
        model, x, y = model.to(args.device), x.to(args.device), y.to(args.device)
        for kind in (Ours, Curvlinops) if Curvlinops.installed() else (Ours,):
            library = kind(model, x, y)
            if not room.has(f"{name}, {library.name}"):
                continue
            _hessian(library, args.device)  # the first call chooses kernels
            found = _hessian(library, args.device)
            apart = {
                what: max(abs(a / b - 1) for a, b in zip(found[what][0], here[what][0], strict=True)) for what in found
            }
            for what, (values, seconds) in found.items():
                row = {"model": name, "by": library.name, "what": what, "values": values, "seconds": seconds}
                yield {**row, "largest relative difference": apart[what], "seconds on the CPU": here[what][1]}
            eigen, trace = ((seconds, apart[what]) for what, (_, seconds) in found.items())
            print(f"| {name}, {library.name} | {eigen[0]:.3f} | {eigen[1]:.0e} | {trace[0]:.3f} | {trace[1]:.0e} |")
            bound = " (≤ 1e-3)" if kind is Ours else ""  # another estimator of the trace has another error
            told = f"relative difference from genbench's on the CPU{bound}; s"
            measured = "{1:.0e}, {3:.0e}; {0:.2f}, {2:.2f}".format(*eigen, *trace)
            yield Result(f"{name}, {library.name}: top five eigenvalues, trace: {told}", measured)


def _hessian(library: Library, device: str) -> dict[str, tuple[list[float], float]]:
    """Top five eigenvalues, and the trace by as many products as by default, each with its seconds."""
    found = {}
    for what, function in (
        ("eigenvalues", lambda: library.eigenvalues(1e-3, 0)),
        ("trace", lambda: [library.trace(24 if isinstance(library, Ours) else 32, 0)]),
    ):
        start = perf_counter()
        values = [float(value) for value in function()]
        if device == "cuda":
            torch.cuda.synchronize()
        found[what] = values, perf_counter() - start
    return found


def _measures(args: argparse.Namespace, room: Room) -> Found:
    """Each measure of ``measures=full`` on the device and on the CPU, of the same trained MLP."""
    limit = 5 if args.rehearse else room.seconds - 20  # for the start, and the last one that began
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        (there, _), (here, after) = pool.map(_every_measure, (args.device, "cpu"), (limit, limit))
    room.leave(after)
    print("| measure | s on the CPU | s on the device | largest relative difference |\n|---|---|---|---|")
    both = [name for name in here if name in there]
    room.leave([f"{name} on the device" for name in here if name not in there])
    far = {}
    for name in both:
        (values, seconds), (others, took) = here[name], there[name]
        pairs = [(a, others.get(key)) for key, a in values.items() if a is not None]
        lost = sum(b is None for _, b in pairs)
        apart = max([abs(a - b) / max(abs(a), 1e-9) for a, b in pairs if b is not None], default=math.nan)
        far[name] = math.inf if lost else apart
        print(f"| {name} | {seconds:.2f} | {took:.2f} | {f'{lost} lost' if lost else f'{apart:.1e}'} |", flush=True)
        row = {"measure": name, "seconds on the CPU": seconds, "seconds": took, "lost": lost}
        yield {**row, "largest relative difference": apart if math.isfinite(apart) else None, "values": others}
    close = sum(not difference > 1e-3 for difference in far.values())
    sums = [sum(found[name][1] for name in both) for found in (here, there)]
    yield Result(f"`measures=full`: measures within 1e-3 of the CPU's, of {len(both)}", f"{close}")
    yield Result("`measures=full`: seconds on the CPU, on the device", f"{sums[0]:.0f}, {sums[1]:.0f}")


def _every_measure(device: str, limit: float) -> tuple[dict[str, tuple[dict[str, float | None], float]], list[str]]:
    """Values and seconds of each measure, until the limit in seconds has passed, and the names of the others."""
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
    chosen = full_measures()
    for name, function in chosen.items():
        if perf_counter() - began > limit:
            break
        start = perf_counter()
        values = evaluate({name: function}, whole, split="train", few=few)
        found[name] = {key: each.value for key, each in values.items()}, perf_counter() - start
    return found, [name for name in chosen if name not in found]


# -- whole commands


def _sweeps(args: argparse.Namespace, room: Room) -> Found:
    """Whole commands, packed and one by one: seconds a run, of a lane's step within them, and memory of the device."""
    shared = ["data.train_size=1000", "data.val_fraction=0.2", f"trainer.max_steps={args.steps}", "optimizer.lr=0.01"]
    shared += [f"callbacks.{name}=null" for name in ("gap", "weight_norms", "measures")]
    shared += [f"trainer.accelerator={'gpu' if args.device == 'cuda' else 'cpu'}"]
    ways = {"packed": args.seeds, "one by one": 1, "packed, one process": args.seeds}
    taken: dict[tuple[str, str], dict[str, Any]] = {}
    for way, seeds in ways.items():  # the last are left out first
        for model in args.models:
            if not room.has(f"{model}, {way}"):
                continue
            chosen = [f"hydra/launcher={'basic' if way == 'one by one' else 'packed'}", f"model={model}"]
            chosen += [f"seed=range({seeds})", *["hydra.launcher.n_jobs=1"] * way.endswith("process"), *shared]
            with tempfile.TemporaryDirectory() as folder, _peak(args.device) as peak:
                start = perf_counter()
                words = [str(ROOT / "scripts" / "train.py"), "-m", *chosen]
                status, output = _command(words, room.seconds, cwd=folder)
                seconds = (perf_counter() - start) / seeds
                fit = [json.loads(f.read_text())["seconds"]["fit"] for f in Path(folder).glob("runs/*/*/record.json")]
            if status is None:
                room.leave([f"{model}, {way}"])
                continue
            if status or len(fit) != seeds:
                raise RuntimeError(f"{model}, {way}: {len(fit)} of {seeds} runs\n{output[-2000:]}")
            row = {"model": model, "way": way, "seeds": seeds, "steps": args.steps, "seconds a run": seconds}
            row |= {"seconds a lane and step": sum(fit) / seeds / args.steps, "mebibytes": max(peak, default=None)}
            taken[model, way] = row
            print(f"{model}, {way}: {seconds:.2f} s a run of {seeds}, {row['mebibytes']} MiB", flush=True)
            yield row
    for model in args.models:
        if (model, "packed") in taken and (model, "one by one") in taken:
            for what, key in (("whole commands", "seconds a run"), ("a step in fit", "seconds a lane and step")):
                ours, theirs = (taken[model, way][key] for way in ("packed", "one by one"))
                text = f"{model}, {args.steps} steps, {what}: {key}, {args.seeds} packed; × faster than one by one"
                yield Result(text, f"{ours:.2g}; {theirs / ours:.1f}")


@contextmanager
def _peak(device: str) -> Iterator[list[int]]:
    """MiB of a GPU's memory that are taken meanwhile, by all processes, every tenth of a second; none of a CPU's."""
    taken: list[int] = []
    if device == "cpu":
        yield taken
        return
    over, free = threading.Event(), torch.cuda.mem_get_info()[0]

    def look() -> None:
        while not over.wait(0.1):
            taken.append((free - torch.cuda.mem_get_info()[0]) >> 20)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


# part -> (what it does, the seconds it may take): eight minutes in all, with the start
PARTS: dict[str, tuple[Callable[[argparse.Namespace, Room], Found], int]] = {
    "tests": (_tests, 100),
    "steps": (_steps, 110),
    "exactness": (_apart, 10),
    "resnet": (_resnet, 20),
    "sweeps": (_sweeps, 110),
    "curvature": (_curvature, 35),
    "measures": (_measures, 70),
}

if __name__ == "__main__":
    report(measure, __doc__, options)
