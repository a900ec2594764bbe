"""Sources of images: folders, files of parquet and data sets of the hub, before anything is decoded."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from genbench import hub
from genbench.checks import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_ROWS = 256  # rows of a parquet file that are read at once


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of images and how they are decoded: the settings of :class:`genbench.data.images.ImageData`."""

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
        """Name of the data set in messages."""
        return Path(self.path).resolve().name if self.path is not None else str(self.hub).rpartition("/")[2]


class Part:
    """A split of a source: labels [n], names of the classes if they are known, and encoded images."""

    labels: np.ndarray
    classes: list[str] | None

    def images(self) -> Iterator[tuple[str, bytes | Path]]:
        """Yield the name of each image, and its bytes or its file."""
        raise NotImplementedError

    def where(self, row: int) -> str:
        """Return the name of one image."""
        return next(islice(self.images(), row, None))[0]


class _ClassFolders(Part):
    """CLASS/*.png: a class for each folder, numbered in the order of their names."""

    def __init__(self, root: Path, found: Sequence[str], classes: list[str]) -> None:
        self._root, self._found, self.classes = root, found, classes
        number = {name: index for index, name in enumerate(classes)}
        self.labels = np.array([number[_class(file)] for file in found], dtype=np.int64)

    def images(self) -> Iterator[tuple[str, Path]]:
        for file in self._found:
            yield file, self._root / file


class _Table(Part):
    """Arrow tables as on the hub: a column of images (structs of bytes and path) and a column of labels."""

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
        """Yield the column in parts, each an Arrow array with the name of its file."""
        raise NotImplementedError

    def read_labels(self) -> None:
        """Read the labels without the images, which take long."""
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
    """Parquet files."""

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
            batches = self._file(name).iter_batches(batch_size=_ROWS, columns=[column])
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


def parts_of(source: Source) -> dict[str, Part]:
    """Return the splits train and test, or train alone if the test split is a share of it."""
    wanted = {"train": "train"} | ({"test": source.test_split} if source.test_fraction is None else {})
    if source.path is None:
        return {name: _of_hub(source, split) for name, split in wanted.items()}
    root = Path(source.path)
    found = [name for name, *_ in files_of(root)]
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
    needed_by = f"data.hub={source.hub!r}"
    load_dataset = require("datasets", extra="datasets", needed_by=needed_by, otherwise=alternative).load_dataset
    hub.go_offline()
    try:
        dataset = load_dataset(source.hub, name=source.subset, split=split)
    except Exception as error:  # network, hub and library raise dozens of kinds
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise ValueError(
            f"data.hub={source.hub!r} cannot be read, for which a network is needed once ({reason}); accepted also: "
            f"{alternative}"
        ) from error
    return _Hub(dataset, f"{source.hub} {split}", source.label)


def files_of(root: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of each file of images, in order."""
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
    """Return the files that belong to a split by the hub's rules: train.parquet, train-00000-of-00002.parquet,
    train/part.parquet."""
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
    otherwise = "image files in one folder for each class"
    return require("pyarrow.parquet", extra="datasets", needed_by="reading parquet", otherwise=otherwise)


def _readable(name: str, read: Callable[[], Any]) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be read as parquet ({reason[:200]}); accepted: a whole file") from error
