"""Early stopping."""

import torch
from torch import Tensor, nn

from genbench.checks import check_choice, check_integer
from genbench.regularization.base import Batches, Method, Validate


class EarlyStopping(Method):
    """Ends training after ``patience`` bad epochs in a row and restores weights and buffers of the last good epoch.

    An epoch is good (Prechelt 1998)

    - with ``criterion="loss"``, if its validation loss is the lowest so far;
    - with ``criterion="gap"``, if train accuracy minus validation accuracy is at most ``max_gap``; both are measured
      at the end of the epoch without augmentation.

    The validation split has the same label noise as the train split, as in practice. If no epoch was good, the last
    weights stay.
    """

    patience: Tensor
    max_gap: Tensor
    best_loss: Tensor
    waited: Tensor
    kept: Tensor

    order = 100  # copies the network that the other methods have built

    def __init__(self, *, patience: int, criterion: str = "loss", max_gap: float = 0.1) -> None:
        super().__init__()
        check_integer("regularization EarlyStopping: patience", patience, least=1)
        self.criterion = check_choice("regularization early_stopping: criterion", criterion, ("loss", "gap"))
        self.setting("max_gap", max_gap, low=0, high=1)
        self.register_buffer("patience", torch.tensor(patience, dtype=torch.int64))
        self.register_buffer("best_loss", torch.tensor(torch.inf, dtype=torch.float64))
        self.register_buffer("waited", torch.tensor(0, dtype=torch.int64))
        self.register_buffer("kept", torch.tensor(False))

    def build(self, net: nn.Module) -> nn.Module:
        self.remember("best", net.state_dict().values())
        return net

    @torch.no_grad()
    def after_epoch(self, net: nn.Module, validate: Validate) -> bool:
        if self._good(validate):
            self.waited.zero_()
            self.kept.fill_(True)
            self.remember("best", net.state_dict().values())
        else:
            self.waited += 1
        return bool(self.waited >= self.patience)

    @torch.no_grad()
    def finish(self, net: nn.Module, batches: Batches) -> nn.Module:
        if self.kept:
            for tensor, best in zip(net.state_dict().values(), self.recall("best"), strict=True):
                tensor.copy_(best)
        return net

    def _good(self, validate: Validate) -> bool:
        found = validate("val")
        if self.criterion == "gap":
            return validate("train")["accuracy"] - found["accuracy"] <= float(self.max_gap)
        better = found["cross_entropy"] < float(self.best_loss)
        if better:
            self.best_loss.fill_(found["cross_entropy"])
        return better
