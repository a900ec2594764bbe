"""Windows of a metric, and what the runs that they leave out could do to a ranking."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from genbench.analysis import rank
from genbench.analysis.correlations import kendall
from genbench.analysis.selection import bounds, inside, left_out, words

LOSS = {"loss": (0.009, 0.011)}


def grid(make, seed=0, levels=3, axes="abc"):
    draw = np.random.default_rng(seed)
    runs = [
        {**dict(zip(axes, point, strict=True)), **make(*point, draw)}
        for point in itertools.product(range(levels), repeat=len(axes))
    ]
    return pd.DataFrame(runs)


def test_runs_at_the_ends_lie_inside_and_those_without_a_number_do_not():
    frame = pd.DataFrame({"loss": [0.009, 0.011, 0.0111, 0.0089, math.nan], "accuracy": [1, 0.98, 1, 1, 1]})
    assert inside(frame, LOSS).tolist() == [True, True, False, False, False]
    assert inside(frame, {**LOSS, "accuracy": (0.99, math.inf)}).tolist() == [True, *[False] * 4]
    assert inside(frame, {}).all()


def test_what_is_left_out_is_counted_by_value():
    frame = pd.DataFrame({"lr": [0.1, 0.1, 0.01, 0.01], "net": ["a", "b", "a", "b"]})
    kept = np.array([True, True, False, True])
    table = left_out(frame, kept, ["lr", "net"])
    assert table.to_numpy().tolist() == [
        ["lr", 0.01, 2, 1, 0.5],
        ["lr", 0.1, 2, 0, 0.0],
        ["net", "a", 2, 1, 0.5],
        ["net", "b", 2, 0, 0.0],
    ]
    assert words(table, LOSS, kept) == [
        "1 of 4 runs are left out, as they do not have loss in [0.009, 0.011].",
        "Left out: lr 50 % of 0.01, 0 % of 0.1; net 50 % of a, 0 % of b.",
    ]
    many = left_out(pd.DataFrame({"lr": range(8)}), np.arange(8) > 0, ["lr"])
    assert words(many, LOSS, np.arange(8) > 0)[1] == "Left out: lr 0 to 100 % of its 8 values."


def test_bounds_worked_by_hand():
    """Six of the fifteen pairs of six runs are of the four that are kept: the nine others count -1, or 1."""
    assert bounds(1.0, 4, 2) == pytest.approx(((6 - 9) / 15, 1))
    assert bounds(1 / 3, 4, 2) == pytest.approx(((2 - 9) / 15, (2 + 9) / 15))
    assert bounds(0.25, 4, 0) == pytest.approx((0.25, 0.25))
    assert all(map(math.isnan, bounds(math.nan, 4, 1)))


@pytest.mark.parametrize("unknown", [-1, 1])
def test_bounds_are_tau_with_every_unknown_pair_at_its_worst(unknown):
    draw = np.random.default_rng(0)
    x, g = draw.normal(size=(2, 30))
    x[[3, 7, 8]], cluster = math.nan, np.repeat(np.arange(15), 2)
    known = kendall(x, g, cluster)
    assert bounds(known.value, 27, 3)[unknown > 0] == pytest.approx(kendall(x, g, cluster, unknown=unknown).value)
    pairs = [
        unknown if math.isnan(x[i] + x[j]) else np.sign(x[i] - x[j]) * np.sign(g[i] - g[j])
        for i, j in itertools.combinations(range(30), 2)
    ]
    assert kendall(x, g, cluster, unknown=unknown).value == pytest.approx(np.mean(pairs), abs=1e-12)


def test_tau_of_unknown_runs_has_the_jackknife_s_error():
    draw = np.random.default_rng(1)
    x, g = draw.normal(size=(2, 24))
    x[:5], cluster = math.nan, np.repeat(np.arange(8), 3)

    def score(keep):
        pairs = [
            -1 if math.isnan(x[i] + x[j]) else np.sign(x[i] - x[j]) * np.sign(g[i] - g[j])
            for i, j in itertools.combinations(keep, 2)
        ]
        return np.mean(pairs)

    parts = np.array([score(np.flatnonzero(cluster != one)) for one in range(8)])
    found = kendall(x, g, cluster, unknown=-1)
    assert found.influence @ found.influence == pytest.approx(7 * parts.var())
    assert (found.runs, found.configurations) == (24, 8)


def test_a_selection_makes_a_measure_look_good_and_the_bounds_say_so():
    """Of unrelated numbers only runs in which the measure follows the gap reach the loss."""

    def make(a, b, c, d, draw):
        m, g = draw.normal(size=2)
        return {"m": m, "gap": g, "loss": 0.01 if m * g > 0 else 0.02}

    frame = grid(make, axes="abcd")
    found = rank(frame, gap="gap", measures=["m", "loss"], hyperparameters=[*"abcd"], within=LOSS, permutations=9)
    kept = frame[inside(frame, LOSS)]
    row = found.table.set_index("measure").loc["m"]
    assert row["tau_low"] > 0.3
    assert (row["tau_worst"], row["tau_best"]) == bounds(row["tau"], len(kept), 81 - len(kept))
    assert row["tau_worst"] < 0
    assert found.notes[0] == f"{81 - len(kept)} of 81 runs are left out, as they do not have loss in [0.009, 0.011]."
    assert (found.runs, len(found.left_out)) == (len(kept), 12)
    assert found.left_out["runs"].tolist() == [27] * 12


def test_the_loss_is_a_control_among_the_runs_that_are_kept():
    def make(a, b, c, draw):
        g = a + draw.normal()
        return {"m": draw.normal(), "gap": g, "loss": 0.01 - 1e-4 * g if c or b else 0.5}

    frame = grid(make)
    found = rank(frame, gap="gap", measures=["m"], hyperparameters=[*"abc"], within=LOSS, permutations=9)
    row = found.table.set_index("measure").loc["loss"]
    assert (row["control"], row["tau"], row["runs"]) == (True, -1, 24)
    plain = rank(frame[inside(frame, LOSS)], gap="gap", measures=["m"], hyperparameters=[*"abc"], permutations=9)
    columns = ["tau", "tau_low", "psi", "rho", "increment"]
    one, two = (each.table.set_index("measure").loc["m", columns].tolist() for each in (found, plain))
    assert one == pytest.approx(two)
    assert "tau_worst" not in plain.table
    assert not len(plain.left_out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"within": {"los": (0, 1)}}, r"within names 'los'; did you mean 'loss'\?"),
        ({"within": {"word": (0, 1)}}, "within names 'word', a column of text; accepted: one of numbers"),
        ({"within": {"loss": (1, 0)}}, r"within loss is \(1, 0\); accepted: the least number first"),
        ({"within": {"loss": 1}}, "within loss is 1; accepted: the least and the largest number"),
        ({"within": {"loss": ("0", 1)}}, r"within loss is '0'; accepted: a number"),
        ({"within": {"loss": (2, 3)}}, "no run lies within: 27 of 27 runs are left out, as they do not have loss in"),
        ({"within": {"gap": (0, 1)}}, "'gap' has two roles"),
        ({"measures": ["loss"], "within": LOSS}, "measures are controls alone; accepted: others beside"),
    ],
)
def test_what_is_refused(change, message):
    frame = grid(lambda a, b, c, draw: {"m": draw.normal(), "gap": draw.normal(), "loss": 0.01, "word": "x"})
    with pytest.raises(ValueError, match=f"^{message}"):
        rank(frame, **{"gap": "gap", "measures": ["m"], "hyperparameters": [*"abc"], **change})
