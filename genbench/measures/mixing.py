"""How well Markov chains mix: R̂ and the effective sample size of one number along several chains.

Both of Vehtari et al. 2021 (Bayesian Anal. 16, 667; arXiv 1903.08008), and of chains that are split in half, so that a
drift within a chain shows as well as chains that differ.
"""

import math

import numpy as np
from scipy.special import ndtri


def r_hat(draws: np.ndarray) -> float:
    """The rank-normalized R̂ of draws [chains, steps], the larger of that of their values and that of their distances
    from the median; 1 for chains that agree, inf for different chains that do not move.

    It is √(V/W), W the mean variance within the halves of the chains and V = W (n − 1)/n + the variance of their means.
    """
    halves = _halves(draws)
    return max(_r_hat(_normal_scores(x)) for x in (halves, np.abs(halves - np.median(halves))))


def effective_sample_size(draws: np.ndarray) -> float:
    """How many independent draws have a mean with the same standard error as the mean of draws [chains, steps].

    It is N/τ, N the number of draws and τ = 1 + 2Σρₜ with autocorrelations ρₜ that count what the chains differ by,
    summed in pairs as long as these are positive, and never more than the pair before (Geyer 1992, Stat. Sci. 7, 473).
    """
    halves = _halves(draws)
    n = halves.shape[1]
    within, total = _variances(halves)
    if not total:
        return float(halves.size)
    rho = 1 - (within - _autocovariances(halves).mean(0)) / total
    rho[0] = 1
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(1)
    positive = int(np.argmax(np.append(pairs, -1) < 0))
    following = max(rho[2 * positive], 0) if 2 * positive < n else 0
    tau = -1 + 2 * np.minimum.accumulate(pairs[:positive]).sum() + following
    return float(halves.size / max(tau, 1 / math.log10(halves.size)))


def _halves(draws: np.ndarray) -> np.ndarray:
    """[2 · chains, steps // 2], without the middle one of an odd number of steps."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks among all draws (Blom 1958)."""
    from scipy.stats import rankdata  # a third of a second

    return ndtri((rankdata(draws).reshape(draws.shape) - 3 / 8) / (draws.size + 1 / 4))


def _variances(draws: np.ndarray) -> tuple[float, float]:
    """W and V of :func:`r_hat`."""
    n = draws.shape[1]
    within = draws.var(1, ddof=1).mean()
    return within, within * (n - 1) / n + draws.mean(1).var(ddof=1)


def _r_hat(draws: np.ndarray) -> float:
    within, total = _variances(draws)
    if not within:
        return math.inf if total else 1.0
    return math.sqrt(total / within)


def _autocovariances(draws: np.ndarray) -> np.ndarray:
    """Σᵢ (xᵢ − x̄)(xᵢ₊ₜ − x̄) / n of each chain, for t = 0 … n − 1."""
    n = draws.shape[1]
    spectrum = np.fft.rfft(draws - draws.mean(1, keepdims=True), 2 * n)
    return np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[:, :n] / n
