import torch

from genbench.regularization.shared.operations import OPERATIONS, Choice, applied, relative
from genbench.regularization.trivial_augment import WIDE, TrivialAugment
from genbench.rng import StepRandom

X = torch.rand(400, 3, 6, 7, generator=torch.Generator().manual_seed(0)).double()


def test_each_image_gets_an_operation_and_a_strength_of_its_own():
    draw = StepRandom(0, 3)
    ours, y = TrivialAugment().transform(None, X, Y := torch.zeros(400).long(), draw)
    assert y is Y
    strength = (31 * draw.uniform("trivial_augment.strength", 400)).long()
    operation = (14 * draw.uniform("trivial_augment.operation", 400)).long()
    assert set(strength.tolist()) == set(range(31))
    assert set(operation.tolist()) == set(range(len(OPERATIONS)))
    sign = torch.where(draw.uniform("trivial_augment.sign", 400) < 0.5, 1.0, -1.0)
    theirs = relative(X, lambda unit: applied(unit, Choice(operation, strength.double() / 30, sign), WIDE))
    torch.testing.assert_close(ours, theirs)


def test_whole_strengths_give_whole_bits():
    """Posterization keeps 8 − ⌊6 m⌋ bits at m = 0, 1/30, …, 1, as in the authors' code: five strengths each."""
    strength = torch.arange(31).double() / 30
    x = (torch.arange(256.0).double() / 255).view(1, 1, 16, 16).expand(31, 1, 16, 16)
    what = Choice(torch.full((31,), OPERATIONS.index("posterize")), strength, torch.ones(31))
    levels = [len(image.unique()) for image in applied(x, what, WIDE)]
    assert levels == [2 ** (8 - k // 5) for k in range(31)]
