"""Code lengths against sequential coding by hand, Shannon's theorem, and sources of known entropy."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, mixture_code, prequential_code, two_part_code, variational_code
from genbench.measures.description_length import _TEMPERATURES, _Coder, gamma_bits, integer_bits
from genbench.models import MLP
from genbench.rng import StepRandom


def snapshot(x, y, *, classes=3, net=None, batches=1):
    torch.manual_seed(0)
    net = MLP(input_shape=tuple(x.shape[1:]), classes=classes, width=16) if net is None else net
    initial = {name: t.clone() for name, t in net.state_dict().items()}
    return Snapshot(net, F.cross_entropy, list(zip(x.chunk(batches), y.chunk(batches), strict=True)), initial=initial)


def source(n, *, entropy="none", classes=3, seed=0):
    """Inputs [n, 4] and labels: a linear rule of the inputs, or drawn uniformly."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    rule = torch.randn(4, classes, generator=torch.Generator().manual_seed(99))
    y = (x @ rule).argmax(1) if entropy == "none" else torch.randint(classes, (n,), generator=generator)
    return x, y


def sequential(labels, symbols):
    """The probability of labels, each predicted by (its number so far + ½) / (all so far + symbols/2)."""
    counts, p = dict.fromkeys(symbols, 0), 1.0
    for i, label in enumerate(labels):
        p *= (counts[label] + 0.5) / (i + len(counts) / 2)
        counts[label] += 1
    return p


@pytest.mark.oracle("two_part_code")
def test_integers_are_coded_one_after_the_other():
    k = torch.tensor([0, 2, 0, -1, 0, 0])
    assert integer_bits(k) == pytest.approx(gamma_bits(3) - math.log2(sequential(k.tolist(), range(-2, 3))))
    assert integer_bits(torch.zeros(1000)) == 1  # M = 0, and nothing else
    assert [gamma_bits(i) for i in (1, 2, 3, 4, 7, 8)] == [1, 3, 3, 5, 5, 7]
    assert sum(2.0 ** -gamma_bits(i) for i in range(1, 10_000)) <= 1  # Kraft


@pytest.mark.oracle("prequential_code")
def test_the_mixture_of_softened_predictions_is_that_of_coding_one_label_after_the_other():
    generator = torch.Generator().manual_seed(0)
    logits, y = 3 * torch.randn(40, 3, generator=generator), torch.randint(3, (40,), generator=generator)
    coder = _Coder(3)
    bits = coder.bits(logits.log_softmax(1)[:15], y[:15])
    coder.share()
    bits += coder.bits(logits.log_softmax(1)[15:], y[15:])
    shares = [(t, e) for t in _TEMPERATURES for e in (0.001, 0.03)]
    weights, product = np.full(11, 1 / 11), 1.0
    for i in range(40):
        if i == 15:
            weights = weights / 2 + 1 / 22
        softened = [(1 - e) * torch.softmax(logits[i].double() / t, 0)[y[i]] + e / 3 for t, e in shares]
        p = np.array([1 / 3, *map(float, softened)])
        product *= float(weights @ p)
        weights = weights * p / (weights @ p)
    assert bits == pytest.approx(-math.log2(product), rel=1e-6)


@pytest.mark.parametrize("code", [prequential_code, two_part_code, mixture_code])
def test_no_code_shortens_random_labels_and_none_is_much_longer(code):
    """By Shannon's theorem 20 bits are saved once in a million; the uniform code is part of each mixture."""
    for seed in range(3):
        x, y = source(400, entropy="uniform", seed=seed)
        kind = code.__name__.removesuffix("_code")
        settings = {} if code is two_part_code else {"steps": 60}
        found = code(snapshot(x, y), **settings)
        uniform = 400 * math.log2(3)
        assert uniform - 20 <= found[f"{kind}_bits"].value <= uniform + 20
        assert found[f"{kind}_ratio"].value == pytest.approx(found[f"{kind}_bits"].value / uniform)
        assert found[f"{kind}_bits_per_label"].value == pytest.approx(found[f"{kind}_bits"].value / 400)


def test_the_prequential_code_of_a_rule_is_short_and_its_curve_adds_up():
    x, y = source(1500)
    found = prequential_code(snapshot(x, y), steps=150, lr=0.01)
    at = {
        int(name.rsplit("_", 1)[1]): e.value for name, e in found.items() if "_bits_at_" in name and "block" not in name
    }
    assert list(at) == [32, 64, 128, 256, 512, 1024, 1500]
    assert at[32] == pytest.approx(32 * math.log2(3))  # the uniform code
    assert list(at.values()) == sorted(at.values())
    assert at[1500] == found["prequential_bits"].value < 0.35 * 1500 * math.log2(3)
    last = (at[1500] - at[1024]) / (1500 - 1024)
    assert last < 0.3 < at[64] / 64  # bits a label
    assert found["prequential_block_bits_at_1500"].value == pytest.approx(last)
    assert found["prequential_block_bits_at_32"].value == pytest.approx(math.log2(3))


@pytest.mark.oracle("prequential_code")
def test_without_the_mixture_a_block_takes_the_cross_entropy_of_the_network():
    """Of an untrained network it can be counted: no step is taken."""
    x, y = source(200)
    one = snapshot(x, y)
    found = prequential_code(one, steps=0)
    with torch.no_grad():
        nats = F.cross_entropy(one.model(x), y, reduction="none").double()
    plain, uniform = found["prequential_plain_bits"].value, 200 * math.log2(3)
    first = StepRandom(0, 0).permutation("description_length.order", 200)[:32]
    expected = 32 * math.log2(3) + float(nats.sum() - nats[first].sum()) / math.log(2)
    assert plain == pytest.approx(expected, rel=1e-6)
    assert found["prequential_plain_ratio"].value == pytest.approx(plain / uniform)
    trained = prequential_code(snapshot(*source(1500, entropy="uniform")), steps=150, lr=0.01)
    assert trained["prequential_plain_ratio"].value > 1.1 > 1.01 > trained["prequential_ratio"].value  # overconfident


def test_a_source_of_known_entropy_is_coded_near_it():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, generator=generator)
    p = torch.sigmoid(2 * x[:, 0])
    y = (torch.rand(4000, generator=generator) < p).long()
    given = -(torch.where(y == 1, p, 1 - p).double().log2()).sum()  # the bits under the source itself
    found = mixture_code(snapshot(x, y, classes=2), widths=[], steps=150)
    assert 0 < found["mixture_bits_logistic"].value - float(given) < 0.04 * 4000
    found = prequential_code(snapshot(x, y, classes=2), steps=100, lr=0.01)
    assert -20 < found["prequential_bits"].value - float(given) < 0.05 * 4000


@pytest.mark.oracle("mixture_code")
def test_equal_labels_cost_about_a_logarithm():
    x, y = torch.randn(1000, 4), torch.ones(1000).long()
    found = mixture_code(snapshot(x, y), widths=[2], steps=50)
    exact = -math.log2(sequential([1] * 1000, range(3)))
    assert found["mixture_bits_frequencies"].value == pytest.approx(exact, abs=1e-6)
    assert exact < math.log2(1000) + 2
    assert found["mixture_bits"].value <= exact + gamma_bits(2)


@pytest.mark.oracle("mixture_code")
def test_a_mixture_is_at_most_the_name_longer_than_its_best_model():
    for kind in ("none", "uniform"):
        x, y = source(300, entropy=kind)
        found = {name: e.value for name, e in mixture_code(snapshot(x, y), steps=40).items()}
        models = ["uniform", "frequencies", "logistic", "mlp_2", "mlp_8", "mlp_32"]
        lengths = [found[f"mixture_bits_{name}"] + bits for name, bits in zip(models, (1, 3, 3, 5, 5, 5), strict=True)]
        assert found["mixture_best_bits"] == pytest.approx(min(lengths), rel=1e-12)
        assert found["mixture_bits"] == pytest.approx(-math.log2(sum(2.0**-each for each in lengths)), rel=1e-9)
        assert found["mixture_excess"] == found["mixture_bits"] - found["mixture_best_bits"] <= 0
        assert found["mixture_bits_uniform"] == pytest.approx(300 * math.log2(3))
        assert found["mixture_bits_at_300"] == found["mixture_bits"]


def test_more_models_leave_the_others():
    x, y = source(96)
    both = mixture_code(snapshot(x, y), widths=[4], steps=30)
    again = mixture_code(snapshot(x, y), widths=[4, 8], steps=30)
    assert again["mixture_bits_mlp_4"].value == both["mixture_bits_mlp_4"].value


@pytest.mark.oracle("two_part_code")
def test_two_parts_of_a_linear_rule():
    """A net whose weights are multiples of ½: Δ = ½ loses nothing, and both parts can be counted."""
    x, _ = source(2000)
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[8.0, 0, 0, 0], [0, 8.5, 0, 0], [0, 0, 8, 0]]))
        net.bias.zero_()
    y = net(x).argmax(1)
    start = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    found = two_part_code(Snapshot(net, F.cross_entropy, [(x, y)], initial=start))
    step = found["two_part_step"].value
    k = (net.weight.detach().double() / step).round()
    assert found["two_part_weight_bits"].value == pytest.approx(
        integer_bits(k) + integer_bits(torch.zeros(3)) + math.log2(13)
    )
    labels = _Coder(3).bits(F.linear(x.double(), k * step).log_softmax(1), y)
    assert found["two_part_label_bits"].value == pytest.approx(labels, rel=1e-4)
    parts = found["two_part_weight_bits"].value + found["two_part_label_bits"].value
    assert found["two_part_bits"].value == pytest.approx(parts)
    assert parts < 0.2 * 2000 * math.log2(3)


def test_an_untrained_network_and_trained_buffers_in_two_parts():
    x, y = source(300, entropy="uniform")
    untrained = two_part_code(snapshot(x, y))
    assert untrained["two_part_weight_bits"].value == pytest.approx(6 + math.log2(13))  # six tensors without change
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    initial = {name: t.clone() for name, t in net.state_dict().items()}
    net(x)  # moves mean, variance and their counter
    found = two_part_code(Snapshot(net, F.cross_entropy, [(x, y)], initial=initial))
    assert found["two_part_weight_bits"].value == pytest.approx(6 + math.log2(13) + 11 * 32)


class Slope(nn.Module):
    """Two logits of one input, w₀x and w₁x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, 1))

    def forward(self, x):
        return x @ self.w.T


def slope(n=120):
    """Labels of one input x that are 1 with probability 1/(1 + exp(−1.5 x)), and their network."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 1, generator=generator)
    y = (torch.rand(n, generator=generator) < torch.sigmoid(1.5 * x[:, 0])).long()
    net = Slope()
    return Snapshot(net, F.cross_entropy, [(x, y)], initial=net.state_dict()), x[:, 0].double(), y


@pytest.mark.oracle("variational_code")
def test_a_variational_code_is_the_best_of_its_kind_and_no_shorter_than_a_bayesian_s():
    """Both weights count by their difference alone, so that all is an integral over one normal variable."""
    one, x, y = slope()
    settings = {"steps": 1500, "lr": 0.02, "lr_std": 0.05, "std": 0.3, "samples": 1000}
    given = variational_code(one, center="zero", **settings)  # N(0, 1), of two weights with one input
    free = variational_code(one, **settings)
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite.hermgauss(80))

    def log_p(difference):  # of all labels [draws], as (w₁ − w₀) x is the log odds
        return F.logsigmoid((2 * y - 1) * x * difference[:, None]).sum(1)

    def nats(free, variance):
        mean, std = free[:2], free[2:].exp()
        kl = ((std**2 + mean**2) / variance - 1 + math.log(variance)).sum() / 2 - free[2:].sum()
        drawn = mean[1] - mean[0] + nodes * (2 * std.square().sum()).sqrt()
        return kl - (weights * log_p(drawn)).sum() / math.sqrt(math.pi)

    def least(variance):
        free = torch.tensor([0.0, 0.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)  # μ, log σ
        optimizer = torch.optim.Adam([free], lr=0.03)
        for _ in range(400):
            optimizer.zero_grad()
            value = nats(free, variance)
            value.backward()
            optimizer.step()
        return float(value.detach())

    def evidence(variance):
        terms = log_p(nodes * math.sqrt(4 * variance)) + weights.log()
        return math.log(math.pi) / 2 - float(torch.logsumexp(terms, 0))

    bits = given["variational_zero_bits"]
    assert evidence(1) / math.log(2) + 0.2 < least(1) / math.log(2) < 110  # a mean field is not the posterior
    assert bits.value == pytest.approx(least(1) / math.log(2), abs=4 * bits.stderr + 0.2)
    assert bits.converged
    names = {number: gamma_bits(2 * abs(number) + (number >= 0)) for number in range(-4, 9)}
    exact, variational = (
        min(name + nats(4 ** (number / 4)) / math.log(2) for number, name in names.items())
        for nats in (evidence, least)
    )
    bits = free["variational_bits"]
    assert exact - 4 * bits.stderr < variational - 4 * bits.stderr < bits.value < variational + 2 + 4 * bits.stderr
    assert bits.value == pytest.approx(free["variational_weight_bits"].value + free["variational_label_bits"].value)
    assert free["variational_bits_per_label"].value == free["variational_ratio"].value == bits.value / 120


@pytest.mark.oracle("variational_code")
def test_weights_that_stay_cost_their_spread_and_the_labels_what_noise_makes_of_them():
    x, y = source(300)
    one = snapshot(x, y)
    still = {"steps": 16, "lr": 1e-12, "lr_std": 1e-12, "samples": 400}
    found = variational_code(one, std=0.25, **still)

    def bits(size, std):  # with the prior of least cost, 2^(number/4), and the place of its number in 0, −1, 1, …
        ratios = {number: std**2 / 4 ** (number / 4) for number in range(-20, 5)}
        return min(
            size * (ratio - 1 - math.log(ratio)) / 2 / math.log(2) + gamma_bits(2 * abs(number) + (number >= 0))
            for number, ratio in ratios.items()
        )

    sizes = [p.numel() for p in one.model.parameters()]
    assert bits(max(sizes), 0.25) == gamma_bits(16)  # 2^(−8/4) is a standard deviation that a prior has
    weights = sum(bits(size, 0.25) for size in sizes)
    assert found["variational_weight_bits"].value == pytest.approx(weights, abs=1e-3)
    torch.manual_seed(1)
    with torch.no_grad():
        drawn = []
        for _ in range(400):
            net = copy.deepcopy(one.model)
            for p in net.parameters():
                p.add_(0.25 * torch.randn_like(p))
            drawn.append(300 * float(F.cross_entropy(net(x), y)) / math.log(2))
    labels, mean = found["variational_label_bits"], sum(drawn) / 400
    assert labels.stderr == pytest.approx(np.std(drawn, ddof=1) / 20, rel=0.25)
    assert labels.value == pytest.approx(mean, abs=5 * math.sqrt(2) * labels.stderr)
    between = variational_code(one, std=0.23, **still)["variational_weight_bits"].value
    assert between == pytest.approx(sum(bits(size, 0.23) for size in sizes), rel=1e-4)
    assert between != pytest.approx(weights, abs=1)


def test_the_prior_of_the_authors_is_centered_at_zero():
    """Weights that stay at the prior cost nothing; the labels take what random networks make of them."""
    x, y = source(300)
    one = snapshot(x, y)
    found = variational_code(one, center="zero", steps=16, lr=1e-12, lr_std=1e-12, samples=300)
    assert found["variational_zero_weight_bits"].value == pytest.approx(0, abs=1e-3)
    torch.manual_seed(2)
    with torch.no_grad():
        drawn = []
        for _ in range(300):
            net = copy.deepcopy(one.model)
            for p in net.parameters():
                p.normal_(0, 1 / math.sqrt(p.shape[1]) if p.ndim == 2 else 0.01)
            drawn.append(300 * float(F.cross_entropy(net(x), y)) / math.log(2))
    labels = found["variational_zero_label_bits"]
    assert labels.value == pytest.approx(sum(drawn) / 300, abs=5 * math.sqrt(2) * labels.stderr)
    assert labels.stderr == pytest.approx(np.std(drawn, ddof=1) / math.sqrt(300), rel=0.3)
    x, y = source(1000)
    linear = variational_code(snapshot(x, y, net=nn.Linear(4, 3)), center="zero", steps=600, lr=0.03, samples=30)
    assert linear["variational_zero_ratio"].value < 0.5
    assert linear["variational_zero_weight_bits"].value > 15


def test_a_rule_is_coded_shortly_by_noisy_weights_and_chance_is_not():
    x, y = source(1500)
    net = nn.Linear(4, 3)
    rule = variational_code(snapshot(x, y, net=net), steps=600, lr=0.03, samples=30)
    assert rule["variational_ratio"].value < 0.35
    assert rule["variational_weight_bits"].value > 15
    x, y = source(400, entropy="uniform")
    found = variational_code(snapshot(x, y), steps=300, samples=10)
    uniform = 400 * math.log2(3)
    assert uniform - 20 < found["variational_bits"].value < 1.25 * uniform


def test_a_source_of_known_entropy_is_coded_near_it_by_noisy_weights():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, generator=generator)
    p = torch.sigmoid(2 * x[:, 0])
    y = (torch.rand(4000, generator=generator) < p).long()
    given = -(torch.where(y == 1, p, 1 - p).double().log2()).sum()
    found = variational_code(snapshot(x, y, classes=2, net=nn.Linear(2, 2)), steps=600, samples=30)
    assert -10 < found["variational_bits"].value - float(given) < 0.02 * 4000


def test_noisy_weights_of_other_networks():
    """Residual, with batch norm, without biases, recurrent: of the initial buffers, whatever training made of them."""
    x, y = source(60)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
    initial = {name: t.clone() for name, t in net.state_dict().items()}
    net(100 * x)  # moves the buffers
    found = [
        variational_code(Snapshot(each, F.cross_entropy, [(x, y)], initial=initial), steps=40, samples=5)
        for each in (net, nn.Sequential(*(copy.deepcopy(layer) for layer in net)).requires_grad_())
    ]
    assert found[0]["variational_bits"].value == found[1]["variational_bits"].value
    assert found[0]["variational_bits"].residual is not None

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(1, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.lstm(x[:, :, None])[0][:, -1])

    recurrent = variational_code(snapshot(x, y, net=Last()), steps=40, samples=5)
    assert recurrent["variational_bits"].value > 0


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
@pytest.mark.parametrize(
    "code",
    [
        partial(prequential_code, steps=20, first=8),
        two_part_code,
        partial(variational_code, steps=20),
        partial(mixture_code, steps=20, first=8),
    ],
)
def test_one_logit_is_coded_as_the_difference_of_two(code, shape):
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))

        def forward(self, x):
            return self.net(x).reshape(-1, *shape[1:])

    class Two(One):
        def forward(self, x):
            z = self.net(x)
            return torch.cat([torch.zeros_like(z), z], 1)

    x, y = source(40, classes=2)
    one, two = One(), Two()
    two.load_state_dict(one.state_dict())
    targets = y.float().reshape(shape)
    single = Snapshot(one, F.binary_cross_entropy_with_logits, [(x, targets)], initial=one.state_dict())
    found, of_two = code(single), code(Snapshot(two, F.cross_entropy, [(x, y)], initial=two.state_dict()))
    expected = {name: pytest.approx(estimate.value, rel=1e-5) for name, estimate in of_two.items()}
    assert {name: estimate.value for name, estimate in found.items()} == expected


def test_training_starts_at_the_initial_weights_and_does_not_use_the_others():
    x, y = source(200)
    one = snapshot(x, y)
    moved = MLP(input_shape=(4,), classes=3, width=16)
    other = Snapshot(moved, F.cross_entropy, [(x, y)], initial=one.initial)
    assert prequential_code(one, steps=20)["prequential_bits"].value == pytest.approx(
        prequential_code(other, steps=20)["prequential_bits"].value, rel=1e-12
    )
    assert prequential_code(one, steps=20, seed=1)["prequential_bits"].value != pytest.approx(
        prequential_code(one, steps=20)["prequential_bits"].value
    )
    noisy = [variational_code(each, steps=20)["variational_bits"].value for each in (one, other)]
    assert noisy[0] == noisy[1] != variational_code(one, steps=20, seed=1)["variational_bits"].value


@pytest.mark.parametrize(
    "code",
    [
        partial(prequential_code, steps=20),
        two_part_code,
        partial(variational_code, steps=20),
        partial(variational_code, steps=20, center="zero"),
        partial(mixture_code, steps=20),
    ],
)
def test_weights_random_state_and_batches_do_not_matter_and_are_left(code):
    x, y = source(150)
    whole, split = snapshot(x, y), snapshot(x, y, batches=7)
    before, state = {name: t.clone() for name, t in whole.model.state_dict().items()}, torch.get_rng_state()
    found = code(whole)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in whole.model.state_dict().items())
    assert all(p.grad is None for p in whole.model.parameters())
    torch.rand(3)
    again = code(split)
    assert {name: e.value for name, e in found.items()} == pytest.approx({n: e.value for n, e in again.items()})


def test_dropout_and_batch_normalization_train_as_such():
    x, y = source(400)
    net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    found = prequential_code(snapshot(x, y, net=net), steps=60, lr=0.01)
    assert found["prequential_ratio"].value < 0.7
    again = prequential_code(snapshot(x, y, net=net), steps=60, lr=0.01)  # the masks follow the seed
    assert again["prequential_bits"].value == found["prequential_bits"].value


def test_few_labels_and_what_has_no_code():
    x, y = source(20)
    found = prequential_code(snapshot(x, y))
    assert found["prequential_bits"].value == pytest.approx(20 * math.log2(3))
    assert mixture_code(snapshot(x, y))["mixture_bits_mlp_2"].value == pytest.approx(20 * math.log2(3))
    net = snapshot(x, y).model
    for code in (prequential_code, two_part_code, variational_code):
        (estimate,) = code(Snapshot(net, F.cross_entropy, [(x, y)])).values()
        assert (estimate.value, estimate.note) == (None, "undefined: there are no initial weights")
    target = torch.randn(20, 3)
    for code in (prequential_code, two_part_code, variational_code, mixture_code):
        (estimate,) = code(Snapshot(net, F.mse_loss, [(x, target)], initial=net.state_dict())).values()
        assert estimate.value is None
        assert estimate.note.startswith("undefined: the targets are no class labels")


@pytest.mark.parametrize("code", [prequential_code, mixture_code])
@pytest.mark.parametrize(("name", "value"), [("first", 0), ("steps", -1), ("lr", 0), ("batch_size", 0), ("seed", -1)])
def test_settings_out_of_range_are_refused(code, name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}"):
        code(snapshot(*source(20)), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("center", "mean"), ("steps", 15), ("batch_size", 0), ("lr", 0), ("lr_std", -1), ("std", 0)],
        *[("samples", 1), ("seed", -1)],
    ],
)
def test_settings_of_noisy_weights_are_checked(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}"):
        variational_code(snapshot(*source(20)), **{name: value})


@pytest.mark.parametrize("widths", [4, [0], "48"])
def test_widths_are_a_list_of_numbers(widths):
    with pytest.raises(ValueError, match=r"^widths"):
        mixture_code(snapshot(*source(20)), widths=widths)
