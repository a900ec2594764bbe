"""Weight elimination."""

from torch import Tensor

from genbench.regularization.base import WeightPenalty


class WeightElimination(WeightPenalty):
    """Adds strength · Σ (w/scale)² / (1 + (w/scale)²) over all trainable parameters to the loss (Weigend, Rumelhart &
    Huberman 1991, Generalization by weight-elimination with application to forecasting, NeurIPS 3, 875).

    A weight well below the scale w₀ is pulled to zero as by an L2 penalty of strength/w₀², one well above it costs
    strength and is left alone: the penalty counts large weights. Weigend et al. change the strength with the error
    during training; here it is constant. Hochreiter & Schmidhuber 1997 write w²/w₀ for (w/w₀)².

    Args:
        strength: λ ≥ 0.
        scale: w₀ > 0.
    """

    scale: Tensor

    def __init__(self, *, strength: float, scale: float) -> None:
        super().__init__(strength=strength)
        self.setting("scale", scale, low=0, open_low=True)

    def size(self, parameter: Tensor) -> Tensor:
        squares = (parameter / self.scale.to(parameter.dtype)).square()
        return (squares / (1 + squares)).sum()
