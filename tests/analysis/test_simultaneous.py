import math

import numpy as np
import pytest
from scipy.stats import t as student

from genbench.analysis.simultaneous import Score, differences, ranks


def means(samples):
    """Scores that are means over configurations [C, M]."""
    count = len(samples)
    scale = 1 / math.sqrt(count * (count - 1))
    return [Score(float(x.mean()), (x - x.mean()) * scale, count, count) for x in samples.T]


def test_one_difference_is_the_paired_t_interval():
    samples = np.random.default_rng(0).normal(size=(12, 2))
    low, high = differences(means(samples), 0)
    gained = samples[:, 1] - samples[:, 0]
    half = student.ppf(0.975, 11) * gained.std(ddof=1) / math.sqrt(12)
    assert math.isnan(low[0])
    assert (low[1] + high[1]) / 2 == pytest.approx(gained.mean())
    assert (high[1] - low[1]) / 2 == pytest.approx(half, rel=0.03)  # of 10,000 draws


def test_a_score_that_equals_the_baseline_has_no_error_and_one_rank():
    samples = np.random.default_rng(0).normal(size=(12, 1))
    scores = means(np.concatenate([samples, samples, samples + 100], axis=1))
    low, _ = differences(scores, 0)
    assert np.isnan(low).all()
    rank, least, most = ranks(scores)
    assert rank.tolist() == [2, 2, 1]
    assert least.tolist() == [2, 2, 1]
    assert most.tolist() == [3, 3, 1]


@pytest.mark.parametrize("equal", [True, False])
def test_differences_and_ranks_hold_together(equal):
    """At 95 % at most 41 of 500 miss (the binomial bound of 1 in 1,000)."""
    truth = np.zeros(8) if equal else np.array([0, 0.1, 0.2, 0.3, 1, 1, 2, 3])
    missed = {"difference": 0, "rank": 0}
    true_ranks = 1 + (truth[None] > truth[:, None]).sum(1)
    for seed in range(500):
        draw = np.random.default_rng(seed)
        samples = truth + draw.normal(size=(20, 1)) + draw.normal(size=(20, 8))
        scores = means(samples)
        low, high = differences(scores, 0, seed=seed)
        missed["difference"] += not ((low <= truth - truth[0]) & (truth - truth[0] <= high))[1:].all()
        _, least, most = ranks(scores, seed=seed)
        last = len(truth) - (truth[None] < truth[:, None]).sum(1)  # of equal ones any place between is theirs
        missed["rank"] += not (least[3] <= true_ranks[3] and last[3] <= most[3])
    assert max(missed.values()) <= 41, missed
