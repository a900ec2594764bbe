"""Margin bounds against their formulas by hand."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, rademacher_bound, spectral_margin_bound

PRICE = math.log(math.pi**2 / 3 - 1)


def rounded(size):
    """The power e^(j/100) that is next above a size, and log δ/δ_j."""
    j = math.ceil(100 * math.log(size))
    return math.exp(j / 100), 2 * math.log(1 + abs(j)) + PRICE


def linear(w, x, y):
    net = nn.Linear(x.shape[1], len(w), bias=False).double()
    net.weight.data = torch.tensor(w, dtype=torch.float64)
    return Snapshot(net, F.cross_entropy, [(x, y)])


def chain(*widths, bias=True, n=50, classes=3, seed=0):
    """A network that answers all examples rightly: they are labelled by it."""
    torch.manual_seed(seed)
    sizes = [4, *widths, classes]
    layers = [nn.Linear(a, b, bias=bias).double() for a, b in itertools.pairwise(sizes)]
    net = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    x = torch.randn(n, 4).double()
    return net, x, net(x).argmax(1)


def of(net, x, y):
    return Snapshot(net, F.cross_entropy, [(x[:20], y[:20]), (x[20:], y[20:])])


@pytest.mark.oracle("rademacher_bound")
def test_rademacher_bound_of_a_halfspace_by_hand():
    x, y = torch.tensor([[3.0], [-3.0], [5.0], [-4.0]]).double(), torch.tensor([1, 0, 1, 0])
    found = rademacher_bound(linear([[-1.0], [1.0]], x, y), percentile=0)  # margins 2|x|, γ = 6, norm 2
    size, price = rounded(2 / 6)
    complexity = size * (math.sqrt(2 * math.log(2)) + 1) * math.sqrt(9 + 9 + 25 + 16) / 4
    assert found["rademacher_complexity"].value == pytest.approx(complexity, rel=1e-12)
    expected = 2 * complexity + 3 * math.sqrt((math.log(2 / 0.05) + price) / 8)
    assert found["rademacher_bound"].value == pytest.approx(expected, rel=1e-12)


@pytest.mark.oracle("rademacher_bound")
def test_the_ramp_counts_margins_below_gamma():
    x, y = torch.tensor([[1.0], [-1.0], [2.0], [-4.0]]).double(), torch.tensor([1, 0, 1, 1])
    snapshot = linear([[0.0], [1.0]], x, y)  # margins 1, 1, 2, −4
    full = rademacher_bound(snapshot, percentile=100)
    rest = 2 * full["rademacher_complexity"].value
    rest += 3 * math.sqrt((math.log(40) + rounded(1 / 2)[1]) / 8)
    assert full["rademacher_bound"].value == pytest.approx((0.5 + 0.5 + 0 + 1) / 4 + rest, rel=1e-12)


def test_complexity_exceeds_that_of_the_linear_class():
    """sup over ‖w‖ ≤ 1 of mean εᵢ w·xᵢ is ‖Σ εᵢxᵢ‖/m."""
    net, x, y = chain(bias=False, classes=2)
    gap = (net[0].weight[1] - net[0].weight[0]).detach().norm()
    margins = F.linear(x, net[0].weight.detach())
    gamma = float((margins[:, 0] - margins[:, 1]).abs().min())
    signs = torch.randint(2, (4000, len(x)), generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    exact = float((signs @ x).norm(dim=1).mean() / len(x) * gap / gamma)
    found = rademacher_bound(of(net, x, y), percentile=0)["rademacher_complexity"].value
    assert exact < found < (math.sqrt(2 * math.log(2)) + 1) * 1.2 * exact


def test_biases_are_weights_of_a_further_input():
    net, x, y = chain(6, 5)
    folded, inside = [], [m for m in net if isinstance(m, nn.Linear)]
    for index, m in enumerate(inside):
        w = torch.cat([m.weight.data, m.bias.data[:, None]], 1)
        last = torch.eye(w.shape[1], dtype=torch.float64)[-1:]
        layer = nn.Linear(w.shape[1], len(w) + (index < 2), bias=False).double()
        layer.weight.data = torch.cat([w, last]) if index < 2 else w
        folded += [layer, nn.ReLU()]
    other = of(nn.Sequential(*folded[:-1]), torch.cat([x, torch.ones(len(x), 1)], 1), y)
    for bound in (rademacher_bound, spectral_margin_bound):
        ours, theirs = bound(of(net, x, y)), bound(other)
        for key, estimate in ours.items():
            assert estimate.value == pytest.approx(theirs[key].value, rel=1e-9)


@pytest.mark.oracle("spectral_margin_bound")
def test_spectral_bound_of_three_layers_by_hand():
    net, x, y = chain(16, 12, bias=False)
    w = [m.weight.detach() for m in net if isinstance(m, nn.Linear)]
    s = [float(torch.linalg.matrix_norm(each, 2)) for each in w]
    ratios = [sum(float(row.norm()) for row in each) / t for each, t in zip(w, s, strict=True)]
    z = net(x).detach()
    margins = z.max(1).values - z.scatter(1, y[:, None], -math.inf).max(1).values
    gamma, n = float(margins.min()), len(x)
    found = spectral_margin_bound(of(net, x, y), percentile=0)
    r = math.prod(s) * sum(q ** (2 / 3) for q in ratios) ** 1.5
    assert found["spectral_complexity"].value == pytest.approx(r, rel=1e-9)
    scale = 72 * float(x.norm()) * math.log(n) * math.sqrt(math.log(2 * 16**2)) / n
    assert found["spectral_term"].value == pytest.approx(scale * r / gamma, rel=1e-9)
    longest = float(x.norm(dim=1).max())
    over_margin = longest * r / (gamma * math.sqrt(n))
    assert found["spectral_over_margin"].value == pytest.approx(over_margin, rel=1e-9)
    (over, *above), prices = zip(*map(rounded, (math.prod(s) / gamma, *ratios)), strict=True)
    confidence = math.log(40) + sum(prices)
    fitted = float((margins <= gamma).double().mean())
    expected = fitted + 8 / n**1.5 + scale * over * sum(q ** (2 / 3) for q in above) ** 1.5
    expected += 3 * math.sqrt(confidence / (2 * n))
    assert found["spectral_margin_bound"].value == pytest.approx(expected, rel=1e-9)
    assert "vacuous" in found["spectral_margin_bound"].note


def moved(scale, **settings):
    """A network that answers all examples rightly, and the weights it began with."""
    net, x, y = chain(16, 12, **settings)
    generator = torch.Generator().manual_seed(5)
    start = {k: v - scale * torch.randn(v.shape, generator=generator).to(v) for k, v in net.state_dict().items()}
    return net, x, y, start


@pytest.mark.oracle("spectral_margin_bound")
@pytest.mark.parametrize("bias", [False, True])
def test_spectral_bound_from_the_initial_weights_by_hand(bias):
    net, x, y, start = moved(0.05, bias=bias)
    names = ("0", "2", "4")
    if bias:
        padded = torch.cat([x, torch.ones(len(x), 1)], 1)
        w = [torch.cat([net.state_dict()[f"{k}.weight"], net.state_dict()[f"{k}.bias"][:, None]], 1) for k in names]
        w0 = [torch.cat([start[f"{k}.weight"], start[f"{k}.bias"][:, None]], 1) for k in names]
        for each in w[:2]:
            each.data = torch.cat([each, torch.eye(each.shape[1], dtype=each.dtype)[-1:]])
        for each in w0[:2]:
            each.data = torch.cat([each, torch.eye(each.shape[1], dtype=each.dtype)[-1:]])
    else:
        padded, w, w0 = x, [net.state_dict()[f"{k}.weight"] for k in names], [start[f"{k}.weight"] for k in names]
    s = [float(torch.linalg.matrix_norm(each, 2)) for each in w]
    ratios = [float((a - b).norm(dim=1).sum()) / t for a, b, t in zip(w, w0, s, strict=True)]
    z = net(x).detach()
    gamma, n = float((z.max(1).values - z.scatter(1, y[:, None], -math.inf).max(1).values).min()), len(x)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:20], y[:20]), (x[20:], y[20:])], initial=start)
    found = spectral_margin_bound(snapshot, reference="init", percentile=0)
    r = math.prod(s) * sum(q ** (2 / 3) for q in ratios) ** 1.5
    assert found["spectral_init_complexity"].value == pytest.approx(r, rel=1e-9)
    over_margin = float(padded.norm(dim=1).max()) * r / (gamma * math.sqrt(n))
    assert found["spectral_init_over_margin"].value == pytest.approx(over_margin, rel=1e-9)
    width = max(max(each.shape) for each in w)
    scale = 72 * float(padded.norm()) * math.log(n) * math.sqrt(math.log(2 * width**2)) / n
    assert found["spectral_init_term"].value == pytest.approx(scale * r / gamma, rel=1e-9)
    sizes, prices = zip(*map(rounded, (*s, 1 / gamma, *ratios)), strict=True)
    expected = float(n**-1) + 8 / n**1.5  # one margin is γ
    expected += scale * math.prod(sizes[:4]) * sum(q ** (2 / 3) for q in sizes[4:]) ** 1.5
    expected += 3 * math.sqrt((math.log(40) + sum(prices)) / (2 * n))
    assert found["spectral_init_margin_bound"].value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("reference", ["origin", "init"])
def test_rounding_costs_little_of_the_norms(reference):
    """So the bound grows as they do."""
    net, x, y, start = moved(0.05)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], initial=start)
    found = [estimate.value for estimate in spectral_margin_bound(snapshot, reference=reference).values()]
    bound, term = found[:2]
    assert term <= bound <= math.exp(0.01 * 5) * term + 10


def test_a_layer_that_training_left_as_it_was_has_no_part():
    net, x, y, start = moved(0.05, bias=False)
    start |= {"2.weight": net.state_dict()["2.weight"].clone()}
    found = spectral_margin_bound(Snapshot(net, F.cross_entropy, [(x, y)], initial=start), reference="init")
    w = {k: net.state_dict()[f"{k}.weight"] for k in ("0", "2", "4")}
    s = {k: float(torch.linalg.matrix_norm(each, 2)) for k, each in w.items()}
    ratios = [float((w[k] - start[f"{k}.weight"]).norm(dim=1).sum()) / s[k] for k in ("0", "4")]
    r = math.prod(s.values()) * sum(q ** (2 / 3) for q in ratios) ** 1.5
    assert found["spectral_init_complexity"].value == pytest.approx(r, rel=1e-9)
    assert math.isfinite(found["spectral_init_margin_bound"].value)


def test_there_may_be_no_initial_weights():
    net, x, y = chain(6)
    found = spectral_margin_bound(of(net, x, y), reference="init")
    assert set(found) == {f"spectral_init_{part}" for part in ("margin_bound", "term", "complexity", "over_margin")}
    assert {e.note for e in found.values()} == {"undefined: there are no initial weights"}


@pytest.mark.parametrize("bound", [rademacher_bound, spectral_margin_bound])
def test_layers_may_be_rescaled(bound):
    net, x, y = chain(16, bias=False)
    before = bound(of(net, x, y))
    with torch.no_grad():
        net[0].weight.mul_(8)
        net[2].weight.div_(8)
    for key, estimate in bound(of(net, x, y)).items():
        assert estimate.value == pytest.approx(before[key].value, rel=1e-9)


def test_a_halfspace_with_many_examples_is_bounded_and_the_bound_holds():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (40_000, 1), generator=generator).double() * 2 - 1
    flipped = torch.rand(40_000, generator=generator) < 0.1
    y = ((x[:, 0] > 0) ^ flipped).long()
    found = rademacher_bound(linear([[-1.0], [1.0]], x, y), percentile=50)["rademacher_bound"]
    assert 0.1 < found.value < 0.2
    assert found.note is None


@pytest.mark.parametrize("bound", [rademacher_bound, spectral_margin_bound])
def test_undefined_where_the_theorem_says_nothing(bound):
    net, x, y = chain(6)
    tanh = nn.Sequential(net[0], nn.Tanh(), net[2])
    assert all(
        "ReLU between" in e.note for e in bound(Snapshot(tanh, F.cross_entropy, [(x, tanh(x).argmax(1))])).values()
    )
    assert all("not positive" in e.note for e in bound(of(net, x, (y + 1) % 3)).values())
    conv = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(4, 3)).double()
    images = x[:, None]
    found = bound(Snapshot(conv, F.cross_entropy, [(images, conv(images).argmax(1))]))
    assert all("fully connected" in e.note for e in found.values())


def test_one_logit_is_the_difference_of_two():
    net, x, _ = chain(6, classes=1)
    z = net(x)[:, 0]
    double = nn.Sequential(net[0], nn.ReLU(), nn.Linear(6, 2).double())
    with torch.no_grad():
        double[2].weight.copy_(torch.cat([torch.zeros(1, 6), net[2].weight]))
        double[2].bias.copy_(torch.cat([torch.zeros(1), net[2].bias]))
    begun = [{k: 0.9 * v for k, v in each.state_dict().items()} for each in (net, double)]
    one = Snapshot(net, F.binary_cross_entropy_with_logits, [(x, (z > 0).double()[:, None])], initial=begun[0])
    two = Snapshot(double, F.cross_entropy, [(x, (z > 0).long())], initial=begun[1])
    for bound in (rademacher_bound, spectral_margin_bound, partial(spectral_margin_bound, reference="init")):
        for key, estimate in bound(one).items():
            assert estimate.value == pytest.approx(bound(two)[key].value, rel=1e-9)


@pytest.mark.parametrize("settings", [{"percentile": 101}, {"delta": 0}, {"delta": 1}])
def test_bad_settings(settings):
    net, x, y = chain(6)
    for bound in (rademacher_bound, spectral_margin_bound):
        with pytest.raises(ValueError, match=r"percentile is|delta is"):
            bound(of(net, x, y), **settings)
    with pytest.raises(ValueError, match=r"^reference is 'zero'; accepted: init, origin$"):
        spectral_margin_bound(of(net, x, y), reference="zero")
