"""Which examples callbacks measure on, for any data that a Trainer accepts."""

import itertools
import random
from collections import UserDict

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from genbench.callbacks import Gap, Measures, Optimization, Stop
from genbench.callbacks.splits import Splits, _Limited, take
from genbench.data.images import Parts
from genbench.measures import Estimate, Snapshot
from tests.helpers.lightning_projects import Plain, data, fit, trainer


class Numbers(Dataset):
    """An example's input is its number, with noise from every global generator as augmentation."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, random.random() + float(np.random.rand()) + float(torch.rand(()))


def numbers(batches) -> list[int]:
    return [int(number) for batch in batches for number in batch[0]]


class Stream(IterableDataset):
    def __init__(self, n: int | None = None) -> None:
        self.n = n

    def __iter__(self):
        g = torch.Generator().manual_seed(0)
        for i in itertools.count():
            if i == self.n:
                return
            if i >= 5000:
                raise EOFError("the stream that stands for an endless one")
            x = torch.randn(4, generator=g)
            yield x, (x[0] > 0).long() + (x[1] > 0).long()


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_random_subset_by_seed_the_same_at_every_call_with_the_loaders_own_collation(shuffle):
    def collate(rows):
        return torch.tensor([number for number, _ in rows]), torch.tensor([noise for _, noise in rows]), "mine"

    loader = DataLoader(Numbers(1000), batch_size=30, shuffle=shuffle, collate_fn=collate)
    torch.manual_seed(5)
    first = take([loader], 100)
    torch.manual_seed(6)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    second = take([loader], 100)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert [len(batch[0]) for batch in first.batches] == [30, 30, 30, 10]
    assert all(batch[2] == "mine" for batch in first.batches)
    for a, b in zip(first.batches, second.batches, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])  # augmented alike
    chosen = numbers(first.batches)
    assert len(set(chosen)) == 100
    assert max(chosen) > 900
    assert min(chosen) < 100  # of all
    assert first.note is None
    assert chosen != numbers(take([loader], 100, seed=1).batches)
    again = DataLoader(Numbers(1000), batch_size=30, shuffle=not shuffle, collate_fn=collate)
    assert numbers(take([again], 100).batches) == chosen  # the choice does not depend on how the loader shuffles


def test_all_where_there_are_no_more():
    assert numbers(take([DataLoader(Numbers(7), batch_size=3, shuffle=True)], 100).batches) == list(range(7))
    found = take([DataLoader(Stream(7), batch_size=3)], 100)
    assert sum(len(y) for _, y in found.batches) == 7
    assert found.note is None


def test_a_sampler_says_what_belongs_to_a_split():
    """Two loaders over one data set that differ only in their samplers, a common way to split it."""
    held_out = set(range(0, 100, 3))
    train = DataLoader(Numbers(100), batch_size=8, sampler=SubsetRandomSampler(sorted(set(range(100)) - held_out)))
    assert not held_out & set(numbers(take([train], 50).batches))
    own = torch.Generator().manual_seed(3)
    weights = torch.zeros(100)
    weights[10:20] = 1
    drawn = DataLoader(Numbers(100), batch_size=8, sampler=WeightedRandomSampler(weights, 40, generator=own))
    state = own.get_state()
    first = numbers(take([drawn], 20).batches)
    assert set(first) <= set(range(10, 20))
    assert torch.equal(own.get_state(), state)
    own.manual_seed(9)
    assert numbers(take([drawn], 20).batches) == first
    grouped = DataLoader(Numbers(100), batch_sampler=BatchSampler(range(40, 60), 6, drop_last=False))
    found = take([grouped], 15)
    assert set(numbers(found.batches)) <= set(range(40, 60))
    assert [len(batch[0]) for batch in found.batches] == [6, 6, 3]


def test_several_loaders_are_one_set():
    a, b = DataLoader(Numbers(300), batch_size=50), DataLoader(Numbers(100), batch_size=10)
    found = take([a, b], 80)
    assert sum(len(batch[0]) for batch in found.batches) == 80
    of_b = sum(len(batch[0]) for batch in found.batches if len(batch[0]) <= 10)
    assert 10 < of_b < 32  # 20 are expected


def test_batches_that_are_there_already():
    x = torch.arange(1000)
    batches = list(zip(x.split(300), x.split(300), strict=True))
    found = take([batches], 400)
    assert [len(y) for _, y in found.batches] == [300, 100]
    assert len(set(numbers(found.batches))) == 400
    assert max(numbers(found.batches)) > 900
    assert all(torch.equal(x, y) for x, y in found.batches)
    ragged = [{"x": torch.zeros(4, 2), "y": torch.arange(4)}, {"x": torch.zeros(3, 5), "y": torch.arange(4, 7)}]
    taken = take([ragged], 5).batches
    assert all(len(batch["x"]) == len(batch["y"]) for batch in taken)
    assert len(torch.cat([batch["y"] for batch in taken]).unique()) == 5


def test_images_are_read_where_they_are_chosen_alone():
    class Recorded(Parts):
        def rows(self, index):
            read.append(len(index))
            return super().rows(index)

    read: list[int] = []
    x, y = torch.randn(100, 1, 2, 2), torch.arange(100)
    found = take([Recorded(x, y, size=30)], 50)
    assert read == [30, 20]
    assert all(torch.equal(images, x[labels]) for images, labels in found.batches)
    assert len(set(torch.cat([labels for _, labels in found.batches]).tolist())) == 50
    assert sorted(set(y[80:].tolist()) & set(found.batches[-1][1].tolist()))


def test_the_first_of_a_stream_with_a_note():
    loader = DataLoader(Stream(), batch_size=8)
    found = take([loader], 20)
    assert [len(y) for _, y in found.batches] == [8, 8, 4]
    assert found.note == "on the first 20 examples: they come from a stream"
    expected = next(iter(DataLoader(Stream(20), batch_size=20)))
    assert torch.equal(torch.cat([x for x, _ in found.batches]), expected[0])


def test_examples_of_batches_in_containers_of_others_are_counted():
    """Batches as tokenizers of transformers return them; batches without tensors are refused, not read for ever."""

    class Encoding(UserDict):
        pass

    def collate(rows):
        x, y = (torch.stack(part) for part in zip(*rows, strict=True))
        return Encoding({"input": x, "labels": y})

    found = take([DataLoader(Stream(), batch_size=8, collate_fn=collate)], 20)
    assert [type(batch) for batch in found.batches] == [Encoding] * 3
    assert [len(batch["labels"]) for batch in found.batches] == [8, 8, 4]
    with pytest.raises(ValueError, match="a batch holds no tensor"):
        take([DataLoader(Stream(), batch_size=8, collate_fn=lambda rows: ["text"] * 8)], 20)


class Streaming(Plain):
    def __init__(self, n: int | None = None) -> None:
        super().__init__()
        self.n = n

    def train_dataloader(self):
        return DataLoader(Stream(self.n), batch_size=10)

    val_dataloader = test_dataloader = None


def counted(snapshot: Snapshot) -> Estimate:
    return Estimate(float(snapshot.examples))


COUNT = "train/other/n"


def examples(module, split="train", measured=None, **settings) -> Estimate:
    callback = Measures(measures={"n": counted}, split=split, **(measured or {}))
    fit(module, [callback], **settings)
    return callback.results[f"{split}/other/n"]


def test_an_endless_loader_is_bounded_by_the_trainer_or_the_callback():
    assert examples(Streaming(), limit_train_batches=5, max_epochs=1).value == 50
    bounded = examples(Streaming(), measured={"examples": 33}, max_steps=3, max_epochs=-1)
    assert (bounded.value, bounded.note) == (33, "on the first 33 examples: they come from a stream")
    endless = examples(Streaming(), max_steps=3, max_epochs=-1)
    assert endless.value is None
    assert endless.note == (
        "the train loader may never end (it has no length, the Trainer no limit_train_batches): set that limit, or "
        "pass examples="
    )


def test_no_callback_reads_an_endless_loader_to_its_end(caplog):
    gap, optimization = Gap(every_n_epochs=1), Optimization(every_n_steps=1)
    fit(Streaming(), [gap, optimization, Stop(train_loss=1e-9)], max_steps=3, max_epochs=-1)
    assert gap.results["train/performance/accuracy"].value is None
    said = [record.getMessage() for record in caplog.records if record.name.startswith("genbench")]
    assert len(said) == 1  # by all three
    assert "set that limit, or pass examples=" in said[0]


def test_a_stream_whose_end_lightning_has_seen_is_measured_whole():
    assert examples(Streaming(37), max_epochs=2).value == 37
    each = Measures(measures={"n": counted}, every_n_steps=2)  # 4 steps per epoch
    fit(Streaming(37), [each], max_epochs=2)
    assert [row[COUNT] for row in each.history] == [None, 37, 37, 37]
    assert [row["step"] for row in each.history] == [2, 4, 6, 8]


@pytest.mark.parametrize(("limit", "expected"), [(3, 30), (0.5, 30), (1.0, 64), (100, 64)])
def test_limits_of_batches_are_respected(limit, expected):
    assert examples(Plain(), limit_train_batches=limit, max_epochs=1).value == expected


@pytest.mark.parametrize("split", ["val", "test"])
def test_limits_of_the_other_splits(split):
    settings = {f"limit_{split}_batches": 2, "max_epochs": 1}
    assert examples(Plain(), split, **settings).value == 20
    missing = examples(Plain(), split, **{**settings, f"limit_{split}_batches": 0})
    assert (missing.value, missing.note) == (None, f"there is no {split} split")


def test_a_limit_bounds_what_is_chosen_from():
    assert examples(Plain(), measured={"examples": 40}, overfit_batches=2, max_epochs=1).value == 20


def test_genbenchs_own_evaluation_stays_whole():
    class Own(pl.LightningDataModule):
        def train_dataloader(self):
            return Plain().train_dataloader()

        def evaluation_batches(self, split):
            return [tuple(data(64, 0).tensors)]

    callback = Measures(measures={"n": counted})
    trainer([callback], limit_train_batches=2, max_epochs=1).fit(Plain(), datamodule=Own())
    assert callback.results[COUNT].value == 64


def test_the_examples_are_the_same_at_every_measurement():
    seen = []

    class Restless(TensorDataset):
        """Augments with its own generator."""

        rng = random.Random(0)

        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + self.rng.random(), y

    class Augmented(Plain):
        def train_dataloader(self):
            return DataLoader(Restless(*data(64, 0).tensors), batch_size=10, shuffle=True)

    def see(snapshot: Snapshot) -> Estimate:
        seen.append(torch.cat([x for x, _ in snapshot.batches]))
        return Estimate(0.0)

    fit(Augmented(), [Measures(measures={"see": see}, examples=20, every_n_epochs=1)])
    assert len(seen) == 3
    assert all(torch.equal(x, seen[0]) for x in seen)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState, random.Random])
def test_data_that_draw_from_a_generator_of_their_own_are_trained_on_as_without_measuring(make):
    """Such an augmentation is the same in all passes of a measurement, and continues as if nothing was measured."""

    class Noise:
        def __init__(self):
            self.rng = make(0)

        def __call__(self, x):
            return x + self.rng.normal(0, 1) if hasattr(self.rng, "normal") else x + self.rng.gauss(0, 1)

    class Augmented(TensorDataset):
        def __init__(self, tensors, transform):
            super().__init__(*tensors)
            self.transform = transform

        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return self.transform(x), y

    class Noisy(Plain):
        def train_dataloader(self):
            whole = Augmented(data(64, 0).tensors, Noise())
            return DataLoader(torch.utils.data.Subset(whole, range(50)), batch_size=10, shuffle=True)

    def twice(snapshot: Snapshot) -> Estimate:
        a, b = (torch.cat([x for x, _ in snapshot.batches]) for _ in range(2))
        again = snapshot.gradient_at(snapshot.vector)[0]
        assert torch.equal(a, b)
        assert again == snapshot.mean_loss == snapshot.gradient_at(snapshot.vector)[0]
        return Estimate(0.0)

    states = []
    for callbacks in ([], [measured := Measures(measures={"twice": twice}, every_n_steps=2)]):
        torch.manual_seed(0)
        module = Noisy()
        fit(module, callbacks, max_epochs=2)
        states.append(module.state_dict())
    assert [row["train/other/twice"] for row in measured.history] == [0.0] * 5
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_several_validation_loaders_are_read_one_after_the_other_each_to_its_limit():
    class Two(Plain):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch)

        def val_dataloader(self):
            return [DataLoader(data(30, 1), batch_size=10), DataLoader(data(50, 2), batch_size=10)]

    assert examples(Two(), "val", max_epochs=1).value == 80
    assert examples(Two(), "val", max_epochs=1, limit_val_batches=4).value == 70


def test_a_step_of_several_train_loaders_is_given_a_batch_of_each():
    class Semi(Plain):
        def __init__(self, mode):
            super().__init__()
            self.mode = mode

        def training_step(self, batch):
            labelled, more = batch["labelled"], batch["more"]
            return super().training_step(labelled) + super().training_step(more)

        def train_dataloader(self):
            loaders = {"labelled": DataLoader(data(64, 0), 16), "more": DataLoader(data(30, 1), 16)}
            return CombinedLoader(loaders, self.mode) if self.mode else loaders

    def forward(model, batch):
        x, y = (torch.cat([batch[key][i] for key in ("labelled", "more")]) for i in (0, 1))
        return model(x), y

    settings = {"measured": {"forward": forward}, "max_epochs": 2}
    assert examples(Semi("min_size"), **settings).value == 62
    cycled = 4 * 16 + (16 + 14) * 2  # the shorter one starts again
    assert examples(Semi("max_size_cycle"), **settings).value == examples(Semi(None), **settings).value == cycled
    assert examples(Semi("min_size"), limit_train_batches=1, **settings).value == 32


def test_validation_that_lightning_has_not_loaded_yet():
    """The first validation comes after five epochs; without a sanity check nothing is loaded before."""
    callback = Measures(measures={"n": counted}, split="val", every_n_epochs=1)
    fit(Plain(), [callback], check_val_every_n_epoch=5, num_sanity_val_steps=0, max_epochs=2)
    assert [row["val/other/n"] for row in callback.history] == [30, 30]
    bare = type("Bare", (Plain,), {"train_dataloader": None, "val_dataloader": None, "test_dataloader": None})
    loaders = [DataLoader(data(n, 0), batch_size=10) for n in (64, 20)]
    callback = Measures(measures={"n": counted}, split="val", every_n_epochs=1)
    trainer([callback], check_val_every_n_epoch=5, num_sanity_val_steps=0).fit(bare(), *loaders)
    assert {row["val/other/n"] for row in callback.history} == {20}


def test_test_data_that_only_setup_for_testing_makes():
    stages = []

    class Stages(pl.LightningDataModule):
        def setup(self, stage):
            stages.append(stage)
            self.sets = {"fit": (data(64, 0), data(30, 1)), "test": (data(50, 2),)}[stage]

        def train_dataloader(self):
            return DataLoader(self.sets[0], batch_size=10)

        def val_dataloader(self):
            return DataLoader(self.sets[1], batch_size=10)

        def test_dataloader(self):
            (test,) = self.sets  # those of fit are two
            return DataLoader(test, batch_size=10)

    gap, module = Gap(every_n_epochs=1), Stages()
    trainer([gap], max_epochs=3).fit(Plain(), datamodule=module)
    assert gap.results["test/performance/accuracy"].value is not None
    assert stages == ["fit", "test"]  # once
    assert len(module.sets) == 2  # the loaders of training are untouched


def test_test_data_that_a_modules_own_setup_makes():
    """The module is its own datamodule, as in Lightning's examples."""

    class Whole(Plain):
        def setup(self, stage):
            if stage == "test":
                self.test_set = data(50, 2)
                self.extra = nn.Linear(2, 2)  # registered parts belong to the copy, too

        def test_dataloader(self):
            return DataLoader(self.test_set, batch_size=10)

    module, gap = Whole(), Gap()
    fit(module, [gap], max_epochs=1)
    module.eval()
    x, y = data(50, 2).tensors
    expected = float((module(x).argmax(1) == y).float().mean())
    assert gap.results["test/performance/accuracy"].value == pytest.approx(expected)
    assert not hasattr(module, "test_set")
    assert not hasattr(module, "extra")


def test_what_test_data_lack_is_said():
    class Broken(Plain):
        def test_dataloader(self):
            raise FileNotFoundError("no test.csv")

    gap = Gap()
    fit(Broken(), [gap], max_epochs=1)
    assert gap.results["test/performance/accuracy"].note == "FileNotFoundError: no test.csv"
    assert gap.results["train/performance/accuracy"].value is not None


def test_loaders_of_whole_batches():
    """With ``batch_size=None`` the data set contains batches, and examples have no indices."""

    class Ready(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            if index >= 6:
                raise IndexError
            return tuple(t[index * 10 : index * 10 + 10] for t in data(64, 0).tensors)

    class Batched(Plain):
        def train_dataloader(self):
            return DataLoader(Ready(), batch_size=None, shuffle=True)

    assert examples(Batched(), max_epochs=1).value == 60
    found = examples(Batched(), measured={"examples": 25}, max_epochs=1)
    assert (found.value, found.note) == (25, "on the first 25 examples: they come from a stream")


def test_datamodules_made_of_data_sets():
    gap = Gap()
    sets = (data(64, 0), data(30, 1), data(50, 2))
    module = pl.LightningDataModule.from_datasets(*sets, batch_size=10)
    trainer([gap], max_epochs=1).fit(Plain(), datamodule=module)
    assert {key.split("/")[0] for key in gap.results} == {"train", "val", "test"}
    none = pl.LightningDataModule.from_datasets(*sets[:2], batch_size=10)
    trainer([gap], max_epochs=1).fit(Plain(), datamodule=none)
    assert {key.split("/")[0] for key in gap.results} == {"train", "val"}


def test_a_split_that_is_not_there_is_none():
    ours = trainer([], max_epochs=1)
    ours.fit(Streaming(20))
    assert Splits().data(ours, Streaming(20), "test") is None


def test_all_is_every_split_one_after_the_other():
    class Own(pl.LightningDataModule):
        splits = ("train", "test")

        def train_dataloader(self):
            return Plain().train_dataloader()

        def evaluation_batches(self, split):
            return [tuple(data({"train": 40, "test": 24}[split], 0).tensors)]

    whole, part = (
        Measures(measures={"n": counted}, split="all"),
        Measures(measures={"n": counted}, split="all", examples=9),
    )
    trainer([whole, part], max_epochs=1).fit(Plain(), datamodule=Own())
    assert whole.results[COUNT.replace("train", "all")].value == 64
    assert part.results[COUNT.replace("train", "all")].value == 9
    theirs = Measures(measures={"n": counted}, split="all")
    loaders = pl.LightningDataModule.from_datasets(data(40, 0), data(30, 1), data(20, 2), batch_size=10)
    trainer([theirs], max_epochs=1).fit(Plain(), datamodule=loaders)
    assert theirs.results[COUNT.replace("train", "all")].value == 90


def test_a_process_of_several_measures_the_whole():
    """Lightning gives each process a shard of a data set, through its own sampler or the user's."""

    class Chosen(Dataset):  # as Lightning wraps a sampler
        def __len__(self):
            return 30

        def __getitem__(self, index):
            return 3 * index

    shares = []
    for rank in (0, 1):
        sampler = DistributedSampler(Numbers(100), num_replicas=2, rank=rank, shuffle=True)
        sampler.dataset = (loader := DataLoader(Numbers(100), batch_size=8, sampler=sampler)).dataset
        assert len(loader) == 7
        wrapped = DataLoader(
            Numbers(100), batch_size=8, sampler=DistributedSampler(Chosen(), num_replicas=2, rank=rank, shuffle=True)
        )
        shares.append(
            [
                numbers(take([loader], 30).batches),
                numbers(_Limited(loader)),
                numbers(_Limited(loader, 3)),
                numbers(_Limited(wrapped)),
                numbers(take([wrapped], 20).batches),
            ]
        )
    assert shares[0] == shares[1]
    chosen, whole, limited, of_sampler, of_both = shares[0]
    assert len(set(chosen)) == 30
    assert sorted(whole) == list(range(100))
    assert len(limited) == 2 * 3 * 8
    assert sorted(of_sampler) == list(range(0, 90, 3))
    assert set(of_both) < set(of_sampler)


def test_examples_of_sequences_with_time_first():
    x, y = torch.arange(7 * 20 * 4.0).reshape(7, 20, 4), torch.arange(20)
    (batch,) = take([[(x, y)]], 5)
    assert batch[0].shape == (7, 5, 4)
    assert torch.equal(batch[0], x[:, batch[1]])
    stream = take([iter([(x, y)])], 5)
    ((first, target),) = stream
    assert torch.equal(first, x[:, :5])
    assert torch.equal(target, y[:5])
