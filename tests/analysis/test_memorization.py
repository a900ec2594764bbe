import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from genbench.analysis import influence, memorization


@pytest.fixture
def runs():
    rng = np.random.default_rng(0)
    seen = rng.random((60, 5)) < 0.7
    right = rng.random((60, 5)) < np.where(seen, 0.95, [0.9, 0.7, 0.5, 0.2, 0.0])
    return right, seen


def test_an_example_is_memorized_by_how_much_more_often_it_is_right_where_it_was_trained_on(runs):
    right, seen = runs
    found = memorization(right, seen)
    for i in range(5):
        assert found.value[i] == pytest.approx(right[seen[:, i], i].mean() - right[~seen[:, i], i].mean())


def test_the_influence_on_the_train_examples_themselves_is_their_memorization(runs):
    right, seen = runs
    alone, pairs = memorization(right, seen), influence(right, seen)
    for name in ("value", "low", "high"):
        assert np.allclose(np.diag(getattr(pairs, name)), getattr(alone, name))
    test = np.random.default_rng(1).random((60, 3)) < 0.5
    assert influence(test, seen).value[2, 4] == pytest.approx(test[seen[:, 4], 2].mean() - test[~seen[:, 4], 2].mean())


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_are_those_of_newcombe(runs, level):
    """statsmodels has them too."""
    right, seen = runs
    found = memorization(right, seen, level=level)
    for i in range(5):
        own = seen[:, i]
        x, n, y, m = right[own, i].sum(), own.sum(), right[~own, i].sum(), (~own).sum()
        low, high = confint_proportions_2indep(x, n, y, m, method="newcomb", alpha=1 - level)
        assert (found.low[i], found.high[i]) == pytest.approx((low, high))
        assert found.low[i] <= found.value[i] <= found.high[i]


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    rng = np.random.default_rng(2)
    seen = rng.random((50, 4000)) < 0.7
    found = memorization(rng.random((50, 4000)) < np.where(seen, 0.9, 0.6), seen)
    assert ((found.low <= 0.3) & (found.high >= 0.3)).mean() == pytest.approx(0.95, abs=0.015)


def test_what_every_run_or_none_was_trained_on_has_no_number():
    found = memorization([[1, 1, 1], [0, 1, 0]], [[1, 0, 1], [1, 0, 0]])
    assert np.isnan(found.value).tolist() == [True, True, False]
    assert found.value[2] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memorization([[1, 2]], [[1, 0]]), r"^right has shape \(1, 2\); accepted: true or false"),
        (lambda: memorization([1, 0], [1, 0]), r"^right has shape \(2,\); accepted: true or false"),
        (lambda: memorization([[1, 0]], [[1], [0]]), r"^right has shape \(1, 2\) and trained_on \(2, 1\); accepted"),
        (lambda: influence([[1, 0]], [[1], [0]]), r"^right is of 1 runs and trained_on of 2; accepted: as many"),
        (lambda: memorization([[1], [0]], [[1], [0]], level=1), r"^level is 1; accepted: a number in \(0, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
