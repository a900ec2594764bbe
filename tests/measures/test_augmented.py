"""Margins and changes of outputs under augmentations: values by hand, errors, invariances, and what has none."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from genbench.inputs.augmentation import augmented
from genbench.measures import Snapshot, augmentation_change, augmented_margin
from genbench.measures.augmented import AUGMENTATION, _quantiles
from genbench.rng import StepRandom, derive_seed
from tests.helpers.networks import build

CONF = Path(__file__).parents[2] / "conf"


def signals(n=700, classes=4, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randn(n, 1, 40) + 2 * torch.randn(classes, 1, 40)[y]
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 12), nn.ReLU(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, classes))
    return net.to(dtype), x.to(dtype), y


def moved(x, version, strength=1.0, seed=0):
    settings = {name: strength * value for name, value in AUGMENTATION.items()}
    key = derive_seed(seed, "augmentation", version)
    return torch.cat([augmented(part, StepRandom(key, i), **settings) for i, part in enumerate(x.split(1024))])


def test_the_settings_are_those_of_training():
    node = yaml.safe_load((CONF / "regularization" / "augmentation.yaml").read_text())["augmentation"]
    assert {name: value for name, value in node.items() if name != "_target_"} == AUGMENTATION


@pytest.mark.oracle("augmented_margin")
def test_a_linear_network_after_its_first_layer_has_exact_distances():
    net, x, y = signals()
    net = nn.Sequential(*list(net)[:3], nn.Linear(12, 4).double())
    expected = []
    for version in range(3):
        h = net[:3](moved(x, version, seed=5)).detach()
        z, w = (h @ net[3].weight.T + net[3].bias).detach(), net[3].weight.detach()
        distances = []
        for row, label in zip(z, y.tolist(), strict=True):
            other = max((k for k in range(4) if k != label), key=lambda k: float(row[k]))
            distances.append(float(row[label] - row[other]) / float((w[label] - w[other]).norm()))
        variances = np.sort(h.var(0, correction=0).numpy())  # of 12 features none is cut
        expected.append(np.mean(_quantiles(torch.tensor(distances, dtype=torch.float64) / np.sqrt(variances.mean()))))
    found = augmented_margin(Snapshot(net, F.cross_entropy, [(x, y)]), versions=3, seed=5)
    assert found.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert found.stderr == pytest.approx(np.std(expected, ddof=1) / 3**0.5, rel=1e-6)


def test_fences_are_those_of_the_contests_code():
    plain = torch.arange(101, dtype=torch.float64)
    assert _quantiles(plain) == [0, 25, 50, 75, 100]
    far = torch.cat([plain, torch.tensor([-60.0, -80, 190, 170], dtype=torch.float64)])
    low, q1, q2, q3, high = _quantiles(far)
    assert (low, high) == (-60, 170)  # the nearest to the quartiles of those beyond the fences
    assert [q1, q2, q3] == np.quantile(far.numpy(), (0.25, 0.5, 0.75)).tolist()


def test_rescaled_or_permuted_layers_and_other_batches_keep_the_margin():
    net, x, y = signals()
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    known = augmented_margin(snapshot, versions=2)
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(33), y.split(33), strict=True)))
    again = augmented_margin(parts, versions=2)
    assert (again.value, again.stderr) == pytest.approx((known.value, known.stderr), rel=1e-9)
    order = torch.randperm(12)
    with torch.no_grad():
        net[1].weight.copy_(7 * net[1].weight[order])
        net[1].bias.copy_(7 * net[1].bias[order])
        net[3].weight.copy_(net[3].weight[:, order] / 7)
    assert augmented_margin(Snapshot(net, F.cross_entropy, [(x, y)]), versions=2).value == pytest.approx(
        known.value, rel=1e-9
    )
    assert augmented_margin(snapshot, versions=2, layer="3").value == pytest.approx(known.value)
    deeper = augmented_margin(snapshot, versions=2, layer="5").value
    assert deeper != pytest.approx(known.value, rel=1e-3)
    with pytest.raises(ValueError, match=r"^layer is '1'; accepted: 3, 5$"):
        augmented_margin(snapshot, layer="1")


def test_some_examples_and_images():
    net, x, y = signals()
    few = augmented_margin(Snapshot(net, F.cross_entropy, [(x, y)]), versions=2, examples=70)
    rows = torch.arange(70) * 10
    whole = augmented_margin(Snapshot(net, F.cross_entropy, [(x[rows], y[rows])]), versions=2)
    assert few.value == pytest.approx(whole.value, rel=1e-9)
    torch.manual_seed(0)
    images = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3)).double()
    x, y = torch.rand(30, 1, 8, 8).double(), torch.arange(30) % 3
    found = augmented_margin(Snapshot(images, F.cross_entropy, [(x, y)]), versions=2)
    assert found.stderr > 0


@pytest.mark.oracle("augmentation_change")
def test_changes_of_the_output_by_hand():
    net, x, y = signals()
    p = net(x).detach().softmax(1)
    change, flips = torch.zeros(700).double(), torch.zeros(700).double()
    for version in range(3):
        q = net(moved(x, version, strength=2.0, seed=1)).detach().softmax(1)
        same = q.argmax(1) == p.argmax(1)
        change += torch.where(same, (q.amax(1) - p.amax(1)).abs(), 1.0) / 3
        flips += (~same).double() / 3
    parts = list(zip(x.split(100), y.split(100), strict=True))
    found = augmentation_change(Snapshot(net, F.cross_entropy, parts), strength=2.0, versions=3, seed=1)
    for name, each in (("augmentation_change", change), ("augmentation_flips", flips)):
        assert found[name].value == pytest.approx(float(each.mean()), rel=1e-12)
        assert found[name].stderr == pytest.approx(float(each.std()) / 700**0.5, rel=1e-9)
    still = augmentation_change(Snapshot(net, F.cross_entropy, parts), strength=0.0, versions=2)
    assert [e.value for e in still.values()] == [pytest.approx(0, abs=1e-12), 0]


def test_the_errors_are_the_spreads():
    net, x, y = signals(n=300)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    found = [augmented_margin(snapshot, versions=4, seed=seed) for seed in range(30)]
    spread = np.std([e.value for e in found], ddof=1)
    assert np.sqrt(np.mean([e.stderr**2 for e in found])) == pytest.approx(spread, rel=0.4)
    changes = []
    for k in range(30):  # of examples, not of seeds
        xs, ys = x[torch.randperm(300)[:60]], y[:60]
        changes.append(augmentation_change(Snapshot(net, F.cross_entropy, [(xs, ys)]), seed=k)["augmentation_change"])
    spread = np.std([e.value for e in changes], ddof=1)
    assert np.sqrt(np.mean([e.stderr**2 for e in changes])) == pytest.approx(spread, rel=0.4)


def test_undefined():
    net, x, y = build("mlp")
    flat = Snapshot(net, F.cross_entropy, [(x, y)])
    for found in (augmented_margin(flat), augmentation_change(flat)["augmentation_flips"]):
        assert found.value is None
        assert found.note.startswith("undefined: inputs are neither sequences [B, C, L] nor images [B, C, H, W]")
    net, x, y = signals(n=40, dtype=torch.float32)
    dicts = Snapshot(net, F.cross_entropy, [{"x": x, "y": y}], forward=lambda m, b: (2 * m(b["x"]), b["y"]))
    assert "batches are of another form" in augmented_margin(dicts).note
    assert "batches are of another form" in augmentation_change(dicts)["augmentation_change"].note
    regression = Snapshot(nn.Conv1d(1, 1, 1), F.mse_loss, [(x, x)])
    assert "no class labels" in augmented_margin(regression).note
    assert "no class labels" in augmentation_change(regression)["augmentation_change"].note
    linear = Snapshot(nn.Sequential(nn.Flatten(), nn.Linear(40, 4)), F.cross_entropy, [(x, y)])
    assert augmented_margin(linear).note == "undefined: the network has no hidden layer"
    with torch.no_grad():
        net[3].weight.zero_()
    note = augmented_margin(Snapshot(net, F.cross_entropy, [(x, y)])).note
    assert "do not depend on what 3 is given, of 40 of 40" in note
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(1)
    assert "is the same for all examples" in augmented_margin(Snapshot(net, F.cross_entropy, [(x, y)])).note
    for setting, wrong in (("versions", 1), ("strength", -1), ("seed", -1), ("examples", 1), ("layer", 3)):
        with pytest.raises(ValueError, match=f"^{setting} is"):
            augmented_margin(flat, **{setting: wrong})
