"""Batches of 512 images 3 × 32 × 32, flipped, cropped and cut out: as a training step makes them, against a
DataLoader with two workers, kept and warm, that does the same to each image by itself.

That is measured twice: with torch's operations on tensors, and with NumPy's, as fast as an image by itself can be
done. All take batches in random order from 4,096 float32 images in memory; in turns, each through all of them.
Beside them what nobody can do without: to take the batch out of the set, and to write it once more.
"""

import argparse
import random
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common import Result, in_turns, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of the training step")


def measure(args: argparse.Namespace) -> list[Result]:
    from torch.utils.data import DataLoader

    from genbench.data.batches import Batches
    from genbench.process.memory import keep_freed
    from genbench.regularization.cutout import Cutout
    from genbench.regularization.flip import Flip
    from genbench.regularization.random_crop import RandomCrop
    from genbench.rng import StepRandom
    from genbench.training.lane import Lane

    keep_freed()
    torch.set_num_threads(args.threads)
    x, y = torch.rand(4096, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4096) % 10
    batches = Batches(x, y, batch_size=512, seed=0)
    methods = [Flip(probability=0.5), RandomCrop(padding=0.125), Cutout(size=0.5)]
    lane = Lane(nn.Linear(1, 1), methods, seed=0)
    loaders = {
        f"image by image in {name}": DataLoader(
            kind(x, y), batch_size=512, num_workers=2, shuffle=True, persistent_workers=True
        )
        for name, kind in (("torch", _Augmented), ("NumPy", _AugmentedArrays))
    }

    def ours(seed: int) -> dict[str, Any]:
        for step, batch in enumerate(batches):
            lane.transformed(*batch, StepRandom(seed, step))
        return {}

    def least(seed: int) -> dict[str, Any]:
        for a, _ in batches:
            a.clone()
        return {}

    def theirs(loader: DataLoader) -> dict[str, Any]:
        for _ in loader:
            pass
        return {}

    candidates: dict[str, Callable[[int], dict[str, Any]]] = {"genbench": ours, "taken and copied": least}
    candidates |= {name: lambda seed, loader=loader: theirs(loader) for name, loader in loaders.items()}
    found = in_turns(candidates, repeats=args.repeats)
    torch.set_num_threads(1)
    seconds = {name: [1e3 * run["seconds"] / len(batches) for run in runs] for name, runs in found.items()}
    print("| | ms a batch, median | min–max |\n|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {statistics.median(taken):.1f} | {min(taken):.1f}–{max(taken):.1f} |")
    rows = []
    for name in loaders:
        ratios = [b / a for a, b in zip(seconds["genbench"], seconds[name], strict=True)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.1f}–{max(ratios):.1f}"
        threads = f"{args.threads} thread{'s' * (args.threads > 1)}"
        what = f"crop, flip and cutout of 512 images, {threads}: × faster than {name}, a DataLoader of two workers"
        rows.append(Result(what, f"{middle:.1f} ({spread})"))
    return rows


class _Augmented(torch.utils.data.Dataset):
    """Images that are flipped, padded and cropped, and cut out, each when it is asked for."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.x[index]
        if random.random() < 0.5:
            image = image.flip(2)
        top, left = random.randrange(9), random.randrange(9)
        image = F.pad(image, (4, 4, 4, 4))[:, top : top + 32, left : left + 32].clone()
        row, column = random.randrange(32), random.randrange(32)
        image[:, max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
        return image, self.y[index]


class _AugmentedArrays(_Augmented):
    """The same without torch, whose calls cost more than their work on so small an image."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x.numpy(), y.tolist()

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, new = self.x[index], np.zeros((3, 32, 32), np.float32)
        if random.random() < 0.5:
            image = image[:, :, ::-1]
        down, right = random.randrange(-4, 5), random.randrange(-4, 5)
        new[:, max(0, down) : 32 + min(0, down), max(0, right) : 32 + min(0, right)] = image[
            :, max(0, -down) : 32 - max(0, down), max(0, -right) : 32 - max(0, right)
        ]
        row, column = random.randrange(32), random.randrange(32)
        new[:, max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
        return torch.from_numpy(new), self.y[index]


if __name__ == "__main__":
    report(measure, __doc__, options)
