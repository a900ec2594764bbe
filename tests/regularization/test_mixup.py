import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from genbench.models import MLP
from genbench.regularization import Mixup
from genbench.rng import StepRandom

NET = MLP(input_shape=(1, 4), classes=3)
X, Y = torch.randn(6, 1, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def test_closed_form():
    draw = StepRandom(3, 8)
    share, partner = float(draw.beta("mixup.share", 0.7)), draw.permutation("mixup.partner", 6)
    x, y = Mixup(alpha=0.7).transform(NET, X, Y, draw)
    assert torch.allclose(x, share * X + (1 - share) * X[partner])
    hot = F.one_hot(Y, 3).float()
    assert torch.allclose(y, share * hot + (1 - share) * hot[partner])
    assert (y.shape, y.dtype) == ((6, 3), X.dtype)
    assert torch.allclose(y.sum(1), torch.ones(6))
    # the loss is linear in the target: this is the loss of the authors' implementation
    logits = torch.randn(6, 3)
    mixed = share * F.cross_entropy(logits, Y) + (1 - share) * F.cross_entropy(logits, Y[partner])
    assert torch.allclose(F.cross_entropy(logits, y), mixed)


def test_soft_targets_are_mixed_as_they_are():
    soft = torch.rand(6, 3).softmax(1)
    draw = StepRandom(0, 0)
    share, partner = float(draw.beta("mixup.share", 1.0)), draw.permutation("mixup.partner", 6)
    y = Mixup(alpha=1.0).transform(NET, X, soft, draw)[1]
    assert torch.allclose(y, share * soft + (1 - share) * soft[partner])


def test_shares_follow_the_beta_distribution():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
    shares = []
    for step in range(600):
        mixed = Mixup(alpha=0.5).transform(NET, x, y, StepRandom(0, step))[0]
        if mixed[0] != 0:  # the two were partners
            shares.append(1 - mixed[0].item())
    assert 230 < len(shares) < 370
    assert stats.kstest(shares, stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


def test_alpha_zero_is_the_identity():
    x, y = Mixup(alpha=0).transform(NET, X, Y, StepRandom(0, 0))
    assert torch.equal(x, X)
    assert torch.equal(y.argmax(1), Y)
    assert y.max(1).values.eq(1).all()


def test_same_step_same_batch_and_global_generator_untouched():
    state = torch.get_rng_state()
    first, same, other = (Mixup(alpha=1.0).transform(NET, X, Y, StepRandom(1, step)) for step in (4, 4, 5))
    assert torch.equal(first[0], same[0])
    assert torch.equal(first[1], same[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_input():
    for alpha in (-1, float("nan"), "big"):
        with pytest.raises(ValueError, match="alpha is "):
            Mixup(alpha=alpha)
    with pytest.raises(ValueError, match="regularization mixup: Linear does not say how many classes it has"):
        Mixup(alpha=1).build(torch.nn.Linear(2, 2))
