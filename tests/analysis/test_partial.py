import math
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from genbench.analysis import partial_association
from tests.helpers.grids import AXES, MEASURES, table

SETTINGS = {"gap": "gap", "hyperparameters": [*AXES]}


def plain(rows, name, keys):
    """Σ sign Δμ · sign Δg and the number of pairs, and of those that do not tie, by a double loop."""
    agreed = pairs = untied = 0
    for one, other in combinations(rows, 2):
        if all(one[key] == other[key] for key in keys):
            term = float(np.sign(one[name] - other[name]) * np.sign(one["gap"] - other["gap"]))
            agreed, pairs, untied = agreed + term, pairs + 1, untied + (term != 0)
    return agreed, pairs, untied


def with_value(frame, name):
    """The runs with a value by configuration, of those that have two or more."""
    groups = {}
    for row in frame[frame[name].notna()].to_dict("records"):
        groups.setdefault(tuple(row[axis] for axis in AXES), []).append(row)
    return {key: rows for key, rows in groups.items() if len(rows) > 1}


@pytest.mark.parametrize("seed", range(20))
def test_against_double_loops(seed):
    frame = table(seed)
    found = partial_association(frame, measures=MEASURES, permutations=1, **SETTINGS).set_index("measure")
    for name in MEASURES:
        groups = with_value(frame, name)
        rows = [row for group in groups.values() for row in group]
        agreed, pairs, untied = plain(rows, name, AXES)
        row = found.loc[name]
        assert row["value"] == pytest.approx(agreed / pairs, abs=1e-12)
        assert (row["configurations"], row["pairs"], row["ties"]) == (len(groups), pairs, pairs - untied)
        left = [plain([row for key in groups if key != out for row in groups[key]], name, AXES) for out in groups]
        parts = np.array([each[0] / each[1] for each in left])
        error = math.sqrt((len(parts) - 1) / len(parts) * np.sum((parts - parts.mean()) ** 2))
        if name != "constant":
            half = student.ppf(0.975, len(parts) - 1) * error / (1 - row["value"] ** 2)
            ends = np.tanh(np.arctanh(row["value"]) + np.array([-half, half]))
            assert (row["low"], row["high"]) == pytest.approx(tuple(ends), abs=1e-12)
    assert found.loc["constant", ["value", "p", "note"]].tolist() == [0, 1, "all pairs tie"]


@pytest.mark.parametrize("seed", range(3))
def test_p_is_the_share_of_all_orders(seed):
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": [0, 0, 0, 1, 1, 2, 2, 2], "gap": draw.integers(0, 4, 8), "m": draw.integers(0, 4, 8)})
    parts = [frame[frame["x"] == x] for x in range(3)]
    values = []
    for orders in product(*(permutations(part["gap"]) for part in parts)):
        permuted = pd.concat([part.assign(gap=order) for part, order in zip(parts, orders, strict=True)])
        values.append(abs(plain(permuted.to_dict("records"), "m", ["x"])[0]))
    own = abs(plain(frame.to_dict("records"), "m", ["x"])[0])
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["x"]}
    exact = partial_association(frame, **settings)["p"][0]
    assert exact == pytest.approx(np.mean([value >= own for value in values]), abs=1e-12)
    drawn = partial_association(frame, **settings, permutations=71)["p"][0]
    assert (drawn * 72) % 1 == pytest.approx(0, abs=1e-9)  # (1 + count) / 72
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(0.25 / 71))


def test_by_hand():
    three = pd.DataFrame(
        {"x": [0, 0, 0, 1, 1, 1], "gap": [1, 2, 3, 3, 2, 1], "m": [1.0, 2.0, 3.0, 9.0, 8.0, -math.inf]}
    )
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["x"]}
    (row,) = partial_association(three, **settings).to_dict("records")
    assert (row["value"], row["configurations"], row["pairs"], row["ties"]) == (1, 2, 6, 0)
    assert row["p"] == pytest.approx(2 / 36)  # of 3! · 3! orders this one and its reverse
    assert row["note"] == "36 orders of the runs: no p below 0.056"
    two = pd.DataFrame({"x": np.repeat(range(6), 2), "gap": [0, 1] * 6, "m": [0, 1] * 5 + [1, 0]})
    (row,) = partial_association(two, **settings).to_dict("records")
    assert row["value"] == pytest.approx(4 / 6)
    assert row["p"] == pytest.approx(2 * (1 + 6) / 2**6)  # the sign test
    (row,) = partial_association(two[::2], **settings).to_dict("records")
    assert math.isnan(row["value"])
    assert math.isnan(row["p"])
    assert row["note"] == "no configuration has two runs with a value"


def test_what_the_hyperparameters_do_is_of_no_account():
    frame = table(3)
    found = partial_association(frame, measures=["norm", "flat"], **SETTINGS)
    shift = frame.groupby([*AXES])["gap"].transform("size") * 7 + frame["depth"] * (frame["lr"] > 0.05)
    moved = frame.assign(gap=np.exp(2 * frame["gap"]) + shift, norm=frame["norm"] ** 3 + 5 * shift)
    again = partial_association(moved, measures=["norm", "flat"], **SETTINGS)
    pd.testing.assert_frame_equal(found.drop(columns="residual"), again.drop(columns="residual"))


def test_residuals_are_of_main_effects():
    grid = pd.MultiIndex.from_product([range(3), range(4)], names=["x", "y"]).to_frame(index=False)
    frame = grid.assign(gap=10 * grid["x"] + grid["y"], m=grid["y"] - 5.0 * grid["x"], noise=np.arange(12) % 5)
    found = partial_association(frame, gap="gap", measures=["m", "noise"], hyperparameters=["x", "y"])
    assert found["residual"].isna().all()  # the gap's ranks are a sum of main effects
    turned = frame.assign(gap=frame["noise"] ** 2)
    (one, other) = partial_association(turned, gap="gap", measures=["m", "noise"], hyperparameters=["x", "y"])[
        "residual"
    ]
    assert math.isnan(one)
    assert other == pytest.approx(1)


def shared(draw, kind):
    """Runs whose gap and measure are related through hyperparameters alone, with interactions."""
    grid = pd.MultiIndex.from_product([range(2), range(2)], names=["x", "y"]).to_frame(index=False)
    surface = 3 * grid["x"] * grid["y"] + draw.normal(size=4)
    runs = pd.concat([grid] * 3, ignore_index=True)
    noise = {"normal": draw.normal, "heavy": draw.standard_cauchy, "ties": lambda size: draw.integers(0, 2, size)}[kind]
    spread = np.tile(np.exp(draw.normal(size=4)), 3)
    return runs.assign(
        **{name: np.tile(surface, 3) + spread * noise(size=12) for name in ("gap", "m")}, seed=np.repeat(range(3), 4)
    )


@pytest.mark.parametrize("kind", ["normal", "heavy", "ties"])
def test_confounded_measures_are_rejected_no_more_than_5_of_100_times(kind):
    """Four configurations of three seeds; at most 41 of 500, the binomial bound of 1 in 1,000."""
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["x", "y"], "permutations": 199}
    ps = [partial_association(shared(np.random.default_rng(at), kind), **settings)["p"][0] for at in range(500)]
    assert sum(p <= 0.05 for p in ps) <= 41


def common(draw, seeds):
    """A seed moves the gap, and apart from that the measure, in the same way in all configurations."""
    runs = pd.MultiIndex.from_product([range(10), range(seeds)], names=["x", "seed"]).to_frame(index=False)
    own = {name: np.tile(draw.normal(size=seeds), 10) for name in ("gap", "m")}
    return runs.assign(**{name: of + 0.5 * draw.normal(size=len(runs)) for name, of in own.items()})


def test_seeds_with_something_in_common_are_permuted_as_a_whole():
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["x"], "permutations": 120}
    apart = whole = 0
    for at in range(100):
        frame = common(np.random.default_rng(at), 5)
        apart += partial_association(frame, **settings)["p"][0] <= 0.05
        whole += partial_association(frame, **settings, seeds="seed")["p"][0] <= 0.05
    assert apart > 25  # 5 of 100 would do
    assert whole <= 13  # 1 in 1,000 of 5 in 100
    (row,) = partial_association(common(np.random.default_rng(0), 3), **settings, seeds="seed").to_dict("records")
    assert row["note"] == "6 orders of the runs: no p below 0.17"


def test_what_is_refused():
    frame = table(0)
    with pytest.raises(ValueError, match=r"hyperparameters is \[\]; accepted"):
        partial_association(frame, gap="gap", measures=["norm"], hyperparameters=[])
    with pytest.raises(ValueError, match=r"column is 'nrm'; did you mean 'norm'\?"):
        partial_association(frame, measures=["nrm"], **SETTINGS)
    with pytest.raises(ValueError, match=r"gap is .*inf.*; accepted: finite numbers"):
        partial_association(frame.assign(gap=math.inf), measures=["norm"], **SETTINGS)
    with pytest.raises(ValueError, match=r"permutations is 0; accepted: an integer of at least 1"):
        partial_association(frame, measures=["norm"], permutations=0, **SETTINGS)
    with pytest.raises(ValueError, match=r"column is 'sed'; accepted: .*"):
        partial_association(frame, measures=["norm"], seeds="sed", **SETTINGS)
    with pytest.raises(ValueError, match=r"s is .*0.* in two runs of a configuration; accepted: one run a seed"):
        partial_association(frame.assign(s=0), measures=["norm"], seeds="s", **SETTINGS)
