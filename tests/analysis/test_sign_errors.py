import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from genbench.analysis import pair_sign_errors, sign_errors
from tests.helpers.grids import AXES, MEASURES, table

SETTINGS = {"gap": "gap", "measures": MEASURES, "hyperparameters": [*AXES]}


def plain(frame, n, directions=None):
    """By a double loop over the runs: for each environment and measure its pairs, as (weight, error, context, ends)."""
    found = {}
    for one, other in combinations(frame.to_dict("records"), 2):
        apart = [axis for axis in AXES if one[axis] != other[axis]]
        if len(apart) != 1:
            continue
        (axis,) = apart
        low, high = sorted((one, other), key=lambda row: row[axis])
        context = tuple(one[each] for each in AXES if each != axis)
        ends = frozenset(tuple(run[each] for each in AXES) for run in (one, other))
        difference = low["gap"] - high["gap"]
        weight = max(0.0, max(0.0, 1 - 2 * math.exp(-2 * n * (difference / 2) ** 2)) ** 2 - 0.5)
        for name in MEASURES:
            moved = (directions or {}).get(name, 1) * (low[name] - high[name])
            if weight and not math.isnan(moved):
                error = 0.5 if moved == 0 or difference == 0 else float((moved > 0) != (difference > 0))
                found.setdefault((axis, low[axis], high[axis], name), []).append((weight, error, context, ends))
    return found


def interval(pairs):
    """Student's, of a ratio of sums over contexts; and the p of an error beyond one half."""
    total = sum(w for w, *_ in pairs)
    value = sum(w * e for w, e, *_ in pairs) / total
    parts, sizes = {}, {}
    for w, e, context, _ in pairs:
        parts[context] = parts.get(context, 0) + w * (e - value) / total
        sizes[context] = sizes.get(context, 0) + w
    count = len(parts)
    spread = math.sqrt(count / (count - 1) * sum(part**2 for part in parts.values()))
    effective = total**2 / sum(size**2 for size in sizes.values())
    degrees = max(effective - 1, 1)
    half = student.ppf(0.975, degrees) * spread
    return max(0, value - half), min(1, value + half), student.cdf((0.5 - value) / spread, degrees)


@pytest.mark.parametrize("seed", range(20))
def test_against_a_double_loop_over_the_runs(seed):
    frame, directions = table(seed), {"norm": -1}
    found = sign_errors(frame, **SETTINGS, test_size=1000, directions=directions, effective_pairs=0)
    expected = plain(frame, 1000, directions)
    environments = found[found["axis"] != "mean"]
    assert {(row.axis, row.a, row.b, row.measure) for row in environments.itertuples()} == set(expected)
    for row in environments.to_dict("records"):
        own = expected[row["axis"], row["a"], row["b"], row["measure"]]
        total = sum(w for w, *_ in own)
        assert row["pairs"] == len(own)
        assert row["contexts"] == len({context for _, _, context, _ in own})
        assert row["effective_pairs"] == pytest.approx(total**2 / sum(w**2 for w, *_ in own), rel=1e-12)
        assert row["value"] == pytest.approx(sum(w * e for w, e, *_ in own) / total, abs=1e-12)
        if row["contexts"] > 1 and len({e for _, e, *_ in own}) > 1:
            low, high, p = interval(own)
            assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-9)
            assert math.isnan(row["p"]) if row["contexts"] < 5 else row["p"] == pytest.approx(p, abs=1e-9)
    assert (found[found["measure"] == "constant"]["value"] == 0.5).all()
    for row in found[found["axis"] == "mean"].to_dict("records"):
        own = [pairs for key, pairs in expected.items() if key[3] == row["measure"]]
        values = [sum(w * e for w, e, *_ in pairs) / sum(w for w, *_ in pairs) for pairs in own]
        assert row["value"] == pytest.approx(np.mean(values), abs=1e-12)
        terms = [
            (w * (e - value) / sum(w for w, *_ in pairs) / len(own), ends)
            for value, pairs in zip(values, own, strict=True)
            for w, e, _, ends in pairs
        ]
        variance = sum(a * b for a, one in terms for b, other in terms if one & other)
        if not math.isnan(row["low"]):
            fewest = min(len({context for _, _, context, _ in pairs}) for pairs in own)
            half = student.ppf(0.975, fewest - 1) * math.sqrt(variance)
            assert row["low"] == pytest.approx(max(0, row["value"] - half), abs=1e-9)
            assert row["high"] == pytest.approx(min(1, row["value"] + half), abs=1e-9)


def test_environments_with_few_effective_pairs_are_left_out():
    frame = table(0)
    every = sign_errors(frame, **SETTINGS, test_size=1000, effective_pairs=0)
    every = every[every["axis"] != "mean"]
    least = every["effective_pairs"].median()
    some = sign_errors(frame, **SETTINGS, test_size=1000, effective_pairs=least)
    some = some[some["axis"] != "mean"]
    assert 0 < len(some) < len(every)
    pd.testing.assert_frame_equal(every[every["effective_pairs"] >= least].reset_index(drop=True), some)


def test_the_weight_vanishes_for_gaps_that_the_test_set_does_not_tell_apart():
    frame = pd.DataFrame({"x": [0, 1], "gap": [0.0, 0.061], "m": [1.0, 0.0]})
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["x"], "effective_pairs": 0}
    assert not len(sign_errors(frame, **settings, test_size=1000))
    assert sign_errors(frame, **settings, test_size=10_000)["value"][0] == 1
    assert sign_errors(frame.assign(gap=[0.0, 0.063]), **settings, test_size=1000)["value"][0] == 1


def test_of_contexts_that_agree_the_interval_is_the_exact_one():
    contexts = [(0, 0.0, 0.0), (1, 0.3, 1.0)]
    frame = pd.DataFrame([{"x": x, "y": y, "gap": gap, "m": m} for x, gap, m in contexts for y in range(8)])
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["x", "y"], "test_size": 1000, "effective_pairs": 0}
    right = sign_errors(frame, **settings).iloc[0]
    wrong = sign_errors(frame, **settings, directions={"m": -1}).iloc[0]
    bound = binomtest(8, 8).proportion_ci(0.95).low
    assert (wrong["value"], wrong["low"], wrong["high"]) == pytest.approx((1, bound, 1))
    assert wrong["p"] == pytest.approx(0.5**8)
    assert (right["value"], right["low"], right["high"], right["p"]) == pytest.approx((0, 0, 1 - bound, 1))


@pytest.mark.parametrize(("levels", "seeds"), [((2, 9), 1), ((2, 3, 3), 3), ((2, 12), 2)])
def test_a_measure_that_orders_contexts_at_random_is_not_called_wrong(levels, seeds):
    """At one-sided 5 % at most 41 of 500 (the binomial bound of 1 in 1,000)."""
    names = [f"axis{index}" for index in range(len(levels))]
    grid = pd.MultiIndex.from_product([range(n) for n in levels], names=names).to_frame(index=False)
    rejected = 0
    for seed in range(500):
        draw = np.random.default_rng(seed)
        gap, m = draw.normal(0.4, 0.1, len(grid)), draw.normal(size=len(grid))
        runs = pd.concat([grid.assign(gap=gap, m=m)] * seeds, ignore_index=True)
        runs["gap"] = (runs["gap"] + draw.normal(0, 0.03, len(runs))).clip(0, 1)
        runs["m"] += 0.3 * draw.normal(size=len(runs))
        found = sign_errors(
            runs, gap="gap", measures=["m"], hyperparameters=names, test_size=10_000, effective_pairs=0
        ).iloc[0]
        rejected += found["p"] < 0.05
    assert rejected <= 41


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap": "gapp"}, "column is 'gapp'; did you mean 'gap'?"),
        ({"measures": ["nrm"]}, "column is 'nrm'; did you mean 'norm'?"),
        ({"directions": {"norm": 0}}, "direction of norm is 0; accepted: 1, -1"),
        ({"test_size": 0}, "test_size is 0"),
        ({"effective_pairs": -1}, "effective_pairs is -1"),
        ({"gap": "big"}, r"big is .*2\.0.*; accepted: numbers in \[-1, 1\]"),
        ({"gap": "flat"}, r"flat is .*nan.*; accepted: numbers in \[-1, 1\]"),
    ],
)
def test_what_is_refused(change, message):
    frame = table(1).assign(big=2.0)
    settings = {**SETTINGS, "test_size": 1000}
    frame.loc[frame.index[0], "flat"] = math.nan
    with pytest.raises(ValueError, match=message):
        sign_errors(frame, **{**settings, **change})


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("seed", range(20))
def test_pairs_of_configurations_against_a_double_loop(seed, seeds):
    frame, directions = table(seed), {"norm": -1}
    sizes = frame.groupby([*AXES]).size().to_dict()
    errors, contexts, ends = {}, {}, {}
    for (axis, *_, name), pairs in plain(frame, 1000, directions).items():
        for both in {own for *_, own in pairs}:
            if min(sizes[one] for one in both) < seeds:
                continue
            inside = [(w, e) for w, e, _, own in pairs if own == both]
            value = sum(w * e for w, e in inside) / sum(w for w, _ in inside)
            errors.setdefault((axis, name), []).append(value)
            ends.setdefault((axis, name), []).append(both)
            contexts.setdefault((axis, name), set()).update(context for *_, context, own in pairs if own == both)
    found = pair_sign_errors(
        frame, **SETTINGS, test_size=1000, directions=directions, seeds=seeds, effective_pairs=0
    ).set_index(["axis", "measure"])
    assert {key for key in found.index if key[0] != "mean"} == set(errors)
    for name in MEASURES:
        own = {axis: of for (axis, measure), of in errors.items() if measure == name}
        for axis, values in [*own.items(), ("mean", [value for of in own.values() for value in of])]:
            row = found.loc[(axis, name)]
            assert row["value"] == pytest.approx(np.mean(values), abs=1e-12)
            assert row["sign_error_90"] == pytest.approx(np.quantile(values, 0.9), abs=1e-12)
            assert (row["above"], row["environments"]) == (np.mean(np.array(values) > 0.5), len(values))
    axis, name = next(iter(errors))
    values, pairs = np.array(errors[axis, name]), ends[axis, name]
    terms = (values - values.mean()) / len(values)
    shared = np.array([[bool(one & other) for other in pairs] for one in pairs])
    variance, degrees = terms @ shared @ terms, len(contexts[axis, name]) - 1
    row = found.loc[(axis, name)]
    if degrees and variance > 0:
        high = values.mean() + student.ppf(0.975, degrees) * math.sqrt(variance)
        assert row["high"] == pytest.approx(min(1, high), abs=1e-12)


def test_two_configurations_of_four_seeds_worked_by_hand():
    """Of the 16 pairs of two widths m orders 12 rightly, as one of four wide nets lies below all narrow ones."""
    runs = [
        {"width": width, "gap": 0.1 * (width == 2), "m": 10.0 * width + seed} for width in (1, 2) for seed in range(4)
    ]
    runs[-1]["m"] = 0.0
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["width"], "test_size": 10_000}
    row = pair_sign_errors(pd.DataFrame(runs), **settings).iloc[0]
    assert (row["value"], row["sign_error_90"], row["above"], row["environments"]) == (0.25, 0.25, 0, 1)
    assert math.isnan(row["low"])
    assert not len(pair_sign_errors(pd.DataFrame(runs[1:]), **settings))  # three of one width
    with pytest.raises(ValueError, match=r"^seeds is 0; accepted: an integer of at least 1$"):
        pair_sign_errors(pd.DataFrame(runs), **settings, seeds=0)
