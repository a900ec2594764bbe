import pytest
import torch
import torch.nn.functional as F

from genbench.regularization.generalized_cross_entropy import GeneralizedCrossEntropy

LOGITS, Y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
P = LOGITS.softmax(1)[torch.arange(6), Y]


def test_closed_form():
    torch.testing.assert_close(GeneralizedCrossEntropy(q=0.7).loss(LOGITS, Y), ((1 - P**0.7) / 0.7).mean())


def test_the_ends_are_cross_entropy_and_half_the_absolute_error():
    hot = F.one_hot(Y, 4)
    error = (LOGITS.softmax(1) - hot).abs().sum(1).mean()
    torch.testing.assert_close(GeneralizedCrossEntropy(q=1).loss(LOGITS, Y), error / 2)
    torch.testing.assert_close(GeneralizedCrossEntropy(q=1e-9).loss(LOGITS, Y), F.cross_entropy(LOGITS, Y))


def test_the_gradient_is_that_of_the_cross_entropy_weighted_by_the_power_of_the_probability():
    logits = LOGITS.clone().requires_grad_()
    GeneralizedCrossEntropy(q=0.4).loss(logits, Y).backward()
    expected = P[:, None] ** 0.4 * (LOGITS.softmax(1) - F.one_hot(Y, 4)) / 6
    torch.testing.assert_close(logits.grad, expected)


def test_it_is_symmetric_at_the_mean_absolute_error():
    """A loss whose sum over the classes is constant is not moved by symmetric noise (Ghosh et al. 2017)."""
    losses = [GeneralizedCrossEntropy(q=1).loss(LOGITS, torch.full((6,), c)) for c in range(4)]
    assert float(sum(losses)) == pytest.approx(3)


def test_probabilities_are_targets_too():
    method, hot = GeneralizedCrossEntropy(q=0.7), F.one_hot(Y, 4).double()
    mixed = 0.3 * hot + 0.7 * hot.flip(0)
    torch.testing.assert_close(
        method.loss(LOGITS, mixed), 0.3 * method.loss(LOGITS, Y) + 0.7 * method.loss(LOGITS, Y.flip(0))
    )


@pytest.mark.parametrize("q", [0, -0.1, 1.1, "half"])
def test_bad_settings_are_named(q):
    with pytest.raises(ValueError, match="GeneralizedCrossEntropy: q is "):
        GeneralizedCrossEntropy(q=q)
