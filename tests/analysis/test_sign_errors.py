import math
from itertools import combinations

import pandas as pd
import pytest

from genbench.analysis import sign_errors
from tests.helpers.grids import AXES, MEASURES, table


def plain(frame, n, directions=None):
    """By a double loop over the runs."""
    found = {}
    rows = frame.to_dict("records")
    for one, other in combinations(rows, 2):
        apart = [axis for axis in AXES if one[axis] != other[axis]]
        if len(apart) != 1:
            continue
        (axis,) = apart
        low, high = sorted((one, other), key=lambda row: row[axis])
        entry = found.setdefault((axis, low[axis], high[axis]), {"pairs": 0, "contexts": set(), "w": []})
        entry["pairs"] += 1
        entry["contexts"].add(tuple(one[each] for each in AXES if each != axis))
        difference = low["gap"] - high["gap"]
        weight = max(0.0, max(0.0, 1 - 2 * math.exp(-2 * n * (difference / 2) ** 2)) ** 2 - 0.5)
        entry["w"].append(weight)
        for name in MEASURES:
            sign = (directions or {}).get(name, 1)
            moved = sign * (low[name] - high[name])
            if not math.isnan(moved):
                error = 0.5 if moved == 0 or difference == 0 else float((moved > 0) != (difference > 0))
                entry.setdefault(name, []).append((weight, error))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_against_a_double_loop_over_the_runs(seed):
    frame, directions = table(seed), {"norm": -1}
    found = sign_errors(
        frame,
        gap="gap",
        measures=MEASURES,
        hyperparameters=[*AXES],
        test_size=1000,
        directions=directions,
        effective_pairs=0,
    )
    expected = plain(frame, 1000, directions)
    assert {(row.axis, row.a, row.b) for row in found.itertuples()} == set(expected)
    for row in found.to_dict("records"):
        own = expected[row["axis"], row["a"], row["b"]]
        assert row["pairs"] == own["pairs"]
        assert row["contexts"] == len(own["contexts"])
        effective = sum(own["w"]) ** 2 / sum(w**2 for w in own["w"])
        assert row["effective_pairs"] == pytest.approx(effective, rel=1e-12)
        for name in MEASURES:
            total = sum(w for w, _ in own[name])
            value = sum(w * e for w, e in own[name]) / total if total else math.nan
            assert row[name] == pytest.approx(value, abs=1e-12, nan_ok=True)
    assert (found["constant"] == 0.5).all()


def test_environments_with_few_effective_pairs_are_left_out():
    frame = table(0)
    settings = {"gap": "gap", "measures": MEASURES, "hyperparameters": [*AXES], "test_size": 1000}
    every = sign_errors(frame, **settings, effective_pairs=0)
    least = every["effective_pairs"].median()
    some = sign_errors(frame, **settings, effective_pairs=least)
    assert 0 < len(some) < len(every)
    pd.testing.assert_frame_equal(every[every["effective_pairs"] >= least].reset_index(drop=True), some)


def test_the_weight_vanishes_for_gaps_that_the_test_set_does_not_tell_apart():
    frame = pd.DataFrame({"x": [0, 1], "gap": [0.0, 0.061], "m": [1.0, 0.0]})
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": ["x"], "effective_pairs": 0}
    assert math.isnan(sign_errors(frame, **settings, test_size=1000)["m"][0])
    assert sign_errors(frame, **settings, test_size=10_000)["m"][0] == 1
    assert sign_errors(frame.assign(gap=[0.0, 0.063]), **settings, test_size=1000)["m"][0] == 1


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
    settings = {"gap": "gap", "measures": MEASURES, "hyperparameters": [*AXES], "test_size": 1000}
    frame.loc[frame.index[0], "flat"] = math.nan
    with pytest.raises(ValueError, match=message):
        sign_errors(frame, **{**settings, **change})
