"""belkin2019: numbers that violate a claim do not replicate it; a least-squares fit of each row at both scales."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained

RISK, BIAS, VARIANCE = (f"test/performance/squared_{name}" for name in ("risk", "bias2", "variance"))
ERROR, NORM = "test/performance/member_error", "weights/norm/l2"
WIDTH, RIDGE, NOISE = "model.width", "regularization.least_squares.ridge", "data.label_noise"


def numbers(
    run, *, scale=1, of=None, risk=1.0, error=0.0, norm=1.0, raised=1.0, jump=0.0, bias=0.0, spread=1.0, unlucky=False
):
    """The numbers of a run if every claim held, of n = 500 · ``scale`` examples. ``of``: the width in units of n whose
    squared error (by a factor), error, norm (by a factor) or bias² is changed. ``raised``: how much more the squared
    error rises with wrong labels. ``jump``: of the squared error with a ridge, at ``of``. ``spread``: the share of the
    variance at N = n."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    ratio, wrong = run[WIDTH] / (500 * scale), run[NOISE]
    mine = of is not None and abs(ratio - of) < 1e-9
    away = max(abs(ratio - 1), 0.01)
    if run[RIDGE] is None:
        held = 0.9 - 0.02 * ratio**0.5 + wrong / 5 + (jump if mine else 0) + noise(0, 0.002)
        return {RISK: held, BIAS: held - 0.05, VARIANCE: 0.05, ERROR: 0.7 - 0.02 * ratio, NORM: 5 + noise(0, 0.1)}
    own_bias = max(0.6, 0.85 - 0.3 * ratio) + (bias if mine else 0) + noise(0, 0.005)
    shares = 0.25 / away * ratio**0.3 * (0.1 if ratio > 4 else 0.4) * (1 + raised * wrong / away)
    variance = 5 * shares if ratio == 1 else shares
    variance *= (spread if ratio == 1 else 1) * (risk if mine else 1)
    rest = 0.5 * variance if spread < 1 and ratio == 1 else 0.0
    size = 10 + 20 / away * (1 if ratio <= 1 else 0.8) / (1 + ratio / 4)
    return {
        RISK: own_bias + variance + rest,
        BIAS: own_bias + rest,
        VARIANCE: variance,
        ERROR: 0.62 + (0.15 if ratio < 4 else 0) + (error if mine else 0) + noise(0, 0.002),
        NORM: size * (norm if mine else 1) * (1 + noise(0, 0.01)),
    }


WRONG = {
    "C1 it is larger at 0.9n": ("C1", {"of": 0.9, "risk": 1000}),
    "C1 it is larger at 8n": ("C1", {"of": 8, "risk": 10000}),
    "C2a a small model answers better": ("C2a", {"of": 0.25, "error": -0.2}),
    "C2a the widest answers as badly": ("C2a", {"of": 8, "error": 0.15}),
    "C2b the widest has the larger error": ("C2b", {"of": 8, "risk": 50}),
    "C3 the norm is no larger at n": ("C3", {"of": 1, "norm": 0.01}),
    "C3 it is as large at 2n": ("C3", {"of": 2, "norm": 100}),
    "C3 it rises after 2n": ("C3", {"of": 8, "norm": 10}),
    "C4 wrong labels lower it": ("C4", {"raised": -0.4}),
    "C5a there is a peak": ("C5a", {"of": 1, "jump": 0.1}),
    "C5b there is a peak": ("C5b", {"of": 1, "jump": 0.1}),
    "C6a it is bias as well": ("C6a", {"spread": 0.6}),
    "C6b the bias turns up": ("C6b", {"of": 8, "bias": 0.3}),
    "C6b it is smaller at 0.9n": ("C6b", {"of": 0.9, "bias": -0.2}),
}


def test_the_claims_are_the_same_at_the_papers_scale():
    found = judged("belkin2019_paper", lambda run: numbers(run, scale=20))
    assert [*found] == [*node("belkin2019")["claims"]["rules"]]
    assert {verdict.status for verdict in found.values()} == {"replicated"}, [each.words for each in found.values()]


def check(found):
    assert found[RISK] == pytest.approx(found[BIAS] + found[VARIANCE])
    assert 0 < found[ERROR] <= 1
    assert found[NORM] > 0


@pytest.mark.parametrize("row", rows("belkin2019"), ids=str)
def test_a_fit_of_each_row_on_the_laptop(row, tmp_path):
    few = ("data.train_size=40", "data.batch_size=10", "data.test_size=50", "model.width=12", "trainer.accelerator=cpu")
    chosen = [word for word in row if not word.startswith("model.width")]
    check(trained(tmp_path, "experiment=belkin2019", *chosen, *few))


@pytest.mark.parametrize("row", rows("belkin2019_paper"), ids=str)
def test_a_fit_of_each_row_at_the_papers_scale(row, small, tmp_path):
    few = ("data.train_size=40", "data.batch_size=10", "model.width=12", "trainer.accelerator=cpu")
    chosen = [word for word in row if not word.startswith(("model.width", "data.hub", "data.train_size"))]
    check(trained(tmp_path, "experiment=belkin2019_paper", *chosen, *few, f"data.path={small}"))
