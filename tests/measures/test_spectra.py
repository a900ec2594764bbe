"""Power laws against samples of known ones and scipy's test; spectra against random-matrix theory."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import Snapshot, power_law, weight_spectrum
from genbench.measures.spectra import fit_power_law
from tests.helpers.networks import NETS, build


def network(*weights: torch.Tensor) -> Snapshot:
    return Snapshot(nn.ParameterList(weights), F.mse_loss, [])


def with_eigenvalues(values: np.ndarray, seed: int = 0) -> torch.Tensor:
    """A square weight whose WᵀW has these eigenvalues."""
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(len(values), len(values))))[0] for _ in range(2))
    return torch.tensor(left @ np.diag(np.sqrt(values)) @ right)


def pareto(alpha: float, n: int, *, xmin: float = 1.0, seed: int = 0) -> np.ndarray:
    """Samples of p(x) ∝ x^−α on x ≥ xmin, by the inverse of its distribution function."""
    return xmin * (1 - np.random.default_rng(seed).random(n)) ** (-1 / (alpha - 1))


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_the_error_covers_the_exponent_at_a_known_xmin(alpha):
    fits = [fit_power_law(pareto(alpha, 100, xmin=0.3, seed=seed), xmin=0.3) for seed in range(200)]
    inside = np.mean([abs(fit.alpha - alpha) <= 2 * fit.stderr for fit in fits])
    assert 0.9 <= inside <= 0.99
    assert all(fit.tail == 100 for fit in fits)


@pytest.mark.oracle("power_law")
def test_the_fit_worked_out_by_hand():
    values = np.exp([0.0, 1.0, 3.0])  # Σ ln = 4, α = 1 + 3/4
    fit = fit_power_law(np.append(values, 1e-3), xmin=1.0, min_tail=3)
    assert fit.alpha == pytest.approx(1.75)
    assert fit.stderr == pytest.approx(0.75 / 3**0.5)
    assert fit.ks_distance == pytest.approx(max(1 / 3, 2 / 3 - (1 - math.exp(-0.75)), 1 - math.exp(-2.25) - 2 / 3))


@pytest.mark.oracle("power_law")
def test_xmin_is_the_one_of_the_smallest_distance():
    values = np.concatenate([pareto(2.5, 150, xmin=2.0, seed=3), np.random.default_rng(3).random(150) * 2])
    fit = fit_power_law(values)
    distances = {}
    for xmin in np.sort(values)[:-9]:  # every tail of at least ten, by scipy
        tail = values[values >= xmin]
        alpha = 1 + len(tail) / np.log(tail / xmin).sum()
        distances[xmin] = scipy.stats.kstest(tail, scipy.stats.pareto(alpha - 1, scale=xmin).cdf).statistic
    assert fit.xmin == min(distances, key=distances.get)
    assert fit.ks_distance == pytest.approx(distances[fit.xmin], rel=1e-9)
    assert fit.alpha == pytest.approx(
        scipy.stats.pareto.fit(values[values >= fit.xmin], floc=0, fscale=fit.xmin)[0] + 1
    )


def test_xmin_is_found_where_the_tail_begins():
    """Clauset et al. 2009, section 3.3: an exponential bulk that goes over smoothly into the tail at x_min = 1."""
    found = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        bulk = generator.exponential(1 / 2.5, 1000)
        tail = pareto(2.5, int(np.sum(bulk >= 1)) * 5, seed=seed)
        found.append(fit_power_law(np.concatenate([bulk[bulk < 1], tail])))
    assert np.median([fit.xmin for fit in found]) == pytest.approx(1, rel=0.3)
    assert np.mean([fit.alpha for fit in found]) == pytest.approx(2.5, rel=0.05)


@pytest.mark.oracle("power_law")
def test_of_a_layer_with_a_known_tail():
    values = pareto(3.0, 80, seed=1)
    found = power_law(network(with_eigenvalues(values)))
    law = fit_power_law(values)
    assert found["alpha.0"].value == pytest.approx(law.alpha, rel=1e-8)
    assert found["alpha.0"].stderr == pytest.approx((law.alpha - 1) / law.tail**0.5, rel=1e-8)
    assert found["alpha_weighted.0"].value == pytest.approx(law.alpha * math.log10(values.max()), rel=1e-8)
    assert found["log_alpha_norm.0"].value == pytest.approx(math.log10(np.sum(values**law.alpha)), rel=1e-8)
    assert found["stable_rank.0"].value == pytest.approx(values.sum() / values.max(), rel=1e-8)
    assert found["ks_distance.0"].value == pytest.approx(law.ks_distance, rel=1e-6)


def test_the_network_is_the_mean_of_its_layers():
    first, second = pareto(2.2, 40, seed=1), pareto(3.5, 60, seed=2)
    found = power_law(network(with_eigenvalues(first), with_eigenvalues(second), torch.randn(3, 3)))
    for name in ("alpha", "alpha_weighted", "log_alpha_norm", "ks_distance"):
        assert found[name].value == pytest.approx((found[f"{name}.0"].value + found[f"{name}.1"].value) / 2)
        assert found[f"{name}.2"].value is None
        assert "2 of 3" in found[name].note
    ranks = [found[f"stable_rank.{i}"].value for i in range(3)]
    assert found["stable_rank"].value == pytest.approx(sum(ranks) / 3)
    assert found["alpha"].stderr == pytest.approx(math.hypot(found["alpha.0"].stderr, found["alpha.1"].stderr) / 2)


@pytest.mark.parametrize(("rows", "columns"), [(400, 100), (100, 400), (300, 300)])
def test_marchenko_pastur(rows, columns):
    w = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    spectrum = weight_spectrum(network(w))["0"]
    larger, smaller = max(rows, columns), min(rows, columns)
    values, ratio = spectrum.eigenvalues / larger, smaller / larger
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    assert len(values) == smaller
    assert values[-1] == pytest.approx(high, rel=0.05)  # edges fluctuate by about N^(−2/3)
    assert values[0] == pytest.approx(low, abs=0.03)

    def density(x):
        return math.sqrt(max((high - x) * (x - low), 0)) / (2 * math.pi * ratio * x)

    middle = (low + high) / 2
    assert np.mean(values <= middle) == pytest.approx(scipy.integrate.quad(density, low, middle)[0], abs=0.02)


def test_a_spike_leaves_the_bulk():
    """Baik, Ben Arous and Péché: noise of variance 1/N plus θuvᵀ has its largest eigenvalue at (1+θ²)(c+θ²)/θ²."""
    generator = torch.Generator().manual_seed(0)
    n, m, theta = 600, 300, 2.0
    noise = torch.randn(n, m, generator=generator, dtype=torch.float64) / n**0.5
    u, v = (F.normalize(torch.randn(k, generator=generator, dtype=torch.float64), dim=0) for k in (n, m))
    values = weight_spectrum(network(noise + theta * torch.outer(u, v)))["0"].eigenvalues
    assert values[-1] == pytest.approx((1 + theta**2) * (m / n + theta**2) / theta**2, rel=0.05)
    assert values[-2] == pytest.approx((1 + (m / n) ** 0.5) ** 2, rel=0.05)


def test_a_convolution_is_one_matrix_for_each_point_of_its_kernel():
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, (2, 3), groups=2).double()
    spectrum = weight_spectrum(Snapshot(conv, F.mse_loss, []))["weight"]
    w = conv.weight.detach().numpy()
    expected = np.concatenate([np.linalg.eigvalsh(w[:, :, i, j].T @ w[:, :, i, j]) for i in range(2) for j in range(3)])
    np.testing.assert_allclose(spectrum.eigenvalues, np.sort(expected), rtol=1e-9)
    assert (spectrum.rows, spectrum.columns, spectrum.matrices) == (8, 3, 6)
    assert spectrum.eigenvalues.sum() == pytest.approx(float(conv.weight.detach().square().sum()))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 10**6))
def test_the_exponent_depends_neither_on_scale_nor_on_the_order_of_units(scale, seed):
    w = with_eigenvalues(pareto(2.5, 40, seed=seed), seed)
    generator = torch.Generator().manual_seed(seed)
    shuffled = scale * w[torch.randperm(40, generator=generator)][:, torch.randperm(40, generator=generator)]
    before, after = power_law(network(w)), power_law(network(shuffled))
    for name in ("alpha", "stable_rank", "ks_distance"):
        assert after[name].value == pytest.approx(before[name].value, rel=1e-6)
    alpha, shift = before["alpha"].value, before["alpha"].value * math.log10(scale**2)
    assert after["alpha_weighted"].value == pytest.approx(before["alpha_weighted"].value + shift, abs=1e-6)
    assert after["log_alpha_norm"].value == pytest.approx(before["log_alpha_norm"].value + shift, abs=1e-6)
    assert alpha > 1


@pytest.mark.parametrize("rank", [8, 12])
def test_zero_eigenvalues_are_in_no_tail(rank):
    """Those of a weight in single precision are zero but for rounding."""
    values = pareto(2.5, rank, seed=0)
    w = with_eigenvalues(np.concatenate([values, np.zeros(50 - rank)])).float()
    law = weight_spectrum(network(w))["0"].power_law
    assert law is None if rank < 10 else law == pytest.approx(fit_power_law(values), rel=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_small_layers_have_no_exponent(name):
    net, x, y = build(name)
    found = power_law(Snapshot(net, F.cross_entropy, [(x, y)]))
    matrices = {key for key, p in net.named_parameters() if p.requires_grad and p.ndim >= 2}
    assert {key.partition(".")[2] for key in found} - {""} == matrices
    assert found["stable_rank"].value >= 1
    for key, estimate in found.items():
        if key.startswith("alpha.") and estimate.value is None:
            assert "fewer than 10" in estimate.note


def test_undefined():
    zero = power_law(network(torch.zeros(20, 20)))
    assert all(estimate.value is None and "zero" in estimate.note for estimate in zero.values())
    same = power_law(network(torch.eye(20)))
    assert same["alpha"].value is None
    assert same["stable_rank"].value == pytest.approx(20)
    none = power_law(Snapshot(nn.LayerNorm(3), F.mse_loss, []))
    assert none["alpha"].note == "undefined: the network has no weight matrices"
    assert weight_spectrum(network(torch.zeros(20, 20)))["0"].alpha is None


def test_bad_settings():
    with pytest.raises(ValueError, match="min_tail is 1; accepted: an integer of at least 2"):
        power_law(network(torch.eye(3)), min_tail=1)
