"""The optimizer Muon."""

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from genbench.checks import require


def muon(
    params: Iterable[dict[str, Any]],
    *,
    lr: float,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    weight_decay: float = 0.0,
    adamw_lr: float = 0.003,
) -> Optimizer:
    """Orthogonalize the momentum of each matrix by ``ns_steps`` Newton–Schulz iterations, in bfloat16 (Jordan et al.
    2024, https://kellerjordan.github.io/posts/muon). This is pytorch-optimizer's Muon with the usual division of a
    network: AdamW trains the last matrix, which is the head, and all vectors. A kernel of a convolution is a matrix of
    output channels × rest.

    Args:
        params: parameter groups, one per network. The optimizer's first groups are the matrices of each network, in
            this order; the others are trained by AdamW.
        lr: learning rate of the matrices, positive.
        momentum: in [0, 1).
        nesterov: Nesterov momentum.
        ns_steps: at least 1.
        weight_decay: at least 0, decoupled: times the learning rate per step, of all parameters.
        adamw_lr: learning rate of AdamW, positive; its betas are 0.9 and 0.95.
    """
    library = require("pytorch_optimizer", extra="optimizers", needed_by="muon")
    networks = [list(group["params"]) for group in params]
    matrices = [[p for p in network if p.ndim >= 2][:-1] for network in networks]
    taken = {id(p) for several in matrices for p in several}
    others = [[p for p in network if id(p) not in taken] for network in networks]
    return library.Muon(
        [{"params": several, "use_muon": flag} for all, flag in ((matrices, True), (others, False)) for several in all],
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        ns_steps=ns_steps,
        weight_decay=weight_decay,
        adamw_lr=adamw_lr,
        adamw_wd=weight_decay,
    )
