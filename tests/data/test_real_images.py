"""The real sets of images, as their authors describe them."""

import os
from pathlib import Path

import pytest
import torch

from genbench.data.images import ImageData

REAL = Path(os.environ.get("GENBENCH_DATA", ""))


@pytest.mark.skipif("GENBENCH_DATA" not in os.environ, reason="GENBENCH_DATA names no folder of real data")
@pytest.mark.parametrize(
    ("name", "channels", "mean", "labels"),
    [
        ("cifar10", 3, [0.4914, 0.4822, 0.4465], [3, 8, 1, 0, 4, 0, 9, 3, 4, 9]),
        ("fashion_mnist", 1, [0.2860], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]),
    ],
)
def test_real_images(name, channels, mean, labels):
    pytest.importorskip("pyarrow", reason="parquet needs the extra datasets")
    data = ImageData(path=str(REAL / name), batch_size=10, normalize="none", channels=channels)
    assert [len(data.tensors(split)[1]) for split in data.splits] == [{1: 60_000, 3: 50_000}[channels], 10_000]
    assert torch.bincount(data.tensors("test")[1]).tolist() == [1000] * 10
    assert data.tensors("test")[1][:10].tolist() == labels
    x = torch.cat([x.mean((2, 3)) for x, _ in data.evaluation_batches("train")])
    assert x.mean(0).tolist() == pytest.approx(mean, abs=2e-4)
