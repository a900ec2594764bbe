"""Critical samples: examples with another answer close by."""

import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.inputs.attacks import perturb
from genbench.measures.base import measure
from genbench.measures.outputs import answered, undefined, with_logits
from genbench.measures.performance import mean_over_examples
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom

_BLOCK = 256  # examples whose noise is drawn together


@measure("robustness", by_member=False)
def critical_sample_ratio(
    snapshot: Snapshot, *, radius: float, step_size: float, noise: float = 0.0, steps: int = 10, seed: int = 0
) -> Estimate:
    """The share of inputs x with a point where the network answers otherwise within ‖x' − x‖∞ ≤ ``radius``, as far as
    a search finds it; labels do not matter (Arpit et al. 2017, arXiv 1706.05394).

    The search starts at x and takes steps in the sign of the gradient of −log p(answer at x), each with normal noise,
    back into the box. An input counts once any of its points has another answer: a lower bound, which more steps never
    lower. The standard error is that of a share of the examples.

    Args:
        snapshot: a classifier of inputs of real numbers, its batches (input, target).
        radius: half of the side of the box in units of the inputs as the network is given them, > 0.
        step_size: of the sign, in the units of ``radius``, ≥ 0.
        noise: its standard deviation, in the units of ``radius``, ≥ 0.
        steps: at least 1.
        seed: of the noise.

    Raises:
        ValueError: a setting out of range.
    """
    check_number("radius", radius, low=0, open_low=True)
    check_number("step_size", step_size, low=0)
    check_number("noise", noise, low=0)
    check_integer("steps", steps, least=1)
    check_integer("seed", seed, least=0)
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return undefined(reading)

    def logits(x: Tensor) -> Tensor:
        return reading.logits(snapshot.call(x))

    found = []
    for index, (x, _) in enumerate(snapshot.blocks(_BLOCK)):
        if not x.is_floating_point():
            return Estimate(None, note="undefined: inputs are not real numbers")
        own = answered(logits, x)
        draw, moved = StepRandom(seed, index, device=x.device), x
        critical = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for step in range(steps):
            noisy = moved - x + noise * draw.normal(f"critical.{step}", *x.shape).to(x)
            moved = perturb(
                logits, x, own, norm="linf", epsilon=radius, step_size=step_size, steps=1, start=noisy / radius
            )
            critical |= (answered(logits, moved) != own).reshape(len(x), -1).any(1)
        found.append(critical)
    return mean_over_examples(snapshot, torch.cat(found).double())
