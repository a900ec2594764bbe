"""The cost of computing a network."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from genbench.measures.base import measure
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("norm")
def flops(snapshot: Snapshot) -> Estimate:
    """Floating-point operations of one example's forward pass, as torch's counter knows them: those of matrix products
    and convolutions, recurrences and attention included, a multiplication and an addition for each weight that an input
    meets. Additions of biases, normalizations and activations are not counted.

    Kaplan et al. 2020 (arXiv 2001.08361) take three times as many for a training step.
    """
    args, kwargs = snapshot.first_input
    # the fused recurrences of a processor's library are operations that the counter does not know; tf32 is left alone
    plain = torch.backends.mkldnn.flags(enabled=False, allow_tf32=None)
    with plain, FlopCounterMode(display=False) as counter:
        snapshot.call(*args, **kwargs)
    return Estimate(float(counter.get_total_flops()))
