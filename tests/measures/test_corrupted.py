"""Performance under shifts: means of what each shifted set gives, drift, and what cannot be shifted."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.data import MNIST1D, Digits, Signals
from genbench.data.stream import some
from genbench.inputs.common_corruptions import corrupt
from genbench.measures import (
    Snapshot,
    accuracy,
    brier_score,
    calibration_error,
    corrupted_performance,
    cross_entropy,
    drift_accuracy,
    generator_drift_accuracy,
    mean_corruption_error,
)
from genbench.rng import StepRandom
from tests.helpers.networks import build


def trained(data, steps=300):
    """A small network that has learnt a data set."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(data.tensors("train")[0][0].numel(), 64), nn.ReLU(), nn.Linear(64, 10))
    x, y = data.tensors("train")
    optimizer = torch.optim.Adam(net.parameters(), 0.005)
    for rows in torch.randint(len(y), (steps, 100)):
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net


@pytest.fixture(scope="module")
def signals():
    data = MNIST1D()
    return Snapshot(trained(data), F.cross_entropy, [data.tensors("test")])


@pytest.fixture(scope="module")
def digits():
    data = Digits()
    return Snapshot(trained(data), F.cross_entropy, [data.tensors("test")])


def by_hand(snapshot, shift, severity, seed=0):
    """The network on a whole test set that was shifted block by block."""
    (x, y) = snapshot.batches[0]
    moved = [corrupt(part, shift, severity, StepRandom(seed, i)) for i, part in enumerate(x.split(256))]
    return Snapshot(snapshot.model, F.cross_entropy, [(torch.cat(moved), y)])


@pytest.mark.oracle("corrupted_performance")
def test_means_over_corruptions_and_severities(signals):
    found = corrupted_performance(signals, corruptions=["blur", "gaussian_noise"], seed=3)
    whole = {
        "accuracy": accuracy,
        "cross_entropy": cross_entropy,
        "brier_score": brier_score,
        "calibration_error": calibration_error,
    }
    cells = {
        (name, severity): by_hand(signals, name, severity, seed=3)
        for name in ("blur", "gaussian_noise")
        for severity in range(1, 6)
    }
    for kind, function in whole.items():
        values = {cell: function(view).value for cell, view in cells.items()}
        mean = sum(values.values()) / 10
        assert found[f"corrupted_{kind}"].value == pytest.approx(mean, rel=1e-6)
        for severity in range(1, 6):
            mean = (values["blur", severity] + values["gaussian_noise", severity]) / 2
            assert found[f"corrupted_{kind}_{severity}"].value == pytest.approx(mean, rel=1e-6)
        if kind == "accuracy":
            for name in ("blur", "gaussian_noise"):
                mean = sum(values[name, severity] for severity in range(1, 6)) / 5
                assert found[f"corrupted_accuracy_{name}"].value == pytest.approx(mean)
    assert len(found) == 4 * 6 + 2
    assert found["corrupted_accuracy_5"].value < found["corrupted_accuracy_1"].value < accuracy(signals).value
    # the examples are the same under every corruption: their number bounds what can be known
    right = torch.stack([(view.predictions[0][0].argmax(1) == view.batches[0][1]).double() for view in cells.values()])
    assert found["corrupted_accuracy"].stderr == pytest.approx(float(right.mean(0).std()) / 1000**0.5)


@pytest.mark.parametrize("name", ["signals", "digits"])
def test_every_corruption_however_the_data_are_split(name, request):
    snapshot = request.getfixturevalue(name)
    found = corrupted_performance(snapshot)
    assert sum(key.startswith("corrupted_accuracy_") for key in found) == {"signals": 11, "digits": 15}[name] + 5
    assert all(estimate.value is not None for estimate in found.values())
    (x, y) = snapshot.batches[0]
    parts = snapshot.with_batches(list(zip(x.split(97), y.split(97), strict=True)))
    again = corrupted_performance(parts)
    assert {key: estimate.value for key, estimate in again.items()} == pytest.approx(
        {key: estimate.value for key, estimate in found.items()}, rel=1e-6
    )


def test_normalized_images_are_corrupted_as_images(digits):
    class Normalized(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = digits.model

        def forward(self, x):
            return self.net(0.25 * x + 0.3)

    (x, y) = digits.batches[0]

    def normalized(**scaling):
        return Snapshot(Normalized(), F.cross_entropy, [((x - 0.3) / 0.25, y)], **scaling)

    names = ["gaussian_noise", "fog", "jpeg_compression"]
    plain = corrupted_performance(digits, corruptions=names)
    found = corrupted_performance(normalized(scaling=([0.3], 0.25)), corruptions=names)
    assert found["corrupted_cross_entropy"].value == pytest.approx(plain["corrupted_cross_entropy"].value, rel=1e-4)
    with pytest.raises(ValueError, match=r"images lie in \[-1.2, 2.8\]; accepted: \[0, 1\]"):
        corrupted_performance(normalized())
    with pytest.raises(ValueError, match="mean has 2 numbers; accepted: one, or one for each of 1 channels"):
        corrupted_performance(normalized(scaling=([0.3, 0.3], 1)))
    with pytest.raises(ValueError, match="std is 0; accepted: more than 0"):
        corrupted_performance(normalized(scaling=(0, 0)))
    with pytest.raises(ValueError, match="corruptions has 'fogg'; did you mean 'fog'"):
        corrupted_performance(digits, corruptions=["fogg"])


def test_mean_corruption_error_by_hand():
    prefix = "test/robustness/corrupted_accuracy"
    ours = {f"{prefix}_fog": 0.7, f"{prefix}_snow": 0.9, prefix: 0.8, f"{prefix}_1": 0.99}
    theirs = {f"{prefix}_fog": 0.4, f"{prefix}_snow": 0.8, prefix: 0.6, f"{prefix}_1": 0.99}
    assert mean_corruption_error(ours, theirs) == pytest.approx((0.3 / 0.6 + 0.1 / 0.2) / 2)
    assert mean_corruption_error(theirs, theirs) == 1
    with pytest.raises(ValueError, match="have no val/robustness"):
        mean_corruption_error(ours, theirs, split="val")
    with pytest.raises(ValueError, match="_snow was measured of one network only"):
        mean_corruption_error(ours, {f"{prefix}_fog": 0.4})
    with pytest.raises(ValueError, match=r"_fog of the baseline is 1\.0; accepted: less than 1"):
        mean_corruption_error({f"{prefix}_fog": 0.4}, {f"{prefix}_fog": 1.0})


@pytest.mark.oracle("drift_accuracy")
@pytest.mark.parametrize(("name", "shift"), [("signals", "time_warp"), ("digits", "rotation")])
def test_accuracy_along_a_drift(name, shift, request):
    snapshot = request.getfixturevalue(name)
    found = drift_accuracy(snapshot, shift=shift)
    assert list(found) == [f"drift_{shift}_{k}" for k in range(6)]
    values = [estimate.value for estimate in found.values()]
    assert values[0] == accuracy(snapshot).value
    assert values[3] == accuracy(by_hand(snapshot, shift, 3)).value
    assert values[0] > values[1] > values[3] > values[5]
    assert found[f"drift_{shift}_5"].stderr == accuracy(by_hand(snapshot, shift, 5)).stderr


@pytest.mark.oracle("generator_drift_accuracy")
def test_accuracy_along_a_drift_of_the_generator(signals):
    found = generator_drift_accuracy(signals, parameter="shear", end=4.0, steps=3, examples=500, seed=1)
    assert list(found) == [f"drift_shear_{k}" for k in range(4)]
    x, y = some(Signals(shear=0.75 + 3.25 / 3), 500, seed=1, site="drift")
    assert found["drift_shear_1"].value == accuracy(signals.with_batches([(x, y)])).value
    values = [estimate.value for estimate in found.values()]
    assert abs(values[0] - accuracy(signals).value) < 4 * accuracy(signals).stderr * 2**0.5  # where training was
    assert values[0] > values[-1] + 0.1
    moved = generator_drift_accuracy(signals, parameter="translation", end=72, steps=1, examples=50)
    assert all(estimate.value is not None for estimate in moved.values())
    with pytest.raises(ValueError, match="parameter is 'slope'; accepted: scale, translation"):
        generator_drift_accuracy(signals, parameter="slope")


def test_undefined(digits):
    net, x, y = build("mlp")
    flat = Snapshot(net, F.cross_entropy, [(x, y)])
    assert "neither sequences" in corrupted_performance(flat)["corrupted_accuracy"].note
    assert "neither sequences" in drift_accuracy(flat)["drift_gaussian_noise"].note
    assert "not the signals" in generator_drift_accuracy(digits)["drift_shear"].note
    assert "time_warp is no shift of images" in drift_accuracy(digits, shift="time_warp")["drift_time_warp"].note
    regression = Snapshot(nn.Conv1d(1, 1, 1), F.mse_loss, [(torch.randn(4, 1, 8), torch.randn(4, 1, 8))])
    assert "the targets are no class labels" in corrupted_performance(regression)["corrupted_accuracy"].note
