import pytest
import torch

from genbench.regularization.asam import ASAM
from genbench.regularization.sam import SAM


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand():
    """w = (2, −1), g = (3, 4), T = |w| + 1 = (3, 2): Tg = (9, 8), T²g = (27, 16)."""
    (moved,) = ASAM(rho=0.1, eta=1).perturb([double(2, -1)], [double(3, 4)])
    torch.testing.assert_close(moved, double(2, -1) + 0.1 * double(27, 16) / 145**0.5)


def test_no_point_of_its_region_is_worse_to_first_order():
    generator = torch.Generator().manual_seed(0)
    w, g = (torch.randn(4, generator=generator, dtype=torch.float64) for _ in "wg")
    (moved,) = ASAM(rho=0.3, eta=0.01).perturb([w], [g])
    scale = w.abs() + 0.01
    assert float(((moved - w) / scale).norm()) == pytest.approx(0.3)
    others = torch.randn(10_000, 4, generator=generator, dtype=torch.float64)
    others = 0.3 * others / others.norm(dim=1, keepdim=True) * scale
    rise = float((moved - w) @ g)
    assert 0.95 * rise < float((others @ g).max()) <= rise


def test_its_worst_loss_does_not_change_when_weights_are_rescaled():
    """Of f(a, b) = (ab − 1)², which a·c and b/c leave as it is; SAM's worst loss changes."""

    def worst(method, a, b):
        w = [double(a).requires_grad_(), double(b).requires_grad_()]
        ((w[0] * w[1] - 1) ** 2).sum().backward()
        a, b = method.perturb([p.detach() for p in w], [p.grad for p in w])
        return float((a * b - 1) ** 2)

    assert worst(ASAM(rho=0.2, eta=0), 2, 1.5) == pytest.approx(worst(ASAM(rho=0.2, eta=0), 20, 0.15))
    assert worst(SAM(rho=0.2), 2, 1.5) != pytest.approx(worst(SAM(rho=0.2), 20, 0.15), rel=0.1)


@pytest.mark.parametrize(("settings", "message"), [({"rho": -1, "eta": 0}, "rho"), ({"rho": 1, "eta": -1}, "eta")])
def test_negative_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"ASAM: {message} is -1"):
        ASAM(**settings)
