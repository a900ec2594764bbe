"""Ordinary networks, losses and data of others, against dense float64 autograd: the right value, nothing changed."""

import copy
import inspect
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import genbench.measures
from genbench.measures import (
    Snapshot,
    accuracy,
    average_sharpness,
    cross_entropy,
    distance_from_init,
    empirical_fisher_trace,
    fisher_trace,
    flops,
    gauss_newton_trace,
    gradient_norm,
    hessian_eigenvalues,
    hessian_trace,
    input_margin,
    keskar_sharpness,
    l2_norm,
    measure,
    path_norm,
    sam_sharpness,
)
from genbench.measures.guard import restoring
from genbench.measures.precision import precise
from genbench.records.estimate import Estimate

CE = F.cross_entropy


def data(n: int = 40, width: int = 6, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, dtype=torch.float64, generator=generator)
    return x, torch.randint(classes, (n,), generator=generator)


def dense(net: nn.Module, objective) -> tuple[Tensor, Tensor]:
    """Gradient [ω] and Hessian [ω, ω] of ``objective(parameters by name)`` at the network's weights."""
    names, weights = zip(*[(n, p.detach()) for n, p in net.named_parameters() if p.requires_grad], strict=True)

    def value(flat: Tensor) -> Tensor:
        pieces = flat.split([w.numel() for w in weights])
        return objective({n: p.reshape(w.shape) for n, p, w in zip(names, pieces, weights, strict=True)})

    w = torch.cat([p.reshape(-1) for p in weights])
    return torch.autograd.functional.jacobian(value, w), torch.autograd.functional.hessian(value, w)


def products(snapshot: Snapshot) -> Tensor:
    """The whole Hessian, column by column, over kept graphs."""
    return torch.stack([snapshot.hessian.matvec(v) for v in torch.eye(snapshot.size, dtype=torch.float64)])


def check(net: nn.Module, loss, batches, objective) -> Snapshot:
    """A snapshot's gradient and Hessian are the dense ones, at its own weights and at others, when the network itself
    has moved on meanwhile, and the network is as it was."""
    there = copy.deepcopy(net)
    snapshot = Snapshot(net, loss, batches)
    g, h = dense(net, objective)
    other = snapshot.vector + 0.3 * torch.randn(snapshot.size, dtype=torch.float64)
    nn.utils.vector_to_parameters(other, [p for p in there.parameters() if p.requires_grad])
    g_there, _ = dense(there, objective)
    before = [(p, p.data_ptr(), p.detach().clone()) for p in net.parameters()]
    for _ in range(2):
        torch.testing.assert_close(snapshot.gradient_at(snapshot.vector)[1], g, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(snapshot.gradient_at(other)[1], g_there, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(products(snapshot), h, rtol=1e-7, atol=1e-9)
    for p, (same, place, value) in zip(net.parameters(), before, strict=True):
        assert isinstance(p, nn.Parameter)
        assert p is same
        assert p.data_ptr() == place
        assert torch.equal(p, value)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    torch.testing.assert_close(products(snapshot), h, rtol=1e-7, atol=1e-9)
    net.float()
    torch.testing.assert_close(products(snapshot), h, rtol=1e-7, atol=1e-9)
    return snapshot


class Tanh(nn.Module):
    def __init__(self, saving: bool = False):
        super().__init__()
        self.first, self.block, self.last, self.saving = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3), saving

    def forward(self, x):
        h = torch.tanh(self.first(x))
        for _ in range(2):  # elementwise use of a weight: its graph keeps the weight itself
            h = (
                checkpoint(lambda h: torch.tanh(self.block(h)) * self.first.bias.exp(), h, use_reentrant=False)
                if self.saving
                else torch.tanh(self.block(h)) * self.first.bias.exp()
            )
        return self.last(h)


@pytest.mark.parametrize("saving", [False, True])
def test_activation_checkpointing(saving):
    torch.manual_seed(0)
    net, (x, y) = Tanh(saving).double(), data()
    plain = Tanh().double()
    check(net, CE, [(x[:15], y[:15]), (x[15:], y[15:])], lambda p: CE(functional_call(plain, p, (x,)), y))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        block = nn.Linear(5, 5)
        self.first, self.layers, self.last = nn.Linear(6, 5), nn.ModuleList([block, block]), nn.Linear(5, 3)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.last(x)


def test_a_module_that_is_registered_twice():
    torch.manual_seed(0)
    net, (x, y) = Shared().double(), data()

    def by_hand(p):
        h = torch.tanh(F.linear(x, p["first.weight"], p["first.bias"]))
        for _ in range(2):
            h = torch.tanh(F.linear(h, p["layers.0.weight"], p["layers.0.bias"]))
        return CE(F.linear(h, p["last.weight"], p["last.bias"]), y)

    snapshot = check(net, CE, [(x, y)], by_hand)
    assert snapshot.size == 35 + 30 + 18
    each = torch.cat(list(snapshot.example_gradients()))
    torch.testing.assert_close(each.mean(0), snapshot.gradient_at(snapshot.vector)[1])


def test_training_goes_on_with_a_module_that_is_registered_twice():
    x, y = data()

    def trained(*measures):
        torch.manual_seed(1)
        net = Shared().double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
        for step in range(12):
            if step == 4:
                for function in measures:
                    function(Snapshot(net, CE, [(x, y)]))
            optimizer.zero_grad()
            CE(net(x), y).backward()
            optimizer.step()
        return net.state_dict()

    plain = trained()
    measured = trained(l2_norm, cross_entropy, gradient_norm, hessian_trace, empirical_fisher_trace, sam_sharpness)
    assert plain.keys() == measured.keys()
    assert all(torch.equal(plain[key], measured[key]) for key in plain)


@pytest.mark.parametrize("captured", [False, True])
def test_a_penalty_in_the_loss_is_measured(captured):
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double(), data()
    kept = list(net.parameters())

    def penalized(output, target):
        return CE(output, target) + 0.1 * sum(p.square().sum() for p in (kept if captured else net.parameters()))

    snapshot = check(
        net,
        penalized,
        [(x[:15], y[:15]), (x[15:], y[15:])],
        lambda p: CE(functional_call(net, p, (x,)), y) + 0.1 * sum(t.square().sum() for t in p.values()),
    )
    g, _ = dense(net.double(), lambda p: 0 * p["0.weight"].sum())
    each = torch.cat(list(snapshot.example_gradients()))  # vmap alone would leave the penalty out
    assert each.shape == (40, len(g))
    torch.testing.assert_close(each.mean(0), snapshot.gradient_at(snapshot.vector)[1])


def test_a_hook_on_a_parameter_is_for_the_optimizer():
    torch.manual_seed(0)
    net, (x, y) = Tanh().double(), data()
    expected = Snapshot(net, CE, [(x, y)]).gradient_at(Snapshot(net, CE, [(x, y)]).vector)[1]
    net.first.weight.register_hook(lambda g: g.clamp(-1e-3, 1e-3))
    assert torch.equal(Snapshot(net, CE, [(x, y)]).gradient_at(Snapshot(net, CE, [(x, y)]).vector)[1], expected)
    CE(net(x), y).backward()
    assert net.first.weight.grad.abs().max() <= 1e-3


def normed(v, g):
    return g * v / v.square().sum(1, keepdim=True).sqrt()


def test_the_old_weight_norm_and_parametrizations():
    x, y = data()
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(6, 3).double())
    with torch.no_grad():
        old(x)  # a weight that has a graph cannot be copied
    # not torch's own second derivative, which takes ‖v‖ for a constant
    check(old, CE, [(x, y)], lambda p: CE(F.linear(x, normed(p["weight_v"], p["weight_g"]), p["bias"]), y))
    with torch.no_grad():
        old.double()(x)
    hessian_trace(Snapshot(old, CE, [(x, y)]))
    assert copy.deepcopy(old).weight_v.shape == (3, 6)  # no tensor with a graph is left in it
    new = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3).double())
    names = [f"parametrizations.weight.original{i}" for i in (1, 0)]
    check(new, CE, [(x, y)], lambda p: CE(F.linear(x, normed(*(p[name] for name in names)), p["bias"]), y))
    each = list(Snapshot(new.double(), CE, [(x, y)]).example_gradients())
    assert torch.cat(each).shape == (40, 3 + 18 + 3)


def test_views_of_a_common_storage_come_back_as_views():
    torch.manual_seed(0)
    nets, (x, y) = [nn.Linear(6, 3).double() for _ in range(2)], data()
    flat = torch.randn(2, 21, dtype=torch.float64)
    for row, net in zip(flat, nets, strict=True):
        net.weight.data, net.bias.data = row[:18].view(3, 6), row[18:]
    hessian_trace(Snapshot(nets[0], CE, [(x, y)]))
    flat.zero_()
    assert not nets[0].weight.any()


def test_a_network_that_changes_its_input_in_place():
    class Normalizing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x.sub_(x.mean()).div_(2))

    torch.manual_seed(0)
    net, (x, y) = Normalizing().double(), data()
    z = (x - x.mean()) / 2
    before = x.clone()
    check(net, CE, [(x, y)], lambda p: CE(F.linear(z, p["layer.weight"], p["layer.bias"]), y))
    assert torch.equal(x, before)


def test_a_loss_that_changes_its_target_in_place():
    net, (x, y) = nn.Linear(6, 3).double(), data()
    before = y.clone()
    snapshot = Snapshot(net, lambda output, target: CE(output, target.add_(1).remainder_(3)), [(x, y)])
    assert snapshot.mean_loss == pytest.approx(float(CE(net(x), (y + 1) % 3).detach()))
    assert snapshot.loss_at(snapshot.vector) == pytest.approx(snapshot.mean_loss)
    assert torch.equal(y, before)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x).movedim(-1, 1)


def weighted() -> tuple:
    x, _ = data(60)
    y = torch.cat([torch.zeros(50), torch.ones(6), torch.full((4,), 2)]).long()[torch.randperm(60)]
    weight = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    return nn.Linear(6, 3).double(), nn.CrossEntropyLoss(weight), x, y, lambda output, target: weight[target].sum()


def padded() -> tuple:
    x, y = torch.randn(32, 10, 6, dtype=torch.float64), torch.randint(3, (32, 10))
    for i in range(32):
        y[i, 1 + i // 4 :] = -100
    return Tagger().double(), nn.CrossEntropyLoss(), x, y, lambda output, target: (target >= 0).sum()


@pytest.mark.parametrize("make", [weighted, padded])
def test_a_loss_that_is_another_mean(make):
    torch.manual_seed(0)
    net, loss, x, y, count = make()
    exact = float(torch.linalg.eigvalsh(dense(net, lambda p: loss(functional_call(net, p, (x,)), y))[1])[-1])
    batches = list(zip(x.split(8), y.split(8), strict=True))
    whole = hessian_eigenvalues(Snapshot(net, loss, [(x, y)]))["lambda_1"]
    assert whole.value == pytest.approx(exact, rel=1e-3)
    assert whole.note is None
    split = hessian_eigenvalues(Snapshot(net, loss, batches))["lambda_1"]
    assert split.value != pytest.approx(exact, rel=1e-2)
    assert "the loss is no mean over the examples" in split.note
    counted = Snapshot(net, loss, batches, count=count)
    found = hessian_eigenvalues(counted)["lambda_1"]
    assert found.value == pytest.approx(exact, rel=1e-3)
    assert found.note is None
    assert counted.mean_loss == pytest.approx(float(loss(net(x), y).detach()))
    assert gradient_norm(counted).value == pytest.approx(gradient_norm(Snapshot(net, loss, [(x, y)])).value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_weights_are_seen_however_small_the_loss_is(dtype):
    torch.manual_seed(0)
    y = torch.cat([torch.zeros(50), torch.ones(6), torch.full((4,), 2)]).long()[torch.randperm(60)]
    x = torch.eye(3, dtype=dtype)[y] + 0.05 * torch.randn(60, 3, dtype=dtype)
    net = nn.Linear(3, 3, bias=False).to(dtype)
    with torch.no_grad():
        net.weight.copy_(20 * torch.eye(3))
    batches = list(zip(x.split(8), y.split(8), strict=True))
    weighted = Snapshot(net, nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 5.0], dtype=dtype)), batches)
    assert weighted.mean_loss < 1e-7
    assert "count= says what one counts" in hessian_trace(weighted).note
    assert "no mean" not in (hessian_trace(Snapshot(net, CE, batches)).note or "")


def test_a_loss_of_whole_batches_has_no_weights_to_say():
    """InfoNCE: each example is told from the others of its batch."""

    def loss(output, _target):
        first, second = output[:, :3], output[:, 3:]
        return CE(first @ second.T, torch.arange(len(output)))

    torch.manual_seed(0)
    net, (x, y) = nn.Linear(6, 6).double(), data()
    batches = list(zip(x.split(10), y.split(10), strict=True))
    said = "the loss of an example depends on the others of its batch: the value is of these batches"
    assert gradient_norm(Snapshot(net, loss, batches)).note == said
    assert gradient_norm(Snapshot(net, loss, batches).select("weight")).note == said
    weights = nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 5.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    wrong = gradient_norm(Snapshot(net, weights, batches, count=lambda output, target: len(target)))
    assert wrong.note.endswith("the value depends on the batches, count= does not give their weights in it")


def test_examples_that_batch_norm_couples():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    net, (x, y) = nn.Sequential(nn.Linear(6, 4), norm, nn.Tanh(), nn.Linear(4, 3)).double(), data()
    found = hessian_trace(Snapshot(net, CE, [(x[:20], y[:20]), (x[20:], y[20:])]))
    assert "depends on the others of its batch" in found.note
    assert hessian_trace(Snapshot(net, CE, [(x, y)])).note is None


def trained_half() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 10))
    x = torch.randn(256, 16)
    y = (nn.Linear(16, 10)(x) + 0.5 * torch.randn(256, 10)).argmax(1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        CE(net(x), y).backward()
        optimizer.step()
    return net.bfloat16(), x.bfloat16(), y


def test_weights_in_bfloat16_are_moved_in_float32():
    net, x, y = trained_half()
    half = Snapshot(net, lambda output, target: CE(output.float(), target), [(x, y)])
    exact = Snapshot(copy.deepcopy(net).double(), CE, [(x.double(), y)])
    for function in (sam_sharpness, keskar_sharpness, lambda s: average_sharpness(s, rho=0.02)):
        found, expected = function(half), function(exact)
        assert found.value == pytest.approx(expected.value, rel=1e-2)
        assert found.note == expected.note
    view, _ = precise(half, moved=True)
    assert {p.dtype for p in view.parameters.values()} == {torch.float32}
    assert net[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("narrow", [False, True])
def test_a_large_constant_in_bfloat16(narrow):
    net, x, y = trained_half()

    def loss(output, target):
        wide = output.float() if narrow or output.dtype == torch.bfloat16 else output
        return CE(wide, target) + 1e5

    half, exact = Snapshot(net, loss, [(x, y)]), Snapshot(copy.deepcopy(net).double(), CE, [(x.double(), y)])
    found, expected = sam_sharpness(half), sam_sharpness(exact)
    view, _ = precise(half, moved=True)
    assert {p.dtype for p in view.parameters.values()} == {torch.float64}
    if narrow:  # the loss itself is of float32, whatever the network is
        assert "the mean loss is 1.0e+05 and computed in float32: rounding may show" in found.note
    else:
        assert found.value == pytest.approx(expected.value, rel=1e-6)
        assert found.note == expected.note


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.5, 1.7])
def test_sharpness_of_small_losses(scale):
    """At losses of 1e-3 to 1e-7, against the very same weights in float64."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
    x = torch.randn(60, 6)
    y = x[:, :3].argmax(1)
    x = x + 2 * F.one_hot(y, 6)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(250):
        optimizer.zero_grad()
        CE(net(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for p in net[2].parameters():
            p.mul_(scale)
    found = Snapshot(net, CE, [(x, y)])
    exact = Snapshot(copy.deepcopy(net).double(), CE, [(x.double(), y)])
    assert 5e-7 < exact.mean_loss < 2e-3
    for function in (
        sam_sharpness,
        lambda s: sam_sharpness(s, rho=1e-3),
        keskar_sharpness,
        lambda s: average_sharpness(s, rho=1e-2),
    ):
        a, b = function(found), function(exact)
        assert a.value == pytest.approx(b.value, rel=1e-6)
        assert a.note == b.note
    if exact.mean_loss < 1e-4:
        assert hessian_trace(found).value == pytest.approx(hessian_trace(exact).value, rel=1e-9)
    assert net[0].weight.dtype == torch.float32


@pytest.mark.parametrize("constant", [30.0, 1e4, 1e7])
def test_rises_of_a_loss_that_is_large_by_a_constant(constant):
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), data()
    x = x.float()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        CE(net(x), y).backward()
        optimizer.step()
    large = Snapshot(net, lambda output, target: CE(output, target) + constant, [(x, y)])
    exact = Snapshot(copy.deepcopy(net).double(), CE, [(x.double(), y)])
    for function in (
        sam_sharpness,
        lambda s: sam_sharpness(s, rho=1e-2),
        lambda s: average_sharpness(s, rho=1e-2),
    ):
        a, b = function(large), function(exact)
        assert a.value == pytest.approx(b.value, rel=1e-5, abs=4 * torch.finfo(torch.float64).eps * constant)
        assert a.note == b.note
    assert net[0].weight.dtype == torch.float32


def test_a_loss_that_is_large_by_its_scale_stays_in_its_precision():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), data()
    snapshot = Snapshot(net, lambda output, target: 1e4 * CE(output, target), [(x.float(), y)])
    exact = Snapshot(copy.deepcopy(net).double(), lambda output, target: 1e4 * CE(output, target), [(x, y)])
    assert precise(snapshot, moved=True) == (snapshot, None)
    assert sam_sharpness(snapshot).value == pytest.approx(sam_sharpness(exact).value, rel=1e-3)


def test_a_constant_that_leaves_no_room_for_a_rise_says_so():
    torch.manual_seed(0)
    net, (x, y) = nn.Linear(6, 3).double(), data()
    found = sam_sharpness(Snapshot(net, lambda output, target: CE(output, target) + 1e13, [(x, y)]))
    assert "the mean loss is 1.0e+13: rounding may show" in found.note


def test_a_network_that_refuses_float64_says_so():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x.float())

    torch.manual_seed(0)
    net, (x, _) = Single(), data()
    y = net(x).argmax(1)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1e4)
    found = sam_sharpness(Snapshot(net, CE, [(x, y)]))
    assert found.value is not None
    assert "cannot be computed in float64" in found.note


def test_a_small_loss_that_is_computed_in_float32_says_so():
    torch.manual_seed(0)
    net, (x, _) = nn.Linear(6, 3), data()
    y = net(x.float()).argmax(1)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1e4)
    found = sam_sharpness(Snapshot(net, lambda output, target: CE(output.float(), target), [(x.float(), y)]))
    assert "and computed in float32: rounding may show" in found.note


def test_a_penalty_on_references_is_not_lost_in_float64():
    torch.manual_seed(0)
    net, (x, _) = nn.Linear(6, 3), data()
    x = x.float()
    y = net(x).argmax(1)
    with torch.no_grad():
        net.weight.mul_(100)
    kept = list(net.parameters())

    def penalized(output, target):
        return CE(output, target) + 1e-7 * sum(p.square().sum() for p in kept)

    found = gradient_norm(Snapshot(net, penalized, [(x, y)]))
    copied = copy.deepcopy(net).double()

    def objective(p):
        return CE(functional_call(copied, p, (x.double(),)), y) + 1e-7 * sum(t.square().sum() for t in p.values())

    exact, _ = dense(copied, objective)
    assert found.value == pytest.approx(float(exact.norm()), rel=1e-3)


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][-1])


@pytest.mark.parametrize("steps", [7, 20])
def test_sequences_with_time_first(steps):
    torch.manual_seed(0)
    net, x, y = TimeFirst().double(), torch.randn(steps, 20, 4, dtype=torch.float64), torch.randint(3, (20,))
    snapshot = Snapshot(net, CE, [(x, y)])
    squares, distances = [], []
    for i in range(20):
        one = x[:, i : i + 1].clone().requires_grad_()
        logits = net(one)
        squares.append(
            sum(
                float(g.square().sum())
                for g in torch.autograd.grad(CE(logits, y[i : i + 1]), list(net.parameters()), retain_graph=True)
            )
        )
        margin = logits[0, y[i]] - logits[0].scatter(0, y[i], -torch.inf).max()
        distances.append(float(margin / torch.autograd.grad(margin, one)[0].norm()))
    assert empirical_fisher_trace(snapshot).value == pytest.approx(sum(squares) / 20, rel=1e-9)
    assert input_margin(snapshot).value == pytest.approx(
        float(torch.tensor(distances).double().quantile(0.1)), rel=1e-6
    )
    assert flops(snapshot).value == steps * 2 * 4 * 5 * (4 + 5) + 2 * 5 * 3
    (part,) = snapshot.subsets([torch.tensor([3, 8])])
    assert part.mean_loss == pytest.approx(float(CE(net(x[:, [3, 8]]), y[[3, 8]]).detach()))


def test_targets_with_time_first():
    class Labelling(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.GRU(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(self.rnn(x)[0])

    torch.manual_seed(0)
    net, x, y = Labelling().double(), torch.randn(6, 6, 4, dtype=torch.float64), torch.randint(3, (6, 6))
    snapshot = Snapshot(net, lambda output, target: CE(output.flatten(0, 1), target.flatten()), [(x, y)])
    squares = 0.0
    for i in range(6):
        loss = CE(net(x[:, i : i + 1]).flatten(0, 1), y[:, i : i + 1].flatten())
        squares += sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(net.parameters())))
    assert snapshot.examples == 6
    assert empirical_fisher_trace(snapshot).value == pytest.approx(squares / 6, rel=1e-9)


def test_an_axis_that_cannot_be_told_is_one_line():
    class Fixed(nn.Module):  # batches of eight alone
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x.view(8, 8, 4)).mean(1)

    net, x, y = Fixed().double(), torch.randn(8, 8, 4, dtype=torch.float64), torch.randint(3, (8,))
    snapshot = Snapshot(net, CE, [(x, y)])
    assert gradient_norm(snapshot).value > 0
    with pytest.raises(ValueError, match="which axis of a batch holds the examples cannot be told") as caught:
        empirical_fisher_trace(snapshot)
    assert "\n" not in str(caught.value)


def test_an_infinite_mask_and_nan():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.out = nn.Linear(4, 4), nn.Linear(4, 3)
            self.register_buffer("mask", torch.full((5, 5), -torch.inf).triu(1), persistent=False)

        def forward(self, x):
            scores = self.q(x) @ x.mT + self.mask.to(x)
            return self.out((scores.softmax(-1) @ x)[:, -1])

    torch.manual_seed(0)
    net, x, y = Masked().double(), torch.randn(12, 5, 4, dtype=torch.float64), torch.randint(3, (12,))
    check(net, CE, [(x, y)], lambda p: CE(functional_call(net, p, (x,)), y))
    net.mask[0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"weights 'mask' are not finite \(NaN\)"):
        Snapshot(net, CE, [(x, y)])


class Drawing(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.a, self.b, self.kind = nn.Linear(6, 8), nn.Linear(8, 3), kind
        self.generator, self.numpy = torch.Generator().manual_seed(0), np.random.default_rng(0)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        if self.kind == "idle":  # LayerDrop draws at every pass, and lets it decide in training alone
            h = h if not (self.training and torch.rand([]) < 0.5) else 2 * h
        if self.kind == "torch":
            h = F.dropout(h, 0.5)
        if self.kind == "numpy":
            h = h + torch.from_numpy(np.random.randn(*h.shape))
        if self.kind == "python":
            h = h * (1 + random.random())
        if self.kind == "own":
            h = h + torch.randn(h.shape, generator=self.generator, dtype=h.dtype)
        if self.kind == "own numpy":
            h = h + torch.from_numpy(self.numpy.standard_normal(h.shape))
        return self.b(h)


def test_random_numbers_in_evaluation():
    x, y = data()
    assert hessian_trace(Snapshot(Drawing("idle").double(), CE, [(x, y)])).value is not None
    for kind in ("torch", "numpy", "python", "own", "own numpy"):
        net = Drawing(kind).double()
        before = net.generator.get_state(), net.numpy.bit_generator.state
        with pytest.raises(ValueError, match="draws random numbers in evaluation mode"):
            hessian_trace(Snapshot(net, CE, [(x, y)]))
        assert torch.equal(net.generator.get_state(), before[0])
        assert net.numpy.bit_generator.state == before[1]


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z.sigmoid()

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        s = z.sigmoid()
        return g * s * (1 + z * (1 - s))


class Activation(nn.Module):
    def forward(self, x):
        return Swish.apply(x)


def test_per_example_gradients_of_a_custom_function():
    torch.manual_seed(0)
    a, b, (x, y) = nn.Linear(6, 8).double(), nn.Linear(8, 3).double(), data()
    own = Snapshot(nn.Sequential(a, Activation(), b), CE, [(x, y)])
    builtin = Snapshot(nn.Sequential(a, nn.SiLU(), b), CE, [(x, y)])
    for function in (empirical_fisher_trace, fisher_trace):
        assert function(own).value == pytest.approx(function(builtin).value, rel=1e-9)


@pytest.mark.parametrize("kind", ["module", "function"])
def test_sparse_gradients(kind):
    class Bag(nn.Module):
        def __init__(self, sparse: bool):
            super().__init__()
            self.table, self.out, self.sparse = (
                nn.Embedding(9, 4, sparse=sparse and kind == "module"),
                nn.Linear(4, 3),
                sparse,
            )

        def forward(self, x):
            rows = (
                F.embedding(x, self.table.weight, sparse=True) if self.sparse and kind == "function" else self.table(x)
            )
            return self.out(rows.mean(1))

    torch.manual_seed(0)
    sparse, plain = Bag(True).double(), Bag(False).double()
    plain.load_state_dict(sparse.state_dict())
    x, y = torch.randint(9, (20, 5)), torch.randint(3, (20,))
    a, b = Snapshot(sparse, CE, [(x, y)]), Snapshot(plain, CE, [(x, y)])
    functions = [gradient_norm, empirical_fisher_trace, sam_sharpness]
    functions += [hessian_trace] if kind == "module" else []  # torch has no second derivative of the other
    CE(sparse(x), y).backward()  # training leaves a sparse gradient
    left = sparse.table.weight.grad
    for function in functions:
        assert function(a).value == pytest.approx(function(b).value, rel=1e-9)
    assert sparse.table.sparse == (kind == "module")
    assert sparse.table.weight.grad is left
    assert left.is_sparse


def test_a_compiled_network_is_measured_as_the_one_inside():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double(), data()
    start = {key: t.clone() for key, t in net.state_dict().items()}
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1)
    expected = Snapshot(net, CE, [(x, y)], initial=start)
    compiled = torch.compile(net, backend="aot_eager")
    compiled(x)
    inside = copy.deepcopy(net)
    inside[0] = torch.compile(inside[0], backend="aot_eager")
    inside(x)
    wrapped = torch.compile(nn.Sequential(*net), backend="aot_eager")
    names = {f"_orig_mod.{key}": t for key, t in start.items()}
    for found in (
        Snapshot(compiled, CE, [(x, y)], initial=start),
        Snapshot(wrapped, CE, [(x, y)], initial=names),
        Snapshot(inside, CE, [(x, y)], initial=start),
        Snapshot(nn.DataParallel(net), CE, [(x, y)], initial={f"module.{key}": t for key, t in start.items()}),
    ):
        assert [name.replace("_orig_mod.", "") for name in found.parameters] == list(expected.parameters)
        for function in (
            lambda s: hessian_eigenvalues(s)["lambda_1"],
            lambda s: distance_from_init(s)["distance"],
            lambda s: path_norm(s)["path_norm"],
            empirical_fisher_trace,
        ):
            assert function(found).value == pytest.approx(function(expected).value, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_traced_network():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), data()
    expected = Snapshot(net, CE, [(x, y)])
    found = Snapshot(torch.jit.trace(copy.deepcopy(net), (x,)), CE, [(x, y)])
    for function in (hessian_trace, sam_sharpness, empirical_fisher_trace):
        assert function(found).value == pytest.approx(function(expected).value, rel=1e-6)


def test_a_network_that_changed_since_the_snapshot_is_refused():
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), data()
    snapshot = Snapshot(net, CE, [(x, y)])
    net.append(nn.Linear(3, 3).double())
    with pytest.raises(ValueError, match=r"the model has changed since the snapshot: '3\.bias' was added or removed"):
        hessian_trace(snapshot)


def test_snapshots_of_several_moments_of_one_network_side_by_side():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), data()
    early = Snapshot(net, CE, [(x[:20], y[:20]), (x[20:], y[20:])])
    expected = [float(t.sum()) for t, _ in early.predictions]
    with torch.no_grad():
        net[0].weight.mul_(3)
    late = Snapshot(net, CE, [(x[:20], y[:20]), (x[20:], y[20:])])

    @measure("other")
    def both(snapshot: Snapshot) -> Estimate:
        sums = []
        for a, _ in early.blocks(20):
            for b, _ in snapshot.blocks(20):
                sums.append(float((snapshot.call(b) - early.call(a)).sum().detach()))
        return Estimate(sum(sums))

    later = float(late.call(x).detach().sum())
    assert both(late).value == pytest.approx(2 * later - 2 * sum(expected), rel=1e-9)


def test_what_is_given_example_by_example_holds_nothing_while_nobody_asks_for_more():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3)).double(), data()
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    early = Snapshot(net, CE, batches)
    w = early.vector
    expected = [
        list(early.blocks(20)),
        list(early.example_gradients()),
        [run[2] for run in early.predictions_at(2 * w)],
    ]
    places = [p.data_ptr() for p in net.parameters()]
    steps = [early.blocks(20), early.example_gradients(), early.predictions_at(2 * w)]
    first = [next(each) for each in steps]
    assert [p.data_ptr() for p in net.parameters()] == places
    assert net.training
    assert net[2].training
    with torch.no_grad():  # training goes on
        for p in net.parameters():
            p.add_(1)
    late = Snapshot(net, CE, batches)
    at = float(CE(copy.deepcopy(net).eval()(x), y).detach())
    assert late.mean_loss == pytest.approx(at, rel=1e-12)
    with late.measuring():  # and another moment is measured meanwhile
        rest = [next(each) for each in steps]
        assert float(CE(late.model(x), y).detach()) == pytest.approx(at, rel=1e-12)
    for (a, b), one, other in zip(expected[:1], first, rest, strict=False):
        torch.testing.assert_close((one, other), (a, b))
    torch.testing.assert_close([first[1], rest[1]], expected[1])
    torch.testing.assert_close([first[2][2], rest[2][2]], expected[2])
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in net.parameters()]), late.vector)
    with pytest.raises(ValueError, match=r"at_inputs gives graphs .*; accepted: within snapshot.measuring\(\)"):
        early.at_inputs()
    with late.measuring():
        with pytest.raises(ValueError, match="at_inputs gives graphs"):
            early.at_inputs()
        with early.measuring():
            left = early.at_inputs()  # and never closed
            _, output, _ = next(left)
        assert float(CE(late.model(x), y).detach()) == pytest.approx(at, rel=1e-12)
    torch.testing.assert_close(output.detach(), early.predictions[0][0].detach())
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in net.parameters()]), late.vector)


@pytest.mark.parametrize("step", range(8))
def test_a_signal_while_things_are_put_back(monkeypatch, step):
    """The restore is broken off at one of its steps, as Ctrl-C does, and done again."""
    torch.manual_seed(0)
    net = Shared().double()
    before = {key: (t.data_ptr(), t.clone()) for key, t in net.state_dict().items()}
    calls = []
    plain = torch.equal

    def interrupted(*args):
        calls.append(1)
        if len(calls) == step + 1:
            raise KeyboardInterrupt
        return plain(*args)

    with restoring(net):
        for p in net.parameters():
            p.data = torch.zeros_like(p)
        net.layers[0].requires_grad_(False)
        monkeypatch.setattr(torch, "equal", interrupted)
        context = pytest.raises(KeyboardInterrupt) if step < 6 else pytest.MonkeyPatch.context()
        with context, restoring(net):
            pass
        monkeypatch.setattr(torch, "equal", plain)
        assert not any(p.any() for p in net.parameters())
    assert all(t.data_ptr() == before[key][0] and torch.equal(t, before[key][1]) for key, t in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_graphs_are_kept_within_the_memory_that_is_free(monkeypatch):
    import genbench.measures.evaluation as evaluation
    import genbench.measures.operators as module

    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), data(400)
    whole = Snapshot(net, CE, [(x, y)])
    v = torch.randn(whole.size, dtype=torch.float64)
    expected = whole.hessian.matvec(v), whole.gradient_at(whole.vector)[1]
    each = whole.shared("graphs of hessian", module._Kept).each
    sizes = []
    net.register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    monkeypatch.setattr(evaluation, "room", lambda _device: 400 * each)  # a quarter of the graphs
    sliced = Snapshot(net, CE, [(x, y)])
    for _ in range(2):
        torch.testing.assert_close(sliced.hessian.matvec(v), expected[0], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(sliced.gradient_at(sliced.vector)[1], expected[1], rtol=1e-10, atol=1e-13)
    kept = sliced.shared("graphs of hessian", module._Kept)
    assert 0 < len(kept.graphs) <= 4
    assert kept.held <= 100 * each
    assert sizes.count(25) == 16 + 16 - 4  # slices of a quarter of the room; those that are kept are not made again
    assert math.isclose(sliced.mean_loss, whole.mean_loss)


class Between(nn.Module):
    """Two layers and an autograd function between them."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(6, 8), nn.Linear(8, 3), function

    def forward(self, x):
        return self.b(self.function.apply(self.a(x)))


def test_sharpness_of_a_network_without_a_second_derivative():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            (z,) = ctx.saved_tensors
            return g * (1 - z.tanh() ** 2)

    torch.manual_seed(0)
    net, (x, y) = Between(Once).double(), data()
    found = sam_sharpness(Snapshot(net, CE, [(x, y)]))
    plain = sam_sharpness(Snapshot(nn.Sequential(net.a, nn.Tanh(), net.b), CE, [(x, y)]))
    assert found.value == pytest.approx(plain.value, rel=1e-2)  # the largest maximum, from other starts
    snapshot = Snapshot(net, CE, [(x, y)])
    for product in (snapshot.hessian.matvec, snapshot.gauss_newton.matvec):
        with pytest.raises(ValueError, match="no second derivative"):  # torch takes the function for a constant
            product(torch.randn(snapshot.size, dtype=torch.float64))


def test_an_embedding_bag_has_gradients_and_no_curvature():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(9, 4, mode="mean"), nn.Linear(4, 3)

        def forward(self, words, offsets):
            return self.head(self.bag(words, offsets).tanh())

    torch.manual_seed(0)
    net, words, y = Bag().double(), torch.randint(9, (40,)), torch.randint(3, (12,))
    batches = [(words[i * 20 :][:20], torch.tensor([0, 2, 5, 9, 10, 14]), y[i * 6 :][:6]) for i in (0, 1)]
    snapshot = Snapshot(net, CE, batches, forward=lambda m, b: (m(*b[:2]), b[2]))
    slopes = torch.autograd.grad(sum(CE(net(*b[:2]), b[2]) for b in batches) / 2, list(net.parameters()))
    expected = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
    assert gradient_norm(snapshot).value == pytest.approx(expected, rel=1e-9)
    assert sam_sharpness(snapshot).value > 0
    for function in (hessian_trace, gauss_newton_trace, hessian_eigenvalues, genbench.measures.effective_dimension):
        with pytest.raises(ValueError, match=r"^the network has no second derivative: .* torch has none of it$"):
            function(snapshot)


def test_attributes_that_a_forward_pass_sets_or_fills():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls, self.seen = nn.Linear(6, 3), 0, []
            self.cos, self.table, self.mean = None, {}, torch.zeros(6, dtype=torch.float64)

        def forward(self, x):
            if self.cos is None:
                self.cos = x.new_ones(6)
            self.calls += 1
            self.seen.append(x)
            self.table["x"] = x
            self.mean += x.detach().mean(0)
            self.new = x
            return self.layer(x * self.cos)

    net, (x, y) = Keeping().double(), data()
    hessian_trace(Snapshot(net, CE, [(x, y)]))
    assert net.cos is None
    assert (net.calls, net.seen, net.table) == (0, [], {})
    assert not net.mean.any()
    assert not hasattr(net, "new")


def test_weights_that_the_first_pass_in_evaluation_keeps():
    class Merging(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.merged = nn.Linear(6, 3), None

        def train(self, mode=True):
            self.merged = None
            return super().train(mode)

        def forward(self, x):
            if self.training:
                return self.layer(x)
            if self.merged is None:
                self.merged = self.layer.weight.detach() * 1, self.layer.bias * 1
            return F.linear(x, *self.merged)

    torch.manual_seed(0)
    net, (x, y) = Merging().double(), data()
    snapshot = Snapshot(net, CE, [(x, y)])
    twice = copy.deepcopy(net.layer)
    with torch.no_grad():
        for p in twice.parameters():
            p.mul_(2)
    assert snapshot.loss_at(2 * snapshot.vector) == pytest.approx(float(CE(twice(x), y).detach()), rel=1e-12)


def test_under_autocast_and_cached_parametrizations():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), data()
    x = x.float()
    exact = [function(Snapshot(net, CE, [(x, y)])).value for function in (sam_sharpness, keskar_sharpness)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(x)  # the cache of autocast has its weights now
        snapshot = Snapshot(net, CE, [(x, y)])
        assert [sam_sharpness(snapshot).value, keskar_sharpness(snapshot).value] == pytest.approx(exact, rel=1e-6)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))
    expected = Snapshot(normed, CE, [(x, y)])
    expected = expected.loss_at(3 * expected.vector)
    with nn.utils.parametrize.cached():
        normed(x)
        snapshot = Snapshot(normed, CE, [(x, y)])
        assert snapshot.loss_at(3 * snapshot.vector) == pytest.approx(expected, rel=1e-6)


def test_no_shortcut_of_inference_is_taken():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

        def forward(self, x):
            padding = torch.arange(5).expand(len(x), 5) >= 3
            return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))

    torch.manual_seed(0)
    net, x, y = Pooled().eval(), torch.randn(16, 5, 8), torch.randint(3, (16,))
    snapshot = Snapshot(net, CE, [(x, y)])
    assert snapshot.gradient_at(snapshot.vector)[0] == pytest.approx(snapshot.mean_loss, rel=1e-6)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_loss_with_a_state_of_its_own():
    class Proxies(nn.Module):
        def __init__(self):
            super().__init__()
            self.proxies = nn.Linear(3, 3)
            self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))

        def forward(self, output, target):
            if self.training:
                self.mean += output.detach().mean(0)
            return CE(self.proxies(output - self.mean), target)

    torch.manual_seed(0)
    net, loss, (x, y) = nn.Linear(6, 3).double(), Proxies().double(), data()
    snapshot = Snapshot(net, loss, [(x, y)])
    expected = float(CE(loss.proxies(net(x)), y).detach())
    assert snapshot.mean_loss == pytest.approx(expected)
    assert not loss.mean.any()
    assert loss.training
    with torch.no_grad():
        loss.proxies.weight.mul_(3)  # trained on
    assert snapshot.loss_at(snapshot.vector) == pytest.approx(expected)
    with pytest.raises(ValueError, match="draws random numbers"):
        hessian_trace(Snapshot(net, lambda output, target: CE(F.dropout(output, 0.5), target), [(x, y)]))


def test_complex_weights_are_refused():
    net = nn.Linear(6, 3, dtype=torch.complex128)
    with pytest.raises(ValueError, match="weights 'weight' are complex; accepted"):
        Snapshot(net, CE, [data()])


def test_a_forward_pass_that_writes_its_weights():
    net, x, y = nn.Embedding(9, 4, max_norm=0.5), torch.randint(9, (20,)), torch.randint(4, (20,))
    snapshot = Snapshot(net, CE, [(x, y)])
    before, vector = l2_norm(snapshot)["l2"].value, snapshot.vector.clone()
    hessian_trace(snapshot)
    snapshot.loss_at(vector)
    assert torch.equal(vector, snapshot.vector)
    assert l2_norm(snapshot)["l2"].value == before
    assert torch.equal(torch.cat([p.detach().reshape(-1).double() for p in net.parameters()]), vector)


def test_members_of_an_ensemble_are_those_of_the_snapshot():
    from genbench.models import Ensemble

    torch.manual_seed(0)
    net, (x, y) = Ensemble([nn.Linear(6, 3) for _ in range(2)]).double(), data()
    snapshot = Snapshot(net, CE, [(x, y)])
    expected = l2_norm(snapshot)["l2"].value
    again = Snapshot(net, CE, [(x, y)])
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(10)
    assert l2_norm(again)["l2"].value == pytest.approx(expected)
    assert l2_norm(again.select("members.1"))["l2"].value > 0


def test_random_numbers_that_are_drawn_and_not_used_do_not_move_the_loader():
    class Augmenting(torch.utils.data.TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.randn_like(x), y

    torch.manual_seed(0)
    net, (x, y) = Drawing("idle").double(), data()
    snapshot = Snapshot(net, CE, torch.utils.data.DataLoader(Augmenting(x, y), batch_size=8))
    assert snapshot.loss_at(snapshot.vector) == pytest.approx(snapshot.mean_loss, rel=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curvature_of_a_traced_weight_norm_is_refused():
    torch.manual_seed(0)
    net, (x, y) = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3).double()), data()
    traced = torch.jit.trace(net, (x,))
    with pytest.raises(ValueError, match="second derivative of a compiled weight norm is wrong"):
        hessian_trace(Snapshot(traced, lambda output, target: CE(output.tanh(), target), [(x, y)]))


def test_class_weights_in_batches_of_one():
    torch.manual_seed(0)
    net, loss, x, y, _ = weighted()
    found = hessian_trace(Snapshot(net, loss, list(zip(x.split(1), y.split(1), strict=True))))
    assert "the loss is no mean over the examples" in found.note


class Viewing(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        flat = torch.randn(40, dtype=torch.float64)
        self.a = nn.Parameter(flat[:18].view(3, 6))
        start = {"view": 0, "overlap": 12, "apart": 18}[kind]
        self.b = nn.Parameter(self.a.view(6, 3) if kind == "view" else flat[start : start + 18].view(6, 3))

    def forward(self, x):
        return torch.tanh(x @ self.b) @ self.a @ self.b


@pytest.mark.parametrize("kind", ["view", "overlap", "apart"])
def test_parameters_with_memory_in_common_are_counted_as_the_note_says(kind):
    torch.manual_seed(0)
    net, (x, y) = Viewing(kind), data()
    snapshot = check(net, CE, [(x, y)], lambda p: CE(functional_call(net, p, (x,)), y))
    assert snapshot.size == 36
    net = Viewing(kind)
    for function in (lambda s: l2_norm(s)["l2"], gradient_norm, hessian_trace):
        note = function(Snapshot(net, CE, [(x, y)])).note
        if kind == "apart":
            assert note is None
        else:
            assert "weights 'a' and 'b' have memory in common, and count as two that move apart" in note


def test_columns_of_one_tensor_have_nothing_in_common():
    net, (x, y) = Viewing("apart"), data()
    flat = torch.randn(6, 6, dtype=torch.float64)
    net.a, net.b = nn.Parameter(flat[:, :3].T), nn.Parameter(flat[:, 3:])
    assert l2_norm(Snapshot(net, CE, [(x, y)]))["l2"].note is None


class Detached(torch.autograd.Function):
    """tanh, whose backward pass takes what it saved for a constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.y = x.tanh().detach()
        return ctx.y.clone()

    @staticmethod
    def backward(ctx, g):
        return g * (1 - ctx.y**2)


class Equilibrium(nn.Module):
    """z = f(z, x) by iteration, its gradient by a hook that solves for it (the usual implementation of DEQs)."""

    def __init__(self):
        super().__init__()
        self.z, self.x, self.out = nn.Linear(5, 5), nn.Linear(6, 5), nn.Linear(5, 3)
        nn.init.normal_(self.z.weight, std=0.2)

    def forward(self, x):
        z = torch.zeros(len(x), 5, dtype=x.dtype)
        with torch.no_grad():
            for _ in range(60):
                z = torch.tanh(self.z(z) + self.x(x))
        z = torch.tanh(self.z(z) + self.x(x))
        if z.requires_grad:
            at = z.detach().requires_grad_()
            again = torch.tanh(self.z(at) + self.x(x))

            def solve(g):
                u = g
                for _ in range(60):
                    u = torch.autograd.grad(again, at, u, retain_graph=True)[0] + g
                return u

            z.register_hook(solve)
        return self.out(z)


@pytest.mark.parametrize("kind", [lambda: Between(Detached), Equilibrium], ids=["detached", "equilibrium"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_second_derivative_that_autograd_loses_is_refused(kind, dtype):
    torch.manual_seed(0)
    net, (x, y) = kind().to(dtype), data()
    snapshot = Snapshot(net, CE, [(x.to(dtype), y)])
    gradient = torch.autograd.grad(CE(net(x.to(dtype)), y), list(net.parameters()))
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient))
    assert gradient_norm(snapshot).value == pytest.approx(norm, rel=1e-5)
    for function in (hessian_trace, gauss_newton_trace):
        with pytest.raises(ValueError, match="no second derivative that autograd knows"):
            function(snapshot)


def test_kinks_are_no_lost_derivatives():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(net[0].bias)
    x, y = data()
    x = torch.cat([x[:10].float(), torch.zeros(10, 6)])  # every unit lies on its kink
    assert hessian_trace(Snapshot(net, CE, [(x, y[:20])])).value is not None


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-9])
def test_units_that_have_decayed_are_no_lost_derivatives(size):
    """In and out of them there is nothing: to either side of the weights the gradient changes otherwise, linearly."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    with torch.no_grad():
        for part in (net[0].weight, net[0].bias, net[2].weight.T):
            part[5:] *= size
    x, y = data()
    snapshot = Snapshot(net, CE, [(x, y)])
    parameters = dict(net.named_parameters())

    def loss(w):
        parts = w.split([p.numel() for p in parameters.values()])
        values = {k: v.view(p.shape) for (k, p), v in zip(parameters.items(), parts, strict=True)}
        return CE(functional_call(net, values, (x,)), y)

    matrix = torch.autograd.functional.hessian(loss, snapshot.vector)
    v = torch.randn(len(matrix), dtype=torch.float64)
    torch.testing.assert_close(snapshot.hessian.matvec(v), matrix @ v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["padding", "reversal"])
def test_a_gradient_that_is_not_the_losss_is_no_lost_derivative(kind):
    """The row of an embedding's padding has no gradient, and is a constant of the Hessian; a reversed gradient is what
    a network is trained by."""
    torch.manual_seed(0)
    if kind == "padding":
        net = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Flatten(), nn.Tanh(), nn.Linear(12, 3)).double()
        x = torch.randint(5, (20, 4))
    else:

        class Reversed(torch.autograd.Function):
            @staticmethod
            def forward(ctx, z):
                return z.clone()

            @staticmethod
            def backward(ctx, g):
                return -g

        net, x = Between(Reversed).double(), torch.randn(20, 6, dtype=torch.float64)
    y = torch.randint(3, (20,))
    snapshot = Snapshot(net, CE, [(x, y)])
    parameters = list(net.parameters())
    v = torch.randn(snapshot.size, dtype=torch.float64)
    slopes = torch.autograd.grad(CE(net(x), y), parameters, create_graph=True)
    product = torch.autograd.grad(torch.cat([g.reshape(-1) for g in slopes]) @ v, parameters)
    expected = torch.cat([p.reshape(-1) for p in product])
    torch.testing.assert_close(snapshot.hessian.matvec(v), expected, rtol=1e-9, atol=1e-12)


def test_graphs_of_one_number_each():
    """A target [G, 1] is of G graphs, and not of one example with the time first."""

    class Readout(nn.Module):
        def __init__(self):
            super().__init__()
            self.node, self.out = nn.Linear(4, 6), nn.Linear(6, 1)

        def forward(self, x, batch, n):
            h = torch.tanh(self.node(x))
            return self.out(torch.zeros(n, 6, dtype=x.dtype).index_add(0, batch, h))

    torch.manual_seed(0)
    net, batches = Readout().double(), []
    for sizes in ([2, 3, 1, 4], [3, 2, 2, 2], [4, 1, 2]):
        batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        x, y = torch.randn(len(batch), 4).double(), torch.randn(len(sizes), 1).double()
        batches.append({"x": x, "batch": batch, "y": y})
    snapshot = Snapshot(net, F.mse_loss, batches, forward=lambda m, b: (m(b["x"], b["batch"], len(b["y"])), b["y"]))
    expected = sum(float((net(b["x"], b["batch"], len(b["y"])) - b["y"]).square().sum()) for b in batches) / 11
    assert snapshot.examples == 11
    assert snapshot.mean_loss == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="cannot be told"):
        empirical_fisher_trace(snapshot)


@pytest.mark.parametrize("late", ["a class of another weight", "one padded token", "sorted by class"])
def test_a_loss_that_is_no_mean_is_seen_wherever_it_shows(late):
    torch.manual_seed(0)
    net, x, y = nn.Linear(6, 3).double(), torch.randn(400, 6).double(), torch.arange(400) % 2
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, 8.0]).double())
    if late == "a class of another weight":
        y[380:] = torch.arange(20) % 3
    elif late == "one padded token":
        y[301] = -100
    else:
        y = (torch.arange(400) >= 300).long() * 2
    for size in (10, 100):
        snapshot = Snapshot(net, loss, list(zip(x.split(size), y.split(size), strict=True)))
        assert "no mean over the examples" in (gradient_norm(snapshot).note or "")


@pytest.mark.parametrize("size", [1.0, 1e-5])
def test_a_sum_is_refused_however_small_it_is(size):
    torch.manual_seed(0)
    net, x, y = nn.Linear(6, 1), torch.randn(40, 6), size * torch.randn(40, 1)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(size)
    with pytest.raises(ValueError, match="loss is the sum"):
        _ = Snapshot(net, nn.MSELoss(reduction="sum"), [(x, y)]).mean_loss
    mean = Snapshot(net, F.mse_loss, [(x, y)])
    assert mean.mean_loss == pytest.approx(float(F.mse_loss(net(x), y).detach()), rel=1e-5)


def test_outputs_in_one_buffer():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 4)
            self.register_buffer("out", torch.zeros(10, 4).double())

        def forward(self, x):
            y = self.inner(x)
            return y if torch.is_grad_enabled() or len(x) < 10 else self.out.copy_(y)

    torch.manual_seed(0)
    net, x, y = Writing().double(), torch.randn(30, 6).double(), torch.randint(4, (30,))
    snapshot = Snapshot(net, CE, list(zip(x.split(10), y.split(10), strict=True)))
    expected = (net.inner(x).argmax(1) == y).double().mean()
    assert accuracy(snapshot).value == pytest.approx(float(expected))


class Potential(nn.Module):
    """Answers with a derivative of what it computes by its input, as networks of forces and of equations do."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, x):
        x = x.clone().requires_grad_()
        u = self.last(torch.tanh(self.first(x)))
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return slope[:, :1] + u


def test_a_network_that_differentiates_in_its_forward_pass():
    torch.manual_seed(0)
    net, x, y = Potential().double(), torch.randn(12, 3).double(), torch.randn(12, 1).double()
    snapshot = Snapshot(net, F.mse_loss, [(x[:5], y[:5]), (x[5:], y[5:])])
    parameters = {k: p.detach() for k, p in net.named_parameters()}
    shapes = [p.shape for p in parameters.values()]

    def loss(w):
        parts = w.split([s.numel() for s in shapes])
        values = {k: p.view(s) for k, p, s in zip(parameters, parts, shapes, strict=True)}
        return F.mse_loss(torch.func.functional_call(net, values, (x,)), y)

    w = torch.cat([p.reshape(-1) for p in parameters.values()])
    matrix = torch.autograd.functional.hessian(loss, w)
    (slope,) = torch.autograd.grad(loss(w.requires_grad_()), w)
    assert snapshot.mean_loss == pytest.approx(float(loss(w.detach())), rel=1e-12)
    assert gradient_norm(snapshot).value == pytest.approx(float(slope.norm()), rel=1e-9)
    found = hessian_eigenvalues(snapshot, k=1)["lambda_1"]
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-4)
    assert snapshot.loss_at(1.1 * w.detach()) == pytest.approx(float(loss(1.1 * w)), rel=1e-12)
    rows = torch.cat(list(snapshot.example_gradients()))
    torch.testing.assert_close(rows.mean(0), slope, rtol=1e-9, atol=1e-12)
    assert not any(p.requires_grad is False for p in net.parameters())


class Mean(nn.Module):
    """A classifier of sequences of any length."""

    def __init__(self):
        super().__init__()
        self.unit, self.hidden, self.head = nn.Linear(2, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.hidden(self.unit(x).relu().mean(1)).relu())


def test_sequences_that_are_padded_to_the_longest_of_their_batch():
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, t, 2, generator=generator), torch.arange(8) % 3) for t in (7, 4)]
    net = Mean()
    snapshot = Snapshot(net, CE, batches, initial=net.state_dict())
    with torch.no_grad():
        pooled = torch.cat([net.unit(x).relu().mean(1) for x, _ in batches])
    short = Snapshot(nn.Sequential(net.hidden, nn.ReLU(), net.head), CE, [(pooled, torch.arange(16) % 8 % 3)])
    for name in ("neural_collapse", "effective_rank"):  # of the layers that are given equal rows
        measured = getattr(genbench.measures, name)
        found, expected = (each if isinstance(each := measured(s), Estimate) else each[name] for s in (snapshot, short))
        assert found.value == pytest.approx(expected.value, rel=1e-4)
    margins = genbench.measures.normalized_margin(snapshot)
    assert margins["margin_over_spectral"].value is not None
    assert margins["normalized_margin"].note == "undefined: examples have several shapes"
    curvature = genbench.measures.input_curvature
    alone = [curvature(Snapshot(net, CE, [batch]))["input_curvature"].value for batch in batches]
    assert curvature(snapshot)["input_curvature"].value == pytest.approx(sum(alone) / 2, rel=0.2)
    reason = "inputs have shapes (4, 2) and (7, 2); accepted: the same in all batches"
    for name in ("label_wise_mixup", "perturbation_response", "augmentation_change"):
        notes = {e.note for e in getattr(genbench.measures, name)(snapshot).values()}
        assert notes == {f"undefined: {reason}"}
    for name in ("prequential_code", "variational_code", "mixture_code"):
        with pytest.raises(ValueError, match=r"^inputs have shapes \(4, 2\) and \(7, 2\); accepted"):
            getattr(genbench.measures, name)(snapshot)


class Bumped(nn.Module):
    """Writes into its input, which nobody may see."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))

    def forward(self, x):
        return self.net(x.add_(1))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("label_wise_mixup", {}),
        ("perturbation_response", {"points": 3}),
        ("augmentation_change", {}),
        ("linear_region_transitions", {"paths": 2, "points": 16}),
        ("prequential_code", {"first": 8, "steps": 3}),
        ("variational_code", {"steps": 16, "samples": 2}),
        ("mixture_code", {"widths": [2], "first": 8, "steps": 3}),
        ("pac_bayes_optimized", {"steps": 16, "samples": 3}),
    ],
)
def test_batches_of_another_form_whose_model_takes_one_tensor(name, settings):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 1, 8, generator=generator), torch.arange(20) % 3
    net = Bumped()
    pairs = Snapshot(net, CE, [(x[:12], y[:12]), (x[12:], y[12:])], initial=net.state_dict())
    dicts = [{"id": i, "x": x[rows], "y": y[rows]} for i, rows in enumerate((slice(12), slice(12, 20)))]
    other = Snapshot(net, CE, dicts, initial=net.state_dict(), forward=lambda m, b: (m(b["x"]), b["y"]))
    function = getattr(genbench.measures, name)
    train = "train" in inspect.signature(function).parameters
    results = [function(each, *([each] if train else []), **settings) for each in (pairs, other)]
    of_pairs, of_dicts = (r if isinstance(r, dict) else {name: r} for r in results)
    assert any(estimate.value is not None for estimate in of_pairs.values())
    assert {key: e.value for key, e in of_dicts.items()} == {key: e.value for key, e in of_pairs.items()}


@pytest.mark.parametrize("kind", ["infinite input", "root of zero"])
def test_derivatives_that_are_not_finite_are_no_number(kind):
    """0 · ∞ in the backward pass of a loss that is finite itself."""

    class Root(nn.Module):
        def forward(self, x):
            return x.square().sqrt()

    torch.manual_seed(0)
    x, y = data(12)
    if kind == "infinite input":
        net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        x[3, 1] = math.inf
    else:
        net = nn.Sequential(nn.Linear(6, 4, bias=False), Root(), nn.Linear(4, 3)).double()
        x[3] = 0
    snapshot = Snapshot(net, CE, [(x, y)], initial=net.state_dict())
    assert math.isfinite(snapshot.mean_loss)
    weight = next(net.parameters())
    (slope,) = torch.autograd.grad(CE(net(x), y), [weight])
    assert not slope.isfinite().all()
    settings = {"keskar_sharpness": {"dimensions": 2}, "m_sharpness": {"m": 12, "batches": 2}}
    for name, reason in (
        ("gradient_snr", "the gradient of an example is not finite"),
        ("gradient_noise_scale", "the gradient of an example is not finite"),
        ("gradient_coherence", "the gradient of an example is not finite"),
        ("stiffness", "the gradient of an example is not finite"),
        ("tangent_kernel", "the gradient of an example is not finite"),
        ("sam_sharpness", "the gradient of the loss is not finite"),
        ("m_sharpness", "the gradient of the loss is not finite"),
        ("adaptive_sharpness", "the gradient of the loss is not finite"),
        ("first_order_flatness", "the gradient of the loss is not finite"),
        ("keskar_sharpness", "the gradient of the loss is not finite"),
        ("hessian_trace", "a product with the curvature matrix is not finite"),
        ("hessian_eigenvalues", "a product with the curvature matrix is not finite"),
        ("effective_dimension", "a product with the curvature matrix is not finite"),
        ("rescaling", "a product with the curvature matrix is not finite"),
    ):
        with pytest.raises(ValueError, match=f"^{reason}$"):
            getattr(genbench.measures, name)(snapshot, **settings.get(name, {}))
    for name in ("flat_box_volume", "sensitive_weights"):
        note = getattr(genbench.measures, name)(snapshot).note
        assert note.startswith("undefined: a derivative of the outputs is not finite")
    for name in ("gradient_norm", "fisher_trace"):
        assert getattr(genbench.measures, name)(snapshot).note.startswith("the value is nan")
