import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from genbench.analysis import correlations, granulated, pair_sign_errors, rank, sign_errors, simultaneous
from genbench.analysis.controls import HYPERPARAMETERS, ORACLE, RANDOM, SEEDS, controls, reliability
from genbench.analysis.correlations import correlated
from genbench.analysis.pairs import configurations
from genbench.analysis.prediction import predicted

AXES = {"lr": [0.1, 0.01, 0.001], "width": [16, 64, 256], "data": ["clean", "noisy"]}


def runs(seeds=3, seed=0):
    """A grid whose gap the width and the data make, with a measure that knows the gap, one that knows the width, one
    that falls with the gap, and one that knows nothing."""
    draw = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product(AXES.values(), names=AXES).to_frame(index=False)
    frame = pd.concat([grid] * seeds, ignore_index=True)
    noise = draw.normal(0, 0.05, len(frame))
    frame["gap"] = 0.2 + 0.05 * np.log2(frame["width"] / 16) + 0.2 * (frame["data"] == "noisy") + noise
    frame["knows"] = np.exp(10 * (frame["gap"] + draw.normal(0, 0.01, len(frame))))
    frame["width_alone"] = frame["width"] * 1e6
    frame["margin"] = 1 - frame["gap"] + draw.normal(0, 0.1, len(frame))
    frame["nothing"] = draw.normal(size=len(frame))
    return frame


SETTINGS = {"gap": "gap", "hyperparameters": [*AXES]}
MEASURES = ["knows", "width_alone", "margin", "nothing"]


@pytest.fixture(scope="module")
def ranking():
    return rank(runs(), measures=MEASURES, directions={"margin": -1}, test_size=10_000, permutations=19, **SETTINGS)


def test_measures_stand_among_controls_in_the_order_of_their_worth(ranking):
    table = ranking.table.set_index("measure")
    assert table.index[table["control"]].sort_values().tolist() == sorted([HYPERPARAMETERS, ORACLE, RANDOM, SEEDS])
    assert table["rank"].is_monotonic_increasing
    assert table.index[:2].tolist() == ["knows", ORACLE]
    assert table.loc["knows", "difference_low"] > 0
    assert table.loc["nothing", "rank_high"] == len(table)
    assert table.loc["nothing", "difference_high"] < 0
    assert math.isnan(table.loc[HYPERPARAMETERS, "difference_low"])
    # beyond the hyperparameters only one measure says something
    assert table.loc["knows", "within_p"] < 0.01
    assert table.loc["nothing", "within_p"] > 0.01
    assert table.loc["width_alone", "within"] == 0
    assert table.loc[[SEEDS, HYPERPARAMETERS], ["within", "information", "increment"]].isna().all(axis=None)
    assert table.loc["knows", "increment_low"] > 0
    assert table.loc["width_alone", "increment"] == pytest.approx(0, abs=0.05)
    assert table.loc["knows", "wrong"] == 0
    assert table.loc["width_alone", "reliability"] == 1


def test_its_numbers_are_those_of_the_functions(ranking):
    table, more = ranking.table.set_index("measure"), {"measures": MEASURES, "directions": {"margin": -1}}
    for _, row in correlations(runs(), **more, **SETTINGS).iterrows():
        own = table.loc[row["measure"]]
        expected = row[["value", "low", "high"]].to_numpy(dtype=float)
        kind = row["score"]
        assert own[[kind, f"{kind}_low", f"{kind}_high"]].to_numpy(dtype=float) == pytest.approx(expected, nan_ok=True)
    psi = granulated(runs(), **more, **SETTINGS)
    for _, row in psi[psi["axis"] == "mean"].iterrows():
        assert table.loc[row["measure"], "psi"] == row["value"]
    errors = sign_errors(runs(), test_size=10_000, **more, **SETTINGS)
    for name in MEASURES:
        own = errors[(errors["measure"] == name) & (errors["axis"] != "mean")]
        assert table.loc[name, "environments"] == len(own)
        assert table.loc[name, "sign_error"] == pytest.approx(own["value"].mean())
        assert table.loc[name, "sign_error_90"] == pytest.approx(np.quantile(own["value"], 0.9))


def test_pairs_of_configurations_are_environments_where_they_have_four_seeds(ranking):
    assert not ranking.table["pair_environments"].any()  # three seeds
    frame, more = runs(seeds=4), {"measures": MEASURES, "directions": {"margin": -1}, "test_size": 10_000, **SETTINGS}
    table = rank(frame, permutations=9, **more).table.set_index("measure")
    expected = pair_sign_errors(frame, **more)
    for _, row in expected[expected["axis"] == "mean"].iterrows():
        own = table.loc[row["measure"]]
        assert own["pair_environments"] == row["environments"] > 0
        assert own["pair_sign_error_90"] == row["sign_error_90"]
        ends = own[["pair_sign_error", "pair_sign_error_low", "pair_sign_error_high"]].to_numpy(dtype=float)
        assert ends == pytest.approx(row[["value", "low", "high"]].to_numpy(dtype=float), nan_ok=True)


def test_columns_whose_worth_is_known_stand_beside_the_measures():
    frame = runs().assign(steps=lambda f: f["gap"] ** 2)
    found = rank(frame, measures=["nothing", "steps"], beside=["steps"], permutations=9, **SETTINGS)
    table = found.table.set_index("measure")
    assert table["control"].to_dict() == {name: name != "nothing" for name in table.index}
    assert table.loc["steps", "tau"] == pytest.approx(1)
    assert not table.index.has_duplicates


def test_the_order_of_values_is_all_that_counts(ranking):
    frame = runs()
    frame["knows"] = np.where(frame["knows"] > frame["knows"].quantile(0.9), frame["knows"], np.log(frame["knows"]))
    frame.loc[frame["knows"].idxmax(), "knows"] = math.inf
    again = rank(frame, measures=MEASURES, directions={"margin": -1}, test_size=10_000, permutations=19, **SETTINGS)
    pd.testing.assert_frame_equal(again.table.drop(columns="infinite"), ranking.table.drop(columns="infinite"))
    assert again.table.set_index("measure").loc["knows", "infinite"] == 1


def test_what_is_left_out_or_confounded_is_said():
    frame = runs().assign(one=1, twice=lambda f: f["width"] * 2)
    frame.loc[0, "gap"] = math.nan
    frame.loc[[1, 2], "margin"] = math.nan
    found = rank(
        pd.concat([frame, frame.iloc[[5]]]),
        gap="gap",
        measures=["knows", "margin"],
        hyperparameters=[*AXES, "one", "twice"],
        permutations=9,
    )
    assert found.notes == [
        "1 of 55 runs have no finite gap and are left out.",
        "1 rows repeat another one in every column; they count as runs.",
        "Never varies, and is left out: one.",
        "width and twice vary together: nothing tells them apart; width stands for all.",
        "margin has no value in 2 of 54 runs: their pairs are left out of it.",
        "Sign errors need the number of test examples of the gap, and are left out.",
    ]
    assert found.hyperparameters == [*AXES]
    assert not len(found.sign_errors)


@pytest.mark.parametrize(("levels", "seeds"), [((3, 3), 3), ((3, 3, 3), 1), ((4, 4), 2)])
def test_a_random_measure_is_not_shown_to_beat_hyperparameters_that_tell_nothing(levels, seeds):
    """Its interval lies above 0 in 2.5 %: at most 13 of 200 (the binomial bound of 1 in 1,000). Left-out predictions as
    they are run against the truth, and a random measure beat them in 25 to 42."""
    axes = [f"axis{index}" for index in range(len(levels))]
    grid = pd.MultiIndex.from_product([range(n) for n in levels], names=axes).to_frame(index=False)
    settings = {"gap": "gap", "hyperparameters": axes}
    above = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        frame = pd.concat([grid] * seeds, ignore_index=True)
        configuration = draw.normal(size=(2, len(grid)))
        frame["gap"], frame["m"] = np.tile(configuration, seeds) + 0.5 * draw.normal(size=(2, len(frame)))
        frame["alone"] = predicted(frame, **settings)
        found = correlated(frame, "gap", ["m", "alone"], axes, None)
        scores = [found["m"]["tau"], found["alone"]["tau"]]
        if math.isnan(scores[1].value):
            scores[1] = replace(scores[1], value=0.0)
        low, _ = simultaneous.differences(scores, 1)
        above += low[0] > 0
    assert above <= 13


def test_hyperparameters_that_tell_nothing_are_one_number_and_said():
    draw = np.random.default_rng(1)
    frame = runs().assign(gap=draw.normal(size=54))
    found = rank(frame, measures=["nothing"], permutations=9, **SETTINGS)
    alone = found.table.set_index("measure").loc[HYPERPARAMETERS]
    assert alone["tau"] == 0
    assert alone["psi"] == 0
    assert "hyperparameters alone are one number, with τ = 0." in " ".join(found.notes)
    row = found.table.set_index("measure").loc["nothing"]
    assert row["difference"] == row["tau"]


def test_what_is_constant_infinite_or_turned_is_said():
    frame = runs().assign(constant=1.0)
    frame["self"] = frame["nothing"]
    frame.loc[[0, 1], "nothing"] = math.inf
    found = rank(frame, measures=["nothing", "constant", "margin", "self"], directions={"margin": -1}, **SETTINGS)
    assert found.falls == ["margin"]
    assert "nothing is infinite in 2 runs: the largest or smallest of all." in found.notes
    assert "To fall with the gap, and turned: margin." in found.notes
    row = found.table.set_index("measure").loc["constant"]
    assert row[["rank", "tau", "psi", "within", "increment", "information"]].isna().all()


def test_a_hyperparameter_that_the_others_determine_is_named():
    frame = runs().assign(both=lambda f: f["lr"].astype(str) + f["data"])
    found = rank(frame, gap="gap", measures=["knows"], hyperparameters=[*AXES, "both"], permutations=9)
    assert "No two runs differ in it alone, so that no ψ is of it: lr, data, both." in found.notes


def test_seeds_that_mean_the_same_everywhere_are_the_unit_within_configurations():
    frame = runs(seeds=4).assign(seed=np.repeat(range(4), 18))
    settings = {"measures": ["knows"], "permutations": 9, **SETTINGS}
    shared = rank(frame, seeds="seed", **settings).table.set_index("measure").loc["knows"]
    alone = rank(frame, **settings).table.set_index("measure").loc["knows"]
    assert shared["within"] == alone["within"]
    assert alone["within_p"] < 0.001
    assert shared["within_p"] >= 1 / 24  # four seeds have 24 orders
    twice = rank(pd.concat([frame, frame.iloc[[0]]]), seeds="seed", **settings)
    assert "Runs of one configuration share their seed: τ within takes all runs for independent." in twice.notes


def test_seeds_that_nothing_compares_leave_runs_the_unit():
    """A seed of its own for each run, as in a random search: nothing is shared, and nothing is lost by naming it."""
    settings = {"measures": ["knows", "nothing"], "permutations": 9, **SETTINGS}
    frame = runs(seeds=4)
    every = frame.assign(seed=range(len(frame)))
    alone, named = rank(frame, **settings), rank(every, seeds="seed", **settings)
    pd.testing.assert_frame_equal(alone.table, named.table)
    assert named.seeds is None
    assert named.table.set_index("measure").loc["knows", ["within_p", "increment_p"]].max() < 0.05
    said = "runs have a seed that no two configurations compare with another: "
    assert f"72 of 72 {said}all runs are taken for independent." in named.notes
    four = np.repeat(range(4), 18)
    found = rank(frame.assign(seed=np.where(np.arange(72) == 5, 9, four)), seeds="seed", **settings)
    assert f"1 of 72 {said}what it does stays in ΔR²." in found.notes
    assert found.seeds == "seed"
    assert not any("compare" in note for note in rank(frame.assign(seed=four), seeds="seed", **settings).notes)
    assert not any("compare" in note for note in rank(frame[:18].assign(seed=7), seeds="seed", **settings).notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap": "gp"}, r"column is 'gp'; did you mean 'gap'\?"),
        ({"measures": []}, r"measures is \[\]; accepted: columns"),
        ({"measures": ["word"]}, "column word holds 'x'; accepted: numbers"),
        (
            {"measures": ["data"]},
            "'data' has two roles; accepted: a gap, measures, hyperparameters and seeds that differ",
        ),
        ({"measures": ["gap"]}, "'gap' has two roles"),
        ({"seeds": "lr"}, "'lr' has two roles"),
        ({"directions": {"know": -1}}, r"a direction names 'know', no measure; did you mean 'knows'\?"),
        ({"gap": "one"}, "one is 1 in every run; accepted: one that varies"),
        ({"gap": "empty"}, "no run has a finite empty; accepted: at least 3 configurations with one"),
        ({"measures": ["empty"]}, "no run has a value of empty; accepted: measures that some have"),
        ({"hyperparameters": ["one"]}, "of one none varies; accepted: hyperparameters that do"),
        ({"hyperparameters": ["data"]}, "2 configurations of data have a gap; accepted: at least 3"),
        ({"score": "rho"}, "score is 'rho'; accepted: tau, psi"),
        ({"baseline": "none"}, "baseline is 'none'; accepted: knows, nothing, hyperparameters alone"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        rank(runs().assign(one=1, word="x", empty=math.nan), **{"measures": ["knows", "nothing"], **SETTINGS, **change})


def test_controls_are_worth_what_they_say():
    frame = runs(seeds=4)
    found = controls(frame, **SETTINGS)
    own = configurations(frame, [*AXES])
    for place in (0, 7, 40):
        others = (own == own[place]) & (np.arange(len(own)) != place)
        assert found[SEEDS][place] == pytest.approx(frame["gap"][others].mean())
    noise = found[ORACLE] - frame["gap"]
    assert noise.std() == pytest.approx(0.05, rel=0.3)
    assert np.corrcoef(found[HYPERPARAMETERS], frame["gap"])[0, 1] > 0.85
    assert abs(np.corrcoef(found[RANDOM], frame["gap"])[0, 1]) < 0.4
    assert SEEDS not in controls(frame.iloc[:18], **SETTINGS)


def test_seeds_that_move_all_gaps_together_do_not_turn_the_gap_of_the_others():
    """Configurations without any effect: what the others tell of a run is nothing, and not the opposite."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame([{"lr": lr, "seed": seed} for lr in range(40) for seed in range(4)])
    frame["gap"] = 0.3 + 0.05 * draw.normal(size=4)[frame["seed"]] + draw.normal(0, 0.01, len(frame))
    apart = frame["lr"].to_numpy()[:, None] < frame["lr"].to_numpy()
    signs = np.sign(np.subtract.outer(*[frame["gap"].to_numpy()] * 2))

    def tau(**settings):
        others = controls(frame, gap="gap", hyperparameters=["lr"], **settings)[SEEDS]
        return float((signs * np.sign(np.subtract.outer(others, others)))[apart].mean())

    assert tau() < -0.2
    assert abs(tau(seeds="seed")) < 0.05


def test_reliability_is_the_intraclass_correlation_of_ranks():
    draw = np.random.default_rng(0)
    own = np.repeat(np.arange(200), 3)
    values = np.repeat(draw.normal(size=200), 3) + draw.normal(size=600)
    # of normal values with correlation ½ the ranks correlate by 6/π · asin(¼)
    assert reliability(np.exp(values), own) == pytest.approx(6 / math.pi * math.asin(0.25), abs=0.08)
    assert math.isnan(reliability(values[:200], np.arange(200)))
    assert math.isnan(reliability(np.ones(600), own))


def test_seeds_that_move_all_gaps_together_are_said():
    frame = runs(seeds=4)
    frame["seed"] = frame.groupby([*AXES]).cumcount()
    more = {"measures": ["knows"], "seeds": "seed", "permutations": 9}
    assert not any("which configurations share" in note for note in rank(frame, **more, **SETTINGS).notes)
    frame["gap"] += frame["seed"].map({0: 0.0, 1: 0.5, 2: 0.2, 3: -0.4})
    (note,) = (note for note in rank(frame, **more, **SETTINGS).notes if "which configurations share" in note)
    assert re.match(r"[5-9]\d % of the variance of gap is that of seed, ", note)


def test_hyperparameters_that_predict_the_wrong_way_are_one_number():
    """Of two values of two hyperparameters the three other configurations predict the fourth's gap the wrong way, and
    less wrongly than their mean does."""
    for seed in range(30):
        draw = np.random.default_rng(seed)
        grid = pd.MultiIndex.from_product([[1, 2], [1, 2], range(2)], names=["x", "y", "seed"]).to_frame(index=False)
        grid["gap"] = 0.2 * grid["x"] + 0.1 * grid["y"] + draw.normal(0, 0.02, len(grid))
        found = predicted(grid, gap="gap", hyperparameters=["x", "y"])
        assert np.corrcoef(found, grid["gap"])[0, 1] > 0 if np.ptp(found) else True
        grid["m"] = draw.normal(size=len(grid))
        table = rank(grid, gap="gap", measures=["m"], hyperparameters=["x", "y"], permutations=9).table
        assert table.set_index("measure").loc[HYPERPARAMETERS, "tau"] >= 0


def test_a_measure_of_few_configurations_that_widens_all_intervals_is_said():
    frame = runs()
    assert not any(
        "as wide as that" in note for note in rank(frame, measures=MEASURES, permutations=9, **SETTINGS).notes
    )
    frame.loc[frame["width"] > 16, "nothing"] = math.nan
    (note,) = (n for n in rank(frame, measures=MEASURES, permutations=9, **SETTINGS).notes if "as wide as that" in n)
    assert note.startswith("nothing has values in 6 of 18 configurations, ")
