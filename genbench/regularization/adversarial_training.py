"""Adversarial training."""

from torch import Tensor, nn

from genbench.checks import check_choice, check_flag, check_integer
from genbench.inputs.attacks import NORMS, check_range, perturb, random_start, stride_of
from genbench.models.slots import frozen_norm_statistics, use_draw
from genbench.regularization.base import Method
from genbench.rng import StepRandom


class AdversarialTraining(Method):
    """Replaces each input by the one that projected gradient ascent of the cross-entropy finds within ``epsilon``, at
    the current weights (Madry et al. 2018, arXiv 1706.06083; see :func:`genbench.inputs.attacks.perturb`).

    One step without a random start is the fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572).

    A training step costs ``steps`` more passes. They run the network in training mode with the dropout masks of the
    step, but do not update batch-norm statistics.

    Args:
        norm: ``linf`` or ``l2``, over all entries of an input.
        epsilon: radius of the ball in units of the inputs, at least 0.
        steps: steps of the ascent, at least 1.
        step_size: size of a step in the units of ``epsilon``, at least 0; ``None``: 2.5 · epsilon / steps.
        random_start: start at a point drawn uniformly in the ball; otherwise at the input.
        low: smallest allowed value of an input; ``None``: no limit.
        high: largest allowed value of an input; ``None``: no limit.
    """

    per_lane = ("epsilon", "step_size", "low", "high")
    alters = "trained on the loss at adversarial inputs, another loss"
    order = 30  # attacks inputs after they are augmented and mixed
    epsilon: Tensor
    step_size: Tensor

    def __init__(
        self,
        *,
        norm: str,
        epsilon: float,
        steps: int,
        step_size: float | None,
        random_start: bool,
        low: float | None,
        high: float | None,
    ) -> None:
        super().__init__()
        self.norm = check_choice("regularization adversarial_training: norm", norm, NORMS)
        self.setting("epsilon", epsilon, low=0)
        self.steps = check_integer("regularization adversarial_training: steps", steps, least=1)
        name = "regularization adversarial_training: step_size"
        self.setting("step_size", stride_of(name, step_size, epsilon=epsilon, steps=steps), low=0)
        self.random_start = check_flag("regularization adversarial_training: random_start", random_start)
        check_range("regularization adversarial_training:", low, high)
        self.low, self.high = low, high

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        if not x.is_floating_point():
            raise ValueError("regularization adversarial_training: inputs are tokens; accepted: real numbers")
        use_draw(net, draw)
        start = random_start(draw, "adversarial_training.start", x, self.norm) if self.random_start else None
        with frozen_norm_statistics(net):
            moved = perturb(
                net,
                x,
                y,
                norm=self.norm,
                epsilon=self.epsilon,
                step_size=self.step_size,
                steps=self.steps,
                start=start,
                low=self.low,
                high=self.high,
            )
        return moved, y
