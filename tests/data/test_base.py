import math

import pytest
import torch

from genbench.data import MNIST1D, CharLM, Digits, ModularArithmetic, TensorData


def labels_of(data, *splits):
    return torch.cat([data.tensors(split)[1] for split in splits])


def rows(data, *splits):
    """The inputs of some splits as a set of rows."""
    return {tuple(row) for split in splits for row in data.tensors(split)[0].flatten(1).tolist()}


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2, 0.333, 1.0])
@pytest.mark.parametrize("kind", [MNIST1D, Digits])
def test_exactly_the_stated_share_of_labels_is_replaced(kind, noise, monkeypatch):
    monkeypatch.setattr(kind, "classes", 10_000_000)  # a replacement then never is the true class
    clean, noisy = (kind(train_size=1000, val_fraction=0.2, label_noise=share) for share in (0.0, noise))
    changed = labels_of(clean, "train", "val") != labels_of(noisy, "train", "val")
    assert changed.sum() == round(noise * 1000)
    if noise == 0.2:  # practitioners' validation labels are noisy too
        val = changed[800:].float().mean().item()
        assert abs(val - noise) < 4 * (noise * (1 - noise) / 200) ** 0.5


def test_replacements_are_uniform_over_all_classes():
    clean, noisy = MNIST1D(), MNIST1D(label_noise=1.0)
    y, replaced = labels_of(clean, "train"), labels_of(noisy, "train")
    counts = torch.bincount(replaced, minlength=10).double()
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # χ² with 9 degrees of freedom, 0.1 %
    assert abs((y == replaced).double().mean().item() - 0.1) < 4 * (0.09 / 4000) ** 0.5


def test_noise_is_nested_in_share_and_in_train_size():
    clean = labels_of(MNIST1D(train_size=1000), "train")
    low, high, full = (labels_of(MNIST1D(train_size=1000, label_noise=s), "train") for s in (0.1, 0.4, 1.0))
    for smaller, larger in ((low, high), (high, full)):
        changed = smaller != clean
        assert changed.any()
        assert torch.equal(smaller[changed], larger[changed])
    assert torch.equal(labels_of(MNIST1D(label_noise=1.0), "train")[:1000], full)


@pytest.mark.parametrize("kind", [MNIST1D, Digits])
def test_test_labels_stay_clean(kind):
    assert torch.equal(labels_of(kind(label_noise=1.0, seed=3), "test"), labels_of(kind(), "test"))


def test_subsets_are_nested_and_splits_disjoint():
    small, large = MNIST1D(train_size=200), MNIST1D(train_size=500)
    assert rows(small, "train") < rows(large, "train")
    held = MNIST1D(train_size=200, val_fraction=0.25)
    assert (len(held.tensors("train")[1]), len(held.tensors("val")[1])) == (150, 50)
    assert rows(held, "train", "val") == rows(small, "train")
    assert not rows(held, "train") & rows(held, "val")


def test_the_seed_decides_everything():
    settings = {"train_size": 300, "val_fraction": 0.1, "label_noise": 0.5}
    first, same, other = (MNIST1D(**settings, seed=seed) for seed in (1, 1, 2))
    for split in first.splits:
        assert all(torch.equal(a, b) for a, b in zip(first.tensors(split), same.tensors(split), strict=True))
    assert rows(first, "train") != rows(other, "train")


@pytest.mark.usefixtures("untouched")
def test_global_random_states_are_left_alone():
    data = MNIST1D(train_size=300, val_fraction=0.1, label_noise=0.5)
    for _ in data.train_dataloader():
        pass
    data.evaluation_batches("test")


def test_splits_own_their_memory():
    MNIST1D().tensors("test")[0].zero_()
    assert MNIST1D().tensors("test")[0].any()


def test_val_may_be_absent():
    data = MNIST1D()
    assert data.splits == ("train", "test")
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match="split is 'val'; accepted: train, test"):
        data.tensors("val")


def test_evaluation_batches_hold_every_example_once_in_order(monkeypatch):
    monkeypatch.setattr("genbench.data.base._EVALUATION_BATCH", 300)
    data = MNIST1D()
    x, y = zip(*data.evaluation_batches("test"), strict=True)
    assert [len(batch) for batch in x] == [300, 300, 300, 100]
    assert torch.equal(torch.cat(x), data.tensors("test")[0])
    assert torch.equal(torch.cat(y), data.tensors("test")[1])


def test_digest_is_of_the_content_and_the_name():
    class Other(TensorData):
        name, classes = "other", 10
        load = staticmethod(MNIST1D.load)

    assert MNIST1D().digest == MNIST1D(train_size=10, batch_size=1, seed=9).digest
    assert len({MNIST1D().digest, Digits().digest, Other().digest}) == 3
    assert len(MNIST1D().digest) == 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_size": -5}, "train_size is -5; accepted: .* from 1 to 4000 .mnist1d has 4000 training examples"),
        ({"train_size": 0}, "train_size is 0"),
        ({"train_size": 4001}, "train_size is 4001"),
        ({"train_size": 10.0}, "train_size is 10.0"),
        ({"train_size": "all"}, "train_size is 'all'"),
        ({"train_size": True}, "train_size is True"),
        ({"val_fraction": 1.0}, r"val_fraction is 1.0; accepted: a number in \[0, 1\)"),
        ({"val_fraction": -0.1}, "val_fraction is -0.1"),
        ({"val_fraction": float("nan")}, "val_fraction is nan"),
        ({"val_fraction": "half"}, "val_fraction is 'half'"),
        ({"train_size": 1, "val_fraction": 0.9, "batch_size": 1}, "no training example is left"),
        ({"train_size": 2, "val_fraction": 0.1, "batch_size": 1}, "no validation example is left"),
        ({"label_noise": 1.1}, r"label_noise is 1.1; accepted: a number in \[0, 1\]"),
        ({"label_noise": -0.1}, "label_noise is -0.1"),
        ({"label_noise": float("nan")}, "label_noise is nan"),
        ({"label_noise": False}, "label_noise is False"),
        ({"seed": -1}, "seed is -1; accepted: an integer of at least 0"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 81, "train_size": 100, "val_fraction": 0.2}, "batch_size is 81; .* from 1 to 80 .80 examples"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        MNIST1D(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Digits, {"duplicates": 0.3, "imbalance": 2.0, "noise_kind": "asymmetric"}),
        (MNIST1D, {"inputs": "random_pixels"}),
        (ModularArithmetic, {}),
        (CharLM, {"targets": "all"}),
    ],
)
def test_mislabelled_examples_are_those_whose_label_noise_changed(kind, settings):
    given = {"train_size": 300, "val_fraction": 0.2, "seed": 1, **settings}
    noisy, clean = kind(label_noise=0.4, **given), kind(**given)
    for split in noisy.splits:
        changed = noisy.tensors(split)[1] != clean.tensors(split)[1]
        assert torch.equal(noisy.mislabelled(split), changed.reshape(len(changed), -1).any(1))
        assert not clean.mislabelled(split).any()
        assert noisy.mislabelled(split).any() == (split != "test")
    with pytest.raises(ValueError, match="split is 'nosuch'"):
        noisy.mislabelled("nosuch")


def test_relabelled_examples_may_keep_the_true_label():
    data = MNIST1D(train_size=2000, val_fraction=0.25, label_noise=0.4)
    marks = {split: (data.relabelled(split), data.mislabelled(split)) for split in data.splits}
    assert sum(int(drawn.sum()) for drawn, _ in marks.values()) == 800
    assert not any((wrong & ~drawn).any() for drawn, wrong in marks.values())
    kept = sum(int((drawn & ~wrong).sum()) for drawn, wrong in marks.values())
    assert kept == pytest.approx(80, abs=4 * math.sqrt(800 * 0.09))  # one of ten labels is the true one
    assert not data.relabelled("test").any()
