"""Data sets that draw new examples from a distribution."""

from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genbench.checks import check_flag, check_integer
from genbench.data.base import TensorData, tensors
from genbench.data.batches import Batches, Stream
from genbench.data.corruptions import replaced_labels
from genbench.rng import StepRandom

_PART = 1000  # examples of a frozen set drawn at once


class Source(Protocol):
    """A distribution of examples; equal ones draw the same examples, so use a frozen dataclass, for example."""

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw inputs [n, ...] (float32) and classes [n], on the device of ``draw``."""
        ...

    def __hash__(self) -> int: ...


@runtime_checkable
class Drifting(Source, Protocol):
    """A distribution that changes from one epoch to the next; ``sample`` draws from that of the first."""

    def at(self, epoch: int) -> Source:
        """Return the distribution of an epoch, 0 the first."""
        ...


class StreamData(TensorData):
    """Draws new examples in every batch, or with ``fresh=False`` a frozen set of any size from the same distribution.

    These are the ideal and the real world of Nakkiran et al. 2021 (arXiv 2010.08127). A subclass sets ``source`` before
    it calls this constructor, and ``test_source`` if the test split has another distribution. An epoch of new examples
    has ``train_size`` of them. Their train split, used for measures, is a sample that no step sees: its expected gap to
    the test split is zero. Labels of new examples are noisy with probability ``label_noise``. The test split is the
    same for every seed.

    Attributes:
        bayes_error: smallest error of any classifier on the test distribution, with its standard error (0 if exact), if
            the source knows it; in a record ``test/performance/bayes_error``.

    Args:
        train_size: examples of an epoch, or of the frozen set, those for validation included; at least 1.
        test_size: examples of the test split, at least 1.
        fresh: whether every batch has new examples.
        settings: the others of :class:`genbench.data.TensorData`; ``imbalance``, ``duplicates``, ``inputs``,
            ``warm_start_steps``, ``parts`` and ``left_out`` need ``fresh=False``.
    """

    source: Source
    test_source: Source | None = None

    def __init__(
        self, *, train_size: int = 4000, test_size: int = 10_000, fresh: bool = True, seed: int = 0, **settings: Any
    ) -> None:
        self._size = check_integer("data.train_size", train_size, least=1)
        self._test_size = check_integer("data.test_size", test_size, least=1)
        self.fresh = check_flag("data.fresh", fresh)
        neutrals = (
            ("imbalance", 1), ("duplicates", 0), ("inputs", "original"), ("warm_start_steps", 0), ("parts", 1),
            ("left_out", 0),
        )  # fmt: skip
        for name, neutral in neutrals:
            if fresh and settings.get(name, neutral) != neutral:
                raise ValueError(f"data.{name} is {settings[name]!r}; accepted: {neutral} where data.fresh is true")
        self._seed = check_integer("data.seed", seed, least=0)
        if isinstance(self.source, Drifting) and not fresh:
            raise ValueError("data.fresh is False; accepted: true with signals that drift, as a frozen set does not")
        super().__init__(train_size=train_size, seed=seed, **settings)

    @property
    def bayes_error(self) -> tuple[float, float] | None:
        return getattr(self.test_source or self.source, "bayes_error", None)

    def content(self) -> tuple[dict[str, Tensor], str]:
        test = self.test_source or self.source
        return _drawn(self.source, test, self._size, self._test_size, self._seed, str(self.name))

    def train_batches(self) -> Batches:
        if not self.fresh:
            return super().train_batches()
        return Stream(
            self._fresh,
            steps=self.steps_per_epoch,
            batch_size=self.batch_size,
            seed=self.seed,
            seeds=self.order_seeds,
            device=self.device,
        )

    def _fresh(self, draw: StepRandom, n: int, epoch: int) -> tuple[Tensor, Tensor]:
        source = self.source.at(epoch) if isinstance(self.source, Drifting) else self.source
        x, y = source.sample(n, draw)
        if self.label_noise:
            wrong = replaced_labels(y, self.noise, classes=self.classes, draw=draw)
            y = torch.where(draw.uniform("data.noise", n) < self.label_noise, wrong, y)
        return x, y


def some(source: Source, n: int, *, seed: int, site: str) -> tuple[Tensor, Tensor]:
    """Draw n examples of a frozen set; smaller sets are its beginning."""
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
