"""Files of images, decoded once into bytes on disk."""

import hashlib
import io
import json
import os
import re
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

from genbench import hub
from genbench.data.cache import cached_folder, folder
from genbench.rng import Draw

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_RULES = 2  # of decoding; cached images are of one number: 2 composites transparency and turns by EXIF
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of Pillow's, 8 bits a channel
_CHUNK = 256  # images that a thread decodes at a time
_VERIFIED = 2**30  # bytes that are hashed at every start; more would take longer than a start may


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where images come from and how they are decoded: the settings of :class:`genbench.data.images.ImageData`."""

    hub: str | None
    subset: str | None
    path: str | None
    label: str
    test_split: str
    test_fraction: float | None
    channels: int
    size: int | None

    @property
    def name(self) -> str:
        """What the set is called in messages."""
        return Path(self.path).resolve().name if self.path is not None else str(self.hub).rpartition("/")[2]


@dataclass(frozen=True)
class Decoded:
    """Images as bytes on disk: of the train and the test split the file, its shape [n, C, H, W] and the labels [n].

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
    """The decoded images of a source, from the cache where they lie there.

    What is on the hub is identified by its name, what lies in a folder by the names, sizes and times of its files; the
    bytes themselves are hashed when they are decoded, and up to 1 GiB again at every start.

    Raises:
        ValueError: the source cannot be read, or an image or a label of it: see the functions of this file.
    """
    try:
        return _opened(cached_folder(cache_name(source), partial(_decode, source), whole=_whole))
    except OSError as error:
        raise ValueError(
            f"the decoded images of {source.name} cannot be kept in {str(folder())!r} ({error.strerror or error}); "
            "accepted: a folder with room for them in the environment variable GENBENCH_CACHE"
        ) from error


def cache_name(source: Source) -> str:
    """Under which the decoded images of a source are cached."""
    found = None if source.path is None else _files(Path(source.path))
    described = json.dumps(
        [_RULES, asdict(source), found and str(Path(str(source.path)).resolve()), found], sort_keys=True
    )
    return f"images/{source.name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


def ahead(function: Callable[[Any], Any], items: Iterable[Any], *, workers: int) -> Iterator[Any]:
    """function(item) of each item in turn, made in threads before it is asked for, at most ``2 · workers`` at once."""
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
    """A split in the making: its array file, written image by image, its hash, and the moments of its channels."""

    def __init__(self, folder: Path, split: str, labels: np.ndarray) -> None:
        self._path, self._labels = folder / f"{split}_x.npy", labels
        self.shape: tuple[int, ...] = ()
        np.save(folder / f"{split}_y.npy", labels)

    def add(self, images: np.ndarray) -> None:
        """The next images, uint8 [n, C, H, W]."""
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
        """Mean and standard deviation of each channel."""
        n = prod(self.shape) // self.shape[1]
        mean = self._sum / n
        return mean.tolist(), np.sqrt(np.maximum(self._squares / n - mean**2, 0)).tolist()


def _decode(source: Source, folder: Path) -> None:
    from rich.console import Console
    from rich.progress import track

    parts = _parts(source)
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
        made = ahead(decode, _chunks(part.images()), workers=os.cpu_count() or 1)
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
    """One image, uint8 [C, H, W], grey or RGB, as it is shown: turned as its EXIF orientation says, what is transparent
    on white. With ``size`` its shorter side is scaled to it (bicubic) and the middle is taken.

    Raises:
        ValueError: it is damaged, no image, or has more than 8 bits a channel; in one line, with its name.
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
        if "cannot identify image file" in reason:  # and then where in memory it lies
            reason = "no known format of images"
        raise ValueError(
            f"{name} cannot be read as an image ({reason}); accepted: whole images, of which none is left out"
        ) from error
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape[-2:]))


def _held_out(fraction: float, n: int) -> dict[str, np.ndarray]:
    """Rows of training and of testing, in order; the same for every seed."""
    n_test = round(fraction * n)
    if not 0 < n_test < n:
        raise ValueError(
            f"data.test_fraction is {fraction!r}; accepted: a share of {n} images that leaves one in each split"
        )
    order = Draw(0, 0).permutation("data.test_fraction", n).numpy()
    return {"train": np.sort(order[n_test:]), "test": np.sort(order[:n_test])}


def _checked_classes(source: Source, parts: dict[str, "_Part"]) -> int:
    """The number of classes, each with a training example."""
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


# -- what lies on a disk or on the hub


class _Part:
    """A split of a source: the labels [n], the names of the classes where they are known, and the encoded images."""

    labels: np.ndarray
    classes: list[str] | None

    def images(self) -> Iterator[tuple[str, bytes | Path]]:
        """The name of each image, and its bytes or its file."""
        raise NotImplementedError

    def where(self, row: int) -> str:
        """The name of one image."""
        return next(islice(self.images(), row, None))[0]


class _ClassFolders(_Part):
    """CLASS/*.png: a class for each folder, numbered in the order of their names."""

    def __init__(self, root: Path, found: Sequence[str], classes: list[str]) -> None:
        self._root, self._found, self.classes = root, found, classes
        number = {name: index for index, name in enumerate(classes)}
        self.labels = np.array([number[_class(file)] for file in found], dtype=np.int64)

    def images(self) -> Iterator[tuple[str, Path]]:
        for file in self._found:
            yield file, self._root / file


class _Table(_Part):
    """Arrow tables as those of the hub: a column of images, structs of bytes and path, and one of labels."""

    def __init__(self, label: str, schemas: Sequence[tuple[str, Any]], features: Any = None) -> None:
        name, schema = schemas[0]
        if label not in schema.names:
            columns = ", ".join(schema.names)
            raise ValueError(f"{name} has no column {label!r} of labels (data.label); accepted: one of {columns}")
        fields = [field for field in schema if _holds_images(field.type)]
        if not fields:
            raise ValueError(
                f"{name} has no column of images, only {', '.join(schema.names)}; accepted: bytes, or structs of bytes "
                "and path, as on the hub"
            )
        self._image, self._label = fields[0].name, label
        self.classes = (features or {}).get(label, {}).get("names")

    def tables(self, column: str) -> Iterator[tuple[str, Any]]:
        """The column in parts, each with the name of its file; an array of Arrow's."""
        raise NotImplementedError

    def read_labels(self) -> None:
        """Read the labels: not of the images yet, as these take long."""
        import pyarrow as pa

        parts = []
        for name, column in self.tables(self._label):
            if not pa.types.is_integer(column.type):
                raise ValueError(
                    f"{name}: column {self._label!r} (data.label) holds {column.type}; accepted: whole numbers from 0"
                )
            parts.append(column.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
        self.labels = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def images(self) -> Iterator[tuple[str, bytes]]:
        import pyarrow as pa

        rows: dict[str, int] = {}
        for name, column in self.tables(self._image):
            values = column.field("bytes") if pa.types.is_struct(column.type) else column
            for value in values:
                row = rows[name] = rows.get(name, -1) + 1
                yield f"{name}, row {row}", value.as_py() or b""


class _Parquet(_Table):
    """Files of parquet."""

    def __init__(self, root: Path, found: Sequence[str], label: str) -> None:
        self._root, self._found = root, found
        schema = self._file(found[0]).schema_arrow
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        super().__init__(label, [(found[0], schema)], about.get("info", {}).get("features"))
        self.read_labels()

    def _file(self, name: str) -> Any:
        return _readable(name, lambda: _pyarrow_parquet().ParquetFile(self._root / name))

    def tables(self, column: str) -> Iterator[tuple[str, Any]]:
        for name in self._found:
            batches = self._file(name).iter_batches(batch_size=_CHUNK, columns=[column])
            while (batch := _readable(name, partial(next, batches, None))) is not None:
                yield name, batch.column(0)


class _Hub(_Table):
    """A split of a data set of the hub, through the library ``datasets``."""

    def __init__(self, dataset: Any, name: str, label: str) -> None:
        self._dataset, self._name = dataset, name
        features = {key: {"names": getattr(feature, "names", None)} for key, feature in dataset.features.items()}
        super().__init__(label, [(name, dataset.data.schema)], features)
        self.read_labels()

    def tables(self, column: str) -> Iterator[tuple[str, Any]]:
        for chunk in self._dataset.data.column(column).chunks:
            yield self._name, chunk


def _parts(source: Source) -> dict[str, _Part]:
    """The splits train and test, or train alone where images of it are to be held out."""
    wanted = {"train": "train"} | ({"test": source.test_split} if source.test_fraction is None else {})
    if source.path is None:
        return {name: _of_hub(source, split) for name, split in wanted.items()}
    root = Path(source.path)
    found = [name for name, *_ in _files(root)]
    parquet = [file for file in found if file.endswith(".parquet")]
    if parquet:
        inside = [file for file in parquet if source.subset in Path(file).parts]
        return {
            name: _Parquet(root, _of_split(inside or parquet, split, source.path), source.label)
            for name, split in wanted.items()
        }
    if loose := [file for file in found if "/" not in file]:
        raise ValueError(f"{loose[0]} lies in no folder of a class: labels are missing; accepted: {_LAYOUTS}")
    splits = sorted({_class(file) for file in found if file.count("/") >= 2})
    if "train" in splits:
        if missing := [split for split in wanted.values() if split not in splits]:
            raise ValueError(_no_split(source.path, missing[0], splits))
        roots = dict(wanted)
    elif source.test_fraction is None:
        raise ValueError(
            f"data.path={source.path!r} has a folder a class and no split; accepted: data.test_fraction in (0, 1), or "
            f"folders train/CLASS and {source.test_split}/CLASS"
        )
    else:
        roots = {"train": "."}
    files = {
        name: [file.removeprefix(f"{top}/") for file in found if top == "." or file.startswith(f"{top}/")]
        for name, top in roots.items()
    }
    classes = sorted(
        path.name for path in (root / roots["train"]).iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    for name, top in roots.items():
        if loose := [file for file in files[name] if "/" not in file]:
            raise ValueError(
                f"{top}/{loose[0]} lies in no folder of a class: labels are missing; accepted: {top}/CLASS/{loose[0]}"
            )
        if strange := [file for file in files[name] if _class(file) not in classes]:
            raise ValueError(f"{top}/{strange[0]}: {_class(strange[0])!r} is no class of training; {_listed(classes)}")
    return {name: _ClassFolders(root / top, files[name], classes) for name, top in roots.items()}


def _of_hub(source: Source, split: str) -> _Hub:
    alternative = "data.path=FOLDER with its parquet files or with a folder a class"
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            f"data.hub={source.hub!r} needs the library datasets: pip install 'genbench[datasets]'; accepted also: "
            f"{alternative}"
        ) from None
    hub.go_offline()
    try:
        dataset = load_dataset(source.hub, name=source.subset, split=split)
    except Exception as error:  # of the network, the hub and the library: dozens
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise ValueError(
            f"data.hub={source.hub!r} cannot be read, for which a network is needed once ({reason}); accepted also: "
            f"{alternative}"
        ) from error
    return _Hub(dataset, f"{source.hub} {split}", source.label)


def _files(root: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of each file of images, in order."""
    if not root.is_dir():
        raise ValueError(f"data.path is {str(root)!r}, where there is no folder; accepted: {_LAYOUTS}")
    found = []
    for top, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith((*SUFFIXES, ".parquet")) and not name.startswith("."):
                file = Path(top) / name
                about = file.stat()
                found.append((file.relative_to(root).as_posix(), about.st_size, about.st_mtime_ns))
    if not found:
        raise ValueError(f"data.path={str(root)!r} has no images; accepted: {_LAYOUTS}")
    return found


_LAYOUTS = (
    "a folder with train*.parquet and test*.parquet as on the hub, train/CLASS/*.png and test/CLASS/*.png, or "
    "CLASS/*.png with data.test_fraction"
)


def _of_split(files: Sequence[str], split: str, path: str) -> list[str]:
    """The files that the hub takes for a split: train.parquet, train-00000-of-00002.parquet, train/part.parquet."""
    splits: dict[str, list[str]] = {}
    for file in files:
        *folders, name = file.split("/")
        first = re.split(r"[-_.]", name)[0]
        splits.setdefault(folders[-1] if folders and folders[-1] in ("train", split) else first, []).append(file)
    if split not in splits:
        raise ValueError(_no_split(path, split, sorted(splits)))
    return splits[split]


def _no_split(path: str, split: str, splits: Sequence[str]) -> str:
    choices = [name for name in splits if name != "train"]
    accepted = "data.test_fraction in (0, 1)" if split != "train" else "a split named train"
    if split != "train" and choices:
        accepted += f", or data.test_split={choices[0]}"
    return f"data.path={path!r} has no split {split!r}, only {', '.join(splits)}; accepted: {accepted}"


def _class(file: str) -> str:
    return file.split("/")[0]


def _listed(names: Sequence[str]) -> str:
    return f"accepted: {', '.join(names[:10])}{', …' if len(names) > 10 else ''}"


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            "files of parquet need the library pyarrow: pip install 'genbench[datasets]'; accepted also: a folder a "
            "class of image files"
        ) from None
    return pyarrow.parquet


def _readable(name: str, read: Callable[[], Any]) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be read as parquet ({reason[:200]}); accepted: a whole file") from error
