"""The distance that the weights can move before a tenth of the examples is lost, and the PAC-Bayes measures from it."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.boxes import Attacks, largest_box
from genbench.measures.outputs import read, undefined
from genbench.measures.performance import wrong_answers
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

_STEP = 4.0  # factor between two trials of a radius until one is too small and one too large


@measure("flatness", names=("pacbayes_sigma", "pacbayes_mag_sigma"))
def pacbayes_sigma(
    snapshot: Snapshot,
    *,
    drop: float = 0.1,
    tolerance: float = 0.01,
    samples: int = 10,
    evaluations: int = 30,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The noise in the weights at which the mean accuracy has fallen by 0.1 (Jiang et al. 2020, arXiv 1912.02178,
    appendix C; Dziugaite et al. 2020, arXiv 2010.11924): ``pacbayes_sigma`` is the standard deviation σ of noise
    N(0, σ²) in every trainable parameter, ``pacbayes_mag_sigma`` the σ′ of noise N(0, σ′²wᵢ²), which rescaling the
    layers of a ReLU network does not change.

    The same ``samples`` draws of the noise serve all σ. σ is bracketed in steps of 4, interpolated on a logarithmic
    scale until the mean drop is within ``tolerance``, and set by the slope to the drop itself; the standard error is
    that of the mean drop over the slope. ``interval`` is the bracket, for these draws. ``converged`` says whether the
    tolerance, or a bracket of 0.1 %, was reached: the drop jumps where there are few examples. Jiang et al. add 1e-6
    to the variance σ′²wᵢ², which would bring back a dependence on scale; it is left out here.

    Args:
        snapshot: network, loss and data: those of a classifier.
        drop: of the accuracy, in (0, 1).
        tolerance: of the drop, > 0.
        samples: draws of the noise, each one forward pass an evaluation, at least 2.
        evaluations: bound on the values of σ tried, at least 3.
        seed: of the noise, from a generator of its own.
    """
    _check(drop, tolerance, evaluations, seed)
    check_integer("samples", samples, least=2)

    def find() -> dict[str, Estimate]:
        noise = Noise(snapshot, samples, derive_seed(seed, "pacbayes"))
        search = partial(_largest_noise, noise, drop=drop, tolerance=tolerance, evaluations=evaluations)
        w = snapshot.vector
        return {
            "pacbayes_sigma": search(torch.ones_like(w), _spread(w)),
            "pacbayes_mag_sigma": search(w.abs(), 0.1),
        }

    return snapshot.shared(("pacbayes_sigma", drop, tolerance, samples, evaluations, seed), find)


@measure("flatness", names=("sharpness_alpha", "sharpness_mag_alpha"))
def sharpness_alpha(
    snapshot: Snapshot,
    *,
    drop: float = 0.1,
    tolerance: float = 0.05,
    steps: int = 20,
    evaluations: int = 30,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The largest box around the weights in which the accuracy stays within 0.1 (Jiang et al. 2020, arXiv 1912.02178,
    appendix C): ``sharpness_alpha`` is α of the box |δᵢ| ≤ α, ``sharpness_mag_alpha`` the α′ of |δᵢ| ≤ α′|wᵢ|, which
    rescaling the layers of a ReLU network does not change.

    A box is too large if an attack in it passes a point where more is lost. The paper ascends on the loss, which makes
    few answers very wrong: of small transformers boxes a quarter of its size are too large. Here the attack that sets α
    lowers the margins of the answers that are lost most easily, see :class:`genbench.measures.boxes.Attacks`. α is
    narrowed on a logarithmic scale until the ends of ``interval`` are within ``tolerance``, and the value is their
    geometric mean. The upper end is certain, since a point of that box was found. The lower one withstood seven
    ascents on three objectives, the loss among them, in twice the steps, four of them from random points. That is
    evidence, no proof, so that the value is never called converged: on five small networks other ``steps`` (30, 60)
    moved it by 2 % in the median and by up to 30 %.

    Args:
        snapshot: network, loss and data: those of a classifier.
        drop: of the accuracy, in (0, 1).
        tolerance: relative width of the interval, > 0.
        steps: of an ascent, each one pass forward and one forward and backward.
        evaluations: bound on the boxes tried, at least 3.
        seed: of the random points.
    """
    _check(drop, tolerance, evaluations, seed)
    check_integer("steps", steps, least=1)

    def find() -> dict[str, Estimate]:
        search = partial(
            _largest_box, snapshot, drop=drop, tolerance=tolerance, steps=steps, evaluations=evaluations, seed=seed
        )
        w = snapshot.vector
        return {
            "sharpness_alpha": search(torch.ones_like(w), _spread(w)),
            "sharpness_mag_alpha": search(w.abs(), 0.1),
        }

    return snapshot.shared(("sharpness_alpha", drop, tolerance, steps, evaluations, seed), find)


@measure(
    "bound",
    names=(
        "pacbayes_init",
        "pacbayes_orig",
        "pacbayes_flatness",
        "pacbayes_mag_init",
        "pacbayes_mag_orig",
        "pacbayes_mag_flatness",
    ),
)
def pacbayes_measures(
    snapshot: Snapshot,
    *,
    drop: float = 0.1,
    tolerance: float = 0.01,
    samples: int = 10,
    evaluations: int = 30,
    epsilon: float = 1e-3,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The six PAC-Bayes measures of Jiang et al. 2020 (arXiv 1912.02178, appendix C), with m examples, ω parameters w,
    initial ones w⁰, σ and σ′ of :func:`pacbayes_sigma`:

    - ``pacbayes_init``: ‖w − w⁰‖²/4σ² + log(m/σ) + 10; ``pacbayes_orig``: ‖w‖² instead of ‖w − w⁰‖²;
    - ``pacbayes_flatness``: 1/σ²;
    - ``pacbayes_mag_init``: ¼ Σᵢ log[(ε² + (σ′² + 1)‖w − w⁰‖²/ω) / (ε² + σ′²(wᵢ − w⁰ᵢ)²)] + log(m/σ′) + 10;
      ``pacbayes_mag_orig``: ‖w‖² instead of ‖w − w⁰‖² in the numerator;
    - ``pacbayes_mag_flatness``: 1/σ′².

    They order networks; a bound on an error is :func:`genbench.measures.pac_bayes_bound`. All parameters that are
    perturbed, biases and normalization among them, are in the norms. Batch normalization is not folded into the weights
    as in the papers. Dziugaite et al. 2020 (arXiv 2010.11924) report √(value/m), and leave biases and normalization
    out: networks trained on different m are not ordered alike by the two.

    Args:
        drop, tolerance, samples, evaluations, seed: of the search, see :func:`pacbayes_sigma`.
        epsilon: ε > 0.
    """
    _check_epsilon(epsilon)
    _check(drop, tolerance, evaluations, seed)
    check_integer("samples", samples, least=2)
    found = pacbayes_sigma(
        snapshot, drop=drop, tolerance=tolerance, samples=samples, evaluations=evaluations, seed=seed
    )
    return _measures(snapshot, "pacbayes", *found.values(), epsilon=epsilon, factor=1.0, spread=1.0)


@measure(
    "bound",
    names=(
        "sharpness_init",
        "sharpness_orig",
        "sharpness_flatness",
        "sharpness_mag_init",
        "sharpness_mag_orig",
        "sharpness_mag_flatness",
    ),
)
def sharpness_measures(
    snapshot: Snapshot,
    *,
    drop: float = 0.1,
    tolerance: float = 0.05,
    steps: int = 20,
    evaluations: int = 30,
    epsilon: float = 1e-3,
    delta: float = 0.05,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The six sharpness measures of Jiang et al. 2020 (arXiv 1912.02178, appendix C), those of
    :func:`pacbayes_measures` with the boxes α and α′ of :func:`sharpness_alpha` for σ and σ′:

    - ``sharpness_init``: ‖w − w⁰‖² log(2ω)/4α² + log(m/α) + 10; ``sharpness_orig``: ‖w‖²;
    - ``sharpness_flatness``: 1/α²;
    - ``sharpness_mag_init``: ¼ Σᵢ log[(ε² + (α′² + 4 log(2ω/δ))‖w − w⁰‖²/ω) / (ε² + α′²(wᵢ − w⁰ᵢ)²)] + log(m/α′) + 10;
      ``sharpness_mag_orig``: ‖w‖² in the numerator;
    - ``sharpness_mag_flatness``: 1/α′².

    The paper writes log(m/σ) in these, without a σ; here it is α or α′. Public reimplementations disagree: some
    have log(m/δ) there, and log(2ω/δ) for log(2ω).

    Args:
        drop, tolerance, steps, evaluations, seed: of the search, see :func:`sharpness_alpha`.
        epsilon: ε > 0.
        delta: δ in (0, 1).
    """
    check_share("delta", delta)
    _check_epsilon(epsilon)
    _check(drop, tolerance, evaluations, seed)
    check_integer("steps", steps, least=1)
    found = sharpness_alpha(snapshot, drop=drop, tolerance=tolerance, steps=steps, evaluations=evaluations, seed=seed)
    factor, spread = math.log(2 * snapshot.size), 4 * math.log(2 * snapshot.size / delta)
    return _measures(snapshot, "sharpness", *found.values(), epsilon=epsilon, factor=factor, spread=spread)


def moved(snapshot: Snapshot) -> Tensor | None:
    """w − w⁰ [size], float64; None without initial weights of these names and shapes."""
    initial = snapshot.initial or {}
    if any(name not in initial or initial[name].shape != p.shape for name, p in snapshot.parameters.items()):
        return None
    start = torch.cat([initial[name].reshape(-1).double() for name in snapshot.parameters])
    return snapshot.vector - start.to(snapshot.device)


def error_rate(snapshot: Snapshot, vector: Tensor) -> float:
    """The share of wrong answers at other weights [size]."""
    reading = read(snapshot)
    assert not isinstance(reading, str)
    return wrong_answers(snapshot, reading, vector)


def _measures(
    snapshot: Snapshot, name: str, plain: Estimate, aware: Estimate, *, epsilon: float, factor: float, spread: float
) -> dict[str, Estimate]:
    """The six measures of a radius and its magnitude-aware one."""
    w, delta, m = snapshot.vector, moved(snapshot), snapshot.examples

    def gaussian(v: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda r: factor * v.square().sum() / (4 * r**2) + torch.log(m / r) + 10

    def scaled(v: Tensor, delta: Tensor) -> Callable[[Tensor], Tensor]:
        def value(r: Tensor) -> Tensor:
            ratio = (epsilon**2 + (r**2 + spread) * v.square().mean()) / (epsilon**2 + r**2 * delta**2)
            return ratio.log().sum() / 4 + torch.log(m / r) + 10

        return value

    return {
        f"{name}_init": _at(plain, None if delta is None else gaussian(delta)),
        f"{name}_orig": _at(plain, gaussian(w)),
        f"{name}_flatness": _at(plain, lambda r: 1 / r**2),
        f"{name}_mag_init": _at(aware, None if delta is None else scaled(delta, delta)),
        f"{name}_mag_orig": _at(aware, None if delta is None else scaled(w, delta)),
        f"{name}_mag_flatness": _at(aware, lambda r: 1 / r**2),
    }


def _at(radius: Estimate, function: Callable[[Tensor], Tensor] | None) -> Estimate:
    """A function of an estimate, with its error by the slope; without value if there are no initial weights."""
    if radius.value is None:
        return radius
    if function is None:
        return Estimate(None, note="no initial weights given, or of other names or shapes")
    r = torch.tensor(radius.value, dtype=torch.float64, requires_grad=True)
    value = function(r)
    slope = float(torch.autograd.grad(value, r)[0])
    stderr = None if radius.stderr is None else abs(slope) * radius.stderr
    return Estimate(float(value.detach()), stderr=stderr, converged=radius.converged)


class Noise:
    """The error rates under noise of any scale, always with the same random numbers."""

    def __init__(self, snapshot: Snapshot, samples: int, seed: int) -> None:
        self.snapshot = snapshot
        self.samples = samples
        self.seed = seed

    def rates(self, scale: Tensor) -> Tensor:
        """[samples], with noise of these standard deviations [size]."""
        generator = torch.Generator().manual_seed(self.seed)
        found = []
        for _ in range(self.samples):
            z = torch.randn(self.snapshot.size, generator=generator, dtype=torch.float64).to(scale.device)
            found.append(error_rate(self.snapshot, self.snapshot.vector + scale * z))
        return torch.tensor(found, dtype=torch.float64)


def _largest_noise(
    noise: Noise, scale: Tensor, start: float, *, drop: float, tolerance: float, evaluations: int
) -> Estimate:
    base, reason = _start(noise.snapshot, drop)
    if reason:
        return reason
    low, high, trial = (0.0, 0.0), (math.inf, 1.0), start  # low and high: σ and its mean drop
    for _ in range(evaluations):
        sigma, rates = trial, noise.rates(trial * scale) - base
        fallen = float(rates.mean())
        bracketed = low[0] > 0 and high[0] < math.inf
        done = bracketed and (abs(fallen - drop) <= tolerance or high[0] <= 1.001 * low[0])
        if done:
            break
        low, high = ((sigma, fallen), high) if fallen < drop else (low, (sigma, fallen))
        trial = _next(low[0], high[0], min(max((drop - low[1]) / (high[1] - low[1]), 0.1), 0.9))
    if high[0] == math.inf or low[0] == 0:
        return _out_of_range(1 - base, drop, low[0], high[0])
    slope = (high[1] - low[1]) / (high[0] - low[0])
    value = min(max(sigma + (drop - fallen) / slope, low[0]), high[0])
    stderr = float(rates.std()) / math.sqrt(noise.samples) / slope
    ends = (sigma, high[0]) if fallen < drop else (low[0], sigma)
    return Estimate(value, stderr=stderr, converged=done, interval=ends)


def _largest_box(
    snapshot: Snapshot,
    scale: Tensor,
    start: float,
    *,
    drop: float,
    tolerance: float,
    steps: int,
    evaluations: int,
    seed: int,
) -> Estimate:
    base, reason = _start(snapshot, drop)
    if reason:
        return reason
    reading = read(snapshot)
    assert not isinstance(reading, str)
    attacks = Attacks(snapshot, reading, scale, base=base, drop=drop, steps=steps, seed=seed)
    low, high, verified = largest_box(attacks, start, tolerance=tolerance, evaluations=evaluations)
    if high == math.inf or low == 0:
        return _out_of_range(1 - base, drop, low, high)
    withstood = (
        "withstood every attack, which is no proof"
        if verified
        else f"was not attacked by all kinds in {evaluations} evaluations"
    )
    return Estimate(math.sqrt(low * high), converged=False, interval=(low, high), note=f"the lower end {withstood}")


def _next(low: float, high: float, share: float = 0.5) -> float:
    """The next radius between one that is too small (0 if unknown) and one that is too large (∞ if unknown): at a
    ``share`` of the way on a logarithmic scale."""
    if high == math.inf:
        return low * _STEP
    return high / _STEP if low == 0 else low * (high / low) ** share


def _start(snapshot: Snapshot, drop: float) -> tuple[float, Estimate | None]:
    """The error rate, and the reason if the accuracy cannot fall by ``drop``."""
    if isinstance(reason := read(snapshot), str):
        return 1.0, undefined(reason)
    base = error_rate(snapshot, snapshot.vector)
    if 1 - base <= drop:
        return base, Estimate(None, note=f"undefined: the accuracy {1 - base:.4g} cannot fall by {drop:g}")
    return base, None


def _out_of_range(accuracy: float, drop: float, low: float, high: float) -> Estimate:
    far = f"by less at {low:.3g}" if high == math.inf else f"by more at {high:.3g}"
    return Estimate(None, converged=False, note=f"not found: the accuracy {accuracy:.4g} falls {far}, not by {drop:g}")


def _spread(w: Tensor) -> float:
    """A tenth of the root mean square of the weights, the start of the search."""
    return 0.1 * float(w.square().mean().sqrt()) or 0.1


def check_share(name: str, value: float) -> float:
    """A number in (0, 1)."""
    if check_number(name, value, low=0, high=1, open_high=True) == 0:
        raise ValueError(f"{name} is {value!r}; accepted: a number in (0, 1)")
    return float(value)


def _check_epsilon(epsilon: float) -> None:
    if check_number("epsilon", epsilon, low=0) == 0:
        raise ValueError(f"epsilon is {epsilon!r}; accepted: a number > 0")


def _check(drop: float, tolerance: float, evaluations: int, seed: int) -> None:
    check_share("drop", drop)
    if check_number("tolerance", tolerance, low=0) == 0:
        raise ValueError(f"tolerance is {tolerance!r}; accepted: a number > 0")
    check_integer("evaluations", evaluations, least=3)
    check_integer("seed", seed, least=0)
