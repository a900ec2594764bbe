"""Detection of outliers by a score of the outputs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from genbench.data import Digits
from genbench.measures import Snapshot, ood_auroc
from genbench.measures.ood import auroc
from tests.helpers.measured import Table
from tests.helpers.networks import build, taught


class Elsewhere:
    """A data module whose test split is given."""

    def __init__(self, x):
        self.x = x

    def evaluation_batches(self, split):
        assert split == "test"
        return [(part, None) for part in self.x.split(3)]


@pytest.mark.oracle("ood_auroc")
@pytest.mark.parametrize("decimals", [1, 9])
def test_the_area_is_scikit_learns_ties_included(decimals):
    generator = np.random.default_rng(0)
    inside, outside = generator.normal(0.7, 1, 60).round(decimals), generator.normal(0, 1, 45).round(decimals)
    labels = np.repeat([1, 0], [60, 45])
    assert auroc(inside, outside)[0] == pytest.approx(roc_auc_score(labels, np.concatenate([inside, outside])))
    assert auroc(outside, inside)[0] == pytest.approx(1 - auroc(inside, outside)[0])
    assert auroc(inside, inside)[0] == pytest.approx(0.5)
    below = (outside < inside[0]).mean() + 0.5 * (outside == inside[0]).mean()
    assert auroc(inside[:1], outside) == (pytest.approx(below), None)


@pytest.mark.parametrize("paired", [False, True])
def test_the_standard_error_covers_the_area(paired):
    """Two normal scores a standard deviation apart: Φ(1/√2), or of pairs with half of their variance in common."""
    generator = np.random.default_rng(0)
    exact, covered = 0.5 * (1 + math.erf(0.5)), 0
    for _ in range(400):
        common = generator.normal(size=80) if paired else np.zeros(80)
        spread = 0.5**0.5 if paired else 1.0
        inside, outside = (spread * (common + generator.normal(size=80)) + mean for mean in (1.0, 0.0))
        value, stderr = auroc(inside, outside, paired=paired)
        covered += abs(value - exact) <= 2 * stderr
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.oracle("ood_auroc")
def test_scores_by_hand():
    inside = torch.tensor([[1.0, 0.2], [0.3, 3.0], [1.5, 1.4], [0.9, 2.0]])
    outside = torch.tensor([[2.0, 2.0], [0.0, 0.1], [0.0, 4.0]])
    snapshot = Snapshot(Table(), F.cross_entropy, [(inside, torch.tensor([0, 1, 0, 1]))])
    found = {}
    scores = {
        "max_softmax": lambda z: z.softmax(1).amax(1),
        "energy": lambda z: z.exp().sum(1).log(),
        "entropy": lambda z: -torch.distributions.Categorical(logits=z).entropy(),
    }
    for name, function in scores.items():
        ours, theirs = (function(z.double()) for z in (inside, outside))
        found[name] = ood_auroc(snapshot, score=name, outliers=Elsewhere(outside)).value
        assert found[name] == pytest.approx(float((ours[:, None] > theirs).double().mean()))
    assert found["energy"] != found["entropy"]


def test_another_data_set_noise_and_a_shift():
    data = Digits()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    snapshot = Snapshot(taught(net), F.cross_entropy, [data.tensors("test")])
    noise = ood_auroc(snapshot)
    assert 0.8 < noise.value < 1
    assert 0 < noise.stderr < 0.03
    assert ood_auroc(snapshot, outliers=data).value == pytest.approx(0.5)  # the same split
    turned = [ood_auroc(snapshot, outliers="rotation", severity=k).value for k in (1, 3, 5)]
    assert 0.5 < turned[0] < turned[1] < 1
    assert ood_auroc(snapshot, outliers="rotation", severity=3, score="entropy").value != turned[1]
    (x, y) = snapshot.batches[0]
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(50), y.split(50), strict=True)))
    assert ood_auroc(parts).value == pytest.approx(noise.value)


def test_undefined_and_refused():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert 0 <= ood_auroc(snapshot).value <= 1
    assert "neither sequences" in ood_auroc(snapshot, outliers="blur").note
    probable = Snapshot(nn.Sequential(net, nn.LogSoftmax(1)), F.nll_loss, [(x, y)])
    assert "log-probabilities" in ood_auroc(probable, score="energy").note
    assert ood_auroc(probable, score="entropy").value == pytest.approx(ood_auroc(snapshot, score="entropy").value)
    regression = Snapshot(nn.Linear(2, 3), F.mse_loss, [(torch.randn(4, 2), torch.randn(4, 3))])
    assert ood_auroc(regression).value is None
    for settings, message in (
        ({"score": "odin"}, "score is 'odin'; accepted: max_softmax, energy, entropy"),
        ({"outliers": 3}, r"outliers is 3; accepted: gaussian, a corruption \(gaussian_noise, .*\), or a data module"),
        ({"severity": 0}, "severity is 0; accepted"),
    ):
        with pytest.raises(ValueError, match=message):
            ood_auroc(snapshot, **settings)
