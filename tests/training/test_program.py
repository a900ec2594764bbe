"""Operations that take the place of others in a traced step give the same numbers, in the same order in memory."""

import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_info, threadpool_limits
from torch.fx.experimental.proxy_tensor import make_fx

from genbench.models import CNN, MLP
from genbench.process import blas
from genbench.runs.build import threads_of
from genbench.training import program
from genbench.training.stack import Stack

aten = torch.ops.aten


@pytest.fixture(params=[False, True], ids=["products of torch", "products of NumPy"])
def products(request, monkeypatch):
    monkeypatch.setattr(blas, "serves_packs", lambda: request.param)


def laid_out(shape, order):
    """Normal numbers of this shape that lie in memory with its axes in this order."""
    dense = torch.randn([shape[axis] for axis in order], dtype=torch.float64)
    return dense.permute([order.index(axis) for axis in range(len(shape))])


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("kind", ["_softmax", "_log_softmax"])
def test_softmax_over_the_last_dimension(kind, order):
    x, gradient = laid_out((3, 7, 5), order), laid_out((3, 7, 5), (0, 2, 1))
    forward, backward = getattr(aten, kind).default, getattr(aten, f"{kind}_backward_data").default
    expected = forward(x, 2, False)
    for mine, theirs, args in (
        (program._SOFTMAX[forward], forward, (x, 2, False)),
        (program._SOFTMAX[forward], forward, (x, 1, False)),
        (program._SOFTMAX[backward], backward, (gradient, expected, 2, torch.float64)),
    ):
        torch.testing.assert_close(mine(*args), theirs(*args), rtol=1e-13, atol=1e-14)
    assert program._SOFTMAX[forward](x, 2, False).stride() == expected.stride()


def test_products_of_any_layout():
    a, b, bias = torch.randn(4, 6, 5).double(), torch.randn(4, 5, 3).double(), torch.randn(4, 1, 3).double()
    for left in (a, laid_out((4, 6, 5), (0, 2, 1)), laid_out((4, 6, 5), (2, 1, 0)), a[:, :1].expand(4, 6, 5)):
        for right in (b, laid_out((4, 5, 3), (0, 2, 1)), b[:, :, :1].expand(4, 5, 3)):
            found = program._product(left, right)
            torch.testing.assert_close(found, torch.bmm(left, right), rtol=1e-13, atol=1e-13)
            assert found.stride() == torch.bmm(left, right).stride()
            with_bias = program._product_and_bias(bias, left, right)
            torch.testing.assert_close(with_bias, torch.baddbmm(bias, left, right), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_a_step_and_its_gradients(products, kind):
    networks = [kind(input_shape=(1, 40), classes=10).double() for _ in range(3)]
    stack = Stack(networks)
    x, y = torch.randn(3, 8, 1, 40).double(), torch.arange(24).view(3, 8) % 10

    def objective(weights, x, y):
        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in weights]
            losses = stack.map(lambda network, x, y: F.cross_entropy(network(x), y), x, y, weights=leaves)
            return losses.detach(), *torch.autograd.grad(losses.sum(), leaves)

    found = stack.traced(objective, x, y)(x, y)
    for index, network in enumerate(networks):
        loss = F.cross_entropy(network(x[index]), y[index])
        expected = [loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))]
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine[index], theirs, rtol=1e-10, atol=1e-13)


def _adds_in_place():
    number = torch.scalar_tensor(0.0, dtype=torch.float64)
    number.view(1).add_(1)
    return number.expand(3, 3)


def _transposed():
    return torch.arange(9.0, dtype=torch.float64).view(3, 3).permute(-1, 0)


@pytest.mark.parametrize("constant", [_adds_in_place, _transposed])
def test_a_step_makes_its_constants_as_its_network_does(constant):
    networks = [torch.nn.Linear(3, 3).double() for _ in range(2)]
    stack, x = Stack(networks), torch.randn(2, 4, 3).double()

    def function(weights, x):
        return stack.map(lambda network, x: network(x) @ constant(), x, weights=weights)

    traced = stack.traced(function, x)
    for _ in range(3):
        torch.testing.assert_close(traced(x), function(stack.weights, x))


def test_what_another_operation_reads_is_not_overwritten(products):
    def twice(a, b):
        out = torch.bmm(a, b)
        rows = torch.relu(out)
        return rows.sum(2) + out.sum(2), torch.relu(torch.bmm(a, b).permute(0, 2, 1)), torch.relu(a)

    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    traced = program.quickened(make_fx(twice)(a, b))
    kept = a.clone()
    for mine, theirs in zip(traced(a, b), twice(a, b), strict=True):
        torch.testing.assert_close(mine, theirs)
        assert mine.stride() == theirs.stride()
    assert torch.equal(a, kept)
    used = [str(node.target) for node in traced.graph.nodes]
    assert (used.count("aten.relu_.default"), used.count("aten.relu.default")) == (1, 2)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_the_gradient_of_a_relu_in_another_order(products, order):
    def back(gradient, output):
        return aten.threshold_backward.default(gradient, output, 0)

    gradient, output = laid_out((2, 3, 4), order), torch.relu(laid_out((2, 3, 4), (0, 2, 1)))
    kept = gradient.clone()
    found = program.quickened(make_fx(back)(gradient, output))(gradient, output)
    assert torch.equal(found, back(gradient, output))
    assert torch.equal(gradient, kept)


def test_numpy_serves_in_one_thread_alone(monkeypatch):
    monkeypatch.setattr(blas, "_is_amd", lambda: True)
    with threadpool_limits(1, user_api="blas"):
        assert blas.serves_packs() == ("openblas" in str(threadpool_info()))
        monkeypatch.setattr(blas, "_is_amd", lambda: False)
        assert not blas.serves_packs()
    monkeypatch.setattr(blas, "_is_amd", lambda: True)
    with threadpool_limits(2, user_api="blas"):
        assert not blas.serves_packs()


def test_a_run_limits_the_threads_of_numpy(configure):
    config = {**configure(), "threads": 1}
    with threadpool_limits(2, user_api="blas"), threads_of(config):
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
