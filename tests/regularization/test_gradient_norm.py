import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.models import CNN, MLP, use_draw
from genbench.regularization import BatchNorm, GroupNorm, LayerNorm
from genbench.regularization.gradient_norm import GradientNorm
from genbench.rng import StepRandom


def test_closed_form_of_logistic_regression():
    """∂L/∂W = mean (p − e_y) xᵀ, of each block."""
    net, x, y = nn.Linear(5, 3, bias=False).double(), torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 3
    errors = net(x).softmax(1) - F.one_hot(y, 3)
    for size in (6, 2):
        slopes = torch.stack([e.T @ part / size for e, part in zip(errors.split(size), x.split(size), strict=True)])
        value = GradientNorm(strength=0.3, size=size).penalty(net, x, y, net(x), StepRandom(0, 0))
        torch.testing.assert_close(value, 0.3 * slopes.square().sum((1, 2)).mean())
    whole = GradientNorm(strength=0.3).penalty(net, x, y, net(x), StepRandom(0, 0))
    torch.testing.assert_close(whole, GradientNorm(strength=0.3, size=6).penalty(net, x, y, net(x), StepRandom(0, 0)))


@pytest.mark.parametrize("norm", ["none", "batch_norm", "layer_norm", "group_norm"])
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_are_those_of_double_backward(norm, soft):
    torch.manual_seed(0)
    net = CNN(input_shape=(1, 40), classes=3, width=4, activation="tanh").double()
    fill = {"batch_norm": BatchNorm(), "layer_norm": LayerNorm(), "group_norm": GroupNorm(groups=2)}.get(norm)
    net = net if fill is None else fill.build(net)
    x, y = torch.randn(8, 1, 40, dtype=torch.float64), torch.arange(8) % 3
    y = torch.rand(8, 3, dtype=torch.float64).softmax(1) if soft else y
    params = [p for name, p in net.named_parameters() if not name.startswith("head.bias")]
    net.head.bias.requires_grad_(False)
    method, output = GradientNorm(strength=0.3, size=4), net(x)
    counted = [buffer.clone() for buffer in net.buffers()]
    value = method.penalty(method.build(net), x, y, output, StepRandom(0, 0))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), counted, strict=True))
    blocks = [
        torch.autograd.grad(F.cross_entropy(net(a), b), params, create_graph=True)
        for a, b in zip(x.split(4), y.split(4), strict=True)
    ]
    true = 0.3 * sum(g.square().sum() for block in blocks for g in block) / 2
    torch.testing.assert_close(value, true)
    ours = torch.autograd.grad(value, params, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(true, params, allow_unused=True, materialize_grads=True)
    assert max(float(g.abs().max()) for g in ours) > 1e-3
    torch.testing.assert_close(ours, theirs)


def test_a_step_against_the_gradient_s_norm_is_that_of_barrett_and_dherin():
    """One step of gradient descent on L and the flow of L + (η/4)‖∇L‖² for time η differ by O(η³): halving η divides
    the difference by eight. Of the flow of L alone it is four."""

    def apart(lr, strength):
        torch.manual_seed(0)
        net = MLP(input_shape=(1, 3), classes=2, width=4, activation="tanh").double()
        x, y = torch.randn(6, 1, 3, dtype=torch.float64), torch.arange(6) % 2
        params = list(net.parameters())
        start = [p.detach().clone() for p in params]
        grads = torch.autograd.grad(F.cross_entropy(net(x), y), params)
        stepped = torch.cat([(p - lr * g).flatten() for p, g in zip(start, grads, strict=True)])
        method, steps = GradientNorm(strength=strength), 40
        for _ in range(steps):  # the midpoint rule, whose error is of order (η/steps)²
            base = [p.detach().clone() for p in params]
            for scale in (0.5, 1.0):
                loss = F.cross_entropy(net(x), y) + method.penalty(net, x, y, net(x), StepRandom(0, 0))
                slope = torch.autograd.grad(loss, params)
                with torch.no_grad():
                    for p, b, g in zip(params, base, slope, strict=True):
                        p.copy_(b - scale * lr / steps * g)
        flowed = torch.cat([p.detach().flatten() for p in params])
        return float((stepped - flowed).norm())

    with_it = apart(0.2, 0.2 / 4) / apart(0.1, 0.1 / 4)
    without = apart(0.2, 0.0) / apart(0.1, 0.0)
    assert with_it == pytest.approx(8, rel=0.1)
    assert without == pytest.approx(4, rel=0.1)


def test_bad_input():
    with pytest.raises(ValueError, match="GradientNorm: strength is -1"):
        GradientNorm(strength=-1)
    with pytest.raises(ValueError, match="gradient_norm: size is 0; accepted: an integer of at least 1"):
        GradientNorm(strength=1, size=0)
    net, x = nn.Linear(5, 3), torch.randn(6, 5)
    with pytest.raises(
        ValueError, match=r"^regularization gradient_norm: size is 4, which does not divide a batch of 6 examples;"
    ):
        GradientNorm(strength=1, size=4).penalty(net, x, torch.zeros(6).long(), net(x), StepRandom(0, 0))
    net = MLP(input_shape=(1, 4), classes=3, dropout=0.5)
    use_draw(net, draw := StepRandom(0, 0))
    x, y = torch.randn(6, 1, 4), torch.zeros(6).long()
    assert GradientNorm(strength=1, size=6).penalty(net, x, y, net(x), draw) > 0
    with pytest.raises(ValueError, match="gradient_norm: size is 3 with dropout or stochastic depth, whose masks are"):
        GradientNorm(strength=1, size=3).penalty(net, x, y, net(x), draw)
