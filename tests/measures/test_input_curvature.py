"""Curvature around examples against dense Hessians by the input, and planted wrong labels."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.callbacks import Measures
from genbench.data import MNIST1D, Digits
from genbench.measures import Snapshot, input_curvature
from tests.helpers.networks import NETS, build, network


def smooth(n=7, seed=0):
    net = network(seed)
    generator = torch.Generator().manual_seed(seed)
    return net, torch.randn(n, 5, dtype=torch.float64, generator=generator), torch.arange(n) % 3


def hessians(net, x, y, loss=F.cross_entropy):
    """∂²ℓᵢ/∂xᵢ² [n, D, D]."""
    found = []
    for each, label in zip(x, y, strict=True):
        hessian = torch.autograd.functional.hessian(lambda v, label=label: loss(net(v[None]), label[None]), each)
        found.append(hessian.reshape(each.numel(), each.numel()))
    return torch.stack(found)


def all_signs(d):
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d)), dtype=torch.float64)


@pytest.mark.oracle("input_curvature")
def test_many_directions_give_the_mean_over_all_of_them():
    net, x, y = smooth()
    found = input_curvature(Snapshot(net, F.cross_entropy, [(x, y)]), directions=400, step=1e-5)["input_curvature"]
    scores = (hessians(net, x, y) @ all_signs(5).T).norm(dim=1)  # [n, 32]
    tolerance = 4 * float(scores.std(1).norm()) / 7 / 20
    assert found.value == pytest.approx(float(scores.mean()), abs=tolerance)
    assert found.stderr == pytest.approx(float(scores.mean(1).std()) / 7**0.5, rel=0.1)
    assert found.value <= float(hessians(net, x, y).flatten(1).norm(dim=1).mean()) * 1.02  # ‖H‖_F


@pytest.mark.oracle("input_curvature")
def test_one_number_an_input_is_exact():
    """ℓ(x) = ½(w x − y)²: the second derivative is w², at any step."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(net.weight, 3.0)
    x = torch.randn(6, 1, dtype=torch.float64)
    snapshot = Snapshot(net, lambda out, y: 0.5 * F.mse_loss(out, y), [(x, torch.zeros_like(x))])
    for step in (1e-3, 0.5):
        found = input_curvature(snapshot, directions=2, step=step)["input_curvature"]
        assert found.value == pytest.approx(9, rel=1e-9)
        assert found.stderr == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["tied", "gru", "attention"])
def test_smooth_networks_of_any_shape(name):
    """The mean of ‖Hv‖ lies between |Hv| of its least direction and √tr H²; two splits and both orders agree."""
    net, x, y = build(name, n=6)
    net.eval()
    found = input_curvature(Snapshot(net, F.cross_entropy, [(x, y)]), directions=30, step=1e-5)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        norms = hessians(net, x, y).flatten(1).norm(dim=1)
    assert 0.4 * float(norms.mean()) < found["input_curvature"].value < 1.1 * float(norms.mean())


@pytest.mark.parametrize("name", NETS)
def test_neither_batches_nor_memory_matter(name):
    net, x, y = build(name, n=11)
    whole = input_curvature(Snapshot(net, F.cross_entropy, [(x, y)]), directions=3)["input_curvature"]
    batches = list(zip(x.split(4), y.split(4), strict=True))
    split = input_curvature(Snapshot(net, F.cross_entropy, batches), directions=3)["input_curvature"]
    assert split.value == pytest.approx(whole.value, rel=1e-6)
    assert split.stderr == pytest.approx(whole.stderr, rel=1e-6)


def test_kinks_weigh_by_their_step():
    """ℓ = relu(x) summed: no curvature but the kink at 0, which a step h from x = h/2 crosses in one direction."""
    x = torch.tensor([[0.005], [5.0]], dtype=torch.float64)
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    nn.init.constant_(net[0].weight, 1.0)
    snapshot = Snapshot(net, lambda out, _: out.mean(), [(x, torch.zeros(2))])
    found = input_curvature(snapshot, step=0.01, directions=2000)["input_curvature"].value
    assert found == pytest.approx(0.5 * 0.5 * 100, rel=0.1)  # half of the examples, half of the directions, 1 / h
    assert input_curvature(snapshot, step=0.001)["input_curvature"].value == 0


def test_scaling_of_the_loss_and_of_the_inputs():
    net, x, y = smooth()
    base = input_curvature(Snapshot(net, F.cross_entropy, [(x, y)]), step=1e-4)["input_curvature"].value
    scaled = Snapshot(net, lambda out, y: 3 * F.cross_entropy(out, y), [(x, y)])
    assert input_curvature(scaled, step=1e-4)["input_curvature"].value == pytest.approx(3 * base, rel=1e-6)
    with torch.no_grad():
        net[0].weight.div_(10)
    wider = Snapshot(net, F.cross_entropy, [(10 * x, y)])
    assert input_curvature(wider, step=1e-3)["input_curvature"].value == pytest.approx(base / 100, rel=1e-6)


def test_float32_is_computed_in_float64():
    net, x, y = smooth()
    expected = input_curvature(Snapshot(net, F.cross_entropy, [(x.float().double(), y)]))["input_curvature"].value
    found = input_curvature(Snapshot(net.float(), F.cross_entropy, [(x.float(), y)]))["input_curvature"].value
    assert found == pytest.approx(expected, rel=1e-5)
    assert net[0].weight.dtype == torch.float32


# -- wrong labels


def test_planted_wrong_labels_by_hand():
    """The curvature of ½(x·w − y)⁴-like losses grows with the residual, which is largest where the label is wrong."""
    net = nn.Linear(2, 1, bias=False).double()
    nn.init.constant_(net.weight, 1.0)
    x = torch.randn(8, 2, dtype=torch.float64)
    y = x.sum(1, keepdim=True).clone()
    wrong = torch.tensor([False, True, False, False, True, False, False, True])
    y[wrong] += 3.0
    snapshot = Snapshot(net, lambda out, y: (out - y).pow(4).mean(), [(x, y)], mislabelled=wrong)
    found = input_curvature(snapshot, directions=20)["input_curvature_auroc"]
    assert found.value == 1
    assert found.note == "3 of 8 labels are wrong"
    inverse = Snapshot(net, lambda out, y: (out - y).pow(4).mean(), [(x, y)], mislabelled=~wrong)
    assert input_curvature(inverse, directions=20)["input_curvature_auroc"].value == 0
    some = input_curvature(snapshot, directions=20, examples=4)["input_curvature_auroc"]  # rows 0, 2, 4, 6
    assert some.note == "1 of 4 labels are wrong"
    assert some.value == 1


def test_without_wrong_labels_it_is_undefined():
    net, x, y = smooth()
    for mislabelled, reason in (
        (None, "undefined: the data do not say which labels are wrong"),
        (torch.zeros(7, dtype=torch.bool), "undefined: no label is wrong"),
        (torch.ones(7, dtype=torch.bool), "undefined: all labels are wrong"),
    ):
        found = input_curvature(Snapshot(net, F.cross_entropy, [(x, y)], mislabelled=mislabelled))
        assert found["input_curvature_auroc"].note == reason
        assert found["input_curvature"].value > 0
    other = Snapshot(net, F.cross_entropy, [(x, y)], mislabelled=torch.ones(7, dtype=torch.bool))
    assert other.with_batches([(x, y)]).mislabelled is None
    assert other.with_targets([y.flip(0)]).mislabelled is None
    with pytest.raises(ValueError, match="mislabelled has 3 entries; accepted: one for each of 7 examples"):
        input_curvature(Snapshot(net, F.cross_entropy, [(x, y)], mislabelled=torch.ones(3, dtype=torch.bool)))


@pytest.mark.parametrize("examples", [None, 60])
def test_a_callback_knows_the_labels_that_noise_replaced(examples):
    """Also of a random subset, whose places are not the first ones."""
    import pytorch_lightning as pl

    given = {"batch_size": 30, "train_size": 120, "val_fraction": 0.25, "duplicates": 0.2, "seed": 3}
    data, clean = Digits(label_noise=0.3, **given), Digits(**given)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    seen = []

    def reading(snapshot):
        x = torch.cat([x for x, _ in snapshot.batches]).flatten(1)
        y = torch.cat([y for _, y in snapshot.batches])
        seen.append((x, y, snapshot.mislabelled))
        return input_curvature(snapshot, directions=1)["input_curvature_auroc"]

    for split in ("train", "val"):
        callback = Measures(measures={"auroc": reading}, split=split, examples=examples)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        pl.Trainer(max_epochs=1, callbacks=[callback], enable_model_summary=False, **quiet).fit(
            Module(), datamodule=data
        )
        x, y, wrong = seen.pop()
        right = clean.tensors(split)
        truth = {tuple(row): int(label) for row, label in zip(right[0].flatten(1).tolist(), right[1], strict=True)}
        expected = [truth[tuple(row)] != int(label) for row, label in zip(x.tolist(), y, strict=True)]
        assert wrong.tolist() == expected
        assert 0 < sum(expected) < len(expected)
        assert callback.results[f"{split}/other/auroc"].value is not None


def test_what_has_no_curvature_around_examples():
    spoken = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).double()
    tokens = torch.randint(5, (6, 7))
    loss = lambda out, y: F.cross_entropy(out.movedim(2, 1), y)  # noqa: E731
    found = input_curvature(Snapshot(spoken, loss, [(tokens, tokens.roll(-1, 1))]))
    assert {e.note for e in found.values()} == {"undefined: the input has no real numbers"}
    net, x, y = smooth()
    weighted = lambda out, y: F.cross_entropy(out, y, weight=torch.tensor([1.0, 5.0, 9.0]).double())  # noqa: E731
    found = input_curvature(Snapshot(net, weighted, [(x, y)]))
    assert "undefined: the loss of a batch is not the mean of its examples' losses" in found["input_curvature"].note
    assert input_curvature(Snapshot(net, F.cross_entropy, [(x[:1], y[:1])]))["input_curvature"].stderr is None


def test_the_network_the_random_state_and_the_draws():
    net, x, y = build("conv")
    net.train()
    state, weights = torch.get_rng_state(), {k: t.clone() for k, t in net.state_dict().items()}
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    a, b, c = (input_curvature(snapshot, seed=seed)["input_curvature"].value for seed in (0, 0, 1))
    assert a == b != c
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(t, weights[k]) for k, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"step": 0}, r"step is 0; accepted: a number in \(0, inf\)"),
        ({"directions": 0}, "directions is 0; accepted: an integer of at least 1"),
        ({"examples": 0}, "examples is 0; accepted: an integer of at least 1"),
        ({"seed": -1}, "seed is -1; accepted: an integer of at least 0"),
    ],
)
def test_settings(setting, message):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=message):
        partial(input_curvature, **setting)(Snapshot(net, F.cross_entropy, [(x, y)]))


def test_it_finds_wrong_labels_of_a_network_that_still_learns():
    data, clean = (MNIST1D(train_size=500, label_noise=noise) for noise in (0.2, 0.0))
    x, y = data.tensors("train")
    wrong = data.mislabelled("train")
    assert torch.equal(wrong, y != clean.tensors("train")[1])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], mislabelled=wrong)
    found = input_curvature(snapshot, step=0.1)["input_curvature_auroc"]
    assert found.value - 3 * found.stderr > 0.5
