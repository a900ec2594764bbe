import torch
import torch.nn.functional as F

from genbench.regularization.squared_error import SquaredError, squared_error

OUTPUTS, Y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])


def test_closed_form():
    # ½((2 − 1)² + 1²) and ½(0² + (3 − 1)²)
    outputs = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    assert SquaredError().loss(outputs, torch.tensor([0, 1])).item() == 1.5
    expected = 2 * F.mse_loss(OUTPUTS, F.one_hot(Y, 4).double())  # a mean over four outputs, without the half
    torch.testing.assert_close(squared_error(OUTPUTS, Y), expected)


def test_probabilities_are_targets_too():
    hot = F.one_hot(Y, 4).double()
    torch.testing.assert_close(squared_error(OUTPUTS, hot), squared_error(OUTPUTS, Y))
    mixed = 0.3 * hot + 0.7 * hot.flip(0)
    torch.testing.assert_close(squared_error(OUTPUTS, mixed), 0.5 * (OUTPUTS - mixed).square().sum(1).mean())


def test_a_target_at_every_position():
    outputs, y = torch.randn(2, 4, 5, dtype=torch.float64), torch.randint(4, (2, 5))
    flat = squared_error(outputs.movedim(1, 2).flatten(0, 1), y.flatten())
    torch.testing.assert_close(squared_error(outputs, y), flat)


def test_the_gradient_is_the_distance():
    outputs = OUTPUTS.clone().requires_grad_()
    squared_error(outputs, Y).backward()
    torch.testing.assert_close(outputs.grad, (OUTPUTS - F.one_hot(Y, 4)) / 6)
