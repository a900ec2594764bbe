import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.models import CNN, MLP, use_draw
from genbench.regularization.jacobian import Jacobian
from genbench.rng import StepRandom


def penalty(net, x, draw=None, strength=2.0, projections=1):
    return Jacobian(strength=strength, projections=projections).penalty(net, x, None, net(x), draw or StepRandom(0, 0))


def exact(net, x):
    """mean ‖J‖_F², an entry of the Jacobian at a time, and its gradient by the parameters."""
    rows = [
        torch.autograd.grad(output, x, create_graph=True)[0]
        for x in (x.clone().requires_grad_(),)
        for output in net(x).sum(0)
    ]
    norm = torch.stack(rows).square().sum() / len(x)
    return norm, torch.autograd.grad(norm, list(net.parameters()), allow_unused=True)


def test_it_is_unbiased_for_the_frobenius_norm():
    net = MLP(input_shape=(1, 5), classes=4, width=6, activation="tanh").double()
    x = torch.randn(3, 1, 5, dtype=torch.float64)
    norm, grads = exact(net, x)
    found = [penalty(net, x, StepRandom(0, step)) for step in range(1500)]
    slopes = [torch.autograd.grad(value, list(net.parameters()), allow_unused=True)[0] for value in found]
    for samples, true in ((torch.stack(found).detach(), norm.detach()), (torch.stack(slopes), grads[0])):
        error = (samples.mean(0) - true) / (samples.std(0) / len(samples) ** 0.5)
        assert error.abs().max() < 4.5


def test_where_the_jacobian_is_orthogonal_any_projection_is_exact():
    net, x = nn.Linear(4, 4, bias=False).double(), torch.randn(6, 4, dtype=torch.float64)
    nn.init.orthogonal_(net.weight)
    with torch.no_grad():
        net.weight *= 3
    assert penalty(net, x).item() == pytest.approx(4 * 9)  # ‖3Q‖_F²
    assert penalty(net, x, strength=0.5, projections=3).item() == pytest.approx(9)


def test_more_projections_vary_less():
    net, x = nn.Linear(3, 8).double(), torch.randn(1, 3, dtype=torch.float64)
    one, many = (
        torch.stack([penalty(net, x, StepRandom(0, step), projections=n).detach() for step in range(400)]).std()
        for n in (1, 16)
    )
    assert one / many == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("norm", ["none", "batch_norm"])
def test_the_pass_of_its_own_is_that_of_the_step(norm):
    """Value and gradient of double backward through the step's own pass, whose batch statistics are counted once."""
    torch.manual_seed(0)
    net = CNN(input_shape=(1, 40), classes=3, width=4, dropout=0.5, normalization=norm).double()
    use_draw(net, draw := StepRandom(1, 2))
    x = torch.randn(8, 1, 40, dtype=torch.float64, requires_grad=True)
    output = net(x)
    v = F.normalize(draw.normal("jacobian.0", 8, 3).double())
    (slope,) = torch.autograd.grad(output, x, v, create_graph=True)
    true = 3 * slope.square().sum(2).mean()
    counted = [buffer.clone() for buffer in net.buffers()]
    value = Jacobian(strength=2.0, projections=1).penalty(net, x.detach(), None, output, draw)
    torch.testing.assert_close(value, true)
    params = [p for name, p in net.named_parameters() if name != "head.bias"]  # of which the Jacobian knows nothing
    for ours, theirs in zip(torch.autograd.grad(value, params), torch.autograd.grad(true, params), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), counted, strict=True))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="Jacobian: strength is -1"):
        Jacobian(strength=-1, projections=1)
    with pytest.raises(ValueError, match="jacobian: projections is 0; accepted: an integer of at least 1"):
        Jacobian(strength=1, projections=0)


def test_tokens_are_refused():
    tokens, method = torch.zeros(2, 5, dtype=torch.long), Jacobian(strength=1, projections=1)
    with pytest.raises(ValueError, match=r"Jacobian: differentiates by the inputs, which tokens do not allow"):
        method.penalty(nn.Embedding(3, 4), tokens, torch.zeros(2).long(), torch.zeros(2, 4), StepRandom(0, 0))
