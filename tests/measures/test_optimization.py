"""Gradients of the examples against naive float64 loops and closed forms."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import (
    Snapshot,
    drift_and_diffusion,
    gradient_noise_scale,
    gradient_norm,
    gradient_snr,
    gradient_variance,
)
from genbench.measures.optimization import Gradients
from tests.helpers.measured import one_by_one
from tests.helpers.networks import NETS, build


@pytest.mark.oracle("gradient_norm", "gradient_variance", "gradient_noise_scale", "gradient_snr")
@pytest.mark.parametrize("name", NETS)
def test_moments_are_those_of_the_gradients_one_by_one(name):
    net, x, y = build(name)
    g = one_by_one(net, x, y)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:7], y[:7]), (x[7:], y[7:])])
    mean = g.mean(0)
    assert gradient_norm(snapshot).value == pytest.approx(float(mean.norm()), rel=1e-9)
    assert gradient_variance(snapshot).value == pytest.approx(float((g - mean).square().sum(1).mean()), rel=1e-9)
    noise = g.var(0, correction=0)
    assert gradient_noise_scale(snapshot).value == pytest.approx(float(noise.sum() / mean.square().sum()), rel=1e-9)
    felt = (mean**2 + noise).sqrt() > 1e-12 * float(g.abs().max())  # the bias of attention's keys has no gradient
    assert name != "attention" or int((~felt).sum()) == 4
    assert gradient_snr(snapshot).value == pytest.approx(float((mean**2 / noise)[felt].mean()), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_at_the_level_of_rounding_are_left_out(dtype):
    """What rounding makes of a gradient that is zero, an attention's key bias in a language model say: 1.5 ε of the
    largest, with a signal-to-noise ratio like any other. One that is small, 100 ε, counts."""
    net, x, y = build("mlp")
    snapshot = Snapshot(net.to(dtype), F.cross_entropy, [(x.to(dtype), y)])
    mean, spread = torch.ones(snapshot.size).double(), 24 * torch.ones(snapshot.size).double()
    eps = torch.finfo(dtype).eps
    mean[3], spread[3] = 1.5 * eps, 24 * (0.1 * eps) ** 2  # a ratio of 225
    mean[5], spread[5] = 100 * eps, 24 * (50 * eps) ** 2  # one of 4
    snapshot.shared("gradients", lambda: Gradients(24, mean, spread, 0.0))
    assert gradient_snr(snapshot).value == pytest.approx((snapshot.size - 2 + 4) / (snapshot.size - 1), rel=1e-9)


@pytest.mark.oracle("gradient_norm", "gradient_variance", "gradient_noise_scale", "gradient_snr", "drift_and_diffusion")
def test_by_hand():
    """One weight w = 1, L(w) = mean ½(wx − y)², gradients (x − y)·x at x = (1, 2, 3), y = 0: 1, 4, 9."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 1)
    x = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    snapshot = Snapshot(model, lambda out, y: 0.5 * F.mse_loss(out, y), [(x, torch.zeros_like(x))])
    mean, variance = 14 / 3, (1 + 16 + 81) / 3 - (14 / 3) ** 2
    assert gradient_norm(snapshot).value == pytest.approx(mean)
    assert gradient_variance(snapshot).value == pytest.approx(variance)
    assert gradient_snr(snapshot).value == pytest.approx(mean**2 / variance)
    assert gradient_noise_scale(snapshot).value == pytest.approx(variance / mean**2)
    found = {name: estimate.value for name, estimate in drift_and_diffusion(snapshot).items()}
    assert found == pytest.approx(
        {"drift": mean, "diffusion": variance**0.5, "drift_to_diffusion": mean / variance**0.5}
    )
    one = Snapshot(model, lambda out, y: 0.5 * F.mse_loss(out, y), [(x[:1], torch.zeros_like(x[:1]))])
    assert drift_and_diffusion(one)["drift_to_diffusion"].note == "undefined: the gradients do not vary"


def test_the_spread_of_nearly_equal_gradients_does_not_cancel():
    """Gradients 10⁶ + i: the textbook E[g²] − E[g]² loses the variance in float32 and half its digits in float64."""

    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x):
            return x * self.w

    x = 1e6 + torch.arange(8, dtype=torch.float64)[:, None]
    snapshot = Snapshot(Shift(), lambda out, _: out.mean(), [(x, torch.zeros(8))])
    assert gradient_variance(snapshot).value == pytest.approx((8**2 - 1) / 12, rel=1e-12)


@given(st.lists(st.integers(1, 23), unique=True, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_neither_batches_nor_the_order_of_examples_matter(cuts, random):
    net, x, y = build("mlp")
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    order = list(range(24))
    random.shuffle(order)
    ends = [0, *sorted(cuts), 24]
    rows = [order[a:b] for a, b in pairwise(ends)]
    split = Snapshot(net, F.cross_entropy, [(x[r], y[r]) for r in rows])
    for measure in (gradient_norm, gradient_variance, gradient_snr):
        assert measure(split).value == pytest.approx(measure(whole).value, rel=1e-9), measure.__name__


def test_dead_units_are_left_out_and_constant_gradients_are_refused():
    net, x, y = build("mlp")
    g = one_by_one(net, x, y)
    alive = float((g.mean(0) ** 2 / g.var(0, correction=0)).nanmean())
    wide = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    wide.load_state_dict(net.state_dict())
    with torch.no_grad():
        wide[0].bias[0] = -1e6
    dead = one_by_one(wide, x, y)
    signal, noise = dead.mean(0) ** 2, dead.var(0, correction=0)
    assert int((signal + noise == 0).sum()) >= 5
    found = gradient_snr(Snapshot(wide, F.cross_entropy, [(x, y)])).value
    assert found == pytest.approx(float((signal / noise)[signal + noise > 0].mean()), rel=1e-9)
    assert found != pytest.approx(alive, rel=1e-3)

    linear = nn.Linear(2, 1).double()
    x = torch.randn(9, 2, dtype=torch.float64)
    sum_of_outputs = Snapshot(linear, lambda out, _: out.mean(), [(x, torch.zeros(9))])
    refused = gradient_snr(sum_of_outputs)  # ∂ℓᵢ/∂bias is 1 for every example
    assert refused.value is None
    assert refused.note == "undefined: the gradients of 1 parameters do not vary over the examples"
    still = Snapshot(linear, lambda out, _: 0 * out.mean(), [(x, torch.zeros(9))])
    assert gradient_snr(still).note == "undefined: every gradient is zero"
    assert gradient_noise_scale(still).note == "undefined: the gradient is zero"
    assert gradient_variance(still).value == gradient_norm(still).value == 0


def test_at_the_noise_scale_a_batch_is_as_noisy_as_the_gradient_is_large():
    """E‖g_B − ∇L‖² of batches of B examples drawn with replacement is ‖∇L‖² at B of the noise scale."""
    net, x, y = build("mlp")
    g = one_by_one(net, x, y)
    scale = gradient_noise_scale(Snapshot(net, F.cross_entropy, [(x, y)])).value
    size = max(1, round(scale))
    rows = torch.randint(len(g), (20_000, size), generator=torch.Generator().manual_seed(0))
    noise = (g[rows].mean(1) - g.mean(0)).square().sum(1).mean()
    assert float(noise / g.mean(0).square().sum()) == pytest.approx(scale / size, rel=0.05)


def test_one_example_has_no_noise():
    net, x, y = build("mlp", n=1)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert gradient_variance(snapshot).value == 0
    assert "do not vary" in gradient_snr(snapshot).note


def test_a_loss_that_is_no_mean_over_examples_is_refused():
    net, x, y = build("mlp")
    for measure in (gradient_variance, gradient_snr):
        with pytest.raises(ValueError, match="the mean over its examples"):
            measure(Snapshot(net, lambda out, y: F.cross_entropy(out, y).square(), [(x, y)]))


def test_one_pass_serves_all():
    net, x, y = build("mlp")
    passes = []

    class Counted(list):
        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    snapshot = Snapshot(net, F.cross_entropy, Counted([(x, y)]))
    gradient_variance(snapshot)
    before = len(passes)
    gradient_snr(snapshot)
    assert len(passes) == before


def test_of_a_layer_alone():
    """The variance adds up over the layers; so do the squares of the norm."""
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    parts = [snapshot.select(name) for name in ("0", "1", "3", "6")]
    assert math.fsum(gradient_variance(part).value for part in parts) == pytest.approx(
        gradient_variance(snapshot).value, rel=1e-9
    )
    assert math.sqrt(math.fsum(gradient_norm(part).value ** 2 for part in parts)) == pytest.approx(
        gradient_norm(snapshot).value, rel=1e-9
    )
