"""Margins: distances of the outputs from another answer; a misclassified example's margin is negative.

Labels that the loss ignores (``ignore_index``, a class weight of 0) are left out.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_number
from genbench.measures.base import measure
from genbench.measures.effective_weights import effective_weights, noting_low_rank
from genbench.measures.model_inputs import why_no_inputs
from genbench.measures.outputs import Reading, undefined, with_logits
from genbench.measures.performance import labelled
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_QUANTILES = (10, 25, 50, 75, 90)  # percent


@measure("margin", by_member=False)
def margin(snapshot: Snapshot, *, percentile: float = 10) -> Estimate:
    """γ, the 10th percentile of the margins over the examples, in units of the logits, sign kept.

    The margin of an example is its correct logit − the largest other one; of a network with one logit and targets 0 or
    1, ± the logit, where the loss shows by its symmetry that 0 is the boundary (binary cross-entropy with logits does).
    The logits of a network whose outputs are probabilities p are log p (of one output, log p − log(1 − p)).
    Positions of [N, K, ...] outputs count as examples. Between two examples the percentile is interpolated linearly.

    Args:
        snapshot: network, loss and data.
        percentile: in [0, 100]; 0 is the smallest margin.

    Reference: Jiang et al. 2020 (arXiv 1912.02178), who take the 10th percentile for a robust minimum.
    """
    gamma = margin_percentile(snapshot, percentile=percentile)
    return undefined(gamma) if isinstance(gamma, str) else Estimate(gamma)


@measure("margin", by_member=False, names=("margin_q10", "margin_q25", "margin_q50", "margin_q75", "margin_q90"))
def margin_quantiles(snapshot: Snapshot) -> dict[str, Estimate]:
    """Percentiles 10, 25, 50, 75 and 90 of the margins, as ``margin_q10`` … ``margin_q90``: see :func:`margin`."""
    margins = example_margins(snapshot)
    if isinstance(margins, str):
        return {f"margin_q{q}": undefined(margins) for q in _QUANTILES}
    return {f"margin_q{q}": Estimate(_percentile(margins, q)) for q in _QUANTILES}


@measure("margin", by_member=False)
def inverse_margin(snapshot: Snapshot, *, percentile: float = 10) -> Estimate:
    """1/γ² with γ of :func:`margin` (Jiang et al. 2020, arXiv 1912.02178).

    ``None`` with a note if γ ≤ 0: a square would make a misfit look like a margin.
    """
    gamma = margin_percentile(snapshot, percentile=percentile)
    if isinstance(gamma, str):
        return undefined(gamma)
    if gamma <= 0:
        return Estimate(None, note=f"undefined: the margin is {gamma:.6g}, not positive")
    return Estimate(1 / gamma**2)


@measure("margin", names=("margin_over_spectral", "margin_over_frobenius", "normalized_margin"))
@noting_low_rank
def normalized_margin(snapshot: Snapshot, *, percentile: float = 10) -> dict[str, Estimate]:
    """γ, the percentile of :func:`margin`, divided by a size that the weights alone can give it:

    - ``margin_over_spectral``: γ / Π‖W‖₂;
    - ``margin_over_frobenius``: γ / Π‖W‖_F;
    - ``normalized_margin``: γ / (R ‖X‖_F / n) with the spectral complexity
      R = Π‖W‖₂ · (Σ (‖Wᵀ‖₂,₁ / ‖W‖₂)^⅔)^(3/2) (Bartlett et al. 2017, arXiv 1706.08498, eq. 1.2 and section 2, with
      reference matrices 0 and 1-Lipschitz activations). ‖Wᵀ‖₂,₁ sums the norms of the rows of W, one a unit; X is what
      the first layer is given, n the number of examples; an embedding is given one-hot vectors.

    Each W is a weight of two or more dimensions as the matrix of its first × all others (a convolution reshaped, the
    gates of a recurrent layer stacked), trainable or not; one that several layers share counts in each. Biases, scales
    and skip connections are left out, so that only for plain chains of layers does the bound of the paper hold.
    """
    gamma = margin_percentile(snapshot, percentile=percentile)
    if isinstance(gamma, str):
        return dict.fromkeys(("margin_over_spectral", "margin_over_frobenius", "normalized_margin"), undefined(gamma))
    return {
        name: undefined(log) if isinstance(log, str) else Estimate(_over(gamma, log))
        for name, log in _sizes(snapshot).items()
    }


@measure("margin", names=("normalized_margin_q*",))
@noting_low_rank
def normalized_margin_quantiles(
    snapshot: Snapshot, *, percentiles: Sequence[float] = _QUANTILES
) -> dict[str, Estimate]:
    """Percentiles of the normalized margins, margin / (R ‖X‖_F / n) as in :func:`normalized_margin`, as
    ``normalized_margin_q10`` … ``normalized_margin_q90``: the distribution that Bartlett et al. 2017 (arXiv 1706.08498)
    compare between true and random labels.

    Args:
        snapshot: network, loss and data.
        percentiles: at least one, each in [0, 100] and once.
    """
    check_percentiles(percentiles)
    names = [f"normalized_margin_q{q:g}" for q in percentiles]
    margins = example_margins(snapshot)
    if isinstance(margins, str):
        return dict.fromkeys(names, undefined(margins))
    log = _sizes(snapshot)["normalized_margin"]
    if isinstance(log, str):
        return dict.fromkeys(names, undefined(log))
    found = [Estimate(_over(_percentile(margins, q), log)) for q in percentiles]
    return dict(zip(names, found, strict=True))


@measure("margin", by_member=False)
def input_margin(snapshot: Snapshot, *, percentile: float = 10) -> Estimate:
    """The 10th percentile of margin / ‖∇ₓ margin‖₂: to first order, how far an input is from the decision boundary, in
    units of the input, negative for a misclassified one (Elsayed et al. 2018, arXiv 1803.05598, at the input, for
    the boundary to the class with the largest other logit).

    Examples are taken to be independent of each other, as they are in evaluation mode. Outputs [N, K, T] take T
    backward passes. Undefined where the input has no real numbers, or where the percentile falls on an example whose
    margin does not depend on the input.

    Args:
        snapshot: network, loss and data.
        percentile: in [0, 100].
    """
    check_number("percentile", percentile, low=0, high=100)
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    distances = []
    for inputs, output, target in snapshot.at_inputs():
        if not inputs:
            return undefined(why_no_inputs(snapshot))
        margins = signed(reading, output, target)
        margins = margins.movedim(snapshot.target_axis, 0).flatten(1) if margins.ndim > 1 else margins[:, None]
        slopes = torch.stack([_slopes(column, inputs) for column in margins.unbind(1)], 1)
        margins = margins.detach()
        found = torch.where(margins == 0, margins, margins / slopes)
        if reading.ignored:
            counts = reading.counts(output, target)
            found = found[counts.movedim(snapshot.target_axis, 0).flatten(1) if counts.ndim > 1 else counts[:, None]]
        distances.append(found.reshape(-1))
    value = _percentile(torch.cat(distances), percentile)
    if not math.isfinite(value):
        return Estimate(None, note="undefined: the margins of that percentile do not depend on the input")
    return Estimate(value)


@measure("margin", by_member=False)
def negative_entropy(snapshot: Snapshot) -> Estimate:
    """Mean over the examples of Σ_k p_k log p_k, p the network's probabilities, in nats, in [−log K, 0]: the nearer to
    0, the more confident (Jiang et al. 2020, arXiv 1912.02178, after Pereyra et al. 2017, arXiv 1701.06548)."""
    known = labelled(snapshot)
    if isinstance(known, str):
        return undefined(known)
    return Estimate(float(-torch.special.entr(known[0].double().exp()).sum(1).mean()))


def margin_percentile(snapshot: Snapshot, *, percentile: float = 10) -> float | str:
    """γ of :func:`margin` as a number, or why there is none."""
    check_number("percentile", percentile, low=0, high=100)
    found = example_margins(snapshot)
    return found if isinstance(found, str) else _percentile(found, percentile)


def example_margins(snapshot: Snapshot) -> Tensor | str:
    """The margins [N], float64, positions of [N, K, ...] outputs as examples, without labels that the loss ignores; or
    why there are none."""
    return snapshot.shared("margins", lambda: _collect(snapshot))


def spectral_square(w: Tensor) -> Tensor:
    """‖W‖₂², the largest eigenvalue of WWᵀ."""
    w = w if w.shape[0] <= w.shape[1] else w.T
    return torch.linalg.eigvalsh(w @ w.T)[-1].clamp_min(0)


def _collect(snapshot: Snapshot) -> Tensor | str:
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return reading
    return torch.cat([reading.counted(signed(reading, *batch), *batch) for batch in snapshot.predictions])


def signed(reading: Reading, output: Any, target: Any) -> Tensor:
    """Margins [N, ...], float64; of any class where the loss ignores the label."""
    z, label = reading.logits(output).double(), reading.labels(output, target).unsqueeze(1)
    if reading.ignored:
        label = label.clamp(0, z.shape[1] - 1)
    return (z.gather(1, label) - z.scatter(1, label, -torch.inf).amax(1, keepdim=True)).squeeze(1)


def _sizes(snapshot: Snapshot) -> dict[str, float | str]:
    """The logarithms of what :func:`normalized_margin` divides by, or why there are none, by the name of the result."""
    over, normalized = ("margin_over_spectral", "margin_over_frobenius"), "normalized_margin"
    matrices = _matrices(snapshot)
    if not matrices:
        return dict.fromkeys((*over, normalized), "the network has no weight matrices")
    spectral = torch.stack([spectral_square(w) for w in matrices]).sqrt()
    if not spectral.all():
        return dict.fromkeys((*over, normalized), "a weight matrix is zero")
    frobenius = torch.stack([w.norm() for w in matrices])
    rows = torch.stack([w.norm(dim=1).sum() for w in matrices])
    # logarithms: a product over many layers leaves the range of floating point
    logs: dict[str, float | str] = {
        name: float(norms.log().sum()) for name, norms in zip(over, (spectral, frobenius), strict=True)
    }
    complexity = float(spectral.log().sum()) + 1.5 * math.log(float((rows / spectral).pow(2 / 3).sum()))
    x = next(iter(snapshot.representations.values()))
    if not len(x):
        return logs | {normalized: "examples have several shapes"}
    size = math.sqrt(float(x.double().square().sum()) if x.is_floating_point() else x.numel()) / len(x)
    return logs | {normalized: complexity + math.log(size) if size else "the data are 0"}


def check_percentiles(percentiles: Sequence[float]) -> None:
    """Refuse what is no list of percentiles, each once."""
    if not isinstance(percentiles, Sequence) or isinstance(percentiles, str) or not percentiles:
        raise ValueError(f"percentiles is {percentiles!r}; accepted: a list of numbers in [0, 100]")
    for index, each in enumerate(percentiles):
        check_number(f"percentiles[{index}]", each, low=0, high=100)
    if len(set(percentiles)) < len(percentiles):
        raise ValueError(f"percentiles is {list(percentiles)!r}; accepted: each once")


def _percentile(values: Tensor, percentile: float) -> float:
    ranked = values.sort().values
    place = percentile / 100 * (len(ranked) - 1)
    below = int(place)
    if below == place:
        return float(ranked[below])
    return float(torch.lerp(ranked[below], ranked[below + 1], place - below))


def _slopes(values: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """‖∇ₓ valueᵢ‖₂ of each example [N], float64."""
    if not values.requires_grad:
        return torch.zeros(len(values), dtype=torch.float64, device=values.device)
    gradients = torch.autograd.grad(values.sum(), inputs, retain_graph=True, materialize_grads=True)
    return torch.stack([g.double().reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0).sqrt()


def _over(gamma: float, log: float) -> float:
    """γ / exp(log)."""
    return math.copysign(math.exp(math.log(abs(gamma)) - log), gamma) if gamma else 0.0


def _matrices(snapshot: Snapshot) -> list[Tensor]:
    """The weights of two or more dimensions as matrices, float64, one for each layer that uses it."""
    with torch.no_grad():
        found = [each.of(snapshot.state) for each in effective_weights(snapshot.model)]
    return [w.double().reshape(len(w), -1) for w in found if w.ndim >= 2 and w.numel()]
