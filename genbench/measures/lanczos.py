"""The Lanczos iteration with full reorthogonalization."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor


class Lanczos:
    """H Q = Q T + β q eᵀ for a symmetric H, one product a step, extended on demand and shared by measures.

    Starts from a Gaussian direction drawn with ``seed``, or from the vector ``start``, given with its product. With
    orthonormal rows ``known`` the iteration is that of H on what is orthogonal to them: of eigenvectors, on the rest of
    the spectrum. Every new vector is orthogonalized twice against all others, so that no eigenvalue appears twice by
    rounding. Where the Krylov space is exhausted (β = 0), it goes on with a new random direction, until Q spans
    everything. Recurrences are float64, and vectors too, up to two million entries; longer ones are kept in float32,
    as a hundred of eleven million would be 9 GB.

    Reference: Golub and Van Loan, Matrix Computations, 4th ed., section 10.3.
    """

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        size: int,
        *,
        seed: int,
        device: torch.device,
        start: tuple[Tensor, Tensor] | None = None,
        known: Tensor | None = None,
    ) -> None:
        self._product = product
        self._known = known
        self._length = size
        self._size = size - (0 if known is None else len(known))
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)
        self._basis = _Rows(size, device)
        self.alphas: list[float] = []  # diagonal of T
        self.betas: list[float] = []  # beside it; the last one leads out of the basis
        self._next: Tensor | None = self._fresh() if start is None else start[0] / start[0].norm()
        self._image = None if start is None else start[1] / start[0].norm()  # of the first vector

    @property
    def steps(self) -> int:
        return len(self.alphas)

    def basis(self, steps: int) -> Tensor:
        """The first Lanczos vectors as orthonormal rows [steps, size]."""
        return self._basis.combined(np.eye(steps))

    def image(self, steps: int) -> Tensor:
        """H times each of the first Lanczos vectors, as rows [steps, size]; no product is needed."""
        off = self.betas[: steps - 1]
        t = np.diag(self.alphas[:steps]) + np.diag(off, 1) + np.diag(off, -1)
        image = self._basis.combined(t)
        out = self._basis[steps] if steps < self.steps else self._next
        if out is not None:  # where the space was exhausted, β is 0
            image[-1] += self.betas[steps - 1] * out
        return image

    def extend(self, steps: int) -> int:
        """Make at least ``steps`` steps, as long as dimensions are left; gives the number that can be used."""
        while self.steps < steps and self._next is not None:
            self._step(self._next)
        return min(steps, self.steps)

    def ritz(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values of the first ``steps`` steps, largest first, and the residual ‖Hv − θv‖ of each."""
        values, vectors = self._eigen(steps)
        return values, np.abs(self.betas[steps - 1] * vectors[-1])

    def quadrature(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes θ, largest first, and weights of the Gauss quadrature qᵀf(H)q ≈ Σ weight · f(θ), q the start vector."""
        values, vectors = self._eigen(steps)
        return values, vectors[0] ** 2

    def ritz_vectors(self, steps: int, k: int, *, lowest: bool = False) -> Tensor:
        """Vectors of the ``k`` largest (smallest) Ritz values, as orthonormal rows [k, size], the outermost first."""
        _, vectors = self._eigen(steps)
        chosen = vectors[:, ::-1][:, :k] if lowest else vectors[:, :k]
        return self._basis.combined(chosen.T.copy())

    def _eigen(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = eigh_tridiagonal(self.alphas[:steps], self.betas[: steps - 1])
        return values[::-1], vectors[:, ::-1]

    def _step(self, q: Tensor) -> None:
        m = self.steps
        self._basis.append(q)
        image = self._product(q) if self._image is None else self._image
        self._image = None
        norm = float(image.norm())
        alpha = float(image @ q)
        rest = self._orthogonalized(image)
        beta = float(rest.norm())
        self.alphas.append(alpha)
        if not np.isfinite(alpha):
            raise ValueError("a product with the curvature matrix is not finite")
        if m + 1 == self._size:
            beta, self._next = 0.0, None
        elif beta <= 1e-13 * norm or beta == 0.0:
            beta, self._next = 0.0, self._fresh()
        else:
            self._next = rest / beta
        self.betas.append(beta)

    def _orthogonalized(self, vector: Tensor) -> Tensor:
        for _ in range(2):
            if self._known is not None:
                vector = vector - self._known.T @ (self._known @ vector)
            vector = self._basis.without(vector)
        return vector

    def _fresh(self) -> Tensor:
        draw = torch.randn(self._length, generator=self._generator, dtype=torch.float64).to(self._device)
        vector = self._orthogonalized(draw)
        return vector / vector.norm()


class _Rows:
    """Vectors that are added one by one and stored in blocks, so that none is ever copied."""

    _BLOCK = 16
    _LONG = 2**21  # entries of a vector that is kept in float32

    def __init__(self, length: int, device: torch.device) -> None:
        self._shape, self._device = (self._BLOCK, length), device
        self._dtype = torch.float64 if length <= self._LONG else torch.float32
        self._blocks: list[Tensor] = []
        self._count = 0

    def __getitem__(self, index: int) -> Tensor:
        return self._blocks[index // self._BLOCK][index % self._BLOCK].double()

    def append(self, vector: Tensor) -> None:
        if self._count == self._BLOCK * len(self._blocks):
            self._blocks.append(torch.empty(self._shape, dtype=self._dtype, device=self._device))
        self._blocks[-1][self._count % self._BLOCK] = vector
        self._count += 1

    def without(self, vector: Tensor) -> Tensor:
        """A vector without its components along the rows, which are orthonormal."""
        for block in self._filled(self._count):
            along = block @ vector.to(self._dtype)
            vector = vector - block.T @ along
        return vector

    def combined(self, coefficients: np.ndarray) -> Tensor:
        """Sums of the first rows with these coefficients [k, rows], as rows [k, length], float64."""
        found = torch.zeros(len(coefficients), self._shape[1], dtype=torch.float64, device=self._device)
        start = 0
        for block in self._filled(coefficients.shape[1]):
            part = torch.from_numpy(coefficients[:, start : start + len(block)].copy()).to(self._device)
            found += (part.to(self._dtype) @ block).double()
            start += len(block)
        return found

    def _filled(self, count: int) -> list[Tensor]:
        return [block[: count - i * self._BLOCK] for i, block in enumerate(self._blocks) if count > i * self._BLOCK]
