"""The number of weights, and of inputs of each layer, that the predictions depend on."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from genbench.checks import check_number
from genbench.measures.base import measure
from genbench.measures.outputs import Reading, undefined, with_logits
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_MOST = 2**12  # weights: each takes a pass over the data


@measure("information")
def active_weights(snapshot: Snapshot, *, threshold: float = 0.01) -> Estimate:
    """The number of trainable weights, biases included, that the predictions depend on: those without which alone,
    w_i = 0, the predicted probabilities change by more than a threshold,

        E_x ½ Σ_k |p_k(x) − p_k(x; w_i = 0)| > threshold,

    the total variation distance, in the mean over the examples. Unlike a count of weights above a size, it does not
    change when the layers of a ReLU network are rescaled. Of two weights that stand in for each other none may count.
    It falls with the confidence of the predictions: where they are certain, a weight moves them little.

    Undefined for networks of more than 4,096 weights, as each takes a pass over the data.

    Args:
        snapshot: network, loss and data.
        threshold: in (0, 1).
    """
    check_number("threshold", threshold, low=0, high=1, open_low=True, open_high=True)
    reading = _reading(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    return Estimate(_active(snapshot, reading, torch.arange(snapshot.size)[:, None], threshold))


@measure("information", names=("active_inputs.*",))
def active_inputs(snapshot: Snapshot, *, threshold: float = 0.01) -> dict[str, Estimate]:
    """The number of inputs of each linear layer, ``active_inputs.<layer>``, that the predictions depend on, by the
    distance of :func:`active_weights` with all weights of the input zero: of the first layer the input lines of the
    network, of a later one the units of the layer before.

    A unit that stands in for another may not count. Undefined for layers whose weight is no trainable parameter of its
    own, and for networks of more than 4,096 weights.

    Args:
        snapshot: network, loss and data.
        threshold: in (0, 1).
    """
    check_number("threshold", threshold, low=0, high=1, open_low=True, open_high=True)
    layers = [name for name, layer in snapshot.layers.items() if isinstance(layer, nn.Linear)]
    if not layers:
        return {"active_inputs": undefined("the network has no linear layer")}
    reading, positions = _reading(snapshot), _positions(snapshot)
    found = {}
    for name in layers:
        where = positions.get(f"{name}.weight".removeprefix("."))
        if isinstance(reading, str):
            estimate = undefined(reading)
        elif where is None:
            estimate = undefined("the weight is no trainable parameter of its own")
        else:
            estimate = Estimate(_active(snapshot, reading, where.T, threshold))
        found[f"active_inputs.{name}"] = estimate
    return found


def _reading(snapshot: Snapshot) -> Reading | str:
    """Return how the probabilities are read, or why they are not, or not so often."""
    return f"{snapshot.size:,} weights are more than {_MOST:,}" if snapshot.size > _MOST else with_logits(snapshot)


def _active(snapshot: Snapshot, reading: Reading, groups: Iterable[Tensor], threshold: float) -> float:
    """Return the number of groups of weights, given by their positions, that the predictions depend on."""
    before = torch.cat([reading.logits(output).double().softmax(1) for output, _ in snapshot.predictions])
    active = 0
    for group in groups:
        without = snapshot.vector.clone()
        if not without[group].any():
            continue
        without[group] = 0
        outputs = (output for output, *_ in snapshot.predictions_at(without))
        after = torch.cat([reading.logits(output).double().softmax(1) for output in outputs])
        active += bool((after - before).abs().sum(1).mean() / 2 > threshold)
    return float(active)


def _positions(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return the positions of each parameter in the vector of all, in its shape."""
    shapes = {name: p.shape for name, p in snapshot.parameters.items()}
    pieces = torch.arange(snapshot.size).split([shape.numel() for shape in shapes.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
