"""The curvature matrices as linear operators, for our solvers and for SciPy's."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from torch import nn

from genbench.measures import Snapshot, fisher_trace, gauss_newton_trace
from tests.helpers.networks import build, dense_gauss_newton, dense_hessian

NAMES = ("hessian", "gauss_newton", "fisher")


def dense(name: str, net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return dense_hessian(net, x, y) if name == "hessian" else dense_gauss_newton(net, x, y)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("network", ["mlp", "conv", "gru"])
def test_scipy_finds_the_eigenvalues_of_the_dense_matrix(name, network):
    net, x, y = build(network)
    operator = getattr(Snapshot(net, F.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])]), name).to_scipy()
    assert operator.dtype == np.float64
    exact = np.linalg.eigvalsh(dense(name, net, x, y).numpy())
    assert eigsh(operator, k=3, which="LA", return_eigenvectors=False) == pytest.approx(exact[-3:], rel=1e-8)
    largest = np.sort(exact[np.argsort(np.abs(exact))[-3:]])
    assert np.sort(eigsh(operator, k=3)[0]) == pytest.approx(largest, rel=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_product_with_columns_is_the_products_with_each(name):
    net, x, y = build("mlp")
    operator = getattr(Snapshot(net, F.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])]), name)
    columns = torch.randn(operator.shape[0], 4, dtype=torch.float64)
    for _ in range(2):  # with and without kept graphs
        found = operator.matmat(columns)
        assert found.shape == columns.shape
        for product, column in zip(found.T, columns.T, strict=True):
            assert torch.equal(product, operator.matvec(column))
    np.testing.assert_array_equal(operator.to_scipy() @ columns.numpy(), found.numpy())
    np.testing.assert_allclose(found, dense(name, net, x, y) @ columns, rtol=1e-9, atol=1e-12)


def test_columns_share_one_pass_over_the_data():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    passes = []
    with snapshot.measuring(), snapshot.reporting(type("Progress", (), {"tick": lambda _: passes.append(1)})()):
        snapshot.hessian.matmat(torch.randn(snapshot.size, 5))
    assert len(passes) == 1


def probabilities(f: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(f.log(), t)


@pytest.mark.parametrize(
    ("last", "loss"), [(nn.Softmax(1), probabilities), (nn.LogSoftmax(1), F.nll_loss), (nn.Identity(), F.cross_entropy)]
)
def test_fisher_is_of_the_probabilities_however_they_are_given(last, loss):
    net, x, y = build("mlp")
    fisher = Snapshot(nn.Sequential(net, last), loss, [(x, y)]).fisher
    exact = dense_gauss_newton(net, x, y)
    v = torch.randn(len(exact), dtype=torch.float64)
    torch.testing.assert_close(fisher.matvec(v), exact @ v, rtol=1e-8, atol=1e-12)


def test_fisher_does_not_depend_on_the_loss():
    net, x, y = build("mlp")
    smooth = Snapshot(net, lambda f, t: 3 * F.cross_entropy(f, t, label_smoothing=0.2), [(x, y)])
    trace = float(smooth.fisher.matmat(torch.eye(smooth.size)).trace())
    assert trace == pytest.approx(fisher_trace(smooth).value, rel=1e-9)
    assert trace == pytest.approx(gauss_newton_trace(smooth, deflation=smooth.size).value / 3, rel=1e-9)


def test_fisher_of_two_classes_from_one_logit():
    torch.manual_seed(0)
    net, x = nn.Linear(3, 1).double(), torch.randn(9, 3, dtype=torch.float64)
    target = torch.randint(2, (9, 1)).double()
    fisher = Snapshot(net, F.binary_cross_entropy_with_logits, [(x, target)]).fisher
    p = net(x).detach().sigmoid()
    inputs = torch.cat([x, torch.ones(9, 1)], 1)
    exact = (inputs * (p * (1 - p))).T @ inputs / 9
    torch.testing.assert_close(fisher.matmat(torch.eye(4, dtype=torch.float64)), exact)


def test_operands_of_another_shape_are_refused():
    net, x, y = build("mlp")
    operator = Snapshot(net, F.cross_entropy, [(x, y)]).hessian
    size = operator.shape[0]
    with pytest.raises(ValueError, match=rf"vector has shape \(3,\); accepted: \({size},\)"):
        operator.matvec(torch.ones(3))
    with pytest.raises(ValueError, match=rf"matrix has shape \({size},\); accepted: \({size}, columns\)"):
        operator.matmat(torch.ones(size))


def test_a_network_without_probabilities_has_no_fisher_matrix():
    net, x, _ = build("mlp")
    with pytest.raises(ValueError, match="the Fisher matrix is undefined: the targets are no class labels"):
        _ = Snapshot(net, F.mse_loss, [(x, torch.randn(24, 3, dtype=torch.float64))]).fisher


@pytest.mark.parametrize("name", NAMES)
def test_group_norm_after_a_frozen_convolution(name):
    """torch's backward pass of a group norm dies if its input is laid out otherwise and needs no gradient."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 3)]
    net = nn.Sequential(*layers).double()
    layers[0].requires_grad_(False)
    x, y = torch.randn(6, 1, 5, 5, dtype=torch.float64), torch.arange(6) % 3
    operator = getattr(Snapshot(net, F.cross_entropy, [(x, y)]), name)
    v = torch.randn(operator.shape[0], dtype=torch.float64)
    head = nn.Sequential(*layers[1:])  # the same weights, by torch's own convolution
    torch.testing.assert_close(operator.matvec(v), dense(name, head, layers[0](x).detach(), y) @ v)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_of_a_network_in_half_precision_are_of_float32(name, dtype):
    net, x, y = build("mlp")
    half = copy.deepcopy(net).to(dtype)
    net.load_state_dict(half.state_dict())  # the rounded weights in float64
    inputs = x.to(dtype)
    operator = getattr(Snapshot(half, F.cross_entropy, [(inputs, y)]), name)
    v = torch.randn(operator.shape[0], dtype=torch.float64)
    exact = dense(name, net, inputs.double(), y) @ v
    assert float((operator.matvec(v) - exact).norm() / exact.norm()) < 1e-5
    assert float((torch.from_numpy(operator.to_scipy() @ v.numpy()) - exact).norm() / exact.norm()) < 1e-5
    assert all(p.dtype == dtype for p in half.parameters())
