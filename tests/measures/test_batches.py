"""Batches over a loader that draws random numbers where no seed is found: the same data each time, or one line."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import genbench.measures.batches as module
from genbench.measures import Snapshot, gradient_norm, sam_sharpness

CE = F.cross_entropy
GLOBAL = np.random.default_rng(5)


class Augment:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __call__(self, x):
        return x + self.rng.standard_normal()


class Hidden(TensorDataset):
    """``kind`` says where the generator of the augmentation is."""

    def __init__(self, kind, *tensors):
        super().__init__(*tensors)
        rng = np.random.default_rng(2)
        self.kind, self.steps = kind, {"augment": [Augment()]}
        self.closure = lambda x: x + rng.standard_normal()

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        if self.kind == "nested":
            x = self.steps["augment"][0](x)
        elif self.kind == "closure":
            x = self.closure(x)
        elif self.kind == "global":
            x = x + GLOBAL.standard_normal()
        elif self.kind == "unseeded":
            x = x + np.random.default_rng().standard_normal()
        elif self.kind == "worker":
            x = x + torch.randn(())
        return x, y


def loader(kind, **settings) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 6, generator=generator).double(), torch.randint(3, (24,), generator=generator)
    return DataLoader(Hidden(kind, x, y), batch_size=8, **settings)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3).double()


def states(data: Hidden) -> list:
    hidden = data.closure.__closure__[0].cell_contents
    return [g.bit_generator.state for g in (data.steps["augment"][0].rng, hidden, GLOBAL)]


WORKERS = {"num_workers": 1, "persistent_workers": True}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["nested", "closure", "global", "worker"])
def test_hidden_generators_and_workers_that_live_on_give_the_same_data_at_every_pass(monkeypatch, kind, large):
    if large:
        monkeypatch.setattr(module, "room", lambda _device: 0)  # nothing is kept
    batches = loader(kind, **(WORKERS if kind == "worker" else {}))
    before = states(batches.dataset)
    snapshot = Snapshot(net(), CE, batches)
    seen = [(x, y) for x, y in snapshot.blocks(24)]
    exact = Snapshot(snapshot.model, CE, seen)
    for _ in range(2):
        assert snapshot.loss_at(snapshot.vector) == pytest.approx(exact.mean_loss, rel=1e-12)
        assert gradient_norm(snapshot).value == pytest.approx(gradient_norm(exact).value, rel=1e-12)
    assert snapshot.mean_loss == pytest.approx(exact.mean_loss, rel=1e-12)
    assert states(batches.dataset) == before


def test_what_no_seed_repeats_is_kept_from_the_first_pass():
    snapshot = Snapshot(net(), CE, loader("unseeded"))
    (seen,) = snapshot.blocks(24)
    exact = Snapshot(snapshot.model, CE, [seen])
    assert sam_sharpness(snapshot).value == pytest.approx(sam_sharpness(exact).value, rel=1e-9)
    assert snapshot.mean_loss == pytest.approx(exact.mean_loss, rel=1e-12)


@pytest.mark.parametrize("change", ["data", "length"])
def test_what_no_seed_repeats_and_no_memory_holds_is_one_line(monkeypatch, change):
    monkeypatch.setattr(module, "room", lambda _device: 0)
    batches = loader("unseeded" if change == "data" else "none")
    snapshot = Snapshot(net(), CE, batches)
    assert snapshot.mean_loss > 0
    if change == "length":
        batches.dataset.tensors = tuple(t[:16] for t in batches.dataset.tensors)
        vars(batches)["sampler"].data_source = batches.dataset
    with pytest.raises(ValueError, match=r"batches differ from pass to pass \(batch [02]\): .* accepted: ") as caught:
        snapshot.loss_at(snapshot.vector)
    assert "\n" not in str(caught.value)


class Reusing:
    """One buffer serves all batches."""

    def __init__(self, x, y):
        self.x, self.y, self.buffer = x, y, torch.empty_like(x[:8])

    def __iter__(self):
        for x, y in zip(self.x.split(8), self.y.split(8), strict=True):
            yield self.buffer.copy_(x), y


@pytest.mark.parametrize("once", [False, True])
def test_loaders_that_reuse_one_buffer(once):
    x, y = loader("none").dataset.tensors
    exact, model = list(zip(x.split(8), y.split(8), strict=True)), net()
    expected = Snapshot(model, CE, exact)
    batches = Reusing(x, y)
    found = Snapshot(model, CE, iter(batches) if once else batches)
    assert found.mean_loss == pytest.approx(expected.mean_loss, rel=1e-12)
    for function in (gradient_norm, sam_sharpness):
        assert function(found).value == pytest.approx(function(expected).value, rel=1e-12)
    torch.testing.assert_close(list(found.blocks(20)), list(expected.blocks(20)))
    parts = [s.subsets([torch.tensor([0, 9, 17]), torch.arange(24)]) for s in (found, expected)]
    for a, b in zip(*parts, strict=True):
        assert a.mean_loss == pytest.approx(b.mean_loss, rel=1e-12)


def test_a_loader_is_read_once_where_its_batches_are_few():
    reads = []

    class Counting(TensorDataset):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    x, y = loader("none").dataset.tensors
    snapshot = Snapshot(net(), CE, DataLoader(Counting(x, y), batch_size=8))
    for _ in range(3):
        snapshot.loss_at(2 * snapshot.vector)
        gradient_norm(snapshot)
    assert len(reads) <= 24 + 16  # a batch or two to see how the network treats examples


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.bool, torch.complex64])
def test_batches_of_any_type_are_compared(monkeypatch, dtype):
    monkeypatch.setattr(module, "room", lambda _device: 0)
    x = (torch.randn(8, 3) > 0).float()
    batches = [x.to(dtype), (1 - x).to(dtype)]
    passes = module.Batches(Given(batches))
    for _ in range(2):
        assert all(torch.equal(a.float(), b.float()) for a, b in zip(passes, batches, strict=True))
    batches.reverse()
    with pytest.raises(ValueError, match="differ from pass to pass"):
        list(passes)


class Stream(IterableDataset):
    """Other noise in every epoch."""

    def __init__(self, x, y):
        self.x, self.y, self.epoch = x, y, 0

    def __iter__(self):
        self.epoch += 1
        generator = torch.Generator().manual_seed(self.epoch)
        for x, y in zip(self.x, self.y, strict=True):
            yield x + torch.randn(6, generator=generator).double(), y


def test_a_stream_is_that_of_its_first_pass():
    x, y = loader("none").dataset.tensors
    snapshot = Snapshot(net(), CE, DataLoader(Stream(x, y), batch_size=8))
    assert snapshot.loss_at(snapshot.vector) == pytest.approx(snapshot.mean_loss, rel=1e-12)
    (seen,) = snapshot.blocks(24)
    exact = Snapshot(snapshot.model, CE, [seen])
    assert snapshot.mean_loss == pytest.approx(exact.mean_loss, rel=1e-12)
    assert sam_sharpness(snapshot).value == pytest.approx(sam_sharpness(exact).value, rel=1e-9)


class Given:
    """No sequence, as a loader is none."""

    def __init__(self, batches):
        self.batches, self.rng = batches, random.SystemRandom()

    def __iter__(self):
        return iter(self.batches)


class Record:
    """A batch of its own kind, as those of graphs are."""

    def __init__(self, x, y):
        self.x, self.y = x, y


@pytest.mark.parametrize("kind", ["array", "record"])
def test_one_buffer_of_arrays_or_of_an_object(kind):
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 3), torch.randn(30, 4), torch.randint(3, (30,))

    class Reused:
        def __iter__(self):
            held = Record(torch.zeros(10, 4), torch.zeros(10, dtype=torch.long))
            arrays = {"x": held.x.numpy(), "y": held.y.numpy()}
            for start in range(0, 30, 10):
                held.x.copy_(x[start : start + 10])
                held.y.copy_(y[start : start + 10])
                yield arrays if kind == "array" else held

    def forward(model, batch):
        if kind == "array":
            batch = Record(torch.from_numpy(batch["x"]), torch.from_numpy(batch["y"]))
        return model(batch.x), batch.y

    snapshot = Snapshot(net, CE, Reused(), forward=forward)
    whole = Snapshot(net, CE, [(x, y)])
    assert snapshot.mean_loss == pytest.approx(whole.mean_loss, rel=1e-6)
    assert gradient_norm(snapshot).value == pytest.approx(gradient_norm(whole).value, rel=1e-5)


def test_arrays_that_differ_from_pass_to_pass_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_budget", lambda batch: 0)  # too large to be kept

    class Fresh:
        def __iter__(self):
            for _ in range(3):
                yield {"x": np.random.default_rng().standard_normal((10, 4), dtype=np.float32)}

    snapshot = Snapshot(
        nn.Linear(4, 1),
        lambda output, target: output.square().mean(),
        Fresh(),
        forward=lambda m, b: (m(torch.from_numpy(b["x"])), None),
    )
    with pytest.raises(ValueError, match="differ from pass to pass"):
        gradient_norm(snapshot)
