"""The geometry of neural collapse."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, collapse_geometry

NAMES = ("collapse_norms", "collapse_angles", "collapse_duality", "collapse_mismatch")


class Fixed(nn.Module):
    """A first layer passes on the inputs as features for the last."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.pass_on = nn.Linear(weight.shape[1], weight.shape[1], bias=False).double()
        self.pass_on.weight.data = torch.eye(weight.shape[1], dtype=torch.float64)
        self.head = nn.Linear(weight.shape[1], len(weight), bias=False).double()
        self.head.weight.data = weight.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pass_on(x))


def measured(x, y, weight):
    found = collapse_geometry(Snapshot(Fixed(weight), F.cross_entropy, [(x.double(), y)]))
    assert [*found] == [*NAMES]
    return [found[name].value for name in NAMES]


def simplex(k, width, seed=0):
    """Vectors of equal length and angles of cosine −1/(k − 1), in some directions."""
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, k, dtype=torch.float64)).Q.T
    return 2 * (basis - basis.mean(0))


@pytest.mark.oracle("collapse_geometry")
def test_a_collapsed_network_has_none_of_it():
    means = simplex(4, 7)
    y = torch.arange(20) % 4
    assert measured(means[y], y, 5 * means) == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert measured((means + 3.0)[y], y, 5 * means)[:3] == pytest.approx([0, 0, 0], abs=1e-12)  # no centre counts


@pytest.mark.oracle("collapse_geometry")
def test_by_hand():
    """Means (3, 0), (−1, 0), (−2, 0) of sum 0: norms 3, 1, 2, cosines −1, −1, 1."""
    means = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    spread = torch.tensor([[0.0, 1.0], [0.0, -1.0]] * 3)
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    norms, angles, duality, mismatch = measured(means[y] + spread, y, weight)
    assert norms == pytest.approx(math.sqrt(2 / 3) / 2)
    assert angles == pytest.approx((0.5 + 0.5 + 1.5) / 3)
    # ⟨W/‖W‖, M/‖M‖⟩ = (3 + 2) / (√2 √14)
    assert duality == pytest.approx(2 - 2 * 5 / math.sqrt(28))
    # outputs (x, 0, −x): at x = −1 the last class, whose mean is not the nearest
    assert mismatch == pytest.approx(2 / 6)


def test_it_does_not_change_with_rotation_shift_scale_and_batches():
    torch.manual_seed(1)
    x, y, weight = torch.randn(60, 5, dtype=torch.float64), torch.arange(60) % 3, torch.randn(3, 5, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    base = measured(x, y, weight)
    assert measured(x @ turn, y, weight @ turn) == pytest.approx(base)
    assert measured(3 * x, y, weight)[:3] == pytest.approx(base[:3])
    parts = Snapshot(Fixed(weight), F.cross_entropy, [(x[:7], y[:7]), (x[7:], y[7:])])
    assert [each.value for each in collapse_geometry(parts).values()] == pytest.approx(base)


def test_what_has_no_value_says_why():
    x, y, weight = torch.randn(8, 5), torch.zeros(8).long(), torch.randn(3, 5)
    one = collapse_geometry(Snapshot(Fixed(weight), F.cross_entropy, [(x.double(), y)]))
    assert {each.note for each in one.values()} == {"undefined: all examples are of one class"}
    two = collapse_geometry(Snapshot(Fixed(weight), F.cross_entropy, [(x.double(), torch.arange(8) % 2)]))
    assert two["collapse_duality"].note == "undefined: the data have 2 of 3 classes"
    assert two["collapse_angles"].value == pytest.approx(0)  # of two classes the means are opposite
    plain = nn.Linear(5, 3).double()
    none = collapse_geometry(Snapshot(plain, F.cross_entropy, [(x.double(), torch.arange(8) % 3)]))
    assert {each.value for each in none.values()} == {None}
