"""The claims of shwartz2017: numbers as the papers have them replicate each; those that violate it, or show none of its
effect, do not. The experiment at the paper's own scale trains."""

import random

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench import config
from genbench.runs import execute, plan

XT4, XT5, ARCTANH = (f"all/trajectory/{name}" for name in ("xt_4", "xt_5", "arctanh_5"))
TY5, ONSET, SNR = "all/trajectory/ty_5", "all/trajectory/xt_5_step", "train/trajectory/snr_step"
TEST = "test/performance/accuracy"


def tanh(run):
    return run["model.activation"] == "tanh"


def few(run):
    return run["data.train_fraction"] == 0.05


def full(run):
    return run["data.batch_size"] is None


def numbers(run, **changes):
    """The metrics of a run if every claim held, but for seeds that differ a little."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    fall = (5.0 if full(run) else 4.0) if tanh(run) else 0.3
    found = {
        XT4: fall + noise(0, 0.1),
        XT5: fall + noise(0, 0.1),
        ARCTANH: 0.1 * fall + noise(0, 0.02),
        TY5: (0.2 if few(run) else 0.002) + abs(noise(0, 0.002)),
        ONSET: 128 * (1 + noise(0, 0.05)),
        SNR: 150 * (1 + noise(0, 0.05)),
        TEST: (0.9 if few(run) else 0.985) + noise(0, 0.002),
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


def nothing(run, value, noise):
    return abs(noise(0, 0.01))


WRONG = {
    "C1 tanh does not compress": ("C1", {XT4: nothing, XT5: nothing}),
    "C1 one layer does not": ("C1", {XT4: nothing}),
    "C1 ReLU compresses as much": ("C1", {XT5: lambda run, value, noise: 4 + noise(0, 0.1)}),
    "C2 other edges show the same": ("C2", {ARCTANH: lambda run, value, noise: 4 + noise(0, 0.1)}),
    "C2 they remove a half": ("C2", {ARCTANH: lambda run, value, noise: 2 + noise(0, 0.1)}),
    "C3 noise is needed": ("C3", {XT5: lambda run, value, noise: nothing(run, value, noise) if full(run) else value}),
    "C3 half as much without noise": ("C3", {XT5: lambda run, value, noise: 0.5 * value if full(run) else value}),
    "C3 neither compresses": ("C3", {XT5: nothing}),
    "C4 never": ("C4", {TY5: lambda run, value, noise: abs(noise(0, 0.002))}),
    "C4 with many patterns too": ("C4", {TY5: lambda run, value, noise: 0.2 + noise(0, 0.01)}),
    "C5 ReLU is less accurate": ("C5", {TEST: lambda run, value, noise: value - (0 if tanh(run) else 0.05)}),
    "C5 ReLU compresses": ("C5", {XT5: lambda run, value, noise: 4 + noise(0, 0.1)}),
    "C6 noise first": ("C6", {SNR: lambda run, value, noise: 30 * (1 + noise(0, 0.05))}),
    "C6 noise later": ("C6", {SNR: lambda run, value, noise: 600 * (1 + noise(0, 0.05))}),
}


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.train_fraction=0.85", "model.activation=tanh"],
        ["data.train_fraction=0.85", "model.activation=relu", "callbacks.plane.measures.binned.width=0.0667"],
        ["data.train_fraction=0.85", "model.activation=tanh", "data.batch_size=null"],
        ["data.train_fraction=0.05", "model.activation=tanh"],
    ],
    ids=["tanh", "relu", "full batch", "few patterns"],
)
def test_the_experiment_at_the_paper_s_scale_trains(overrides, tmp_path):
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        chosen = compose("train", ["experiment=shwartz2017_paper", *overrides])
        plain = OmegaConf.to_container(chosen, resolve=True)
    plain["runs_dir"] = str(tmp_path)
    plain["trainer"] |= {"max_steps": 5, "accelerator": "cpu"}
    plain["callbacks"]["kernels"]["measures"]["kde"]["examples"] = 64
    plan.check(plain)
    record = execute.run(plain)
    assert record["status"] == "completed", record["error"]
    metrics = record["metrics"]
    # five hidden layers know of the 4096 patterns at most their 12 bits
    for layer in ("layers.1.0", "layers.2.0", "layers.3.0", "layers.4.0", "head"):
        assert 0 < metrics[f"all/information/xt_binned.{layer}"] <= 12
        assert 0 <= metrics[f"all/information/ty_binned.{layer}"] <= 1
    assert metrics["all/trajectory/x5_at_4"] > 0
    assert metrics["train/trajectory/drift_at_1"] > 0
    assert metrics["all/trajectory/x5_at_8"] is None
    assert "not measured at step 8" in record["notes"]["all/trajectory/x5_at_8"]
