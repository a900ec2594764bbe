"""Data sets of a distribution that examples can be drawn from without end."""

from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from genbench.checks import check_flag, check_integer
from genbench.data.base import TensorData, tensors
from genbench.data.batches import Batches, Stream
from genbench.data.corruptions import replaced_labels
from genbench.rng import StepRandom

_PART = 1000  # examples of a frozen set that are drawn together


class Source(Protocol):
    """A distribution; two that are equal give the same examples (a frozen dataclass, say)."""

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Inputs [n, ...] (float32) and classes [n], on the draw's device."""
        ...

    def __hash__(self) -> int: ...


class StreamData(TensorData):
    """Fresh examples in every batch, the ideal world of Nakkiran et al. 2021 (arXiv 2010.08127); or with
    ``fresh=False`` a frozen set of any size from the same distribution, their real world.

    A subclass sets ``source`` before it calls this constructor, and ``test_source`` where the test split is of another
    distribution. An epoch of the stream is ``train_size`` examples. Its train split, which is measured, is a sample
    that no step sees either: the gap to the test split is zero but for chance. Fresh labels are noisy at random with
    probability ``label_noise``. The test split is the same for every seed.

    Attributes:
        bayes_error: the smallest error that a classifier can have on the test distribution, with its standard error (0
            if exact), where the source knows it; in a record ``test/performance/bayes_error``.

    Args:
        train_size: examples of an epoch, or of the frozen set; those for validation included.
        test_size: examples of the test split.
        fresh: whether each batch is new.
        settings: the others of :class:`genbench.data.TensorData`; what repeats, selects or randomizes a set
            (``imbalance``, ``duplicates``, ``inputs``) is for frozen ones.
    """

    source: Source
    test_source: Source | None = None

    def __init__(
        self, *, train_size: int = 4000, test_size: int = 10_000, fresh: bool = True, seed: int = 0, **settings: Any
    ) -> None:
        self._size = check_integer("data.train_size", train_size, least=1)
        self._test_size = check_integer("data.test_size", test_size, least=1)
        self.fresh = check_flag("data.fresh", fresh)
        for name, neutral in (("imbalance", 1), ("duplicates", 0), ("inputs", "original")):
            if fresh and settings.get(name, neutral) != neutral:
                raise ValueError(f"data.{name} is {settings[name]!r}; accepted: {neutral} where data.fresh is true")
        self._seed = check_integer("data.seed", seed, least=0)
        super().__init__(train_size=train_size, seed=seed, **settings)

    @property
    def bayes_error(self) -> tuple[float, float] | None:
        return getattr(self.test_source or self.source, "bayes_error", None)

    def content(self) -> tuple[dict[str, Tensor], str]:
        test = self.test_source or self.source
        return _drawn(self.source, test, self._size, self._test_size, self._seed, str(self.name))

    def train_dataloader(self) -> Batches | Stream:
        if not self.fresh:
            return super().train_dataloader()
        return Stream(
            self._fresh,
            steps=self.steps_per_epoch,
            batch_size=self.batch_size,
            seed=self.seed,
            seeds=self.order_seeds,
            device=self.device,
        )

    def _fresh(self, draw: StepRandom, n: int) -> tuple[Tensor, Tensor]:
        x, y = self.source.sample(n, draw)
        if self.label_noise:
            wrong = replaced_labels(y, self.noise, classes=self.classes, draw=draw)
            y = torch.where(draw.uniform("data.noise", n) < self.label_noise, wrong, y)
        return x, y


def some(source: Source, n: int, *, seed: int, site: str) -> tuple[Tensor, Tensor]:
    """n examples of a frozen set, of which smaller ones are the beginning."""
    parts = [source.sample(_PART, StepRandom(seed, part), site) for part in range(-(-n // _PART))]
    x, y = (torch.cat(tensors)[:n] for tensors in zip(*parts, strict=True))
    return x, y


@lru_cache(2)
def _drawn(
    source: Source, test_source: Source, size: int, test_size: int, seed: int, name: str
) -> tuple[dict[str, Tensor], str]:
    x, y = some(source, size, seed=seed, site="train")
    x_test, y_test = some(test_source, test_size, seed=0, site="test")
    return tensors({"x": x.numpy(), "y": y.numpy(), "x_test": x_test.numpy(), "y_test": y_test.numpy()}, name)
