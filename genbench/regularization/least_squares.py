"""A last layer fitted by least squares."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from genbench.checks import check_number
from genbench.module_state import eval_mode
from genbench.regularization.base import Batches, Method

_GRID = 41  # penalties that are tried
_LEAST = 1e-10  # the smallest of them, in units of the largest eigenvalue


class LeastSquares(Method):
    """Ends with the last layer that fits the one-hot labels by least squares on its inputs, without a bias: of all that
    fit best the one of minimum norm (Belkin et al. 2019, arXiv 1812.11118). The layers before it stay as they are.

    With features Φ [n, F] and one-hot labels Y, the weights are lim (ΦᵀΦ + λ)⁻¹ΦᵀY for λ → ``ridge``. At ``ridge`` 0
    they interpolate wherever the rank of Φ is n. They are computed from the singular values of Φ in float64; values
    below n ε times the largest count as zero.

    Args:
        ridge: the penalty λ, at least 0; None: of 41 from 10⁻¹⁰ to 1 times the largest eigenvalue of ΦᵀΦ that with the
            smallest squared error over the train examples, each left out in turn.

    Raises:
        ValueError: the last layer is no linear layer ``head`` of one label an example.
    """

    alters = "its last layer is fitted by least squares, another loss"

    ridge: Tensor

    def __init__(self, *, ridge: float | None = 0.0) -> None:
        super().__init__()
        number = -1.0 if ridge is None else check_number("regularization LeastSquares: ridge", ridge, low=0)
        self.register_buffer("ridge", torch.tensor(number, dtype=torch.float64))  # -1: chosen

    def build(self, net: nn.Module) -> nn.Module:
        head = getattr(net, "head", None)
        if not isinstance(head, nn.Linear) or is_parametrized(head):
            raise ValueError(
                f"regularization LeastSquares: {type(net).__name__} has no linear layer head with weights of its own; "
                "accepted: a network that ends with one"
            )
        return net

    @torch.no_grad()
    def finish(self, net: nn.Module, batches: Batches) -> nn.Module:
        if not len(batches):  # a run that is measured later gets its weights from a file
            return net
        head: nn.Linear = net.head  # type: ignore[assignment]
        seen: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        try:
            with eval_mode(net):
                for x, _ in batches:
                    net(x)
        finally:
            hook.remove()
        labels = torch.cat([y for _, y in batches])
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError("regularization LeastSquares: targets are not one label an example")
        features = torch.cat(seen).double()
        targets = nn.functional.one_hot(labels, head.out_features).to(features)
        ridge = None if float(self.ridge) < 0 else float(self.ridge)
        head.weight.copy_(least_squares(features, targets, ridge).T)
        if head.bias is not None:
            head.bias.zero_()
        return net


def least_squares(features: Tensor, targets: Tensor, ridge: float | None = 0.0) -> Tensor:
    """The weights W [F, K] of the ridge regression of targets [n, K] on features [n, F], without an intercept; of
    minimum norm at ``ridge`` 0; None: the ridge by leaving each example out, see :class:`LeastSquares`."""
    u, s, v = torch.linalg.svd(features, full_matrices=False)
    if not s.any():
        return torch.zeros_like(features.T @ targets)
    known = s > s[0] * max(features.shape) * torch.finfo(s.dtype).eps
    u, s, v = u[:, known], s[known], v[known]
    along = u.T @ targets
    if ridge is None:
        grid = torch.logspace(0, 1, _GRID, base=_LEAST, dtype=s.dtype, device=s.device) * s[0] ** 2
        errors = [_left_out(u, s, along, targets, penalty) for penalty in grid]
        penalty = grid[int(torch.stack(errors).argmin())]
    else:
        penalty = torch.full((), ridge, dtype=s.dtype, device=s.device)
    return v.T @ ((s / (s.square() + penalty))[:, None] * along)


def _left_out(u: Tensor, s: Tensor, along: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    """Mean squared error of examples that are left out in turn (Allen 1974, PRESS)."""
    kept = s.square() / (s.square() + penalty)
    residuals = targets - u @ (kept[:, None] * along)
    leverage = u.square() @ kept
    return (residuals / (1 - leverage)[:, None]).square().sum(1).mean()
