"""R̂ and the effective sample size against autoregressive chains, whose autocorrelation is known."""

import math

import numpy as np
import pytest

from genbench.measures.mixing import effective_sample_size, r_hat


def chains(rho: float, *, chains: int = 4, steps: int = 4000, seed: int = 0) -> np.ndarray:
    """Stationary AR(1) chains of variance 1 and autocorrelation rho^t."""
    noise = np.random.default_rng(seed).normal(size=(chains, steps))
    draws = noise.copy()
    for t in range(1, steps):
        draws[:, t] = rho * draws[:, t - 1] + math.sqrt(1 - rho**2) * noise[:, t]
    return draws


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9, 0.98])
def test_the_effective_sample_size_of_autoregressive_chains(rho):
    sizes = [effective_sample_size(chains(rho, seed=seed)) for seed in range(8)]
    assert np.mean(sizes) == pytest.approx(16_000 * (1 - rho) / (1 + rho), rel=0.1)


def test_the_standard_error_from_it_is_the_spread_of_the_mean():
    draws = [chains(0.9, steps=500, seed=seed) for seed in range(200)]
    errors = [d.std() / math.sqrt(effective_sample_size(d)) for d in draws]
    assert np.mean(errors) == pytest.approx(np.std([d.mean() for d in draws]), rel=0.15)


def test_chains_that_agree_and_chains_that_do_not():
    draws = chains(0.5)
    assert 1 <= r_hat(draws) < 1.005
    apart = draws + np.array([[0.0], [0.0], [0.0], [2.0]])
    assert r_hat(apart) > 1.2
    assert effective_sample_size(apart) < 30  # of means that lie apart, a few are known
    wider = draws * np.array([[1.0], [1.0], [1.0], [3.0]])
    assert r_hat(wider) > 1.05  # of equal means
    drifting = draws + np.linspace(0, 2, draws.shape[1])
    assert r_hat(drifting) > 1.1  # all of them alike


def test_r_hat_from_its_definition():
    """Of the normal scores of ranks, written out."""
    draws = np.array([[0.3, 1.2, 0.1, 2.5], [0.7, 0.9, 4.0, 3.1]])
    halves = np.array([[0.3, 1.2], [0.1, 2.5], [0.7, 0.9], [4.0, 3.1]])
    values = []
    for x in (halves, abs(halves - np.median(halves))):
        from scipy.stats import norm

        ranks = np.array([[(x < value).sum() + ((x == value).sum() + 1) / 2 for value in row] for row in x])
        z = norm.ppf((ranks - 0.375) / (8 + 0.25))
        within = np.mean([np.var(row, ddof=1) for row in z])
        values.append(math.sqrt(((2 - 1) / 2 * within + np.var(z.mean(1), ddof=1)) / within))
    assert r_hat(draws) == pytest.approx(max(values), rel=1e-12)


def test_chains_of_one_value_each():
    same, different = np.ones((4, 20)), np.arange(4.0)[:, None] * np.ones((4, 20))
    assert (r_hat(same), effective_sample_size(same)) == (1.0, 80)
    assert r_hat(different) == math.inf
    assert effective_sample_size(different) < 10


def test_an_odd_number_of_steps():
    draws = chains(0.0, steps=101)
    assert r_hat(draws) < 1.1
    assert effective_sample_size(draws) == pytest.approx(400, rel=0.3)
