"""Optimizers that are trained with one by one: what they do, and that a run continues with them bit for bit."""

import sys
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from genbench import config
from genbench.checks import ConfigError
from genbench.config import folder
from genbench.regularization.base import Method
from genbench.runs import build, execute, packing
from genbench.training import AtomicCheckpointIO, Checkpoint
from genbench.training.muon import muon
from tests.helpers.choices import SEPARATE
from tests.helpers.equality import same
from tests.helpers.networks import network
from tests.helpers.runs import Blobs


def chosen(name):
    return build.make(yaml.safe_load((folder() / "optimizer" / f"{name}.yaml").read_text()))


def descended(net, optimizer, x):
    """The change of each parameter in a step, and its gradient."""
    before = [p.detach().clone() for p in net.parameters()]
    net(x).square().sum().backward()
    optimizer.step()
    return [(p.detach() - was, p.grad) for p, was in zip(net.parameters(), before, strict=True)]


def test_lion_moves_every_weight_by_its_learning_rate():
    net, x = nn.Linear(4, 3).double(), torch.randn(7, 4, dtype=torch.float64)
    for step, gradient in descended(net, chosen("lion")(net.parameters()), x):
        torch.testing.assert_close(step, -0.003 * gradient.sign())


@pytest.mark.parametrize("rows", [6, 24])
def test_muon_orthogonalizes_the_update_of_hidden_matrices(rows):
    """Its five iterations leave singular values around 1 (0.68 to 1.13 in the author's words), and the wider side's
    share of them scales the step; head and biases make the first step of Adam."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, rows), nn.Tanh(), nn.Linear(rows, 3)).double()
    optimizer = muon([{"params": list(net.parameters())}], lr=0.02, adamw_lr=0.001)
    (hidden, gradient), *others = descended(net, optimizer, torch.randn(50, 12, dtype=torch.float64))
    values = torch.linalg.svdvals(hidden) / 0.02 / max(1, rows / 12) ** 0.5
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.2
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    assert float((-hidden * (u @ v)).sum() / hidden.norm() / (u @ v).norm()) > 0.97
    for step, gradient in others:
        torch.testing.assert_close(step, -0.001 * gradient.sign(), rtol=1e-3, atol=0)


def test_muons_first_groups_are_the_matrices_of_each_network():
    """Where the training step reads a lane's learning rate."""
    nets = [nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)) for _ in range(2)] + [nn.Linear(5, 3)]
    optimizer = muon([{"params": list(net.parameters())} for net in nets], lr=0.02, adamw_lr=0.001)
    groups = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    assert groups[:3] == [[id(nets[0][0].weight)], [id(nets[1][0].weight)], []]
    assert [group["lr"] for group in optimizer.param_groups] == [0.02] * 3 + [0.001] * 3
    every = [place for group in groups for place in group]
    assert sorted(every) == sorted(id(p) for net in nets for p in net.parameters())


@pytest.mark.parametrize("warmup_steps", [0, 4])
def test_schedule_free_trains_at_one_point_and_is_measured_at_another(fit, warmup_steps):
    """The paper's Eq. 3 to 5 written out; a step, an epoch and the end of training see the averaged weights x alone."""
    seen = {"batch": [], "epoch": [], "step": []}

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen["batch"].append(flat(pl_module.network))

        def on_train_epoch_end(self, trainer, pl_module):
            seen["epoch"].append(flat(pl_module.network))

    class Remember(Method):
        def after_step(self, params, progress):
            seen["step"].append(torch.cat([p.detach().flatten() for p in params]))

    flat = lambda net: torch.cat([p.detach().flatten() for p in net.parameters()])  # noqa: E731
    lr, beta = 0.5, 0.8
    make = partial(chosen("schedule_free_sgd"), lr=lr, momentum=beta, warmup_steps=warmup_steps)
    final = fit(lambda: [Remember()], optimizer=make, epochs=3, callbacks=[Watch()]).network

    net, loader, expected, total = network(), Blobs().train_dataloader(), [], 0.0
    x = z = flat(net)
    for epoch in range(3):
        loader.set_epoch(epoch)
        for inputs, labels in loader:
            nn.utils.vector_to_parameters((1 - beta) * z + beta * x, net.parameters())
            grads = torch.autograd.grad(F.cross_entropy(net(inputs[0]), labels[0]), list(net.parameters()))
            rate = lr * min(1, (len(expected) + 1) / max(1, warmup_steps))
            total += rate**2
            z = z - rate * torch.cat([g.flatten() for g in grads])
            x = (1 - rate**2 / total) * x + rate**2 / total * z
            expected.append(x)
    assert len(seen["batch"]) == 15
    for ours, theirs in ((seen["batch"], expected), (seen["step"], expected), (seen["epoch"], expected[4::5])):
        torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-11, atol=1e-12)
    assert torch.equal(flat(final), seen["batch"][-1])
    assert float((x - z).norm()) > 0.1  # it does make a difference


@pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_sgd"])
def test_batch_norms_have_the_statistics_of_the_averaged_weights(fit, name):
    module = fit(optimizer=chosen(name), networks=[network(norm=True)])
    x, _ = Blobs().splits["train"]
    torch.testing.assert_close(module.network[1].running_mean, module.network[0](x).mean(0))


@pytest.mark.parametrize("name", SEPARATE)
def test_resuming_is_bit_identical(fit, tmp_path, name):
    class Killed(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyError("killed")

    settings = {"optimizer": chosen(name), "epochs": 5, "seeds": (0, 1), "plugins": [AtomicCheckpointIO()]}
    whole = fit(**settings)
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(KeyError, match="killed"):
        fit(callbacks=[Checkpoint(path, seconds=0), Killed()], **settings)
    assert same(whole, fit(callbacks=[Checkpoint(path, seconds=1e9)], ckpt_path=str(path), **settings))


@pytest.mark.parametrize("name", SEPARATE)
def test_how_many_lanes_would_fit_is_no_question_of_what_can_be_packed(configure, name):
    assert packing.lanes_that_fit(configure(f"optimizer={name}"), processes=1) >= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lion", 'optimizer=pytorch_optimizer.Lion needs: pip install "genbench[optimizers]"'),
        ("muon", 'optimizer: muon needs: pip install "genbench[optimizers]"'),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(configure, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    config._signature.cache_clear()
    plain = configure(f"optimizer={name}")
    with pytest.raises(ConfigError) as refused:
        execute.run(plain)
    assert str(refused.value) == message
