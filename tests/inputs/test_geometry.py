import pytest
import torch
from kornia.geometry.transform import get_affine_matrix2d, warp_affine

from genbench.inputs.geometry import box, turned, warped
from genbench.regularization.shared.inputs import integers


@pytest.mark.parametrize("shape", [(16, 3, 8, 8), (16, 1, 20, 13)])
def test_warped_images_are_kornias(shape):
    x = torch.rand(shape, dtype=torch.float64)
    angle, moved = 180 * (2 * torch.rand(16).double() - 1), 6 * (2 * torch.rand(16, 2).double() - 1)
    centre = (torch.tensor([shape[3], shape[2]]) - 1).double().expand(16, 2) / 2
    matrix = get_affine_matrix2d(moved, centre, torch.ones(16, 2).double(), angle)
    theirs = warp_affine(x, matrix[:, :2], shape[2:], align_corners=True)
    back = turned(angle)
    ours = warped(x, back, -(back @ moved[:, :, None])[:, :, 0])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_quarter_turn_moves_pixels_onto_pixels():
    x = torch.rand(2, 3, 5, 5).double()
    quarter = warped(x, turned(torch.tensor([90.0, -90.0]).double()), torch.zeros(2, 2))
    torch.testing.assert_close(quarter[0], x[0].rot90(-1, (1, 2)))  # clockwise
    torch.testing.assert_close(quarter[1], x[1].rot90(1, (1, 2)))


def test_boxes():
    for shape in ((3, 2, 7), (3, 2, 7, 5)):
        sides = shape[2:]
        start = torch.tensor([[-2, 1], [4, 4], [0, 0]])[:, : len(sides)]
        inside = box(torch.zeros(shape), start, torch.tensor([3, 2])[: len(sides)])
        assert inside.shape == (3, 1, *sides)
        for b in range(3):
            for point in torch.cartesian_prod(*map(torch.arange, sides)).view(-1, len(sides)).tolist():
                expected = all(s <= p < s + n for s, p, n in zip(start[b].tolist(), point, (3, 2), strict=False))
                assert bool(inside[(b, 0, *point)]) is expected


def test_whole_numbers_are_below_their_bound():
    """The largest float32 below 1 must not round up."""
    largest = torch.tensor([0.0, 0.5, 1 - 2**-24])
    for n in range(1, 600):
        assert integers(largest, n).tolist() == [0, n // 2, n - 1]
