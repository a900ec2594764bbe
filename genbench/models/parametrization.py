"""Parametrizations: how initial weights and learning rates of layers scale with the width of a network."""

from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from genbench.checks import check_choice, check_integer, check_number
from genbench.models.attention import Attention
from genbench.models.base import Classifier

PARAMETRIZATIONS = ("standard", "ntk", "mup_adam", "mup_sgd")


class Parametrized(Classifier):
    """A classifier that stores weights W = m · w as w, with a multiplier m for each layer.

    An update of w changes W by m times (Adam and similar optimizers) or m² times (SGD) as much, so that m sets the
    learning rate of the layer, relative to one rate of the optimizer. With r = ``width / base_width`` and the initial
    weights W of torch's layers:

    ============  ==========  ==========  =============================  ==================
    layer         ntk: m      mup_adam:m  mup_sgd: m                     mup: starts from
    ============  ==========  ==========  =============================  ==================
    first         1/√fan_in   1           √r                             W
    hidden        1/√fan_in   1/r         1                              W
    head          1/√fan_in   1/r         1/√r                           W/√r
    all others    1           1           √r (bias of the head: 1)       as at ``base_width``
    ============  ==========  ==========  =============================  ==================

    - ``standard``: every m is 1.
    - ``ntk``: the initial function is the standard one; in the limit of the neural tangent kernel, its speed of
    training
      does not depend on the width (Jacot et al. 2018, arXiv 1806.07572).
    - ``mup_adam``, ``mup_sgd``: maximal update. Features change by the same amount at every width, so a learning rate
    can
      be tuned on a narrow network (Yang et al. 2022, arXiv 2203.03466, table 8, with learning rates absorbed by the
      multipliers). Attention scales with the width of a head instead of its square root. At ``base_width`` it is the
      standard network.

    "All others" are biases, scales and shifts of normalizations, and positions. ``init_scale`` multiplies the initial
    weights W of linear and convolutional layers, not biases. Weight decay, penalties and measures of weights apply
    to w.
    """

    per_lane = ("dropout", "init_scale")

    def __init__(
        self,
        *,
        parametrization: str = "standard",
        base_width: int | None = None,
        init_scale: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._parametrization = check_choice("model.parametrization", parametrization, PARAMETRIZATIONS)
        self._init_scale = check_number("model.init_scale", init_scale, low=0)
        self._base_width = base_width
        if base_width is not None or parametrization.startswith("mup"):
            check_integer("model.base_width", base_width, least=1, note=f"parametrization={parametrization}")

    def parametrize(self, width: int) -> None:
        """Scale the layers; a constructor calls this last."""
        r = width / self._base_width if self._base_width and self._parametrization.startswith("mup") else 1.0
        first = next(module for module in self.modules() if _is_linear(module))
        for parent in list(self.modules()):
            if isinstance(parent, Attention):
                parent.scale /= sqrt(r)
            for name, layer in list(parent.named_children()):
                multipliers = {}
                for key, p in layer.named_parameters(recurse=False):
                    fan_in = prod(p.shape[1:]) if _is_linear(layer) and key == "weight" else None
                    inward = 1.0 if layer is first else r
                    outward = 1.0 if layer is self.head else r
                    multipliers[key], start = self._scales(fan_in, inward, outward, linear=_is_linear(layer))
                    if start / multipliers[key] != 1:
                        p.data.mul_(start / multipliers[key])
                if any(m != 1 for m in multipliers.values()):
                    setattr(parent, name, Scaled(layer, multipliers))

    def _scales(self, fan_in: int | None, inward: float, outward: float, *, linear: bool) -> tuple[float, float]:
        """Return the multiplier of a parameter and the factor of its initial value.

        ``inward`` and ``outward`` are the inputs and outputs of its layer relative to those at the base width.
        """
        sgd = self._parametrization == "mup_sgd"
        if fan_in is None:
            return sqrt(outward) if sgd else 1.0, sqrt(inward) if linear else 1.0
        if self._parametrization == "ntk":
            return 1 / sqrt(fan_in), self._init_scale
        start = self._init_scale / (sqrt(inward) if outward == 1 else 1.0)
        return sqrt(outward / inward) if sgd else 1 / inward, start


class Scaled(nn.Module):
    """A layer that multiplies each of its parameters by a multiplier."""

    def __init__(self, layer: nn.Module, multipliers: dict[str, float]) -> None:
        super().__init__()
        self.layer = layer
        self.multipliers = multipliers

    def forward(self, x: Tensor) -> Tensor:
        scaled = {name: p * self.multipliers[name] for name, p in self.layer.named_parameters()}
        return torch.func.functional_call(self.layer, scaled, (x,))

    def extra_repr(self) -> str:
        return ", ".join(f"{name} × {m:.6g}" for name, m in self.multipliers.items())


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
