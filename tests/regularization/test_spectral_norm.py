import torch
from torch import nn

from genbench.models import CNN
from genbench.regularization.spectral_norm import SpectralNorm
from genbench.rng import StepRandom


def network():
    torch.manual_seed(0)
    return CNN(input_shape=(1, 8, 8), classes=3, width=4).double()


def exact(net, strength):
    return strength / 2 * sum(torch.linalg.matrix_norm(p.flatten(1), 2) ** 2 for p in net.parameters() if p.ndim > 1)


def penalty(method, net):
    return method.penalty(net, None, None, torch.zeros((), dtype=torch.float64), StepRandom(0, 0))


def close(ours, true, net, **tolerance):
    torch.testing.assert_close(ours, true, **tolerance)
    weights = [p for p in net.parameters() if p.ndim > 1]
    for a, b in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(true, weights), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_value_and_gradient_are_those_of_the_singular_value():
    method, net = SpectralNorm(strength=0.3), network()
    method.build(net)
    close(penalty(method, net), exact(net, 0.3), net)


def test_the_vectors_follow_the_weights():
    """A step of power iteration at a time: exact once the weights rest, and near while they move as in training."""
    method, net = SpectralNorm(strength=0.3).double(), network()
    method.build(net)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(generator=generator)
    assert penalty(method, net) < 0.9 * exact(net, 0.3)  # the old vectors do not fit
    for _ in range(300):
        method.after_step(list(net.parameters()), 0.0)
    close(penalty(method, net), exact(net, 0.3), net)
    for _ in range(50):
        with torch.no_grad():
            for p in net.parameters():
                p += 0.01 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        method.after_step(list(net.parameters()), 0.0)
        torch.testing.assert_close(penalty(method, net), exact(net, 0.3), rtol=1e-2, atol=0)


def test_it_shrinks_the_largest_singular_value_alone():
    net = nn.Linear(3, 3, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    method = SpectralNorm(strength=0.5)
    method.build(net)
    penalty(method, net).backward()
    torch.testing.assert_close(net.weight.grad, torch.diag(torch.tensor([1.5, 0.0, 0.0])).double())
