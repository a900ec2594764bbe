"""The optimized posterior against closed forms, and whether its bounds hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from genbench.measures import Snapshot, pac_bayes_optimized
from genbench.measures.bounds import coin_kl
from genbench.measures.posterior import _optimized, _Posterior, last_change
from tests.helpers.networks import build

STILL = {"steps": 16, "lr": 1e-9, "lr_std": 1e-9}  # Q stays where it starts


def inverse(q, c):
    """The largest p with kl(q‖p) ≤ c, by bisection."""
    low, high = q, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < 1 and coin_kl(q, middle) <= c else (low, middle)
    return low


def one_weight(w, w0, x, y):
    """The sign of wx, as one logit."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(w)
    initial = {"weight": torch.full((1, 1), w0)}
    return Snapshot(net, F.binary_cross_entropy_with_logits, [(x, y)], initial=initial)


def separable(n, seed=0, flip=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, generator=generator)
    wrong = torch.rand(n, 1, generator=generator) < flip
    return x, ((x > 0) ^ wrong).float()


@pytest.mark.oracle("pac_bayes_optimized")
def test_one_weight_that_does_not_move_in_closed_form():
    """Q = N(2, (½ · 2)²) errs where the weight is negative, and KL is least at λ = σ² + (w − w⁰)²."""
    data = separable(500)
    snapshot = one_weight(2.0, 1.9, *data)
    found = pac_bayes_optimized(snapshot, snapshot, spread=0.02, samples=20_000, batch=500, **STILL)
    variance = 0.04**2 + 0.1**2
    j = math.floor(100 * math.log(0.1 / variance))
    near = [(0.1 * math.exp(-each / 100), each) for each in (j, j + 1)]

    def kl(each):
        return (0.04**2 + 0.1**2) / each / 2 - 0.5 + math.log(each / 0.04**2) / 2

    expected = min(near, key=lambda pair: kl(pair[0]) + 2 * math.log(pair[1]))
    assert found["pac_bayes_optimized_kl"].value == pytest.approx(kl(expected[0]), rel=1e-4)
    b = (kl(expected[0]) + math.log(math.pi**2 * expected[1] ** 2 * 500 / (6 * 0.025))) / 499
    assert found["pac_bayes_optimized_train_error"].value == 0
    seen = inverse(0.0, math.log(2 / 0.01) / 20_000)
    assert found["pac_bayes_optimized"].value == pytest.approx(inverse(seen, b), rel=1e-4)
    assert found["pac_bayes_optimized_pinsker"].value == pytest.approx(seen + math.sqrt(b / 2), rel=1e-4)


@pytest.mark.oracle("pac_bayes_optimized")
def test_the_stochastic_error_is_that_of_a_negative_weight():
    snapshot = one_weight(1.0, 0.9, *separable(1000))
    found = pac_bayes_optimized(snapshot, snapshot, spread=0.8, samples=5000, batch=4, **STILL)
    exact = float(norm.cdf(-1 / 0.8))
    for part in ("train_error", "error"):
        estimate = found[f"pac_bayes_optimized_{part}"]
        assert abs(estimate.value - exact) < 4 * estimate.stderr
        assert estimate.stderr < 0.015
    assert found["pac_bayes_optimized_error_low"].value < exact


def test_kl_is_that_of_torch():
    torch.manual_seed(0)
    mean, log_std, origin = torch.randn(30), torch.randn(30).double() - 3, torch.randn(30)
    square = float((mean - origin).double().square().sum())
    kl, price = _Posterior(mean, log_std, square, True, 0.0).divergence()
    j = round(math.exp((price - math.log(math.pi**2 / 6)) / 2))
    q = Independent(Normal(mean.double(), log_std.exp()), 1)
    p = Independent(Normal(origin.double(), math.sqrt(0.1 * math.exp(-j / 100)) * torch.ones(30).double()), 1)
    assert j == 1  # at most 0.1, while ‖μ − w⁰‖² asks for more
    assert kl == pytest.approx(float(kl_divergence(q, p)), rel=1e-6)


def test_optimizing_helps_and_more_so_with_the_means():
    data, other = separable(400), separable(4000, seed=1)
    train, test = one_weight(0.3, 0.0, *data), one_weight(0.3, 0.0, *other)
    kept = {"samples": 500, "batch": 50}
    still = pac_bayes_optimized(test, train, spread=1.0, **kept, **STILL)["pac_bayes_optimized"].value
    variance = pac_bayes_optimized(test, train, spread=1.0, mean=False, steps=300, **kept)["pac_bayes_variance"].value
    both = pac_bayes_optimized(test, train, spread=1.0, steps=300, **kept)["pac_bayes_optimized"].value
    assert both < variance < still


def test_without_signal_the_posterior_returns_to_the_prior():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator)
    y = torch.randint(2, (500, 1), generator=generator).float()
    net = nn.Linear(3, 1)
    initial = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    snapshot = Snapshot(net, F.binary_cross_entropy_with_logits, [(x, y)], initial=initial)
    found = pac_bayes_optimized(snapshot, snapshot, steps=600, lr=0.02, spread=0.5, samples=5000)
    assert found["pac_bayes_optimized_kl"].value < 1
    assert 0.5 < found["pac_bayes_optimized"].value < 0.7
    assert "vacuous" in found["pac_bayes_optimized"].note


def test_bounds_hold_on_drawn_data():
    """The error of Q = N(μ, σ²) is ε + (1 − 2ε) Φ(−μ/σ), at most the bound but with probability 0.035."""
    failed = 0
    for seed in range(30):
        snapshot = one_weight(0.5, 0.0, *separable(60, seed=seed, flip=0.2))
        found = pac_bayes_optimized(snapshot, snapshot, spread=0.3, samples=300, batch=20, **STILL)
        failed += found["pac_bayes_optimized"].value < 0.2 + 0.6 * float(norm.cdf(-1 / 0.3))
    assert failed <= 4


def test_batch_and_seed_do_not_change_the_network_and_repeat():
    net, x, y = build("mlp")
    initial = {name: torch.zeros_like(t) for name, t in net.state_dict().items()}
    whole = Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)
    split = Snapshot(net, F.cross_entropy, [(x[:3], y[:3]), (x[3:], y[3:])], initial=initial)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    found = [pac_bayes_optimized(each, each, steps=16, samples=5, batch=4) for each in (whole, split, whole)]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    values = [{key: e.value for key, e in each.items()} for each in found]
    assert values[0] == values[2] == values[1]


def test_a_posterior_that_more_steps_would_move_is_not_called_converged():
    """Rates fall to 0, so that the last steps hardly move whatever is left to do."""
    net, x, y = build("mlp")
    initial = {name: torch.zeros_like(t) for name, t in net.state_dict().items()}
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)
    for steps, lr in ((24, 0.01), (80, 0.001), (160, 0.001), (3200, 0.01)):
        found = pac_bayes_optimized(snapshot, snapshot, steps=steps, samples=5, batch=24, lr=lr)
        assert found["pac_bayes_optimized"].converged == (steps == 3200), steps
        assert (found["pac_bayes_optimized_kl"].value < 1) == (steps == 3200)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_the_last_change_is_that_of_the_mean_over_a_quarter_of_the_steps(slope):
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(200, 4000, generator=generator, dtype=torch.float64)
    found = [last_change(list(slope * torch.linspace(0, 1, 4000) + row)) for row in noise]
    changes, errors = torch.tensor(found).unbind(1)
    assert float(changes.mean()) == pytest.approx(slope / 4, abs=4 * 0.1 * (2 / 1000 / 200) ** 0.5)
    assert float(changes.std()) == pytest.approx(float(errors.mean()), rel=0.2)


def test_the_objective_uses_the_present_mean():
    """With a strong prior at 0 and no data to speak of the mean moves to it."""
    x, y = separable(4)
    snapshot = one_weight(1.0, 0.0, x * 0, y)
    from genbench.measures.outputs import read
    from genbench.measures.posterior import _Network

    with snapshot.measuring():
        network = _Network(snapshot, read(snapshot), torch.Generator().manual_seed(0))
        q = _optimized(
            network, snapshot.vector, 4, 0.05, mean=True, steps=800, batch=4, lr=0.01, lr_std=0.01, spread=0.1
        )
    assert abs(float(q.mean)) < 0.2
    assert q.square == pytest.approx(float(q.mean) ** 2, rel=1e-6)


def test_undefined_and_refused():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert all("no initial weights" in e.note for e in pac_bayes_optimized(snapshot, snapshot).values())
    regression = Snapshot(nn.Linear(2, 1), F.mse_loss, [(torch.randn(4, 2), torch.randn(4, 1))])
    assert all(e.value is None for e in pac_bayes_optimized(regression, regression).values())
    one = Snapshot(net, F.cross_entropy, [(x[:1], y[:1])], initial=net.state_dict())
    assert {e.note for e in pac_bayes_optimized(one, one).values()} == {"undefined: there is one train example"}
    for name, value in {"steps": 15, "batch": 0, "lr": 0, "lr_std": 0, "spread": 0, "samples": 1, "delta": 0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            pac_bayes_optimized(snapshot, snapshot, **{name: value})
