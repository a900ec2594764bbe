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
    everything. Vectors and recurrences are float64.

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
        self._basis = torch.empty(min(4, self._size), size, dtype=torch.float64, device=device)
        self.alphas: list[float] = []  # diagonal of T
        self.betas: list[float] = []  # beside it; the last one leads out of the basis
        self._next: Tensor | None = self._fresh(0) if start is None else start[0] / start[0].norm()
        self._image = None if start is None else start[1] / start[0].norm()  # of the first vector

    @property
    def steps(self) -> int:
        return len(self.alphas)

    def basis(self, steps: int) -> Tensor:
        """The first Lanczos vectors as orthonormal rows [steps, size]."""
        return self._basis[:steps]

    def image(self, steps: int) -> Tensor:
        """H times each of the first Lanczos vectors, as rows [steps, size]; no product is needed."""
        off = self.betas[: steps - 1]
        t = np.diag(self.alphas[:steps]) + np.diag(off, 1) + np.diag(off, -1)
        image = torch.from_numpy(t).to(self._device) @ self._basis[:steps]
        out = self._basis[steps] if steps < self.steps else self._next
        if out is not None:  # where the space was exhausted, β is 0
            image[-1] += self.betas[steps - 1] * out
        return image

    def extend(self, steps: int) -> int:
        """Makes at least ``steps`` steps, as long as dimensions are left; the number that can be used of them."""
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
        """Those of the ``k`` largest (smallest) Ritz values, as orthonormal rows [k, size], the outermost first."""
        _, vectors = self._eigen(steps)
        chosen = vectors[:, ::-1][:, :k] if lowest else vectors[:, :k]
        return torch.from_numpy(chosen.T.copy()).to(self._device) @ self._basis[:steps]

    def _eigen(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = eigh_tridiagonal(self.alphas[:steps], self.betas[: steps - 1])
        return values[::-1], vectors[:, ::-1]

    def _step(self, q: Tensor) -> None:
        m = self.steps
        if m == len(self._basis):
            room = torch.empty(min(2 * m, self._size), self._length, dtype=torch.float64, device=self._device)
            room[:m] = self._basis
            self._basis = room
        self._basis[m] = q
        image = self._product(q) if self._image is None else self._image
        self._image = None
        norm = float(image.norm())
        alpha = float(image @ q)
        rest = self._orthogonalized(image, m + 1)
        beta = float(rest.norm())
        self.alphas.append(alpha)
        if not np.isfinite(alpha):
            raise ValueError("a product with the curvature matrix is not finite")
        if m + 1 == self._size:
            beta, self._next = 0.0, None
        elif beta <= 1e-13 * norm or beta == 0.0:
            beta, self._next = 0.0, self._fresh(m + 1)
        else:
            self._next = rest / beta
        self.betas.append(beta)

    def _orthogonalized(self, vector: Tensor, steps: int) -> Tensor:
        basis = self._basis[:steps]
        for _ in range(2):
            if self._known is not None:
                vector = vector - self._known.T @ (self._known @ vector)
            vector = vector - basis.T @ (basis @ vector)
        return vector

    def _fresh(self, steps: int) -> Tensor:
        draw = torch.randn(self._length, generator=self._generator, dtype=torch.float64).to(self._device)
        vector = self._orthogonalized(draw, steps)
        return vector / vector.norm()
