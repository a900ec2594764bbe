"""bartlett2017: numbers that violate a claim do not replicate it; rows train; the paper's own scale trains."""

import math
import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained
from tests.helpers.pictures import write_splits

TEST, TRAIN, GAP = "test/performance/accuracy", "train/performance/accuracy", "test/gap/accuracy"
RAW, NORMALIZED, SPECTRAL = (
    f"train/margin/{name}" for name in ("margin_q50", "normalized_margin", "margin_over_spectral")
)
BOUND, PLOTTED = "train/bound/spectral_init_margin_bound", "train/bound/spectral_init_over_margin"
PATHS, FROBENIUS, SPECTRA = (
    f"train/norm/{name}_over_margin" for name in ("path_norm", "log_prod_of_fro", "log_prod_of_spec")
)
DOUBLINGS = (10, 20, 40, 80, 160)


def numbers(
    run, *, raw=1.05, normalized=1.6, fitted=1.0, falls=0.5, grows=1.2, decay=1.0, lipschitz=0.7, excess=0.4,
    bound=0.3, plotted=0.3, learns=0.05, paths=5.0, products=1.0, spectra=1.0, confusion=2.5, size=1.0, width=-0.5,
    accuracy=0.02, complexity=0.2,
):  # fmt: skip
    """The metrics of a run if every claim held; the arguments are the effects."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    wrong, n = run["data.label_noise"], run["data.train_size"]
    one, stops = run.get("model.depth") == 1, any(key.startswith("callbacks.stop") for key in run)
    few = 500 if n <= 2000 else 10000  # true labels beside the smallest confusion set
    size_of = math.log(run["model.width"] / 64) if one else math.log(n / 100)
    paths_of = math.log(paths) * wrong
    if stops and not one:
        paths_of = math.log(confusion) * wrong * n / few + 0.5 * math.log(size) * math.log((1 - wrong) * n / few)
    found = {
        TEST: 0.3 + (accuracy if one else learns) * size_of,
        TRAIN: fitted,
        GAP: 0.5 + excess * wrong,
        RAW: 7 * raw ** (1 - wrong),
        NORMALIZED: 0.002 * normalized ** (1 - wrong) * math.exp(complexity * size_of * one),
        SPECTRAL: 0.05 * lipschitz ** (4 * wrong),
        BOUND: 1e5 * math.exp(bound * size_of),
        PLOTTED: 500 * math.exp(plotted * size_of),
        PATHS: 20 * math.exp(paths_of + width * size_of * one),
        FROBENIUS: 12 + products * wrong,
        SPECTRA: 6 + spectra * wrong,
    }
    if run["regularization"] == "l2":
        found[NORMALIZED] *= decay
    found = {key: value * (1 + noise(0, 0.01)) for key, value in found.items()} | {TRAIN: fitted}
    for index, epochs in enumerate(DOUBLINGS):
        for step in (40 * epochs, 390 * epochs):  # of both scales
            found[f"train/trajectory/moved_at_{step}"] = 1e-3 * falls**index * (1 + noise(0, 0.01))
            found[f"weights/trajectory/norm_at_{step}"] = 10 * grows**index * (1 + noise(0, 0.01))
    return found


WRONG = {
    "C1 raw margins differ": ("C1", {"raw": 1.5}),
    "C1 normalized margins do not": ("C1", {"normalized": 1.1}),
    "C1 smaller for true labels": ("C1", {"normalized": 0.8}),
    "C1 not fitted": ("C1", {"fitted": 0.95}),
    "C2 the distribution moves as before, and more": ("C2", {"falls": 1.1}),
    "C2 the norm shrinks": ("C2", {"grows": 0.9}),
    "C3 the median rises by a fifth": ("C3", {"decay": 1.2}),
    "C3 it falls by a fifth": ("C3", {"decay": 0.8}),
    "C4 the Lipschitz constant does not tell": ("C4", {"lipschitz": 1.0}),
    "C4 it falls": ("C4", {"lipschitz": 1.2}),
    "C4 no excess": ("C4", {"excess": 0}),
    "C5 the bound falls": ("C5", {"bound": -0.2}),
    "C5 the bound stays": ("C5", {"bound": 0}),
    "C5 what they plot falls": ("C5", {"plotted": -0.2}),
    "C5 the test error rises": ("C5", {"learns": -0.05}),
    "N1 path norms alike": ("N1", {"paths": 1}),
    "N1 products smaller": ("N1", {"products": -1}),
    "N1-spectral alike": ("N1-spectral", {"spectra": 0}),
    "N1-spectral smaller": ("N1-spectral", {"spectra": -1}),
    "N2 no growth with random labels": ("N2", {"confusion": 1}),
    "N2 true ones add as much": ("N2", {"size": 400}),
    "N3 rises with the width": ("N3", {"width": 0.5}),
    "N3 stays": ("N3", {"width": 0}),
    "N3 the test error rises": ("N3", {"accuracy": -0.02}),
    "N3-spectral falls": ("N3-spectral", {"complexity": -0.5}),
    "N3-spectral stays": ("N3-spectral", {"complexity": 0}),
}


@pytest.mark.parametrize("row", rows("bartlett2017"), ids=str)
def test_a_few_steps_of_each_row_on_the_laptop(row, tmp_path):
    stops = any(word.startswith("callbacks.stop") for word in row)
    chosen = [word for word in row if not word.startswith(("trainer.max_steps", "data.train_size"))]
    sizes = () if stops else ("callbacks.curve.every_n_steps=[1,2,4]",)
    found = trained(
        tmp_path, "experiment=bartlett2017", *chosen, *sizes, "trainer.max_steps=4", "trainer.accelerator=cpu",
        "data.test_size=50", "data.train_size=100",
    )  # fmt: skip
    assert found[NORMALIZED] is not None
    assert found["train/norm/path_norm"] > 0
    if not stops:
        assert found["train/trajectory/moved_at_4"] > 0
        assert found["weights/trajectory/norm_at_4"] > 0
        assert found["train/margin/normalized_margin_q5"] < found["train/margin/normalized_margin_q95"]


def test_the_claims_are_the_same_at_the_papers_scale():
    found = judged("bartlett2017_paper", numbers)
    assert [*found] == [*node("bartlett2017")["claims"]["rules"]]
    assert {verdict.status for verdict in found.values()} == {"replicated"}, [each.words for each in found.values()]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folders of images like those of MNIST and CIFAR-10."""
    return write_splits(tmp_path_factory.mktemp("images"), train=60, test=20, side=28)


@pytest.mark.parametrize("row", rows("bartlett2017_paper"), ids=str)
def test_four_steps_at_the_papers_scale(row, small, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(small / "cache"))
    stops = any(word.startswith("callbacks.stop") for word in row)
    words = ("trainer.max_steps", "data.train_size", "data.batch_size", "model.width")
    chosen = [word for word in row if not word.startswith(words)]
    sizes = [] if stops else ["callbacks.curve.every_n_steps=[1,2,4]"]
    found = trained(
        tmp_path, "experiment=bartlett2017_paper", *chosen, *sizes, f"data.path={small}", "trainer.max_steps=4",
        "data.train_size=40", "data.batch_size=10", "model.width=8", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert found[NORMALIZED] is not None
    if not stops:
        assert found["train/trajectory/moved_at_4"] > 0
