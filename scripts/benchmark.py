"""Measures what the README says about speed and memory: one subcommand a claim, ratios taken within one process.

Every subcommand ends with a table of what was measured and what is required; the exit status is 1 if a requirement is
not met.

python scripts/benchmark.py all
python scripts/benchmark.py curvature --dense
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

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
    from genbench import experiment, records

    if args.folder is not None:
        found = [r for r in records.load(args.folder).records if r["status"] == "completed"]
        if not found:
            sys.exit(f"{args.folder} holds no completed runs")
    else:
        with tempfile.TemporaryDirectory() as runs:
            found = [experiment.run(_ablation(m, f"runs_dir={runs}")) for m in ("none", "l2", "sam")]
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


def curvature(args: argparse.Namespace) -> list[Result]:
    """Largest Hessian eigenvalue and trace of a trained 15,210-parameter MLP, against PyHessian 0.1 and dense float64.

    Both get the 4,000 training examples as one float32 batch, keep the graph of the gradient, and run in turns.
    PyHessian runs once with its defaults, and once with a tolerance at which its eigenvalue is right to 1e-3 and as
    many samples of the trace as bring its standard error down to ours. Its standard error is the spread of the samples
    it returns; ours is set, by the number of probes, to be no larger than that of PyHessian's defaults.
    """
    from pyhessian import hessian

    from genbench.measures import Snapshot, hessian_eigenvalues, hessian_trace

    model, x, y = _trained_mlp(steps=args.steps)
    loss = nn.CrossEntropyLoss()

    def ours(seed: int) -> dict[str, float]:
        snapshot = Snapshot(model, loss, [(x, y)])
        top = hessian_eigenvalues(snapshot, seed=seed)["lambda_1"]
        trace = hessian_trace(snapshot, deflation=10, probes=3, seed=seed)
        assert top.converged
        return {"lambda_1": top.value, "trace": trace.value, "stderr": trace.stderr}

    def pyhessian(seed: int, eigenvalue: dict[str, float], trace: dict[str, float]) -> dict[str, float]:
        torch.manual_seed(seed)
        model.zero_grad()
        computer = hessian(model, loss, data=(x, y), cuda=False)
        values, _ = computer.eigenvalues(**eigenvalue)
        samples = computer.trace(**trace)
        error = statistics.stdev(samples) / len(samples) ** 0.5
        return {"lambda_1": values[0], "trace": statistics.mean(samples), "stderr": error}

    candidates = {
        "genbench": ours,
        "PyHessian 0.1, defaults": lambda seed: pyhessian(seed, {}, {}),
        "PyHessian 0.1, as accurate": lambda seed: pyhessian(
            seed, {"maxIter": 1000, "tol": 1e-5}, {"maxIter": 40, "tol": 0.0}
        ),
    }
    results = _in_turns(candidates, repeats=args.repeats)
    exact, how = _dense(model, x, y) if args.dense else _arpack(model, x, y)
    print(f"reference: {how}")
    print("| | seconds | λ₁ | error of λ₁, worst | trace | standard error | error of the trace, worst |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in results.items():
        wrong = max(abs(r["lambda_1"] / exact["lambda_1"] - 1) for r in runs)
        far = max(abs(r["trace"] / exact["trace"] - 1) for r in runs) if "trace" in exact else float("nan")
        middle = {key: statistics.median(r[key] for r in runs) for key in runs[0]}
        print(
            f"| {name} | {middle['seconds']:.3f} | {middle['lambda_1']:.5f} | {wrong:.1e} "
            f"| {middle['trace']:.4f} | {middle['stderr']:.4f} | {far:.1e} |"
        )
    print(f"| exact | | {exact['lambda_1']:.5f} | | {exact.get('trace', float('nan')):.4f} | | |")
    rows = []
    for name in list(results)[1:]:
        pairs = zip(results[name], results["genbench"], strict=True)
        times = [theirs["seconds"] / ours["seconds"] for theirs, ours in pairs]
        typical, spread = statistics.median(times), f"{min(times):.1f}–{max(times):.1f}"
        rows.append(Result(f"λ₁ and trace, × faster than {name}", f"{typical:.2f} ({spread})", "≥ 2", typical >= 2))
    wrong = max(abs(r["lambda_1"] / exact["lambda_1"] - 1) for r in results["genbench"])
    return [*rows, Result("λ₁, relative error against float64", f"{wrong:.0e}", "≤ 1e-3", wrong <= 1e-3)]


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

    from genbench import experiment
    from genbench.data import Batches

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
    with experiment._quiet():
        data = experiment._build_data(config)
        module = experiment._build_module(config, data)
        network, clock = module.network, Clock()
        trainer = experiment._build_trainer(
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
    from genbench import experiment

    record = experiment.run(config)
    assert record is not None
    assert record["status"] == "completed", record["error"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _trained_mlp(*, steps: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The 15,210-parameter MLP after Adam on MNIST-1D's 4,000 training examples, with those."""
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    x, y = torch.tensor(data["x"]).float(), torch.tensor(data["y"]).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        rows = torch.randint(len(y), (100,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval(), x, y


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


def _arpack(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[dict[str, float], str]:
    from scipy.sparse.linalg import LinearOperator, eigsh

    product = _products(model, x, y)
    size = sum(p.numel() for p in model.parameters())
    operator = LinearOperator(
        (size, size), matvec=lambda v: product(torch.from_numpy(v).reshape(1, -1))[0].numpy(), dtype="float64"
    )
    top = eigsh(operator, k=1, which="LA", tol=1e-10, return_eigenvectors=False)
    return {"lambda_1": float(top[0])}, "float64 ARPACK (no trace; --dense gives both)"


def _dense(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[dict[str, float], str]:
    product = _products(model, x, y)
    size = sum(p.numel() for p in model.parameters())
    start = perf_counter()
    h = torch.empty(size, size, dtype=torch.float64)
    for first in range(0, size, 30):
        last = min(first + 30, size)
        rows = torch.zeros(last - first, size, dtype=torch.float64)
        rows[torch.arange(last - first), torch.arange(first, last)] = 1
        h[first:last] = product(rows)
    asymmetry = max(float((h[i : i + 1000] - h[:, i : i + 1000].T).abs().max()) for i in range(0, size, 1000))
    built = perf_counter() - start
    values = torch.linalg.eigvalsh(h)
    total = perf_counter() - start
    how = (
        f"all eigenvalues of the dense float64 Hessian, built in {built:.0f} s, solved in {total - built:.0f} s, "
        f"asymmetry {asymmetry:.0e}, Σλ − trace {float(values.sum() - h.trace()):.0e}, "
        f"top 5: {', '.join(f'{v:.6f}' for v in values.flip(0)[:5])}"
    )
    return {"lambda_1": float(values[-1]), "trace": float(h.trace())}, how


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("memory", help="peak memory of an ablation run")
    command.set_defaults(run=memory)

    command = commands.add_parser("step", help="a training step against a bare LightningModule")
    command.add_argument("--repeats", type=int, default=9)
    command.add_argument("--steps", type=int, default=1200)
    command.set_defaults(run=step)

    command = commands.add_parser("callbacks", help="the default callbacks' share of the time")
    command.add_argument("folder", type=Path, nargs="?", help="an experiment's folder, such as runs/ablation")
    command.set_defaults(run=callbacks)

    command = commands.add_parser("curvature", help="eigenvalue and trace against PyHessian 0.1")
    command.add_argument("--repeats", type=int, default=9)
    command.add_argument("--steps", type=int, default=2000, help="training steps before the measurement")
    command.add_argument("--dense", action="store_true", help="compare with the whole float64 Hessian (2 GB, minutes)")
    command.set_defaults(run=curvature)

    command = commands.add_parser("sweep", help="the whole ablation, and again when it is complete")
    command.add_argument("overrides", nargs="*", help="further settings of the sweep, such as seed=0")
    command.set_defaults(run=sweep)

    # memory first: the peak of a new process starts from what its parent held
    together = ("memory", "step", "callbacks", "curvature", "sweep")
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
