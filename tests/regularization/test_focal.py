import math

import pytest
import torch
import torch.nn.functional as F

from genbench.regularization.focal import Focal

LOGITS, Y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])


def test_closed_form():
    p = LOGITS.softmax(1)[torch.arange(6), Y]
    torch.testing.assert_close(Focal(gamma=1.5).loss(LOGITS, Y), ((1 - p) ** 1.5 * -p.log()).mean())
    # the paper's example: at p = 0.9 and gamma = 2 the loss is a hundredth of the cross-entropy
    sure = torch.tensor([[math.log(9.0), 0.0]], dtype=torch.float64)
    ratio = Focal(gamma=2).loss(sure, torch.tensor([0])) / F.cross_entropy(sure, torch.tensor([0]))
    assert ratio.item() == pytest.approx(0.01)


def test_gamma_zero_is_the_cross_entropy():
    torch.testing.assert_close(Focal(gamma=0).loss(LOGITS, Y), F.cross_entropy(LOGITS, Y))


def test_probabilities_are_targets_too():
    loss, hot = Focal(gamma=2), F.one_hot(Y, 4).double()
    torch.testing.assert_close(loss.loss(LOGITS, hot), loss.loss(LOGITS, Y))
    mixed = 0.3 * hot + 0.7 * hot.flip(0)
    torch.testing.assert_close(
        loss.loss(LOGITS, mixed), 0.3 * loss.loss(LOGITS, Y) + 0.7 * loss.loss(LOGITS, Y.flip(0))
    )


def test_a_target_at_every_position():
    logits, y = torch.randn(2, 4, 5, dtype=torch.float64), torch.randint(4, (2, 5))
    flat = Focal(gamma=2).loss(logits.movedim(1, 2).flatten(0, 1), y.flatten())
    torch.testing.assert_close(Focal(gamma=2).loss(logits, y), flat)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_the_gradient_is_finite_where_the_prediction_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)  # in float32, p is exactly 1 and 0
    loss = Focal(gamma=gamma).loss(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(100)
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-0.5, 0.5]]))


@pytest.mark.parametrize("gamma", [-1, float("inf"), "two"])
def test_bad_settings_are_named(gamma):
    with pytest.raises(ValueError, match="Focal: gamma is "):
        Focal(gamma=gamma)
