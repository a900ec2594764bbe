import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, rankdata, spearmanr
from scipy.stats import t as student

from genbench.analysis import correlations
from tests.helpers.grids import AXES, MEASURES, table

SETTINGS = {"gap": "gap", "hyperparameters": [*AXES]}


def of(frame, name, score):
    found = correlations(frame, measures=[name], **SETTINGS)
    return found[found["score"] == score].iloc[0]


def plain(rows, name):
    """τ and τ-b by a double loop."""
    agreed = untied = moved = pairs = 0
    for one, other in combinations(rows, 2):
        a, b = np.sign(one[name] - other[name]), np.sign(one["gap"] - other["gap"])
        agreed, untied, moved, pairs = agreed + a * b, untied + abs(a), moved + abs(b), pairs + 1
    return agreed / pairs, agreed / math.sqrt(untied * moved) if untied * moved else math.nan


def without(rows):
    """The rows without each configuration in turn."""
    keys = [tuple(row[axis] for axis in AXES) for row in rows]
    return [[row for row, key in zip(rows, keys, strict=True) if key != left] for left in dict.fromkeys(keys)]


@pytest.mark.parametrize("seed", range(20))
def test_against_double_loops(seed):
    frame = table(seed)
    found = correlations(frame, measures=MEASURES, **SETTINGS).set_index(["measure", "score"])
    for name in ("norm", "flat"):
        rows = frame[frame[name].notna()].to_dict("records")
        values, left = plain(rows, name), [plain(each, name) for each in without(rows)]
        for place, score in enumerate(("tau", "tau_b")):
            row = found.loc[name, score]
            assert row["value"] == pytest.approx(values[place], abs=1e-12)
            parts = np.array([each[place] for each in left])
            error = math.sqrt((len(parts) - 1) / len(parts) * np.sum((parts - parts.mean()) ** 2))
            half = student.ppf(0.975, len(parts) - 1) * error / (1 - values[place] ** 2)
            ends = np.tanh(np.arctanh(values[place]) + np.array([-half, half]))
            assert (row["low"], row["high"]) == pytest.approx(tuple(ends), abs=1e-12)
            assert (row["runs"], row["configurations"]) == (len(rows), len(parts))
        x, g = (np.array([row[each] for row in rows]) for each in (name, "gap"))
        assert found.loc[name, "tau_b"]["value"] == pytest.approx(kendalltau(x, g)[0], abs=1e-12)
        assert found.loc[name, "rho"]["value"] == pytest.approx(spearmanr(x, g)[0], abs=1e-12)
    assert found.loc["constant"]["value"].isna().all()
    assert found.loc["constant"]["low"].isna().all()


def test_the_error_of_rho_is_the_bootstrap_s():
    draw = np.random.default_rng(0)
    x = draw.normal(size=400).round(1)
    frame = pd.DataFrame({"one": range(400), "m": x, "gap": (0.6 * x + draw.normal(size=400)).round(1)})
    row = correlations(frame, gap="gap", measures=["m"], hyperparameters=["one"]).set_index("score").loc["rho"]
    samples = []
    for _ in range(2000):
        chosen = draw.integers(400, size=400)
        samples.append(np.corrcoef(rankdata(frame["m"][chosen]), rankdata(frame["gap"][chosen]))[0, 1])
    width = (np.arctanh(row["high"]) - np.arctanh(row["low"])) * (1 - row["value"] ** 2)
    assert width / (2 * student.ppf(0.975, 399)) == pytest.approx(np.std(samples), rel=0.06)


def test_order_direction_and_units_do_not_matter():
    frame = table(3).dropna()
    value = of(frame, "flat", "tau")["value"]
    assert of(frame.sample(frac=1, random_state=1), "flat", "tau")["value"] == value
    assert of(frame.assign(flat=np.exp(3 * frame["flat"])), "flat", "tau")["value"] == value
    turned = correlations(frame, measures=["flat"], directions={"flat": -1}, **SETTINGS)
    assert turned["value"].tolist() == pytest.approx([-of(frame, "flat", s)["value"] for s in ("tau", "tau_b", "rho")])


@pytest.mark.parametrize(("truth", "configurations", "seeds"), [(0.0, 10, 1), (0.5, 10, 3), (0.0, 20, 3), (0.5, 20, 1)])
def test_the_interval_covers(truth, configurations, seeds):
    """At 95 % at most 41 of 500 miss (the binomial bound of 1 in 1,000)."""
    r = math.sin(math.pi * truth / 2)
    missed = {"tau": 0, "rho": 0}
    exact = {"tau": truth, "rho": 6 / math.pi * math.asin(r / 2)}
    for seed in range(500):
        draw = np.random.default_rng(seed)
        parts = draw.multivariate_normal([0, 0], [[1, r], [r, 1]], size=(1 + seeds, configurations))
        x, g = (parts[0] + 0.5 * parts[1:]).reshape(-1, 2).T
        frame = pd.DataFrame({"one": np.tile(range(configurations), seeds), "m": np.sinh(2 * x), "gap": g})
        found = correlations(frame, gap="gap", measures=["m"], hyperparameters=["one"]).set_index("score")
        for score in missed:
            missed[score] += not found.loc[score, "low"] <= exact[score] <= found.loc[score, "high"]
    assert max(missed.values()) <= 41, missed


def test_of_few_runs_there_is_no_number():
    frame = pd.DataFrame({"x": [0, 1, 2], "gap": [0.1, 0.2, 0.3], "m": [1.0, 2.0, math.nan], "n": [3.0, 4.0, 5.0]})
    found = correlations(frame, gap="gap", measures=["m", "n"], hyperparameters=["x"]).set_index("measure")
    assert found.loc["m", "value"].isna().all()
    assert (found.loc["n", "value"] == 1).all()
    assert found["low"].isna().all()


def test_a_gap_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"gap is .*nan.*; accepted: finite numbers"):
        correlations(table(0).assign(gap=math.nan), measures=["norm"], **SETTINGS)
