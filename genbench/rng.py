"""Random numbers that depend on nothing but (seed, step, site)."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from genbench import philox

STEP = ""
"""The name of the step among the numbers of sites, which no site has."""
_AHEAD = 2**18, 64  # numbers and steps that a site draws at once, at most
_read = WeakTensorKeyDictionary()  # settings on another device -> their version and value


def derive_seed(seed: int, *names: int | str) -> int:
    """Hash ``seed`` and ``names`` to a 63-bit seed for one purpose.

    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1) != derive_seed(0, "order", 2)
    True
    """
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def counts(device: torch.device) -> bool:
    """Whether numbers on a device come from :mod:`genbench.philox`. Of a pack these take as many kernels as of one
    lane; torch's generators, which are faster on the CPU, take some for each lane."""
    return device.type != "cpu"


class StepRandom:
    """The random numbers of one training step.

    Every number follows from (seed, step, site) alone, on the CPU and on other devices in two ways. It depends neither
    on earlier numbers nor on what else runs in the process, and no global generator is used. ``site`` names the place
    in the code that draws (``"mixup"``).

    >>> draw = StepRandom(seed=0, step=7)
    >>> torch.equal(draw.uniform("mixup", 3), draw.uniform("mixup", 3))
    True
    """

    def __init__(self, seed: int, step: int, *, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.step = step
        self.device = torch.device(device)

    def generator(self, site: str) -> torch.Generator:
        """A fresh generator for one site, on ``device``."""
        return torch.Generator(self.device).manual_seed(derive_seed(self.seed, self.step, site))

    def uniform(self, site: str, *shape: int) -> Tensor:
        """Uniform numbers on [0, 1), of the given shape."""
        if counts(self.device):
            return self._counted(philox.uniform, site, shape)
        return torch.rand(shape, generator=self.generator(site), device=self.device)

    def normal(self, site: str, *shape: int) -> Tensor:
        """Standard normal numbers, of the given shape."""
        if counts(self.device):
            return self._counted(philox.normal, site, shape)
        return torch.randn(shape, generator=self.generator(site), device=self.device)

    def permutation(self, site: str, n: int) -> Tensor:
        """A random order of ``range(n)``."""
        if counts(self.device):
            return self._counted(philox.permutation, site, (n,))
        return torch.randperm(n, generator=self.generator(site), device=self.device)

    def classes(self, site: str, p: Tensor) -> Tensor:
        """Classes [n], one drawn from each row of the probabilities ``p`` [n, K]."""
        reached = p.double().cumsum(1) <= self.uniform(site, len(p)).double()[:, None]
        return reached.sum(1).clamp(max=p.shape[1] - 1)  # rounding: a row may sum to less than 1

    def beta(self, site: str, alpha: float | Tensor) -> Tensor:
        """One number from Beta(alpha, alpha), float64. It is 1 for ``alpha`` = 0, where all mass lies at 0 and 1."""
        return torch.full((), _beta(self.seed, self.step, site, alpha), dtype=torch.float64, device=self.device)

    def _counted(self, draw: Callable[..., Tensor], site: str, shape: tuple[int, ...]) -> Tensor:
        seed, steps = derive_seed(self.seed, site), min(_AHEAD[0] // max(1, math.prod(shape)), _AHEAD[1])
        if steps < 2:
            return draw(philox.key_of(seed), torch.full((), self.step, device=self.device), shape)
        first = self.step - self.step % steps
        return _ahead(draw, seed, first, steps, shape, self.device)[self.step - first].clone()


class Rows(StepRandom):
    """The random numbers of some examples of a batch: rows of those that ``draw`` has for all ``n``."""

    def __init__(self, draw: StepRandom, rows: range, n: int) -> None:
        self.__dict__.update(vars(draw))  # seed, step and device
        self._draw, self._rows, self._n = draw, rows, n

    def generator(self, site: str) -> torch.Generator:
        return self._draw.generator(site)

    def uniform(self, site: str, *shape: int) -> Tensor:
        return self._part(self._draw.uniform, site, shape)

    def normal(self, site: str, *shape: int) -> Tensor:
        return self._part(self._draw.normal, site, shape)

    def permutation(self, site: str, n: int) -> Tensor:
        raise ValueError(f"the draw at {site!r} orders the examples of a batch, of which only a part is computed here")

    def beta(self, site: str, alpha: float | Tensor) -> Tensor:
        return self._draw.beta(site, alpha)

    def _part(self, draw: Callable[..., Tensor], site: str, shape: tuple[int, ...]) -> Tensor:
        if not shape or shape[0] != len(self._rows):
            raise ValueError(
                f"the draw at {site!r} of shape {shape} is not one for each of the {len(self._rows)} examples of a "
                "batch that are computed here; accepted: the batch as first axis"
            )
        return draw(site, self._n, *shape[1:])[self._rows.start : self._rows.stop]


@lru_cache(maxsize=64)
def _ahead(
    draw: Callable[..., Tensor], seed: int, first: int, steps: int, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """The numbers of some steps [steps, ...], which take as many kernels as those of one, a hundred."""
    return draw(philox.key_of(seed), torch.arange(first, first + steps, device=device), shape)


def _beta(seed: int, step: int, site: str, alpha: float | Tensor) -> float:
    import numpy as np

    alpha = _number(alpha)
    return np.random.default_rng(derive_seed(seed, step, site)).beta(alpha, alpha) if alpha > 0 else 1.0


def _number(setting: float | Tensor) -> float:
    """The value of a setting, which is read again only when it has changed: a GPU waits for who reads its memory."""
    if not isinstance(setting, Tensor) or setting.device.type == "cpu":
        return float(setting)
    if (found := _read.get(setting)) is None or found[0] != setting._version:
        _read[setting] = found = (setting._version, float(setting))
    return found[1]


class PackRandom:
    """What the draws of several lanes are made of, stacked; each lane has the numbers of its own ``StepRandom``.

    First, one step of every lane is recorded: lane i draws from ``recorders[i]``. Then ``at(step)`` has any step's
    numbers at the recorded sites: torch's generators cannot draw inside ``torch.vmap``. Where numbers are counted, they
    are drawn there, and ``at(step)`` has their keys [lanes, 20].

    >>> random = PackRandom(seeds=[1, 2])
    >>> for recorder in random.recorders: recorder.uniform("mask", 3).shape
    torch.Size([3])
    torch.Size([3])
    >>> random.at(7)["mask"].shape
    torch.Size([2, 3])
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self.recorders = [_Recorder(seed, device) for seed in seeds]
        self._keys: dict[str, Tensor] = {}

    def at(self, step: int) -> dict[str, Tensor]:
        """The step, and what is drawn from: site -> [lanes, ...]."""
        first = self.recorders[0].calls
        for other in self.recorders[1:]:
            if other.calls.keys() != first.keys():
                raise ValueError(f"lanes draw at different sites: {sorted(first)} and {sorted(other.calls)}")
        numbers = {STEP: torch.full((len(self.seeds),), step, device=self.device)}
        for site in first:
            calls = [recorder.calls[site] for recorder in self.recorders]
            if not counts(self.device):
                lanes = [StepRandom(seed, step, device=self.device) for seed in self.seeds]
                numbers[site] = torch.stack(
                    [getattr(lane, kind)(site, *args) for lane, (kind, args) in zip(lanes, calls, strict=True)]
                )
            elif calls[0][0] == "beta":
                shares = [_beta(seed, step, site, *args) for seed, (_, args) in zip(self.seeds, calls, strict=True)]
                numbers[site] = self._sent(shares, torch.float64)
            else:
                if site not in self._keys:
                    keys = [philox.key_of(derive_seed(seed, site)) for seed in self.seeds]
                    self._keys[site] = self._sent(keys, torch.int64)
                numbers[site] = self._keys[site]
        return numbers

    def _sent(self, values: Sequence[Any], dtype: torch.dtype) -> Tensor:
        """Values on the device, for which the CPU does not wait."""
        here = torch.tensor(values, dtype=dtype, pin_memory=self.device.type == "cuda")
        return here.to(self.device, non_blocking=True)


class PredrawnRandom(StepRandom):
    """Random numbers of one lane, from what :meth:`PackRandom.at` has for it."""

    step: Any  # a tensor: a number would be a constant of the traced step

    def __init__(self, numbers: Mapping[str, Tensor]) -> None:
        self.numbers = numbers
        self.step = numbers[STEP]

    def generator(self, site: str) -> torch.Generator:
        raise ValueError(f"the draw at {site!r} takes a generator, which a pack cannot make for its lanes")

    def uniform(self, site: str, *shape: int) -> Tensor:
        return self._drawn(philox.uniform, site, shape)

    def normal(self, site: str, *shape: int) -> Tensor:
        return self._drawn(philox.normal, site, shape)

    def permutation(self, site: str, n: int) -> Tensor:
        return self._drawn(philox.permutation, site, (n,))

    def beta(self, site: str, alpha: float | Tensor) -> Tensor:
        return self.numbers[site]

    def _drawn(self, draw: Callable[..., Tensor], site: str, shape: tuple[int, ...]) -> Tensor:
        given = self.numbers[site]
        return draw(given.unbind(), self.step, shape) if counts(given.device) else given


class _Recorder(StepRandom):
    """Random numbers that record which of them are used."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        super().__init__(seed, 0, device=device)
        self.calls: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def uniform(self, site: str, *shape: int) -> Tensor:
        self.calls[site] = ("uniform", shape)
        return super().uniform(site, *shape)

    def normal(self, site: str, *shape: int) -> Tensor:
        self.calls[site] = ("normal", shape)
        return super().normal(site, *shape)

    def permutation(self, site: str, n: int) -> Tensor:
        self.calls[site] = ("permutation", (n,))
        return super().permutation(site, n)

    def beta(self, site: str, alpha: float | Tensor) -> Tensor:
        self.calls[site] = ("beta", (float(alpha),))
        return super().beta(site, alpha)
