import numpy as np
import pandas as pd
import pytest

from genbench.analysis import rank
from genbench.analysis.directions import LEARNED, WORDS, learned

AXES = {"lr": [1, 2, 3], "width": [1, 2, 3, 4]}


def grid(seed, seeds=2):
    draw = np.random.default_rng(seed)
    cells = pd.MultiIndex.from_product(AXES.values(), names=AXES).to_frame(index=False)
    cells["gap"], cells["nothing"] = draw.normal(size=(2, len(cells)))
    frame = pd.concat([cells] * seeds, ignore_index=True)
    frame["gap"] += draw.normal(0, 0.3, len(frame))
    return frame.assign(rises=frame["gap"] ** 3, falls=-np.exp(frame["gap"]), constant=1.0, missing=np.nan)


SETTINGS = {"gap": "gap", "hyperparameters": [*AXES]}


def test_the_folds_tell_which_measures_fall():
    found = learned(grid(0), measures=["rises", "falls", "constant", "missing"], **SETTINGS)
    assert found == {"rises": 1, "falls": -1, "constant": 0, "missing": 0}


def test_one_configuration_that_turns_the_whole_does_not_decide():
    """ρ over all runs is below 0, but above it without the one that is far out."""
    frame = pd.DataFrame({"x": range(7), "gap": range(7), "m": [6, 0, 1, 2, 3, 2.5, -1.0]})
    assert frame["m"].corr(frame["gap"], method="spearman") < 0
    assert learned(frame, gap="gap", measures=["m"], hyperparameters=["x"]) == {"m": 0}


def test_all_seeds_of_a_configuration_are_in_one_fold():
    frame = grid(1)
    doubled = pd.concat([frame, frame], ignore_index=True)
    for seed in range(20):
        one, two = (learned(each, measures=["nothing"], seed=seed, **SETTINGS) for each in (frame, doubled))
        assert one == two


def test_a_ranking_turns_what_is_learned_to_fall():
    measures = ["rises", "falls", "nothing"]
    frame = grid(2)
    found = rank(frame, measures=measures, directions={"falls": LEARNED, "rises": LEARNED}, permutations=9, **SETTINGS)
    table = found.table.set_index("measure")
    assert found.falls == ["falls"]
    assert table.loc["falls", "tau"] == pytest.approx(1)
    assert WORDS in found.notes
    said = rank(frame, measures=measures, directions={"falls": -1}, permutations=9, **SETTINGS)
    assert WORDS not in said.notes
    pd.testing.assert_series_equal(said.table.set_index("measure")["tau"], table["tau"])


def test_a_direction_that_the_folds_do_not_tell_is_named():
    for seed in range(20):
        frame = grid(seed)
        if learned(frame, measures=["nothing"], **SETTINGS)["nothing"]:
            continue
        found = rank(frame, measures=["nothing"], directions={"nothing": LEARNED}, permutations=9, **SETTINGS)
        assert "The folds do not agree on these, which are taken to rise: nothing." in found.notes
        return
    raise AssertionError("the folds agree on all")


def test_learning_directions_holds_the_level_that_the_note_names():
    """At 5 % at most 41 of 500; without learning it is 2.5 %."""
    from genbench.analysis import correlations

    shown = 0
    for seed in range(500):
        frame = grid(seed)
        (sign,) = learned(frame, measures=["nothing"], seed=seed, **SETTINGS).values()
        found = correlations(frame, measures=["nothing"], directions={"nothing": sign or 1}, **SETTINGS)
        shown += found[found["score"] == "tau"]["low"].iloc[0] > 0
    assert 5 <= shown <= 41
