import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genbench.models import MLP
from genbench.regularization.cutmix import CutMix
from genbench.rng import StepRandom

NET = MLP(input_shape=(1, 4), classes=3)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
HOT = F.one_hot(Y, 3).double()


def reference(x, share, centre, partner):
    """The authors' code (clovaai/CutMix-PyTorch, train.py), the centre and the share being given."""
    height, width = x.shape[2:]
    cut = np.sqrt(1.0 - share)
    cut_h, cut_w = int(height * cut), int(width * cut)
    top, bottom = np.clip([centre[0] - cut_h // 2, centre[0] - cut_h // 2 + cut_h], 0, height)
    left, right = np.clip([centre[1] - cut_w // 2, centre[1] - cut_w // 2 + cut_w], 0, width)
    x = x.clone()
    x[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
    return x, 1 - (bottom - top) * (right - left) / (height * width)


@pytest.mark.parametrize("step", range(8))
def test_the_authors_code(step):
    x, draw = torch.rand(6, 3, 12, 9).double(), StepRandom(0, step)
    share, partner = float(draw.beta("cutmix.share", 1.0)), draw.permutation("cutmix.partner", 6)
    centre = (draw.uniform("cutmix.centre", 2) * torch.tensor([12, 9])).long().tolist()
    theirs, share = reference(x, share, centre, partner)
    ours, y = CutMix(alpha=1.0).transform(NET, x, Y, draw)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(y, share * HOT + (1 - share) * HOT[partner])


def test_sequences_get_a_span_of_another_and_targets_its_share():
    x = torch.arange(6.0).double()[:, None, None].expand(6, 2, 40)
    shares = []
    for step in range(200):
        mixed, y = CutMix(alpha=1.0).transform(NET, x, Y, draw := StepRandom(0, step))
        partner = draw.permutation("cutmix.partner", 6)
        other = mixed[:, 0] == partner[:, None]
        moved = partner != torch.arange(6)
        spans = (other[moved].diff(dim=1)).sum(1)
        assert (spans <= 2).all()  # one piece
        share = 1 - other[moved].double().mean(1)
        torch.testing.assert_close(y[moved], share[:, None] * HOT[moved] + (1 - share[:, None]) * HOT[partner[moved]])
        shares += share.tolist()[:1]
    assert min(shares) < 0.1
    assert max(shares) > 0.95


def test_soft_targets_are_mixed_as_they_are():
    x, soft = torch.rand(6, 1, 8, 8), torch.rand(6, 3).softmax(1)
    _, y = CutMix(alpha=1.0).transform(NET, x, soft, draw := StepRandom(0, 0))
    _, hot = CutMix(alpha=1.0).transform(NET, x, Y, draw)
    partner = draw.permutation("cutmix.partner", 6)
    row = next(i for i in range(6) if Y[i] != Y[partner[i]])
    share = hot[row, Y[row]]
    torch.testing.assert_close(y, share * soft + (1 - share) * soft[partner])


def test_alpha_zero_is_the_identity():
    x = torch.rand(6, 3, 8, 8)
    mixed, y = CutMix(alpha=0).transform(NET, x, Y, StepRandom(0, 0))
    assert torch.equal(mixed, x)
    assert torch.equal(y, HOT.float())


def test_bad_input():
    for alpha in (-1, float("nan"), "big"):
        with pytest.raises(ValueError, match="alpha is "):
            CutMix(alpha=alpha)
    with pytest.raises(ValueError, match="regularization cutmix: Linear does not say how many classes it has"):
        CutMix(alpha=1).build(torch.nn.Linear(2, 2))
