"""Diversity of members and of samples around one, counted by hand and by loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, diversity
from genbench.measures.diversity import _directions
from genbench.measures.perturbations import generator_of
from genbench.models import Ensemble


def nets(n=4, seed=0, examples=200):
    torch.manual_seed(seed)
    x = torch.randn(examples, 5, dtype=torch.float64)
    y = (x[:, :3] + 0.3 * torch.randn(examples, 3, dtype=torch.float64)).argmax(1)
    members = []
    for _ in range(n):
        member = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        optimizer = torch.optim.Adam(member.parameters(), 0.02)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(member(x), y).backward()
            optimizer.step()
        members.append(member)
    return Snapshot(Ensemble(members), F.cross_entropy, [(x[:120], y[:120]), (x[120:], y[120:])]), members, x, y


@pytest.mark.oracle("diversity")
def test_members_by_hand():
    """Errors 1/4 and 2/4, different answers in 3/4 of the examples."""
    members = [nn.Linear(4, 3, bias=False).double() for _ in range(2)]
    for member, answers in zip(members, ([0, 0, 0, 1], [1, 1, 0, 0]), strict=True):
        member.weight.data = F.one_hot(torch.tensor(answers), 3).double().T
    batches = [(torch.eye(4, dtype=torch.float64), torch.zeros(4).long())]
    found = diversity(Snapshot(Ensemble(members), F.cross_entropy, batches), subspaces=[])
    assert {name: each.value for name, each in found.items()} == {
        "members_diversity_at_0": pytest.approx((0.75 / 0.5 + 0.75 / 0.25) / 2)
    }


@pytest.mark.oracle("diversity")
@pytest.mark.parametrize("subspace", ["random", "diagonal", "low_rank"])
def test_samples_lose_the_accuracy_that_is_asked_for(subspace):
    """At the scale found by a fine grid, the samples' answers counted by plain forward passes."""
    snapshot, members, x, y = nets()
    found = diversity(snapshot, subspaces=[subspace], points=(5,), samples=3, seed=1)
    last = members[-1]
    start = nn.utils.parameters_to_vector(last.parameters()).detach()
    vectors = torch.stack([nn.utils.parameters_to_vector(m.parameters()).detach() for m in members])
    directions = _directions(subspace, vectors, 3, generator_of(1, f"diversity.{subspace}"))
    torch.testing.assert_close(directions.norm(dim=1), start.norm().expand(3))

    def at(scale):
        outputs = []
        for direction in directions:
            nn.utils.vector_to_parameters(start + scale * direction, last.parameters())
            with torch.no_grad():
                outputs.append(last(x).softmax(1))
        nn.utils.vector_to_parameters(start, last.parameters())
        return torch.stack(outputs)

    def lost(outputs):
        return accuracy - float((outputs.argmax(2) == y).double().mean())

    own = at(0.0)[0]
    accuracy = float((own.argmax(1) == y).double().mean())
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if lost(at(middle)) >= 0.05 else (middle, high)
    outputs = at(high)
    expected = torch.stack([(o.argmax(1) != own.argmax(1)).sum() / (o.argmax(1) != y).sum() for o in outputs]).mean()
    assert found[f"{subspace}_diversity_at_5"].value == pytest.approx(float(expected), rel=0.1)
    together = (torch.cat([own[None], outputs]).mean(0).argmax(1) == y).double().mean()
    assert found[f"{subspace}_gain_at_5"].value == pytest.approx(float(together) - accuracy, abs=0.0151)


def test_low_rank_samples_lie_in_the_span_of_the_members_and_diagonal_ones_where_they_differ():
    vectors = torch.randn(3, 20, dtype=torch.float64)
    vectors[:, :5] = 1.0
    generator = torch.Generator().manual_seed(0)
    diagonal = _directions("diagonal", vectors, 6, generator)
    assert (diagonal[:, :5] == 0).all()
    assert (diagonal[:, 5:] != 0).all()
    low = _directions("low_rank", vectors, 6, generator)
    assert torch.linalg.matrix_rank(torch.cat([low, vectors - vectors.mean(0)])) == 2


def test_a_sample_that_loses_more_differs_more_and_the_network_is_as_before():
    snapshot, members, *_ = nets()
    before = [p.clone() for p in members[-1].parameters()]
    found = diversity(snapshot, points=(2, 10, 30))
    values = [found[f"random_diversity_at_{p}"].value for p in (2, 10, 30)]
    assert values == sorted(values)
    assert found["random_diversity_at_10"].stderr > 0
    assert all(torch.equal(a, b) for a, b in zip(before, members[-1].parameters(), strict=True))
    assert diversity(snapshot, points=(2, 10, 30))["random_gain_at_2"].value == found["random_gain_at_2"].value


def test_what_cannot_be_measured_says_why():
    snapshot, members, x, y = nets(2)
    far = diversity(snapshot, points=(99,))["random_diversity_at_99"]
    assert far.note == "undefined: no scale of the samples costs 99 points of accuracy"
    (plain,) = diversity(Snapshot(members[0], F.cross_entropy, [(x, y)])).values()
    assert plain.note == "undefined: the network is no ensemble"
    (alone,) = diversity(Snapshot(Ensemble(members[:1]), F.cross_entropy, [(x, y)])).values()
    assert alone.note == "undefined: one member"
    z = torch.randn(4, 3)
    (scalar,) = diversity(Snapshot(Ensemble(nn.Linear(3, 1) for _ in range(2)), F.mse_loss, [(z, z[:, :1])])).values()
    assert scalar.value is None
    with pytest.raises(ValueError, match=r"subspaces\[0\] is 'all'"):
        diversity(snapshot, subspaces=["all"])
    with pytest.raises(ValueError, match=r"points\[1\] is 0"):
        diversity(snapshot, points=(1, 0))
    with pytest.raises(ValueError, match="samples is 0"):
        diversity(snapshot, samples=0)
