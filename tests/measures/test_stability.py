"""The edge of stability, where it is exact: on quadratics."""

import pytest
import torch

from genbench.measures import Snapshot, stability_ratio
from genbench.regularization.squared_error import squared_error
from tests.helpers.networks import build, dense_hessian, quadratic

LAMBDA = 3.0
HESSIAN = torch.diag(torch.tensor([LAMBDA, 1.0, 0.5, -0.2], dtype=torch.float64))


@pytest.mark.oracle("stability_ratio")
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("share", "diverges"), [(0.98, False), (1.02, True)])
def test_on_a_quadratic_gradient_descent_diverges_if_and_only_if_it_exceeds_one(momentum, share, diverges):
    """Exact: η λ > 2, and of heavy ball η λ > 2 + 2β."""
    lr = share * (2 + 2 * momentum) / LAMBDA
    found = stability_ratio(Snapshot(*quadratic(HESSIAN)), lr=lr, momentum=momentum, tolerance=1e-8)
    assert found.value == pytest.approx(share, rel=1e-10)
    # along the eigenvector of λ₁, as the loss has no minimum along the last
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum)
    for _ in range(2000):
        w.grad = LAMBDA * w.detach()
        optimizer.step()
    assert (abs(w.item()) > 1e3) is diverges
    assert (abs(w.item()) < 1e-3) is not diverges


@pytest.mark.oracle("stability_ratio")
def test_of_a_network_it_is_the_largest_eigenvalue_but_for_a_factor():
    net, x, y = build("mlp")
    top = torch.linalg.eigvalsh(dense_hessian(net, x, y, squared_error))[-1]
    found = stability_ratio(Snapshot(net, squared_error, [(x, y)]), lr=0.1, momentum=0.9, tolerance=1e-6)
    assert found.value == pytest.approx(float(top) * 0.1 / 3.8, rel=1e-9)
    assert found.converged


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"lr": 0}, "lr is 0"), ({"lr": 0.1, "momentum": 1.0}, "momentum is 1.0"), ({"lr": 0.1, "max_steps": 0}, "max")],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        stability_ratio(Snapshot(*quadratic(HESSIAN)), **settings)
