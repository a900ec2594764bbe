"""Entropy-SGD."""

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.regularization.base import Batches, Method, Parameters
from genbench.regularization.swa import estimate_norm_statistics, trainable
from genbench.rng import StepRandom


class EntropySGD(Method):
    """Minimizes the local entropy −log ∫ exp(−f(x') − γ/2 ‖x − x'‖²) dx', whose minima are wide valleys of the loss f
    (Chaudhari et al. 2017, arXiv 1611.01838, Algorithm 1).

    The trained weights x' take ``inner_steps`` Langevin steps around the outer weights x, each on its own batch: the
    optimizer's step along ∇f(x') + γ(x' − x), plus ``noise`` · √lr · N(0, I). Their running mean
    μ ← decay · μ + (1 − decay) · x', which starts at x, estimates the mean of the Gibbs distribution. The outer step
    x ← x − outer · (x − μ) follows, and x' and μ start again from x. Training ends with an outer step, however short
    the last loop was; batch-norm statistics are recomputed for the final weights.

    ``outer`` is the paper's ηγ, which the authors' code sets to 1. The pull grows with the k-th outer step, γ =
    gamma · (1 + scoping)^k. With plain SGD this is the paper's algorithm; the state of other optimizers is kept
    from one loop to the next. The paper counts ``inner_steps`` epochs as one; here an epoch passes over the data once,
    so that runs of all methods compute equally many gradients. Measures during training see x'.
    """

    order = 110  # copies weights that other methods have built and constrained; its pull is not clipped
    gamma: Tensor
    scoping: Tensor
    noise: Tensor
    decay: Tensor
    outer: Tensor
    inner_steps: Tensor
    inner: Tensor  # steps done of the present loop
    loops: Tensor  # outer steps done

    def __init__(
        self, *, gamma: float, scoping: float, inner_steps: int, noise: float, decay: float, outer: float
    ) -> None:
        super().__init__()
        self.setting("gamma", gamma, low=0)
        self.setting("scoping", scoping, low=0)
        self.setting("inner_steps", check_integer("regularization entropy_sgd: inner_steps", inner_steps, least=1))
        self.setting("noise", noise, low=0)
        self.setting("decay", decay, low=0, high=1, open_high=True)
        self.setting("outer", outer, low=0, high=1, open_low=True)
        self.register_buffer("inner", torch.tensor(0, dtype=torch.int64))
        self.register_buffer("loops", torch.tensor(0, dtype=torch.int64))

    def build(self, net: nn.Module) -> nn.Module:
        for name in ("weights", "mean"):
            self.remember(name, trainable(net))
        return net

    @torch.no_grad()
    def gradient(self, params: Parameters, grads: Parameters, draw: StepRandom) -> Parameters:
        gamma = self.gamma * (1 + self.scoping) ** self.loops
        return [g + gamma.to(g.dtype) * (p - x) for p, g, x in zip(params, grads, self.recall("weights"), strict=True)]

    @torch.no_grad()
    def before_step(self, params: Parameters, lr: Tensor, draw: StepRandom) -> None:
        scale = self.noise * lr.sqrt()
        for index, p in enumerate(params):
            p.add_(scale.to(p.dtype) * draw.normal(f"entropy_sgd.{index}", *p.shape).to(p.dtype))

    @torch.no_grad()
    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        self.inner += 1
        ends = self.inner >= self.inner_steps
        for p, x, mean in zip(params, self.recall("weights"), self.recall("mean"), strict=True):
            mean.mul_(self.decay.to(p.dtype)).add_(p * (1 - self.decay).to(p.dtype))
            x.copy_(torch.where(ends, x.lerp(mean, self.outer.to(p.dtype)), x))
            for started in (p, mean):
                started.copy_(torch.where(ends, x, started))
        self.loops += ends
        self.inner *= ~ends

    @torch.no_grad()
    def finish(self, net: nn.Module, batches: Batches) -> nn.Module:
        for p, x, mean in zip(trainable(net), self.recall("weights"), self.recall("mean"), strict=True):
            p.copy_(x.lerp(mean, self.outer.to(p.dtype)))  # where no loop is under way the mean is x
        estimate_norm_statistics(net, batches)
        return net
