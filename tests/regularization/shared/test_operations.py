import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from genbench.regularization.shared.operations import (
    ENHANCEMENTS,
    GEOMETRY,
    OPERATIONS,
    Choice,
    Ranges,
    applied,
    choice,
    relative,
)
from genbench.rng import StepRandom

RANGES = Ranges(angle=30, shear=0.3, shift=0.25, factor=0.9, bits=(8, 4))


def pictures(n=6, channels=3, height=32, width=28):
    """Images of whole levels of 8 bits, smooth and of all brightnesses, as arrays [n, H, W, C]."""
    noise = torch.rand(n, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return (255 * smooth * torch.linspace(0.5, 1, n)[:, None, None, None]).byte().movedim(1, 3).numpy()


def to_tensor(arrays):
    return torch.from_numpy(np.stack(arrays)).double().movedim(3, 1) / 255


def changed(x, name, strength, sign=1.0):
    n = len(x)
    what = Choice(torch.full((n,), OPERATIONS.index(name)), torch.full((n,), strength).double(), torch.full((n,), sign))
    return applied(x, what, RANGES)


def through_pil(arrays, function):
    return to_tensor([np.asarray(function(Image.fromarray(a))) for a in arrays])


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
def test_solarize_posterize_autocontrast_and_equalize_are_pils(strength):
    arrays = pictures()
    x = to_tensor(arrays)
    bits = 8 - int(4 * strength)
    theirs = through_pil(arrays, lambda i: ImageOps.posterize(i, bits))
    torch.testing.assert_close(changed(x, "posterize", strength), theirs, rtol=0, atol=1e-12)
    theirs = through_pil(arrays, lambda i: ImageOps.equalize(i))
    torch.testing.assert_close(changed(x, "equalize", strength), theirs, rtol=0, atol=1e-12)
    theirs = through_pil(arrays, lambda i: ImageOps.solarize(i, 255 * (1 - strength)))
    torch.testing.assert_close(changed(x, "solarize", strength), theirs, rtol=0, atol=1e-12)
    theirs = through_pil(arrays, ImageOps.autocontrast)  # whole levels, rounded down
    assert ((255 * changed(x, "autocontrast", strength) - 255 * theirs).abs() < 1 + 1e-9).all()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_enhancements_are_pils(name, sign):
    """To the rounding of PIL: of the grey image or the smoothed one, half a level times |1 − factor|, and of the result
    down to a whole level."""
    arrays = pictures()
    enhancer = getattr(ImageEnhance, name.capitalize())
    theirs = through_pil(arrays, lambda i: enhancer(i).enhance(1 + sign * 0.9 * 0.7))
    ours = changed(to_tensor(arrays), name, 0.7, sign)
    assert (255 * (ours - theirs)).abs().max() < 1 + 2 * 0.63
    assert (255 * (ours - to_tensor(arrays))).abs().max() > 6


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_is_pils(name, sign):
    """PIL's own transform, given the coefficients about the centre, where all that it reads lies inside the image."""
    arrays, (height, width), amount = pictures(), (32, 28), 0.6 * sign
    a, b, d, e = {
        "rotate": (c := np.cos(np.deg2rad(30 * amount)), s := np.sin(np.deg2rad(30 * amount)), -s, c),
        "shear_x": (1, 0.3 * amount, 0, 1),
        "shear_y": (1, 0, 0.3 * amount, 1),
    }.get(name, (1, 0, 0, 1))
    right, down = 0.25 * amount * width * (name == "translate_x"), 0.25 * amount * height * (name == "translate_y")
    cx, cy = width / 2, height / 2  # PIL's pixels have their centres at halves
    coefficients = (a, b, cx - a * cx - b * cy - right, d, e, cy - d * cx - e * cy - down)

    def transform(image):
        return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)

    theirs = through_pil(arrays, transform)
    ours = changed(to_tensor(arrays), name, 0.6, sign)
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(28) + 0.5, indexing="ij")
    source_x = coefficients[0] * columns + coefficients[1] * rows + coefficients[2]
    source_y = coefficients[3] * columns + coefficients[4] * rows + coefficients[5]
    inside = (source_x > 0.5) & (source_x < width - 0.5) & (source_y > 0.5) & (source_y < height - 0.5)
    outside = (source_x < -0.5) | (source_x > width + 0.5) | (source_y < -0.5) | (source_y > height + 0.5)
    assert (255 * (ours - theirs)).abs()[..., inside].max() < 1.001  # PIL's are whole, rounded down
    assert inside.double().mean() > 0.7
    assert ours[..., outside].eq(0).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_strength_zero_changes_nothing(channels):
    x = to_tensor(pictures(channels=channels) if channels > 1 else pictures(channels=2)[..., :1])
    for name in set(OPERATIONS) - {"autocontrast", "equalize"}:
        bright = x * 0.99  # what is as bright as the threshold is inverted
        posterized = bright if name != "posterize" else (255 * bright).round() / 255
        torch.testing.assert_close(changed(bright, name, 0.0), posterized, rtol=0, atol=1e-12)


def test_each_image_has_its_own():
    x = to_tensor(pictures(n=len(OPERATIONS)))
    n = len(x)
    strength, sign = torch.linspace(0.3, 1, n).double(), torch.tensor([1.0, -1.0]).repeat(n)[:n]
    together = applied(x, Choice(torch.arange(n), strength, sign), RANGES)
    for index, name in enumerate(OPERATIONS):
        alone = changed(x[[index]], name, float(strength[index]), float(sign[index]))
        torch.testing.assert_close(together[[index]], alone, rtol=0, atol=1e-12)
        assert torch.equal(alone[0], x[index]) is (name == "identity")


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_may_be_on_any_scale(channels):
    """op(a x + b) = a op(x) + b for every image's own a > 0 and b."""
    x = torch.rand(len(OPERATIONS), channels, 20, 20, generator=torch.Generator().manual_seed(1)).double()
    scale, shift = 5 * torch.rand(len(x), 1, 1, 1).double() + 0.1, torch.randn(len(x), 1, 1, 1).double()
    what = Choice(torch.arange(len(x)), torch.full((len(x),), 0.7), torch.ones(len(x)))
    plain, other = (relative(image, lambda unit: applied(unit, what, RANGES)) for image in (x, scale * x + shift))
    torch.testing.assert_close(other, scale * plain + shift)


def test_an_image_of_one_value_stays():
    x = torch.full((len(OPERATIONS), 3, 8, 8), 0.3)
    what = Choice(torch.arange(len(x)), torch.full((len(x),), 0.7), torch.ones(len(x)))
    assert torch.equal(relative(x, lambda unit: torch.zeros_like(unit)), x)
    assert relative(x, lambda unit: applied(unit, what, RANGES)).eq(0.3).all()


def test_choices_are_uniform():
    names = ("equalize", "rotate", "solarize")
    what = choice(StepRandom(0, 0), "site", names, torch.tensor(0.5), 3000)
    counts = [int((what.operation == OPERATIONS.index(name)).sum()) for name in names]
    assert sum(counts) == 3000
    assert sum((c - 1000) ** 2 / 1000 for c in counts) < 13.8  # χ² with 2 degrees of freedom, p = 0.001
    assert what.sign.mean().abs() < 4 / 3000**0.5
    assert set(what.sign.tolist()) == {-1.0, 1.0}
    assert what.strength.shape == (3000,)
