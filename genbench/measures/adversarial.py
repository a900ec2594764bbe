"""Robustness against adversarial inputs."""

import torch
from torch import Tensor

from genbench.checks import check_choice, check_flag, check_integer, check_number
from genbench.inputs.attacks import NORMS, check_range, perturb, random_start, stride_of
from genbench.measures.base import measure
from genbench.measures.outputs import answered, undefined, with_logits
from genbench.measures.performance import mean_over_examples
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom

_BLOCK = 256  # examples whose random starts are drawn together


@measure("robustness", by_member=False)
def adversarial_accuracy(
    snapshot: Snapshot,
    *,
    norm: str = "linf",
    epsilon: float = 8 / 255,
    steps: int = 20,
    step_size: float | None = None,
    random_starts: int = 1,
    with_input: bool = True,
    low: float | None = None,
    high: float | None = None,
    seed: int = 0,
) -> Estimate:
    """The share of labels that the network still answers at the input and at all points that projected gradient ascent
    of the cross-entropy finds within ``epsilon`` of it, in [0, 1] (PGD, Madry et al. 2018, arXiv 1706.06083; see
    :func:`genbench.inputs.attacks.perturb`). An upper bound of the accuracy under the worst perturbation; more random
    starts never raise it.

    ``steps=1, random_starts=0`` is the fast gradient (sign) method (Goodfellow et al. 2015, arXiv 1412.6572). The
    standard error is that of a share of the examples.

    Args:
        snapshot: a classifier of inputs of real numbers, its batches (input, target).
        norm: ``linf`` or ``l2``, over all entries of an input.
        epsilon: radius of the ball in units of the inputs as the network is given them, at least 0.
        steps: of each ascent, at least 1.
        step_size: in the units of ``epsilon``; ``None``: 2.5 · epsilon / steps.
        random_starts: ascents from points drawn uniformly in the ball; 0: one, from the input itself.
        with_input: the input itself counts as well; otherwise only the points found, as most papers report it, where a
            network can answer better than at the inputs (label leaking, Kurakin et al. 2017, arXiv 1611.01236).
        low: smallest value that an input may have; ``None``: any.
        high: largest value that an input may have; ``None``: any.
        seed: of the starts; smaller numbers of them are the beginning of larger ones.

    Raises:
        ValueError: a setting out of range, batches of another form, or inputs outside [low, high].
    """
    check_choice("norm", norm, NORMS)
    check_number("epsilon", epsilon, low=0)
    check_integer("steps", steps, least=1)
    check_integer("random_starts", random_starts, least=0)
    check_flag("with_input", with_input)
    check_integer("seed", seed, least=0)
    check_range("adversarial_accuracy", low, high)
    stride = stride_of("step_size", step_size, epsilon=epsilon, steps=steps)
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    if reading.ignored:
        return undefined("attacks are of all labels, and the loss ignores some of them")

    def logits(x: Tensor) -> Tensor:
        return reading.logits(snapshot.call(x))

    kept = []
    for index, (x, y) in enumerate(snapshot.blocks(_BLOCK)):
        if not x.is_floating_point():
            return Estimate(None, note="undefined: inputs are not real numbers")
        _check_inside(x, low, high)
        answers = answered(logits, x)
        y = y.reshape(answers.shape).long()
        right = answers == y if with_input else torch.ones_like(answers, dtype=torch.bool)
        draw = StepRandom(seed, index)
        for start in range(random_starts) or (None,):
            alive = right.reshape(len(y), -1).any(1)
            if not alive.any():
                break
            begin = None if start is None else random_start(draw, f"adversarial.{start}", x, norm)[alive]
            moved = perturb(
                logits,
                x[alive],
                y[alive],
                norm=norm,
                epsilon=epsilon,
                step_size=stride,
                steps=steps,
                start=begin,
                low=low,
                high=high,
            )
            right[alive] &= answered(logits, moved) == y[alive]
        kept.append(right.reshape(-1))
    return mean_over_examples(snapshot, torch.cat(kept).double())


def _check_inside(x: Tensor, low: float | None, high: float | None) -> None:
    least, most = x.min().item(), x.max().item()
    if (low is not None and least < low) or (high is not None and most > high):
        raise ValueError(f"inputs lie in [{least:.4g}, {most:.4g}]; accepted: within low={low} and high={high}")
