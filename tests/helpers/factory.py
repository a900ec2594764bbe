"""Folders of records as an ablation writes them, with made-up but plausible numbers."""

import hashlib
import math
import random
from pathlib import Path

from genbench import records

STRATEGIES = [
    "none", "l1", "l2", "weight_decay", "dropout", "batch_norm", "label_smoothing", "augmentation", "mixup",
    "early_stopping", "sam", "swa", "gradient_clipping", "ensemble",
]  # fmt: skip

# test accuracy, train accuracy with clean labels; λ₁; ‖w‖
TRAITS = {
    "none": (0.665, 1.0, 62.0, 21.0), "l1": (0.684, 0.998, 31.0, 14.2), "l2": (0.679, 1.0, 40.0, 15.5),
    "weight_decay": (0.672, 1.0, 52.0, 18.0), "dropout": (0.702, 0.981, 28.0, 19.4),
    "batch_norm": (0.691, 1.0, 310.0, 24.0), "label_smoothing": (0.681, 1.0, 9.5, 26.0),
    "augmentation": (0.741, 0.942, 14.0, 22.0), "mixup": (0.689, 0.97, 18.0, 19.0),
    "early_stopping": (0.668, 0.93, 75.0, 12.4), "sam": (0.699, 1.0, 8.4, 18.8), "swa": (0.676, 1.0, 22.0, 20.5),
    "gradient_clipping": (0.666, 1.0, 60.5, 21.2), "ensemble": (0.713, 1.0, 61.0, 21.0),
}  # fmt: skip

ALTERED = {
    "batch_norm": records.SCALE_FREE,
    "label_smoothing": "trained on smoothed targets, another loss",
    "mixup": "trained on mixed targets, another loss",
}

GEOMETRY = ("lambda_1", "trace", "sam_sharpness", "average_sharpness", "adaptive_sharpness")

ACCURACY = {"label": "acc", "metric": "test/performance/accuracy"}

SPEC = {
    "title": "Regularization on MNIST-1D",
    "caption": "MLP 40-100-100-10 on 1,000 examples, 1,200 Adam steps (lr 0.005, batch 100) for every row.",
    "rows": ["regularization"],
    "baseline": ["none"],
    "columns": [
        *(
            {"group": group, "label": label, "metric": metric, "best": best, "scale": 100, "digits": 1,
             "where": {"data.label_noise": noise}}
            for group, metric, best in (
                ("test acc. (%)", "test/performance/accuracy", "max"),
                ("train acc. (%)", "train/performance/accuracy", None),
                ("gap (points)", "test/gap/accuracy", "min"),
            )
            for label, noise in (("clean", 0.0), ("noisy", 0.2))
        ),
        *(
            {"group": group, "label": label, "metric": metric, "best": best, "where": {"data.label_noise": 0.0}}
            for group, label, metric, best in (
                ("sharpness", "λ₁", "train/flatness/lambda_1", None),
                ("sharpness", "trace", "train/flatness/trace", None),
                ("sharpness", "SAM", "train/flatness/sam_sharpness", None),
                ("sharpness", "adaptive", "train/flatness/adaptive_sharpness", "min"),
                ("weights", "norm", "weights/norm/l2", None),
                ("weights", "distance", "weights/norm/distance", None),
                ("cost", "seconds", "seconds.fit", None),
            )
        ),
    ],
}  # fmt: skip


def run_id(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def record(strategy="none", noise=0.0, seed=0, **changes):
    """Return the record of a completed run; ``changes`` replace top-level keys."""
    draw = random.Random(repr((strategy, noise, seed)))
    test, train, lambda_1, norm = TRAITS.get(strategy, TRAITS["none"])
    shift = random.Random(seed).gauss(0, 0.008)  # what the seeds share
    test = round(test - 0.55 * noise + shift + draw.gauss(0, 0.005), 3)
    train = train if train == 1.0 else round(train - 0.9 * noise + draw.gauss(0, 0.002), 3)
    lambda_1 *= math.exp(draw.gauss(0, 0.08)) * (1 + 3 * noise)
    flatness = {
        "lambda_1": lambda_1,
        "trace": lambda_1 * draw.uniform(9, 11),
        "sam_sharpness": 0.012 * lambda_1**0.8 * draw.uniform(0.9, 1.1),
        "average_sharpness": 0.001 * lambda_1 * draw.uniform(0.9, 1.1),
        "adaptive_sharpness": 0.3 + 0.9 * (train - test) * draw.uniform(0.9, 1.1),
    }
    loss = {"train": 0.002 + 1.2 * (1 - train), "val": 4.2 * (train - test), "test": 4.0 * (train - test) + 0.1}
    metrics = {
        "train/performance/accuracy": train,
        "val/performance/accuracy": test + 0.004,
        "test/performance/accuracy": test,
        **{f"{split}/performance/cross_entropy": value for split, value in loss.items()},
        "test/gap/accuracy": train - test,
        "test/gap/cross_entropy": loss["test"] - loss["train"],
        **{f"train/flatness/{name}": value for name, value in flatness.items()},
        "weights/norm/l2": norm * draw.uniform(0.98, 1.02) * (1 + noise),
        "weights/norm/distance": (norm - 6) * draw.uniform(0.98, 1.02) * (1 + noise),
    }
    notes = {}
    if strategy == "ensemble":
        notes = {key: "mean of 5 members" for key in metrics if key.startswith(("train/flatness", "weights"))}
    chosen = [] if strategy == "none" else strategy.split("+")
    fit = 3.4 * draw.uniform(0.95, 1.05) * {"sam": 2.0, "ensemble": 5.0}.get(strategy, 1.0)
    return {
        "schema": 2,
        "run_id": run_id(strategy, noise, seed),
        "experiment": "ablation",
        "status": "completed",
        "error": None,
        "config": {
            "data": {"_target_": "genbench.data.MNIST1D", "train_size": 1000, "label_noise": noise, "seed": seed},
            "model": {"_target_": "genbench.models.MLP", "width": 100, "depth": 2, "normalization": "none"},
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.005},
            "regularization": {name: {"strength": 0.001} for name in chosen},
            "trainer": {"max_steps": 1200, "precision": "32-true"},
            "seed": seed,
        },
        "choices": {"data": "mnist1d", "model": "mlp", "optimizer": "adam", "regularization": chosen},
        "altered": {name: ALTERED[name] for name in chosen if name in ALTERED},
        "seed": seed,
        "metrics": metrics,
        "stderr": {"train/flatness/trace": 0.05 * flatness["trace"]},
        "converged": {"train/flatness/lambda_1": True},
        "residual": {"train/flatness/lambda_1": 1e-5},
        "interval": {},
        "notes": notes,
        "history": "history.csv",
        "provenance": {"genbench": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "device": "cpu", "threads": 1},
        "seconds": {"fit": fit, "measure": 0.4, "total": fit + 0.6},
        "measure_seconds": {"train/flatness/lambda_1": 0.1, "train/flatness/trace": 0.2},
        **changes,
    }


def history(record, epochs=110):
    """Return curves that end at the record's metrics; geometry every tenth epoch."""
    keys = list(record["metrics"])
    draw = random.Random(record["run_id"])
    lines = [",".join(["epoch", "step", "seconds", *keys])]
    for epoch in range(1, epochs + 1):
        rise = 1 - math.exp(-epoch / 14)
        cells = []
        for key in keys:
            end = record["metrics"][key]
            if end is None or (not key.endswith(("accuracy", "entropy")) and epoch % 10 and epoch != epochs):
                cells.append("")
                continue
            start = 0.1 if "performance/accuracy" in key else 2.3 if "performance/cross" in key else 0.0
            jitter = draw.gauss(0, 0.006) if epoch < epochs and "train" not in key else 0.0
            cells.append(repr((end if epoch == epochs else start + (end - start) * rise) + jitter))
        lines.append(",".join([str(epoch), str(10 * epoch), f"{0.03 * epoch:.3f}", *cells]))
    return "\n".join(lines) + "\n"


def overrides(strategy, noise, seed):
    chosen = strategy if "+" not in strategy else "[" + strategy.replace("+", ",") + "]"
    return [f"regularization={chosen}", f"data.label_noise={noise}", f"seed={seed}"]


def leave(folder, item):
    """Write a record with its history and weights, as a finished run does."""
    target = Path(folder) / item["run_id"]
    target.mkdir(parents=True, exist_ok=True)
    if item["history"]:
        (target / item["history"]).write_text(history(item))
    (target / "weights.pt").write_bytes(item["run_id"].encode())
    return records.write(target, item)


def failed(item, status, error):
    """Return the record of the same run if it had failed or diverged."""
    return {**item, "status": status, "error": error, "metrics": {}, "stderr": {}, "converged": {}, "residual": {},
            "interval": {}, "notes": {}, "history": None, "seconds": {"fit": 1.0}, "measure_seconds": {}}  # fmt: skip


def ablation(folder, strategies=STRATEGIES, noises=(0.0, 0.2), seeds=(0, 1, 2), spec=SPEC, skip=(), change=None):
    """Write a sweep into ``folder``: its plan and every record except ``skip``; ``change(item)`` may alter a record."""
    plan = [(strategy, noise, seed) for strategy in strategies for noise in noises for seed in seeds]
    Path(folder).mkdir(parents=True, exist_ok=True)
    records.write_sweep(
        folder,
        {
            "schema": 2,
            "experiment": "ablation",
            "command": ["experiment=ablation"],
            "table": spec,
            "runs": [{"run_id": run_id(*run), "overrides": overrides(*run)} for run in plan],
        },
    )
    for run in plan:
        if run not in skip:
            item = record(*run)
            leave(folder, change(item) if change else item)
    return Path(folder)


def toy(folder, values, spec=None, **kwargs):
    """Clean runs whose test accuracy is ``values[strategy][seed]``."""
    seeds = range(max(map(len, values.values())))

    def change(item):
        name = "+".join(item["choices"]["regularization"]) or "none"
        item["metrics"]["test/performance/accuracy"] = values[name][item["seed"]]
        return item

    spec = spec or {"rows": ["regularization"], "baseline": ["none"], "columns": [{**ACCURACY, "best": "max"}]}
    skip = {(name, 0.0, seed) for name, found in values.items() for seed in seeds if seed >= len(found)}
    return ablation(folder, list(values), (0.0,), seeds, spec, skip | set(kwargs.pop("skip", ())), change)


def holes(folder):
    """An ablation with every kind of trouble: failed, diverged, missing, damaged, foreign, unconverged, unmeasured."""

    def change(item):
        run = (
            "+".join(item["choices"]["regularization"]) or "none",
            item["config"]["data"]["label_noise"],
            item["seed"],
        )
        if run == ("dropout", 0.0, 2):
            return failed(
                item, "failed", "OutOfMemoryError: killed by the system while writing /home/someone/runs/x.pt"
            )
        if run == ("l1", 0.2, 1):
            return failed(item, "diverged", "diverged at step 340: the training loss is nan")
        if run[0] == "sam" and run[1] == 0.2:
            return failed(item, "diverged", "diverged at step 12: the training loss is inf")
        if run == ("l2", 0.0, 0):
            item["converged"]["train/flatness/lambda_1"] = False
        if run[:2] == ("mixup", 0.0):
            item["metrics"]["train/flatness/trace"] = None
            item["notes"]["train/flatness/trace"] = "undefined: the loss is not twice differentiable"
        return item

    skip = {("swa", noise, seed) for noise in (0.0, 0.2) for seed in (0, 1, 2)} | {("ensemble", 0.2, 2)}
    ablation(folder, change=change, skip=skip)
    (folder / run_id("none", 0.2, 1) / "record.json").write_text('{"schema": 2, "run_')
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "record.json").write_text('{"accuracy": 0.9}')
    return folder
