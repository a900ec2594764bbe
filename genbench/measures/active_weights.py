"""The number of weights that the predictions depend on."""

import torch

from genbench.checks import check_number
from genbench.measures.base import measure
from genbench.measures.outputs import undefined, with_logits
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

    Undefined for networks of more than 4,096 weights, as each takes a pass over the data.

    Args:
        snapshot: network, loss and data.
        threshold: in (0, 1).
    """
    check_number("threshold", threshold, low=0, high=1, open_low=True, open_high=True)
    if snapshot.size > _MOST:
        return undefined(f"{snapshot.size:,} weights are more than {_MOST:,}")
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    before = torch.cat([reading.logits(output).double().softmax(1) for output, _ in snapshot.predictions])
    active = 0
    for index in snapshot.vector.nonzero().flatten().tolist():
        without = snapshot.vector.clone()
        without[index] = 0
        outputs = (output for output, *_ in snapshot.predictions_at(without))
        after = torch.cat([reading.logits(output).double().softmax(1) for output in outputs])
        active += bool((after - before).abs().sum(1).mean() / 2 > threshold)
    return Estimate(float(active))
