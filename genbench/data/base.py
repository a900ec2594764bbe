"""Base class of data sets held as tensors on the device."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.data.batches import Batches, Chunks, Epochs, WarmStart, kept
from genbench.data.cache import Arrays, content_digest
from genbench.data.corruptions import Noise, duplicated, imbalanced, noise_of, randomized_inputs, replaced_labels
from genbench.rng import StepRandom

_EVALUATION_BATCH = 4096  # labels in a batch of an evaluation


class TensorData(LightningDataModule):
    """A labelled data set held as tensors on the device.

    A subclass sets ``name`` and ``classes`` and loads its arrays. ``seed`` alone determines everything random; the
    settings are applied in this order:

    - *Subset*: takes the first ``train_size`` examples of one random order of the training set, so that smaller subsets
      lie within larger ones; ``None`` takes all.
    - *Imbalance*: makes the subset a long tail, the first class ``imbalance`` times as frequent as the last.
    - *Label noise*: replaces the labels of ``round(label_noise * train_size)`` examples. ``symmetric`` draws uniformly
      from all classes, the true one included; ``asymmetric`` takes the next class; a confusion matrix draws from the
      row of the true class. Examples that are noisy at a small share are noisy at every larger one, with the same
      labels. Validation labels are noisy too, as in practice; test labels stay clean.
    - *Validation*: holds out the last ``round(val_fraction * train_size)`` examples of the subset. A data set whose
      examples overlap chooses its own.
    - *Duplicates*: replaces this share of the remaining examples by copies of the others, labels included.
    - *Inputs*: keeps or randomizes the inputs of every split.
    - *Order*: shuffles in every epoch, by ``order_seeds`` (one for each lane) if set, else by ``seed``.
    - *Warm start*: the first steps take smaller or larger batches (Keskar et al. 2017, arXiv 1609.04836), in
      the order that training with that batch size has; the optimizer keeps its state. An epoch, of which callbacks
      and schedules speak, still has the number of steps that ``batch_size`` gives it.
    - *Parts*: gives each network of an ensemble a part of the train split, in turn, to train on. Measures still see
      the whole split.
    - *Left out*: each network leaves a random share of its examples out of training, as
      :func:`genbench.measures.memorization` needs. Measures still see the whole split.

    ``digest`` identifies the content: the sha256 of the name, of the tensors before any setting, and of a confusion
    matrix read from a file.

    Args:
        batch_size: examples a step, from 1 to the number of training examples; ``None``: all of them (full-batch
            gradient descent).
        train_size: examples taken from the training set, those for validation included; ``None``: all.
        val_fraction: share of ``train_size`` held out for validation, in [0, 1); 0 leaves no ``val`` split.
        label_noise: share of ``train_size`` whose labels are replaced, in [0, 1].
        noise_kind: ``symmetric``, ``asymmetric``, or a confusion matrix, as rows or as a .npy or .csv file: see
            :func:`genbench.data.corruptions.noise_of` and :func:`genbench.data.corruptions.replaced_labels`.
        imbalance: at least 1: see :func:`genbench.data.corruptions.imbalanced`.
        duplicates: share of the training split, in [0, 1): see :func:`genbench.data.corruptions.duplicated`.
        inputs: ``original``, ``shuffled_pixels``, ``shuffled_blocks``, ``random_pixels`` or ``gaussian``: see
            :func:`genbench.data.corruptions.randomized_inputs`.
        warm_start_steps: number of first steps with batches of another size, a multiple of the steps of an epoch.
        warm_start_batch_size: examples of each of these steps; ``None`` where there are none.
        parts: number of consecutive parts of equal size, at least 1; what is left over is not trained on.
        left_out: share of the examples of each network that it never trains on, in [0, 1), by ``order_seeds``.
        seed: at least 0.

    Raises:
        ValueError: a setting is out of range, or a split would be empty.
    """

    name: str | None = None
    classes: int
    whole_epochs = False  # whether an item of the training loader is an iterator over the batches of an epoch
    # settings in which runs of one pack may differ
    per_lane: tuple[str, ...] = (
        "seed",
        "label_noise",
        "noise_kind",
        "imbalance",
        "duplicates",
        "inputs",
        "train_size",
        "val_fraction",
    )

    @staticmethod
    def load() -> Arrays:
        """Return the arrays x [n, ...], y [n], x_test and y_test, before any setting is applied."""
        raise NotImplementedError

    def __init__(
        self,
        *,
        batch_size: int | None = 100,
        train_size: int | None = None,
        val_fraction: float = 0.0,
        label_noise: float = 0.0,
        noise_kind: Noise = "symmetric",
        imbalance: float = 1.0,
        duplicates: float = 0.0,
        inputs: str = "original",
        warm_start_steps: int = 0,
        warm_start_batch_size: int | None = None,
        parts: int = 1,
        left_out: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        raw, self.digest = self.content()
        total = len(raw["y"])
        self.seed = check_integer("data.seed", seed, least=0)
        self.label_noise = check_number("data.label_noise", label_noise, low=0, high=1)
        self.noise = noise_of(noise_kind, self.classes)
        if isinstance(noise_kind, str) and isinstance(self.noise, Tensor):
            self.digest = hashlib.sha256(f"{self.digest} {self.noise.tolist()}".encode()).hexdigest()
        self.val_fraction = check_number("data.val_fraction", val_fraction, low=0, high=1, open_high=True)
        self.train_size = total
        if train_size is not None:
            note = f"{self.name} has {total} training examples"
            self.train_size = check_integer("data.train_size", train_size, least=1, most=total, note=note)
        val = raw.get("val")  # [n], 1 for examples that are for validation alone, else 0; missing: any may be
        n_val = round((self.val_fraction if val is None else int(val.sum()) / total) * self.train_size)
        n_train = self.train_size - n_val
        if n_train == 0 or (n_val == 0 and self.val_fraction > 0):
            empty = "training" if n_train == 0 else "validation"
            raise ValueError(
                f"data.val_fraction is {val_fraction!r}; accepted: 0, or a share of data.train_size={self.train_size} "
                f"that leaves at least one example in each split (no {empty} example is left)"
            )
        self.parts = check_integer("data.parts", parts, least=1, most=n_train)
        self.left_out = check_number("data.left_out", left_out, low=0, high=1, open_high=True)
        n = kept(n_train // self.parts, self.left_out)
        if n == 0:
            raise ValueError(
                f"data.left_out is {left_out!r}; accepted: a share of {n_train // self.parts} that leaves one"
            )
        note = f"{n} examples are trained on"
        self.batch_size = n
        if batch_size is not None:
            self.batch_size = check_integer("data.batch_size", batch_size, least=1, most=n, note=note)
        self.warm_start = _warm_start(warm_start_steps, warm_start_batch_size, n, self.batch_size)

        self.order_seeds: tuple[int, ...] | None = None
        self.device = torch.device("cpu")
        draw = StepRandom(self.seed, 0)
        if check_number("data.imbalance", imbalance, low=1) > 1 and raw["y"].ndim > 1:
            raise ValueError(f"data.imbalance is {imbalance!r}; accepted: 1, as an example has several labels")

        def taken(order: Tensor, size: int) -> Tensor:
            if imbalance > 1:
                order = imbalanced(order, raw["y"], size=size, ratio=imbalance, classes=self.classes)
            return order[:size]

        order = draw.permutation("data.subset", total)
        if val is None:
            rows = taken(order, self.train_size)
        else:
            rows = torch.cat([taken(order[val[order] == 0], n_train), taken(order[val[order] == 1], n_val)])
        y = raw["y"][rows]
        # drawn for the whole training set, so that noise is nested in train_size as well
        noisy = draw.permutation("data.noise.rank", total)[rows].argsort()[: round(self.label_noise * self.train_size)]
        y[noisy] = replaced_labels(raw["y"], self.noise, classes=self.classes, draw=draw)[rows][noisy]
        wrong = (y != raw["y"][rows]).reshape(len(y), -1).any(1)
        copied = duplicated(n_train, check_number("data.duplicates", duplicates, low=0, high=1, open_high=True), draw)
        splits = {
            "train": (raw["x"][rows[:n_train]][copied], y[:n_train][copied]),
            "test": (raw["x_test"].clone(), raw["y_test"].clone()),
        }
        drawn = torch.zeros(len(y), dtype=torch.bool)
        drawn[noisy] = True
        clean = torch.zeros(len(raw["y_test"]), dtype=torch.bool)
        marks = torch.stack([wrong, drawn])
        self._marks = {"train": marks[:, :n_train][:, copied], "test": torch.stack([clean, clean])}
        if n_val:
            splits["val"] = (raw["x"][rows[n_train:]], y[n_train:])
            self._marks["val"] = marks[:, n_train:]
        self._splits = randomized_inputs(splits, inputs, draw)

    def content(self) -> tuple[dict[str, Tensor], str]:
        """Return the tensors x, y, x_test and y_test before any setting is applied, and ``digest``.

        A tensor ``val`` [n] marks examples that are for validation alone. Callers must not change the tensors.
        """
        return _loaded(type(self).name, self.load)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, channels first."""
        return tuple(self._splits["train"][0].shape[1:])

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of the labels of one example: () for one label, (T,) for one at each of T positions."""
        return tuple(self._splits["train"][1].shape[1:])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits: train, test, and val if ``val_fraction`` is positive."""
        return tuple(self._splits)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches of the examples that a network trains on."""
        return kept(len(self._splits["train"][1]) // self.parts, self.left_out) // self.batch_size

    def to(self, device: torch.device | str) -> "TensorData":
        """Move every split to ``device``."""
        self.device = torch.device(device)
        self._splits = {split: (x.to(self.device), y.to(self.device)) for split, (x, y) in self._splits.items()}
        return self

    def setup(self, stage: str | None = None) -> None:
        """Move every split to the Trainer's device."""
        if self.trainer is not None:
            self.to(self.trainer.strategy.root_device)

    def tensors(self, split: str) -> tuple[Tensor, Tensor]:
        """Return inputs [n, ...] (float32; tokens int64) and labels [n] or [n, T] (int64) of a split.

        They are in a fixed order, on the device of the module.
        """
        return self._splits[check_choice("split", split, self.splits)]

    def mislabelled(self, split: str) -> Tensor:
        """Return whether label noise gave an example of a split another label, or one of its labels, bool [n]."""
        return self._marks[check_choice("split", split, self.splits)][0]

    def relabelled(self, split: str) -> Tensor:
        """Return whether label noise drew the label of an example, which may still be the true one, bool [n]."""
        return self._marks[check_choice("split", split, self.splits)][1]

    def trained_on(self, split: str) -> Tensor:
        """Return which examples of a split each lane trains on, bool [n, lanes]."""
        found = torch.zeros(len(self.tensors(split)[1]), len(self.order_seeds or (0,)), dtype=torch.bool)
        if split == "train":
            batches = Batches(found, found, **self.loading)  # which has as many examples
            for lane, column in enumerate(found.unbind(1)):
                column[batches.rows(lane)] = True
        return found

    def evaluation_batches(self, split: str) -> Sequence[tuple[Tensor, Tensor]]:
        """Return large batches that hold every example of a split once, in a fixed order."""
        x, y = self.tensors(split)
        size = max(1, _EVALUATION_BATCH // y[0].numel())
        return list(zip(x.split(size), y.split(size), strict=True))

    def train_dataloader(self) -> Batches | Epochs:
        """Return shuffled batches, with a leading lane axis if ``order_seeds`` is set."""
        batches = self.train_batches()
        return Epochs(batches) if self.whole_epochs else batches

    def train_batches(self) -> Batches:
        """Return the loader of shuffled batches."""
        x, y = self.tensors("train")
        return Batches(x, y, **self.loading)

    @property
    def loading(self) -> dict[str, Any]:
        """The settings of the shuffled batches."""
        settings = ("batch_size", "seed", "warm_start", "parts", "left_out")
        return {"seeds": self.order_seeds, **{name: getattr(self, name) for name in settings}}

    def val_dataloader(self) -> Chunks | list[Chunks]:
        """Return the validation split in order; an empty list if there is none."""
        return Chunks(self.evaluation_batches("val")) if "val" in self._splits else []

    def test_dataloader(self) -> Chunks:
        """Return the test split in order."""
        return Chunks(self.evaluation_batches("test"))


def _warm_start(steps: object, batch_size: object, n: int, usual: int) -> WarmStart | None:
    """Return the warm start of a training split of n examples in batches of ``usual``, or None without steps."""
    first = check_integer("data.warm_start_steps", steps, least=0)
    epoch = n // usual
    if first % epoch:
        raise ValueError(
            f"data.warm_start_steps is {first}; accepted: a multiple of the {epoch} steps that an epoch has in batches "
            f"of {usual} (data.batch_size)"
        )
    if batch_size is None and not first:
        return None
    note = f"{n} examples are trained on, and data.warm_start_steps is {first}"
    size = check_integer("data.warm_start_batch_size", batch_size, least=1, most=n, note=note)
    return WarmStart(first, size) if first else None


@cache
def _loaded(name: str | None, load: Callable[[], Arrays]) -> tuple[dict[str, Tensor], str]:
    return tensors(load(), name)


def tensors(found: Arrays, name: str | None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a data set and their digest; int64 inputs are tokens and keep their type."""
    arrays = {
        key: array.astype("float32" if key.startswith("x") and array.dtype != "int64" else "int64")
        for key, array in found.items()
    }
    digest = hashlib.sha256(f"{name} {content_digest(arrays)}".encode()).hexdigest()
    return {key: torch.from_numpy(array) for key, array in arrays.items()}, digest
