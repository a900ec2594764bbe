"""Logarithm of a Gaussian orthant probability, P(g₁ > 0, …, g_n > 0) for g ~ N(0, K)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.special import log_ndtr, ndtri_exp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Propagated:
    """The estimate of log P by expectation propagation, and the largest change of a mean or a standard deviation,
    relative to the prior's standard deviation, in the last sweep."""

    value: float
    change: float
    converged: bool


def expectation_propagation(
    kernel: Array, *, sweeps: int = 100, tolerance: float = 1e-6, damping: float = 0.5
) -> Propagated:
    """log P by expectation propagation (Minka 2001; Rasmussen & Williams 2006, section 3.6; of orthants: Cunningham et
    al. 2011, arXiv 1111.6832).

    The indicator of each gᵢ > 0 is replaced by sᵢ exp(−½τᵢg² + νᵢg), such that the moments of 1[gᵢ > 0] times the
    Gaussian of the others are kept. All are updated at once, a share of the way, until no marginal changes by more than
    ``tolerance``. The error of the fixed point is not known: n = 1 is exact, and so is any diagonal kernel.
    """
    n = len(kernel)
    scale = np.sqrt(np.diag(kernel))
    k = kernel / np.outer(scale, scale)
    precision, shift = np.zeros(n), np.zeros(n)  # τ and ν
    mean, variance = np.zeros(n), np.ones(n)
    change, last = math.inf, False
    for _ in range(sweeps):
        own = 1 / variance - precision  # of the Gaussian without the factor itself
        center = mean / variance - shift
        z = center / np.sqrt(own)
        ratio = _ratio(z)
        new_variance = np.maximum(1 - ratio * (z + ratio), 1e-12) / own
        new_mean = (z + ratio) / np.sqrt(own)
        if last:
            break
        precision += damping * (np.maximum(1 / new_variance - own, 0.0) - precision)
        shift += damping * (new_mean / new_variance - center - shift)
        root_precision = np.sqrt(precision)
        inner = cholesky(np.eye(n) + root_precision[:, None] * k * root_precision, lower=True)
        half = solve_triangular(inner, root_precision[:, None] * k, lower=True)
        before, before_deviation = mean, np.sqrt(variance)
        variance = 1 - np.einsum("ij,ij->j", half, half)
        mean = k @ shift - half.T @ (half @ shift)
        change = float(max(np.abs(mean - before).max(), np.abs(np.sqrt(variance) - before_deviation).max()))
        last = change <= tolerance
    joined, natural = own + precision, center + shift
    factors = log_ndtr(z) - (natural**2 / joined - np.log(joined) - center**2 / own + np.log(own)) / 2
    value = float(factors.sum() + shift @ mean / 2 - np.log(np.diag(inner)).sum())
    return Propagated(value, change, change <= tolerance)


def sampled(kernel: Array, *, samples: int, seed: int) -> tuple[float, float]:
    """log P by Monte Carlo, and its standard error: the mean of importance weights under minimax tilting (Botev 2017,
    arXiv 1603.04166), the variables in the order of Gibson, Glasbey & Elston 1994.

    One variable after the other is drawn from a truncated normal given those before (Genz 1992), with a mean that is
    moved so that the largest weight is smallest. The mean of the weights is unbiased whatever that shift.
    """
    n = len(kernel)
    factor = _ordered(kernel)
    diagonal = np.diag(factor).copy()
    lower = factor / diagonal[:, None]
    np.fill_diagonal(lower, 0.0)
    shift = _tilt(lower)
    generator = np.random.default_rng(seed)
    log_weights = np.zeros(samples)
    x = np.zeros((n, samples))
    for i in range(n):
        bound = -lower[i, :i] @ x[:i] - shift[i]  # the variable, less its shift, is larger
        log_p = log_ndtr(-bound)
        uniform = generator.uniform(size=samples)
        x[i] = shift[i] - ndtri_exp(log_p + np.log1p(-uniform))
        log_weights += shift[i] ** 2 / 2 - x[i] * shift[i] + log_p
    top = float(log_weights.max())
    weights = np.exp(log_weights - top)
    mean = float(weights.mean())
    return top + math.log(mean), float(weights.std(ddof=1)) / math.sqrt(samples) / mean


def _ratio(z: Array) -> Array:
    """φ(z) / Φ(z)."""
    return np.exp(-(z**2) / 2 - math.log(2 * math.pi) / 2 - log_ndtr(z))


def _ordered(kernel: Array) -> Array:
    """The Cholesky factor of the kernel with its variables in the order in which each is the least likely to be
    positive, given that those before have their means."""
    k = kernel.copy()
    n = len(k)
    factor, means = np.zeros((n, n)), np.zeros(n)
    for j in range(n):
        rest = np.arange(j, n)
        spread = np.sqrt(np.maximum(np.diag(k)[rest] - (factor[rest, :j] ** 2).sum(1), 1e-300))
        level = factor[rest, :j] @ means[:j] / spread
        best = j + int(np.argmin(level))
        k[[j, best]] = k[[best, j]]
        k[:, [j, best]] = k[:, [best, j]]
        factor[[j, best], :j] = factor[[best, j], :j]
        rest_variance = k[j, j] - (factor[j, :j] ** 2).sum()
        if rest_variance <= 1e-12 * k[j, j]:
            raise np.linalg.LinAlgError("the output at some inputs determines that at another")
        factor[j, j] = math.sqrt(rest_variance)
        factor[j + 1 :, j] = (k[j + 1 :, j] - factor[j + 1 :, :j] @ factor[j, :j]) / factor[j, j]
        level_j = factor[j, :j] @ means[:j] / factor[j, j]
        means[j] = float(_ratio(np.array([level_j]))[0])  # of a standard normal above −level
    return factor


def _tilt(lower: Array) -> Array:
    """The shift of each variable at the saddle point of Σᵢ μᵢ²/2 − xᵢμᵢ + log Φ(μᵢ + (Lx)ᵢ), 0 for the last."""
    n = len(lower)
    if n == 1:
        return np.zeros(1)
    inner = lower[:, : n - 1]

    def slopes(both: Array) -> tuple[Array, Array]:
        x, mu = both[: n - 1], np.append(both[n - 1 :], 0.0)
        t = inner @ x + mu
        ratio = _ratio(t)
        curve = -ratio * (t + ratio)
        by_x = inner.T @ ratio - mu[:-1]
        by_mu = mu[:-1] - x + ratio[:-1]
        bent = curve[:, None] * inner
        eye = np.eye(n - 1)
        top = np.hstack([inner.T @ bent, (bent[:-1] - eye).T])
        return np.concatenate([by_x, by_mu]), np.vstack([top, np.hstack([bent[:-1] - eye, eye + np.diag(curve[:-1])])])

    both = np.zeros(2 * (n - 1))
    value, jacobian = slopes(both)
    size = float(np.linalg.norm(value))
    for _ in range(100):
        if size < 1e-9:
            break
        step = np.linalg.solve(jacobian, value)
        share = 1.0
        while share > 1e-4:
            trial, slope = slopes(both - share * step)
            if (found := float(np.linalg.norm(trial))) < size:
                break
            share /= 2
        else:
            break
        both, value, jacobian, size = both - share * step, trial, slope, found
    return np.append(both[n - 1 :], 0.0)
