import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.regularization.entropy_penalty import EntropyPenalty
from genbench.rng import StepRandom

NET, X, Y, DRAW = nn.Identity(), torch.zeros(3, 1), torch.tensor([0, 1, 2]), StepRandom(0, 0)


def test_closed_form():
    uniform, certain = torch.zeros(3, 5), 1e4 * torch.eye(3)
    assert EntropyPenalty(strength=0.3).penalty(NET, X, Y, uniform, DRAW).item() == pytest.approx(-0.3 * math.log(5))
    assert EntropyPenalty(strength=0.3).penalty(NET, X, Y, certain, DRAW).item() == 0
    logits = torch.randn(3, 5)
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(EntropyPenalty(strength=2).penalty(NET, X, Y, logits, DRAW), -2 * entropy)


def test_with_the_cross_entropy_the_best_prediction_balances_both():
    """At the optimum of CE − β·H for two classes log(p / (1 − p)) · β = 1 / p for the true one."""
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    optimizer, penalty, y = torch.optim.LBFGS([logits], max_iter=200), EntropyPenalty(strength=0.5), torch.tensor([0])

    def objective():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits, y) + penalty.penalty(NET, X, y, logits, DRAW)
        loss.backward()
        return loss

    optimizer.step(objective)
    p = logits.detach().softmax(1)[0, 0]
    assert 0.5 * (p / (1 - p)).log().item() == pytest.approx(1 / p.item(), rel=1e-4)


@pytest.mark.parametrize("strength", [-1, float("nan"), "weak"])
def test_bad_settings_are_named(strength):
    with pytest.raises(ValueError, match="EntropyPenalty: strength is "):
        EntropyPenalty(strength=strength)
