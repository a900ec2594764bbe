"""Chains have the law they are said to have, whatever their steps, and nothing in common but their passes."""

import math

import numpy as np
import pytest
import torch

from genbench.measures.hamiltonian import hamiltonian_chains
from genbench.measures.mixing import effective_sample_size
from genbench.rng import derive_seed

ROOT = torch.zeros(3, dtype=torch.float64)


def draws(evaluate, center=ROOT, *, nbeta=1.0, gamma=0.0, chains=16, leaps=1, burn_in=100, steps=600, seed=0):
    generators = [torch.Generator().manual_seed(derive_seed(seed, chain)) for chain in range(chains)]
    settings = {"nbeta": nbeta, "gamma": gamma, "leaps": leaps, "burn_in": burn_in, "steps": steps}
    return hamiltonian_chains(evaluate, center, generators, **settings)


def assert_mean(values, exact):
    values = values.numpy()
    error = values.std() / math.sqrt(effective_sample_size(values))
    assert abs(values.mean() - exact) < 3.5 * error, (values.mean(), exact, error)
    assert error < 0.05 * abs(exact)


def double_well(w):
    """L = Σ (w² − 1)², far from quadratic, and its gradient."""
    return (w.square() - 1).square().sum(1), 4 * w * (w.square() - 1)


def quadratic(w):
    h = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
    return (h * w.square()).sum(1) / 2, h * w


def quartic(w):
    return w.pow(4).sum(1), 4 * w.pow(3)


def product(w):
    """L = (w₀w₁)²/2, whose valleys narrow away from 0."""
    a, b = w[:, 0], w[:, 1]
    return (a * b).square() / 2, torch.stack([a * b * b, a * a * b, 0 * a], 1)


def mean_of_product(nbeta, gamma):
    """E nβL, by quadrature: given a, b is normal with precision nβa² + γ."""
    a = np.linspace(-12, 12, 200_001) / math.sqrt(gamma)
    density = np.exp(-gamma / 2 * a**2) / np.sqrt(nbeta * a**2 + gamma)
    return (density * nbeta * a**2 / (nbeta * a**2 + gamma)).sum() / density.sum() / 2


@pytest.mark.parametrize("gamma", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("leaps", [1, 4])
def test_a_law_without_curvature_of_one_sign(gamma, leaps):
    """The moments of exp(−2L − γ/2 ‖w‖²) by quadrature: a step-size bias would show."""
    found = draws(double_well, nbeta=2.0, gamma=gamma, leaps=leaps)
    grid = np.linspace(-4, 4, 20_001)
    loss = (grid**2 - 1) ** 2
    density = np.exp(-2 * loss - gamma / 2 * grid**2)
    density /= density.sum()
    assert_mean(found.losses, 3 * (density * loss).sum())
    assert_mean(found.distances, 3 * (density * grid**2).sum())
    assert found.start == 3.0


@pytest.mark.parametrize(
    ("loss", "nbeta", "gamma", "exact"),
    [
        (quadratic, 10.0, 1.0, (5 / 6 + 20 / 21 + 80 / 81) / 2),
        (quartic, 1e3, 0.0, 0.75),
        (product, 1e3, 100.0, mean_of_product(1e3, 100.0)),
        (product, 1e3, 1.0, mean_of_product(1e3, 1.0)),
    ],
    ids=["quadratic", "quartic", "product", "product, hardly localized"],
)
def test_errors_cover_the_truth(loss, nbeta, gamma, exact):
    """95 % of the intervals of 100 fours of chains, give or take three errors of that share."""
    found = draws(loss, nbeta=nbeta, gamma=gamma, leaps=8, chains=400, steps=300)
    fours = (nbeta * found.losses.numpy()).reshape(100, 4, 300)
    errors = [four.std(ddof=1) / math.sqrt(effective_sample_size(four)) for four in fours]
    off = (fours.mean((1, 2)) - exact) / errors
    assert (abs(off) < 1.96).mean() > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 100)
    assert np.sqrt((off**2).mean()) == pytest.approx(1, abs=0.25)
    assert abs(off.mean()) < 0.4


def test_the_size_of_leaps_settles_at_the_acceptance_aimed_at():
    for leaps, target in ((1, 0.574), (4, 0.651)):
        found = draws(double_well, nbeta=2.0, leaps=leaps, burn_in=300, steps=300)
        assert float(found.acceptance.mean()) == pytest.approx(target, abs=0.05)
        moved = (found.losses[:, 1:] != found.losses[:, :-1]).double().mean()
        assert float(moved) == pytest.approx(target, abs=0.05)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_size_of_leaps_is_found_from_afar(scale):
    found = draws(lambda w: (scale * w.square().sum(1) / 2, scale * w), burn_in=200)
    assert float(found.acceptance.mean()) == pytest.approx(0.574, abs=0.1)
    assert_mean(found.losses, 1.5)


def test_where_the_localization_holds_alone_leaps_are_long():
    """In three thousand weights, of which the loss knows one, as in one: nothing but the localization's turn moves."""
    center = torch.zeros(3_000, dtype=torch.float64)

    def one(w):
        slope = torch.zeros_like(w)
        slope[:, 0] = w[:, 0]
        return w[:, 0].square() / 2, slope

    found = draws(one, center, gamma=100.0, chains=4, leaps=4, steps=200)
    assert found.acceptance.min() > 0.9
    assert effective_sample_size(found.distances.numpy()) > 200
    assert_mean(found.distances, 2_999 / 100 + 1 / 101)


def test_one_leap_is_langevins_step():
    """δ' = δ − (h/2) g + √h ξ, accepted with the ratio of the law times that of the proposals, step by step."""
    seen = []

    def evaluate(w):
        seen.append(w[0].clone())
        return double_well(w)

    center = torch.full((3,), 0.3, dtype=torch.float64)
    found = draws(evaluate, center, nbeta=2.0, chains=1, burn_in=10, steps=30)

    def proposed(to, start, slope):
        return -(to - start + h / 2 * slope).square().sum() / (2 * h)

    generator = torch.Generator().manual_seed(derive_seed(0, 0))
    w, longest = center, []
    for step, there in enumerate(seen[1:]):
        noise = torch.randn(3, generator=generator, dtype=torch.float64)
        shorter, threshold = torch.rand(2, generator=generator, dtype=torch.float64)
        loss, slope = (2 * value[0] for value in double_well(w[None]))
        roots = np.roots([-float(slope[0]) / 2, float(noise[0]), float(w[0] - there[0])])  # √h from the first weight
        h = min((r.real**2 for r in roots), key=lambda h: (w - h / 2 * slope + math.sqrt(h) * noise - there).norm())
        torch.testing.assert_close(there, w - h / 2 * slope + math.sqrt(h) * noise)
        longest.append(math.sqrt(h) * 8 ** float(shorter))
        new_loss, new_slope = (2 * value[0] for value in double_well(there[None]))
        if threshold < (loss - new_loss + proposed(w, there, new_slope) - proposed(there, w, slope)).exp():
            w, loss = there, new_loss
        if step >= 10:
            assert float(found.losses[0, step - 10]) == pytest.approx(float(loss) / 2, rel=1e-9)
            assert longest[step] == pytest.approx(longest[10], rel=1e-6)  # adapted in the burn-in alone
    assert len({round(h, 9) for h in longest[:10]}) == 10


def test_more_chains_leave_the_others_as_they_were():
    few, many = (draws(double_well, gamma=1.0, chains=n, leaps=3, steps=50) for n in (2, 5))
    assert torch.equal(few.losses, many.losses[:2])
    assert not torch.equal(many.losses[2], many.losses[3])


def test_a_chain_that_falls_off_leaves_the_others_as_they_were():
    """Chain 1 meets a loss without a lower bound, and chain 2 one that is not finite."""

    def landscape(w):
        loss, slope = double_well(w)
        loss[1], slope[1] = -w[1].pow(4).sum(), -4 * w[1].pow(3)
        loss[2:3], slope[2:3] = torch.nan, torch.nan
        return loss, slope

    kept, found = draws(double_well, chains=4), draws(landscape, chains=4)
    for chain in (0, 3):
        assert torch.equal(kept.losses[chain], found.losses[chain])
    assert found.losses[1].mean() < -100
    assert (kept.stuck, found.stuck) == (0, 1)


def test_a_wall_is_not_passed():
    """L is infinite for w < 0: the law is a half-normal one."""

    def walled(w):
        loss = torch.where((w < 0).any(1), math.inf, w.square().sum(1) / 2)
        return loss, w

    found = draws(walled, torch.full((1,), 0.5, dtype=torch.float64), steps=2000)
    assert_mean(found.losses, 0.5)
