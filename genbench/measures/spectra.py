"""Spectra of the weights and the power laws of their tails (heavy-tailed self-regularization)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.effective_weights import noting_low_rank, weights
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


class PowerLaw(NamedTuple):
    """A density p(x) = (α − 1)/x_min · (x/x_min)^−α on x ≥ x_min, fitted to the ``tail`` values from ``xmin`` on."""

    alpha: float
    stderr: float  # of alpha: (α − 1)/√tail, for a given xmin
    xmin: float
    ks_distance: float  # largest distance of the tail's distribution function from the fitted one, in [0, 1]
    tail: int


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of WᵀW, ascending, for the ``matrices`` (rows × columns) that a weight consists of, and the power
    law of their tail, ``None`` if they are too few to fit one.

    Divided by the larger of rows and columns, N, those of random weights of variance 1 fill (1 ± √(M/N))², M the
    smaller one (Marchenko–Pastur).
    """

    eigenvalues: np.ndarray
    rows: int
    columns: int
    matrices: int
    power_law: PowerLaw | None

    @property
    def alpha(self) -> float | None:
        """The exponent of the power law."""
        return self.power_law and self.power_law.alpha

    @property
    def xmin(self) -> float | None:
        """The eigenvalue at which the power law begins."""
        return self.power_law and self.power_law.xmin

    @property
    def ks_distance(self) -> float | None:
        """The distance of the tail from the power law."""
        return self.power_law and self.power_law.ks_distance


@measure(
    "norm",
    of_weights=True,
    names=(
        "alpha",
        "alpha.*",
        "alpha_weighted",
        "alpha_weighted.*",
        "log_alpha_norm",
        "log_alpha_norm.*",
        "stable_rank",
        "stable_rank.*",
        "ks_distance",
        "ks_distance.*",
    ),
)
@noting_low_rank
def power_law(snapshot: Snapshot, *, min_tail: int = 10) -> dict[str, Estimate]:
    """Power laws of the tails of the weights' spectra: a small α is a heavy tail.

    ===================  ===============================================================================
    ``alpha``            exponent α of the power law λ^−α fitted to the largest eigenvalues λ of WᵀW
    ``alpha_weighted``   α̂ = α log₁₀ λ_max
    ``log_alpha_norm``   log₁₀ Σ λ^α
    ``stable_rank``      Σ λ / λ_max
    ``ks_distance``      Kolmogorov–Smirnov distance of the tail from the power law
    ===================  ===============================================================================

    Of each weight as ``alpha.<parameter>`` and so on; ``alpha`` is the mean over those weights that have one. The
    standard error of α is that of the fit, (α − 1)/√n for n eigenvalues in the tail at given x_min.

    W is each trainable weight of two or more dimensions, as effective, tied ones once, the gates of a recurrent layer
    stacked. Of more than two dimensions (a convolution [out, in, *kernel]) it is one out × in matrix for each point of
    the kernel, and λ are the eigenvalues of all of them together, as WeightWatcher takes them (Martin, Peng and Mahoney
    2021, arXiv 2002.06716). WᵀW is not normalized, neither by the number of rows, as in Martin and Mahoney 2019 (arXiv
    1901.08276), nor for the size of the kernel: α and the stable rank do not depend on it, α̂ and the α-norm do.

    Args:
        snapshot: the network.
        min_tail: least number of eigenvalues in the tail, at least 2; a weight with fewer non-zero ones has no α.
    """
    spectra = weight_spectrum(snapshot, min_tail=min_tail)
    names = ("alpha", "alpha_weighted", "log_alpha_norm", "stable_rank", "ks_distance")
    if not spectra:
        return {name: Estimate(None, note="undefined: the network has no weight matrices") for name in names}
    layers = {layer: _of_layer(spectrum, min_tail) for layer, spectrum in spectra.items()}
    results = {name: _mean([estimates[name] for estimates in layers.values()]) for name in names}
    return results | {f"{name}.{layer}": layers[layer][name] for name in names for layer in layers}


def weight_spectrum(snapshot: Snapshot, *, min_tail: int = 10) -> dict[str, Spectrum]:
    """The spectrum of each weight by its name, from which :func:`power_law` is computed."""
    check_integer("min_tail", min_tail, least=2)
    return snapshot.shared(
        ("weight spectra", min_tail),
        lambda: {
            name: _spectrum(p, min_tail) for name, p in weights(snapshot).items() if p.ndim >= 2 and p.numel() > 0
        },
    )


def fit_power_law(values: np.ndarray, *, xmin: float | None = None, min_tail: int = 10) -> PowerLaw | None:
    """The power law of the largest of some positive ``values``: maximum likelihood, α = 1 + n / Σ ln(xᵢ/x_min) over
    the n values ≥ x_min. Without a given ``xmin`` it is that of all values for which the tail has the smallest
    Kolmogorov–Smirnov distance from its fit (Clauset, Shalizi and Newman 2009, arXiv 0706.1062).

    ``None`` if the tail has fewer than ``min_tail`` values, or no two that differ.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if xmin is not None:
        x = x[x >= xmin]
        return _fit(np.log(x / xmin), xmin) if len(x) >= min_tail else None
    starts = np.unique(x, return_index=True)[1]
    fits = [_fit(np.log(x[i:] / x[i]), float(x[i])) for i in starts if len(x) - i >= min_tail]
    return min((fit for fit in fits if fit is not None), key=lambda fit: fit.ks_distance, default=None)


def _fit(logs: np.ndarray, xmin: float) -> PowerLaw | None:
    """Fit to ``logs``, the ascending ln(x/x_min), which are exponential with rate α − 1."""
    n, total = len(logs), float(logs.sum())
    if total <= 0:
        return None
    rate = n / total
    fitted = -np.expm1(-rate * logs)
    steps = np.arange(n + 1) / n
    distance = max(float((steps[1:] - fitted).max()), float((fitted - steps[:-1]).max()))
    return PowerLaw(1 + rate, rate / math.sqrt(n), xmin, distance, n)


def _spectrum(w: Tensor, min_tail: int) -> Spectrum:
    matrices = w.flatten(2).movedim(2, 0) if w.ndim > 2 else w[None]
    rows, columns = matrices.shape[1:]
    singular = torch.linalg.svdvals(matrices.double()).reshape(-1).cpu().numpy()
    values = np.sort(singular**2)
    # below this a singular value is zero up to the rounding of the weights
    zero = (values[-1] if len(values) else 0.0) * (max(rows, columns) * torch.finfo(w.dtype).eps) ** 2
    return Spectrum(values, rows, columns, len(matrices), fit_power_law(values[values > zero], min_tail=min_tail))


def _of_layer(spectrum: Spectrum, min_tail: int) -> dict[str, Estimate]:
    values, law = spectrum.eigenvalues, spectrum.power_law
    largest = float(values[-1])
    if largest == 0:
        none = Estimate(None, note="undefined: the weights are zero")
        return dict.fromkeys(("alpha", "alpha_weighted", "log_alpha_norm", "stable_rank", "ks_distance"), none)
    rank = Estimate(float(values.sum()) / largest)
    if law is None:
        none = Estimate(
            None, note=f"undefined: fewer than {min_tail} distinct non-zero eigenvalues ({len(values)} in all)"
        )
        return {"alpha": none, "alpha_weighted": none, "log_alpha_norm": none, "stable_rank": rank, "ks_distance": none}
    scale = math.log10(largest)
    norm = law.alpha * scale + math.log10(float(((values / largest) ** law.alpha).sum()))  # λ^α may overflow
    return {
        "alpha": Estimate(law.alpha, stderr=law.stderr),
        "alpha_weighted": Estimate(law.alpha * scale, stderr=law.stderr * abs(scale)),
        "log_alpha_norm": Estimate(norm),
        "stable_rank": rank,
        "ks_distance": Estimate(law.ks_distance),
    }


def _mean(estimates: list[Estimate]) -> Estimate:
    known = [e for e in estimates if e.value is not None]
    if not known:
        return Estimate(None, note=estimates[0].note)
    errors = [e.stderr for e in known if e.stderr is not None]
    return Estimate(
        sum(e.value for e in known if e.value is not None) / len(known),
        stderr=math.hypot(*errors) / len(known) if errors else None,
        note=None if len(known) == len(estimates) else f"mean over {len(known)} of {len(estimates)} weights",
    )
