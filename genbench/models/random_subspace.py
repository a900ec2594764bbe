"""Random linear subspaces of the weights, w⁰ + Pz."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from genbench.rng import derive_seed


@dataclass(frozen=True)
class RandomSubspace:
    """The span of d orthonormal columns P [D, d], each of random signs over √n on n = D/d random weights of its own.

    A random permutation deals the D weights to the d columns in turn, so that n is D/d rounded down or up, and products
    with P take D operations. Like the projections of Li et al. 2018 (arXiv 1804.08838) it is drawn before training.

    Attributes:
        places: the weights of each column [d, ⌈D/d⌉]; D stands for none.
        column: the column of each weight [D].
        sign: ±1 of each weight [D].
        sizes: n of each column [d].
    """

    places: Tensor
    column: Tensor
    sign: Tensor
    sizes: Tensor

    @classmethod
    def drawn(cls, size: int, dimension: int, seed: int) -> Self:
        """The subspace of ``dimension`` d in D = ``size`` weights.

        Raises:
            ValueError: more dimensions than weights.
        """
        if dimension > size:
            raise ValueError(f"dimension is {dimension}; accepted: at most {size}, the number of trainable weights")
        generator = torch.Generator().manual_seed(derive_seed(seed, "random_subspace"))
        order = torch.randperm(size, generator=generator)
        sign = 2.0 * torch.randint(2, (size,), generator=generator) - 1
        column = torch.empty(size, dtype=torch.int64)
        column[order] = torch.arange(size) % dimension
        rows = math.ceil(size / dimension)
        padded = torch.cat([order, torch.full((rows * dimension - size,), size)])
        return cls(
            padded.view(rows, dimension).T.contiguous(), column, sign, torch.bincount(column, minlength=dimension)
        )

    def coordinates(self, vector: Tensor) -> Tensor:
        """Pᵀv [d] of v [D]."""
        signed = torch.cat([vector * self.sign.to(vector.dtype), vector.new_zeros(1)])
        return signed[self.places].sum(1) / self.sizes.to(vector.dtype).sqrt()

    def vector(self, coordinates: Tensor) -> Tensor:
        """Pz [D] of z [d]."""
        scaled = coordinates / self.sizes.to(coordinates.dtype).sqrt()
        return self.sign.to(coordinates.dtype) * scaled[self.column]

    def projected(self, vector: Tensor) -> Tensor:
        """PPᵀv [D] of v [D]."""
        return self.vector(self.coordinates(vector))
