"""The training step against torch's own arithmetic and hand-made steps."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.data.batches import Batches
from genbench.models.slots import frozen_norm_statistics
from genbench.regularization import L1, L2, SAM, GradientClipping, LabelSmoothing, Mixup, WeightDecay
from genbench.regularization.base import Method, in_order
from genbench.rng import StepRandom
from genbench.training.lane import Lane
from tests.training.conftest import Blobs, network


def by_hand(net, optimizer, epochs=3, loss=F.cross_entropy, before=lambda net: None):
    """The plainest training loop, over the same batches."""
    optimizer = optimizer(net.parameters())
    batches: Batches = Blobs().train_dataloader()
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for x, y in batches:
            optimizer.zero_grad()
            loss(net(x[0]), y[0]).backward()
            before(net)
            optimizer.step()
    return net


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.Adam, lr=0.05)]
)
@pytest.mark.parametrize("norm", [False, True])
def test_without_methods_it_is_the_plain_loop(fit, optimizer, norm):
    trained = fit(networks=[network(norm=norm)], optimizer=optimizer).network
    assert same(trained, by_hand(network(norm=norm), optimizer))
    assert not same(trained, network(norm=norm))


def test_weight_decay_with_adam_is_adamw(fit):
    trained = fit(lambda: [WeightDecay(strength=0.3)]).network
    assert same(trained, by_hand(network(), partial(torch.optim.AdamW, lr=0.05, weight_decay=0.3)))


def test_label_smoothing_is_torch_label_smoothing(fit):
    trained = fit(lambda: [LabelSmoothing(smoothing=0.2)]).network
    reference = by_hand(
        network(), partial(torch.optim.Adam, lr=0.05), loss=partial(F.cross_entropy, label_smoothing=0.2)
    )
    for p, q in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_clipping_is_torch_clipping(fit):
    trained = fit(lambda: [GradientClipping(max_norm=0.1)], optimizer=partial(torch.optim.SGD, lr=0.5)).network
    clip = lambda net: torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)  # noqa: E731
    reference = by_hand(network(), partial(torch.optim.SGD, lr=0.5), before=clip)
    for p, q in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=0)  # torch adds 1e-6 to the norm


def test_l2_with_sgd_is_weight_decay_of_twice_the_strength(fit):
    trained = fit(lambda: [L2(strength=0.05)], optimizer=partial(torch.optim.SGD, lr=0.1)).network
    reference = by_hand(network(), partial(torch.optim.SGD, lr=0.1, weight_decay=0.1))
    for p, q in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def gradient(lane: Lane, x, y, step=0):
    lane.gradient_step(x, y, draw=StepRandom(lane.seed, step), lr=0.1, backward=lambda loss: loss.backward())
    return [p.grad.clone() for p in lane.trained]


def test_l1_adds_the_sign():
    x, y = Blobs().splits["train"]
    plain = gradient(Lane(network(), [], seed=0), x, y)
    lane = Lane(network(), [L1(strength=0.3)], seed=0)
    for p, g, reference in zip(lane.trained, gradient(lane, x, y), plain, strict=True):
        torch.testing.assert_close(g, reference + 0.3 * p.detach().sign())


def test_sam_takes_the_gradient_at_the_worst_point_of_the_ball():
    x, y = Blobs().splits["train"]
    lane = Lane(network(), [SAM(rho=0.2)], seed=0)
    before = [p.detach().clone() for p in lane.trained]
    measured = gradient(lane, x, y)
    assert all(torch.equal(p, q) for p, q in zip(lane.trained, before, strict=True))

    net = network()
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    norm = torch.cat([g.flatten() for g in grads]).norm()
    with torch.no_grad():
        for p, g in zip(net.parameters(), grads, strict=True):
            p += 0.2 * g / norm
    expected = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    for g, reference in zip(measured, expected, strict=True):
        torch.testing.assert_close(g, reference, rtol=1e-10, atol=1e-13)


def test_sam_counts_batch_statistics_once():
    x, y = Blobs().splits["train"]
    plain, sam = Lane(network(norm=True), [], seed=0), Lane(network(norm=True), [SAM(rho=0.2)], seed=0)
    for lane in (plain, sam):
        gradient(lane, x, y)
    for name, buffer in plain.network.named_buffers():
        assert torch.equal(buffer, dict(sam.network.named_buffers())[name]), name


def test_sam_sees_the_same_batch_twice():
    seen = []

    class Spy(Method):
        def penalty(self, net, x, y, output, draw):
            seen.append((x.clone(), y.clone()))
            return output.sum() * 0

    x, y = Blobs().splits["train"]
    gradient(Lane(network(), in_order({"mixup": Mixup(alpha=1.0), "sam": SAM(rho=0.1), "spy": Spy()}), seed=3), x, y)
    assert len(seen) == 2
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][0], x)


def test_norm_statistics_come_back_after_an_exception():
    net = network(norm=True)
    mean = net[1].running_mean.clone()
    with pytest.raises(RuntimeError, match="mat1"), frozen_norm_statistics(net):
        net(torch.randn(4, 6, dtype=torch.float64))
    assert torch.equal(net[1].running_mean, mean)
    assert net[1].track_running_stats


def test_draws_are_keyed_by_seed_step_and_site():
    draw = StepRandom(1, 2)
    assert torch.equal(draw.normal("a", 4), StepRandom(1, 2).normal("a", 4))
    others = [StepRandom(1, 3).normal("a", 4), StepRandom(2, 2).normal("a", 4), draw.normal("b", 4)]
    assert not any(torch.equal(draw.normal("a", 4), other) for other in others)


def test_methods_that_exclude_each_other_are_refused():
    class Other(LabelSmoothing):
        pass

    with pytest.raises(ValueError, match=r"label_smoothing\+other.*replace the loss"):
        in_order({"other": Other(smoothing=0.1), "label_smoothing": LabelSmoothing(smoothing=0.1)})


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (L1, {"strength": -1}),
        (L2, {"strength": float("nan")}),
        (L2, {"strength": "abc"}),
        (LabelSmoothing, {"smoothing": 1.5}),
        (SAM, {"rho": True}),
        (GradientClipping, {"max_norm": 0}),
    ],
)
def test_bad_settings_are_named(method, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{method.__name__}: {name}="):
        method(**settings)
