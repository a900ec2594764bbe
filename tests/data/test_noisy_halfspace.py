"""The half-space's Bayes error against its published estimate, and against what the best classifier does."""

import math

import pytest
import torch

from genbench.data.noisy_halfspace import Halfspace, NoisyHalfspace
from genbench.rng import StepRandom


def test_the_error_of_the_best_classifier_is_known():
    """Hochreiter & Schmidhuber 1997 count 9.27 % in two million points."""
    assert NoisyHalfspace().bayes_error == (pytest.approx(0.05 + 0.9 * math.atan(0.15) / math.pi), 0)
    assert NoisyHalfspace().bayes_error[0] == pytest.approx(0.0927, abs=5e-5)
    assert NoisyHalfspace(noise=0, flip=0.2).bayes_error[0] == 0.2
    assert NoisyHalfspace(flip=0.5).bayes_error[0] == 0.5


@pytest.mark.parametrize(("noise", "flip"), [(0.15, 0.05), (1.0, 0.0), (0.0, 0.3), (0.5, 0.1)])
def test_the_sign_of_the_first_coordinate_has_that_error(noise, flip):
    n = 200_000
    source = Halfspace(dimension=3, noise=noise, flip=flip)
    x, y = source.sample(n, StepRandom(1, 0))
    assert x.shape == (n, 1, 3)
    wrong = float(((x[:, 0, 0] > 0) != y).double().mean())
    error, _ = source.bayes_error
    assert abs(wrong - error) < 4 * (error * (1 - error) / n) ** 0.5
    assert abs(float(y.double().mean()) - 0.5) < 4 * 0.5 / n**0.5


def test_the_other_coordinates_say_nothing_and_noise_widens_all():
    n = 200_000
    x, y = Halfspace(dimension=3, noise=0.5, flip=0.05).sample(n, StepRandom(1, 0))
    side = 2.0 * y - 1
    assert (x[:, 0, 1:] * side[:, None]).mean(0).abs().max() < 5 / n**0.5
    torch.testing.assert_close(x.std((0, 1)), torch.full((3,), 1.25**0.5), rtol=0.01, atol=0)


def test_the_test_split_has_wrong_classes_too():
    data = NoisyHalfspace(train_size=200, test_size=20_000, noise=0, fresh=False, seed=3)
    x, y = data.tensors("test")
    assert float(((x[:, 0, 0] > 0) != y).double().mean()) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 0}, "data.dimension is 0; accepted: an integer of at least 1"),
        ({"noise": -1}, r"data.noise is -1; accepted: a number in \[0, inf\)"),
        ({"flip": 0.6}, r"data.flip is 0.6; accepted: a number in \[0, 0.5\]"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        NoisyHalfspace(**settings)
