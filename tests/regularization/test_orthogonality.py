import pytest
import torch
from torch import nn

from genbench.models import CNN
from genbench.regularization.orthogonality import Orthogonality
from genbench.rng import StepRandom


def penalty(net, strength=1.0):
    method = Orthogonality(strength=strength)
    method.build(net)
    return method.penalty(net, None, None, None, StepRandom(0, 0))


def test_closed_form_by_singular_values():
    """Σ over the singular values of (σ² − 1)²."""
    net = CNN(input_shape=(1, 8, 8), classes=3, width=4).double()
    values = [torch.linalg.svdvals(p.flatten(1)) for p in net.parameters() if p.ndim > 1]
    expected = sum((s.square() - 1).square().sum() for s in values)
    torch.testing.assert_close(penalty(net, 0.3), 0.3 * expected)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_orthonormal_weights_cost_nothing_and_biases_never(shape):
    net = nn.Linear(*shape).double()
    nn.init.orthogonal_(net.weight)
    assert penalty(net).item() == pytest.approx(0, abs=1e-20)


def test_the_side_of_the_product_changes_a_constant_alone():
    net = nn.Linear(3, 7, bias=False).double()
    value = penalty(net)
    other = (net.weight @ net.weight.T - torch.eye(7)).square().sum()
    assert (other - value).item() == pytest.approx(7 - 3)
    (ours,), (theirs,) = (torch.autograd.grad(t, net.weight) for t in (value, other))
    torch.testing.assert_close(ours, theirs)


def test_what_is_frozen_is_not_penalized():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    net[0].requires_grad_(False)
    torch.testing.assert_close(penalty(net), penalty(net[1]))
