"""Loaders that gather batches from tensors on the device."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.rng import StepRandom, derive_seed


class WarmStart(NamedTuple):
    """The first ``steps`` steps, whose batches have ``batch_size`` examples."""

    steps: int
    batch_size: int


def kept(n: int, left_out: float) -> int:
    """Return how many of n examples remain if a share is left out."""
    return n - round(left_out * n)


class Batches:
    """Shuffled batches whose order depends on (seed, epoch) alone: no workers, no global random state.

    ``seeds=None`` yields x: [B, ...] and y: [B], ordered by ``seed``. A tuple of seeds, one a lane, yields
    x: [lanes, B, ...] and y: [lanes, B]; each lane sees the order that a run with its seed alone would see.

    With ``parts`` the lanes take their examples from as many consecutive parts of equal size in turn, and an epoch is
    one of a part. With ``left_out`` each lane leaves out this share of them in all epochs, at random by its seed.

    The last partial batch of an epoch is dropped: all steps give examples the same weight, batch statistics are of full
    batches, and an epoch has ``floor(n / batch_size)`` steps in all compared runs.

    Lightning sets the epoch by ``sampler.set_epoch``, in a resumed fit only after ``iter()``; the order is therefore
    drawn at the first ``next()``. ``state_dict()`` holds the position within an epoch: training resumed from a
    checkpoint in the middle of an epoch continues with the next batch.

    With ``warm_start`` the first steps take the batches that a loader of its batch size would yield first; an epoch
    keeps its number of steps, of which the warm start has a multiple.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        batch_size: int,
        seed: int,
        seeds: tuple[int, ...] | None = None,
        warm_start: WarmStart | None = None,
        parts: int = 1,
        left_out: float = 0.0,
    ) -> None:
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.parts = parts
        self.left_out = left_out
        self.warm_start = warm_start
        self.seed = seed
        self.seeds = seeds
        self.epoch = 0
        self._position = 0  # batches yielded in this epoch
        self._resume: dict[str, Any] = {}

    @property
    def sampler(self) -> "Batches":
        """This object, since Lightning calls ``loader.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def order(self, lane: int, epoch: int) -> Tensor:
        """Return the order of one lane in one epoch as indices [len(self), B]."""
        seed = (self.seeds or (self.seed,))[lane]
        return self.rows(lane)[self._of_lane(seed, epoch)]

    def rows(self, lane: int) -> Tensor:
        """Return the examples that a lane trains on, as ascending indices."""
        size = len(self.y) // self.parts
        own = torch.arange(size) + lane % self.parts * size
        if not self.left_out:
            return own
        generator = torch.Generator().manual_seed(derive_seed((self.seeds or (self.seed,))[lane], "left_out"))
        return own[torch.randperm(size, generator=generator)[: self._examples].sort().values]

    def _of_lane(self, seed: int, epoch: int) -> Tensor:
        steps = len(self)
        if self.warm_start is None or epoch * steps >= self.warm_start.steps:
            return self._order(seed, epoch, self.batch_size)
        each = self._examples // self.warm_start.batch_size
        first, last = epoch * steps, (epoch + 1) * steps
        parts = [self._order(seed, e, self.warm_start.batch_size) for e in range(first // each, -(-last // each))]
        start = first // each * each
        return torch.cat(parts)[first - start : last - start]

    def _order(self, seed: int, epoch: int, size: int) -> Tensor:
        # drawn on the CPU, so that the same run sees the same order on every device
        generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
        steps = self._examples // size
        return torch.randperm(self._examples, generator=generator)[: steps * size].view(steps, -1)

    @property
    def _examples(self) -> int:
        """Number of examples that a lane trains on."""
        return kept(len(self.y) // self.parts, self.left_out)

    def indices(self, epoch: int) -> Tensor:
        """Return the rows of every batch of an epoch, [len(self), B], or with lanes [len(self), lanes, B]."""
        if self.seeds is None:
            return self.order(0, epoch)
        return torch.stack([self.order(lane, epoch) for lane in range(len(self.seeds))], dim=1)

    def __len__(self) -> int:
        return self._examples // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        index = None
        for position in self._positions():
            if index is None:
                index = self.indices(self.epoch).to(self.y.device)
            rows = index[position].flatten()  # index_select copies whole rows: several times faster than indexing
            batch = (t.index_select(0, rows).unflatten(0, index.shape[1:]) for t in (self.x, self.y))
            yield next(batch), next(batch)

    def _positions(self) -> Iterator[int]:
        """Yield the positions of the remaining batches of this epoch, and remember each."""
        resume, self._resume = self._resume, {}
        start = resume["position"] % len(self) if resume.get("epoch") == self.epoch else 0
        for position in range(start, len(self)):
            self._position = position + 1
            yield position

    @staticmethod
    def merge(loaders: Sequence[Any], lanes: Sequence[tuple[int, int]]) -> "Batches":
        """Merge the batches of several loaders: ``lanes`` names for each lane its loader and its index in its seeds."""
        return MergedBatches(loaders, lanes)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of its batches that were yielded."""
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches that ``state`` counts, if the next iteration is of the same epoch."""
        self._resume = dict(state)


class MergedBatches(Batches):
    """Merges the lanes of several loaders: x [lanes, B, ...] and y [lanes, B].

    Each lane gets the batches of its own loader. Loaders must agree in batch size and number of batches.

    Args:
        loaders: loaders with ``seeds``.
        lanes: for each lane, the index of its loader and the index in that loader's seeds; ``None``: all in turn.
    """

    def __init__(self, loaders: Sequence[Batches], lanes: Sequence[tuple[int, int]] | None = None) -> None:
        first = loaders[0]
        if len({(loader.batch_size, len(loader)) for loader in loaders}) != 1:
            raise ValueError("loaders differ in batch size or number of batches; accepted: loaders that agree in both")
        x, y = (torch.cat([getattr(loader, name) for loader in loaders]) for name in ("x", "y"))
        super().__init__(x, y, batch_size=first.batch_size, seed=0)
        self._steps = len(first)
        offsets = [0, *accumulate(len(loader.y) for loader in loaders)]
        every = [(i, k) for i, loader in enumerate(loaders) for k in range(len(loader.seeds or ()))]
        self._lanes = [(loaders[i], k, offsets[i]) for i, k in (every if lanes is None else lanes)]

    def indices(self, epoch: int) -> Tensor:
        return torch.stack([loader.order(lane, epoch) + offset for loader, lane, offset in self._lanes], dim=1)

    def __len__(self) -> int:
        return self._steps


class Stream(Batches):
    """Batches of new examples: ``make(draw, n, epoch)`` returns n inputs [n, ...] and labels [n], keyed by (seed,
    epoch, batch).

    With ``seeds``, batches have a leading lane axis, as those of :class:`Batches`.
    """

    def __init__(
        self,
        make: Callable[[StepRandom, int, int], tuple[Tensor, Tensor]],
        *,
        steps: int,
        batch_size: int,
        seed: int,
        seeds: tuple[int, ...] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        nothing = torch.empty(0, device=device)
        super().__init__(nothing, nothing, batch_size=batch_size, seed=seed, seeds=seeds)
        self._steps = steps
        self._lanes = [(make, one) for one in (seeds or (seed,))]

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for position in self._positions():
            made = [
                make(
                    StepRandom(derive_seed(seed, "stream", self.epoch), position, device=self.x.device),
                    self.batch_size,
                    self.epoch,
                )
                for make, seed in self._lanes
            ]
            x, y = made[0] if self.seeds is None else (torch.stack(parts) for parts in zip(*made, strict=True))
            yield x, y

    @staticmethod
    def merge(loaders: Sequence[Any], lanes: Sequence[tuple[int, int]]) -> "Stream":
        first = loaders[0]
        merged = Stream(
            first._lanes[0][0], steps=len(first), batch_size=first.batch_size, seed=0, seeds=(), device=first.x.device
        )
        merged._lanes = [loaders[index]._lanes[place] for index, place in lanes]
        return merged


class Epochs:
    """Yields each epoch of a loader as one item, an iterator of its batches, for a training step that loops itself.

    Lightning's own loop takes a third of the time of a packed step for each batch.
    """

    def __init__(self, batches: Batches) -> None:
        self.sampler = batches  # Lightning sets its epoch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        yield iter(self.sampler)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the batches, with their position in the epoch, and that Lightning counts whole epochs."""
        return {**self.sampler.state_dict(), "whole_epochs": True}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of the batches."""
        self.sampler.load_state_dict(state)


class Chunks:
    """Yields every example once, in a fixed order, for validation loops outside genbench."""

    def __init__(self, chunks: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.chunks = chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.chunks)
