"""The curve of an ensemble over its members."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.analysis import bias_variance
from genbench.measures import (
    Snapshot,
    accuracy,
    calibrated_cross_entropy,
    calibration_error,
    cross_entropy,
    ensemble_bias_variance,
    ensemble_curve,
)
from genbench.models import Ensemble


class Table(nn.Module):
    """The same probabilities for every input."""

    def __init__(self, *p: float) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.tensor(p, dtype=torch.float64).log())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logs.expand(len(x), -1)


def nets(n, seed=0):
    torch.manual_seed(seed)
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.arange(40) % 3
    members = [nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double() for _ in range(n)]
    return members, x, y


@pytest.mark.oracle("ensemble_curve")
def test_by_hand():
    """p(label) of three members: ½, ¼, ⅛; of two: ⅜, 3/16, 5/16; of all: 7/24."""
    members = [Table(0.5, 0.5), Table(0.25, 0.75), Table(0.125, 0.875)]
    snapshot = Snapshot(Ensemble(members), F.cross_entropy, [(torch.zeros(5, 1), torch.zeros(5).long())])
    found = ensemble_curve(snapshot)
    single = [-math.log(p) for p in (1 / 2, 1 / 4, 1 / 8)]
    assert found["cross_entropy_of_1"].value == pytest.approx(sum(single) / 3)
    assert found["cross_entropy_of_1"].stderr == pytest.approx(math.log(2) / math.sqrt(3))  # their s is log 2
    assert found["cross_entropy_of_2"].value == pytest.approx(-sum(map(math.log, (3 / 8, 3 / 16, 5 / 16))) / 3)
    assert found["cross_entropy_of_3"].value == pytest.approx(-math.log(7 / 24))
    assert found["cross_entropy_of_2"].stderr is found["cross_entropy_of_3"].stderr is None
    # sure of the second class with 1 − p(label), and wrong; the first member is undecided and answers the first
    assert found["calibration_error_of_3"].value == pytest.approx(17 / 24)
    assert found["accuracy_of_1"].value == pytest.approx(1 / 3)
    assert found["accuracy_of_3"].value == 0


@pytest.mark.oracle("ensemble_curve")
def test_its_ends_are_the_members_mean_and_the_ensemble():
    members, x, y = nets(4)
    batches = [(x[:15], y[:15]), (x[15:], y[15:])]
    found = ensemble_curve(Snapshot(Ensemble(members), F.cross_entropy, batches))
    assert len(found) == 16
    for name, function in (
        ("accuracy", accuracy),
        ("cross_entropy", cross_entropy),
        ("calibrated_cross_entropy", calibrated_cross_entropy),
        ("calibration_error", calibration_error),
    ):
        alone = [function(Snapshot(member, F.cross_entropy, batches)).value for member in members]
        assert found[f"{name}_of_1"].value == pytest.approx(sum(alone) / 4, rel=1e-6)
        whole = function(Snapshot(Ensemble(members), F.cross_entropy, batches)).value
        assert found[f"{name}_of_4"].value == pytest.approx(whole, rel=1e-6)


def test_cross_entropy_falls_with_every_member():
    """By Jensen's inequality, as each member is in as many of the sets."""
    members, x, y = nets(5)
    found = ensemble_curve(Snapshot(Ensemble(members), F.cross_entropy, [(x, y)]))
    values = [found[f"cross_entropy_of_{m}"].value for m in range(1, 6)]
    assert values[0] == max(values)
    assert values[-1] == min(values)


def test_undefined_and_refused():
    (member,), x, y = nets(1)
    plain = ensemble_curve(Snapshot(member, F.cross_entropy, [(x, y)]))["ensemble_curve"]
    assert (plain.value, plain.note) == (None, "undefined: the network is no ensemble")
    ensemble = Ensemble([nn.Linear(4, 1).double() for _ in range(2)])
    (scalar,) = ensemble_curve(Snapshot(ensemble, F.mse_loss, [(x, x[:, :1])])).values()
    assert "the targets are no class labels" in scalar.note
    with pytest.raises(ValueError, match="bins is 0"):
        ensemble_curve(Snapshot(Ensemble([member]), F.cross_entropy, [(x, y)]), bins=0)


@pytest.mark.oracle("ensemble_bias_variance")
def test_bias_and_variance_by_hand():
    """Members 1, 3 and 5 of the label's output 1 and the other's 0: mean 3, variance 4, bias² 4 − 4/3."""

    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor([value, 0.0], dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.value.expand(len(x), -1)

    members = [Constant(value) for value in (1.0, 3.0, 5.0)]
    found = ensemble_bias_variance(
        Snapshot(Ensemble(members), F.cross_entropy, [(torch.zeros(5, 1), torch.zeros(5).long())])
    )
    assert found["squared_risk"].value == pytest.approx((0 + 4 + 16) / 3)
    assert found["squared_variance"].value == pytest.approx(4)
    assert found["squared_bias2"].value == pytest.approx(4 - 4 / 3)
    assert found["squared_bias2"].stderr == pytest.approx(0)


@pytest.mark.oracle("ensemble_bias_variance")
def test_bias_and_variance_are_those_of_the_analysis():
    members, x, y = nets(4)
    found = ensemble_bias_variance(Snapshot(Ensemble(members), F.cross_entropy, [(x[:15], y[:15]), (x[15:], y[15:])]))
    with torch.no_grad():
        outputs = torch.stack([member(x) for member in members]).numpy()
    expected = bias_variance(outputs, F.one_hot(y, 3).numpy())
    for name in ("risk", "bias2", "variance"):
        assert found[f"squared_{name}"].value == pytest.approx(expected[name].value, rel=1e-9)


def test_one_network_has_no_bias_and_variance():
    (net,), x, y = nets(1)
    found = ensemble_bias_variance(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert {each.value for each in found.values()} == {None}
    assert "no members" in found["squared_bias2"].note


@pytest.mark.oracle("ensemble_bias_variance")
def test_of_the_probabilities_and_of_means_of_two_members():
    members, x, y = nets(5)
    snapshot = Snapshot(Ensemble(members), F.cross_entropy, [(x[:15], y[:15]), (x[15:], y[15:])])
    with torch.no_grad():
        p = torch.stack([member(x).softmax(1) for member in members])
    for average, predictions in ((1, p), (2, torch.stack([(p[0] + p[1]) / 2, (p[2] + p[3]) / 2]))):
        found = ensemble_bias_variance(snapshot, probabilities=True, average=average)
        expected = bias_variance(predictions.numpy(), F.one_hot(y, 3).numpy())
        ending = "" if average == 1 else "_of_2"
        assert [*found] == [f"squared_{name}{ending}" for name in ("risk", "bias2", "variance")]
        for name in ("risk", "bias2", "variance"):
            assert found[f"squared_{name}{ending}"].value == pytest.approx(expected[name].value, rel=1e-9)
    few = ensemble_bias_variance(snapshot, average=3)["squared_variance_of_3"]
    assert few.note == "undefined: 5 members make no two means of 3"
    with pytest.raises(ValueError, match="average is 0"):
        ensemble_bias_variance(snapshot, average=0)


def test_the_variance_of_a_mean_of_m_members_is_an_mth_and_the_bias_the_same():
    members, x, y = nets(600)
    snapshot = Snapshot(Ensemble(members), F.cross_entropy, [(x, y)])
    one, four = (ensemble_bias_variance(snapshot, probabilities=True, average=m) for m in (1, 4))
    assert four["squared_variance_of_4"].value == pytest.approx(one["squared_variance"].value / 4, rel=0.1)
    assert four["squared_bias2_of_4"].value == pytest.approx(one["squared_bias2"].value, rel=0.01)
