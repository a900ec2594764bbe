import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench import numpy_linear
from genbench.measures import Snapshot, hessian_eigenvalues, sam_sharpness
from genbench.numpy_linear import NumpyLinear
from genbench.process import blas


@pytest.fixture
def products(monkeypatch):
    """The number of products by NumPy, of any size."""
    monkeypatch.setattr(numpy_linear, "_LEAST", 1)
    calls = []
    own = numpy_linear._multiplied
    monkeypatch.setattr(numpy_linear, "_multiplied", lambda a, b: calls.append(1) or own(a, b))
    return calls


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_all_derivatives_are_those_of_torch(products, shape, biased):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    layer = nn.Linear(4, 3, bias=biased).double()
    given = (x, *layer.parameters())

    def output(x, *weights):
        with NumpyLinear():
            return F.linear(x, *weights).sin()  # so that second derivatives are not zero

    assert torch.allclose(output(*given), layer(x).sin(), rtol=1e-14, atol=1e-14)
    assert len(products) == 1
    assert torch.autograd.gradcheck(output, given)
    assert torch.autograd.gradgradcheck(output, given)


def test_matrices_in_any_order_and_values_that_are_not_finite(products):
    base = torch.randn(12, 12, dtype=torch.float64)
    base[0, 0] = torch.inf
    for x in (base, base.T, base[::2, ::2], base[:, :1].expand(12, 6)):
        weight = torch.randn(7, x.shape[1], dtype=torch.float64)
        with NumpyLinear(), np.errstate(all="raise"):
            found = F.linear(x, weight)
        assert torch.allclose(found, F.linear(x, weight), equal_nan=True)
    assert len(products) == 4


def test_what_torch_watches_it_computes_itself(products):
    from torch.utils.flop_counter import FlopCounterMode

    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    with NumpyLinear():
        batched = torch.vmap(lambda w: F.linear(x, w))(weight.expand(2, 3, 4))
        _, forward = torch.func.jvp(lambda w: F.linear(x, w), (weight,), (weight,))
        with FlopCounterMode(display=False) as counter:
            F.linear(x, weight)
        F.linear(x.to(torch.bfloat16), weight.to(torch.bfloat16))
        F.linear(x[0], weight)
        negative = F.linear(torch.complex(x, x).conj().imag, weight)  # a view with its sign pending
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert F.linear(x, weight).dtype is torch.bfloat16
    assert torch.equal(negative, F.linear(-x, weight))
    assert torch.equal(batched[0], F.linear(x, weight))
    assert torch.allclose(forward, F.linear(x, weight))
    assert counter.get_total_flops() == 2 * 5 * 4 * 3
    assert products == []


def test_measures_use_it_where_it_is_faster(products, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    batches = [(torch.randn(20, 4), torch.arange(20) % 3)]
    found = {}
    for serves in (False, True):
        monkeypatch.setattr(blas, "serves_packs", lambda serves=serves: serves)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        snapshot = Snapshot(model, F.cross_entropy, batches)
        found[serves] = hessian_eigenvalues(snapshot)["lambda_1"].value, sam_sharpness(snapshot).value
        assert bool(products) is serves
    assert found[True] == pytest.approx(found[False], rel=1e-5)


def test_a_network_may_checkpoint_activations_and_differentiate_many_vectors_in_its_forward_pass(products):
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)

    def checkpointed():
        return checkpoint(inner, x, use_reentrant=False)

    def jacobian():
        out = inner(x)
        rows = torch.eye(out.numel(), dtype=out.dtype).view(-1, *out.shape)
        return torch.autograd.grad(out, x, rows, is_grads_batched=True, create_graph=True)[0].square()

    for output in (checkpointed, jacobian):
        plain = torch.autograd.grad(output().sum(), [*inner.parameters()], allow_unused=True)
        with NumpyLinear():
            value = output()
        found = torch.autograd.grad(value.sum(), [*inner.parameters()], allow_unused=True)
        for a, b in zip(found, plain, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, rtol=1e-8, atol=1e-12)
    assert products  # the Jacobian's first pass
