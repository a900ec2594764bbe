import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot
from genbench.measures.difficulty import difficulty_dispersion, difficulty_quantiles
from genbench.models import Ensemble


class Answers(nn.Module):
    """Answers each example, given by its number, as stored: class 0 is right."""

    def __init__(self, wrong: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(F.one_hot(wrong.long(), 2).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[x[:, 0].long()]


def snapshot(wrong):
    """Members [M, n] that err where ``wrong``."""
    n = wrong.shape[1]
    batches = [(torch.arange(n).double()[:, None], torch.zeros(n).long())]
    return Snapshot(Ensemble([Answers(each) for each in wrong]), F.cross_entropy, batches)


def dispersion(wrong):
    return difficulty_dispersion(snapshot(wrong))


@pytest.mark.oracle("difficulty_dispersion")
def test_it_is_the_variance_of_the_errors_of_an_example_over_that_of_independent_members():
    wrong = torch.rand(7, 50, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 50)
    counts, p = wrong.double().sum(0), wrong.double().mean(1)
    expected = counts.var(correction=0) / (p * (1 - p)).sum()
    found = dispersion(wrong)
    assert found.value == pytest.approx(float(expected), rel=1e-12)
    assert found.value > 1.5
    assert found.stderr > 0


def test_members_that_err_on_the_same_examples_have_their_number():
    wrong = (torch.arange(12) < 5).expand(6, 12)
    assert dispersion(wrong).value == pytest.approx(6, rel=1e-12)


def test_of_independent_members_it_is_one_in_the_mean():
    """Over all orders of their errors; the standard error is that of one draw."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(200):
        order = torch.stack([torch.randperm(40, generator=generator) for _ in range(5)])
        found = dispersion(order < torch.tensor([[4], [10], [20], [30], [8]]))
        values.append((found.value, found.stderr))
    ratios, errors = torch.tensor(values, dtype=torch.float64).T
    assert float(ratios.mean()) == pytest.approx(1, abs=4 * float(ratios.std()) / 200**0.5)
    assert float(errors.mean()) == pytest.approx(float(ratios.std()), rel=0.25)


def test_a_network_without_members_has_none():
    net = Answers(torch.tensor([True, False]))
    found = difficulty_dispersion(Snapshot(net, F.cross_entropy, [(torch.arange(2.0)[:, None], torch.zeros(2).long())]))
    assert found.value is None
    assert "no members" in found.note
    right = dispersion(torch.zeros(3, 4, dtype=torch.bool))
    assert right.value is None
    assert "no member errs" in right.note


@pytest.mark.oracle("difficulty_quantiles")
def test_quantiles_of_the_share_of_members_that_err_and_of_a_binomial():
    """Example i of 0 … 4 has i of four members that err; of a binomial of 4 and 1/2 the cumulative probabilities are
    1/16, 5/16, 11/16, 15/16 and 1."""
    wrong = torch.arange(4)[:, None] < torch.arange(5)
    found = difficulty_quantiles(snapshot(wrong), percentiles=[0, 25, 30, 35, 60, 70, 100])
    assert [found[f"difficulty_q{q}"].value for q in (0, 25, 30, 60, 100)] == pytest.approx([0, 0.25, 0.3, 0.6, 1])
    assert [found[f"difficulty_binomial_q{q}"].value for q in (0, 25, 30, 35, 60, 70, 100)] == [
        0, 0.25, 0.25, 0.5, 0.5, 0.75, 1
    ]  # fmt: skip


def test_quantiles_need_members():
    net = Answers(torch.tensor([True, False]))
    one = Snapshot(net, F.cross_entropy, [(torch.arange(2.0)[:, None], torch.zeros(2).long())])
    found = difficulty_quantiles(one, percentiles=[50])
    assert {*found} == {"difficulty_q50", "difficulty_binomial_q50"}
    assert all(each.value is None and "no members" in each.note for each in found.values())
    with pytest.raises(ValueError, match=r"percentiles\[0\] is 101"):
        difficulty_quantiles(one, percentiles=[101])
