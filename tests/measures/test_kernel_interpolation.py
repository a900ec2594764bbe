"""Minimum-norm interpolation against other solvers, in float64, and its features against loops."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.callbacks import Measures
from genbench.measures import Snapshot, convolution_interpolation, gaussian_interpolation, kernel_interpolation
from genbench.measures.kernel_interpolation import convolution_features, minimum_norm
from tests.helpers.lightning_projects import Plain, data, fit


def problem(n, seed, dims=4, classes=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dims, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % classes


def taken(x, y, model=None):
    batches = list(zip(x.split(7), y.split(7), strict=True))
    return Snapshot(model or nn.Linear(x[0].numel(), 3).double(), F.cross_entropy, batches)


def flat(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3)).double()


@pytest.mark.oracle("gaussian_interpolation")
def test_a_gaussian_interpolant_is_that_of_kernel_regression_without_a_ridge():
    from sklearn.kernel_ridge import KernelRidge

    (x, y), (x_test, y_test) = problem(40, 0), problem(60, 1)
    found = gaussian_interpolation(taken(x_test, y_test), taken(x, y), bandwidth=0.7)
    sigma = 0.7 * np.median([np.linalg.norm(a - b) for i, a in enumerate(x.numpy()) for b in x.numpy()[:i]])
    oracle = KernelRidge(alpha=0, kernel="rbf", gamma=1 / (2 * sigma**2)).fit(x.numpy(), F.one_hot(y).double().numpy())
    share = (oracle.predict(x_test.numpy()).argmax(1) == y_test.numpy()).mean()
    assert found["gaussian_accuracy"].value == share
    assert found["gaussian_accuracy"].stderr == pytest.approx(math.sqrt(share * (1 - share) / 59))
    assert found["gaussian_train_accuracy"].value == 1
    kernel = np.exp(-((x.numpy()[:, None] - x.numpy()) ** 2).sum(-1) / (2 * sigma**2))
    norm = math.sqrt(np.trace(F.one_hot(y).numpy().T @ np.linalg.inv(kernel) @ F.one_hot(y).numpy()))
    assert found["gaussian_norm"].value == pytest.approx(norm, rel=1e-9)
    assert found["gaussian_norm"].residual < 1e-9


def test_no_other_interpolant_has_a_smaller_norm():
    """Any other is this one plus a function that vanishes on the training points, and is orthogonal to it."""
    x, y = problem(30, 2)
    targets = F.one_hot(y).double()
    whole = (-torch.cdist(x, x).square() / 2).exp()
    first, norm = minimum_norm(whole[:20, :20], targets[:20])
    assert torch.allclose(whole[:20, :20] @ first, targets[:20], atol=1e-10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):  # through other values at ten more points
        more = torch.cat([targets[:20], torch.randn(10, 3, generator=generator, dtype=torch.float64)])
        assert minimum_norm(whole, more)[1] > norm
    same = torch.cat([targets[:20], whole[20:, :20] @ first])
    assert minimum_norm(whole, same)[1] == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 12), (3, 7, 6)], ids=["sequences", "images"])
def test_convolution_features_are_means_over_windows_of_both_signs(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    settings = {"filters": 70, "size": 3, "pool": 2}  # more than are held at once
    found = torch.cat(list(convolution_features(x, seed=5, **settings)), 1)
    assert found.shape == (4, 2 * 70 * 2 ** (len(shape) - 1))
    assert not torch.equal(found, torch.cat(list(convolution_features(x, seed=6, **settings)), 1))
    parts = list(convolution_features(x, seed=5, **settings))
    up, down = (torch.cat(parts[sign::2], 1) for sign in (0, 1))
    # mean of max(0, a) less mean of max(0, -a) is the mean of a, which is linear in the inputs
    other = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    both = list(convolution_features(x + 2 * other, seed=5, **settings))
    beside = list(convolution_features(other, seed=5, **settings))
    linear = up - down + 2 * (torch.cat(beside[0::2], 1) - torch.cat(beside[1::2], 1))
    assert torch.allclose(torch.cat(both[0::2], 1) - torch.cat(both[1::2], 1), linear, atol=1e-12)
    assert (found >= 0).all()


@pytest.mark.oracle("convolution_interpolation")
def test_convolution_features_of_one_filter_by_hand():
    x = torch.tensor([[[1.0, -2.0, 3.0, 0.5, 1.0]]], dtype=torch.float64)
    up, down = convolution_features(x, filters=1, size=2, pool=2, seed=0)
    # four places; the two windows hold two each. One weight vector of norm 1 gives all four numbers
    a = torch.stack([up, down]).reshape(2, 2)
    mean = a[0] - a[1]
    pairs = torch.tensor([[(1 - 2) / 2, (-2 + 3) / 2], [(3 + 0.5) / 2, (0.5 + 1) / 2]], dtype=torch.float64)
    w = torch.linalg.solve(pairs, mean)
    assert float(w.norm()) == pytest.approx(1)
    out = torch.tensor([w[0] - 2 * w[1], -2 * w[0] + 3 * w[1], 3 * w[0] + 0.5 * w[1], 0.5 * w[0] + w[1]])
    assert torch.allclose(a[0], torch.stack([out[:2].relu().mean(), out[2:].relu().mean()]))
    assert torch.allclose(a[1], torch.stack([(-out[:2]).relu().mean(), (-out[2:]).relu().mean()]))


@pytest.mark.oracle("convolution_interpolation")
@pytest.mark.parametrize("shape", [(1, 12), (2, 6, 6)], ids=["sequences", "images"])
def test_convolution_interpolation_is_the_gaussian_one_of_its_features(shape):
    generator = torch.Generator().manual_seed(3)
    x, x_test = (torch.randn(n, *shape, generator=generator, dtype=torch.float64) for n in (30, 40))
    y, y_test = torch.arange(30) % 3, torch.arange(40) % 3
    settings = {"filters": 80, "size": 3, "pool": 2, "seed": 1}
    found = convolution_interpolation(taken(x_test, y_test, flat(shape)), taken(x, y, flat(shape)), **settings)
    a, b = (torch.cat(list(convolution_features(each, **settings)), 1) for each in (x, x_test))
    expected = gaussian_interpolation(taken(b, y_test), taken(a, y))
    for name in ("accuracy", "train_accuracy", "norm"):
        assert found[f"convolution_{name}"].value == pytest.approx(expected[f"gaussian_{name}"].value, rel=1e-7)


def test_what_cannot_be_interpolated(monkeypatch):
    x, y = problem(20, 0)
    with pytest.raises(ValueError, match="singular to rounding: inputs repeat"):
        gaussian_interpolation(taken(x, y), taken(x[[0, 1, 2, 0]], y[:4]))
    with pytest.raises(ValueError, match=r"inputs are of shape \[4\]; accepted: \[C, L\] or \[C, H, W\] of at least 9"):
        convolution_interpolation(taken(x, y), taken(x, y))
    with monkeypatch.context() as small:
        small.setattr(kernel_interpolation, "room", lambda device: 2**10)
        with pytest.raises(ValueError, match=r"the kernel of 20 training examples takes 0\.0 GiB; 0\.0 are free"):
            gaussian_interpolation(taken(x, y), taken(x, y))
    same = gaussian_interpolation(taken(x, y), taken(x[:1].expand(9, -1), y[:9]))
    assert same["gaussian_accuracy"].note == "undefined: the median distance of the training examples is zero"
    with pytest.raises(ValueError, match="bandwidth is 0; accepted"):
        gaussian_interpolation(taken(x, y), taken(x, y), bandwidth=0)


def test_a_callback_hands_it_the_train_split():
    measures = {"kernel": partial(gaussian_interpolation, bandwidth=1.0)}
    callback = Measures(measures=measures, split="test")
    fit(callbacks=[callback], max_epochs=1)
    (x, y), (x_test, y_test) = data(64, 0).tensors, data(50, 2).tensors
    expected = gaussian_interpolation(
        *(Snapshot(Plain(), F.cross_entropy, [pair]) for pair in ((x_test, y_test), (x, y))), bandwidth=1.0
    )
    for name, estimate in expected.items():
        ours = callback.results[f"test/interpolation/{name}"]
        assert ours.value == pytest.approx(estimate.value, rel=1e-6), name
    with pytest.raises(ValueError, match=r"measures\.kernel\.bandwidth is -1"):
        Measures(measures={"kernel": partial(gaussian_interpolation, bandwidth=-1)})
