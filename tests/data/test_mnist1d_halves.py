import torch

from genbench.data import MNIST1DHalves, MNIST1DStream


def test_classes_are_the_halves_of_the_digits():
    settings = {"train_size": 60, "test_size": 40, "batch_size": 20, "fresh": False, "seed": 3}
    halves, digits = MNIST1DHalves(**settings), MNIST1DStream(**settings)
    for split in ("train", "test"):
        (x, y), (same, digit) = halves.tensors(split), digits.tensors(split)
        assert torch.equal(x, same)
        assert torch.equal(y, (digit > 4).long())
        assert {*digit.tolist()} == set(range(10))


def test_random_labels_are_of_two_classes():
    data = MNIST1DHalves(train_size=10_000, test_size=10, fresh=False, label_noise=1.0)
    wrong = float(data.mislabelled("train").double().mean())
    assert abs(wrong - 1 / 2) < 4 * (0.25 / 10_000) ** 0.5
