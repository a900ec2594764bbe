"""dziugaite2020: measures that err as the paper's replicate each claim; those that violate it do not."""

import random
from collections.abc import Mapping

import pytest

from tests.helpers.experiments import node, rows, trained
from tests.helpers.pictures import write_splits

GAP, LOSS = "test/gap/accuracy", "train/performance/cross_entropy"
RULES = node("dziugaite2020")["claims"]["rules"]
MEASURES = RULES["C1"]["metrics"]
BEST = [part["metric"] for part in RULES["C2a"]["parts"]]
SPECTRAL = [part["metric"] for part in RULES["C2b"]["parts"]]
OTHERS = [name for name in MEASURES if name not in (*BEST, *SPECTRAL)]
AXES = dict(RULES["C1"]["over"])
RATE, DEPTH, WIDTH, SIZE, DATA = AXES
PLACES = ((SPECTRAL, {RATE, DEPTH, SIZE}), (OTHERS[:8], {RATE}), (OTHERS[8:], {WIDTH}))


def numbers(
    run, *, wrong: Mapping[str, set[str]] | None = None, everywhere: tuple[str, ...] = (), graded: bool = False
):
    """The gap falls with every level. Measures follow it but along some axes: the paper's best between the data,
    products of spectral norms along three axes, of all others some along the learning rate and the rest along the
    width. ``wrong`` are the axes of other measures, ``everywhere`` those that never err; ``graded``: between none and
    three of three rates, and as many widths."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    level = {key: values.index(run[key]) for key, values in AXES.items()}
    gap = 0.9 - 0.1 * sum(level.values())
    found = {GAP: gap + noise(0, 0.004), LOSS: 0.0095}
    along = {name: axes for names, axes in PLACES for name in names} | {name: {DATA} for name in BEST} | (wrong or {})
    for name in MEASURES:
        axes = set() if name in everywhere else along[name]
        turned = {key: place if key in axes else -place for key, place in level.items()}
        if graded:
            places = ([0, -1, -2], [-1, 0, -2], [-2, 0, -1], [0, 1, 2])[MEASURES.index(name) % 4]
            turned |= {axis: places[level[axis]] for axis in (RATE, WIDTH)}
        found[name] = 1 + 0.1 * sum(turned.values()) + noise(0, 0.004)
    return found


WRONG = {
    "C1 a measure never errs": ("C1", {"everywhere": (BEST[0],)}),
    "C1 no measure errs": ("C1", {"everywhere": tuple(MEASURES)}),
    "C2a the path norm errs along two axes": ("C2a", {"wrong": {BEST[4]: {DEPTH, SIZE}}}),
    "C2a flatness errs always": ("C2a", {"wrong": {BEST[1]: set(AXES)}}),
    "C2b products of spectral norms follow the gap": ("C2b", {"everywhere": tuple(SPECTRAL)}),
    "C2b one of them errs along the width alone": ("C2b", {"wrong": {SPECTRAL[1]: {WIDTH}}}),
    "C3 the order is the same": ("C3", {"graded": True}),
}  # fmt: skip


def test_the_claims_are_the_same_at_the_papers_scale():
    laptop, paper = (node(name)["claims"]["rules"] for name in ("dziugaite2020", "dziugaite2020_paper"))
    for name, rule in laptop.items():
        for own, other in zip(rule.get("parts", [rule]), paper[name].get("parts", [paper[name]]), strict=True):
            apart = ("over", "axes")
            assert {k: v for k, v in own.items() if k not in apart} == {
                k: v for k, v in other.items() if k not in apart
            }


SHORT = (
    "trainer.max_steps=5",
    "trainer.accelerator=cpu",
    "callbacks.stop.train_loss=null",
    "callbacks.stop.tolerance=null",
)


@pytest.mark.parametrize("row", rows("dziugaite2020"), ids=str)
def test_all_measures_are_measured(row, tmp_path):
    found = trained(tmp_path, "experiment=dziugaite2020", *row, *SHORT, "data.train_size=40", "data.test_size=50")
    assert set(MEASURES) | {GAP, LOSS} <= set(found)
    assert found["train/bound/params_over_examples"] > 0


@pytest.mark.parametrize("data", ["cifar10", "svhn"])
def test_five_steps_at_the_papers_scale(data, tmp_path, monkeypatch):
    small = write_splits(tmp_path / "images", train=64, test=20, side=32)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    chosen = [word for row in rows("dziugaite2020_paper") for word in row if not word.startswith("data")]
    found = trained(
        tmp_path / "runs", "experiment=dziugaite2020_paper", *chosen, f"data={data}", f"data.path={small}",
        "data.train_size=64", "model.width=8", *SHORT,
    )  # fmt: skip
    assert set(MEASURES) <= set(found)
