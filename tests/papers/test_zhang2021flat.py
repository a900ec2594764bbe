"""The claims of zhang2021flat: numbers as the paper has them replicate each; those that violate it do not."""

import os
import random
from pathlib import Path

import pytest

from tests.helpers.experiments import judged, rows, trained
from tests.helpers.pictures import pixels, write_parquet

ACCURACY, PRIOR = "test/performance/accuracy", "test/information/log_prior"
SHARPNESS = "train/flatness/keskar_sharpness"
OUTPUT, FIRST, SECOND = (f"train/flatness/rescaling_{part}" for part in ("output", "first", "second"))


def sgd(run):
    return run["optimizer"] == "sgd" and run["regularization"] == "none"


def numbers(run, **changes):
    """The metrics of a run if every claim held: sharpness follows accuracy with noise under SGD, and not otherwise."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    attack = run["data.attack_size"] / (500 if "data.groups" in run else 40)
    found = {
        ACCURACY: 0.8 - 0.4 * attack + noise(0, 0.02),
        PRIOR: -50 - 50 * attack + noise(0, 2),
        SHARPNESS: 1 + (attack if sgd(run) else 0) + noise(0, 0.2),
        OUTPUT: 1e-15,
        FIRST: 2e-15,
        SECOND: 2e-15,
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


def as_prior(run, value, noise):
    """Sharpness that follows accuracy as closely as log P(f), equally for every optimizer."""
    shared = random.Random(f"{run['seed']} {run['data.attack_size']}").gauss
    return 1 + run["data.attack_size"] / 40 + shared(0, 0.04) + noise(0, 0.001)


def reversed_(run, value, noise):
    """Sharpness that follows accuracy under other optimizers than SGD, and not under SGD."""
    return 1 + (0 if sgd(run) else run["data.attack_size"] / 40) + noise(0, 0.04)


WRONG = {
    "C1 sharpness is as good": ("C1", {SHARPNESS: as_prior}),
    "C1 log P(f) follows nothing": ("C1", {PRIOR: lambda run, value, noise: -70 + noise(0, 2)}),
    "C2a Adam lowers neither": ("C2a", {SHARPNESS: as_prior}),
    "C2a Adam lowers both": ("C2a", {PRIOR: lambda run, value, noise: value if sgd(run) else -70 + noise(0, 2)}),
    "C2a Adam raises it": ("C2a", {SHARPNESS: reversed_}),
    "C2b entropy-SGD lowers neither": ("C2b", {SHARPNESS: as_prior}),
    "C2b entropy-SGD raises it": ("C2b", {SHARPNESS: reversed_}),
    "C3 the outputs move": ("C3", {OUTPUT: lambda run, value, noise: 1e-3}),
    "C3 a block is not divided by 9": ("C3", {FIRST: lambda run, value, noise: 0.1}),
    "C3 a block is not multiplied by 9": ("C3", {SECOND: lambda run, value, noise: 0.1}),
}
SEEDS = {
    "C2a Adam lowers neither": 32,
    "C2b entropy-SGD lowers neither": 32,
}  # the made-up noise leaves eight undecided


def test_the_claims_are_the_same_at_the_papers_scale():
    found = judged("zhang2021flat_paper", numbers, seeds=10)
    assert {name: verdict.status for name, verdict in found.items()} == dict.fromkeys(
        ["C1", "C2a", "C2b", "C3"], "replicated"
    ), [verdict.words for verdict in found.values()]


SHORT = ("trainer.max_steps=5", "trainer.accelerator=cpu", "callbacks.stop.train_accuracy=null")


@pytest.mark.parametrize("row", rows("zhang2021flat_paper"), ids=str)
def test_it_trains_for_five_steps_at_the_papers_scale(row, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="parquet needs the extra datasets")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    for split, n in (("train", 60), ("test", 20)):
        images = pixels(n, side=28, channels=1, seed=n)
        write_parquet(tmp_path / f"{split}.parquet", images, [i % 10 for i in range(n)], key="image")
    found = trained(
        tmp_path / "runs", "experiment=zhang2021flat_paper", *row, f"data.path={tmp_path}", "data.train_size=20",
        "data.test_size=15", "data.attack_size=10", "data.batch_size=10", "model.width=20", *SHORT,
    )  # fmt: skip
    assert found[PRIOR] < -30  # nats, of 45 distinct images without any structure
    assert found[SHARPNESS] > 0
    assert max(found[OUTPUT], found[FIRST], found[SECOND]) < 1e-5


@pytest.mark.skipif("GENBENCH_DATA" not in os.environ, reason="GENBENCH_DATA names no folder of real data")
def test_the_kernel_expects_the_classes_of_real_images(tmp_path):
    """log P(f) of 200 images is far above that of 200 coins, also after five steps."""
    pytest.importorskip("pyarrow", reason="parquet needs the extra datasets")
    where = f"data.path={Path(os.environ['GENBENCH_DATA']) / 'fashion_mnist'}"
    size = ("data.train_size=100", "data.test_size=100", "data.batch_size=50")
    found = trained(tmp_path, "experiment=zhang2021flat_paper", where, *size, "model.width=50", *SHORT)
    assert found[PRIOR] > -200 * 0.69 / 2
    assert found[ACCURACY] > 0.6
