"""Evaluation mode for a while, of networks with ``train`` and ``eval`` of their own."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, hessian_trace
from genbench.module_state import ModuleTensors
from genbench.regularization.self_paced import SelfPaced
from genbench.regularization.swa import estimate_norm_statistics
from genbench.runs import build
from genbench.training.module import evaluate


class Silent(nn.Module):
    """Batch norm that is frozen whatever the mode is; ``train`` and ``eval`` return nothing."""

    classes = 3

    def __init__(self, *, raises: bool = False):
        super().__init__()
        self.layer, self.norm, self.drop, self.head = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3)
        self.raises = raises

    def train(self, mode=True):
        if self.raises:
            raise RuntimeError("train was called")
        super().train(mode)
        self.norm.training = False

    def eval(self):
        if self.raises:
            raise RuntimeError("eval was called")
        self.train(False)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.layer(x))))


def silent(raises: bool) -> tuple[Silent, list[bool]]:
    torch.manual_seed(0)
    net = Silent(raises=raises)
    net.norm.training, net.head.training = False, False
    return net, [m.training for m in net.modules()]


@pytest.mark.parametrize("raises", [False, True])
def test_modes_are_put_back_as_they_were_whatever_train_and_eval_do(raises):
    net, modes = silent(raises)
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    evaluated = net.head(net.norm(net.layer(x)))
    loss = float(F.cross_entropy(evaluated, y).detach())
    assert Snapshot(net, F.cross_entropy, [(x, y)]).mean_loss == pytest.approx(loss, rel=1e-6)
    assert hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value > 0
    assert evaluate(net, [(x, y)])["cross_entropy"] == pytest.approx(loss, rel=1e-6)
    estimate_norm_statistics(net, [(x, y)])
    torch.testing.assert_close(net.norm.running_mean, net.layer(x).mean(0))
    SelfPaced(start=0.5, end=1.0).transform(net, x, y, None)
    assert [m.training for m in net.modules()] == modes


def test_a_network_whose_train_returns_nothing_is_built():
    node = {"_target_": f"{__name__}.Silent"}
    data = SimpleNamespace(tensors=lambda _: (torch.randn(6, 4), torch.randint(3, (6,))), classes=3)
    network = build.build_network(node, data)
    assert isinstance(network, Silent)
    assert network.training


def test_a_recurrent_layer_with_other_tensors_does_not_look_where_they_lie(monkeypatch):
    """As it does on a GPU, to lay its weights side by side; the tensors of a vmap lie nowhere."""
    net = nn.GRU(3, 4)
    found = []
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda self: found.append(self))
    before = set(vars(net))
    tensors = ModuleTensors(net)
    with tensors.replace_tensors({name: 2 * p.detach() for name, p in net.named_parameters()}):
        doubled = net(torch.ones(5, 1, 3))[0]
    assert found == []
    assert set(vars(net)) == before
    assert not torch.equal(net(torch.ones(5, 1, 3))[0], doubled)
