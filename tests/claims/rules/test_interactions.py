import re

import numpy as np
import pytest
from scipy import stats

from genbench.analysis.interaction import interaction
from genbench.claims.rules import Interacts
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import ACCURACY, record

X, Y, Z = [0, 1, 2], ["a", "b"], [0.0, 0.4]
RULE = {"metric": ACCURACY, "treatments": {"data.x": X}, "over": {"data.y": Y, "data.z": Z}}


def values(seeds=6, *, spread=0.01):
    """Numbers [seeds, x, y, z]: y decides which x is best, z nothing."""
    which = np.array([[0.7, 0.5], [0.5, 0.7], [0.6, 0.6]])[:, :, None]
    return which + np.array([0.0, -0.1]) + spread * np.random.default_rng(0).normal(size=(seeds, 3, 2, 2))


def records(numbers, lost=()):
    return [
        record(seed, numbers[seed, i, j, k], x=x, y=y, z=z)
        if (seed, x, y, z) not in lost
        else record(seed, {}, status="diverged", x=x, y=y, z=z)
        for seed in range(len(numbers))
        for i, x in enumerate(X)
        for j, y in enumerate(Y)
        for k, z in enumerate(Z)
    ]


def test_the_share_of_all_conditions():
    numbers = values()
    found = Interacts(**RULE, margin=0.5, interest=0.9).evidence(ClaimRuns(records(numbers)))
    expected = interaction(numbers.reshape(6, 3, 4))
    assert found.supports == stats.ttest_1samp(expected.beyond(0.5), 0, alternative="greater").pvalue
    assert found.contradicts == stats.ttest_1samp(expected.beyond(0.9), 0, alternative="less").pvalue
    assert found.statistic == pytest.approx(expected.share)
    assert found.supports < 1e-6
    assert (found.n, found.interest) == (6, True)
    assert found.words.startswith("share ")


def test_along_one_of_the_settings_the_others_are_averaged():
    numbers = values()
    runs = ClaimRuns(records(numbers))
    by_y, by_z = (Interacts(**RULE, along=key, margin=0.5).evidence(runs) for key in ("data.y", "data.z"))
    assert by_y.statistic == pytest.approx(interaction(numbers.mean(3)).share)
    assert by_z.statistic == pytest.approx(interaction(numbers.mean(2)).share)
    assert by_y.supports < 1e-6


def test_a_seed_with_a_run_that_diverged_is_left_out_and_at_the_worst_shows_nothing():
    runs = ClaimRuns(records(values(), lost={(2, 1, "a", 0.4)}))
    found = Interacts(**RULE, margin=0.5).evidence(runs)
    assert (found.n, len(found.unknown)) == (5, 1)
    assert found.supports < 0.001
    worst = Interacts(**RULE, margin=0.5).evidence(runs, worst=True)
    assert (worst.supports, worst.contradicts) == (1.0, 1.0)


def test_treatments_that_do_not_differ_show_nothing():
    found = Interacts(**RULE, margin=0.5).evidence(ClaimRuns(records(np.full((5, 3, 2, 2), 0.6))))
    assert (found.supports, found.contradicts, found.statistic) == (1.0, 1.0, None)
    assert found.words == "treatments do not differ, n = 5"


def test_two_seeds_show_nothing():
    assert Interacts(**RULE).evidence(ClaimRuns(records(values(2)))).supports is None


def test_its_words():
    rule = Interacts(**RULE, along="data.y", of={"model": "mlp"}, margin=0.5, interest=0.6)
    assert rule.words == (
        f"of the variance of {ACCURACY} between data.x = 0, 1, 2 of model=mlp the share that depends on data.y = a, b "
        "exceeds 0.5 (of interest from 0.6)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treatments": {"data.x": [1]}}, "treatments.data.x is [1]; accepted: a list of at least two values"),
        (
            {"treatments": {"data.x": X, "data.y": Y}},
            "treatments is {'data.x': [0, 1, 2], 'data.y': ['a', 'b']}; accepted: one setting and its values",
        ),
        ({"over": {"data.x": X}}, "over names data.x, as treatments does; accepted: other settings"),
        ({"over": {}}, "over is {}; accepted: settings and their values, such as {model: [mlp, cnn]}"),
        ({"along": "data.w"}, "along is 'data.w'; did you mean 'data.z'?"),
        ({"margin": 1.0}, "margin is 1.0; accepted: a number in [0, 1)"),
    ],
)
def test_what_is_not_accepted_is_named(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Interacts(**{**RULE, **change})
