import pytest
import torch
import torch.nn.functional as F

from genbench.regularization.augmix import NAMES, RANGES, AugMix, divergence
from genbench.regularization.shared.operations import OPERATIONS, Choice, applied
from genbench.rng import StepRandom

X = torch.rand(8, 3, 12, 9, generator=torch.Generator().manual_seed(0)).double()
Y = torch.arange(8) % 3


def test_views_are_mixtures_of_chains():
    """Algorithm 1 of the paper, image by image."""
    draw = StepRandom(0, 2)
    ours, y = AugMix(severity=3.0, consistency=12.0).transform(None, X, Y, draw)
    assert torch.equal(y, Y.repeat_interleave(3))
    ours = ours.view(8, 3, 3, 12, 9)
    assert torch.equal(ours[:, 0], X)
    length = 1 + (3 * draw.uniform("augmix.length", 48, 1, 1, 1)).long().flatten()
    weights = -(1 - draw.uniform("augmix.weights", 16, 3, 1, 1, 1)).log().flatten(1)
    share = draw.uniform("augmix.share", 16, 1, 1, 1).flatten()
    assert set(length.tolist()) == {1, 2, 3}
    for row in range(16):
        image = X[[row // 2]]
        low, span = image.min(), image.max() - image.min()
        total = torch.zeros_like(image)
        for chain in range(3):
            unit = (image - low) / span
            place = 3 * row + chain
            for step in range(int(length[place])):
                name = NAMES[int(len(NAMES) * draw.uniform(f"augmix.{step}.operation", 48)[place])]
                strength = (0.1 + 2.9 * draw.uniform(f"augmix.{step}.strength", 48)[[place]]) / 10
                sign = torch.tensor([1.0 if draw.uniform(f"augmix.{step}.sign", 48)[place] < 0.5 else -1.0])
                unit = applied(unit, Choice(torch.tensor([OPERATIONS.index(name)]), strength, sign), RANGES)
            total += weights[row, chain] / weights[row].sum() * unit
        expected = low + span * (share[row] * (image - low) / span + (1 - share[row]) * total)
        torch.testing.assert_close(ours[row // 2, 1 + row % 2], expected[0], rtol=0, atol=1e-6)


def test_the_loss_is_the_authors():
    """google-research/augmix, cifar.py, without its clamp at 1e-7."""
    output = torch.randn(24, 5, dtype=torch.float64)
    clean, first, second = (output[view::3] for view in range(3))
    p = [F.softmax(logits, dim=1) for logits in (clean, first, second)]
    mixture = ((p[0] + p[1] + p[2]) / 3).log()
    theirs = F.cross_entropy(clean, Y)
    theirs = theirs + 12 * sum(F.kl_div(mixture, each, reduction="batchmean") for each in p) / 3
    torch.testing.assert_close(AugMix(severity=3, consistency=12).loss(output, Y.repeat_interleave(3)), theirs)


def test_divergence():
    same = torch.randn(4, 1, 5).log_softmax(-1).expand(4, 3, 5)
    assert divergence(same) == pytest.approx(0, abs=1e-6)
    certain = torch.full((4, 3, 3), -200.0)
    certain[:, range(3), range(3)] = 0  # each view sure of another class
    assert divergence(certain.double()) == pytest.approx(torch.tensor(3.0).log().item())


def test_weights_are_uniform_on_the_simplex():
    exponential = -(1 - StepRandom(0, 0).uniform("augmix.weights", 20_000, 3, 1, 1, 1)).log().flatten(1)
    weights = exponential / exponential.sum(1, keepdim=True)
    assert weights.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert weights.var(0).tolist() == pytest.approx([1 / 18] * 3, rel=0.05)  # of Dirichlet(1, 1, 1)


def test_bad_input():
    for name, value in (("severity", 0.0), ("severity", 11), ("consistency", -1)):
        with pytest.raises(ValueError, match=f"{name} is "):
            AugMix(**{"severity": 3, "consistency": 12, name: value})
    method = AugMix(severity=3, consistency=12)
    with pytest.raises(ValueError, match=r"^regularization augmix: inputs of shape \(8, 1, 40\); accepted: images"):
        method.transform(None, torch.zeros(8, 1, 40), Y, StepRandom(0, 0))
    with pytest.raises(ValueError, match=r"^regularization augmix: targets are class probab.*accepted: classes$"):
        method.transform(None, X, F.one_hot(Y, 3).double(), StepRandom(0, 0))
    with pytest.raises(ValueError, match=r"^regularization augmix: 8 views; accepted: 3 of each image$"):
        method.loss(torch.zeros(8, 3), Y)
