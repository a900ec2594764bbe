import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.models import CNN, use_draw
from genbench.regularization.gradient_penalty import GradientPenalty
from genbench.rng import StepRandom


def test_closed_form_of_logistic_regression():
    """∂ℓ/∂x = Wᵀ(p − e_y)."""
    net, x, y = nn.Linear(5, 3).double(), torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 3
    value = GradientPenalty(strength=0.3).penalty(net, x, y, net(x), StepRandom(0, 0))
    slope = (net(x).softmax(1) - F.one_hot(y, 3)) @ net.weight
    torch.testing.assert_close(value, 0.3 * slope.square().sum(1).mean())


@pytest.mark.parametrize("norm", ["none", "batch_norm"])
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_are_those_of_double_backward(norm, soft):
    torch.manual_seed(0)
    net = CNN(input_shape=(1, 40), classes=3, width=4, dropout=0.5, normalization=norm).double()
    use_draw(net, draw := StepRandom(1, 2))
    x, y = torch.randn(8, 1, 40, dtype=torch.float64, requires_grad=True), torch.arange(8) % 3
    y = torch.rand(8, 3, dtype=torch.float64).softmax(1) if soft else y
    output = net(x)
    (slope,) = torch.autograd.grad(8 * F.cross_entropy(output, y), x, create_graph=True)
    true = 0.3 * slope.square().sum() / 8
    counted = [buffer.clone() for buffer in net.buffers()]
    value = GradientPenalty(strength=0.3).penalty(net, x.detach(), y, output, draw)
    torch.testing.assert_close(value, true)
    params = list(net.parameters())
    for ours, theirs in zip(torch.autograd.grad(value, params), torch.autograd.grad(true, params), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), counted, strict=True))


@pytest.mark.parametrize("strength", [-1, float("nan"), "weak"])
def test_bad_settings_are_named(strength):
    with pytest.raises(ValueError, match="GradientPenalty: strength is "):
        GradientPenalty(strength=strength)


def test_tokens_are_refused():
    tokens, method = torch.zeros(2, 5, dtype=torch.long), GradientPenalty(strength=1)
    with pytest.raises(ValueError, match=r"GradientPenalty: differentiates by the inputs, which tokens do not allow"):
        method.penalty(nn.Embedding(3, 4), tokens, torch.zeros(2).long(), torch.zeros(2, 4), StepRandom(0, 0))
