"""Kendall's τ in each part of the runs, and what is shown of it."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from genbench.analysis import rank, stability
from genbench.analysis.stability import summary

AXES = ["data", "width", "rate"]
COLUMNS = {"gap": "gap", "hyperparameters": AXES}


def grid(seed=0, levels=4):
    draw = np.random.default_rng(seed)
    points = itertools.product(("digits", "letters"), range(levels), range(levels))
    frame = pd.DataFrame([dict(zip(AXES, point, strict=True)) for point in points])
    frame["gap"] = draw.normal(size=len(frame))
    frame["turns"] = np.where(frame["data"] == "digits", frame["gap"], -frame["gap"]) + draw.normal(0, 0.1, len(frame))
    frame["follows"] = frame["gap"] + draw.normal(0, 0.1, len(frame))
    frame["nothing"] = draw.normal(size=len(frame))
    return frame


def test_a_part_is_a_value_of_a_hyperparameter():
    frame = grid()
    table = stability(frame, **COLUMNS, measures=["turns", "follows"])
    # of the width and the rate each value has eight configurations, too few
    assert table["axis"].unique().tolist() == ["data"]
    assert table["level"].tolist() == ["digits", "digits", "letters", "letters"]
    assert set(table["configurations"]) == {16}
    for row in table.to_dict("records"):
        part = frame[frame["data"] == row["level"]]
        gap, values = (part[name].to_numpy() for name in ("gap", row["measure"]))
        pairs = list(itertools.combinations(range(len(part)), 2))
        tau = np.mean([np.sign(gap[i] - gap[j]) * np.sign(values[i] - values[j]) for i, j in pairs])
        assert row["value"] == pytest.approx(tau)
        assert row["low"] < row["value"] < row["high"]
        assert (row["p"] < 0.025) == (row["high"] < 0)
    assert table.loc[table["level"] == "letters", "rank"].tolist() == [2, 1]


def test_the_part_in_which_a_measure_turns_is_named():
    table = stability(grid(), **COLUMNS, measures=["turns", "follows", "nothing"])
    turns, follows, nothing = (summary(table[table["measure"] == name]) for name in ("turns", "follows", "nothing"))
    assert (turns["lowest_in"], turns["parts"], turns["turned"]) == ("data = letters", 2, 1)
    assert turns["lowest"] < turns["lowest_high"] < 0
    assert (follows["turned"], nothing["turned"]) == (0, 0)
    assert summary(table[:0]) == {
        "lowest": None, "lowest_low": None, "lowest_high": None, "lowest_in": "", "parts": 0, "turned": 0
    }  # fmt: skip


def test_a_measure_that_is_to_fall_turns_where_it_rises():
    table = stability(grid(), **COLUMNS, measures=["turns"], directions={"turns": -1})
    assert summary(table)["lowest_in"] == "data = digits"


def test_parts_without_a_number():
    frame = grid()
    frame.loc[frame["data"] == "letters", "gap"] = 0.5
    assert stability(frame, **COLUMNS, measures=["nothing"])["level"].tolist() == ["digits"]  # one gap orders nothing
    frame = grid().assign(fixed=1.0)
    table = stability(frame, gap="gap", measures=["fixed"], hyperparameters=[*AXES, "fixed"])
    assert table["value"].isna().all()
    assert summary(table)["parts"] == 0
    assert "fixed" not in set(table["axis"])


def test_a_measure_of_unrelated_numbers_is_seldom_shown_to_turn():
    """Holm over parts that overlap: a true 5 % of 400 gives at most 34, with 99.9 %."""
    turned = 0
    for seed in range(400):
        table = stability(grid(seed, levels=6), **COLUMNS, measures=["nothing"])
        assert set(table["axis"]) == set(AXES)
        turned += summary(table)["turned"] > 0
    assert 2 <= turned <= 34


def test_rank_has_the_lowest_tau():
    found = rank(grid(), **COLUMNS, measures=["turns", "follows"], permutations=9)
    rows = {row["measure"]: row for row in found.rows}
    assert (rows["turns"]["lowest_in"], rows["turns"]["turned"]) == ("data = letters", 1)
    assert (rows["follows"]["turned"], rows["follows"]["parts"]) == (0, 2)
    assert math.isclose(rows["turns"]["lowest"], found.stability.query("measure == 'turns'")["value"].min())
