"""Gi- and Pal-scores: of known curves, of networks by hand, their errors, and what has none."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import nn

from genbench.measures import Snapshot, accuracy, perturbation_response
from genbench.measures.augmented import augmented_snapshot
from genbench.measures.response_curve import PERTURBATIONS, _areas, scores
from tests.helpers.networks import build

SHARES = {"top": 0.6, "bottom": 0.1}


def curve(values, n=1):
    """Answers of n examples with these accuracies, each alone."""
    return torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, n), torch.arange(n)[:, None]


def signals(n=600, classes=4):
    torch.manual_seed(0)
    y = torch.arange(n) % classes
    x = torch.randn(n, 1, 40) + 0.9 * torch.randn(classes, 1, 40)[y]
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, classes))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, x, y


@pytest.mark.oracle("perturbation_response")
def test_scores_of_known_curves():
    strengths = np.linspace(0, 1, 11)
    ideal = (1 - 0.4**2) / 0.1**2
    known = {
        "ideal": (np.ones(11), 0.0, ideal),
        "half": (np.full(11, 0.5), 0.5, ideal),  # the ratio knows no scale
        # A = 1 − s: P = s − s²/2, ∫₀ᵃ P = a²/2 − a³/6
        "falling": (1 - strengths, 1 - 2 / 3, (1 / 3 - (0.4**2 / 2 - 0.4**3 / 6)) / (0.1**2 / 2 - 0.1**3 / 6)),
    }
    for values, gi, pal in known.values():
        found = scores(*curve(values), **SHARES)
        assert [e.value for e in found] == pytest.approx([gi, pal], rel=1e-12, abs=1e-12)
    gi, pal = scores(*curve(np.zeros(11)), **SHARES)
    assert (gi.value, pal.value, pal.note) == (1, None, "undefined: no answer is right at the smallest strengths")
    # a step at one half, linear between 0.5 and 0.6, beside a numerical integral
    values = np.where(strengths < 0.55, 1.0, 0.2)
    area = quad(lambda t: (1 - t) * np.interp(t, strengths, values), 0, 1, points=[0.5, 0.6])[0]
    assert scores(*curve(values), **SHARES)[0].value == pytest.approx(1 - 2 * area, rel=1e-9)


@pytest.mark.parametrize("end", [0.05, 0.1, 0.33, 0.4, 1.0, 0.0])
@pytest.mark.parametrize("points", [3, 4, 11])
def test_areas_of_curves_that_are_linear_in_between(points, end):
    strengths = np.linspace(0, 1, points)
    values = np.random.default_rng(points).random(points)
    inside = strengths[(strengths > 0) & (strengths < end)]
    expected = quad(lambda t: (end - t) * np.interp(t, strengths, values), 0, end, points=inside)[0] if end else 0
    assert float(_areas(points, end) @ torch.from_numpy(values)) == pytest.approx(expected, rel=1e-9)


def test_the_errors_are_those_of_a_mean_and_of_a_ratio():
    generator = np.random.default_rng(0)
    falls = generator.random((1000, 300))  # the strength up to which an example is right

    def answers(rows):
        return torch.from_numpy((np.linspace(0, 1, 21)[:, None] <= rows).astype(float)), torch.arange(300)[:, None]

    found = [scores(*answers(rows), **SHARES) for rows in falls]
    for column in (0, 1):
        values = np.array([each[column].value for each in found])
        errors = np.array([each[column].stderr for each in found])
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(ddof=1), rel=0.1)


@pytest.mark.oracle("perturbation_response")
def test_a_network_that_answers_by_the_nearer_of_two_numbers():
    class Nearer(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x):
            return -self.w * torch.cat([x.abs(), (x - 1).abs()], 1)

    x, y = (torch.arange(100) % 2)[:, None].double(), torch.arange(100) % 2
    found = perturbation_response(Snapshot(Nearer(), F.cross_entropy, [(x, y)]))
    assert found["gi_score_within"].value == pytest.approx(0, abs=1e-12)  # x and x′ are the same
    assert found["pal_score_within"].value == pytest.approx(84)
    # 1 − s/2 of an example is its own: right but for s = 1, where the first class wins, at weight 0.5 · 0.1²/6
    assert found["gi_score_between"].value == pytest.approx(2 * 0.5 * 0.1**2 / 6)
    assert found["gi_score_between"].stderr > 0
    assert "neither sequences" in found["gi_score_augmentation"].note


@pytest.mark.oracle("perturbation_response")
def test_curves_of_a_network_by_hand():
    net, x, y = signals()
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    found = perturbation_response(snapshot, points=5, seed=3)
    right = [accuracy(augmented_snapshot(snapshot, 0, strength=s, seed=3)).value for s in (0, 0.25, 0.5, 0.75, 1)]
    gi, pal = scores(*curve(right), **SHARES)
    assert found["gi_score_augmentation"].value == pytest.approx(gi.value, rel=1e-9)
    assert found["pal_score_augmentation"].value == pytest.approx(pal.value, rel=1e-9)
    assert set(found) == {f"{score}_{name}" for name in PERTURBATIONS for score in ("gi_score", "pal_score")}
    assert all(0 <= found[f"gi_score_{name}"].value < 1 for name in PERTURBATIONS)
    assert found["gi_score_within"].value < found["gi_score_between"].value
    again = perturbation_response(
        Snapshot(net, F.cross_entropy, list(zip(x.split(77), y.split(77), strict=True))), points=5, seed=3
    )
    assert {k: e.value for k, e in again.items()} == {k: pytest.approx(e.value) for k, e in found.items()}
    other = perturbation_response(snapshot, points=5, seed=4)
    assert all(abs(other[k].value - e.value) <= 6 * e.stderr + 1e-12 for k, e in found.items())
    assert other["gi_score_between"].value != found["gi_score_between"].value


def test_some_examples():
    net, x, y = signals()
    few = perturbation_response(Snapshot(net, F.cross_entropy, [(x, y)]), examples=60)
    rows = torch.arange(60) * 10
    whole = perturbation_response(Snapshot(net, F.cross_entropy, [(x[rows], y[rows])]))
    assert {k: e.value for k, e in few.items()} == {k: pytest.approx(e.value) for k, e in whole.items()}


def test_the_error_of_mixtures_is_the_spread_over_samples():
    net, x, y = signals(n=4000)
    found = []
    for k in range(40):
        rows = torch.randperm(4000, generator=torch.Generator().manual_seed(k))[:100]
        found.append(perturbation_response(Snapshot(net, F.cross_entropy, [(x[rows], y[rows])]), points=3, seed=k))
    for name in ("gi_score_within", "gi_score_between"):
        spread = np.std([each[name].value for each in found], ddof=1)
        assert np.sqrt(np.mean([each[name].stderr ** 2 for each in found])) == pytest.approx(spread, rel=0.35)


def test_undefined():
    net, x, _ = build("mlp")

    def note(snapshot, key):
        found = perturbation_response(snapshot)[key]
        assert found.value is None
        return found.note

    one = Snapshot(net, F.cross_entropy, [(x, torch.zeros(24).long())])
    assert note(one, "gi_score_between") == "undefined: no example has a partner"
    apart = Snapshot(net, F.cross_entropy, [(x[:3], torch.arange(3))])
    assert note(apart, "pal_score_within") == "undefined: no example has a partner"
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    words = Snapshot(tokens, F.cross_entropy, [(torch.randint(5, (9, 2)), torch.arange(9) % 3)])
    assert note(words, "gi_score_within") == "undefined: the inputs are no real numbers, of which there is a mean"
    assert "not one class an example" in note(
        Snapshot(net, F.mse_loss, [(x, torch.randn(24, 3).double())]), "gi_score_within"
    )
    for setting, wrong in (("points", 2), ("examples", 1), ("top", 0), ("bottom", 1.5), ("seed", -1)):
        with pytest.raises(ValueError, match=f"^{setting} is"):
            perturbation_response(one, **{setting: wrong})
