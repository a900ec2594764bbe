"""Common corruptions against other libraries and by hand."""

import math
import random

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage

from genbench.inputs.common_corruptions import IMAGES, SEQUENCES, common_corruptions_of, corrupt
from genbench.inputs.common_corruptions.filters import plasma, sampled, smoothed, streaked
from genbench.rng import StepRandom

GENERATOR = torch.Generator().manual_seed(0)
COLOUR = torch.rand(40, 3, 32, 32, generator=GENERATOR).sqrt()
COLOUR = smoothed(COLOUR, 1.0).clamp(0, 1)  # neighbours alike, as in pictures
WAVES = torch.randn(200, 2, 40, generator=GENERATOR).cumsum(2)


def apply(x, corruption, severity, seed=0):
    moved = corrupt(x, corruption, severity, StepRandom(seed, 0))
    assert (moved.shape, moved.dtype) == (x.shape, x.dtype)
    return moved


EVERY = [(COLOUR, name) for name in IMAGES] + [(WAVES, name) for name in SEQUENCES]
EACH = pytest.mark.parametrize(("x", "corruption"), EVERY, ids=[f"{x.ndim}d-{name}" for x, name in EVERY])


@EACH
def test_every_severity_follows_from_the_seed_alone(x, corruption):
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    assert apply(x, corruption, 0) is x
    found = [apply(x, corruption, severity) for severity in range(1, 6)]
    for severity, moved in enumerate(found, 1):
        assert torch.isfinite(moved).all()
        assert not torch.equal(moved, x)
        assert torch.equal(moved, apply(x, corruption, severity))
        assert x.ndim == 3 or 0 <= moved.min() <= moved.max() <= 1
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before
    distance = [float((moved - x).square().mean().sqrt()) for moved in found]
    # of the others the constants themselves do not grow, or a quarter turn is the farthest
    if corruption not in ("glass_blur", "elastic_transform", "frost", "rotation"):
        assert sorted(distance) == pytest.approx(distance, rel=0.02)
    deterministic = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "rotation"}
    deterministic |= {"blur", "clipping", "quantization", "downsampling"}
    assert torch.equal(found[4], apply(x, corruption, 5, seed=1)) == (corruption in deterministic)


@EACH
def test_double_precision_grey_images_other_sizes_and_sequences_in_another_unit(x, corruption):
    assert apply(x[:4].double(), corruption, 5).dtype == torch.float64
    if x.ndim == 4:
        for height, width in ((28, 28), (8, 8), (20, 30)):
            small = x[:4, :1, :height, :width]
            assert torch.isfinite(apply(small, corruption, 3)).all()
    else:
        scaled = apply(1000 * x, corruption, 3)
        torch.testing.assert_close(scaled, 1000 * apply(x, corruption, 3), rtol=1e-3, atol=1e-2)


def test_there_are_fifteen_of_images_and_the_matching_ones_of_sequences():
    assert len(common_corruptions_of(COLOUR)) == 15
    assert set(IMAGES) - set(common_corruptions_of(COLOUR)) == {"rotation", "translation"}
    assert common_corruptions_of(WAVES) == tuple(SEQUENCES)


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.04), (5, 0.10)])
def test_noise_has_the_stated_deviation(severity, sigma):
    middle = torch.full((50, 3, 32, 32), 0.5)
    noise = (apply(middle, "gaussian_noise", severity) - middle).flatten()
    assert float(noise.std()) == pytest.approx(sigma, rel=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=4 * sigma / len(noise) ** 0.5)
    photons = {1: 500, 5: 50}[severity]
    shot = (apply(middle, "shot_noise", severity) - middle).flatten()
    assert float(shot.std()) == pytest.approx((0.5 / photons) ** 0.5, rel=0.01)
    salted = apply(middle, "impulse_noise", severity)
    share = {1: 0.01, 5: 0.07}[severity]
    for value in (0.0, 1.0):
        assert float((salted == value).double().mean()) == pytest.approx(share / 2, rel=0.1)


def test_blurs_against_scipy():
    image = COLOUR.double()
    # a disk of radius 1.5 is a square of three points a side, and its edge is hardly smoothed
    mean = ndimage.uniform_filter(image.numpy(), size=(1, 1, 3, 3), mode="mirror")
    np.testing.assert_allclose(apply(image, "defocus_blur", 5).numpy(), mean, atol=1e-9)
    for sigma in (0.4, 1.0, 2.3):
        bell = ndimage.gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode="nearest")
        np.testing.assert_allclose(smoothed(image, sigma).numpy(), bell, atol=1e-12)
        bell = ndimage.gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=3)
        np.testing.assert_allclose(smoothed(image, sigma, mode="symmetric", truncate=3).numpy(), bell, atol=1e-12)


@pytest.mark.parametrize("severity", range(1, 6))
def test_zoom_blur_is_that_of_the_original(severity):
    """A transcription of hendrycks/robustness, make_cifar_c.py."""

    def zoomed(image, zoom):
        crop = math.ceil(32 / zoom)
        top = (32 - crop) // 2
        larger = ndimage.zoom(image[:, top : top + crop, top : top + crop], (1, zoom, zoom), order=1)
        trim = (larger.shape[1] - 32) // 2
        return larger[:, trim : trim + 32, trim : trim + 32]

    zooms = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    images = COLOUR[:3].double()
    for image, moved in zip(images.numpy(), apply(images, "zoom_blur", severity).numpy(), strict=True):
        expected = (image + sum(zoomed(image, zoom) for zoom in zooms)) / (len(zooms) + 1)
        np.testing.assert_allclose(moved, expected, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", range(1, 6))
def test_glass_blur_is_that_of_the_original(severity, channels):
    """A transcription of make_cifar_c.py with the same random numbers: NumPy's own meaning of its swap."""
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    images = COLOUR[:5, :channels].double()
    drawn = StepRandom(0, 0).uniform("glass_blur", 5, rounds, 30, 30, 2).numpy()
    steps = np.floor(2 * drawn).astype(int) - 1  # -1 or 0
    for image, step, moved in zip(images.numpy(), steps, apply(images, "glass_blur", severity).numpy(), strict=True):
        a = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest").transpose(1, 2, 0).copy()
        a = a[..., 0] if channels == 1 else a  # as Pillow gives a grey image
        for k in range(rounds):
            for i, row in enumerate(range(31, 1, -1)):
                for j, column in enumerate(range(31, 1, -1)):
                    other, beside = row + step[k, i, j, 0], column + step[k, i, j, 1]
                    a[row, column], a[other, beside] = a[other, beside], a[row, column]
        expected = ndimage.gaussian_filter(a.reshape(32, 32, channels), (sigma, sigma, 0), mode="nearest")
        np.testing.assert_allclose(moved, expected.transpose(2, 0, 1), atol=1e-6)


def test_glass_blur_swaps_the_neighbours_of_a_grey_image_and_copies_them_in_a_coloured_one():
    image = torch.arange(32.0 * 32).view(1, 1, 32, 32) / 1024  # every point known by its value
    moved = apply(image, "glass_blur", 1)  # its bell is narrower than a point
    assert torch.equal(moved.flatten().sort().values, image.flatten())
    assert 0.5 < float((moved != image).double().mean()) < 1
    changed = (moved != image)[0, 0]
    # as in the original: points 31 to 2 swap with a neighbour that is one before them at most
    assert not changed[0].any()
    assert not changed[:, 0].any()
    assert changed[31].any()
    coloured = apply(image.expand(1, 3, 32, 32), "glass_blur", 1)
    assert torch.equal(coloured[:, :1], coloured[:, 1:2])
    assert len(coloured[:, 0].unique()) < 900  # values are lost


def test_a_streak_is_half_a_bell_in_the_direction():
    point = torch.zeros(3, 1, 33, 33, dtype=torch.float64)
    point[:, :, 16, 16] = 1
    moved = streaked(point, radius=4, sigma=2, degrees=torch.tensor([0.0, 90.0, -90.0]))
    bell = torch.exp(-(torch.arange(9.0, dtype=torch.float64) ** 2) / 8)
    bell /= bell.sum()
    expected = torch.zeros_like(point)
    expected[0, 0, 16, 8:17] = bell.flip(0)
    expected[1, 0, 8:17, 16] = bell.flip(0)
    expected[2, 0, 16:25, 16] = bell
    torch.testing.assert_close(moved, expected)


def test_weather_lies_on_the_image():
    black, grey = torch.zeros(20, 3, 32, 32), torch.full((20, 3, 32, 32), 0.5)
    snow = apply(black, "snow", 3)
    assert torch.allclose(snow[:, :1], snow[:, 1:2])  # white
    assert float((snow > 0.2).double().mean()) > 0.02
    frost = apply(grey, "frost", 5) - 0.75 * grey
    assert 0 <= frost.min() < frost.max() <= 0.45 + 1e-6
    fog = apply(COLOUR, "fog", 5)
    assert (fog.amax((1, 2, 3)) <= COLOUR.amax((1, 2, 3)) + 1e-6).all()
    assert (apply(black, "fog", 5) == 0).all()  # as the original, whose fog is as bright as the brightest point


def test_a_fractal_is_rougher_where_it_decays_slowly():
    x = torch.zeros(50, 3, 40, 24, dtype=torch.float64)
    rough, smooth = (plasma(x, decay, StepRandom(0, 0), "fog") for decay in (1.2, 3.0))
    for field in (rough, smooth):
        assert field.shape == (50, 1, 40, 24)
        assert 0 <= field.min() <= field.max() <= 1
    slope = [float(field.diff(dim=3).abs().mean()) for field in (rough, smooth)]
    assert slope[0] > 3 * slope[1]
    whole = plasma(torch.zeros(5, 1, 32, 32), 2.0, StepRandom(0, 0), "fog").flatten(1)
    assert whole.amin(1).tolist() == [0] * 5
    assert whole.amax(1).tolist() == [1] * 5


def test_light_by_hand():
    image = COLOUR.double()
    hsv = rgb_to_hsv(image.movedim(1, -1).numpy())
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.2, 0, 1)
    np.testing.assert_allclose(apply(image, "brightness", 4).movedim(1, -1).numpy(), hsv_to_rgb(hsv), atol=1e-9)
    assert torch.allclose(apply(torch.zeros(1, 3, 4, 4), "brightness", 5), torch.tensor(0.3))
    mean = image.mean((2, 3), keepdim=True)
    torch.testing.assert_close(apply(image, "contrast", 4), 0.3 * image + 0.7 * mean)


def test_interpolation_beyond_the_edge_is_scipys():
    image = COLOUR[:1, :1].double()
    at = 50 * torch.rand(1, 32, 32, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 9
    places = at[0].flip(-1).movedim(-1, 0).numpy()
    for edge, mode in ((True, "reflect"), (False, "mirror")):
        expected = ndimage.map_coordinates(image[0, 0].numpy(), places, order=1, mode=mode)
        np.testing.assert_allclose(sampled(image, at, reflect_edge=edge)[0, 0].numpy(), expected, atol=1e-9)


def test_the_mildest_elastic_transform_is_affine():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramps = torch.stack([rows, columns])[None].double() / 31
    inside = apply(ramps, "elastic_transform", 1)[:, :, 10:22, 10:22]
    for axis in (2, 3):  # a plane stays a plane
        slope = inside.diff(dim=axis)
        assert float(slope.std((2, 3)).max()) < 1e-9
        assert float((slope.abs().sum(1) * 31).mean()) == pytest.approx(1, abs=0.5)
    assert float(apply(ramps, "elastic_transform", 4)[:, :, 10:22, 10:22].diff(dim=2).std()) > 1e-3


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_pixelate_is_pillows_box_filter(severity):
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    moved = apply(COLOUR[:2], "pixelate", severity)
    for image, result in zip(COLOUR[:2].flatten(0, 1), moved.flatten(0, 1), strict=True):
        picture = Image.fromarray(image.numpy(), mode="F").resize((int(32 * share),) * 2, Image.Resampling.BOX)
        expected = np.asarray(picture.resize((32, 32), Image.Resampling.BOX))
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_jpeg_keeps_what_is_flat():
    flat = (torch.tensor([51.0, 102.0, 204.0]) / 255).view(3, 1, 1, 1).expand(3, 1, 16, 16)
    torch.testing.assert_close(apply(flat, "jpeg_compression", 5), flat, atol=2 / 255, rtol=0)


def test_rotation_is_kornias_and_translation_moves_whole_points():
    from kornia.geometry.transform import rotate

    turned = rotate(COLOUR, torch.full((40,), 45.0))
    torch.testing.assert_close(apply(COLOUR, "rotation", 3), turned, atol=1e-4, rtol=1e-4)
    point = torch.zeros(64, 1, 20, 20)
    point[:, :, 10, 10] = 1
    moved = apply(point, "translation", 5)
    places = {tuple(place) for place in moved.nonzero()[:, 2:].tolist()}
    assert places == {(5, 5), (5, 15), (15, 5), (15, 15)}
    assert float(moved.sum()) == 64


# -- sequences


def test_sequences_noise_and_amplitude_are_relative_to_the_example():
    deviation = WAVES.std((1, 2), correction=0, keepdim=True)
    noise = (apply(WAVES, "gaussian_noise", 5) - WAVES) / deviation
    assert float(noise.std()) == pytest.approx(0.6, rel=0.02)
    points = (apply(WAVES, "impulse_noise", 5) - WAVES.mean((1, 2), keepdim=True)) / deviation
    hit = apply(WAVES, "impulse_noise", 5) != WAVES
    assert float(hit.double().mean()) == pytest.approx(0.15, abs=0.01)
    assert torch.allclose(points[hit].abs(), torch.tensor(3.0), atol=1e-3)
    factor = apply(WAVES, "scale", 5) / WAVES
    for example in factor:
        assert any(torch.allclose(example, torch.tensor(value).exp(), rtol=1e-4) for value in (0.8, -0.8))
    drift = (apply(WAVES, "baseline_drift", 5) - WAVES) / deviation
    assert 0.9 < float(drift.abs().amax((1, 2)).max()) <= 1 + 1e-4
    assert float(drift.diff(dim=2).abs().max()) <= 2 * math.pi * 2 / 40 + 1e-3  # two periods at most


def test_sequences_are_moved_and_dropped_by_whole_points():
    moved = apply(WAVES, "shift", 3)
    signs = {
        k for before, after in zip(WAVES, moved, strict=True) for k in (8, -8) if torch.equal(before.roll(k, 1), after)
    }
    assert signs == {8, -8}
    held = apply(WAVES, "dropout", 4) != WAVES
    assert (held.sum(2) == 8).all()
    assert all(span.nonzero().flatten().diff().eq(1).all() for span in held[:, 0])
    assert torch.equal(held[:, 0], held[:, 1])


def test_sequences_warped_clipped_quantized_and_sampled_down():
    ramp = torch.linspace(0, 1, 40)[None, None].expand(50, 1, 40)
    warped = apply(ramp, "time_warp", 3) - ramp
    assert warped[..., [0, -1]].abs().max() < 1e-5
    assert 0.04 < float(warped.abs().max()) <= 0.06 + 1e-5
    assert (apply(ramp, "time_warp", 3).diff(dim=2) > -1e-6).all()
    clipped = apply(WAVES, "clipping", 4)
    centre, deviation = WAVES.mean((1, 2), keepdim=True), WAVES.std((1, 2), correction=0, keepdim=True)
    torch.testing.assert_close(clipped, centre + (WAVES - centre).clamp(-deviation, deviation))
    levels = apply(WAVES, "quantization", 5)
    assert all(len(example.unique()) <= 3 for example in levels.mul(1e4).round())
    assert float(((levels - WAVES).abs().amax((1, 2)) / (WAVES.amax((1, 2)) - WAVES.amin((1, 2)))).max()) <= 0.2501
    halved = apply(WAVES, "downsampling", 1)
    torch.testing.assert_close(halved, WAVES.unflatten(2, (20, 2)).mean(3).repeat_interleave(2, 2))
    smoothed = ndimage.gaussian_filter1d(WAVES.double().numpy(), 2, mode="nearest")
    np.testing.assert_allclose(apply(WAVES.double(), "blur", 4).numpy(), smoothed, atol=1e-9)


@pytest.mark.parametrize(
    ("x", "corruption", "severity", "message"),
    [
        (COLOUR, "blur", 1, "corruption of images is 'blur'; accepted: gaussian_noise, shot_noise"),
        (WAVES, "rotation", 1, "corruption of sequences is 'rotation'; accepted: gaussian_noise"),
        (COLOUR, "fog", 6, "severity is 6; accepted: an integer from 0 to 5"),
        (2 * COLOUR - 1, "fog", 1, r"images lie in \[-.*\]; accepted: \[0, 1\]"),
        (COLOUR[:, 0, 0], "fog", 1, r"corruptions: inputs are float32 of shape \(40, 32\); accepted: real sequences"),
        (torch.zeros(2, 1, 8, dtype=torch.long), "blur", 1, "corruptions: inputs are int64"),
        (torch.rand(2, 2, 8, 8), "jpeg_compression", 1, "images have 2 channels; accepted: 1 or 3"),
    ],
)
def test_bad_input(x, corruption, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(x, corruption, severity, StepRandom(0, 0))
