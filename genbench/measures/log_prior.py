"""How probable the learned function is before training: log P(f)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.linear_layers import Layer, linear_layers
from genbench.measures.orthant import Array, expectation_propagation, sampled
from genbench.measures.outputs import Reading, read
from genbench.measures.performance import wrong_answers
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_MOST = 5000  # distinct inputs: a matrix then takes 200 MB
FAN_IN = "fan_in"  # biases of the variance of the weights
_STEPS = 6.0  # standard errors by which the variance of initial weights may differ from torch's


@measure("information", by_member=False, names=("log_prior", "log_prior_sampled"))
def log_prior(
    snapshot: Snapshot,
    train: Snapshot,
    *,
    weight_std: float | None = None,
    bias_std: float | str | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """log P(f) in nats: P(f) is the probability that a network with random weights answers as this one does, on the
    inputs of these data and of the train split together, each distinct input once (Valle-Pérez et al. 2019, arXiv
    1805.08522; Zhang et al. 2021, arXiv 2103.06219; Mingard et al. 2021, arXiv 2006.15191).

    The random network is the Gaussian process that a fully connected ReLU network is in the limit of infinite width
    (Lee et al. 2018, arXiv 1711.00165), with the depth of this one and initial weights of variance σ_w²/fan_in and
    biases of variance σ_b² (Cho & Saul 2009):

        K⁰ = σ_b² + σ_w² x·x′/d,  Kˡ⁺¹ = σ_b² + σ_w²/2π · √(Kˡ(x,x)Kˡ(x′,x′)) · (sin θ + (π − θ) cos θ),

    d the length of an input and cos θ the correlation under Kˡ. P(f) is the probability of the signs of the output, or
    of the difference of two logits: ``log_prior`` by expectation propagation (see
    :func:`genbench.measures.orthant.expectation_propagation`), with ``converged`` and, as ``residual``, the largest
    change in the last sweep. Its own error is not known; on the 128 inputs of 7 bits it is below one nat.
    ``log_prior_sampled`` is the same number by Monte Carlo, with its standard error. It says nothing about a finite
    network's own probabilities, nor about how likely training finds f.

    Undefined for more than two classes, for more than 5,000 distinct inputs, and for a network that is not fully
    connected with ReLU: its outputs are compared with those of its linear layers, one after the other, with ReLU
    between.

    Args:
        snapshot: network, loss and data.
        train: the same network on its train split.
        weight_std: σ_w > 0 of all layers; without it, 1/√3 as in torch's linear layers; undefined then if the initial
            weights have another variance.
        bias_std: σ_b ≥ 0 of all layers; ``"fan_in"``: σ_w/√fan_in, that of the weights; without it, 1/√(3 fan_in) as in
            torch's.
        samples: draws of the Monte Carlo estimate, at least 2; 0 leaves it out. Its time grows with the cube of the
            number of inputs.
        seed: of the draws.
    """
    check_spreads(weight_std, bias_std)
    check_integer("samples", samples, least=0)
    if samples == 1:
        raise ValueError("samples is 1; accepted: 0, or an integer of at least 2")
    check_integer("seed", seed, least=0)
    names = ["log_prior"] + ["log_prior_sampled"] * (samples > 0)
    found = answers(train, snapshot)
    if isinstance(found, str):
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {found}"))
    spreads = spreads_of(snapshot, found.layers, weight_std, bias_std)
    if isinstance(spreads, str):
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {spreads}"))
    kernel = arc_cosine(found.inputs, spreads) * np.outer(found.signs, found.signs)
    try:
        if np.diag(kernel).min() <= 0:
            raise np.linalg.LinAlgError("the output at an input is always 0")
        estimates = [_propagated(kernel)]
        if samples:
            value, error = sampled(kernel, samples=samples, seed=seed)
            estimates.append(Estimate(value, stderr=error, note=f"{len(kernel)} inputs"))
    except np.linalg.LinAlgError as error:
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {error}"))
    return dict(zip(names, estimates, strict=True))


@measure("information", by_member=False, names=("marginal_likelihood_bound", "log_marginal_likelihood"))
def marginal_likelihood_bound(
    snapshot: Snapshot, *, weight_std: float | None = None, bias_std: float | str | None = None, delta: float = 0.05
) -> dict[str, Estimate]:
    """The PAC-Bayes bound ``marginal_likelihood_bound`` on the expected error ε of a function drawn from the prior
    among those without an error on the m examples, which holds with probability 1 − δ over the examples
    (Valle-Pérez et al. 2019, arXiv 1805.08522, after McAllester 1998):

        −ln(1 − ε) ≤ (ln 1/P(U) + ln 2m/δ) / (m − 1).

    U are the functions that answer every example as its label, and ln P(U), ``log_marginal_likelihood`` in nats, is
    their probability under the Gaussian process of :func:`log_prior`, by expectation propagation, on these data
    alone. Training is not a draw from the prior, so of a trained network it is a bound as far as training is like one.
    Undefined as :func:`log_prior` is, and for a network that errs on its examples.

    Args:
        snapshot: network, loss and the data that it was trained on, at least two.
        weight_std: σ_w, as in :func:`log_prior`.
        bias_std: σ_b, as in :func:`log_prior`.
        delta: δ in (0, 1).
    """
    check_spreads(weight_std, bias_std)
    check_number("delta", delta, low=0, high=1, open_low=True, open_high=True)
    names = ["marginal_likelihood_bound", "log_marginal_likelihood"]
    found = answers(snapshot)
    if isinstance(found, str):
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {found}"))
    reading, m = read(snapshot), snapshot.examples
    assert isinstance(reading, Reading)
    reason = "the network errs on these examples" if wrong_answers(snapshot, reading, snapshot.vector) else None
    reason = (
        "the loss ignores some labels" if reading.ignored else reason or (None if m > 1 else "there is one example")
    )
    spreads = spreads_of(snapshot, found.layers, weight_std, bias_std)
    if reason or isinstance(spreads, str):
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {reason or spreads}"))
    try:
        of_prior = _propagated(arc_cosine(found.inputs, spreads) * np.outer(found.signs, found.signs))
    except np.linalg.LinAlgError as error:
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {error}"))
    assert of_prior.value is not None
    exponent = (math.log(2 * m / delta) - of_prior.value) / (m - 1)
    bound = Estimate(-math.expm1(-exponent), converged=of_prior.converged, residual=of_prior.residual)
    return dict(zip(names, (bound, of_prior), strict=True))


def _propagated(kernel: Array) -> Estimate:
    found = expectation_propagation(kernel)
    return Estimate(found.value, converged=found.converged, residual=found.change, note=f"{len(kernel)} inputs")


def arc_cosine(inputs: Array, spreads: list[tuple[float, float]]) -> Array:
    """The kernel [n, n] of an infinitely wide ReLU network on inputs [n, d], (σ_w, σ_b) of each layer given."""
    kernel = inputs @ inputs.T / inputs.shape[1]
    for index, (weight, bias) in enumerate(spreads):
        if index:
            scale = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
            cosine = np.divide(kernel, scale, out=np.ones_like(kernel), where=scale > 0).clip(-1, 1)
            np.fill_diagonal(cosine, 1.0)
            angle = np.arccos(cosine)
            kernel = scale * (np.sqrt(1 - cosine**2) + (math.pi - angle) * cosine) / (2 * math.pi)
        kernel = bias**2 + weight**2 * kernel
    return kernel


@dataclass(frozen=True)
class Answers:
    """The answers of a fully connected ReLU network to some inputs."""

    inputs: Array  # [n, d], distinct
    signs: Array  # [n], 1 for the second class, else -1
    layers: list[Layer]


def check_spreads(weight_std: object, bias_std: object) -> None:
    """Refuse a σ_w or σ_b that :func:`spreads_of` does not know."""
    if weight_std is not None:
        check_number("weight_std", weight_std, low=0, open_low=True)
    if isinstance(bias_std, str) and bias_std != FAN_IN:
        raise ValueError(f"bias_std is {bias_std!r}; accepted: a number in [0, inf), {FAN_IN}, or null")
    if bias_std is not None and not isinstance(bias_std, str):
        check_number("bias_std", bias_std, low=0)


def answers(*snapshots: Snapshot) -> Answers | str:
    """The distinct inputs of snapshots of one network, in lexicographic order, and its answers, or why it has none."""
    reading = read(snapshots[-1])
    if isinstance(reading, str):
        return reading
    inputs, signs = [], []
    layers: list[Layer] = []
    for each in snapshots:
        with each.measuring():
            for batch in each.each_batch():
                if not each.is_pair(batch) or not isinstance(batch[0], Tensor) or not batch[0].is_floating_point():
                    return "the inputs are no tensor of numbers"
                found = _run(each, batch, reading)
                if isinstance(found, str):
                    return found
                difference, layers = found
                inputs.append(batch[0].flatten(1).double().cpu())
                signs.append(difference.cpu())
    x, first = np.unique(torch.cat(inputs).numpy(), axis=0, return_index=True)
    if len(x) > _MOST:
        return f"there are {len(x):,} distinct inputs, more than {_MOST:,}"
    margin = torch.cat(signs).numpy()[first]
    return Answers(x, np.where(margin > 0, 1.0, -1.0), layers)


def _run(snapshot: Snapshot, batch: Any, reading: Reading) -> tuple[Tensor, list[Layer]] | str:
    """logit₁ − logit₀ of each example [b], and the layers; or why the network is no such network."""
    output, layers = linear_layers(snapshot, batch)
    logits = reading.logits(output)
    if logits.shape[1:] != (2,):
        return f"it is the probability of two classes, and the outputs are {tuple(logits.shape[1:])}"
    x = batch[0].flatten(1).double()
    for index, layer in enumerate(layers):
        if x.shape[1] != layer.weight.shape[1]:
            return "the network is not fully connected"
        x = nn.functional.linear(x.relu() if index else x, layer.weight, layer.bias)
    actual = reading.tensor(output).double()
    if x.shape != actual.shape or not torch.allclose(x, actual, rtol=1e-3, atol=1e-4):
        return "the network is not fully connected with ReLU between its layers"
    return (logits[:, 1] - logits[:, 0]).double(), layers


def spreads_of(
    snapshot: Snapshot, layers: list[Layer], weight_std: float | None, bias_std: float | str | None
) -> list[tuple[float, float]] | str:
    """(σ_w, σ_b) of each layer as given, or those of torch's linear layers; or why they are not known."""
    found = []
    start = None if weight_std is not None or snapshot.initial is None else snapshot.with_state(snapshot.initial)
    with (start or snapshot).measuring():
        weights = [layer.weight for layer in linear_layers(start, next(start.each_batch()))[1]] if start else []
    for index, layer in enumerate(layers):
        fan_in = layer.weight.shape[1]
        if weights:
            # of a uniform distribution, the square of a weight has 2/√5 times its mean as its standard deviation
            ratio, count = 3 * fan_in * float(weights[index].square().mean()), weights[index].numel()
            if abs(ratio - 1) > _STEPS * 2 / math.sqrt(5 * count):
                return f"initial weights have {ratio:.3g} times the variance of torch's; weight_std says which"
        weight = 1 / math.sqrt(3) if weight_std is None else weight_std
        if bias_std is None or isinstance(bias_std, str):
            times = 1 / math.sqrt(3) if bias_std is None else weight
            bias = 0.0 if layer.bias is None else times / math.sqrt(fan_in)
        else:
            bias = bias_std
        found.append((weight, bias))
    return found
