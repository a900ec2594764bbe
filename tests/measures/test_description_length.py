"""Code lengths against sequential coding by hand, Shannon's theorem, and sources of known entropy."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, mixture_code, prequential_code, two_part_code
from genbench.measures.description_length import _TEMPERATURES, _Coder, gamma_bits, integer_bits
from genbench.models import MLP


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


def test_integers_are_coded_one_after_the_other():
    k = torch.tensor([0, 2, 0, -1, 0, 0])
    assert integer_bits(k) == pytest.approx(gamma_bits(3) - math.log2(sequential(k.tolist(), range(-2, 3))))
    assert integer_bits(torch.zeros(1000)) == 1  # M = 0, and nothing else
    assert [gamma_bits(i) for i in (1, 2, 3, 4, 7, 8)] == [1, 3, 3, 5, 5, 7]
    assert sum(2.0 ** -gamma_bits(i) for i in range(1, 10_000)) <= 1  # Kraft


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
    at = {int(name.rsplit("_", 1)[1]): e.value for name, e in found.items() if "_at_" in name}
    assert list(at) == [32, 64, 128, 256, 512, 1024, 1500]
    assert at[32] == pytest.approx(32 * math.log2(3))  # the uniform code
    assert list(at.values()) == sorted(at.values())
    assert at[1500] == found["prequential_bits"].value < 0.35 * 1500 * math.log2(3)
    last = (at[1500] - at[1024]) / (1500 - 1024)
    assert last < 0.3 < at[64] / 64  # bits a label


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


def test_equal_labels_cost_about_a_logarithm():
    x, y = torch.randn(1000, 4), torch.ones(1000).long()
    found = mixture_code(snapshot(x, y), widths=[2], steps=50)
    exact = -math.log2(sequential([1] * 1000, range(3)))
    assert found["mixture_bits_frequencies"].value == pytest.approx(exact, abs=1e-6)
    assert exact < math.log2(1000) + 2
    assert found["mixture_bits"].value <= exact + gamma_bits(2)


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


@pytest.mark.parametrize("code", [partial(prequential_code, steps=20), two_part_code, partial(mixture_code, steps=20)])
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
    for code in (prequential_code, two_part_code):
        (estimate,) = code(Snapshot(net, F.cross_entropy, [(x, y)])).values()
        assert (estimate.value, estimate.note) == (None, "undefined: there are no initial weights")
    target = torch.randn(20, 3)
    for code in (prequential_code, two_part_code, mixture_code):
        (estimate,) = code(Snapshot(net, F.mse_loss, [(x, target)], initial=net.state_dict())).values()
        assert estimate.value is None
        assert estimate.note.startswith("undefined: the targets are no class labels")


@pytest.mark.parametrize("code", [prequential_code, mixture_code])
@pytest.mark.parametrize(("name", "value"), [("first", 0), ("steps", -1), ("lr", 0), ("batch_size", 0), ("seed", -1)])
def test_settings_out_of_range_are_refused(code, name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}"):
        code(snapshot(*source(20)), **{name: value})


@pytest.mark.parametrize("widths", [4, [0], "48"])
def test_widths_are_a_list_of_numbers(widths):
    with pytest.raises(ValueError, match=r"^widths"):
        mixture_code(snapshot(*source(20)), widths=widths)
