"""Exponents of exact power laws, their intervals over seeds, and what bends."""

import math

import numpy as np
import pytest

from genbench.analysis import power_law
from genbench.analysis.statistics import mean_interval


def test_an_exact_law_is_found():
    found = power_law([{x: 3 * x**-0.4 for x in (100, 400, 3000)}] * 2)
    assert found.exponent.value == pytest.approx(-0.4)
    assert found.factor == pytest.approx(3)
    assert found.exponent.half_width == pytest.approx(0, abs=1e-9)
    assert found.bend.value == pytest.approx(0, abs=1e-9)


def test_the_interval_is_that_of_the_exponents_of_the_seeds():
    exponents = [-0.3, -0.5, -0.35]
    found = power_law([{x: 2 * x**b for x in (1, 10, 100)} for b in exponents])
    expected = mean_interval(exponents)
    assert found.exponent.value == pytest.approx(expected.value)
    assert found.exponent.half_width == pytest.approx(expected.half_width)


def test_it_covers_the_exponent_of_noisy_values():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        seeds = [{x: 2 * x**-0.3 * math.exp(draw.normal(0, 0.1)) for x in (10, 30, 90, 270)} for _ in range(5)]
        exponent = power_law(seeds).exponent
        covered += exponent.low <= -0.3 <= exponent.high
    assert 0.92 < covered / 400 < 0.975


def test_an_error_with_a_floor_bends_upward():
    draw = np.random.default_rng(1)

    def seed(floor):
        return {x: (floor + x**-0.5) * math.exp(draw.normal(0, 0.01)) for x in (10, 100, 1000)}

    found = power_law([seed(0.1) for _ in range(5)])
    assert found.bends
    assert found.bend.value > 0
    assert found.exponent.value > -0.45
    assert not power_law([seed(0.1)]).bends  # one seed has no interval
    assert power_law([{1: 1.0, 2: 0.5}]).bend is None


@pytest.mark.parametrize(
    "seeds", [[], [{1: 1.0}], [{1: 1.0, 2: 0.0}], [{0: 1.0, 2: 1.0}], [{1: 1.0, 2: 1.0}, {1: 1.0, 3: 1.0}]]
)
def test_what_has_no_logarithm_or_no_pairs_is_refused(seeds):
    with pytest.raises(ValueError, match="accepted: at least"):
        power_law(seeds)
