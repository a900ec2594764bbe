"""Small files of images, laid out as on the hub and as folders a class."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def pixels(n: int, *, side: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random images, uint8 [n, H, W, 3], or [n, H, W] of one channel."""
    shape = (n, side, side, 3) if channels == 3 else (n, side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_folders(root: Path, images: np.ndarray, labels: Sequence[int], *, names: str = "abcdefghij") -> Path:
    """CLASS/NUMBER.png"""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = root / names[label] / f"{index:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(image))
    return root


def write_splits(root: Path, *, train: int, test: int, side: int) -> Path:
    """A folder of each split with so many random images, of ten classes in turn."""
    for split, n in (("train", train), ("test", test)):
        write_folders(root / split, pixels(n, side=side, seed=n), [i % 10 for i in range(n)])
    return root


def write_parquet(
    file: Path,
    images: Sequence[Any],
    labels: Sequence[int | None] | None,
    *,
    names: Sequence[str] = (),
    key: str = "img",
) -> Path:
    """As the hub's: images are arrays, or encoded already."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": i if isinstance(i, bytes) else encoded(i), "path": f"{n}.png"} for n, i in enumerate(images)]
    columns: dict[str, Any] = {key: pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    table = pa.table(columns)
    if names:
        features = {key: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=50)
    return file


def write_tiny(root: Path) -> Path:
    """A set that stands for each choice of images without a network: 240 images of 10 classes, 20 to test on."""
    write_folders(root / "train", pixels(240), [index % 10 for index in range(240)])
    write_folders(root / "test", pixels(20, seed=1), [index % 10 for index in range(20)])
    for other in ("valid", "validation"):
        (root / other).symlink_to("test")
    return root
