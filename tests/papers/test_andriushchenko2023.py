"""andriushchenko2023: sharpness that follows the learning rate replicates each claim; what violates one does not."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained
from tests.helpers.pictures import write_splits

SHARP, ACCURACY, GAP = "train/flatness/worst_linf_normalized_3", "test/performance/accuracy", "test/gap/accuracy"
SHIFTED, FITTED = "test/robustness/corrupted_accuracy_5", "train/performance/accuracy"
RULES = node("andriushchenko2023")["claims"]["rules"]
INVARIANCES = [part["metric"] for part in RULES["C3"]["parts"]]
AXES = dict(RULES["C4"]["parts"][0]["over"])
RATE, RHO, ALPHA = AXES
MLP, CNN = "mlp", "cnn"
DEFINITIONS = [name for name in node("andriushchenko2023")["measures"] if not name.startswith("scale_")]


def numbers(
    run, *, rate=-1.0, along=None, shifted=1.0, unlike=None, invariance=1e-13, fitted=1.0, accuracy=(0.3, -0.3)
):
    """Sharpness falls with the learning rate, little else moving it. The test accuracy is that of SAM and mixup; with
    sharpness it also falls a little of MLPs and rises a little of CNNs (``accuracy``), so that their gaps lie on
    opposite sides. That on corrupted signals rises with sharpness, but of the model ``unlike``. ``along``: the model
    whose accuracy is all of its sharpness."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    level = {key: values.index(run[key]) / (len(values) - 1) - 0.5 for key, values in AXES.items()}
    sharp = rate * level[RATE] + noise(0, 0.05)
    test = 0.4 * (level[RHO] + level[ALPHA]) + 2 * dict(zip((MLP, CNN), accuracy, strict=True))[run["model"]] * -sharp
    if run["model"] == along:
        test = sharp
    test += noise(0, 0.03)
    return {
        SHARP: 1 + sharp,
        ACCURACY: 0.5 + 0.1 * test,
        GAP: 0.5 - 0.1 * test,
        SHIFTED: 0.4 + 0.1 * (shifted * sharp * (-1 if run["model"] == unlike else 1) + noise(0, 0.1)),
        FITTED: fitted,
        **dict.fromkeys(INVARIANCES, invariance),
    }


WRONG = {
    "C1 the rate moves nothing": ("C1", {"rate": 0.0, "along": MLP}),
    "C1 sharpness of one model is its accuracy": ("C1", {"rate": 0.0, "along": CNN}),
    "C2 all setups on one side": ("C2", {"accuracy": (0.6, 0.6)}),
    "C2 all setups on the other": ("C2", {"accuracy": (-0.6, -0.6)}),
    "C3 the scale of the logits counts": ("C3", {"invariance": 1e-4}),
    "C4 sharper is worse": ("C4", {"shifted": -1.0}),
    "C4 sharper is worse of one model": ("C4", {"unlike": CNN}),
}


def test_sharpness_that_rises_with_the_learning_rate_follows_it_too():
    assert judged("andriushchenko2023", lambda run: numbers(run, rate=1.0))["C1"].status == "replicated"


def test_networks_that_do_not_fit_their_data_decide_nothing():
    found = judged("andriushchenko2023", lambda run: numbers(run, fitted=0.98))
    assert {name: verdict.status for name, verdict in found.items()} == {
        "C1": "undecided", "C2": "undecided", "C3": "holds", "C4": "undecided"
    }  # fmt: skip


def test_the_claims_are_the_same_at_the_papers_scale():
    """But for the setups and the values of the grid."""

    def leaves(rule):
        parts = rule.get("parts")
        own = {key: value for key, value in rule.items() if key not in ("over", "of", "parts")}
        return [own] if parts is None else [leaf for part in parts for leaf in leaves(part)]

    paper = node("andriushchenko2023_paper")["claims"]["rules"]
    assert list(paper) == list(RULES)
    for name, rule in RULES.items():
        unique = [{repr(sorted(leaf.items(), key=repr)) for leaf in leaves(each)} for each in (rule, paper[name])]
        assert unique[0] == unique[1]


SHORT = ("trainer.max_steps=5", "trainer.accelerator=cpu")
METRICS = {SHARP, ACCURACY, GAP, SHIFTED, FITTED, *INVARIANCES}


def known(metrics):
    return {name for name, value in metrics.items() if value is not None}


@pytest.mark.parametrize("row", rows("andriushchenko2023"), ids=str)
def test_all_measures_are_measured(row, tmp_path):
    found = trained(tmp_path, "experiment=andriushchenko2023", *row, *SHORT, "data.test_size=50")
    assert METRICS | {f"train/flatness/{name}" for name in DEFINITIONS} <= {
        name for name, x in found.items() if x is not None
    }
    assert max(found[name] for name in INVARIANCES) < 1e-5


@pytest.mark.parametrize("row", rows("andriushchenko2023_paper"), ids=str)
def test_five_steps_at_the_papers_scale(row, tmp_path, monkeypatch):
    """Fewer images, steps of ascent and draws of noise."""
    small = write_splits(tmp_path / "images", train=64, test=20, side=32)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    names = [name for kind in ("", "_paper") for name in node(f"andriushchenko2023{kind}")["measures"]]
    assert len(names) == 12 * 4 + len(INVARIANCES)
    few = []
    for name in names:
        at = f"{name}.measure" if name.startswith("scale_") else name
        few += [f"+measures.{at}.{each}" for each in (("m=16", "steps=2") if "worst" in name else ("pairs=2",))]
    found = trained(
        tmp_path / "runs", "experiment=andriushchenko2023_paper", *row, f"data.path={small}", "data.train_size=64",
        "data.batch_size=32", "model.width=4", *few, *SHORT,
    )  # fmt: skip
    assert METRICS | {f"train/flatness/{name}" for name in names} <= known(found)
