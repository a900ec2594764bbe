"""Decode images once into bytes on disk."""

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from genbench.data.cache import cached_folder, folder
from genbench.data.image_sources import Part, Source, files_of, parts_of
from genbench.rng import StepRandom

_RULES = 2  # version of the rules of decoding, part of the cache's name: 2 applies transparency and EXIF rotation
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's modes of 8 bits a channel
_CHUNK = 256  # images in one task of a decoding thread
_VERIFIED = 2**30  # bytes; larger sets are not hashed at every start, which would take too long


@dataclass(frozen=True)
class Decoded:
    """Images as bytes on disk: for train and test the file, its shape [n, C, H, W] and the labels [n].

    ``mean`` and ``std`` [C] are those of the training images, in [0, 255]; ``digest`` is the sha256 of all bytes,
    shapes and labels.
    """

    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]
    labels: dict[str, np.ndarray]
    classes: int
    mean: list[float]
    std: list[float]
    digest: str


@lru_cache(8)
def decoded(source: Source) -> Decoded:
    """Return the decoded images of a source, from the cache if possible.

    A set of the hub is identified by its name, a folder by the names, sizes and times of its files. Bytes are hashed
    when they are decoded, and sets of up to 1 GiB again at every start.

    Raises:
        ValueError: the source, an image or a label cannot be read.
    """
    try:
        return _opened(cached_folder(cache_name(source), partial(_decode, source), whole=_whole))
    except OSError as error:
        raise ValueError(
            f"the decoded images of {source.name} cannot be kept in {str(folder())!r} ({error.strerror or error}); "
            "accepted: a folder with room for them in the environment variable GENBENCH_CACHE"
        ) from error


def cache_name(source: Source) -> str:
    """Return the name under which the decoded images of a source are cached."""
    found = None if source.path is None else files_of(Path(source.path))
    described = json.dumps(
        [_RULES, asdict(source), found and str(Path(str(source.path)).resolve()), found], sort_keys=True
    )
    return f"images/{source.name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


def prefetched(function: Callable[[Any], Any], items: Iterable[Any], *, workers: int) -> Iterator[Any]:
    """Yield function(item) for each item in order, computed ahead in threads, at most ``2 · workers`` at once."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Any] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


# -- the cache


def _opened(folder: Path) -> Decoded:
    about = json.loads((folder / "about.json").read_text())
    return Decoded(
        files={split: folder / f"{split}_x.npy" for split in ("train", "test")},
        shapes={split: tuple(shape) for split, shape in about.pop("shapes").items()},
        labels={split: np.load(folder / f"{split}_y.npy") for split in ("train", "test")},
        **about,
    )


def _whole(folder: Path) -> bool:
    try:
        found = _opened(folder)
        sizes = {split: prod(shape) for split, shape in found.shapes.items()}
        if any(found.files[split].stat().st_size < size for split, size in sizes.items()):
            return False
        if sum(sizes.values()) > _VERIFIED:
            return True
        digests = []
        for split, file in found.files.items():
            digest = _started(found.shapes[split], found.labels[split])
            digest.update(np.load(file, mmap_mode="r"))
            digests.append(digest.hexdigest())
        return _combined(digests) == found.digest
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return False


def _started(shape: Sequence[int], labels: np.ndarray) -> Any:
    return hashlib.sha256(f"{tuple(shape)}\n".encode() + labels.astype("<i8").tobytes())


def _combined(digests: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


# -- decoding


class _Writer:
    """Writes the array file of a split chunk by chunk, with its hash and the moments of its channels."""

    def __init__(self, folder: Path, split: str, labels: np.ndarray) -> None:
        self._path, self._labels = folder / f"{split}_x.npy", labels
        self.shape: tuple[int, ...] = ()
        np.save(folder / f"{split}_y.npy", labels)

    def add(self, images: np.ndarray) -> None:
        """Append images, uint8 [n, C, H, W]."""
        if not self.shape:
            self.shape = (len(self._labels), *images.shape[1:])
            self.digest = _started(self.shape, self._labels)
            self._sum, self._squares = (np.zeros(self.shape[1], dtype=np.int64) for _ in range(2))
            self._file = self._path.open("wb")
            header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(self._file, header)
        self._file.write(images.data)
        self.digest.update(images)
        self._sum += images.sum((0, 2, 3), dtype=np.int64)
        self._squares += np.square(images, dtype=np.uint16).sum((0, 2, 3), dtype=np.int64)

    def close(self) -> None:
        self._file.close()

    def moments(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel."""
        n = prod(self.shape) // self.shape[1]
        mean = self._sum / n
        return mean.tolist(), np.sqrt(np.maximum(self._squares / n - mean**2, 0)).tolist()


def _decode(source: Source, folder: Path) -> None:
    from rich.console import Console
    from rich.progress import track

    parts = parts_of(source)
    classes = _checked_classes(source, parts)
    console = Console(stderr=True)
    writers: dict[str, _Writer] = {}
    first: tuple[str, tuple[int, ...]] | None = None
    for name, part in parts.items():
        splits = {name: np.arange(len(part.labels))}
        if source.test_fraction is not None:
            splits = _held_out(source.test_fraction, len(part.labels))
        own = {split: _Writer(folder, split, part.labels[rows]) for split, rows in splits.items()}
        writers |= own
        of_test = np.full(len(part.labels), name == "test")
        of_test[splits.get("test", [])] = True
        decode = partial(_decoded_chunk, channels=source.channels, size=source.size)
        made = prefetched(decode, _chunks(part.images()), workers=os.cpu_count() or 1)
        described, total = f"decoding {source.name}, {name}", -(-len(part.labels) // _CHUNK)
        start = 0
        for names, arrays in track(
            made, described, total, console=console, transient=True, disable=not console.is_terminal
        ):
            first = first or (names[0], arrays[0].shape)
            for image, array in zip(names, arrays, strict=True):
                if array.shape != first[1]:
                    raise ValueError(
                        f"images differ in size: {first[0]} is {_size(first[1])}, {image} is {_size(array.shape)}; "
                        "accepted: images of one size, or data.size, to which they are scaled"
                    )
            stacked, mask = np.stack(arrays), of_test[start : start + len(arrays)]
            for split, writer in own.items():
                if len(chosen := stacked[mask == (split == "test")]):
                    writer.add(chosen)
            start += len(arrays)
    for writer in writers.values():
        writer.close()
    shapes = {split: writer.shape for split, writer in writers.items()}
    mean, std = writers["train"].moments()
    digest = _combined(writers[split].digest.hexdigest() for split in ("train", "test"))
    about = {"shapes": shapes, "classes": classes, "mean": mean, "std": std, "digest": digest}
    (folder / "about.json").write_text(json.dumps(about))


def _chunks(images: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(images, _CHUNK)):
        yield chunk


def _decoded_chunk(
    images: Sequence[tuple[str, Any]], *, channels: int, size: int | None
) -> tuple[list[str], list[np.ndarray]]:
    return [name for name, _ in images], [image(name, data, channels=channels, size=size) for name, data in images]


def image(name: str, data: bytes | Path, *, channels: int, size: int | None) -> np.ndarray:
    """Decode one image to uint8 [C, H, W], grey or RGB, rotated by its EXIF orientation, with transparency on white.

    With ``size``, the shorter side is scaled to it (bicubic) and the middle is cropped.

    Raises:
        ValueError: the image is damaged, no image, or has more than 8 bits a channel; one line with its name.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as opened:
            if opened.mode not in _MODES:
                raise ValueError(f"mode {opened.mode}, which is not 8 bits a channel")
            ImageOps.exif_transpose(opened, in_place=True)
            picture: Image.Image = opened
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
        if size is not None:
            picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture)
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        if "cannot identify image file" in reason:  # followed by an address in memory
            reason = "no known format of images"
        raise ValueError(
            f"{name} cannot be read as an image ({reason}); accepted: whole images, of which none is left out"
        ) from error
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape[-2:]))


def _held_out(fraction: float, n: int) -> dict[str, np.ndarray]:
    """Return the rows of the train and the test split, in order, the same for every seed."""
    n_test = round(fraction * n)
    if not 0 < n_test < n:
        raise ValueError(
            f"data.test_fraction is {fraction!r}; accepted: a share of {n} images that leaves one in each split"
        )
    order = StepRandom(0, 0).permutation("data.test_fraction", n).numpy()
    return {"train": np.sort(order[n_test:]), "test": np.sort(order[:n_test])}


def _checked_classes(source: Source, parts: dict[str, Part]) -> int:
    """Return the number of classes; each must have a training example."""
    names = parts["train"].classes
    highest = max(int(part.labels.max(initial=-1)) for part in parts.values())
    count = highest + 1 if names is None else len(names)
    for part in parts.values():
        if len(wrong := np.flatnonzero((part.labels < 0) | (part.labels >= count))):
            accepted = f"a class from 0 to {count - 1}"
            if names is None:
                accepted = "a class of at least 0"
            raise ValueError(
                f"{part.where(int(wrong[0]))} has the label {part.labels[wrong[0]]}, of {len(wrong)} like it; "
                f"accepted: {accepted}"
            )
    rows = np.arange(len(parts["train"].labels))
    if source.test_fraction is not None:
        rows = _held_out(source.test_fraction, len(rows))["train"]
    counts = np.bincount(parts["train"].labels[rows], minlength=count)
    if count == 0 or (counts == 0).any():
        missing = int(np.flatnonzero(counts == 0)[0]) if count else 0
        called = f" ({names[missing]})" if names else ""
        raise ValueError(
            f"class {missing}{called} of {source.name} has no training example; accepted: at least one of each class"
        )
    return count
