"""The batches of a split as Lightning gives them to its steps, and fixed subsets of their examples."""

import copy
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from genbench.measures.batches import fresh_workers
from genbench.measures.examples import EXAMPLES_FIRST, Layout, length
from genbench.measures.random_state import generators_of, restoring_random_state
from genbench.measures.snapshot import MARKS
from genbench.records.estimate import Estimate

SPLITS = ("train", "val", "test")
ALL = "all"  # the examples of every split, one split after the other
AUTO = "auto"  # measures of curvature and sharpness, which take many passes, use at most FEW examples
FEW = 1024
_SEVERAL = (Mapping, list, tuple)
_LAYOUT = Layout((0, 1))  # the axis of examples is the first or, with time first, the second


@dataclass(frozen=True)
class Data:
    """The batches of a split, and a note for every estimate on them."""

    batches: Iterable[Any]
    note: str | None = None
    total: int | None = None  # number of examples that these were chosen from, if known
    rows: Tensor | None = None  # places of the chosen examples among these; None: all
    mislabelled: Tensor | None = None  # bool [N], where it is known
    relabelled: Tensor | None = None  # likewise
    trained_on: Tensor | None = None  # bool [N, networks], likewise

    @property
    def marks(self) -> dict[str, Tensor | None]:
        """What is known of the examples, as :class:`genbench.measures.Snapshot` takes it."""
        return {name: getattr(self, name) for name in MARKS}

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class Splits:
    """The splits of a Trainer of ``pytorch_lightning`` or ``lightning``.

    A split is all of ``datamodule.evaluation_batches(split)`` if there is such a method. Otherwise it is the batches
    that Lightning gives to its steps, of all processes, within the Trainer's limits. Lightning makes test loaders only
    when it tests, so they are made here, if necessary after ``setup("test")`` of a copy.
    """

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], Data] = {}
        self._prepared: dict[str, Any] = {}  # by hook: the copy after its setup

    def data(self, trainer: Any, pl_module: Any, split: str, *, examples: int | None = None) -> Data | None:
        """Return a split, or ``examples`` of it, which :func:`take` chooses once; ``None`` if there is no such split.

        The split ``all`` is the examples of every split.

        Raises:
            ValueError: a loader that may never end: it has no length and the Trainer no limit.
        """
        own: Any = getattr(trainer, "datamodule", None)
        chosen = SPLITS if split == ALL else (split,)
        if hasattr(own, "evaluation_batches"):
            present = [each for each in chosen if each in getattr(own, "splits", SPLITS)]
            found = [own.evaluation_batches(each) for each in present]
            if not found:
                return None
            if examples is not None:
                data = take(found, examples)
            else:
                data = Data(found[0] if len(found) == 1 else [batch for batches in found for batch in batches])
            return with_marks(data, own, present)
        if examples is not None and (split, examples) in self._taken:
            return self._taken[split, examples]
        loaders = [loader for each in chosen for loader in self._loaders(trainer, pl_module, each)]
        if not loaders:
            return None
        if examples is not None:
            self._taken[split, examples] = take(loaders, examples)
            return self._taken[split, examples]
        if not all(loader.ends for loader in loaders):
            raise ValueError(
                f"the {split} loader may never end (it has no length, the Trainer no limit_{chosen[0]}_batches): "
                "set that limit, or pass examples="
            )
        return Data(_Chain(loaders))

    def _loaders(self, trainer: Any, pl_module: Any, split: str) -> list["_Limited"]:
        limit = getattr(trainer, f"limit_{split}_batches")
        if split == "train":
            loop, found = trainer.fit_loop, trainer.train_dataloader
            # Lightning has reached the loader's end in this epoch or an earlier one
            ends = trainer.is_last_batch or loop.epoch_progress.current.ready > 1
        elif split == "val":
            loop, found = trainer.fit_loop.epoch_loop.val_loop, trainer.val_dataloaders
            ends = loop.batch_progress.is_last_batch
            if found is None and limit:
                source = loop._data_source.instance  # loaders, or a module that makes them
                made = isinstance(source, nn.Module) or source is trainer.datamodule
                found = self._made(source, "val_dataloader") if made else source
        else:
            loop, ends = None, False
            owner = pl_module if trainer.datamodule is None else trainer.datamodule
            found = self._made(owner, "test_dataloader") if limit else None
        combined: Any = found if hasattr(found, "flattened") else getattr(loop, "_combined_loader", None)
        if found is None:
            return []
        if combined is not None and combined._mode != "sequential" and isinstance(combined.iterables, _SEVERAL):
            return [_Limited(_Together(combined), limit, ends=ends)]  # each step gets a batch of every loader
        return [_Limited(fresh_workers(loader), limit, ends=ends) for loader in _listed(found)]

    def _made(self, owner: Any, hook: str) -> Any:
        """Return the loaders that a hook of a module or datamodule makes; ``None`` if nobody wrote that hook."""
        if owner is None or not _written(owner, hook):
            return None
        if hook not in self._prepared:
            try:
                return getattr(owner, hook)()
            except Exception:  # it may need setup("test")
                own = copy.copy(owner)
                if isinstance(own, nn.Module):
                    for registered in ("_modules", "_parameters", "_buffers"):
                        setattr(own, registered, getattr(own, registered).copy())
                own.setup(stage={"val_dataloader": "validate", "test_dataloader": "test"}[hook])
                self._prepared[hook] = own
        return getattr(self._prepared[hook], hook)()


def with_marks(data: Data, module: Any, splits: Sequence[str]) -> Data:
    """Add which examples of these splits are mislabelled, relabelled and trained on, if the data module says so."""
    found: dict[str, Any] = {}
    for name in data.marks:
        if (known := getattr(module, name, None)) is not None:
            whole = torch.cat([known(split) for split in splits])
            found[name] = whole if data.rows is None else whole[data.rows]
    return replace(data, **found)


def take(loaders: Sequence[Any], examples: int, *, seed: int = 0) -> Data:
    """Choose a number of examples, the same at every call; all if there are no more.

    They are a random subset, by ``seed``, of what the loaders would read, in their own batch size and collation. A
    stream has no subsets to choose: of it, take the first examples under a random state by ``seed``, with a note.
    ``loaders`` are DataLoaders, sequences of batches, or any iterables of batches.
    """
    parts = [loader if isinstance(loader, _Limited) else _Limited(loader) for loader in loaders]
    with _random_state(seed, parts):
        sources = [_source(part) for part in parts]
        known = [source for source in sources if source is not None]
        if len(known) < len(parts):
            return _first(parts, examples)
        starts = [0, *accumulate(map(len, known))]
        order = torch.randperm(starts[-1], generator=torch.Generator().manual_seed(seed))
        rows = order[:examples].sort().values
        batches = [batch for source, own in _by_part(known, starts, rows) for batch in source.batches(own)]
        return Data(batches, total=starts[-1], rows=rows)


def few(split: str, data: Data) -> str | None:
    """Return the note for measures on :data:`FEW` of more examples; ``None`` if these are all."""
    if data.total is not None and data.total <= FEW:
        return None
    return data.note or f"on {FEW:,} of {data.total:,} {split} examples, a random subset"


def noted(estimates: Mapping[str, Estimate], notes: Mapping[str, str | None]) -> dict[str, Estimate]:
    """Add to each estimate, by metric key, the note on its split, or on its split and family."""
    found = {}
    for key, estimate in estimates.items():
        note = notes.get(key.partition("/")[0]) or notes.get(key.rpartition("/")[0])
        if note is not None and estimate.value is not None and note not in (estimate.note or ""):
            estimate = replace(estimate, note="; ".join(filter(None, (estimate.note, note))))
        found[key] = estimate
    return found


def _first(parts: list["_Limited"], examples: int) -> Data:
    batches: list[Any] = []
    sized: list[tuple[Any, int]] = []
    left = examples
    for part in parts:
        for batch in part:
            n = _length(batch)
            sized.append((batch, n))
            batches.append(batch if n <= left else _LAYOUT.of_all(sized).rows(batch, n, torch.arange(left)))
            left -= min(n, left)
            if left == 0:
                note = f"on the first {examples} examples: they come from a stream"
                return Data(batches, note, rows=torch.arange(examples))
    return Data(batches)


@contextmanager
def _random_state(seed: int, parts: Iterable["_Limited"]) -> Iterator[None]:
    """Seed Python, NumPy, torch and the loaders' own generators; restore them afterwards."""
    with ExitStack() as restored:
        for part in parts:
            restored.enter_context(restoring_random_state(part.batches))
            for generator in generators_of(part.batches):
                generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield


# -- sources of examples


class _Indexed:
    """The examples of a map-style data set at the indices that the loader's sampler yields."""

    def __init__(self, loader: DataLoader, limit: float) -> None:
        self._loader = loader
        batches: Any = loader.batch_sampler
        groups = [list(batch) for batch in islice(batches, int(min(len(batches), limit)))]
        self._size = loader.batch_size or max(map(len, groups), default=1)
        indices = [index for group in groups for index in group]
        if all(isinstance(index, Integral) for index in indices):
            indices.sort()  # the choice does not depend on how the loader shuffles
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def batches(self, rows: Tensor) -> list[Any]:
        chosen = [self._indices[row] for row in rows.tolist()]
        groups = [chosen[i : i + self._size] for i in range(0, len(chosen), self._size)]
        return list(DataLoader(self._loader.dataset, batch_sampler=groups, collate_fn=self._loader.collate_fn))


class _Batched:
    """The examples of a sequence of batches; if it has ``rows(indices)``, they are read one by one."""

    def __init__(self, batches: Any, limit: float) -> None:
        self._whole = batches
        count = int(min(len(batches), limit))
        if hasattr(batches, "rows"):  # all batches but the last have one size
            self._sizes = [_length(batches[0])] * (count - 1) + [_length(batches[count - 1])]
        else:
            self._sizes = []
            one: dict[int, Any] = {}  # a batch of each size
            for batch in islice(batches, count):
                self._sizes.append(_length(batch))
                one.setdefault(self._sizes[-1], batch)
            self._layout = _LAYOUT.of_all([(batch, n) for n, batch in one.items()])

    def __len__(self) -> int:
        return sum(self._sizes)

    def batches(self, rows: Tensor) -> list[Any]:
        if hasattr(self._whole, "rows"):
            return [self._whole.rows(part) for part in rows.split(self._sizes[0])]
        places, starts = range(len(self._sizes)), [0, *accumulate(self._sizes)]
        chosen = [self._layout.rows(self._whole[i], self._sizes[i], own) for i, own in _by_part(places, starts, rows)]
        return _merged(chosen, self._sizes[0])


def _source(part: "_Limited") -> _Indexed | _Batched | None:
    loader: Any = part.batches
    if isinstance(loader, Sequence):
        return _Batched(loader, part.limit)
    indexed = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if indexed and loader.batch_sampler is not None and _sized(loader.batch_sampler):
        return _Indexed(loader, part.limit)
    return None


def _by_part(parts: Iterable[Any], starts: Sequence[int], rows: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """Yield each part that holds some of the sorted ``rows``, with these rows counted from its start."""
    for part, start, end in zip(parts, starts, starts[1:], strict=False):
        own = rows[(rows >= start) & (rows < end)] - start
        if len(own):
            yield part, own


def _merged(batches: list[Any], size: int) -> list[Any]:
    """Merge pairs of tensors into batches of one size; leave other batches as they are."""
    for batch in batches:
        if not isinstance(batch, list | tuple) or not all(isinstance(part, Tensor) for part in batch):
            return batches
        if [part.shape[1:] for part in batch] != [part.shape[1:] for part in batches[0]]:
            return batches
    columns = [torch.cat(parts).split(size) for parts in zip(*batches, strict=True)]
    return list(zip(*columns, strict=True))


def _length(batch: Any) -> int:
    """Return the number of examples in a batch: the length of a pair's target, else of the first tensor."""
    pair = isinstance(batch, list | tuple) and len(batch) == 2
    n = (EXAMPLES_FIRST.count(batch[0], batch[1], (batch[0],)) if pair else 0) or length(batch)
    if pair and n == 1 and all(isinstance(part, list | tuple) for part in batch) and len(batch[0]) == len(batch[1]):
        n = len(batch[0])  # lists with one entry per example, as in detection
    if not n:
        raise ValueError(
            "a batch holds no tensor with a first axis, so its examples cannot be counted; set examples=null"
        )
    return n


# -- loaders


class _Limited:
    """A loader's batches up to Lightning's limit, which is a number or a fraction of them.

    If several processes share the data set, these are the batches of all processes.
    """

    def __init__(self, batches: Any, limit: float = 1.0, *, ends: bool = True) -> None:
        self.batches, processes = _of_all_processes(batches)
        length = len(self.batches) if _sized(self.batches) else math.inf
        if isinstance(limit, int):  # the limit holds for each process
            limit *= processes
        whole = isinstance(limit, float) and (limit == 1 or length == math.inf)
        self.limit = length if whole else min(length, limit) if isinstance(limit, int) else int(length * limit)
        self.ends = ends or self.limit < math.inf

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches) if self.limit == math.inf else islice(self.batches, int(self.limit))


class _Together:
    """The batches of several loaders side by side, as a CombinedLoader yields them, with its own iterators."""

    def __init__(self, combined: Any) -> None:
        self._combined = combined
        self.parts = list(combined.flattened)

    def __len__(self) -> int:
        lengths = [len(loader) for loader in self._combined.flattened]
        return min(lengths) if self._combined._mode == "min_size" else max(lengths)

    def __iter__(self) -> Iterator[Any]:
        own = copy.copy(self._combined)  # training uses the original's iterator
        own._iterator = None
        own.flattened = [fresh_workers(loader) for loader in own.flattened]
        return (batch for batch, *_ in own)


class _Chain:
    """The batches of loaders (``parts``) one after the other."""

    def __init__(self, loaders: Sequence[_Limited]) -> None:
        self._loaders = loaders
        self.parts = [loader.batches for loader in loaders]

    def __iter__(self) -> Iterator[Any]:
        for loader in self._loaders:
            yield from loader


def _of_all_processes(loader: Any) -> tuple[Any, int]:
    """Return a loader of the examples of all processes that share a data set, and the number of processes.

    Each process measures the whole set, so that all get the same values.
    """
    sampler: Any = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or not isinstance(loader, DataLoader) or loader.batch_size is None:
        return loader, 1
    examples: Any = sampler.dataset  # or the indices of the user's sampler, if Lightning wraps one
    order = range(len(examples))
    whole: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=order if examples is loader.dataset else [examples[i] for i in order],
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        drop_last=loader.drop_last,
    )
    return whole, sampler.num_replicas


def _listed(loaders: Any) -> list[Any]:
    """Return the loaders in a list, in the order in which Lightning evaluates them."""
    if hasattr(loaders, "flattened"):
        return list(loaders.flattened)
    if isinstance(loaders, Mapping):
        return list(loaders.values())
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]


def _sized(loader: Any) -> bool:
    try:
        len(loader)
    except (NotImplementedError, TypeError):  # a DataLoader of a stream
        return False
    return True


def _written(owner: Any, hook: str) -> bool:
    """Whether this hook is overridden; Lightning's own, of either package, raises."""
    base = next((kind for kind in type(owner).__mro__ if kind.__name__ == "DataHooks"), None)
    written = getattr(owner, hook, None)
    return written is not None and getattr(written, "__func__", written) is not getattr(base, hook, None)
