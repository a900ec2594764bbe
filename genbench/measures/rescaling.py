"""Rescaling two layers of a ReLU network, which leaves its function and changes its curvature, or the last one."""

from collections.abc import Callable

import torch
from torch import Tensor

from genbench.checks import check_function, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.perturbations import gaussian, generator_of
from genbench.measures.precision import in_double
from genbench.measures.pytree import leaves
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("flatness", names=("rescaling_output", "rescaling_first", "rescaling_second"))
def rescaling(snapshot: Snapshot, *, alpha: float = 4.0, probes: int = 3, seed: int = 0) -> dict[str, Estimate]:
    """The errors of what Dinh et al. 2017 (arXiv 1703.04933, section 4) prove of T_α, which multiplies the weights and
    biases θ₁ of the first layer by α and divides the weights θ₂ of the second by α, where the units between are ReLU:

    - ``rescaling_output``: the outputs f stay, max |f(T_α w) − f(w)| / max |f(w)|;
    - ``rescaling_first``: the block H₁₁ of the Hessian is multiplied by α⁻², the largest
      ‖α²H₁₁(T_α w)v − H₁₁(w)v‖ / ‖H₁₁(w)v‖ over Gaussian vectors v;
    - ``rescaling_second``: the block H₂₂ is multiplied by α², the same with α⁻².

    In float64 all are rounding errors of such a network, about 1e-15. For any other network they say how far it is from
    that. ``None`` for a block of the Hessian that is zero, and for a network without two layers whose weights are
    parameters.

    Args:
        snapshot: network, loss and data.
        alpha: α > 0.
        probes: vectors v for each block, at least 1; each costs two products with the Hessian.
        seed: of the vectors.
    """
    check_number("alpha", alpha, low=0, open_low=True)
    check_integer("probes", probes, least=1)
    check_integer("seed", seed, least=0)
    names = ("rescaling_output", "rescaling_first", "rescaling_second")
    view = in_double(snapshot)
    layers = _layers(view)
    if isinstance(layers, str):
        return dict.fromkeys(names, undefined(layers))
    other = view.with_state(_rescaled(view, layers, alpha))
    before, after = (torch.cat([_outputs(each) for each in of.predictions]) for of in (view, other))
    largest = float(before.abs().max())
    output = float((after - before).abs().max()) / largest if largest else float("nan")
    first, second = layers
    return {
        "rescaling_output": Estimate(output),
        "rescaling_first": _block(view, other, first, alpha**2, probes, seed),
        "rescaling_second": _block(view, other, second[:1], alpha**-2, probes, seed),
    }


@measure("flatness", moves=True)
def rescaled(snapshot: Snapshot, *, measure: Callable[[Snapshot], Estimate], alpha: float = 4.0) -> Estimate:
    """Another measure of the same function at other weights, T_α w: see :func:`rescaling`.

    Args:
        snapshot: network, loss and data.
        measure: function of a snapshot that gives one estimate.
        alpha: α > 0.
    """
    check_number("alpha", alpha, low=0, open_low=True)
    check_function("measure", measure, of="a snapshot")
    layers = _layers(snapshot)
    if isinstance(layers, str):
        return undefined(layers)
    return measure(snapshot.with_state(_rescaled(snapshot, layers, alpha)))


@measure("flatness", moves=True)
def scale_dependence(snapshot: Snapshot, *, measure: Callable[[Snapshot], Estimate], alpha: float = 3.0) -> Estimate:
    """The relative change of another measure S when the weights and biases of the last layer, and so the logits, are
    multiplied by α: |S(w′) − S(w)| / |S(w)|, in float64.

    0, but for rounding, of the adaptive sharpness of normalized logits (Andriushchenko et al. 2023, arXiv 2302.07011,
    section 3). ``None`` if S(w) is 0 or undefined, the last layer's weight is no parameter, or multiplying it does not
    multiply the outputs: the layer that was registered last is not the last one.

    Args:
        snapshot: network, loss and data.
        measure: function of a snapshot that gives one estimate.
        alpha: α > 0; powers of two would be exact in floating point.
    """
    check_number("alpha", alpha, low=0, open_low=True)
    check_function("measure", measure, of="a snapshot")
    view = in_double(snapshot)
    last = next(reversed(view.layers), None)
    own = [] if last is None else _own(view, last)
    if not own:
        return undefined("the network has no last layer whose weight is a trainable parameter")
    state = dict(view.state)
    scaled = view.with_state(state | {name: state[name] * alpha for name in own})
    outputs = zip((output for output, _ in view.predictions), (output for output, _ in scaled.predictions), strict=True)
    for one, other in outputs:
        if isinstance(one, Tensor) and not torch.allclose(other, alpha * one, rtol=1e-6, atol=1e-12):
            return undefined(f"multiplying the weights of {last}, registered last, does not multiply the outputs")
    before, after = measure(view), measure(scaled)
    if before.value is None or after.value is None:
        return before if before.value is None else after
    return Estimate(abs(after.value / before.value - 1)) if before.value else undefined("the measure is 0")


Layers = tuple[list[str], list[str]]  # the parameters of two layers, their weights first


def _layers(snapshot: Snapshot) -> Layers | str:
    found = []
    for name in list(snapshot.layers)[:2]:
        if not (own := _own(snapshot, name)):
            return f"the weight of the layer {name!r} is no trainable parameter"
        found.append(own)
    return (found[0], found[1]) if len(found) == 2 else "the network has no two layers"


def _own(snapshot: Snapshot, layer: str) -> list[str]:
    """The parameters of a layer, its weight first; none if its weight is no parameter."""
    own = [f"{layer}.{part}".removeprefix(".") for part in ("weight", "bias")]
    return [each for each in own if each in snapshot.parameters] if own[0] in snapshot.parameters else []


def _rescaled(snapshot: Snapshot, layers: Layers, alpha: float) -> dict[str, Tensor]:
    """The state dict at T_α w."""
    state = dict(snapshot.state)
    for name in layers[0]:
        state[name] = state[name] * alpha
    state[layers[1][0]] = state[layers[1][0]] / alpha
    return state


def _outputs(prediction: tuple[object, object]) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in leaves(prediction[0]) if isinstance(leaf, Tensor)])


def _block(view: Snapshot, other: Snapshot, names: list[str], factor: float, probes: int, seed: int) -> Estimate:
    """The largest relative error of factor · the other's block of the Hessian."""
    at, there = view.select(*names), other.select(*names)
    generator, worst = generator_of(seed, "rescaling"), 0.0
    for _ in range(probes):
        v = gaussian(at, generator)
        expected = at.hessian.matvec(v)
        size = float(expected.norm())
        if not size:
            return undefined("this block of the Hessian is zero")
        worst = max(worst, float((factor * there.hessian.matvec(v) - expected).norm()) / size)
    return Estimate(worst)
