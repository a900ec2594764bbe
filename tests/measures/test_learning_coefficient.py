"""The local learning coefficient against closed forms and exact Gibbs sampling at the same nβ and γ."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, learning_coefficient
from genbench.measures.weight_lanes import WeightLanes
from tests.helpers.networks import NETS, Vector, build, quadratic
from tests.helpers.reduced_rank import gibbs, reduced_rank

DATA = [(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2))]


def of(function, weights):
    """A snapshot of L(w) = function(w) at the weights."""
    return Snapshot(Vector(torch.tensor(weights, dtype=torch.float64)), lambda out, _: function(out[0]), DATA)


def measured(snapshot, **settings):
    settings = {"leaps": 4, "burn_in": 60, "steps": 100, **settings}
    return learning_coefficient(snapshot, **settings)["learning_coefficient"]


def assert_is(found, exact, *, within=0.1):
    assert found.converged, found.note
    assert abs(found.value - exact) < 3.5 * found.stderr, (found.value, exact, found.stderr)
    assert found.stderr < within * exact


@pytest.mark.parametrize("nbeta", [1.0, 1e3, 1e6])
def test_a_quartic_has_a_quarter_of_its_weights_at_every_temperature(nbeta):
    found = measured(of(lambda w: w.pow(4).sum(), [0.0] * 10), nbeta=nbeta, gamma=0, chains=32)
    assert_is(found, 2.5, within=0.03)


@pytest.mark.oracle("learning_coefficient")
@pytest.mark.parametrize("gamma", [0.0, 1.0, 100.0])
def test_a_quadratic(gamma):
    """½ Σ nβh / (nβh + γ), d/2 at γ = 0."""
    h = torch.tensor([0.5, 1.0, 2.0, 5.0] + [0.0] * (gamma > 0), dtype=torch.float64)
    found = measured(Snapshot(*quadratic(torch.diag(h))), nbeta=20.0, gamma=gamma, chains=16, steps=150)
    assert_is(found, float((20 * h / (20 * h + gamma)).sum() / 2), within=0.06)


@pytest.mark.parametrize(("gamma", "steps"), [(1.0, 300), (100.0, 100)])
def test_flat_directions_count_nothing_and_a_product_less_than_its_weights(gamma, steps):
    """L = (w₀w₁)²/2 in two weights and three that it does not depend on: its law by quadrature in the plane. λ is ½
    with multiplicity 2, not 1."""
    loss = of(lambda w: (w[0] * w[1]) ** 2 / 2, [0.0] * 5)
    a = np.linspace(-7, 7, 4001) / math.sqrt(gamma)
    product = (a[:, None] * a) ** 2 / 2
    density = np.exp(-1e3 * product - gamma / 2 * (a[:, None] ** 2 + a**2))
    exact = 1e3 * (density * product).sum() / density.sum()
    assert exact < 0.4
    found = measured(loss, nbeta=1e3, gamma=gamma, leaps=8, chains=32, steps=steps, tolerance=0.1)
    assert_is(found, exact)


@pytest.mark.oracle("learning_coefficient")
@pytest.mark.parametrize(("outputs", "gamma"), [(5, 10.0), (6, 100.0)])
def test_reduced_rank_regression(outputs, gamma):
    """6-4-5, where λ is 12 with multiplicity 2, and 6-4-6, where it is 13.5 (Aoyagi & Watanabe 2005), at nβ = 1000."""
    net, *data = reduced_rank(6, 4, outputs)
    exact, error = gibbs(net, 1e3, gamma)
    assert error < 0.05
    found = measured(Snapshot(net, *data), nbeta=1e3, gamma=gamma, chains=64, leaps=12, steps=60)
    assert abs(found.value - exact) < 3.5 * math.hypot(found.stderr, error)
    assert found.stderr < 0.2
    assert found.value < (24 + 4 * outputs) / 2 - 5  # half the weights, as the Hessian has it


def test_chains_that_are_too_short_say_so():
    """At γ = 1 the flat directions are a thousand times as wide as the others: short steps do not see their width,
    and the losses of all chains agree on a value that is too low."""
    net, *data = reduced_rank(6, 4, 5)
    exact, _ = gibbs(net, 1e3, 1.0)
    found = measured(Snapshot(net, *data), nbeta=1e3, gamma=1.0, leaps=1, steps=300)
    assert found.value < exact - 2.5 * found.stderr
    assert found.converged is False
    assert found.residual > 0.3
    assert "R-hat" in found.note


def test_a_burn_in_that_was_too_short_says_so():
    """Curvatures of 3,000 ask for leaps a fiftieth as long as the first."""
    steep = Snapshot(*quadratic(3e3 * torch.eye(20, dtype=torch.float64)))
    found = measured(steep, nbeta=1.0, gamma=0.0, burn_in=10, tolerance=1e9)
    assert found.converged is False
    assert float(re.search(r"acceptance ([\d.]+)", found.note)[1]) < 0.1
    assert measured(steep, nbeta=1.0, gamma=0.0, tolerance=1e9).converged


def test_the_error_covers_the_spread():
    snapshot = Snapshot(*quadratic(torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))))
    settings = {"nbeta": 50.0, "gamma": 10.0, "leaps": 2, "burn_in": 20, "steps": 40}
    found = [measured(snapshot, **settings, seed=seed) for seed in range(20)]
    exact = sum(50 * h / (50 * h + 10) for h in (1, 4, 9)) / 2
    off = [(each.value - exact) / each.stderr for each in found]
    assert 0.7 < np.sqrt(np.mean(np.square(off))) < 1.4


@pytest.mark.oracle("learning_coefficient")
def test_the_default_temperature_and_layers_of_a_regression():
    """Of each layer, L is quadratic: curvatures are those of its inputs' second moment."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    x = torch.randn(50, 3, dtype=torch.float64)
    snapshot = Snapshot(net, F.mse_loss, [(x, net(x).detach())])
    found = learning_coefficient(snapshot, layers=True, gamma=5.0, chains=16, burn_in=50, steps=80)
    assert list(found) == ["learning_coefficient", "learning_coefficient.0", "learning_coefficient.1"]
    nbeta = 50 / math.log(50)
    first, second, moment = net[0].weight.detach(), net[1].weight.detach(), x.T @ x / 50
    inner, outer = torch.linalg.eigvalsh(moment), torch.linalg.eigvalsh(second.T @ second)
    hidden = torch.linalg.eigvalsh(first @ moment @ first.T).repeat(2)
    for layer, h in ((0, torch.outer(outer, inner).reshape(-1)), (1, hidden)):  # the loss is a mean over two outputs
        exact = float((nbeta * h / (nbeta * h + 5)).sum() / 2)
        assert_is(found[f"learning_coefficient.{layer}"], exact)


def few(snapshot, **settings):
    """Of short chains, which need not converge to be compared."""
    return learning_coefficient(snapshot, **{"chains": 2, "leaps": 2, "burn_in": 10, "steps": 10, **settings})


@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_network_in_lanes_and_one_after_the_other(name, monkeypatch):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    together = few(snapshot, layers=True)
    assert all(found.value is not None for found in together.values())
    with monkeypatch.context() as patch:
        patch.setattr(WeightLanes, "_vectorized", lambda *_: 1 / 0)
        alone = few(snapshot, layers=True)
    assert {key: e.value for key, e in alone.items()} == pytest.approx(
        {key: e.value for key, e in together.items()}, rel=1e-6
    )
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    split = few(Snapshot(net, F.cross_entropy, list(zip(x[order].split(7), y[order].split(7), strict=True))))
    whole = together["learning_coefficient"].value
    assert split["learning_coefficient"].value == pytest.approx(whole, rel=1e-6)


def test_a_layer_whose_matrix_is_that_of_another_has_no_coefficient_of_its_own():
    net, x, y = build("tied")
    found = few(Snapshot(net, F.cross_entropy, [(x, y)]), layers=True)
    assert list(found) == [f"learning_coefficient{part}" for part in ("", ".first", ".head")]


def test_the_order_of_units_and_the_seed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = torch.randn(60, 4, dtype=torch.float64), torch.randint(3, (60,))
    settings = {"gamma": 10.0, "burn_in": 30, "steps": 50}
    found, again = (measured(Snapshot(net, F.cross_entropy, [(x, y)]), **settings) for _ in range(2))
    assert (found.value, found.stderr) == (again.value, again.stderr)
    order = torch.randperm(6)
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[0].bias.copy_(net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order])
    permuted, other = (measured(Snapshot(net, F.cross_entropy, [(x, y)]), **settings, seed=seed) for seed in (0, 1))
    for each in (permuted, other):
        assert each.value != found.value
        assert abs(each.value - found.value) < 3.5 * math.hypot(each.stderr, found.stderr)


def test_sequences_and_regression_and_tokens():
    torch.manual_seed(0)
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).double()
    x = torch.randint(5, (8, 6))
    language = Snapshot(tokens, lambda out, y: F.cross_entropy(out.transpose(1, 2), y), [(x[:, :-1], x[:, 1:])])
    line = nn.Linear(3, 1).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    regression = Snapshot(line, F.mse_loss, [(x, x.sum(1, keepdim=True))])
    one_class = Snapshot(nn.Linear(3, 2).double(), F.cross_entropy, [(x, torch.zeros(20, dtype=torch.long))])
    for snapshot in (language, regression, one_class):
        assert few(snapshot)["learning_coefficient"].value is not None


def test_an_ensemble_is_the_mean_of_its_members():
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList(nn.Linear(3, 2).double() for _ in range(2))

        def forward(self, x):
            return sum(member(x) for member in self.members) / 2

    torch.manual_seed(0)
    net, x = Ensemble(), torch.randn(12, 3, dtype=torch.float64)
    y = torch.randint(2, (12,))
    found = few(Snapshot(net, F.cross_entropy, [(x, y)]))["learning_coefficient"]
    alone = [few(Snapshot(m, F.cross_entropy, [(x, y)]))["learning_coefficient"].value for m in net.members]
    assert found.value == pytest.approx(sum(alone) / 2)
    assert found.note.startswith("mean of 2 members")


# -- what is no minimum, and what is no law


def test_weights_that_are_no_minimum():
    """L = ½‖w‖² away from 0: draws are around a point nearer to it, at a lower loss."""
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = measured(Snapshot(*quadratic(torch.eye(3, dtype=torch.float64), w)), nbeta=3.0, chains=32)
    pull = 3 / 103  # E(w − w*) = −pull w*
    exact = 3 / 2 * (float(w @ w) * ((1 - pull) ** 2 - 1) + pull)
    assert exact < 0
    assert abs(found.value - exact) < 3.5 * found.stderr
    assert found.converged
    named = re.match(r"the weights are no minimum: to first order their gradient takes ([\d.]+) off", found.note)
    assert float(named[1]) == pytest.approx(3 * pull * float(w @ w), rel=0.15)
    share = re.search(r", ([\d.]+)% of the draws have a lower loss; search: ", found.note)
    assert 50 < float(share[1]) < 80


def test_a_gradient_that_hides_in_a_positive_value():
    """One of twenty weights is off its minimum, and three of five are missing."""
    w = torch.zeros(20, dtype=torch.float64)
    w[0] = 0.4
    found = measured(Snapshot(*quadratic(torch.eye(20, dtype=torch.float64), w)), nbeta=50.0, gamma=50.0, chains=16)
    assert found.value == pytest.approx(20 / 4 + 25 * 0.4**2 * (0.5**2 - 1), abs=3.5 * found.stderr)
    assert found.note.startswith("the weights are no minimum: to first order their gradient takes")
    at_minimum = measured(Snapshot(*quadratic(torch.eye(20, dtype=torch.float64))), nbeta=50.0, gamma=50.0)
    assert at_minimum.note.startswith("search: ")


@pytest.mark.parametrize("power", [2, 4])
def test_a_loss_without_a_lower_bound(power):
    found = measured(of(lambda w: -w.pow(power).sum(), [0.0] * 3), gamma=1.0)
    assert found.value is None
    assert found.note == (
        "undefined: the chains fall away from the weights, which are no minimum, or the loss has no lower bound"
    )


@pytest.mark.parametrize("loss", [lambda w: w[0].square(), lambda w: w.sum()])
def test_flat_directions_without_localization(loss):
    found = measured(of(loss, [0.0] * 3), gamma=0)
    assert found.value is None
    assert found.note.startswith("undefined: with gamma = 0 the chains still leave the weights")
    assert found.note.endswith("accepted: gamma > 0, or more burn_in")
    assert measured(of(loss, [0.0] * 3), gamma=1.0).value is not None


def test_a_gradient_that_is_not_finite():
    found = measured(of(lambda w: w.abs().sum().sqrt(), [0.0] * 3))
    assert found.value is None
    assert found.note.startswith("undefined: 4 of 4 chains did not move")


def test_one_example():
    one = Snapshot(nn.Linear(2, 2).double(), F.mse_loss, [(torch.ones(1, 2).double(), torch.zeros(1, 2).double())])
    assert measured(one).note == "undefined: one example, and so no n / log n; accepted: nbeta"
    assert few(one, nbeta=2.0)["learning_coefficient"].value > 0


def test_a_loss_whose_rounding_hides_its_rises_is_computed_in_float64():
    net = Vector(torch.zeros(2))
    loss = [(torch.zeros(2, 1), torch.zeros(2))]
    found = measured(Snapshot(net, lambda out, _: 1e6 + out.square().sum(1).mean(), loss), nbeta=100.0, chains=16)
    assert_is(found, 100 * 2 / (100 * 2 + 100))
    narrow = Snapshot(net, lambda out, _: (1e6 + out.float().square().sum(1)).mean(), loss)
    assert "the loss is rounded by more than its rises: they may not show" in measured(narrow, nbeta=100.0).note
    half = Snapshot(Vector(torch.zeros(2, dtype=torch.bfloat16)), lambda out, _: out.square().sum(1).mean(), loss)
    assert_is(measured(half, nbeta=100.0, chains=16), 100 * 2 / (100 * 2 + 100))


def test_the_network_stays_as_it_is():
    net, x, y = build("conv")
    net.train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = torch.get_rng_state()
    few(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"nbeta": 0}, "nbeta is 0; accepted: a number > 0"),
        ({"gamma": -1}, r"gamma is -1; accepted: a number in \[0, inf\)"),
        ({"chains": 1}, "chains is 1; accepted: an integer of at least 2"),
        ({"leaps": 0}, "leaps is 0; accepted: an integer of at least 1"),
        ({"steps": 9}, "steps is 9; accepted: an integer of at least 10"),
        ({"layers": 1}, "layers is 1; accepted: true, false"),
    ],
)
def test_settings(setting, line):
    with pytest.raises(ValueError, match=rf"^{line}$"):
        learning_coefficient(of(lambda w: w.square().sum(), [0.0]), **setting)
