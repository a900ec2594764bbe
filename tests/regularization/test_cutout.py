import pytest
import torch

from genbench.regularization.cutout import Cutout
from genbench.rng import StepRandom

Y = torch.zeros(300, dtype=torch.long)


def holes(shape, size, step=0):
    x = torch.rand(shape) + 1
    cut, y = Cutout(size=size).transform(None, x, Y, StepRandom(0, step))
    assert y is Y
    gone = cut == 0
    assert torch.equal(cut[~gone], x[~gone])
    assert torch.equal(gone.all(1), gone.any(1))  # all channels or none
    return gone[:, 0]


def test_images_lose_a_rectangle_whose_centre_lies_anywhere():
    """The authors' mask (uoguelph-mlrg/Cutout): rows from y − 2 to y + 2, clipped, y any row; columns alike."""
    gone, seen = holes((300, 3, 8, 10), 0.5), set()
    for hole in gone:
        fits = []
        for y in range(8):
            for x in range(10):
                mask = torch.zeros(8, 10, dtype=torch.bool)
                mask[max(0, y - 2) : y + 2, max(0, x - 2) : x + 3] = True  # half of 10 columns: 5
                fits += [(y, x)] if torch.equal(mask, hole) else []
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) > 70  # of 80, the others missed by chance: 80 · exp(−300 / 80) = 2


def test_sequences_lose_a_span():
    gone = holes((300, 2, 40), 0.25)
    edges = (gone[:, 1:] != gone[:, :-1]).sum(1) + gone[:, 0].int() + gone[:, -1].int()
    assert torch.equal(edges, torch.full((300,), 2))
    assert set(gone.sum(1).tolist()) == {5, 6, 7, 8, 9, 10}  # cut off at an end, by half at most


def test_no_size_is_the_identity():
    assert not holes((300, 3, 8, 10), 0.0).any()


def test_bad_input():
    for size in (-0.1, 16, float("nan"), "half", True):
        with pytest.raises(ValueError, match="size is "):
            Cutout(size=size)
