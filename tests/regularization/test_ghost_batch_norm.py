import pytest
import torch
from torch import nn

from genbench.models import CNN, GRU, MLP, Linear, Normalization
from genbench.models.slots import frozen_norm_statistics
from genbench.regularization.ghost_batch_norm import GhostBatchNorm

NORMS = nn.BatchNorm1d | nn.BatchNorm2d


def perturbed(net):
    """Give the scales and shifts of every norm random values."""
    for module in net.modules():
        if isinstance(module, NORMS):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net


@pytest.mark.parametrize(("model", "shape"), [(MLP, (1, 40)), (CNN, (1, 40)), (CNN, (1, 8, 8)), (GRU, (1, 40))])
def test_each_ghost_batch_trains_as_a_batch_of_its_own_and_running_statistics_follow_in_turn(model, shape):
    torch.manual_seed(0)
    net = perturbed(GhostBatchNorm(size=4).build(model(input_shape=shape, classes=3, width=6).double()))
    assert not any(isinstance(m, Normalization) for m in net.modules())
    torch.manual_seed(0)
    plain = perturbed(model(input_shape=shape, classes=3, width=6, normalization="batch_norm").double())
    x = torch.randn(12, *shape, dtype=torch.float64) * torch.arange(1, 13).view(-1, *[1] * len(shape))
    output = net(x)
    expected = torch.cat([plain(part) for part in x.split(4)])
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = dict(net.named_buffers()), dict(plain.named_buffers())
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(list(ours.values()), list(theirs.values()), rtol=1e-10, atol=1e-12)
    grads = torch.autograd.grad(output.square().sum(), list(net.parameters()))
    others = torch.autograd.grad(expected.square().sum(), list(plain.parameters()))
    torch.testing.assert_close(grads, others, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net.eval()(x[:3]), plain.eval()(x[:3]))  # of any number


def test_a_ghost_batch_as_large_as_the_batch_is_batch_normalization_and_a_smaller_one_is_not():
    x = torch.randn(8, 1, 40, dtype=torch.float64)
    found = []
    for size in (8, 4):
        torch.manual_seed(1)
        found.append(GhostBatchNorm(size=size).build(MLP(input_shape=(1, 40), classes=3).double())(x))
    torch.manual_seed(1)
    expected = MLP(input_shape=(1, 40), classes=3, normalization="batch_norm").double()(x)
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found[1], expected, atol=1e-2)


def test_a_pass_that_does_not_count_leaves_the_running_statistics():
    net = GhostBatchNorm(size=2).build(MLP(input_shape=(1, 4), classes=2))
    before = [buffer.clone() for buffer in net.buffers()]
    with frozen_norm_statistics(net):
        net(torch.randn(4, 1, 4))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), before, strict=True))


def test_bad_input():
    net = GhostBatchNorm(size=4).build(MLP(input_shape=(1, 4), classes=2))
    with pytest.raises(
        ValueError, match=r"^regularization ghost_batch_norm: size is 4, which does not divide a batch of 6 examples;"
    ):
        net(torch.randn(6, 1, 4))
    with pytest.raises(ValueError, match="ghost_batch_norm: size is 1; accepted: an integer of at least 2"):
        GhostBatchNorm(size=1)
    with pytest.raises(ValueError, match=r"^regularization GhostBatchNorm: Linear has no free normalization slots$"):
        GhostBatchNorm(size=2).build(Linear(input_shape=(1, 4), classes=2))
