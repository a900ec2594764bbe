"""The linear layers of a network, in the order in which they compute."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genbench.measures.snapshot import Snapshot


@dataclass(frozen=True)
class Layer:
    """A linear layer."""

    weight: Tensor  # [units, inputs], float64
    bias: Tensor | None  # [units], float64


def linear_layers(snapshot: Snapshot, batch: Any) -> tuple[Any, list[Layer]]:
    """Return the output for a batch, and the linear layers in the order in which they were called."""
    layers: list[Layer] = []

    def called(module: nn.Module, _inputs: Any) -> None:
        assert isinstance(module, nn.Linear)
        bias = None if module.bias is None else module.bias.detach().double()
        layers.append(Layer(module.weight.detach().double(), bias))

    handles = [m.register_forward_pre_hook(called) for m in snapshot.model.modules() if isinstance(m, nn.Linear)]
    try:
        with torch.no_grad():
            return snapshot.run(batch).output, layers
    finally:
        for handle in handles:
            handle.remove()
