"""The spectral density of the Hessian and of the Gauss–Newton matrix, by stochastic Lanczos quadrature, and the
effective dimension."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, hessenberg

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.curvature import check_matrix, operator_of, random_probe
from genbench.measures.lanczos import Lanczos
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

_ROUNDING = 1e-6  # of the largest eigenvalue: what lies within it of zero is no negative eigenvalue


@measure("flatness", passes=lambda given: given["runs"] * given["steps"])
def effective_dimension(
    snapshot: Snapshot, *, alpha: float = 1e-2, runs: int = 5, steps: int = 80, seed: int = 0
) -> Estimate:
    """N(α) = Σ λ/(λ + α) over the eigenvalues λ of the Gauss–Newton matrix of the mean loss, in [0, number of weights]:
    the number of directions of the weights that the data determine more than a prior of precision α an example
    (MacKay 1992; Maddox et al. 2020, arXiv 2003.02139).

    For the sum over m examples the same value belongs to mα, the precision of a Gaussian prior on the weights (the
    authors' code adds up the mean losses of batches). Compare networks at one α alone. The paper takes the Hessian,
    where λ/(λ + α) has a pole at −α and leaves [0, 1]; the Gauss–Newton matrix has no negative eigenvalues if the loss
    is convex in the outputs. Others count as 0, and the note says how many.

    By stochastic Lanczos quadrature (:class:`Density`), with the standard error over the runs; exact, by dense
    products, where there are no more than ``runs`` · ``steps`` weights. Rescaling weights changes it.

    Args:
        snapshot: network, loss and data.
        alpha: α > 0, in units of the mean loss over those of the squared weights.
        runs: Lanczos runs, at least 2.
        steps: products of each, at least 1.
        seed: of the start vectors, shared with the probes of :func:`gauss_newton_trace`.
    """
    check_number("alpha", alpha, low=0, open_low=True)
    check_integer("runs", runs, least=2)
    check_integer("steps", steps, least=1)
    check_integer("seed", seed, least=0)

    n = snapshot.size

    def dimensions(t: np.ndarray) -> np.ndarray:
        return n * np.maximum(t, 0) / (np.maximum(t, 0) + alpha)

    if n <= runs * steps:
        whole = snapshot.gauss_newton.matmat(torch.eye(n, dtype=torch.float64, device=snapshot.device))
        values = torch.linalg.eigvalsh((whole + whole.T) / 2).cpu().numpy()
        density = Density(n, (values,), (np.full(n, 1 / n),))
        found = Estimate(float(dimensions(values).mean()), stderr=0.0)
    else:
        density = spectral_density(snapshot, matrix="gauss_newton", runs=runs, steps=steps, seed=seed)
        found = density.mean(dimensions)
    parts = list(zip(density.nodes, density.weights, strict=True))
    # eigenvalues that a run has not told from its lowest node; zeros among them would count as 1
    above = [float(w[t.argmin()]) if len(t) < n and t.min() > alpha else 0.0 for t, w in parts]
    unresolved = n * float(np.mean(above))
    negative = n * float(np.mean([w[t < -_ROUNDING * np.abs(t).max()].sum() for t, w in parts]))
    notes = [found.note]
    if unresolved:
        assert found.value is not None
        assert found.stderr is not None
        error = 2 * found.stderr
        found = replace(
            found,
            stderr=math.hypot(found.stderr, unresolved),
            interval=(found.value - error - unresolved, found.value + error),
        )
        notes.append(f"{unresolved:.2g} of it may lie below alpha: more steps tell")
    if negative >= 0.5:
        notes.append(f"about {negative:.0f} negative eigenvalues count as 0: the loss is not convex in the outputs")
    return replace(found, note="; ".join(filter(None, notes)) or None)


@dataclass(frozen=True)
class Density:
    """The spectral density of a symmetric matrix of order ``size``, by stochastic Lanczos quadrature.

    Each run gives nodes θ and weights τ (non-negative, summing to 1) with Σ τ f(θ) an estimate of the mean of f over
    the eigenvalues, unbiased where f is a polynomial of degree below twice the number of nodes.
    """

    size: int
    nodes: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]

    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """(1/n) tr f(H), the mean of f over the eigenvalues, with its standard error over the runs.

        The error of the quadrature itself is estimated (:func:`quadrature_error`); where it is more than a tenth of
        that standard error, it is in ``stderr``, in ``interval`` and in the note.
        """
        pairs = list(zip(self.nodes, self.weights, strict=True))
        values = [float(w @ function(t)) for t, w in pairs]
        value, spread = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
        bias = float(np.mean([0.0 if len(t) == self.size else quadrature_error(function, t, w) for t, w in pairs]))
        if bias <= spread / 10 or bias <= 1e-9 * abs(value):
            return Estimate(value, stderr=spread)
        around = 2 * spread + bias
        return Estimate(
            value,
            stderr=math.hypot(spread, bias),
            interval=(value - around, value + around),
            note=f"the quadrature itself may be wrong by {bias:.2g}: more steps lessen it",
        )

    @cached_property
    def width(self) -> float:
        """The standard deviation of the kernel that :meth:`curve` draws an eigenvalue with: 1/200 of the range."""
        low, high = min(t.min() for t in self.nodes), max(t.max() for t in self.nodes)
        return float(high - low) / 200 or 1e-3 * (abs(float(high)) or 1.0)

    def curve(self, *, points: int = 1000, width: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Grid [points], density smoothed by a Gaussian kernel, and its standard error over the runs; in units of
        1/eigenvalue, with integral 1."""
        width = self.width if width is None else width
        low, high = min(t.min() for t in self.nodes), max(t.max() for t in self.nodes)
        grid = np.linspace(low - 4 * width, high + 4 * width, points)
        each = []
        for t, w in zip(self.nodes, self.weights, strict=True):
            each.append(np.exp(-(((grid[:, None] - t) / width) ** 2) / 2) @ w / (width * math.sqrt(2 * math.pi)))
        return grid, np.mean(each, 0), np.std(each, 0, ddof=1) / math.sqrt(len(each))


def quadrature_error(function: Callable[[np.ndarray], np.ndarray], nodes: np.ndarray, weights: np.ndarray) -> float:
    """The smaller of a bound on and an estimate of the error of Σ τ f(θ).

    The distribution of the spectrum along the start vector differs from that of the nodes, between two of them, by at
    most the larger of their weights (Chebyshev, Markov and Stieltjes: Szegő, Orthogonal Polynomials, section 3.41): the
    bound is Σ max(τᵢ, τᵢ₊₁) · (variation of f between θᵢ and θᵢ₊₁), from 32 points between two nodes. The estimate is
    ten times the largest change of the value when one, a quarter or nearly half of the steps are left out: nothing for
    polynomials of a degree up to their number, and little for functions that are nearly such.
    """
    order = np.argsort(nodes)
    nodes, weights = nodes[order], weights[order]
    inside = nodes[:-1, None] + np.diff(nodes)[:, None] * np.linspace(0, 1, 34)
    variation = np.abs(np.diff(function(inside.reshape(-1)).reshape(inside.shape), axis=1)).sum(1)
    bound = float(np.maximum(weights[:-1], weights[1:]) @ variation)
    whole = float(weights @ function(nodes))
    # the tridiagonal matrix that has these nodes and weights, by reflections that leave the first axis alone
    m = len(nodes)
    bordered = np.diag(np.append(0.0, nodes))
    bordered[0, 1:] = bordered[1:, 0] = np.sqrt(weights)
    reduced = hessenberg(bordered)[1:, 1:]
    changes = []
    for steps in {m // 2 + 1, 3 * m // 4, m - 1}:
        if m // 2 < steps < m:
            t, vectors = eigh_tridiagonal(reduced.diagonal()[:steps], reduced.diagonal(1)[: steps - 1])
            changes.append(abs(float(vectors[0] ** 2 @ function(t)) - whole))
    return min(bound, 10 * max(changes, default=math.inf))


def spectral_density(
    snapshot: Snapshot, *, matrix: str = "hessian", runs: int = 10, steps: int = 80, seed: int = 0
) -> Density:
    """The density of the eigenvalues of ∇²L(w) or of the Gauss–Newton matrix, as data (Ghorbani et al. 2019,
    arXiv 1901.10159; Ubaru et al. 2017, SIAM J. Matrix Anal. 38, 1075).

    Args:
        snapshot: network, loss and data.
        matrix: hessian or gauss_newton.
        runs: Lanczos runs, at least 2; the spread between them is the standard error.
        steps: of each run, each one product; fewer where the space is exhausted.
        seed: of the start vectors.
    """
    check_integer("runs", runs, least=2)
    check_integer("steps", steps, least=1)
    with snapshot.measuring():
        found = [_quadrature(snapshot, check_matrix(matrix), seed, index, steps) for index in range(runs)]
    nodes, weights = zip(*found, strict=True)
    return Density(snapshot.size, nodes, weights)


def _quadrature(snapshot: Snapshot, matrix: str, seed: int, index: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Lanczos run that starts from a random probe."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        run = Lanczos(
            operator_of(snapshot, matrix).matvec,
            snapshot.size,
            seed=derive_seed(seed, "run", index),
            device=snapshot.device,
            start=random_probe(snapshot, matrix, seed, index),
        )
        return run.quadrature(run.extend(steps))

    return snapshot.shared(("quadrature", matrix, seed, index, steps), make)
