"""The mixture's Bayes error against closed forms, and against what the best classifier does."""

import pytest
import torch
from scipy.stats import norm

from genbench.data.gaussian_mixture import GaussianMixture, Mixture
from genbench.rng import StepRandom
from genbench.runs import execute


@pytest.mark.parametrize("separation", [0.0, 0.5, 2.0, 4.0, 10.0])
def test_of_two_classes_the_error_is_that_of_the_textbook(separation):
    found, stderr = Mixture(classes=2, dimension=3, separation=separation).bayes_error
    assert found == pytest.approx(norm.cdf(-separation / 2), rel=1e-7)
    assert stderr == 0


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_without_separation_it_is_that_of_guessing(classes):
    assert Mixture(classes=classes, dimension=20, separation=0).bayes_error[0] == pytest.approx(1 - 1 / classes)


@pytest.mark.parametrize(("classes", "dimension"), [(2, 1), (3, 2), (10, 40), (20, 19)])
def test_means_are_equally_far_apart(classes, dimension):
    means = Mixture(classes=classes, dimension=dimension, separation=3.0).means
    distances = torch.cdist(means, means)[~torch.eye(classes, dtype=torch.bool)]
    torch.testing.assert_close(distances, torch.full_like(distances, 3.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("classes", "separation"), [(2, 1.0), (5, 2.0), (10, 4.0)])
def test_the_nearest_mean_has_that_error(classes, separation):
    source = Mixture(classes=classes, dimension=40, separation=separation)
    n = 200_000
    x, y = source.sample(n, StepRandom(1, 0))
    wrong = float((torch.cdist(x[:, 0].double(), source.means).argmin(1) != y).double().mean())
    error, _ = source.bayes_error
    assert abs(wrong - error) < 4 * (error * (1 - error) / n) ** 0.5


def test_a_record_says_what_could_be_reached_at_best(configure):
    record = execute.run(
        configure("data=gaussian_mixture", "data.separation=2", "data.test_size=100", "~measures.trace")
    )
    assert record["status"] == "completed", record["error"]
    data = GaussianMixture(separation=2)
    assert record["metrics"]["test/performance/bayes_error"] == data.bayes_error[0]
    assert "test/performance/bayes_error" not in record["stderr"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 1}, "data.components is 1; accepted: an integer of at least 2"),
        ({"dimension": 8}, "data.dimension is 8; accepted: an integer of at least 9 .10 means at the same distance."),
        ({"separation": -1}, r"data.separation is -1; accepted: a number in \[0, inf\)"),
        ({"imbalance": 2}, "data.imbalance is 2; accepted: 1 where data.fresh is true"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        GaussianMixture(**settings)
