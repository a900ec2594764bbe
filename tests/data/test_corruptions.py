"""What is done to a training set on purpose."""

import re

import pytest
import torch

from genbench.data import MNIST1D, Digits
from genbench.data.corruptions import duplicated, imbalanced
from genbench.draw import Draw


def test_asymmetric_noise_takes_each_class_for_the_next():
    clean, noisy = MNIST1D(), MNIST1D(label_noise=0.3, noise_kind="asymmetric")
    y, wrong = clean.tensors("train")[1], noisy.tensors("train")[1]
    changed = y != wrong
    assert changed.sum() == 1200
    assert torch.equal(wrong[changed], (y[changed] + 1) % 10)
    other = MNIST1D(label_noise=0.3).tensors("train")[1]
    assert not ((other != y) & ~changed).any()  # the same examples are noisy, whatever the kind
    assert torch.equal(noisy.tensors("test")[1], clean.tensors("test")[1])


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
    rows = duplicated(20_000, 0.5, Draw(0, 0))
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
        ({"noise_kind": "pair"}, "data.noise_kind is 'pair'; accepted: symmetric, asymmetric"),
        ({"imbalance": 0.5}, "data.imbalance is 0.5; accepted: a number in [1, inf)"),
        ({"duplicates": 1.0}, "data.duplicates is 1.0; accepted: a number in [0, 1)"),
        (
            {"inputs": "shuffled"},
            "data.inputs is 'shuffled'; accepted: original, shuffled_pixels, random_pixels, gaussian",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Digits(**settings)
