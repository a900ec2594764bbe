import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot
from genbench.measures import example_gradients as module
from genbench.measures.example_gradients import example_gradient_norms


class Tied(nn.Module):
    """A weight that a layer and a function share."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(F.linear(self.first(x).tanh(), self.first.weight))


class Twice(Tied):
    def forward(self, x):
        return self.last(self.first(self.first(x).tanh()))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=False), nn.Tanh(), nn.Linear(5, 3))


def conv():
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def snapshot_of(network, loss=F.cross_entropy, n=7):
    torch.manual_seed(0)
    net = network().double()
    x, y = torch.randn(n, 6, dtype=torch.float64), torch.arange(n) % 3
    return Snapshot(net, loss, [(x[:4], y[:4]), (x[4:], y[4:])])


def by_hand(snapshot, scale, p):
    """Norms of the gradients that plain autograd gives each example by itself."""
    norms = []
    for x, y in snapshot.batches:
        for i in range(len(y)):
            loss = snapshot.loss(snapshot.model(x[i : i + 1]), y[i : i + 1])
            slopes = torch.autograd.grad(
                loss, [dict(snapshot.model.named_parameters())[k] for k in snapshot.parameters]
            )
            norms.append((torch.cat([g.reshape(-1) for g in slopes]) * scale).norm(p))
    return torch.stack(norms)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("network", [mlp, conv, Tied, Twice, lambda: nn.Linear(6, 3)])
def test_norms_are_those_of_the_gradients(network, scaled, p):
    snapshot = snapshot_of(network)
    scale = torch.rand(snapshot.size, dtype=torch.float64) if scaled else torch.ones(snapshot.size, dtype=torch.float64)
    found = example_gradient_norms(snapshot, scale, p=p)
    torch.testing.assert_close(found, by_hand(snapshot, scale, p), rtol=1e-12, atol=0)


@pytest.mark.parametrize("names", [["0"], ["4.bias"], ["0.bias", "2.weight"]])
def test_norms_of_some_of_the_weights(names):
    snapshot = snapshot_of(mlp).select(*names)
    scale = torch.rand(snapshot.size, dtype=torch.float64)
    torch.testing.assert_close(
        example_gradient_norms(snapshot, scale, p=2), by_hand(snapshot, scale, 2), rtol=1e-12, atol=0
    )


def test_no_gradient_of_linear_layers_is_made(monkeypatch):
    monkeypatch.setattr(module, "example_gradients", None)
    snapshot = snapshot_of(mlp)
    assert len(example_gradient_norms(snapshot, snapshot.vector.abs(), p=2)) == 7
    snapshot = snapshot_of(Tied)
    with pytest.raises(TypeError, match="not callable"):
        example_gradient_norms(snapshot, snapshot.vector.abs(), p=2)


def test_a_penalty_in_the_loss_is_part_of_the_gradient():
    torch.manual_seed(0)
    net = mlp().double()
    x, y = torch.randn(5, 6, dtype=torch.float64), torch.arange(5) % 3

    def penalized(output, target):
        return F.cross_entropy(output, target) + 0.1 * net[0].weight.square().sum()

    snapshot = Snapshot(net, penalized, [(x, y)])
    scale = torch.ones(snapshot.size, dtype=torch.float64)
    torch.testing.assert_close(
        example_gradient_norms(snapshot, scale, p=2), by_hand(snapshot, scale, 2), rtol=1e-12, atol=0
    )


def test_a_loss_that_is_no_mean_over_the_examples_is_refused():
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64))
    snapshot = snapshot_of(mlp, weighted)
    with pytest.raises(ValueError, match=r"the mean over its examples .*; accepted: a loss in which examples weigh"):
        example_gradient_norms(snapshot, torch.ones(snapshot.size, dtype=torch.float64), p=2)
