import pytest
import torch
from torch import nn

from genbench.models.random_subspace import RandomSubspace as Subspace
from genbench.regularization.random_subspace import RandomSubspace
from genbench.rng import StepRandom
from tests.helpers.packs import compare


def dense(subspace, size, dimension):
    return torch.stack([subspace.vector(e) for e in torch.eye(dimension, dtype=torch.float64)], 1)


@pytest.mark.parametrize(("size", "dimension"), [(23, 5), (20, 5), (7, 7), (9, 1)])
def test_columns_are_orthonormal_and_products_those_of_the_dense_matrix(size, dimension):
    subspace = Subspace.drawn(size, dimension, seed=3)
    p, v = dense(subspace, size, dimension), torch.randn(size, dtype=torch.float64)
    torch.testing.assert_close(p.T @ p, torch.eye(dimension, dtype=torch.float64))
    torch.testing.assert_close(subspace.coordinates(v), p.T @ v)
    torch.testing.assert_close(subspace.projected(v), p @ p.T @ v)
    assert set(subspace.sizes.tolist()) <= {size // dimension, -(-size // dimension)}


def test_a_seed_is_a_subspace():
    first, again, other = (Subspace.drawn(50, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.column, again.column)
    assert torch.equal(first.sign, again.sign)
    assert not torch.equal(first.column, other.column)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_weights_stay_in_the_subspace_and_move_as_its_coordinates_do(optimizer):
    """Training z of w⁰ + Pz by itself takes the same steps; Adam's are those of z/√n."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(20, 3).double(), torch.randint(2, (20,))
    weights = list(net.parameters())
    start = torch.cat([p.detach().reshape(-1) for p in weights]).clone()
    method = RandomSubspace(dimension=4, seed=0)
    method.build(net)
    subspace = Subspace.drawn(len(start), 4, seed=0)
    scale = subspace.sizes.double().sqrt() if optimizer is torch.optim.Adam else torch.ones(4).double()
    z = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    small = {"eps": 1e-30} if optimizer is torch.optim.Adam else {}
    ours, theirs = optimizer(weights, lr=0.05, **small), optimizer([z], lr=0.05, **small)

    def loss(vector):
        parts = dict(zip(dict(net.named_parameters()), vector.split([p.numel() for p in weights]), strict=True))
        state = {name: part.view_as(p) for (name, part), p in zip(parts.items(), weights, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(net, state, (x,)), y)

    for step in range(10):
        gradients = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), weights)
        for p, g in zip(weights, method.gradient(weights, gradients, StepRandom(0, step)), strict=True):
            p.grad = g
        ours.step()
        method.after_step(weights, step / 10)
        theirs.zero_grad()
        loss(start + subspace.vector(scale * z)).backward()
        theirs.step()
    moved = torch.cat([p.detach().reshape(-1) for p in weights]) - start
    torch.testing.assert_close(moved, subspace.vector(scale * z.detach()), rtol=1e-7, atol=1e-10)
    assert moved.norm() > 0.01
    assert (moved - subspace.projected(moved)).norm() < 1e-12 * moved.norm() + 1e-14


def test_frozen_weights_do_not_count():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    method = RandomSubspace(dimension=2, seed=0)
    method.build(net)
    assert len(method.column) == 10


def test_packed_and_by_itself(configure):
    chosen = (
        "mlp",
        "random_subspace",
        "adam",
        "constant",
        torch.float64,
        "regularization.random_subspace.dimension=40",
    )
    assert max(compare(configure, *chosen)) < 1e-9


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="random_subspace: dimension is 0"):
        RandomSubspace(dimension=0, seed=0)
    with pytest.raises(ValueError, match="dimension is 7; accepted: at most 6, the number of trainable weights"):
        RandomSubspace(dimension=7, seed=0).build(nn.Linear(2, 2))
