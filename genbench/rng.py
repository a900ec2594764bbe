"""Random numbers that depend on nothing but (seed, step, site)."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def derive_seed(seed: int, *names: int | str) -> int:
    """A 63-bit seed for one purpose: the hash of ``seed`` and ``names``.

    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1) != derive_seed(0, "order", 2)
    True
    """
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class StepRandom:
    """The random draws of one training step.

    Every draw is keyed by (seed, step, site): it depends neither on what was drawn before nor on what else runs in
    the process, and it never touches a global generator. ``site`` names the place that draws (``"mixup"``).

    >>> draw = StepRandom(seed=0, step=7)
    >>> torch.equal(draw.uniform("mixup", 3), draw.uniform("mixup", 3))
    True
    """

    def __init__(self, seed: int, step: int, *, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.step = step
        self.device = torch.device(device)

    def generator(self, site: str) -> torch.Generator:
        """A fresh generator for one site, on the draw's device."""
        return torch.Generator(self.device).manual_seed(derive_seed(self.seed, self.step, site))

    def uniform(self, site: str, *shape: int) -> Tensor:
        """Uniform numbers on [0, 1) of the given shape."""
        return torch.rand(shape, generator=self.generator(site), device=self.device)

    def normal(self, site: str, *shape: int) -> Tensor:
        """Standard normal numbers of the given shape."""
        return torch.randn(shape, generator=self.generator(site), device=self.device)

    def permutation(self, site: str, n: int) -> Tensor:
        """A random order of ``range(n)``."""
        return torch.randperm(n, generator=self.generator(site), device=self.device)

    def classes(self, site: str, p: Tensor) -> Tensor:
        """A class for each row of probabilities [n, K], [n]."""
        reached = p.double().cumsum(1) <= self.uniform(site, len(p)).double()[:, None]
        return reached.sum(1).clamp(max=p.shape[1] - 1)  # rows sum to 1 but for rounding

    def beta(self, site: str, alpha: float | Tensor) -> Tensor:
        """One number from Beta(alpha, alpha), float64; 1 for ``alpha`` = 0, where all its mass lies at the ends."""
        import numpy as np

        alpha = float(alpha)
        share = np.random.default_rng(derive_seed(self.seed, self.step, site)).beta(alpha, alpha) if alpha > 0 else 1.0
        return torch.tensor(share, dtype=torch.float64, device=self.device)


class PackRandom:
    """The draws of several lanes, stacked: each lane's are those of its own ``StepRandom``, whatever the others' are.

    What a step draws is learnt by recording one step of every lane: the i-th calls ``recorders[i]`` as it would its own
    draw. ``at(step)`` then makes all draws of a step, for use inside ``torch.vmap``, where nothing may be drawn.

    >>> draws = PackRandom(seeds=[1, 2])
    >>> for record in draws.recorders: record.uniform("mask", 3).shape
    torch.Size([3])
    torch.Size([3])
    >>> draws.at(7)["mask"].shape
    torch.Size([2, 3])
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self.recorders = [_Recorder(seed, device) for seed in seeds]

    def at(self, step: int) -> dict[str, Tensor]:
        """Every draw of a step by its site, [lanes, ...]."""
        first = self.recorders[0].made
        for other in self.recorders[1:]:
            if other.made.keys() != first.keys():
                raise ValueError(f"lanes draw at different sites: {sorted(first)} and {sorted(other.made)}")
        draws = [StepRandom(seed, step, device=self.device) for seed in self.seeds]
        made = {"step": torch.full((len(draws),), step, device=self.device)}
        for site in first:
            asked = [record.made[site] for record in self.recorders]
            made[site] = torch.stack(
                [getattr(draw, kind)(site, *args) for draw, (kind, args) in zip(draws, asked, strict=True)]
            )
        return made


class PredrawnRandom(StepRandom):
    """The draw of one lane whose numbers were made before: see :meth:`PackRandom.at`."""

    step: Any  # a tensor, as it changes while what is computed of it is written down once

    def __init__(self, made: Mapping[str, Tensor]) -> None:
        self.numbers = made
        self.step = made["step"]

    def generator(self, site: str) -> torch.Generator:
        raise ValueError(f"the draw at {site!r} takes a generator, which a pack cannot make for its lanes")

    def uniform(self, site: str, *shape: int) -> Tensor:
        return self.numbers[site]

    def normal(self, site: str, *shape: int) -> Tensor:
        return self.numbers[site]

    def permutation(self, site: str, n: int) -> Tensor:
        return self.numbers[site]

    def beta(self, site: str, alpha: float | Tensor) -> Tensor:
        return self.numbers[site]


class _Recorder(StepRandom):
    """A draw that notes what it is asked for."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        super().__init__(seed, 0, device=device)
        self.made: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def uniform(self, site: str, *shape: int) -> Tensor:
        self.made[site] = ("uniform", shape)
        return super().uniform(site, *shape)

    def normal(self, site: str, *shape: int) -> Tensor:
        self.made[site] = ("normal", shape)
        return super().normal(site, *shape)

    def permutation(self, site: str, n: int) -> Tensor:
        self.made[site] = ("permutation", (n,))
        return super().permutation(site, n)

    def beta(self, site: str, alpha: float | Tensor) -> Tensor:
        self.made[site] = ("beta", (float(alpha),))
        return super().beta(site, alpha)
