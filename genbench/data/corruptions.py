"""Deliberate corruptions of a training set: label noise, imbalance, duplicates and randomized inputs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_choice
from genbench.rng import StepRandom

NOISE = ("symmetric", "asymmetric")
Noise = str | Sequence[Sequence[float]]
INPUTS = ("original", "shuffled_pixels", "shuffled_blocks", "random_pixels", "gaussian")
_BLOCK = 4  # points a side
Splits = Mapping[str, tuple[Tensor, Tensor]]


def replaced_labels(y: Tensor, kind: str | Tensor, *, classes: int, draw: StepRandom) -> Tensor:
    """Return the noisy version of each label [n, ...].

    - ``symmetric``: a class drawn uniformly from all, the true one included; noise on all labels gives the random
    labels
      of Zhang et al. 2017 (arXiv 1611.03530).
    - ``asymmetric``: the next class, and the first for the last (pair flips: Han et al. 2018, arXiv 1804.06872).
    - A confusion matrix T [K, K]: class j with probability T_ij for the true class i (Patrini et al. 2017, arXiv
      1609.03683).
    """
    if isinstance(kind, Tensor):
        return draw.classes("data.noise.label", kind.to(y.device)[y.flatten()]).view(y.shape)
    if kind == "asymmetric":
        return (y + 1) % classes
    return torch.randint(classes, y.shape, generator=draw.generator("data.noise.label"), device=draw.device)


def noise_of(kind: Noise, classes: int) -> str | Tensor:
    """Return a checked kind of label noise: a name, or a confusion matrix [K, K] (float64) by true and given class.

    The matrix is given as rows or as a .npy or .csv file of them, in shares or counts; each row is divided by its sum.

    Raises:
        ValueError: neither a kind nor such a matrix.
    """
    if kind in NOISE:
        return str(kind)
    rows: Any = kind
    if isinstance(kind, str):
        if Path(kind).suffix not in (".npy", ".csv"):
            accepted = f"{', '.join(NOISE)}, the rows of a confusion matrix, or a .npy or .csv file of them"
            raise ValueError(f"data.noise_kind is {kind!r}; accepted: {accepted}")
        try:
            rows = np.load(kind) if kind.endswith(".npy") else np.loadtxt(kind, delimiter=",", ndmin=2)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise ValueError(f"data.noise_kind is {kind!r}, which cannot be read: {reason}") from None
    accepted = f"{classes} rows of {classes} numbers of at least 0, none all zero"
    try:
        matrix = torch.tensor([[float(number) for number in row] for row in rows], dtype=torch.float64)
    except (TypeError, ValueError):
        raise ValueError(f"data.noise_kind is {kind!r}; accepted: {accepted}") from None
    if matrix.shape != (classes, classes):
        raise ValueError(f"data.noise_kind is a matrix of shape {tuple(matrix.shape)}; accepted: {accepted}")
    for i, row in enumerate(matrix):
        if not (row.isfinite().all() and row.min() >= 0 and row.sum() > 0):
            raise ValueError(f"data.noise_kind: row {i} is {row.tolist()}; accepted: {accepted}")
    return matrix / matrix.sum(1, keepdim=True)


def imbalanced(order: Tensor, y: Tensor, *, size: int, ratio: float, classes: int) -> Tensor:
    """Select the first ``size`` examples in ``order`` [n] such that class k has a share ∝ ratio^(−k / (K − 1)).

    This is a long tail: the first class is ``ratio`` times as frequent as the last (Cui et al. 2019, arXiv 1901.05555).

    Raises:
        ValueError: a class has too few examples, or would keep none.
    """
    shares = ratio ** (-torch.arange(classes, dtype=torch.float64) / max(1, classes - 1))
    exact = shares / shares.sum() * size
    counts = exact.floor().long()
    counts[(exact - counts).argsort(descending=True, stable=True)[: size - int(counts.sum())]] += 1
    labels = y[order]
    kept = torch.zeros(len(order), dtype=torch.bool)
    for k, count in enumerate(counts.tolist()):
        places = (labels == k).nonzero().flatten()
        if not 1 <= count <= len(places):
            raise ValueError(
                f"data.imbalance is {ratio!r} with data.train_size={size}: class {k} would have {count} examples; "
                f"accepted: what leaves each class at least 1 and at most what there is ({len(places)} of class {k})"
            )
        kept[places[:count]] = True
    return order[kept]


def duplicated(n: int, share: float, draw: StepRandom) -> Tensor:
    """Return the example at each of n places: the last ``round(share · n)`` places hold uniformly drawn copies of
    others.

    The size stays and the diversity falls; copies at a small share are copies at every larger one.
    """
    copies = min(round(share * n), n - 1)
    rows = torch.arange(n)
    if copies:
        own = n - copies
        rows[own:] = (draw.uniform("data.duplicates", n)[own:] * own).long().clamp(max=own - 1)
    return rows


def randomized_inputs(splits: Splits, kind: str, draw: StepRandom) -> dict[str, tuple[Tensor, Tensor]]:
    """Randomize the inputs of every split as Zhang et al. 2017 do (arXiv 1611.03530, Fig. 1).

    - ``shuffled_pixels``: permutes the points of all inputs by one permutation.
    - ``shuffled_blocks``: permutes blocks of four points a side by one permutation of all inputs. Within a block each
      point keeps its neighbours.
    - ``random_pixels``: permutes the points of each input by its own permutation.
    - ``gaussian``: replaces inputs by normal numbers with the mean and standard deviation of the training inputs.

    The channels of a point stay together; tokens [n, T] are points without channels.
    """
    check_choice("data.inputs", kind, INPUTS)
    if kind == "original":
        return dict(splits)
    inputs = splits["train"][0]
    tokens = not inputs.is_floating_point()
    if kind == "gaussian" and tokens:
        raise ValueError(f"data.inputs is {kind!r}; accepted: {', '.join(INPUTS[:-1])}, where inputs are tokens")
    points = inputs.shape[1] if tokens else inputs[0, 0].numel()
    if kind == "shuffled_blocks":
        together = _block_order(tuple(inputs.shape[1 if tokens else 2 :]), draw)
    else:
        together = draw.permutation("data.inputs", points)
    found = {}
    for split, (x, y) in splits.items():
        if kind == "gaussian":
            moved = inputs.mean() + inputs.std() * draw.normal(f"data.inputs.{split}", *x.shape)
        else:
            order = together.expand(len(x), points)
            if kind == "random_pixels":
                order = draw.uniform(f"data.inputs.{split}", len(x), points).argsort(1)
            channels = x.view(len(x), -1, points)
            moved = channels.gather(2, order[:, None].expand_as(channels)).view_as(x)
        found[split] = (moved, y)
    return found


def _block_order(sides: tuple[int, ...], draw: StepRandom) -> Tensor:
    """For each point the one that takes its place when the blocks change places, [points]."""
    if any(side % _BLOCK for side in sides):
        shape = " × ".join(map(str, sides))
        raise ValueError(
            f"data.inputs is 'shuffled_blocks' with inputs of {shape}; accepted: sides that are multiples of {_BLOCK}"
        )
    counts = [side // _BLOCK for side in sides]
    grid = torch.arange(math.prod(sides)).view([part for count in counts for part in (count, _BLOCK)])
    outer, inner = range(0, grid.ndim, 2), range(1, grid.ndim, 2)
    blocks = grid.permute(*outer, *inner).reshape(math.prod(counts), -1)
    order = draw.permutation("data.inputs.blocks", len(blocks))
    apart = blocks[order].view(*counts, *[_BLOCK] * len(sides))
    back = [axis for i in range(len(sides)) for axis in (i, len(sides) + i)]
    return apart.permute(back).reshape(-1)
