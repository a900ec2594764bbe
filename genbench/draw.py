"""Random numbers that depend on nothing but (seed, step, site)."""

import hashlib

import torch
from torch import Tensor


def derive(seed: int, *names: int | str) -> int:
    """A 63-bit seed for one purpose: the hash of ``seed`` and ``names``.

    >>> derive(0, "order", 1) == derive(0, "order", 1) != derive(0, "order", 2)
    True
    """
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Draw:
    """The random draws of one training step.

    Every draw is keyed by (seed, step, site): it depends neither on what was drawn before nor on what else runs in
    the process, and it never touches a global generator. ``site`` names the place that draws (``"mixup"``).

    >>> draw = Draw(seed=0, step=7)
    >>> torch.equal(draw.uniform("mixup", 3), draw.uniform("mixup", 3))
    True
    """

    def __init__(self, seed: int, step: int, *, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.step = step
        self.device = torch.device(device)

    def generator(self, site: str) -> torch.Generator:
        """A fresh generator for one site, on the draw's device."""
        return torch.Generator(self.device).manual_seed(derive(self.seed, self.step, site))

    def uniform(self, site: str, *shape: int) -> Tensor:
        """Uniform numbers on [0, 1) of the given shape."""
        return torch.rand(shape, generator=self.generator(site), device=self.device)

    def normal(self, site: str, *shape: int) -> Tensor:
        """Standard normal numbers of the given shape."""
        return torch.randn(shape, generator=self.generator(site), device=self.device)

    def permutation(self, site: str, n: int) -> Tensor:
        """A random order of ``range(n)``."""
        return torch.randperm(n, generator=self.generator(site), device=self.device)

    def beta(self, site: str, alpha: float) -> float:
        """One number from Beta(alpha, alpha)."""
        import numpy as np

        return float(np.random.default_rng(derive(self.seed, self.step, site)).beta(alpha, alpha))
