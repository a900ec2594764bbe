"""The parity of MNIST-1D: the signals of the ten classes, and two classes."""

import torch

from genbench.data import MNIST1DParity, MNIST1DStream, Signals

SHIFTED = Signals(shear=3.0)


def test_classes_are_the_parities_of_the_digits():
    settings = {"train_size": 60, "test_size": 40, "batch_size": 20, "fresh": False, "test_signals": SHIFTED, "seed": 3}
    parity, digits = MNIST1DParity(**settings), MNIST1DStream(**settings)
    for split in ("train", "test"):
        (x, y), (same, digit) = parity.tensors(split), digits.tensors(split)
        assert torch.equal(x, same)
        assert torch.equal(y, digit % 2)
        assert digit.max() > 1


def test_the_train_signals_may_be_others():
    settings = {"train_size": 60, "test_size": 40, "batch_size": 20, "fresh": False}
    plain, shifted = MNIST1DParity(**settings), MNIST1DParity(**settings, signals=SHIFTED)
    assert not torch.equal(plain.tensors("train")[0], shifted.tensors("train")[0])


def test_random_labels_are_of_two_classes():
    data = MNIST1DParity(train_size=10_000, test_size=10, fresh=False, label_noise=1.0)
    wrong = float(data.mislabelled("train").double().mean())
    assert abs(wrong - 1 / 2) < 4 * (0.25 / 10_000) ** 0.5
