"""Early stopping."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genbench.regularization.base import Batches, Method


class EarlyStopping(Method):
    """Ends training when the validation loss has not improved for ``patience`` epochs and restores the weights and
    buffers of the best epoch (Prechelt 1998).

    The validation split carries the same label noise as the train split, as a practitioner's would.
    """

    patience: Tensor
    best_loss: Tensor
    waited: Tensor

    order = 100  # copies the network that the other methods have built

    def __init__(self, *, patience: int) -> None:
        super().__init__()
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise ValueError(f"regularization EarlyStopping: patience={patience!r} is not a whole number of epochs ≥ 1")
        self.register_buffer("patience", torch.tensor(patience, dtype=torch.int64))
        self.register_buffer("best_loss", torch.tensor(torch.inf, dtype=torch.float64))
        self.register_buffer("waited", torch.tensor(0, dtype=torch.int64))

    def build(self, net: nn.Module) -> nn.Module:
        self.remember("best", net.state_dict().values())
        return net

    @torch.no_grad()
    def after_epoch(self, net: nn.Module, validate: Callable[[], dict[str, float]]) -> bool:
        loss = validate()["cross_entropy"]
        if loss < self.best_loss:
            self.best_loss.fill_(loss)
            self.waited.zero_()
            self.remember("best", net.state_dict().values())
        else:
            self.waited += 1
        return bool(self.waited >= self.patience)

    @torch.no_grad()
    def finish(self, net: nn.Module, batches: Batches) -> None:
        if torch.isfinite(self.best_loss):
            for tensor, best in zip(net.state_dict().values(), self.recall("best"), strict=True):
                tensor.copy_(best)
