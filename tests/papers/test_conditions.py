"""conditions, a study of genbench's own: numbers that violate a claim do not replicate it; each strategy trains a few
steps in a condition."""

import random
import zlib

import pytest

from tests.helpers.experiments import node, rows, trained

ACCURACY, VALIDATED = "test/performance/accuracy", "val/performance/accuracy"
NOISE = "data.label_noise"
STRENGTH = {  # of each strategy, the setting that is tried
    key: name
    for grid in node("conditions")["hydra"]["sweeper"]["grids"]
    for name in [str(grid["regularization"])]
    for key in grid
    if key.endswith(name) or key.startswith(f"regularization.{name}.") or key == "optimizer.lr"
}


def of(*parts, spread=0.05):
    """A number that the parts decide, with this standard deviation."""
    return random.Random(zlib.crc32(repr(parts).encode())).gauss(0, spread)


def numbers(run, *, everywhere=(), means=0.0, gains=0.2, harms=0.4, early=0.12, ensemble=0.02, only=None):
    """The numbers of a run if every claim held. ``everywhere``: the settings of conditions on which it does not depend
    what a strategy does; ``means``: the spread of what strategies do on average; ``gains``, ``harms``: of augmentation
    on MNIST-1D and on a teacher; ``early``: of early stopping with wrong labels; ``ensemble``: its gain, or that in
    the condition ``only``."""
    name, data, model, wrong = run["regularization"], run["data"], run["model"], run[NOISE]
    condition = {"data": data, "model": model, NOISE: wrong}
    plain = 0.7 - 0.4 * wrong - (0.1 if model == "mlp" else 0)
    effect = of(name, spread=means) + sum(
        of(name, key, value) for key, value in condition.items() if key not in everywhere
    )
    if name == "none":
        effect = 0.0
    elif name == "augmentation" and not wrong:
        effect = {"mnist1d": gains, "teacher_student": -harms}.get(data, effect)
    elif name == "early_stopping":
        effect = early if wrong == 0.4 else 0.0
    elif name == "ensemble":
        effect = ensemble if only in (None, (data, model, wrong)) else 0.02
    tried = [run[key] for key in run if STRENGTH.get(key) and key != "optimizer.lr"] or [run.get("optimizer.lr")]
    chosen = of(name, *condition.values(), *tried, spread=1) > 0  # half of the settings are bad, and validate so
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    found = min(0.99, max(0.01, plain + effect + noise(0, 0.004) - (0.0 if chosen else 0.001)))
    return {ACCURACY: found, VALIDATED: found - 0.4 * wrong * found + noise(0, 0.02)}


MOST = ("data", "model", NOISE)
WRONG = {
    "C1a strategies do everywhere the same": ("C1a", {"everywhere": MOST, "means": 0.2, "gains": 0.0, "harms": 0.0}),
    "C1b strategies do everywhere the same": ("C1b", {"everywhere": MOST, "means": 0.3}),
    "C2a they do the same whatever the labels": ("C2a", {"everywhere": (NOISE,), "means": 0.3}),
    "C2b they do the same on all data": ("C2b", {"everywhere": ("data",), "means": 0.3}),
    "C2c they do the same with both networks": ("C2c", {"everywhere": ("model",), "means": 0.3}),
    "C3 augmentation gains little": ("C3", {"gains": 0.05}),
    "C3 augmentation harms little": ("C3", {"harms": 0.05}),
    "C4 early stopping gains nothing": ("C4", {"early": 0.0}),
    "C5 an ensemble harms somewhere": ("C5", {"ensemble": -0.05, "only": ("digits", "cnn", 0.2)}),
}


def test_every_strategy_has_three_settings_on_every_data_set():
    grids = node("conditions")["hydra"]["sweeper"]["grids"]
    tried = [(grid["regularization"], grid["data"]) for grid in grids]
    assert len(set(tried)) == len(tried) == 14 * 3
    for grid in grids:
        (ladder,) = [value for key, value in grid.items() if STRENGTH.get(key)]
        assert len(set(ladder.split(","))) == 3


ROWS = rows("conditions")


@pytest.mark.parametrize("row", [ROWS[3 * i + i % 3] for i in range(len(ROWS) // 3)], ids=str)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_few_steps_of_each_strategy(row, model, tmp_path):
    words = [word for word in row if not word.startswith("data.train_size")]
    few = ("data.train_size=100", "trainer.max_steps=4", "trainer.accelerator=cpu", "data.label_noise=0.2")
    found = trained(tmp_path, "experiment=conditions", *words, f"model={model}", *few)
    assert all(0 <= found[name] <= 1 for name in (ACCURACY, VALIDATED))
