"""The symmetric rule, and the reading of the authors' file."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.special import sph_harm_y

from genbench.data.information_plane import InformationPlane, icosahedron, power_spectrum


def table(data):
    return {
        tuple(x): y
        for split in ("train", "test")
        for x, y in zip(data.tensors(split)[0][:, 0].int().tolist(), data.tensors(split)[1].tolist(), strict=True)
    }


def test_all_patterns_are_there_and_the_label_has_almost_a_bit():
    data = InformationPlane()
    found = table(data)
    assert found.keys() == set(product((0, 1), repeat=12))
    assert [len(data.tensors(split)[1]) for split in ("train", "test")] == [3277, 819]
    assert sum(found.values()) == 2070
    p = 2070 / 4096
    assert -p * math.log2(p) - (1 - p) * math.log2(1 - p) == pytest.approx(0.99992, abs=5e-6)


def test_no_rotation_or_reflection_of_the_sphere_changes_the_label():
    """All 120 that carry the points into each other, found as the permutations that keep their angles."""
    points = icosahedron()
    assert np.linalg.norm(points, axis=1) == pytest.approx(1)
    angles = (points @ points.T).round(9)

    def extended(order):
        if len(order) == 12:
            yield order
        else:
            at = len(order)
            for i in set(range(12)) - set(order):
                if (angles[i, order] == angles[at, :at]).all():
                    yield from extended([*order, i])

    symmetries = list(extended([]))
    assert len(symmetries) == 120
    found = table(InformationPlane())
    patterns = np.array(list(found))
    labels = np.array(list(found.values()))
    for order in symmetries:
        assert [found[tuple(x)] for x in patterns[:, order].tolist()] == labels.tolist()


def test_the_power_spectrum_is_that_of_the_spherical_harmonics():
    points = icosahedron()
    x = np.random.default_rng(0).integers(0, 2, (20, 12)).astype(float)
    polar, azimuth = np.arccos(points[:, 2]), np.arctan2(points[:, 1], points[:, 0])
    for degree in range(8):
        each = [np.abs(x @ sph_harm_y(degree, m, polar, azimuth)) ** 2 for m in range(-degree, degree + 1)]
        np.testing.assert_allclose(power_spectrum(x, points)[:, degree], sum(each), atol=1e-10)


def test_the_authors_file_is_read(tmp_path):
    """A file of the same layout, made here."""
    x = np.array(list(product((0, 1), repeat=12)), dtype=np.uint8)
    y = (x.sum(1) % 3 == 0).astype(np.uint8)
    savemat(tmp_path / "var_u.mat", {"F": x, "y": y[None]})
    data = InformationPlane(path=str(tmp_path / "var_u.mat"), train_fraction=0.3)
    assert table(data) == {tuple(row): int(label) for row, label in zip(x.tolist(), y, strict=True)}
    assert len(data.tensors("train")[1]) == round(0.3 * 4096)
    assert data.digest != InformationPlane(train_fraction=0.3).digest
    assert torch.equal(data.tensors("train")[0], InformationPlane(train_fraction=0.3).tensors("train")[0])


@pytest.mark.parametrize("damage", ["absent", "text", "other", "shape"])
def test_a_file_that_is_not_theirs_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "var_u.mat"
    if damage == "text":
        path.write_text("no matrix " * 50)
    elif damage == "other":
        savemat(path, {"x": np.zeros(3)})
    elif damage == "shape":
        savemat(path, {"F": np.zeros((10, 12)), "y": np.zeros(10)})
    message = {"absent": "cannot be read", "shape": r"with F \(10, 12\) and 10 labels; accepted"}
    with pytest.raises(ValueError, match=message.get(damage, "accepted: a .mat file with arrays F and y")) as error:
        InformationPlane(path=str(path))
    assert "\n" not in str(error.value)
