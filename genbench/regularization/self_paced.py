"""Self-paced learning."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.module_state import eval_mode
from genbench.regularization.base import Method, Parameters
from genbench.rng import StepRandom


class SelfPaced(Method):
    """Trains on the examples of each batch with the smallest losses, a share that grows to all examples.

    Difficulty is the network's current cross-entropy, in evaluation mode, which costs a forward pass. The share grows
    linearly from ``start`` (at least one example) to 1 at ``end`` of training (Kumar et al. 2010, NeurIPS, with a share
    instead of their threshold; the pace of Hacohen & Weinshall 2019, arXiv 1904.03626). Batches are drawn as usual, so
    no example is left out forever. Targets become class probabilities [B, C, ...], scaled by batch size / selected
    examples, and zero for the others: the mean loss is that of the selected examples.
    """

    alters = "trained on a part of each batch, another loss"
    order = 15  # after augmentation, before mixing
    start: Tensor
    end: Tensor
    progress: Tensor

    def __init__(self, *, start: float, end: float) -> None:
        super().__init__()
        self.setting("start", start, low=0, high=1)
        self.setting("end", end, low=0, high=1, open_low=True)
        self.register_buffer("progress", torch.tensor(0.0, dtype=torch.float64))

    def judge(self, net: nn.Module) -> nn.Module:
        """Return the network whose losses measure difficulty."""
        return net

    def build(self, net: nn.Module) -> nn.Module:
        if not hasattr(net, "classes"):
            raise ValueError(
                f"regularization {type(self).__name__}: {type(net).__name__} does not say how many classes it has"
            )
        return net

    @torch.no_grad()
    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        judge = self.judge(net)
        with eval_mode(judge):
            output = judge(x)
        if not y.is_floating_point():
            y = F.one_hot(y, net.classes).movedim(-1, 1).to(output.dtype)  # type: ignore[arg-type]
        losses = F.cross_entropy(output, y, reduction="none").reshape(len(x), -1).mean(1)
        share = (self.start + (1 - self.start) * self.progress / self.end).clamp(max=1)
        most = (share * len(x)).round().clamp(min=1)
        counts = (losses.argsort(stable=True).argsort() < most).to(y.dtype)
        return x, y * (counts / counts.mean()).view(-1, *[1] * (y.ndim - 1))

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        self.progress.fill_(progress)
