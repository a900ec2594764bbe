"""The code length of the labels by noisy weights, in bits."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.description_length import (
    BLOCK,
    gamma_bits,
    label_reading,
    labels_of,
    log_probabilities,
    number_of_classes,
)
from genbench.measures.outputs import Reading, undefined
from genbench.measures.posterior import last_change
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

INITIAL, ZERO = "initial", "zero"  # centers of a prior
_NAMES = ("bits", "weight_bits", "label_bits", "bits_per_label", "ratio")
_FINENESS = 4  # steps in which the standard deviation of a prior doubles
_SETTLED = 0.01  # bits a label by which the mean of the last quarter of the steps may differ from that before


@measure(
    "information",
    by_member=False,
    names=tuple(f"{kind}_{part}" for kind in ("variational", "variational_zero") for part in _NAMES),
)
def variational_code(
    snapshot: Snapshot,
    *,
    center: str = INITIAL,
    steps: int = 3000,
    batch_size: int = 200,
    lr: float = 0.01,
    lr_std: float = 0.03,
    std: float = 0.02,
    samples: int = 50,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The length of a code of the labels by noisy weights, which bits back makes cheap (Hinton & van Camp 1993, COLT;
    Honkela & Valpola 2004; of deep networks, Blier & Ollivier 2018, arXiv 1802.07044):

        KL(Q‖P) − Σᵢ E_w log₂ p_w(yᵢ | xᵢ),  w ∼ Q = N(μ, diag σ²),

    in bits, no shorter than that of a Bayesian with the prior P, −log₂ ∫ P(w) Π p_w(yᵢ | xᵢ) dw. P = N(w⁰, λ_t I) at
    the initial weights, which the receiver draws by the same seed, with a standard deviation 2^(j_t/4) for each tensor
    t, coded by Elias's γ code of the place of the integer j_t in 0, −1, 1, −2, …. With ``center="zero"`` it is the
    prior that Blier & Ollivier's script has by default: N(0, 1/fan_in) for weights, a standard deviation of 0.01 for
    tensors of one axis, such as biases; the names then begin with ``variational_zero``.

    Q is found by Bayes by backprop (Graves 2011; Blundell et al. 2015, arXiv 1505.05424): Adam, from w⁰ and
    σ = ``std``, on the cross-entropy of one drawn network on one batch plus KL/n at the λ where it is least, the mean
    of σ² + (μ − w⁰)² over the tensor, with learning rates that fall linearly to 0; with the prior at 0 from 0 and its
    standard deviations.

    ``variational_bits`` is the total, ``variational_weight_bits`` KL(Q‖P) with the bits of λ,
    ``variational_label_bits`` the mean over ``samples`` networks drawn from Q with its standard error,
    ``variational_bits_per_label``, and ``variational_ratio`` to the uniform code. The length holds for any Q, also for
    one that has not converged: ``converged`` says whether the mean objective of the last quarter of the steps is within
    0.01 bits a label of that of the quarter before, with a standard error of the difference within 0.01; an eighth of
    all movement lies between the two, as the rates fall. ``residual`` is the difference. A plateau that more steps
    would leave looks the same.

    In evaluation mode, with the buffers of the initial weights; the other weights of this snapshot are not used.
    Undefined without initial weights, and for outputs that are no logits of one label an example.

    Args:
        snapshot: network, loss and data, with initial weights.
        center: of the prior, ``"initial"`` or ``"zero"``.
        steps: of Adam, at least 16.
        batch_size: examples of a step, drawn with replacement, at least 1.
        lr: initial learning rate of μ, > 0.
        lr_std: that of log σ, > 0.
        std: σ at the start, > 0, of a prior at the initial weights.
        samples: networks of which the bits of the labels are the mean, at least 2.
        seed: of batches and networks, at least 0.
    """
    check_choice("center", center, (INITIAL, ZERO))
    check_integer("steps", steps, least=16)
    check_integer("batch_size", batch_size, least=1)
    for name, value in {"lr": lr, "lr_std": lr_std, "std": std}.items():
        check_number(name, value, low=0, open_low=True)
    check_integer("samples", samples, least=2)
    check_integer("seed", seed, least=0)
    kind = "variational" if center == INITIAL else "variational_zero"
    reading = label_reading(snapshot)
    if isinstance(reading, str):
        return {f"{kind}_bits": undefined(reading)}
    if snapshot.initial is None:
        return {f"{kind}_bits": undefined("there are no initial weights")}
    classes, n = number_of_classes(snapshot, reading), snapshot.examples
    start = snapshot.with_state(snapshot.initial)
    generator = torch.Generator().manual_seed(derive_seed(seed, "variational_code"))
    with start.measuring():
        noisy = _Noisy(start, reading, generator, std=std, given=center == ZERO)
        change, noise = noisy.optimize(steps=steps, batch_size=batch_size, lr=lr, lr_std=lr_std)
        labels = torch.tensor([noisy.label_bits() for _ in range(samples)], dtype=torch.float64)
    weights, mean = noisy.weight_bits(), float(labels.mean())
    bits, error = weights + mean, float(labels.std()) / math.sqrt(samples)
    uniform = n * math.log2(classes)

    settled = max(abs(change), noise) <= _SETTLED

    def estimate(value: float, stderr: float | None) -> Estimate:
        return Estimate(value, stderr=stderr, converged=settled, residual=change)

    values = (bits, weights, mean, bits / n, bits / uniform)
    errors = (error, None, error, error / n, error / uniform)
    parts = zip(_NAMES, values, errors, strict=True)
    return {f"{kind}_{part}": estimate(value, stderr) for part, value, stderr in parts}


class _Noisy:
    """A network with weights drawn from N(μ, diag σ²) and the labels of its data, within ``start.measuring()``.

    The prior is N(w⁰, λ_t I) with free λ_t, or if ``given`` N(0, λ_t I), with 1/fan_in and 0.01² for λ_t.
    """

    def __init__(
        self, start: Snapshot, reading: Reading, generator: torch.Generator, *, std: float, given: bool
    ) -> None:
        self.start, self.reading, self.generator = start, reading, generator
        self.x, targets = (torch.cat(parts) for parts in zip(*start.blocks(BLOCK), strict=True))
        self.y = labels_of(targets)
        tensors = [p for p in start.parameters.values() if p.numel()]
        self.sizes = [p.numel() for p in tensors]
        w = start.vector.float()  # [size]
        fan_in = [math.prod(p.shape[1:]) if p.ndim > 1 else 1e4 for p in tensors]
        self.scales = [-math.log2(n) / 2 for n in fan_in] if given else None  # log₂ √λ
        self.center = torch.zeros_like(w) if given else w
        self.mean = self.center.clone()
        start_at = [math.log2(std)] * len(tensors) if self.scales is None else self.scales
        self.log_std = torch.cat(
            [w.new_full((n,), scale * math.log(2)) for n, scale in zip(self.sizes, start_at, strict=True)]
        )

    def optimize(self, *, steps: int, batch_size: int, lr: float, lr_std: float) -> tuple[float, float]:
        """Minimize the bits; return :func:`last_change` in bits a label."""
        mean, log_std = self.mean.requires_grad_(), self.log_std.requires_grad_()
        optimizer = torch.optim.Adam([{"params": [mean], "lr": lr}, {"params": [log_std], "lr": lr_std}])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        objectives = []
        for _ in range(steps):
            rows = torch.randint(len(self.y), (batch_size,), generator=self.generator).to(self.y.device)
            logits = self.logits(self.drawn(mean, log_std), self.x[rows])
            squares = (2 * log_std).exp() + (mean - self.center).square()
            scales = self.scales or [part.detach().mean().log2() / 2 for part in squares.split(self.sizes)]
            objective = F.cross_entropy(logits, self.y[rows])
            objective = objective + self.divergence(squares, log_std, scales) / len(self.y)
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
            schedule.step()
            objectives.append(objective.detach())
        self.mean, self.log_std = mean.detach(), log_std.detach()
        change, error = last_change(objectives)
        return change / math.log(2), error / math.log(2)

    def weight_bits(self) -> float:
        """KL(Q‖P) and the bits of the standard deviations of P that are not given."""
        mean, log_std = self.mean.double(), self.log_std.double()
        squares = (2 * log_std).exp() + (mean - self.center.double()).square()
        if self.scales is not None:
            return float(self.divergence(squares, log_std, self.scales)) / math.log(2)
        numbers = [_number(float(part.sum()), len(part)) for part in squares.split(self.sizes)]
        nats = self.divergence(squares, log_std, [number / _FINENESS for number in numbers])
        return float(nats) / math.log(2) + sum(map(_name_bits, numbers))

    def label_bits(self) -> float:
        """The bits of all labels under one drawn network."""
        with torch.no_grad():
            weights, nats = self.drawn(self.mean, self.log_std), 0.0
            for x, y in zip(self.x.split(BLOCK), self.y.split(BLOCK), strict=True):
                log_p = log_probabilities(self.logits(weights, x))
                nats -= float(log_p.gather(1, y[:, None]).sum())
        return nats / math.log(2)

    def divergence(self, squares: Tensor, log_std: Tensor, scales: Sequence[Any]) -> Tensor:
        """KL(Q‖P) in nats from σ² + (μ − center)² and log σ [size], and log₂ √λ of each tensor."""
        parts = zip(squares.split(self.sizes), log_std.split(self.sizes), scales, strict=True)
        terms = [(s * 4**-scale - 1).sum() / 2 + len(s) * scale * math.log(2) - d.sum() for s, d, scale in parts]
        return torch.stack(terms).sum()

    def drawn(self, mean: Tensor, log_std: Tensor) -> Tensor:
        return mean + log_std.exp() * torch.randn(len(mean), generator=self.generator).to(mean)

    def logits(self, weights: Tensor, x: Tensor) -> Tensor:
        with self.start.holding(self.start.split(weights)):
            return self.reading.logits(self.start.model(x))


def _name_bits(number: int) -> int:
    """The length of an integer in the γ code of its place in 0, −1, 1, −2, …."""
    return gamma_bits(2 * abs(number) + (number >= 0))


def _number(squares: float, size: int) -> int:
    """The number of the prior that makes KL, in bits and with the name of that number, least."""

    def bits(number: int) -> float:
        scale = number / _FINENESS
        return squares * 4**-scale / 2 / math.log(2) + size * scale + _name_bits(number)

    nearest = round(_FINENESS * math.log2(squares / size) / 2)  # without its name, which is shorter towards 0
    return min(range(min(nearest, 0) - 1, max(nearest, 0) + 2), key=bits)
