"""How far gradient descent is from the edge of stability."""

from dataclasses import replace

from genbench.checks import check_number
from genbench.measures.base import measure
from genbench.measures.curvature import hessian_eigenvalues
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("flatness", passes=lambda given: given["max_steps"])
def stability_ratio(
    snapshot: Snapshot,
    *,
    lr: float,
    momentum: float = 0.0,
    tolerance: float = 1e-2,
    max_steps: int = 100,
    seed: int = 0,
) -> Estimate:
    """λ₁η / (2 + 2β): the sharpness λ₁ of ∇²L(w) over the largest at which gradient descent of learning rate η and
    momentum β is stable.

    On a quadratic, gradient descent (β = 0) and heavy ball (``torch.optim.SGD`` without Nesterov's momentum) diverge
    if and only if it exceeds 1. It is of the loss of the snapshot, which should be the one that is trained on.

    Args:
        snapshot: network, loss and data.
        lr: η, > 0.
        momentum: β in [0, 1).
        tolerance: relative residual of λ₁, > 0, see :func:`genbench.measures.hessian_eigenvalues`.
        max_steps: maximum number of Hessian-vector products.
        seed: of the start vector.

    Reference: Cohen et al. 2021 (arXiv 2103.00065).
    """
    check_number("lr", lr, low=0, open_low=True)
    check_number("momentum", momentum, low=0, high=1, open_high=True)
    top = hessian_eigenvalues(snapshot, tolerance=tolerance, max_steps=max_steps, seed=seed)["lambda_1"]
    assert top.value is not None
    return replace(top, value=top.value * lr / (2 + 2 * momentum))
