import torch

from genbench.data import Digits


def test_split_is_every_fifth_and_grey_values_are_fractions():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    data = Digits()
    x, y = data.tensors("test")
    assert torch.equal(x.flatten(1) * 16, torch.from_numpy(images[4::5]).float())
    assert torch.equal(y, torch.from_numpy(labels[4::5]).long())
    assert (len(data.tensors("train")[0]), len(x)) == (1438, 359)
    assert (data.input_shape, data.classes) == ((1, 8, 8), 10)
    assert (data.tensors("train")[0].amin(), data.tensors("train")[0].amax()) == (0, 1)
