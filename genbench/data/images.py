"""Images from the Hugging Face hub or from local files."""

import os
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.data.base import TensorData
from genbench.data.batches import Batches
from genbench.data.corruptions import INPUTS, randomized_inputs
from genbench.data.decoding import decoded, prefetched
from genbench.data.image_sources import Source
from genbench.process.memory import room
from genbench.rng import StepRandom

NORMALIZATIONS = ("channels", "images", "none")
_WORKERS = 2  # threads that read images that do not fit in memory
_EVALUATION = 2**22  # numbers in a batch of an evaluation: 16 MiB


class ImageData(TensorData):
    """Any labelled set of images, decoded once to bytes on disk.

    Images are uint8 in the cache and become float32 a batch at a time. On a CPU, all processes share the pages of one
    file; a GPU gets a copy of each split. A set that would take more than half of the free memory is read from disk by
    threads, and takes only the memory of a few batches.

    ``scaling``, mean and std of each channel, maps inputs to images: std · input + mean lies in [0, 1]. Images that are
    standardized individually have none.

    Images come from ``path`` or, if it is ``None``, from ``hub``. A local folder holds parquet files as on the hub, or
    one folder for each class (``train/CLASS/*.png`` and ``test/CLASS/*.png``, or ``CLASS/*.png`` alone with
    ``test_fraction``); parquet and the hub need the extra ``datasets``. Every image must be readable and labelled, and
    every class must have a training example. Images are rotated by their EXIF orientation; transparency becomes white.

    Args:
        hub: name on the Hugging Face hub.
        subset: the hub's configuration of that set, or the folder of it in ``path``, where there are several.
        path: local folder.
        label: column of the labels, integers from 0; unused with class folders, which are numbered by name.
        test_split: name of the split to test on.
        test_fraction: share of the training images, in (0, 1), to test on instead of ``test_split``, the same for every
            ``seed``; ``None``: ``test_split``.
        channels: 1 (grey) or 3 (RGB), to which images are converted. size: side of the images: the shorter side is
            scaled to it and the middle is cropped; ``None``: images keep their
            size, which must be the same for all.
        normalize: ``channels``: each channel has mean 0 and standard deviation 1 over the training set, the examples
            that ``train_size`` leaves out included; ``images``: (x − mean) / max(standard deviation, 1 / √N) of each
            image's N values in [0, 255], TensorFlow's ``per_image_standardization`` (as Zhang et al. 2017,
            arXiv 1611.03530, do); ``none``: values in [0, 1].
        inputs: as in :class:`genbench.data.TensorData`; other values than ``original`` hold all images as float32.
        settings: the others of :class:`genbench.data.TensorData`.

    Raises:
        ValueError: a setting is out of range, or the source cannot be read: see :mod:`genbench.data.decoding`.
    """

    scaling: tuple[Sequence[float], Sequence[float]]

    def __init__(
        self,
        *,
        hub: str | None = None,
        subset: str | None = None,
        path: str | None = None,
        label: str = "label",
        test_split: str = "test",
        test_fraction: float | None = None,
        channels: int = 3,
        size: int | None = None,
        normalize: str = "channels",
        inputs: str = "original",
        **settings: Any,
    ) -> None:
        if hub is None and path is None:
            raise ValueError("data.path and data.hub are both null; accepted: a local folder, or a name on the hub")
        if test_fraction is not None:
            check_number("data.test_fraction", test_fraction, low=0, high=1, open_low=True, open_high=True)
        check_choice("data.channels", str(channels), ("1", "3"))
        if size is not None:
            check_integer("data.size", size, least=1)
        check_choice("data.normalize", normalize, NORMALIZATIONS)
        check_choice("data.inputs", inputs, INPUTS)
        source = Source(
            hub=hub,
            subset=subset,
            path=path,
            label=label,
            test_split=test_split,
            test_fraction=test_fraction,
            channels=channels,
            size=size,
        )
        self._decoded = decoded(source)
        self.name = source.name
        self.classes = self.counted(self._decoded.classes)
        super().__init__(**settings)
        mean, std = self._decoded.mean, self._decoded.std
        if normalize == "none":
            mean, std = [0.0] * channels, [255.0] * channels
        if normalize != "images":  # which standardizes each image by itself
            self.scaling = [m / 255 for m in mean], [(s or 1.0) / 255 for s in std]
        scaling = None if normalize == "images" else Scaling(mean, std)
        files = self._decoded.files.items()
        stored = {split: self.kept(_stored(file, self._decoded.shapes[split])) for split, file in files}
        # up to here the inputs were row numbers, which are enough for subsets and copies
        images = {
            split: (Images(stored["test" if split == "test" else "train"], rows, scaling), y)
            for split, (rows, y) in self._splits.items()
        }
        self._splits: dict[str, tuple[Any, Tensor]] = dict(images)
        if inputs != "original":
            size = sum(4 * prod(x.shape) for x, _ in images.values())
            if not _fits(2 * size, torch.device("cpu")):  # the images before and after randomization
                raise ValueError(
                    f"data.inputs is {inputs!r}; accepted: original, as {self.name} takes {size / 2**30:.1f} GiB as "
                    "float32, which do not fit in memory twice"
                )
            whole = {split: (x[:], y) for split, (x, y) in images.items()}
            self._splits = dict(randomized_inputs(whole, inputs, StepRandom(self.seed, 0)))

    def content(self) -> tuple[dict[str, Tensor], str]:
        """Return row numbers on disk, x [n] and x_test [n], instead of images."""
        y, y_test = (torch.from_numpy(self._decoded.labels[split]) for split in ("train", "test"))
        rows = {"x": torch.arange(len(y)), "y": y, "x_test": torch.arange(len(y_test)), "y_test": y_test}
        return rows, self._decoded.digest

    def counted(self, classes: int) -> int:
        """Return the number of classes to learn of the ``classes`` of the source, all here."""
        return classes

    def kept(self, stored: "Tensor | OnDisk") -> "Tensor | OnDisk":
        """Return the part of stored images [N, C, H, W] that is used, all here."""
        return stored

    def tensors(self, split: str) -> tuple[Any, Tensor]:
        """Return inputs [n, C, H, W] and labels [n] of a split in a fixed order; slices of inputs are tensors."""
        return super().tensors(split)

    def evaluation_batches(self, split: str) -> "Parts":
        """Return batches that hold every example of a split once, in a fixed order, and read them on demand."""
        return Parts(*self.tensors(split), size=max(1, _EVALUATION // prod(self.input_shape)))

    def train_batches(self) -> "ImageBatches":
        x, y = self.tensors("train")
        return ImageBatches(x, y, **self.loading)


class CroppedImageData(ImageData):
    """The middle of the images of :class:`ImageData`, cropped before they are standardized.

    Args:
        crop: side of the middle in pixels, at least 1 and at most the shorter side.
        settings: those of :class:`ImageData`; with ``normalize="channels"`` mean and standard deviation are those of
            the whole images.
    """

    def __init__(self, *, crop: int, **settings: Any) -> None:
        self.crop = check_integer("data.crop", crop, least=1)
        super().__init__(**settings)

    def kept(self, stored: "Tensor | OnDisk") -> "Tensor | OnDisk":
        """Return the middle of stored images."""
        check_integer("data.crop", self.crop, least=1, most=min(stored.shape[-2:]), note="the shorter side")
        return middle(stored, self.crop) if isinstance(stored, Tensor) else Middle(stored, self.crop)


class GroupedImageData(ImageData):
    """Groups of the classes of :class:`ImageData` as classes, and an attack set (Zhang et al. 2021, arXiv 2103.06219).

    The training set is ``train_size`` images and ``attack_size`` further ones with the wrong class, the next group.
    Smaller attack sets lie within larger ones, and other settings treat both alike.

    Args:
        groups: classes of the source for each class to learn, at least two; images of others are left out.
        attack_size: images with the wrong class, at least 0.
        test_size: images of the test split, the same for every ``seed``; ``None``: all.
        settings: those of :class:`ImageData`; mean and standard deviation of ``normalize="channels"`` are those of all
            training images of the source.
    """

    per_lane = (*ImageData.per_lane, "attack_size")

    def __init__(
        self,
        *,
        groups: Sequence[Sequence[int]],
        attack_size: int = 0,
        test_size: int | None = None,
        train_size: int | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self._groups = groups
        self._clean, self._test_size = train_size, test_size
        self._attack = check_integer("data.attack_size", attack_size, least=0)
        self._seed = check_integer("data.seed", seed, least=0)
        if train_size is None and attack_size:
            raise ValueError(f"data.attack_size is {attack_size!r}; accepted: 0 where data.train_size is null")
        size = None if train_size is None else check_integer("data.train_size", train_size, least=1) + self._attack
        super().__init__(train_size=size, seed=seed, **settings)

    def counted(self, classes: int) -> int:
        """Return the number of groups."""
        wrong = f"data.groups is {self._groups!r}; accepted: at least two lists of classes, each class at most once"
        lists = isinstance(self._groups, Sequence) and all(isinstance(group, list | tuple) for group in self._groups)
        if not lists or len(self._groups) < 2 or not all(self._groups):
            raise ValueError(wrong)
        members = [member for group in self._groups for member in group]
        for member in members:
            check_integer("data.groups", member, least=0, most=classes - 1, note=f"the classes of {self.name}")
        if len(set(members)) < len(members):
            raise ValueError(wrong)
        return len(self._groups)

    def content(self) -> tuple[dict[str, Tensor], str]:
        """Return row numbers on disk and the groups of the images that have one, those of the attack set wrong."""
        rows, digest = super().content()
        group = torch.full((self._decoded.classes,), -1)
        for number, members in enumerate(self._groups):
            group[list(members)] = number
        for x, y in (("x", "y"), ("x_test", "y_test")):
            of = group[rows[y]]
            rows |= {x: rows[x][of >= 0], y: of[of >= 0]}
        if self._test_size is not None:
            total = len(rows["y_test"])
            size = check_integer("data.test_size", self._test_size, least=1, most=total, note="the test images")
            some = StepRandom(0, 0).permutation("data.test_size", total)[:size]
            rows |= {"x_test": rows["x_test"][some], "y_test": rows["y_test"][some]}
        if self._clean is not None:
            total = len(rows["y"])
            check_integer("data.train_size", self._clean, least=1, most=total, note="the training images")
            note = "the training images that data.train_size leaves"
            check_integer("data.attack_size", self._attack, least=0, most=total - self._clean, note=note)
            # the order in which TensorData takes examples
            order = StepRandom(self._seed, 0).permutation("data.subset", total)
            wrong = order[self._clean : self._clean + self._attack]
            rows["y"][wrong] = (rows["y"][wrong] + 1) % self.classes
        return rows, digest


class Scaling:
    """Standardizes each channel of bytes, (x − mean) / std, in float32."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        self._moments = mean, std
        # a constant channel becomes 0
        self.mean, self.std = (
            torch.tensor(moment, device=device).view(-1, 1, 1) for moment in (mean, [s or 1.0 for s in std])
        )

    def to(self, device: torch.device | str) -> "Scaling":
        return Scaling(*self._moments, device=device)

    def __call__(self, x: Tensor) -> Tensor:
        return x.float().sub_(self.mean).div_(self.std)


def standardized(x: Tensor) -> Tensor:
    """Return (x − mean) / max(standard deviation, 1 / √N) of each image [n, ...] of N values."""
    flat = x.float().flatten(1)
    std = flat.std(1, correction=0, keepdim=True).clamp_min(flat.shape[1] ** -0.5)
    return flat.sub_(flat.mean(1, keepdim=True)).div_(std).view(x.shape)


class Images:
    """Images stored as bytes, in memory or on disk, and read as normalized float32 like a tensor [n, C, H, W].

    Args:
        stored: uint8 [N, C, H, W], N ≥ n.
        rows: rows [n] of ``stored``, in order.
        scaling: scaling of the channels; ``None``: each image is standardized individually.
        device: device of the images that are read.
    """

    def __init__(
        self,
        stored: "Tensor | OnDisk",
        rows: Tensor,
        scaling: Scaling | None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.shape = (len(rows), *stored.shape[1:])
        self._stored, self._rows = stored, rows
        self._scaling = None if scaling is None else scaling.to(device)

    @property
    def streamed(self) -> bool:
        """Whether images are stored elsewhere than on ``device``, so that they should be read ahead."""
        return not isinstance(self._stored, Tensor) or self._stored.device != self.device

    def __len__(self) -> int:
        return len(self._rows)

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Return the images at ``rows`` [m], float32 [m, C, H, W]."""
        assert dim == 0
        taken = self._stored.index_select(0, self._rows.index_select(0, rows.to(self._rows.device))).to(self.device)
        return standardized(taken) if self._scaling is None else self._scaling(taken)

    def __getitem__(self, part: slice) -> Tensor:
        return self.index_select(0, torch.arange(*part.indices(len(self))))

    def to(self, device: torch.device | str) -> "Images":
        """Return the same images read to another device; they are copied there if they fit."""
        device = torch.device(device)
        if device == self.device:
            return self
        stored, rows = self._stored, self._rows
        if _fits(prod(self.shape), device):
            stored, rows = stored.index_select(0, rows).to(device), torch.arange(len(rows), device=device)
        return Images(stored, rows, self._scaling, device=device)


class OnDisk:
    """Rows of bytes [N, ...] of a file, read on demand and not kept in memory."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._file = path.open("rb", buffering=0)
        self._start = path.stat().st_size - prod(shape)

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Return the rows [m], uint8 [m, ...]."""
        assert dim == 0
        taken = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for row, into in zip(rows.tolist(), taken.reshape(len(rows), -1), strict=True):
            if os.preadv(self._file.fileno(), [into.data], self._start + row * into.size) != into.size:
                raise OSError(f"{self._file.name} ends before row {row}")
        return torch.from_numpy(taken)


class Middle(OnDisk):
    """The middle ``side`` × ``side`` pixels of images of a file."""

    def __init__(self, whole: OnDisk, side: int) -> None:
        self._whole, self._side = whole, side
        self.shape = (*whole.shape[:2], side, side)

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        return middle(self._whole.index_select(dim, rows), self._side)


def middle(x: Tensor, side: int) -> Tensor:
    """Return the middle ``side`` × ``side`` pixels of images [..., H, W]."""
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def _stored(path: Path, shape: tuple[int, ...]) -> Tensor | OnDisk:
    """Return the bytes of a file, as pages shared by all processes if they fit in memory."""
    if not _fits(prod(shape), torch.device("cpu")):
        return OnDisk(path, shape)
    return torch.from_numpy(np.load(path, mmap_mode="c"))  # copy on write, but nobody writes


def _fits(size: int, device: torch.device) -> bool:
    """Return whether ``size`` bytes are at most half of the free memory."""
    return 2 * size <= room(device)


class Parts(Sequence[tuple[Tensor, Tensor]]):
    """Batches of ``size`` images and labels, in order."""

    def __init__(self, x: Any, y: Tensor, *, size: int) -> None:
        self._x, self._y, self._size = x, y, size

    def __len__(self) -> int:
        return len(range(0, len(self._y), self._size))

    def __getitem__(self, index: Any) -> Any:
        start = range(0, len(self._y), self._size)[index]
        return self._x[start : start + self._size], self._y[start : start + self._size]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return _read(self._x, self.__getitem__, range(len(self)))

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and labels at some rows."""
        return self._x.index_select(0, index.to(self._y.device)), self._y[index.to(self._y.device)]


class ImageBatches(Batches):
    """Shuffled batches of images, read ahead if they are not on the device. See :class:`Batches`."""

    def __init__(self, x: Any, y: Tensor, **settings: Any) -> None:
        super().__init__(x, y, **settings)
        self._lanes: list[tuple[ImageBatches, int]] = [(self, lane) for lane in range(len(self.seeds or (0,)))]

    def indices(self, epoch: int) -> Tensor:
        """Return the rows of every batch of an epoch, for each lane of its own images, [len(self), lanes, B]."""
        return torch.stack([loader.order(lane, epoch) for loader, lane in self._lanes], dim=1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches: Iterator[tuple[Tensor, Tensor]] | None = None
        for position in self._positions():
            if batches is None:
                index = self.indices(self.epoch)[position:]
                batches = _read(self.x, self._batch, index if _streamed(self.x) else index.to(self.y.device))
            yield next(batches)

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            (loader.x.index_select(0, own), loader.y.index_select(0, own.to(loader.y.device)))
            for (loader, _), own in zip(self._lanes, rows, strict=True)
        ]
        if self.seeds is None:
            return parts[0]
        x, y = (each[0][None] if len(each) == 1 else torch.stack(each) for each in zip(*parts, strict=True))
        return x, y

    @staticmethod
    def merge(loaders: Sequence[Any], lanes: Sequence[tuple[int, int]]) -> "ImageBatches":
        first = loaders[0]
        merged = ImageBatches(first.x, first.y, batch_size=first.batch_size, seed=0, seeds=())
        merged._lanes = [loaders[index]._lanes[place] for index, place in lanes]
        return merged


def _streamed(x: Any) -> bool:
    return isinstance(x, Images) and x.streamed


def _read(x: Any, part: Any, parts: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield part(each) in order, computed ahead if ``x`` is streamed."""
    return prefetched(part, parts, workers=_WORKERS) if _streamed(x) else map(part, parts)
