"""Convolutions as products of matrices: the same numbers, derivatives included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import genbench.im2col as module
from genbench.im2col import Im2col
from genbench.measures import Snapshot
from tests.helpers.networks import dense_hessian

SETTINGS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"stride": 2, "padding": 2, "dilation": 2},
    {"padding": "same"},
    {"groups": 2},
    {"bias": False},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_forward_and_gradients(dims, settings):
    torch.manual_seed(0)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](4, 6, 3, **settings).double()
    x = torch.randn(5, 4, *[7, 6, 5][:dims], dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    plain = layer(x)
    with Im2col():
        ours = layer(x)
    torch.testing.assert_close(ours, plain)
    weights = torch.randn_like(plain)
    expected = torch.autograd.grad((plain.sin() * weights).sum(), inputs)
    found = torch.autograd.grad((ours.sin() * weights).sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_it_is_used_where_it_may_be(monkeypatch):
    calls = []
    own = module._convolution
    monkeypatch.setattr(module, "_convolution", lambda *a, **k: calls.append(own(*a, **k) is not None) or own(*a, **k))
    x = torch.randn(3, 4, 8)
    with Im2col():
        nn.Conv1d(4, 2, 3)(x)
        nn.Conv1d(4, 2, 3, groups=2)(x)
        nn.Conv1d(4, 2, 3)(x[0])  # one example without its batch dimension
        monkeypatch.setattr(module, "_LARGEST", 10)
        nn.Conv1d(4, 2, 3)(x)
    assert calls == [True, False, False, False]


def test_asymmetric_images():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1))
    x = torch.randn(2, 2, 9, 8)
    with Im2col():
        ours = layer(x)
    torch.testing.assert_close(ours, layer(x))


def test_hessian_of_a_net_of_images():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(2, 2, 2), nn.Flatten(), nn.Linear(8, 3)
    )
    net, x, y = net.double(), torch.randn(6, 1, 6, 6, dtype=torch.float64), torch.randint(3, (6,))
    h = dense_hessian(net, x, y)
    v = torch.randn(len(h), dtype=torch.float64)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    torch.testing.assert_close(snapshot.hessian.matvec(v), h @ v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_norm_is_right_when_differentiated_twice(dim):
    """torch's own kernel takes the norm for a constant of the first derivative: torch.autograd.gradgradcheck fails."""
    torch.manual_seed(0)
    v, g = torch.randn(4, 3).double(), torch.rand(()).double() + 1
    g = g if dim < 0 else g + torch.rand((4, 1) if dim == 0 else (1, 3)).double()
    with Im2col():
        torch.testing.assert_close(
            torch._weight_norm(v, g, dim), g * v / (v.norm() if dim < 0 else v.norm(dim=1 - dim, keepdim=True))
        )
        inputs = v.requires_grad_(), g.requires_grad_()
        assert torch.autograd.gradgradcheck(lambda v, g: torch._weight_norm(v, g, dim), inputs)
