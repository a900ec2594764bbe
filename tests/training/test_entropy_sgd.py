"""Entropy-SGD against the paper's algorithm written out, and where it is something known."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from genbench.regularization.entropy_sgd import EntropySGD
from genbench.rng import StepRandom
from genbench.training import AtomicCheckpointIO, Checkpoint
from tests.helpers.equality import same
from tests.helpers.networks import network
from tests.helpers.runs import Blobs

SETTINGS = {"gamma": 0.3, "scoping": 0.1, "inner_steps": 4, "noise": 0.05, "decay": 0.75, "outer": 0.8}
SGD = partial(torch.optim.SGD, lr=0.2)


def by_hand(net, epochs, *, gamma, scoping, inner_steps, noise, decay, outer, lr=0.2):
    """Algorithm 1 of the paper on the blobs, a minibatch an inner step; the last loop may be shorter."""
    loader, batches = Blobs().train_dataloader(), []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        batches += [(x[0], y[0]) for x, y in loader]
    weights = [p.detach().clone() for p in net.parameters()]  # x
    for k, start in enumerate(range(0, len(batches), inner_steps)):
        inner = [x.clone() for x in weights]  # x'
        mean = [x.clone() for x in weights]  # μ
        for step in range(start, min(start + inner_steps, len(batches))):
            x, y = batches[step]
            with torch.no_grad():
                for p, value in zip(net.parameters(), inner, strict=True):
                    p.copy_(value)
            grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
            for i, g in enumerate(grads):
                g = g - gamma * (1 + scoping) ** k * (weights[i] - inner[i])
                normal = StepRandom(0, step).normal(f"entropy_sgd.{i}", *g.shape).double()
                inner[i] = inner[i] - lr * g + lr**0.5 * noise * normal
                mean[i] = decay * mean[i] + (1 - decay) * inner[i]
        weights = [x - outer * (x - m) for x, m in zip(weights, mean, strict=True)]
    return weights


@pytest.mark.parametrize("inner_steps", [1, 4, 5, 40])  # 15 steps: whole loops, and shorter last ones
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_it_is_the_papers_algorithm(fit, inner_steps, noise):
    settings = {**SETTINGS, "inner_steps": inner_steps, "noise": noise}
    module = fit(lambda: [EntropySGD(**settings)], optimizer=SGD, epochs=3)
    for p, expected in zip(module.network.parameters(), by_hand(network(), 3, **settings), strict=True):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-11, atol=1e-12)


def test_one_step_a_loop_to_the_inner_weights_is_plain_sgd(fit):
    """Then x follows x', the pull is always zero, and γ makes no difference."""
    one = {**SETTINGS, "inner_steps": 1, "noise": 0.0, "decay": 0.0, "outer": 1.0}
    found, plain = fit(lambda: [EntropySGD(**one)], optimizer=SGD).network, fit(optimizer=SGD).network
    assert all(torch.equal(p, q) for p, q in zip(found.parameters(), plain.parameters(), strict=True))


def test_without_pull_and_noise_the_inner_steps_are_plain_sgd(fit):
    """γ = 0 in one loop: the final weights are the running mean of SGD's, from the initial ones on."""
    one = {**SETTINGS, "gamma": 0.0, "inner_steps": 100, "noise": 0.0, "outer": 1.0}
    found = fit(lambda: [EntropySGD(**one)], optimizer=SGD, epochs=1).network
    means = [p.detach().clone() for p in network().parameters()]
    for steps in range(1, 6):
        for mean, p in zip(means, fit(optimizer=SGD, epochs=1, max_steps=steps).network.parameters(), strict=True):
            mean.mul_(0.75).add_(p.detach(), alpha=0.25)
    for p, mean in zip(found.parameters(), means, strict=True):
        torch.testing.assert_close(p.detach(), mean, rtol=1e-12, atol=1e-13)


def test_on_a_parabola_an_outer_step_shrinks_the_weight_by_a_known_factor():
    """f = a w²/2 without noise: x'_ℓ = x (γ + a r^ℓ) / (a + γ) with r = 1 − lr (a + γ), and the mean of those."""
    a, gamma, lr, decay, outer, steps = 0.7, 0.4, 0.1, 0.6, 0.5, 7
    method = EntropySGD(gamma=gamma, scoping=0.0, inner_steps=steps, noise=0.0, decay=decay, outer=outer)
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(net.weight, 2.0)
    method.build(net)
    params = [net.weight]
    for loop in range(3):
        for step in range(steps):
            draw = StepRandom(0, loop * steps + step)
            (g,) = method.gradient(params, [a * net.weight.detach()], draw)
            method.before_step(params, torch.tensor(lr, dtype=torch.float64), draw)
            with torch.no_grad():
                net.weight -= lr * g
            method.after_step(params, 0.5)
    r = 1 - lr * (a + gamma)
    inner = [(gamma + a * r**step) / (a + gamma) for step in range(1, steps + 1)]
    mean = decay**steps + sum((1 - decay) * decay ** (steps - 1 - i) * w for i, w in enumerate(inner))
    assert float(net.weight.detach()) == pytest.approx(2 * (1 - outer * (1 - mean)) ** 3, rel=1e-12)


def test_the_noise_of_a_step_is_that_of_langevins_equation():
    method = EntropySGD(**{**SETTINGS, "noise": 0.3})
    p = torch.zeros(100_000, dtype=torch.float64)
    method.before_step([p], torch.tensor(0.25, dtype=torch.float64), StepRandom(0, 3))
    assert float(p.std()) == pytest.approx(0.3 * 0.25**0.5, rel=0.02)
    assert float(p.mean()) == pytest.approx(0, abs=4 * 0.15 / 100_000**0.5)


def test_batch_norms_have_the_statistics_of_the_outer_weights(fit):
    module = fit(lambda: [EntropySGD(**SETTINGS)], networks=[network(norm=True)])
    x, _ = module.trainer.datamodule.splits["train"]
    torch.testing.assert_close(module.network[1].running_mean, module.network[0](x).mean(0))


def test_it_resumes_in_the_midst_of_a_loop_bit_for_bit(fit, tmp_path):
    class Killed(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyError("killed")

    methods = lambda: [EntropySGD(**SETTINGS)]  # noqa: E731
    settings = {"epochs": 5, "plugins": [AtomicCheckpointIO()]}
    whole = fit(methods, **settings)
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(KeyError, match="killed"):
        fit(methods, callbacks=[Checkpoint(path, seconds=0), Killed()], **settings)  # after 10 steps of loops of 4
    assert same(whole, fit(methods, callbacks=[Checkpoint(path, seconds=1e9)], ckpt_path=str(path), **settings))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inner_steps": 0}, "regularization entropy_sgd: inner_steps is 0; accepted: an integer of at least 1"),
        ({"inner_steps": 2.5}, "inner_steps is 2.5; accepted: an integer of at least 1"),
        ({"decay": 1.0}, r"decay is 1.0; accepted: a number in \[0, 1\)"),
        ({"outer": 0}, r"outer is 0; accepted: a number in \(0, 1\]"),
        ({"outer": 1.5}, r"outer is 1.5; accepted: a number in \(0, 1\]"),
        ({"gamma": -1}, r"gamma is -1; accepted: a number in \[0, inf\)"),
    ],
)
def test_what_is_no_setting_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        EntropySGD(**{**SETTINGS, **wrong})
