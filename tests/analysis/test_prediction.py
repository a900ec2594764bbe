import math

import numpy as np
import pandas as pd
import pytest

from genbench.analysis import out_of_sample
from genbench.analysis.surface import Surface, Terms, highest_degree, powers
from tests.helpers.grids import AXES, MEASURES, table


def grid(levels, seeds):
    names = [*"xyz"[: len(levels)]]
    one = pd.MultiIndex.from_product([range(1, 1 + n) for n in levels], names=names).to_frame(index=False)
    return pd.concat([one] * seeds, ignore_index=True), names


def solved(columns, y, rows, penalty):
    """Ridge as a least squares problem with rows for the penalty, the intercept free."""
    shrink = math.sqrt(penalty) * np.eye(columns.shape[1])[1:]
    target = np.concatenate([y[rows], np.zeros(len(shrink))])
    return np.linalg.lstsq(np.vstack([columns[rows], shrink]), target, rcond=None)[0]


def test_the_learner_is_ridge_tuned_by_folds_of_groups():
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 3)
    columns = np.column_stack([np.ones(60), draw.normal(size=(60, 7))])
    y = columns[:, 1] - columns[:, 2] + draw.normal(size=60)
    train = groups < 15
    whole = Surface(columns, y, train, groups, np.random.default_rng(1))
    parts = Surface(columns[:, :4], y, train, groups, np.random.default_rng(1))
    assert parts.predict(columns[:, 4:]) == pytest.approx(whole.predict(), abs=1e-10)

    inner = (np.random.default_rng(1).permutation(15) % 4)[groups[train]]
    rows = np.flatnonzero(train)
    target = y - y[train].mean()
    errors = {}
    for penalty in (45 * 10.0**power for power in range(-3, 2)):
        weights = [solved(columns, target, rows[inner != at], penalty) for at in range(4)]
        left = [rows[inner == at] for at in range(4)]
        errors[penalty] = sum(((target[of] - columns[of] @ w) ** 2).sum() for of, w in zip(left, weights, strict=True))
    expected = y[train].mean() + columns[~train] @ solved(columns, target, rows, min(errors, key=errors.get))
    expected = np.clip(expected, y[train].min(), y[train].max())
    assert whole.predict() == pytest.approx(expected, abs=1e-10)
    changed = Surface(columns, np.where(train, y, 1e6), train, groups, np.random.default_rng(1))
    assert (changed.predict() == whole.predict()).all()  # gaps that are to be predicted are not read


def test_the_products_of_the_learner():
    draw = np.random.default_rng(0)
    train = np.arange(40) < 30
    x, y = draw.normal(size=(2, 40))
    assert [len(powers(values, train, 3)) for values in (x, np.arange(40) % 3, np.sign(x), np.ones(40))] == [3, 2, 1, 0]
    terms = Terms.intercept(40)
    for values in (x, y, np.sign(x)):
        terms = terms.and_times(powers(values, train, 3), 3)
    assert sorted(terms.degrees) == [0, *[1] * 3, *[2] * 5, *[3] * 7]
    columns = terms.scaled(train)
    assert columns[train].mean(0)[1:] == pytest.approx(0, abs=1e-12)
    assert columns[train].std(0)[1:] == pytest.approx(0.5 ** (terms.degrees[1:] - 1.0))
    assert [highest_degree([1] * inputs) for inputs in (3, 7, 20)] == [4, 3, 2]  # 35, 120 and 231 products


def test_r2_is_about_the_mean_of_the_training_runs():
    """A constant says what the training mean does, so that R² = 0 of it alone and nothing is added."""
    frame = table(0)
    found = out_of_sample(frame, gap="gap", measures=MEASURES, hyperparameters=[*AXES])
    constant = found[(found["measure"] == "constant") & (found["note"] == "")]
    assert constant["split"].tolist() == ["folds", "lr"]
    assert constant["alone"].tolist() == pytest.approx([0, 0], abs=1e-12)
    assert (constant["increment"] == 0).all()
    assert constant["p"].iloc[0] == 1
    counts = found[found["split"] == "folds"].set_index("measure")
    assert counts["runs"].tolist() == [len(frame), frame["flat"].notna().sum(), len(frame)]
    notes = found.set_index(["split", "measure"])["note"]
    assert notes["depth", "norm"] == "two values: one does not tell how the other differs"
    assert notes["data", "norm"] == "text: the place of an unseen value is unknown"
    assert found[found["note"] != ""]["both"].isna().all()


def test_interactions_are_learned_and_lines_are_extrapolated():
    frame, names = grid([4, 4, 3], 2)
    draw = np.random.default_rng(0)
    product = frame["x"] * frame["y"] * 1.0
    frame["gap"] = product + 0.01 * draw.normal(size=len(frame))
    frame["noise"] = draw.normal(size=len(frame))
    found = out_of_sample(frame, gap="gap", measures=["noise"], hyperparameters=names).set_index("split")
    assert found.loc["folds", "hyperparameters"] > 0.99
    assert abs(found.loc["folds", "increment"]) < 0.01
    assert found.loc["x", "hyperparameters"] > 0.5
    assert found.loc["folds", "alone"] < 0.1


def test_a_measure_that_holds_the_seeds_own_part_of_the_gap_adds_it():
    frame, names = grid([4, 4, 3], 2)
    draw = np.random.default_rng(0)
    own = draw.normal(size=len(frame))
    frame["gap"] = frame["x"] / 2 + frame["y"] * (frame["z"] - 2.0) / 2 + own
    frame["m"] = np.exp(own)
    rows = {}
    for name, values in {"m": frame["m"], "other": frame["m"] ** 9}.items():  # ranks alone count
        found = out_of_sample(frame.assign(**{name: values}), gap="gap", measures=[name], hyperparameters=names)
        rows[name] = found.drop(columns="measure")
    pd.testing.assert_frame_equal(rows["m"], rows["other"])
    folds = rows["m"].set_index("split").loc["folds"]
    assert folds["increment"] > 0.1
    assert folds["p"] < 0.01
    assert folds["low"] > 0
    assert rows["m"]["p"].isna().tolist() == [False, True, True, True]


def test_what_tells_shared_seeds_apart_adds_nothing():
    """Seeds move all gaps together: a measure that is the seed predicts them, unless the seeds are named."""
    frame, names = grid([4, 4, 3], 3)
    draw = np.random.default_rng(0)
    frame["seed"] = frame.groupby(names).cumcount()
    own = draw.normal(size=len(frame))
    frame["gap"] = frame["x"] / 2 + np.array([-2.0, 0.0, 2.0])[frame["seed"]] + own
    frame["told"] = frame["seed"] + 0.01 * draw.normal(size=len(frame))
    frame["m"] = own + np.array([3.0, 0.0, 1.0])[frame["seed"]]
    settings = {"gap": "gap", "measures": ["told", "m"], "hyperparameters": names}
    blind, told = (
        out_of_sample(frame, **settings, seeds=seeds).set_index(["split", "measure"]) for seeds in (None, "seed")
    )
    assert blind.loc[("folds", "told"), "increment"] > 0.4
    assert abs(told.loc[("folds", "told"), "increment"]) < 0.03
    assert told.loc[("folds", "told"), "p"] > 0.05
    assert told.loc[("folds", "m"), "increment"] > 0.4
    # an effect of each seed on gap and measure changes nothing
    moved = frame.assign(gap=frame["gap"] + 5.0 * frame["seed"])
    again = out_of_sample(moved, **settings, seeds="seed").set_index(["split", "measure"])
    assert again.loc[("folds", "m"), "increment"] == pytest.approx(told.loc[("folds", "m"), "increment"], abs=1e-9)


def some(draw, design):
    """Which of the runs are there, and what their seeds are."""
    frame, names = grid([4, 4, 3], 3)
    seeds, x = frame.groupby(names).cumcount().to_numpy(), frame["x"].to_numpy()
    kept = {
        "shared": x > 0,
        "each with other configurations": (seeds == 0) | ((seeds == 1) == (x < 3)),
        "missing": draw.random(len(x)) < 0.6,
        "one in a single configuration": (seeds < 2) | (np.arange(len(x)) == 100),
        "halves": x > 0,
        "a run each": x > 0,
        "no name": x > 0,
    }[design]
    codes = {"halves": seeds + 3 * (x > 2), "a run each": np.arange(len(x))}.get(design, seeds)
    named = np.where(codes == 0, np.nan, codes) if design == "no name" else codes
    return frame.assign(seed=named, code=codes)[kept].reset_index(drop=True), names


@pytest.mark.parametrize(
    "design",
    [
        *("shared", "each with other configurations", "missing", "one in a single configuration"),
        *("halves", "a run each", "no name"),
    ],
)
def test_whatever_seeds_configurations_have_nothing_but_their_part_is_taken(design):
    """What hyperparameters and a measure know of the gap stays, and what tells seeds apart adds nothing."""
    draw = np.random.default_rng(0)
    frame, names = some(draw, design)
    own, codes = draw.normal(size=len(frame)), frame["code"]
    moved = np.array([-2.0, 0.0, 2.0, -2.0, 0.0, 2.0])[codes] if codes.max() < 6 else 0
    frame = frame.assign(gap=frame["x"] + moved + own, told=codes, m=own + draw.normal(size=len(own)) / 2)
    settings = {"gap": "gap", "measures": ["told", "m"], "hyperparameters": names, "seeds": "seed"}
    found = out_of_sample(frame, **settings)
    found = found[found["split"] == "folds"].set_index("measure")
    assert (found["hyperparameters"] > 0.45).all()
    assert found.loc["told", "increment"] < 0.01
    assert 0.2 < found.loc["m", "increment"] < 0.45
    assert found.loc["m", "p"] < 0.01


def test_a_gap_or_measure_that_is_the_seed_is_constant_beyond_it():
    frame, names = grid([3, 3], 3)
    seeds = frame.groupby(names).cumcount()
    frame = frame.assign(seed=seeds, gap=np.random.default_rng(0).normal(size=27), told=0.1 * seeds)
    settings = {"measures": ["told"], "hyperparameters": names, "seeds": "seed"}
    row = out_of_sample(frame, gap="gap", **settings).iloc[0]
    assert (row["alone"], row["increment"], row["p"]) == (pytest.approx(0, abs=1e-12), 0, 1)
    found = out_of_sample(frame.assign(gap=0.1 * seeds), gap="gap", **settings)
    assert (found["note"] == "the gap is that of the seed alone").all()


def test_the_increment_is_that_of_configurations():
    """Rows that are there twice are no second evidence."""
    frame, names = grid([3, 3], 2)
    draw = np.random.default_rng(0)
    frame = frame.assign(gap=draw.normal(size=18), m=draw.normal(size=18))
    settings = {"gap": "gap", "measures": ["m"], "hyperparameters": names}
    one, two = (out_of_sample(of, **settings).iloc[0] for of in (frame, pd.concat([frame] * 2)))
    assert two[["both", "increment", "low", "p"]].tolist() == pytest.approx(
        one[["both", "increment", "low", "p"]].tolist(), abs=1e-9
    )


def nulls(draw, kind):
    frame, names = grid([3, 3, 2], 2)
    codes = frame[names].to_numpy() - 1

    def surface():
        pairs = draw.normal(size=(3, 3))[codes[:, 0], codes[:, 1]]
        return 2 * draw.normal() * codes[:, 0] * codes[:, 2] + pairs

    main = draw.normal(size=3)[codes[:, 0]] + draw.normal(size=3)[codes[:, 1]]
    frame["gap"] = main + surface() + draw.standard_t(3, size=len(frame))
    noise = draw.normal(size=len(frame))
    frame["m"] = noise if kind == "independent" else main + surface() + noise
    if kind == "shared seeds":  # which move both, and of which some runs are missing, the more the larger x is
        frame["seed"] = frame.groupby(names).cumcount()
        frame = frame.assign(gap=frame["gap"] + 4 * frame["seed"], m=frame["m"] + 6 * frame["seed"])
        frame = frame[(frame["seed"] == 0) | (draw.random(len(frame)) > 0.3 * codes[:, 0])].reset_index(drop=True)
    return frame, names


@pytest.mark.parametrize("kind", ["independent", "confounded", "shared seeds"])
def test_measures_that_say_no_more_than_hyperparameters_add_nothing(kind):
    """At most 13 of 100 have a positive increment at a two-sided 5 %, the binomial bound of 1 in 1,000."""
    rejected = 0
    for seed in range(100):
        frame, names = nulls(np.random.default_rng(seed), kind)
        seeds = "seed" if "seed" in frame else None
        found = out_of_sample(frame, gap="gap", measures=["m"], hyperparameters=names, seeds=seeds, folds=4)
        rejected += found["p"].iloc[0] <= 0.05 and found["increment"].iloc[0] > 0
    assert rejected <= 13


def test_what_cannot_be_predicted_has_a_note():
    frame, names = grid([3, 3], 1)
    frame = frame.assign(gap=0.0, m=[math.inf, *range(8)], one=1)
    settings = {"gap": "gap", "measures": ["m"]}
    found = out_of_sample(frame, hyperparameters=[*names, "one"], **settings)
    assert found["split"].tolist() == ["folds", *names]  # "one" never varies
    assert (found["note"] == "the gap is constant").all()
    varied = frame.assign(gap=np.arange(9.0))
    assert (
        out_of_sample(varied, hyperparameters=names, **settings)["both"].notna().all()
    )  # an infinite value has a rank
    found = out_of_sample(varied.iloc[:2], hyperparameters=names, **settings)
    assert found["note"].iloc[0] == "2 configurations: 3 are needed"


def test_what_is_refused():
    frame = table(0)
    settings = {"gap": "gap", "measures": ["norm"], "hyperparameters": [*AXES]}
    for change, message in (
        ({"hyperparameters": []}, r"hyperparameters is \[\]; accepted"),
        ({"measures": ["nrm"]}, r"column is 'nrm'; did you mean 'norm'\?"),
        ({"folds": 1}, "folds is 1; accepted: an integer of at least 2"),
        ({"seeds": "sed"}, "column is 'sed'; "),
        ({"seeds": "data"}, "data is 'mnist' in two runs of a configuration; accepted: one run a seed"),
        ({"seed": -1}, "seed is -1; accepted: an integer of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            out_of_sample(frame, **{**settings, **change})
    with pytest.raises(ValueError, match=r"gap is .*inf.*; accepted: finite numbers"):
        out_of_sample(frame.assign(gap=math.inf), **settings)
