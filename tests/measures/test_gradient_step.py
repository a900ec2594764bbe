import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, gradient_step

LENGTHS = torch.linspace(0.5, 4, 8, dtype=torch.float64)


class Quadratic(nn.Module):
    """Its output is ½wᵀAw, for every example."""

    def __init__(self, matrix, start):
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.weight = nn.Parameter(start)

    def forward(self, x):
        return (0.5 * self.weight @ self.matrix @ self.weight).expand(len(x), 1)


def mean(output, _):
    return output.mean()


@pytest.mark.oracle("gradient_step")
@pytest.mark.parametrize("lr", [0.01, 0.3])
def test_of_a_quadratic_everything_is_known(lr):
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    matrix, w = half + half.T, torch.randn(6, dtype=torch.float64, generator=generator)
    snapshot = Snapshot(Quadratic(matrix, w), mean, [(torch.zeros(3, 1).double(), torch.zeros(3, 1).double())])
    found = {name: each.value for name, each in gradient_step(snapshot, lr=lr).items()}
    g = matrix @ w
    losses = [float(0.5 * (w - lr * t * g) @ matrix @ (w - lr * t * g)) for t in LENGTHS]
    change = lr * float((matrix @ g).norm())
    assert found["step_loss_low"] == pytest.approx(min(losses))
    assert found["step_loss_high"] == pytest.approx(max(losses))
    assert found["step_loss_range"] == pytest.approx(max(losses) - min(losses))
    assert found["step_gradient_low"] == pytest.approx(0.5 * change)
    assert found["step_gradient_high"] == pytest.approx(4 * change)
    assert found["step_smoothness"] == pytest.approx(float((matrix @ g).norm() / g.norm()))
    assert found["step_smoothness"] <= float(torch.linalg.eigvalsh(matrix).abs().max())


@pytest.mark.oracle("gradient_step")
def test_batch_norm_has_the_statistics_of_the_batch():
    """Every step is compared with torch's own in training mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(20, 4).double(), torch.arange(20) % 3
    before = {name: t.clone() for name, t in net.state_dict().items()}
    found = gradient_step(Snapshot(net.eval(), F.cross_entropy, [(x[:12], y[:12]), (x[12:], y[12:])]), lr=0.5, points=2)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    net.train()

    def slope():
        net.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return float(loss.detach()), torch.cat([p.grad.flatten() for p in net.parameters()])

    _, g = slope()
    start = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    losses, ratios = [], []
    for length in (0.25, 2.0):
        nn.utils.vector_to_parameters(start - length * g, net.parameters())
        loss, there = slope()
        losses.append(loss)
        ratios.append(float((there - g).norm() / (length * g.norm())))
    assert found["step_loss_low"].value == pytest.approx(min(losses))
    assert found["step_loss_high"].value == pytest.approx(max(losses))
    assert found["step_smoothness"].value == pytest.approx(max(ratios))


def test_dropout_draws_the_same_numbers_at_every_length():
    """Along a step of almost no length nothing changes, though training mode is random."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    snapshot = Snapshot(net, F.cross_entropy, [(torch.randn(20, 4), torch.arange(20) % 3)])
    first = gradient_step(snapshot, lr=1e-9)
    assert first["step_loss_range"].value < 1e-7
    assert first["step_loss_low"].value != pytest.approx(
        gradient_step(snapshot, lr=1e-9, seed=1)["step_loss_low"].value
    )


def test_a_batch_is_some_of_the_examples():
    torch.manual_seed(0)
    net, x, y = nn.Linear(2, 2), torch.randn(30, 2), torch.arange(30) % 2
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    low = lambda **given: gradient_step(snapshot, lr=0.1, **given)["step_loss_low"].value  # noqa: E731
    assert low(batch_size=30) == pytest.approx(low())  # all, in another order
    assert low(batch_size=5) == low(batch_size=5)
    assert len({low(batch_size=5, seed=seed) for seed in range(4)}) == 4


def test_at_a_stationary_point_there_is_no_step():
    still = Quadratic(torch.eye(2).double(), torch.zeros(2).double())
    found = gradient_step(Snapshot(still, mean, [(torch.zeros(1, 1).double(), torch.zeros(1, 1).double())]), lr=0.1)
    assert {each.note for each in found.values()} == {"undefined: the gradient is zero"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": 0}, "^lr is 0; accepted"),
        ({"shortest": 0}, "^shortest is 0; accepted"),
        ({"longest": 0.1}, r"^longest is 0\.1; accepted"),
        ({"points": 0}, "^points is 0; accepted"),
        ({"batch_size": 0}, "^batch_size is 0; accepted"),
        ({"seed": -1}, "^seed is -1; accepted"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    snapshot = Snapshot(nn.Linear(1, 2), F.cross_entropy, [(torch.zeros(2, 1), torch.tensor([0, 1]))])
    with pytest.raises(ValueError, match=message):
        gradient_step(snapshot, **{"lr": 0.1, **given})
