import math

import numpy as np

from genbench.claims.numbers import Numbers, combined, difference

NAN, INF = math.nan, math.inf


def numbers(low, high, **texts):
    return Numbers(low=np.array(low, dtype=float), high=np.array(high, dtype=float), scale=1.0, **texts)


def test_a_difference_lies_between_the_differences_of_opposite_ends():
    left, right = numbers([3, 0, NAN, 5], [3, 1, NAN, 5]), numbers([1, 2, 1, -INF], [1, 4, 1, INF])
    found = difference(left, right)
    np.testing.assert_array_equal(found.low, [2, -4, NAN, -INF])
    np.testing.assert_array_equal(found.high, [2, -1, NAN, INF])


def test_a_weight_of_zero_does_not_count():
    found = combined([2, 0, -1], [numbers([1], [1]), numbers([-INF], [INF]), numbers([3], [4])])
    assert (found.low.tolist(), found.high.tolist()) == ([-2], [-1])


def test_missing_and_unknown_runs_are_gathered_once():
    one, two = numbers([1], [1], missing=("a",), unknown=("b",)), numbers([1], [1], missing=("a", "c"))
    found = difference(one, two)
    assert (found.missing, found.unknown) == (("a", "c"), ("b",))


def test_known_numbers_or_ends():
    some = numbers([1, 0, NAN], [1, 2, NAN])
    assert [end.tolist() for end in some.ends(False)] == [[1], [1]]
    assert [end.tolist() for end in some.ends(True)] == [[1, 0], [1, 2]]


def test_what_is_not_positive_has_no_logarithm():
    found = numbers([math.e, 0, 0, NAN], [math.e, 0, 1, NAN]).log()
    np.testing.assert_array_equal(found.low, [1, -INF, -INF, NAN])
    np.testing.assert_array_equal(found.high, [1, INF, 0, NAN])
    assert found.unknown == ("number 1 is 0, which has no logarithm",)
