"""What is done to a training set on purpose."""

import re

import numpy as np
import pytest
import torch

from genbench.data import MNIST1D, Digits
from genbench.data.corruptions import duplicated, imbalanced, replaced_labels
from genbench.rng import StepRandom
from genbench.runs import build


def test_asymmetric_noise_takes_each_class_for_the_next():
    clean, noisy = MNIST1D(), MNIST1D(label_noise=0.3, noise_kind="asymmetric")
    y, wrong = clean.tensors("train")[1], noisy.tensors("train")[1]
    changed = y != wrong
    assert changed.sum() == 1200
    assert torch.equal(wrong[changed], (y[changed] + 1) % 10)
    other = MNIST1D(label_noise=0.3).tensors("train")[1]
    assert not ((other != y) & ~changed).any()  # the same examples are noisy, whatever the kind
    assert torch.equal(noisy.tensors("test")[1], clean.tensors("test")[1])


ANNOTATOR = [[0.7 if i == j else 0.2 if j == (i + 3) % 10 else 0.1 if j == (i + 5) % 10 else 0 for j in range(10)]
             for i in range(10)]  # fmt: skip


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_labels_are_those_of_the_annotator(share):
    """How often class i was called j, against m · T_ij of the m noisy examples of class i."""
    clean, noisy = MNIST1D(), MNIST1D(label_noise=share, noise_kind=ANNOTATOR)
    y, given = clean.tensors("train")[1], noisy.tensors("train")[1]
    noisy_ones = MNIST1D(label_noise=share, noise_kind="asymmetric").tensors("train")[1] != y
    assert torch.equal(y[~noisy_ones], given[~noisy_ones])
    counts = torch.bincount(10 * y[noisy_ones] + given[noisy_ones], minlength=100).double().view(10, 10)
    expected = counts.sum(1, keepdim=True) * torch.tensor(ANNOTATOR, dtype=torch.float64)
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 45.3  # χ², 10 · 2 degrees, 0.1 %
    assert torch.equal(noisy.tensors("test")[1], clean.tensors("test")[1])


def test_an_annotator_who_never_errs_or_always_errs_alike():
    y = MNIST1D().tensors("train")[1]
    assert torch.equal(MNIST1D(label_noise=1.0, noise_kind=torch.eye(10).tolist()).tensors("train")[1], y)
    pairs = torch.eye(10).roll(1, 1).tolist()
    asymmetric = MNIST1D(label_noise=0.3, noise_kind="asymmetric").tensors("train")[1]
    assert torch.equal(MNIST1D(label_noise=0.3, noise_kind=pairs).tensors("train")[1], asymmetric)


def test_a_confusion_matrix_from_a_file_in_counts(tmp_path):
    counts = 30 * np.array(ANNOTATOR)
    np.save(tmp_path / "a.npy", counts)
    np.savetxt(tmp_path / "a.csv", counts, delimiter=",")
    found = [MNIST1D(label_noise=0.5, noise_kind=str(tmp_path / name)) for name in ("a.npy", "a.csv")]
    plain = MNIST1D(label_noise=0.5, noise_kind=ANNOTATOR)
    for data in found:
        assert torch.equal(data.tensors("train")[1], plain.tensors("train")[1])
    assert found[0].digest == found[1].digest != plain.digest  # of a file the content counts, not the name
    np.save(tmp_path / "a.npy", np.eye(10))
    assert MNIST1D(noise_kind=str(tmp_path / "a.npy")).digest != found[0].digest


def test_a_confusion_matrix_comes_through_the_configuration(configure):
    rows = str(ANNOTATOR).replace(" ", "")
    data = build.build_data(configure(f"data.noise_kind={rows}", "data.label_noise=1"))
    plain = MNIST1D(train_size=200, val_fraction=0.1, batch_size=20, label_noise=1, noise_kind=ANNOTATOR)
    assert torch.equal(data.tensors("train")[1], plain.tensors("train")[1])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("uniform", r"noise_kind is 'uniform'; accepted: symmetric, asymmetric, the rows of a confusion matrix, or a"),
        (
            [[1, 0], [0, 1]],
            r"is a matrix of shape \(2, 2\); accepted: 10 rows of 10 numbers of at least 0, none all zero",
        ),
        ([[1, 0], [0]], r"is \[\[1, 0\], \[0\]\]; accepted: 10 rows"),
        (3, r"is 3; accepted: 10 rows"),
        ([[0] * 10] * 10, r"row 0 is \[0.0, .*; accepted: 10 rows"),
        ([[2] + [-1] * 9] * 10, r"row 0 is \[2.0, -1.0"),
        ([[float("nan")] * 10] * 10, r"row 0 is \[nan"),
        ("absent.npy", r"is 'absent.npy', which cannot be read: No such file"),
        ("absent.csv", r"is 'absent.csv', which cannot be read: "),
    ],
)
def test_what_is_no_kind_of_noise_is_refused(kind, message):
    with pytest.raises(ValueError, match=message) as error:
        MNIST1D(noise_kind=kind)
    assert "\n" not in str(error.value)


def test_all_labels_noisy_are_the_random_labels_of_zhang():
    """At a share of 1 labels are independent of the classes: of each class as many of each label, and the same ones
    whatever the labels were."""
    y, random = MNIST1D().tensors("train")[1], MNIST1D(label_noise=1.0).tensors("train")[1]
    counts = torch.bincount(10 * y + random, minlength=100).double().view(10, 10)
    expected = counts.sum(1, keepdim=True) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 137.2  # χ², 10 · 9 degrees of freedom, 0.1 %
    draw = StepRandom(0, 0)
    other = replaced_labels((y + 1) % 10, "symmetric", classes=10, draw=draw)
    assert torch.equal(other, replaced_labels(y, "symmetric", classes=10, draw=draw))


@pytest.mark.parametrize("ratio", [2, 10.0])
def test_the_first_class_is_so_many_times_as_frequent_as_the_last(ratio):
    data = MNIST1D(train_size=1000, imbalance=ratio)
    x, y = data.tensors("train")
    counts = torch.bincount(y, minlength=10)
    assert counts.sum() == len(x) == 1000
    assert counts[0] / counts[9] == pytest.approx(ratio, rel=0.05)
    steps = (counts[:-1] / counts[1:]).double()
    assert steps.max() < 1.1 * ratio ** (1 / 9)  # geometric, to the rounding of counts
    assert torch.bincount(data.tensors("test")[1]).min() >= 80  # the test set stays as it is


def test_counts_of_a_long_tail_by_hand():
    y = torch.arange(3).repeat(100)
    rows = imbalanced(torch.arange(300), y, size=70, ratio=4.0, classes=3)  # shares 4/7, 2/7, 1/7
    assert torch.bincount(y[rows]).tolist() == [40, 20, 10]
    assert torch.equal(rows, rows.sort().values)  # the first of each class, in the order that was given


def test_a_long_tail_that_the_data_do_not_have_is_refused():
    with pytest.raises(ValueError, match=r"data\.imbalance is 1000.*class 9 would have 0 examples; accepted"):
        MNIST1D(train_size=500, imbalance=1000)
    with pytest.raises(ValueError, match=r"data\.imbalance is 2.*class 0 would have .* examples; accepted"):
        MNIST1D(imbalance=2)  # all 4000, and 1.4 times as many of class 0 as there are


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_duplicates_lower_the_diversity_and_not_the_size(share):
    data = MNIST1D(train_size=1000, val_fraction=0.2, duplicates=share)
    x, y = data.tensors("train")
    assert len(x) == 800
    distinct, place = x.flatten(1).unique(dim=0, return_inverse=True)
    assert len(distinct) == 800 - round(share * 800)
    labels = torch.full((len(distinct),), -1)
    labels[place] = y
    assert torch.equal(labels[place], y)  # a copy has its original's label
    val = data.tensors("val")[0]
    assert not (val.flatten(1)[:, None] == distinct[None]).all(2).any()  # nothing leaks into validation


def test_copies_are_of_every_original_alike():
    rows = duplicated(20_000, 0.5, StepRandom(0, 0))
    assert torch.equal(rows[:10_000], torch.arange(10_000))
    counts = torch.bincount(rows[10_000:], minlength=10_000).double()
    assert counts.var() == pytest.approx(1, abs=0.06)  # Poisson(1), but for the fixed sum


@pytest.mark.parametrize("kind", [MNIST1D, Digits])
def test_shuffled_pixels_are_one_permutation_for_all(kind):
    plain, shuffled = kind(), kind(inputs="shuffled_pixels")
    before, after = plain.tensors("train")[0].flatten(1), shuffled.tensors("train")[0].flatten(1)
    moved = [((after[:, [j]] == before).all(0)).nonzero().flatten().tolist() for j in range(before.shape[1])]
    assert all(moved)
    assert any(j not in found for j, found in enumerate(moved))
    (order,) = [torch.tensor([found[0] for found in moved])]
    tested = plain.tensors("test")[0].flatten(1)[:, order]
    assert torch.equal(shuffled.tensors("test")[0].flatten(1), tested)  # the test inputs by the same


@pytest.mark.parametrize("kind", [MNIST1D, Digits])
def test_shuffled_blocks_change_places_and_keep_what_is_in_them(kind):
    def blocks(data, split):
        x = data.tensors(split)[0][:, 0].numpy()
        if x.ndim == 2:
            return list(x.reshape(len(x), -1, 4).swapaxes(0, 1))
        return [x[:, i : i + 4, j : j + 4] for i in range(0, 8, 4) for j in range(0, 8, 4)]

    plain, shuffled = kind(), kind(inputs="shuffled_blocks", seed=3)
    before, after = blocks(kind(seed=3), "train"), blocks(shuffled, "train")
    order = [[(a == b).all() for b in before].index(True) for a in after]
    assert sorted(order) == list(range(len(before)))
    assert order != sorted(order)
    for a, i in zip(blocks(shuffled, "test"), order, strict=True):
        assert (a == blocks(plain, "test")[i]).all()  # the test inputs by the same


def test_random_pixels_are_a_permutation_for_each():
    plain, random = (Digits(inputs=kind).tensors("train")[0].flatten(1) for kind in ("original", "random_pixels"))
    assert torch.equal(plain.sort(1).values, random.sort(1).values)
    corner = random[:, 0]
    assert corner.std() == pytest.approx(float(plain.std()), rel=0.1)  # the empty corner is any pixel now
    assert plain[:, 0].std() == 0


def test_gaussian_inputs_have_the_moments_of_the_data_and_nothing_else():
    plain, noise = MNIST1D(), MNIST1D(inputs="gaussian")
    x, z = plain.tensors("train")[0], noise.tensors("train")[0]
    assert float(z.mean()) == pytest.approx(float(x.mean()), abs=4 * float(x.std()) / z.numel() ** 0.5)
    assert float(z.std()) == pytest.approx(float(x.std()), rel=0.02)
    assert torch.corrcoef(torch.stack([x.flatten(), z.flatten()]))[0, 1].abs() < 4 / z.numel() ** 0.5
    assert not torch.equal(noise.tensors("test")[0], noise.tensors("train")[0][:1000])
    assert torch.equal(noise.tensors("train")[1], plain.tensors("train")[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imbalance": 0.5}, "data.imbalance is 0.5; accepted: a number in [1, inf)"),
        ({"duplicates": 1.0}, "data.duplicates is 1.0; accepted: a number in [0, 1)"),
        (
            {"inputs": "shuffled"},
            "data.inputs is 'shuffled'; accepted: original, shuffled_pixels, shuffled_blocks, random_pixels, gaussian",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Digits(**settings)
