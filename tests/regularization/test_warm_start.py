"""Training on a part of the examples first."""

import pytest
import torch

from genbench.data import MNIST1D
from genbench.regularization import WarmStart
from genbench.rng import StepRandom

DRAW = StepRandom(0, 0)


@pytest.fixture(scope="module")
def signals():
    return MNIST1D().tensors("train")


def part(x, y, **settings):
    method = WarmStart(**{"until": 0.5, "share": 0.5, "seed": 0} | settings)
    return method.transform(None, x, y, DRAW)


def rows(x, of):
    """The row of ``of`` that each of x is."""
    place = {row.numpy().tobytes(): i for i, row in enumerate(of)}
    return [place[row.numpy().tobytes()] for row in x]


def test_a_share_of_the_examples_counts_and_always_the_same(signals):
    x, y = signals
    found, labels = part(x, y)
    chosen = rows(found, x)
    assert torch.equal(labels, y[chosen])
    inside = set(chosen)
    assert len(inside) == pytest.approx(2000, abs=4 * 1000**0.5)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:100]
    assert set(rows(part(x[order], y[order])[0], x)) == inside & set(order.tolist())
    assert set(rows(part(x, y, seed=1)[0], x)) != inside
    assert set(rows(part(x, y, share=0.2)[0], x)) < inside


def test_examples_inside_stand_for_those_outside_in_turn(signals):
    x, y = signals[0][:100], signals[1][:100]
    chosen = rows(part(x, y)[0], x)
    inside = sorted(set(chosen))
    assert chosen == [inside[i % len(inside)] for i in range(100)]


def test_after_it_all_count(signals):
    x, y = signals[0][:100], signals[1][:100]
    method = WarmStart(until=0.5, share=0.3, seed=0)
    method.after_step({}, 0.49)
    assert len(set(rows(method.transform(None, x, y, DRAW)[0], x))) < 50
    method.after_step({}, 0.5)
    assert torch.equal(method.transform(None, x, y, DRAW)[0], x)
    assert torch.equal(part(x, y, share=1.0)[0], x)


def test_a_batch_without_any_inside_stays(signals):
    x, y = signals[0][:3], signals[1][:3]
    assert torch.equal(part(x, y, share=1e-9)[0], x)


@pytest.mark.parametrize("settings", [{"share": 0.0}, {"until": 1.5}, {"seed": -1}])
def test_settings_are_checked(settings, signals):
    with pytest.raises(ValueError, match=r"regularization WarmStart: .*accepted"):
        part(*signals, **settings)
