"""A Gaussian posterior over the weights that is optimized for its PAC-Bayes bound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_flag, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.bounds import kl_inverse, vacuity
from genbench.measures.outputs import Reading, undefined, with_logits
from genbench.measures.pacbayes import check_share, moved
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

_LARGEST, _FINENESS = 0.1, 100  # c and b of the prior's variances c·e^(−j/b)
_SMALLEST_STD = 1e-4  # of the posterior at the start: a weight that is 0 has no scale of its own
_SETTLED = 0.01  # largest change of the objective from a quarter of the steps to the next, if it has converged


@measure(
    "bound",
    by_member=False,
    names=("pac_bayes_optimized", "pac_bayes_optimized_*", "pac_bayes_variance", "pac_bayes_variance_*"),
)
def pac_bayes_optimized(
    snapshot: Snapshot,
    train: Snapshot,
    *,
    mean: bool = True,
    steps: int = 3000,
    batch: int = 200,
    lr: float = 0.01,
    lr_std: float = 0.03,
    spread: float = 0.1,
    samples: int = 2000,
    delta: float = 0.025,
    delta_samples: float = 0.01,
    seed: int = 0,
) -> dict[str, Estimate]:
    """A certified bound on the error of the stochastic network whose weights are drawn anew from Q = N(μ, diag σ²) for
    every answer, with μ and σ² optimized (Dziugaite & Roy 2017, arXiv 1703.11008), as ``pac_bayes_optimized``:

        kl⁻¹( kl⁻¹(ê, log(2/δ′)/n), B ),   B = (KL(Q‖P) + log(π² j² m / 6δ)) / (m − 1),

    kl⁻¹(q, c) the largest p with kl(q‖p) ≤ c, P = N(w⁰, λI) at the initial weights, λ = 0.1·e^(−j/100) for an integer
    j ≥ 1, and ê the error of n drawn networks on the m train examples. It holds with probability 1 − δ − δ′ over data
    that were drawn independently of each other and of w⁰; buffers and frozen parameters count as given.

    Q starts at the trained weights w, with σᵢ = ``spread`` · |wᵢ|. Adam minimizes mean cross-entropy / log 2 + √(B/2)
    in μ and log σ: the cross-entropy of one drawn network on one batch, KL at the present μ and at the λ where it is
    least, with learning rates that fall linearly to 0. Then λ is rounded to the better of its neighbours, and n
    networks are drawn, each to be evaluated on as many train examples as a batch has, drawn with replacement. So each
    error is a number in [0, 1] with mean ê(Q), which the inner kl⁻¹ allows for. Dziugaite and Roy optimize λ by
    gradients, and take RMSprop, all examples in each step and 200,000 steps.

    Also returned: ``pac_bayes_optimized_kl``, KL(Q‖P) in nats; ``…_pinsker``, kl⁻¹(ê, …) + √(B/2), which can exceed 1;
    ``…_train_error``, and ``…_error`` on the snapshot's own data: n drawn networks, each on another part of them, with
    ``…_error_low``, a lower confidence limit of probability 1 − δ′ by the same inequality. With ``mean=False`` μ stays
    at w, and the names begin with ``pac_bayes_variance``. ``converged`` says whether the mean objective of the last
    quarter of the steps is within 0.01 of that of the quarter before, with a standard error of the difference within
    0.01; an eighth of all movement lies between the two, as the rates fall. ``residual`` is the difference. A plateau
    that more steps would leave looks the same. The bound holds whether it has converged or not.

    Args:
        snapshot: network, loss and data that were not trained on: logits [N, K, ...] and class labels, or one logit.
        train: the same network on its train split.
        mean: whether μ is optimized.
        steps: of Adam, at least 16.
        batch: examples of a step.
        lr: initial learning rate of μ, > 0.
        lr_std: that of log σ, > 0.
        spread: σᵢ / |wᵢ| at the start, > 0.
        samples: n, at least 2.
        delta: δ in (0, 1).
        delta_samples: δ′ in (0, 1).
        seed: of batches and networks.
    """
    check_flag("mean", mean)
    check_integer("steps", steps, least=16)
    check_integer("batch", batch, least=1)
    check_number("lr", lr, low=0, open_low=True)
    check_number("lr_std", lr_std, low=0, open_low=True)
    check_number("spread", spread, low=0, open_low=True)
    check_integer("samples", samples, least=2)
    check_share("delta", delta)
    check_share("delta_samples", delta_samples)
    check_integer("seed", seed, least=0)
    first = "pac_bayes_optimized" if mean else "pac_bayes_variance"
    names = [first, *(f"{first}_{part}" for part in ("kl", "pinsker", "train_error", "error", "error_low"))]
    reading = with_logits(train)
    if not isinstance(reading, str) and reading.ignored:
        reading = "the loss ignores some labels"
    if train.examples < 2:
        reading = "there is one train example"
    if isinstance(reading, str):
        return dict.fromkeys(names, undefined(reading))
    with train.measuring():
        start = moved(train)
        if start is None:
            missing = Estimate(None, note="no initial weights given, or of other names or shapes")
            return dict.fromkeys(names, missing)
        generator = torch.Generator().manual_seed(derive_seed(seed, first))
        seen, m = _Network(train, reading, generator), train.examples
        found = _optimized(
            seen, start, m, delta, mean=mean, steps=steps, batch=batch, lr=lr, lr_std=lr_std, spread=spread
        )
        kl, price = found.divergence()
        b = (kl + price + math.log(m / delta)) / (m - 1)
        errors = torch.stack([seen.error(found.draw(generator), seen.some(batch)) for _ in range(samples)])
    with snapshot.measuring():
        unseen = _Network(snapshot, reading, generator)
        parts = unseen.parts(samples)
        others = torch.stack([unseen.error(found.draw(generator), part) for part in parts])
    confident = kl_inverse(float(errors.mean()), math.log(2 / delta_samples) / samples)
    bound = kl_inverse(confident, b)
    low = 1 - kl_inverse(1 - float(others.mean()), math.log(1 / delta_samples) / len(others))
    classes = seen.classes
    values = [
        Estimate(bound, converged=found.converged, residual=found.change, note=vacuity(bound, classes)),
        Estimate(kl, converged=found.converged, residual=found.change),
        Estimate(confident + math.sqrt(b / 2)),
        _average(errors),
        _average(others),
        Estimate(low),
    ]
    return dict(zip(names, values, strict=True))


@dataclass
class _Posterior:
    mean: Tensor  # μ [size]
    log_std: Tensor  # log σ [size], float64
    square: float  # ‖μ − w⁰‖²
    converged: bool
    change: float

    def draw(self, generator: torch.Generator) -> Tensor:
        """Weights [size]."""
        return _drawn(self.mean, self.log_std, generator)

    def divergence(self) -> tuple[float, float]:
        """KL(Q‖P) and log(π² j²/6) for the better of the integers j beside the best λ."""
        squares, size = (2 * self.log_std).exp().sum() + self.square, len(self.log_std)
        j = math.floor(_FINENESS * (math.log(_LARGEST) - float(_best(squares, size))))
        found = []
        for each in {max(1, j), j + 1}:
            log_variance = squares.new_tensor(math.log(_LARGEST) - each / _FINENESS)
            kl = _kl(squares, self.log_std.sum(), log_variance, size)
            found.append((float(kl), math.log(math.pi**2 * each**2 / 6)))
        return min(found, key=sum)


class _Network:
    """A network and its data, to be evaluated at any weights."""

    def __init__(self, snapshot: Snapshot, reading: Reading, generator: torch.Generator) -> None:
        self.snapshot, self.reading, self.generator = snapshot, reading, generator
        self.x, self.y = (torch.cat(parts) for parts in zip(*snapshot.blocks(snapshot.examples), strict=True))
        self.classes = self.logits(snapshot.vector, torch.arange(1)).shape[1]

    def some(self, n: int) -> Tensor:
        """Positions of n random examples."""
        return torch.randint(len(self.y), (n,), generator=self.generator)

    def parts(self, most: int) -> list[Tensor]:
        """All positions in parts of equal size, at most ``most`` of them; a rest is left out."""
        size = -(-len(self.y) // most)
        whole = len(self.y) // size * size
        return list(torch.randperm(len(self.y), generator=self.generator)[:whole].split(size))

    def logits(self, vector: Tensor, rows: Tensor) -> Tensor:
        with self.snapshot.holding(self.snapshot.split(vector)):
            return self.reading.logits(self.snapshot.model(self.x[rows.to(self.x.device)]))

    def loss(self, vector: Tensor, rows: Tensor) -> Tensor:
        """Mean cross-entropy in bits."""
        logits = self.logits(vector, rows)
        return F.cross_entropy(logits, self.labels(rows)) / math.log(2)

    @torch.no_grad()
    def error(self, vector: Tensor, rows: Tensor) -> Tensor:
        """The share of wrong answers, float64."""
        wrong = self.logits(vector, rows).argmax(1) != self.labels(rows)
        return wrong.double().mean().cpu()

    def labels(self, rows: Tensor) -> Tensor:
        y = self.y[rows.to(self.y.device)]
        return y.long() if self.reading.axis is not None else y.reshape(len(y)).long()


def _optimized(
    network: _Network,
    start: Tensor,
    m: int,
    delta: float,
    *,
    mean: bool,
    steps: int,
    batch: int,
    lr: float,
    lr_std: float,
    spread: float,
) -> _Posterior:
    """The posterior after the steps; ``start`` is w − w⁰."""
    w = network.snapshot.vector.float()
    origin = w - start.float()
    std = (spread * w.abs()).clamp_min(_SMALLEST_STD)
    center = w.clone().requires_grad_(mean)
    log_std = std.log().requires_grad_()
    free: list[Any] = [{"params": [center], "lr": lr}] * mean + [{"params": [log_std], "lr": lr_std}]
    optimizer = torch.optim.Adam(free)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    constant, objectives = math.log(math.pi**2 * m / (6 * delta)), []
    for _ in range(steps):
        loss = network.loss(_drawn(center, log_std, network.generator), network.some(batch))
        squares = (2 * log_std).exp().sum() + (center - origin).square().sum()
        log_variance = _best(squares.detach(), len(w))
        j = _FINENESS * (math.log(_LARGEST) - log_variance)
        b = (_kl(squares, log_std.sum(), log_variance, len(w)) + 2 * j.log() + constant) / (m - 1)
        objective = loss + (b / 2).sqrt()
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        schedule.step()
        objectives.append(objective.detach())
    center, log_std = center.detach(), log_std.detach().double()
    square = float((center.double() - origin.double()).square().sum())
    change, noise = last_change(objectives)
    return _Posterior(center, log_std, square, max(abs(change), noise) <= _SETTLED, change)


def last_change(objectives: Sequence[Tensor]) -> tuple[float, float]:
    """By how much the mean objective of the last quarter of the steps differs from that of the quarter before, and its
    standard error. Where learning rates fall to 0, shorter windows hardly differ whatever is left to do."""
    quarter = len(objectives) // 4
    last, before = (
        torch.stack(list(part)).double() for part in (objectives[-quarter:], objectives[-2 * quarter : -quarter])
    )
    return float(last.mean() - before.mean()), float(((last.var() + before.var()) / quarter).sqrt())


def _best(squares: Tensor, size: int) -> Tensor:
    """log λ of the least KL divergence for Σσ² + ‖μ − w⁰‖², at most that of j = 1."""
    return (squares / size).log().clamp(max=math.log(_LARGEST) - 1 / _FINENESS)


def _drawn(center: Tensor, log_std: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(len(center), generator=generator).to(center)
    return center + log_std.exp().to(center) * noise


def _kl(squares: Tensor, log_std: Tensor, log_variance: Tensor, size: int) -> Tensor:
    """KL(N(μ, diag σ²) ‖ N(w⁰, λI)) from Σσ² + ‖μ − w⁰‖², Σ log σ and log λ."""
    return (squares * (-log_variance).exp() - size + size * log_variance) / 2 - log_std


def _average(values: Tensor) -> Estimate:
    return Estimate(float(values.mean()), stderr=float(values.std()) / math.sqrt(len(values)))
