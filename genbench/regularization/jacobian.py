"""Jacobian regularization."""

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.slots import frozen_norm_statistics
from genbench.regularization.base import Method, refuse_tokens
from genbench.rng import StepRandom


class Jacobian(Method):
    """Adds strength / 2 · mean ‖J‖_F² to the loss, where J is the Jacobian of an example's logits by its input (Hoffman
    et al. 2019, arXiv 1908.02729).

    The mean of C · ‖vᵀJ‖² over ``projections`` directions v, drawn for each example uniformly on the unit sphere of the
    C logits, estimates ‖J‖_F² without bias. A step costs one more forward pass, and a backward pass for each
    projection. With batch normalization, J includes the effect of an input on the logits of the whole batch.
    """

    per_lane = ("strength",)
    strength: Tensor

    def __init__(self, *, strength: float, projections: int) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)
        self.projections = check_integer("regularization jacobian: projections", projections, least=1)

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        refuse_tokens(self, x)
        with frozen_norm_statistics(net):
            pull = torch.func.vjp(net, x)[1]
        squares = []
        for index in range(self.projections):
            v = draw.normal(f"jacobian.{index}", *output.shape).to(output.dtype).flatten(1)
            (slope,) = pull((v / v.norm(dim=1, keepdim=True)).view_as(output))
            squares.append(v.shape[1] * slope.square().sum() / len(x))
        return self.strength.to(output.dtype) / 2 * torch.stack(squares).mean()
