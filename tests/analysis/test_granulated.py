import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau
from scipy.stats import t as student

from genbench.analysis import granulated
from tests.helpers.grids import AXES, MEASURES, table

SETTINGS = {"gap": "gap", "hyperparameters": [*AXES]}


def plain(frame, name):
    """ψ by a double loop, with its variance by a loop over the pairs of pairs; and Ψ."""
    rows = frame.to_dict("records")
    found, every = {}, []
    for axis in AXES:
        contexts = {}
        for one, other in combinations(rows, 2):
            if [each for each in AXES if one[each] != other[each]] == [axis]:
                moved, along = one[name] - other[name], one["gap"] - other["gap"]
                if not math.isnan(moved):
                    key = tuple(one[each] for each in AXES if each != axis)
                    ends = frozenset(tuple(run[each] for each in AXES) for run in (one, other))
                    contexts.setdefault(key, []).append((float(np.sign(moved) * np.sign(along)), moved, along, ends))
        value = float(np.mean([np.mean([sign for sign, *_ in pairs]) for pairs in contexts.values()]))
        terms = [
            ((sign - value) / len(pairs) / len(contexts), ends)
            for pairs in contexts.values()
            for sign, _, _, ends in pairs
        ]
        varied = [any(m for _, m, *_ in pairs) and any(a for _, _, a, _ in pairs) for pairs in contexts.values()]
        found[axis] = value, terms, len(contexts), len(varied) - sum(varied)
        every += [(term / len(AXES), ends) for term, ends in terms]
    value = float(np.mean([each[0] for each in found.values()]))
    return {**found, "mean": (value, every, *(sum(each[i] for each in found.values()) for i in (2, 3)))}


@pytest.mark.parametrize("seed", range(20))
def test_against_double_loops(seed):
    frame = table(seed)
    found = granulated(frame, measures=MEASURES, **SETTINGS)
    for name in MEASURES:
        expected = plain(frame, name)
        fewest = min(expected[axis][2] for axis in AXES)
        for axis, (value, terms, contexts, ties) in expected.items():
            (row,) = found[(found["axis"] == axis) & (found["measure"] == name)].to_dict("records")
            assert row["value"] == pytest.approx(value, abs=1e-12)
            assert (row["contexts"], row["constant"]) == (contexts, ties)
            variance = sum(a * b for a, one in terms for b, other in terms if one & other)
            degrees = (fewest if axis == "mean" else contexts) - 1
            if variance > 1e-15:
                half = student.ppf(0.975, degrees) * math.sqrt(variance)
                assert row["low"] == pytest.approx(max(-1, value - half), abs=1e-12)
                assert row["high"] == pytest.approx(min(1, value + half), abs=1e-12)
            else:
                assert math.isnan(row["low"])
    constant = found[found["measure"] == "constant"]
    assert (constant["value"] == 0).all()
    assert (constant["constant"] == constant["contexts"]).all()


def test_of_one_run_a_configuration_it_is_the_mean_of_kendall_s_tau():
    draw = np.random.default_rng(0)
    grid = pd.MultiIndex.from_product([range(4), range(3)], names=["x", "y"]).to_frame(index=False)
    frame = grid.assign(gap=draw.normal(size=12), m=draw.normal(size=12))
    found = granulated(frame, gap="gap", measures=["m"], hyperparameters=["x", "y"]).set_index("axis")["value"]
    along = [np.mean([kendalltau(part["m"], part["gap"])[0] for _, part in frame.groupby(by)]) for by in ("y", "x")]
    assert found.tolist() == pytest.approx([*along, np.mean(along)], abs=1e-12)
    falling = granulated(frame, gap="gap", measures=["m"], hyperparameters=["x", "y"], directions={"m": -1})
    assert falling["value"].tolist() == pytest.approx([-each for each in (*along, np.mean(along))], abs=1e-12)


@pytest.mark.parametrize("seeds", [1, 3])
def test_of_unrelated_numbers_the_interval_holds_zero(seeds):
    """At 5 % at most 41 of 500 (the binomial bound of 1 in 1,000); contexts resampled apart reject 100 to 130."""
    grid = pd.MultiIndex.from_product([range(3)] * 3, names=["x", "y", "z"]).to_frame(index=False)
    rejected = 0
    for seed in range(500):
        draw = np.random.default_rng(seed)
        configuration = {name: draw.normal(size=len(grid)) for name in ("gap", "m")}
        runs = pd.concat([grid] * seeds, ignore_index=True)
        for name, of_configuration in configuration.items():
            runs[name] = np.tile(of_configuration, seeds) + 0.3 * draw.normal(size=len(runs))
        found = granulated(runs, gap="gap", measures=["m"], hyperparameters=["x", "y", "z"]).iloc[-1]
        rejected += not found["low"] <= 0 <= found["high"]
    assert rejected <= 41


def test_a_hyperparameter_that_never_differs_alone_has_no_part():
    frame = pd.DataFrame({"x": [0, 1, 2, 0], "one": 1, "gap": [0.1, 0.2, 0.3, 0.2], "m": [1.0, 2.0, 3.0, math.nan]})
    found = granulated(frame, gap="gap", measures=["m"], hyperparameters=["x", "one"])
    assert found["axis"].tolist() == ["x", "mean"]
    assert found["value"].tolist() == [1.0, 1.0]
    assert found["low"].isna().all()  # one context


def test_what_is_refused():
    frame = table(0)
    with pytest.raises(ValueError, match=r"hyperparameters is \[\]; accepted"):
        granulated(frame, gap="gap", measures=["norm"], hyperparameters=[])
    with pytest.raises(ValueError, match=r"column is 'nrm'; did you mean 'norm'\?"):
        granulated(frame, measures=["nrm"], **SETTINGS)
    with pytest.raises(ValueError, match=r"gap is .*inf.*; accepted: finite numbers"):
        granulated(frame.assign(gap=math.inf), measures=["norm"], **SETTINGS)
