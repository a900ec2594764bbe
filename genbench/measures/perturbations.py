"""Random perturbations of the weights, and the loss of normalized logits."""

from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_flag, check_integer, check_number
from genbench.measures.outputs import with_logits
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

NO_LOGITS = Estimate(
    None,
    note="undefined: no logits of two or more classes to normalize (normalize_logits=false takes the loss as it is)",
)


def logit_normalized(snapshot: Snapshot, normalize: bool) -> Snapshot | None:
    """The snapshot under the loss of normalized logits; None if the outputs are not logits."""
    if not check_flag("normalize_logits", normalize):
        return snapshot
    reading = with_logits(snapshot)
    if isinstance(reading, str) or reading.axis is None:
        return None
    loss = snapshot.loss
    return snapshot.with_loss(
        lambda output, target: loss(reading.put(output, _normalized(reading.logits(output))), target),
        count=snapshot.count,
    )


def _normalized(logits: Any) -> Tensor:
    centred = logits - logits.mean(1, keepdim=True)
    # a network that outputs zeros keeps them; its gradient stays finite
    return centred / centred.square().mean(1, keepdim=True).clamp_min(1e-24).sqrt()


def generator_of(seed: int, name: str) -> torch.Generator:
    """The generator of a measure, by its seed and name."""
    return torch.Generator().manual_seed(derive_seed(check_integer("seed", seed, least=0), name))


def gaussian(snapshot: Snapshot, generator: torch.Generator) -> Tensor:
    """Standard normal, [size] float64."""
    return torch.randn(snapshot.size, generator=generator, dtype=torch.float64).to(snapshot.device)


def uniform(snapshot: Snapshot, generator: torch.Generator) -> Tensor:
    """Uniform on [−1, 1), [size] float64."""
    return torch.rand(snapshot.size, generator=generator, dtype=torch.float64).mul_(2).sub_(1).to(snapshot.device)


def check_positive(name: str, value: float) -> float:
    """``value`` as a float > 0."""
    if check_number(name, value, low=0) == 0:
        raise ValueError(f"{name} is {value!r}; accepted: a number > 0")
    return float(value)
