"""Bounds against their formulas by hand, and whether they hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from genbench.measures import (
    Snapshot,
    pac_bayes_bound,
    pacbayes_sigma,
    rademacher_bound,
    sign_correlation,
    spectral_margin_bound,
    subspace_compression_bound,
    vc_bound,
    vc_dimension,
)
from genbench.measures.bounds import kl_inverse
from tests.helpers.measured import independent
from tests.helpers.networks import NETS, build


def formula(layers, parameters, units, breakpoints=1):
    """L + ΣW log₂(4epR log₂ 2epR) from lists of one entry a layer."""
    r = breakpoints * sum(i * k for i, k in enumerate(units, 1))
    cumulated = sum(sum(parameters[: i + 1]) for i in range(layers))
    return layers + cumulated * math.log2(4 * math.e * r * math.log2(2 * math.e * r))


def snapshot_of(net, *shape, n=8, k=3):
    torch.manual_seed(0)
    return Snapshot(net, F.cross_entropy, [(torch.randn(n, *shape), torch.randint(k, (n,)))])


@pytest.mark.oracle("vc_dimension")
def test_vc_dimension_of_an_mlp():
    net, x, y = build("mlp")  # 4-6-5-3: the answer of three logits takes three differences
    found = vc_dimension(Snapshot(net, F.cross_entropy, [(x, y)])).value
    assert found == pytest.approx(formula(3, [30, 35, 18], [6, 5, 3]), rel=1e-12)


@pytest.mark.oracle("vc_dimension")
def test_vc_dimension_of_a_halfspace():
    net = nn.Linear(7, 1)
    snapshot = Snapshot(net, F.binary_cross_entropy_with_logits, [(torch.randn(9, 7), torch.ones(9, 1))])
    assert vc_dimension(snapshot).value == pytest.approx(formula(1, [8], [1]), rel=1e-12)
    assert vc_dimension(snapshot).value > 8  # what it is


@pytest.mark.oracle("vc_dimension")
def test_vc_dimension_of_a_convolution_counts_its_positions():
    net = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 4)
    ).eval()
    assert vc_dimension(snapshot_of(net, 2, 6, k=4)).value == pytest.approx(
        formula(3, [21, 6, 28], [12, 12, 6]), rel=1e-12
    )


def test_vc_dimension_counts_shared_weights_once_and_frozen_ones_not():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 3))
    assert vc_dimension(snapshot_of(net, 4)).value == pytest.approx(formula(3, [20, 0, 15], [4, 4, 3]), rel=1e-12)
    shared.requires_grad_(False)
    assert vc_dimension(snapshot_of(net, 4)).value == pytest.approx(formula(3, [0, 0, 15], [4, 4, 3]), rel=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_vc_dimension_is_that_of_piecewise_linear_networks(name):
    net, x, y = build(name)
    found = vc_dimension(Snapshot(net, F.cross_entropy, [(x, y)]))
    if name in ("mlp", "frozen"):
        assert found.value > 0
    else:
        assert found.value is None
        assert "not piecewise linear" in found.note


@pytest.mark.parametrize(
    ("activation", "linear"),
    [
        (nn.ReLU(), True),
        (nn.LeakyReLU(), True),
        (nn.Hardtanh(), True),
        (nn.GELU(), False),
        (nn.Sigmoid(), False),
        (nn.LayerNorm(5), False),
    ],
)
def test_activations(activation, linear):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), activation, nn.Linear(5, 3))
    assert (vc_dimension(snapshot_of(net, 4)).value is not None) is linear


@pytest.mark.parametrize(("activation", "breakpoints"), [(nn.ReLU(), 1), (nn.ReLU6(), 2), (nn.Softshrink(), 2)])
def test_activations_of_three_pieces_count_for_more(activation, breakpoints):
    net = nn.Sequential(nn.Linear(4, 5), activation, nn.Linear(5, 3))
    expected = formula(2, [25, 18], [5, 3], breakpoints)
    assert vc_dimension(snapshot_of(net, 4)).value == pytest.approx(expected, rel=1e-12)


def test_vc_dimension_reads_the_classes_where_they_are():
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 3).double(), torch.randn(9, 5, 4).double(), torch.randint(3, (9, 5))
    first = nn.Sequential(net, nn.Module())
    first[1].forward = lambda z: {"hidden": z, "logits": z.movedim(2, 1)}
    expected = formula(1, [15], [3 * 5])  # three pairs of classes at each of five places
    last = Snapshot(net, lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()), [(x, y)])
    named = Snapshot(first, lambda o, y: F.cross_entropy(o["logits"], y), [(x, y)])
    for snapshot in (last, named):
        assert vc_dimension(snapshot).value == pytest.approx(expected, rel=1e-12)
        assert vc_bound(snapshot).note == "vacuous: not below the error 0.667 of guessing"


def test_vc_dimension_of_tokens_is_not_known():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    snapshot = Snapshot(net, F.cross_entropy, [(torch.randint(5, (6, 2)), torch.randint(3, (6,)))])
    assert "no real numbers" in vc_dimension(snapshot).note


@pytest.mark.oracle("vc_bound")
def test_vc_bound_written_out():
    torch.manual_seed(0)
    net = nn.Linear(1, 1).double()
    x = torch.linspace(-1, 1, 20_000, dtype=torch.float64)[:, None]
    with torch.no_grad():
        net.weight.fill_(1.0)
        net.bias.fill_(-0.1)
    snapshot = Snapshot(net, F.binary_cross_entropy_with_logits, [(x, (x > 0).double())])  # 5 % of them are wrong
    d, m = formula(1, [2], [1]), 20_000
    expected = 0.05 + math.sqrt(2 * d * math.log(math.e * m / d) / m) + math.sqrt(math.log(10) / (2 * m))
    found = vc_bound(snapshot, delta=0.1)
    assert found.value == pytest.approx(expected, abs=1e-4)
    assert found.note is None
    assert vc_bound(snapshot, delta=0.01).value > found.value


def test_vc_bound_that_is_vacuous():
    net, x, y = build("mlp")
    found = vc_bound(Snapshot(net, F.cross_entropy, [(x, y)]))
    error = float((net(x).argmax(1) != y).double().mean())
    assert found.value == pytest.approx(error + math.sqrt(2 * math.log(2)) + math.sqrt(math.log(20) / 48), rel=1e-12)
    assert "vacuous: not below the error 0.667" in found.note


@given(q=st.floats(0, 1), c=st.floats(0, 50))
@settings(max_examples=200, deadline=None)
def test_kl_inverse(q, c):
    p = kl_inverse(q, c)
    assert q <= p <= 1
    if 0 < q < p < 1 - 1e-9:
        assert q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)) == pytest.approx(c, rel=1e-6, abs=1e-9)


def test_kl_inverse_by_hand():
    assert kl_inverse(0.0, 0.5) == pytest.approx(1 - math.exp(-0.5), rel=1e-12)
    assert kl_inverse(0.3, 0.0) == pytest.approx(0.3, abs=1e-7)
    assert kl_inverse(1.0, 0.1) == 1
    assert kl_inverse(0.2, 1e4) == 1


@pytest.mark.oracle("pac_bayes_bound")
@pytest.mark.parametrize("prior", ["init", "origin"])
def test_pac_bayes_written_out(prior):
    net, x, y = build("mlp")
    initial = {k: v.clone() for k, v in build("mlp", seed=1)[0].state_dict().items()}
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)
    sigma, n, delta, m = 0.3, 10, 0.1, 24
    found = pac_bayes_bound(snapshot, prior=prior, sigma=sigma, samples=n, delta=delta)
    w = snapshot.vector
    mean = torch.cat([initial[name].reshape(-1) for name in snapshot.parameters]) if prior == "init" else 0 * w
    posterior = Independent(Normal(w, torch.full_like(w, sigma)), 1)
    best = math.inf
    for j in range(-1000, 1000):
        s = math.exp(j / 200)
        kl = float(kl_divergence(posterior, Independent(Normal(mean, torch.full_like(w, s)), 1)))
        best = min(best, kl + 2 * math.log(1 + abs(j)))  # what is paid for j counts
        if kl == pytest.approx(found["pac_bayes_kl"].value, rel=1e-9):
            chosen = (kl, j)
    kl, j = chosen
    assert kl + 2 * math.log(1 + abs(j)) == pytest.approx(best, rel=1e-12)
    error = found["pac_bayes_train_error"].value
    seen = kl_inverse(error, math.log(2 / delta) / n)
    p_j = 1 / (1 + abs(j)) ** 2 / sum(1 / (1 + abs(i)) ** 2 for i in range(-200_000, 200_001))
    total = (kl + math.log(2 * math.sqrt(m) * 2 / delta) - math.log(p_j)) / m
    assert found["pac_bayes_bound"].value == pytest.approx(kl_inverse(seen, total), rel=1e-5)
    assert error <= found["pac_bayes_bound"].value <= 1


def test_a_prior_that_is_worse_by_less_than_its_price_saves_a_bound():
    """Few weights and examples: the nearest prior, s² = σ² + ‖w‖²/d, costs 2 log(1 + |j|) = 11 nats of 200."""
    weights = torch.full((8,), 0.5)
    found = pac_bayes_bound(independent(weights), prior="origin", sigma=0.05, samples=20)
    divergences = {}
    for j in range(-1000, 1000):
        variance = math.exp(j / 100)
        ratio = 0.05**2 / variance
        divergences[j] = (8 * (ratio - 1 - math.log(ratio)) + 8 * 0.25 / variance) / 2
    nearest = min(divergences, key=divergences.__getitem__)
    priced = min(divergences, key=lambda j: divergences[j] + 2 * math.log(1 + abs(j)))
    assert (
        divergences[priced] + 2 * math.log(1 + abs(priced)) < divergences[nearest] + 2 * math.log(1 + abs(nearest)) - 1
    )
    assert found["pac_bayes_kl"].value == pytest.approx(divergences[priced], rel=1e-9)


@pytest.mark.oracle("pac_bayes_bound")
def test_the_train_error_of_the_stochastic_classifier():
    found = pac_bayes_bound(independent(torch.full((3000,), 1.0)), prior="origin", sigma=0.8, samples=20)
    error = found["pac_bayes_train_error"]
    assert abs(error.value - norm.cdf(-1 / 0.8)) < 3 * error.stderr
    assert error.stderr < 0.01
    assert "vacuous" in found["pac_bayes_bound"].note  # one weight an example


def halfspace(m, seed, noise=0.05):
    """Points of the plane on two sides of a line, some with the wrong label."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(m, 2, generator=generator, dtype=torch.float64)
    flipped = torch.rand(m, generator=generator) < noise
    return x, ((x[:, 0] > 0) != flipped).double()[:, None]


def test_a_bound_that_says_something_holds_on_new_examples():
    net = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.0]]))
    x, y = halfspace(20_000, seed=99)
    generator = torch.Generator().manual_seed(0)
    draws = net.weight.detach() + 0.1 * torch.randn(400, 2, generator=generator, dtype=torch.float64)
    true = float(((x @ draws.T > 0).double() != y).double().mean())
    bounds = []
    for seed in range(20):
        snapshot = Snapshot(net, F.binary_cross_entropy_with_logits, [halfspace(2000, seed)])
        found = pac_bayes_bound(snapshot, prior="origin", sigma=0.1, samples=100, seed=seed)["pac_bayes_bound"]
        assert found.note is None
        bounds.append(found.value)
    assert min(bounds) > true
    assert max(bounds) < 0.3


def test_sigma_is_that_of_the_search():
    net, x, y = build("mlp")
    with torch.no_grad():
        y = net(x).argmax(1)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    sigma = pacbayes_sigma(snapshot)["pacbayes_sigma"].value
    found = pac_bayes_bound(snapshot, prior="origin")
    given_sigma = pac_bayes_bound(snapshot, prior="origin", sigma=sigma)
    assert [e.value for e in found.values()] == [e.value for e in given_sigma.values()]
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True)))
    for key, e in pac_bayes_bound(parts, prior="origin").items():
        assert e.value == pytest.approx(found[key].value, rel=1e-9)
    assert vc_bound(parts).value == pytest.approx(vc_bound(snapshot).value, rel=1e-12)


def constant(*logits):
    """A network that answers every example alike."""
    net = nn.Linear(2, len(logits)).double()
    nn.init.zeros_(net.weight)
    net.bias.data = torch.tensor(logits).double()
    return net


@pytest.mark.oracle("sign_correlation")
def test_sign_correlation_by_hand():
    x, y = torch.randn(8, 2).double(), torch.tensor([0, 1, 1, 2, 3, 1, 0, 1])  # six of the lower half
    for logits, expected in (((1.0, 0, 0, 0), 0.5), ((0, 1.0, 0, 0), 0.5), ((0, 0, 0, 1.0), -0.5)):
        split = [(x[:3], y[:3]), (x[3:], y[3:])]
        assert sign_correlation(Snapshot(constant(*logits), F.cross_entropy, split)).value == pytest.approx(expected)
    right = nn.Sequential(nn.Linear(2, 4)).double()
    fitted = right(x).argmax(1)
    assert sign_correlation(Snapshot(right, F.cross_entropy, [(x, fitted)])).value == 1
    one = Snapshot(constant(2.0), F.binary_cross_entropy_with_logits, [(x, (y > 0).double()[:, None])])
    assert sign_correlation(one).value == pytest.approx((6 - 2) / 8)


def test_sign_correlation_of_labels_that_count():
    x = torch.randn(4, 2).double()
    loss = nn.CrossEntropyLoss(ignore_index=3)
    snapshot = Snapshot(constant(1.0, 0, 0, 0), loss, [(x, torch.tensor([0, 3, 2, 1]))])
    assert sign_correlation(snapshot).value == pytest.approx(1 / 3)
    assert sign_correlation(snapshot_of(nn.Linear(4, 3), 4)).note == "undefined: 3 classes have no two halves"
    steps = nn.Conv1d(2, 4, 1).double()
    inputs = torch.randn(5, 2, 6).double()
    tokens = Snapshot(steps, F.cross_entropy, [(inputs, steps(inputs).argmax(1))])
    assert sign_correlation(tokens).value == 1
    assert "undefined" in sign_correlation(Snapshot(nn.Linear(2, 1).double(), F.mse_loss, [(x, x[:, :1])])).note


def test_sign_correlation_of_random_labels_is_at_most_the_rademacher_complexity():
    """Of halfspaces through the origin of one input all of one sign, two functions ±1: E max(|Σσ|)/n is known."""
    n, signs = 9, torch.Generator().manual_seed(0)
    x = torch.ones(n, 1).double()
    reached = []
    for _ in range(200):
        y = torch.randint(2, (n,), generator=signs)
        net = nn.Linear(1, 1, bias=False).double()
        net.weight.data.fill_(float(2 * y.double().mean() - 1))  # the best of both
        found = sign_correlation(Snapshot(net, F.binary_cross_entropy_with_logits, [(x, y[:, None].double())]))
        reached.append(found.value)
    exact = sum(math.comb(n, k) * abs(2 * k - n) for k in range(n + 1)) / (2**n * n)
    assert sum(reached) / len(reached) == pytest.approx(exact, abs=4 * torch.tensor(reached).std().item() / 200**0.5)


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (vc_bound, {}),
        (pac_bayes_bound, {"sigma": 0.1, "samples": 5}),
        (rademacher_bound, {}),
        (spectral_margin_bound, {}),
        (subspace_compression_bound, {"dimension": 43}),
    ],
)
def test_a_bound_is_of_the_examples_whose_labels_count(function, settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    initial = {name: t + 0.1 for name, t in net.state_dict().items()}
    x = torch.randn(40, 4).double()
    y = net(x).argmax(1)
    some = torch.arange(40) % 4 == 0
    whole = Snapshot(net, F.cross_entropy, [(x, y.where(some, torch.tensor(-100)))], initial=initial)
    alone = Snapshot(net, F.cross_entropy, [(x[some], y[some])], initial=initial)
    of_both = [
        function(each, each, **settings) if "dimension" in settings else function(each, **settings)
        for each in (whole, alone)
    ]
    found, expected = (each if isinstance(each, dict) else {"": each} for each in of_both)
    for name, estimate in expected.items():
        assert estimate.value is not None
        assert found[name].value == pytest.approx(estimate.value, rel=1e-12)


def test_a_bound_of_tokens_of_which_some_count_is_none():
    net, x = nn.Conv1d(2, 4, 1).double(), torch.randn(5, 2, 6).double()
    y = net(x).argmax(1)
    assert (
        pac_bayes_bound(Snapshot(net, F.cross_entropy, [(x, y)]), prior="origin", sigma=0.1)["pac_bayes_bound"].value
        < 1
    )
    y[0, :4] = -100
    for estimate in pac_bayes_bound(Snapshot(net, F.cross_entropy, [(x, y)]), prior="origin", sigma=0.1).values():
        assert estimate.value is None
        assert "undefined: the loss ignores some of an example's labels" in estimate.note


def test_undefined():
    net, x, y = build("mlp")
    assert all("initial weights" in e.note for e in pac_bayes_bound(Snapshot(net, F.cross_entropy, [(x, y)])).values())
    regression = Snapshot(nn.Linear(4, 1), F.mse_loss, [(torch.randn(8, 4), torch.randn(8, 1))])
    assert vc_bound(regression).value is None
    assert vc_dimension(regression).value > 0
    assert all(e.value is None for e in pac_bayes_bound(regression, prior="origin").values())
    smooth, x, y = build("gru")
    assert "not piecewise linear" in vc_bound(Snapshot(smooth, F.cross_entropy, [(x, y)])).note


@pytest.mark.parametrize(
    ("function", "bad"),
    [
        (vc_bound, {"delta": 0}),
        (vc_bound, {"delta": 1}),
        (pac_bayes_bound, {"delta": 1.5}),
        (pac_bayes_bound, {"prior": "zero"}),
        (pac_bayes_bound, {"sigma": 0}),
        (pac_bayes_bound, {"sigma": "wide"}),
        (pac_bayes_bound, {"samples": 1}),
        (pac_bayes_bound, {"seed": -1}),
    ],
)
def test_settings(function, bad):
    net, x, y = build("mlp")
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} is"):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), **bad)
