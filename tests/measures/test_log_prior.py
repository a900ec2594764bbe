"""log P(f) against closed forms, naive propagation, draws of the process and draws of wide networks."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_ndtr
from torch import nn

from genbench.data.boolean_functions import patterns
from genbench.measures import Snapshot, log_prior, marginal_likelihood_bound
from genbench.measures.log_prior import arc_cosine
from genbench.measures.orthant import expectation_propagation, sampled
from genbench.models import MLP

HE = [(math.sqrt(2), 0.3)] * 3


def correlated(*entries):
    """The correlation matrix with these entries above its diagonal, on other scales."""
    n = round((1 + math.sqrt(1 + 8 * len(entries))) / 2)
    k = np.eye(n)
    k[np.triu_indices(n, 1)] = entries
    k = k + k.T - np.eye(n)
    scale = np.arange(1, n + 1) ** 2 / 3
    return k * np.outer(scale, scale)


def naive(kernel, sweeps=200):
    """Sequential expectation propagation, with the evidence as in Rasmussen & Williams 2006, eq. 3.65."""
    n = len(kernel)
    tau, nu = np.zeros(n), np.zeros(n)
    for _ in range(sweeps):
        for i in range(n):
            sigma = np.linalg.inv(np.linalg.inv(kernel) + np.diag(tau))
            mean = sigma @ nu
            own, center = 1 / sigma[i, i] - tau[i], mean[i] / sigma[i, i] - nu[i]
            z = center / math.sqrt(own)
            ratio = math.exp(-(z**2) / 2 - log_ndtr(z)) / math.sqrt(2 * math.pi)
            variance = (1 - ratio * (z + ratio)) / own
            tau[i] = 1 / variance - own
            nu[i] = (center + ratio * math.sqrt(own)) / own / variance - center
    sigma = np.linalg.inv(np.linalg.inv(kernel) + np.diag(tau))
    own, center = 1 / np.diag(sigma) - tau, (sigma @ nu) / np.diag(sigma) - nu
    cavity, middle, site = 1 / own, center / own, nu / tau
    spread = kernel + np.diag(1 / tau)
    return (
        -np.linalg.slogdet(spread)[1] / 2
        - site @ np.linalg.solve(spread, site) / 2
        + log_ndtr(middle / np.sqrt(cavity)).sum()
        + np.log(cavity + 1 / tau).sum() / 2
        + ((middle - site) ** 2 / (cavity + 1 / tau)).sum() / 2
    )


@pytest.mark.oracle("log_prior", "marginal_likelihood_bound")
def test_one_two_and_three_signs_have_closed_forms():
    assert expectation_propagation(np.array([[7.0]])).value == pytest.approx(math.log(0.5), abs=1e-9)
    assert sampled(np.array([[7.0]]), samples=2, seed=0) == (pytest.approx(math.log(0.5), abs=1e-12), 0)
    for r in (-0.95, -0.3, 0.2, 0.9):
        exact = math.log(0.25 + math.asin(r) / (2 * math.pi))
        value, error = sampled(correlated(r), samples=20_000, seed=1)
        assert abs(value - exact) < 4 * error < 0.02
        assert expectation_propagation(correlated(r)).value == pytest.approx(exact, abs=0.05)
    for entries in ((0.3, -0.2, 0.5), (0.9, 0.8, 0.7), (-0.4, -0.4, 0.1)):
        exact = math.log(0.125 + sum(map(math.asin, entries)) / (4 * math.pi))
        value, error = sampled(correlated(*entries), samples=20_000, seed=1)
        assert abs(value - exact) < 4 * error < 0.02
        assert expectation_propagation(correlated(*entries)).value == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("n", [5, 40])
def test_equal_correlations_of_one_half_have_probability_one_over_n_plus_one(n):
    kernel = 0.5 * np.eye(n) + 0.5
    value, error = sampled(kernel, samples=20_000, seed=0)
    assert abs(value + math.log(n + 1)) < 4 * error < 0.03


def test_independent_signs_are_exact():
    found = expectation_propagation(np.diag([1.0, 4.0, 0.1, 9.0]))
    assert found.value == pytest.approx(4 * math.log(0.5), abs=1e-9)
    assert found.converged


def test_propagation_is_that_of_one_factor_after_the_other():
    a = np.random.default_rng(0).normal(size=(6, 8))
    kernel = a @ a.T
    assert expectation_propagation(kernel, tolerance=1e-10, sweeps=500).value == pytest.approx(naive(kernel), abs=1e-7)


def test_too_few_sweeps_have_not_converged():
    found = expectation_propagation(0.5 * np.eye(9) + 0.5, sweeps=3)
    assert not found.converged
    assert found.change > 1e-6


def test_an_input_that_others_determine_is_singular():
    a = np.random.default_rng(0).normal(size=(3, 2))
    with pytest.raises(np.linalg.LinAlgError, match="determines that at another"):
        sampled(a @ a.T, samples=2, seed=0)


def drawn(x, spreads, width, count, seed):
    """Signs [count, n] of random networks with Gaussian weights."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    h = torch.from_numpy(x)
    for index, (weight, bias) in enumerate(spreads):
        units = 1 if index == len(spreads) - 1 else width
        w = weight / math.sqrt(h.shape[-1]) * normal(count, h.shape[-1], units)
        h = (h.relu() if index else h) @ w + bias * normal(count, 1, units)
    return (h[..., 0] > 0).numpy()


def test_the_kernel_is_the_covariance_of_wide_networks():
    x = np.random.default_rng(0).normal(size=(4, 3))
    x[3] = 0
    generator = torch.Generator().manual_seed(0)
    h = torch.from_numpy(x)
    for index, (weight, bias) in enumerate(HE[:2]):
        w = weight / math.sqrt(h.shape[-1]) * torch.randn(h.shape[-1], 2000, generator=generator, dtype=torch.float64)
        h = (h.relu() if index else h) @ w
        h = h + bias * torch.randn(2000, generator=generator, dtype=torch.float64)
    found = HE[2][1] ** 2 + HE[2][0] ** 2 * (h.relu() @ h.relu().T).numpy() / 2000
    assert arc_cosine(x, HE) == pytest.approx(found, rel=0.1)
    first = HE[0][1] ** 2 + 2 * x @ x.T / 3
    assert arc_cosine(x, HE[:1]) == pytest.approx(first, rel=1e-12)


@pytest.mark.oracle("log_prior")
def test_frequencies_of_functions_of_three_bits_are_their_probabilities():
    x = patterns(3).double().numpy()
    kernel = arc_cosine(x, HE)
    process = np.random.default_rng(0).multivariate_normal(np.zeros(8), kernel, size=50_000) > 0
    network = np.concatenate([drawn(x, HE, 100, 1000, seed) for seed in range(2)])
    for target in (x.sum(1) >= 0, x[:, 0] > 0, x.sum(1) >= 1.5, x.prod(1) > 0):
        signs = np.where(target, 1.0, -1.0)
        signed = kernel * np.outer(signs, signs)
        value, error = sampled(signed, samples=20_000, seed=0)
        p = math.exp(value)
        for draws in (process, network):
            frequency = (draws == target).all(1).mean()
            deviation = math.sqrt(p * (1 - p) / len(draws)) + p * error
            assert abs(frequency - p) < 4 * deviation
        assert expectation_propagation(signed).value == pytest.approx(value, abs=0.25)


def test_frequencies_of_functions_of_seven_bits_are_their_probabilities():
    x = patterns(7).double().numpy()
    kernel = arc_cosine(x, HE)
    process = np.random.default_rng(0).multivariate_normal(np.zeros(128), kernel, size=20_000) > 0
    network = np.concatenate([drawn(x, HE, 100, 250, seed) for seed in range(2)])
    all_true = np.ones(128)
    value, error = sampled(kernel, samples=20_000, seed=0)
    assert error < 0.02
    p = math.exp(value)
    for draws in (process, network):
        deviation = math.sqrt(p * (1 - p) / len(draws)) + p * error
        assert abs((draws == all_true).all(1).mean() - p) < 4 * deviation
    assert expectation_propagation(kernel).value == pytest.approx(value, abs=1)


def snapshots(net, x, split=None):
    """(of some inputs, of the others), labels 0."""
    split = len(x) // 2 if split is None else split
    parts = x[split:], x[:split]
    initial = {name: t.clone() for name, t in net.state_dict().items()}
    return [Snapshot(net, F.cross_entropy, [(part, torch.zeros(len(part)).long())], initial=initial) for part in parts]


def mlp(**settings):
    torch.manual_seed(0)
    net = MLP(input_shape=(1, 7), classes=2, width=40, **settings)
    with torch.no_grad():  # both answers
        logits = net(patterns(7).float()[:, None])
        getattr(net.head, "layer", net.head).bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    return net


@pytest.mark.oracle("log_prior")
@pytest.mark.parametrize("settings", [{}, {"parametrization": "ntk"}, {"depth": 1}])
def test_it_is_that_of_the_answers_on_both_splits(settings):
    net, x = mlp(**settings), patterns(7).float()[:, None]
    test, train = snapshots(net, x)
    found = log_prior(test, train, samples=500)
    answers = net(x).argmax(1).double().numpy() * 2 - 1
    assert 0 < (answers > 0).sum() < 128  # a network with both answers
    sizes = [7] + [40] * settings.get("depth", 2)
    kernel = arc_cosine(x[:, 0].double().numpy(), [(1 / math.sqrt(3), 1 / math.sqrt(3 * n)) for n in sizes])
    kernel *= np.outer(answers, answers)
    assert found["log_prior"].value == pytest.approx(expectation_propagation(kernel).value, abs=1e-5)
    assert found["log_prior"].converged
    assert found["log_prior"].note == "128 inputs"
    sampled_one = found["log_prior_sampled"]
    value, error = sampled(kernel, samples=500, seed=3)
    assert abs(sampled_one.value - value) < 5 * (error + sampled_one.stderr)
    assert list(log_prior(test, train, samples=0)) == ["log_prior"]


def test_equal_inputs_count_once_and_one_logit_will_do():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1))
    x = torch.randn(5, 3)
    batches = [(x, torch.ones(5, 1)), (x[:2], torch.ones(2, 1))]
    snapshot = Snapshot(net, F.binary_cross_entropy_with_logits, batches)
    found = log_prior(snapshot, snapshot, weight_std=1.2, bias_std=0.1, samples=0)["log_prior"]
    signs = net(x).sign().double().detach()
    kernel = arc_cosine(x.double().numpy(), [(1.2, 0.1)] * 2) * (signs @ signs.T).numpy()
    assert found.value == pytest.approx(expectation_propagation(kernel).value, abs=1e-5)
    assert found.note.startswith("5 inputs")


def test_it_does_not_change_when_a_unit_is_rescaled():
    net, x = mlp(), patterns(7).float()[:, None]
    before = log_prior(*snapshots(net, x), weight_std=1.0, samples=0)["log_prior"].value
    with torch.no_grad():
        first, second = net.layers[0][0], net.layers[1][0]
        first.weight *= 8
        first.bias *= 8
        second.weight /= 8
    assert log_prior(*snapshots(net, x), weight_std=1.0, samples=0)["log_prior"].value == before


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), "not fully connected with ReLU"),
        (nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), r"two classes, and the outputs are \(3,\)"),
        (nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(4, 2)), "fully connected"),
    ],
)
def test_other_networks_have_none(net, reason):
    torch.manual_seed(0)
    found = log_prior(*snapshots(net, torch.randn(6, 4)))
    assert list(found) == ["log_prior", "log_prior_sampled"]
    for estimate in found.values():
        assert estimate.value is None
        assert re.match(f"undefined: .*{reason}", estimate.note)


def test_initial_weights_of_another_variance_need_a_setting():
    net, x = mlp(init_scale=math.sqrt(6)), patterns(7).float()[:, None]
    found = log_prior(*snapshots(net, x))["log_prior"]
    assert found.value is None
    assert found.note.startswith("undefined: initial weights have ")
    assert "weight_std says which" in found.note
    assert log_prior(*snapshots(net, x), weight_std=math.sqrt(2), samples=0)["log_prior"].value < 0


def test_an_output_that_is_always_zero_has_none():
    net = nn.Sequential(nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    found = log_prior(*snapshots(net, patterns(7).float()))["log_prior"]
    assert (found.value, found.note) == (None, "undefined: the output at an input is always 0")


def test_tokens_have_none():
    net, x, y = nn.Embedding(3, 2), torch.arange(3), torch.arange(3) % 2
    found = log_prior(*[Snapshot(net, F.cross_entropy, [(x, y)])] * 2, samples=0)["log_prior"]
    assert found.note == "undefined: the inputs are no tensor of numbers"


def test_settings_are_refused():
    wrong = [("weight_std", 0), ("bias_std", -1), ("bias_std", "fan_out"), ("samples", 1), ("seed", "a")]
    for name, value in wrong:
        with pytest.raises(ValueError, match=f"^{name} is "):
            partial(log_prior, **{name: value})(*snapshots(mlp(), patterns(7).float()[:, None]))


@pytest.mark.oracle("marginal_likelihood_bound")
def test_the_bound_is_that_of_the_probability_of_all_functions_that_fit():
    net, x = mlp(), patterns(7).float()[:60, None]
    labels = net(x).argmax(1)
    found = marginal_likelihood_bound(Snapshot(net, F.cross_entropy, [(x, labels)]), weight_std=1.2, bias_std=0.3)
    signs = labels.double().numpy() * 2 - 1
    kernel = arc_cosine(x[:, 0].double().numpy(), [(1.2, 0.3)] * 3) * np.outer(signs, signs)
    log_p = expectation_propagation(kernel).value
    assert found["log_marginal_likelihood"].value == pytest.approx(log_p, abs=1e-6)
    bound = 1 - math.exp(-(-log_p + math.log(2 * 60 / 0.05)) / 59)
    assert found["marginal_likelihood_bound"].value == pytest.approx(bound, abs=1e-8)
    assert found["marginal_likelihood_bound"].converged


def test_biases_may_have_the_variance_of_the_weights():
    net, x = mlp(), patterns(7).float()[:60, None]
    data = [(x, net(x).argmax(1))]
    found = marginal_likelihood_bound(Snapshot(net, F.cross_entropy, data), weight_std=1.2, bias_std="fan_in")
    signs = data[0][1].double().numpy() * 2 - 1
    spreads = [(1.2, 1.2 / math.sqrt(n)) for n in (layer[0].in_features for layer in net.layers)]
    spreads += [(1.2, 1.2 / math.sqrt(net.head.in_features))]
    kernel = arc_cosine(x[:, 0].double().numpy(), spreads) * np.outer(signs, signs)
    assert found["log_marginal_likelihood"].value == pytest.approx(expectation_propagation(kernel).value, abs=1e-6)


def test_networks_that_err_have_no_such_bound():
    net, x = mlp(), patterns(7).float()[:, None]
    labels = net(x).argmax(1)
    labels[3] = 1 - labels[3]
    found = marginal_likelihood_bound(Snapshot(net, F.cross_entropy, [(x, labels)]))
    assert {e.note for e in found.values()} == {"undefined: the network errs on these examples"}
    one = marginal_likelihood_bound(Snapshot(net, F.cross_entropy, [(x[:1], labels[:1])]))
    assert one["marginal_likelihood_bound"].note == "undefined: there is one example"
    for delta in (0, 1):
        with pytest.raises(ValueError, match=r"^delta is "):
            marginal_likelihood_bound(Snapshot(net, F.cross_entropy, [(x, labels)]), delta=delta)


def test_labels_that_the_loss_ignores_leave_no_such_bound():
    torch.manual_seed(0)
    net, x = MLP(input_shape=(3,), classes=2, width=4, depth=1), torch.randn(6, 3)
    y = net(x).argmax(1)
    y[0] = -100
    found = marginal_likelihood_bound(Snapshot(net, F.cross_entropy, [(x, y)]))["marginal_likelihood_bound"]
    assert "undefined: the loss ignores some labels" in found.note
