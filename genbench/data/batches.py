"""Batches as index draws over tensors that already lie on the device."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from genbench.rng import StepRandom, derive_seed


class Batches:
    """Shuffled batches whose order depends on (seed, epoch) alone: no workers, no global random state.

    ``seeds=None`` yields x: [B, ...] and y: [B], ordered by ``seed``. A tuple of seeds, one a lane, yields
    x: [lanes, B, ...] and y: [lanes, B]; each lane sees the order that a run with its seed alone would see.

    The last partial batch of an epoch is dropped: every step then weighs its examples alike, batch statistics are never
    those of a handful, and an epoch is ``floor(n / batch_size)`` steps in every run that is compared.

    Lightning announces the epoch through ``sampler.set_epoch``, on a resumed fit after it has called ``iter()``, so the
    order is drawn at the first ``next()``. The position within an epoch is part of ``state_dict()``: a checkpoint
    written in the middle of an epoch resumes with the batch that would have followed.
    """

    def __init__(
        self, x: Tensor, y: Tensor, *, batch_size: int, seed: int, seeds: tuple[int, ...] | None = None
    ) -> None:
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.seed = seed
        self.seeds = seeds
        self.epoch = 0
        self._position = 0  # batches yielded in this epoch
        self._resume: dict[str, Any] = {}

    @property
    def sampler(self) -> "Batches":
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def order(self, seed: int, epoch: int) -> Tensor:
        """The order of one lane in one epoch, indices of shape [len(self), B]."""
        # drawn on the CPU, so that the same run sees the same order on every device
        generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
        return torch.randperm(len(self.y), generator=generator)[: len(self) * self.batch_size].view(len(self), -1)

    def indices(self, epoch: int) -> Tensor:
        """The rows of every batch of an epoch, [len(self), B], or with lanes [len(self), lanes, B]."""
        if self.seeds is None:
            return self.order(self.seed, epoch)
        return torch.stack([self.order(seed, epoch) for seed in self.seeds], dim=1)

    def __len__(self) -> int:
        return len(self.y) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        index = None
        for position in self._positions():
            if index is None:
                index = self.indices(self.epoch).to(self.y.device)
            rows = index[position].flatten()  # index_select copies whole rows: several times faster than indexing
            batch = (t.index_select(0, rows).unflatten(0, index.shape[1:]) for t in (self.x, self.y))
            yield next(batch), next(batch)

    def _positions(self) -> Iterator[int]:
        """The places of the batches that are left of this epoch, each noted as it is given."""
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
        """The epoch and the number of its batches already yielded."""
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches ``state`` counts, if the next iteration is of the same epoch."""
        self._resume = dict(state)


class MergedBatches(Batches):
    """Batches of several loaders with lanes, side by side: x [lanes, B, ...] and y [lanes, B].

    Each lane sees what its own loader would give it. The loaders must agree in batch size and number of batches.

    Args:
        loaders: each with ``seeds``.
        lanes: of each lane, its loader and its place among that loader's seeds; ``None`` for all in turn.
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
        self._lanes = [
            (loaders[i], (loaders[i].seeds or ())[k], offsets[i]) for i, k in (every if lanes is None else lanes)
        ]

    def indices(self, epoch: int) -> Tensor:
        return torch.stack([loader.order(seed, epoch) + offset for loader, seed, offset in self._lanes], dim=1)

    def __len__(self) -> int:
        return self._steps


class Stream(Batches):
    """Batches of examples that no step has seen before: ``make(draw, n)`` gives n of them, inputs [n, ...] and labels
    [n], keyed by (seed, epoch, batch). As :class:`Batches` with ``seeds``: a lane axis in front."""

    def __init__(
        self,
        make: Callable[[StepRandom, int], tuple[Tensor, Tensor]],
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
                    StepRandom(derive_seed(seed, "stream", self.epoch), position, device=self.x.device), self.batch_size
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
    """The epochs of a loader as one item each: an iterator of its batches, which a training step goes through by
    itself. To hand over a batch takes Lightning a third of the time of a packed step."""

    def __init__(self, batches: Batches) -> None:
        self.sampler = batches  # whose epoch Lightning sets

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        yield iter(self.sampler)

    def state_dict(self) -> dict[str, Any]:
        """That of the batches: in the midst of a training step, its place in the epoch."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.sampler.load_state_dict(state)


class Chunks:
    """Every example once, in a fixed order, in chunks; what a stranger's validation loop iterates."""

    def __init__(self, chunks: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.chunks = chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.chunks)
