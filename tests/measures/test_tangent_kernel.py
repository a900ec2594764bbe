"""The tangent kernel against dense Jacobians, linear models and sampling."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import genbench.measures.gram as gram_module
from genbench.measures import Snapshot, tangent_kernel
from tests.helpers.networks import NETS, K, build

NAMES = ("trace", "effective_rank", "condition", "alignment", "label_norm")


def values(found):
    assert list(found) == [f"tangent_{name}" for name in NAMES]
    return {name: found[f"tangent_{name}"].value for name in NAMES}


def jacobian(net, x):
    """∂f/∂w [n, C, size], a row at a time."""
    net.eval()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        rows = []
        for i in range(len(x)):
            f = net(x[i : i + 1])[0]
            trained = [p for p in net.parameters() if p.requires_grad]
            for value in f:
                grads = torch.autograd.grad(value, trained, retain_graph=True, materialize_grads=True)
                rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows).reshape(len(x), -1, len(rows[0]))


def by_definition(j, y):
    """All numbers from the Jacobian [n, C, size] and one-hot labels [n, C], example by example."""
    n, c, _ = j.shape
    rows = j.reshape(n * c, -1)
    kernel = rows @ rows.T
    eigenvalues = torch.linalg.eigvalsh(kernel)
    shares = eigenvalues / eigenvalues.sum()
    centred = (j - j.mean(0)).reshape(n * c, -1)
    centred, target = centred @ centred.T, (y - y.mean(0)).reshape(-1)
    return {
        "trace": float(kernel.trace()) / n,
        "effective_rank": float(torch.special.entr(shares.clamp_min(0)).sum().exp()),
        "condition": float(eigenvalues[-1] / eigenvalues[0]),
        "alignment": float(target @ centred @ target / (centred.norm() * target @ target)),
        "label_norm": float(y.reshape(-1) @ torch.linalg.solve(kernel, y.reshape(-1))),
    }


@pytest.mark.oracle("tangent_kernel")
@pytest.mark.parametrize("name", NETS)
def test_against_the_dense_jacobian(name):
    net, x, y = build(name, n=8)
    found = tangent_kernel(Snapshot(net, F.cross_entropy, [(x[:3], y[:3]), (x[3:], y[3:])]))
    expected = by_definition(jacobian(net, x), F.one_hot(y, K).double())
    singular = expected["condition"] > 1e12 or expected["condition"] < 0
    for key, value in values(found).items():
        if singular and key in ("condition", "label_norm"):
            assert "singular to rounding" in found[f"tangent_{key}"].note
        else:
            assert value == pytest.approx(expected[key], rel=1e-6), key
    assert 0 <= found["tangent_alignment"].value <= 1
    assert 1 <= found["tangent_effective_rank"].value <= 24


@pytest.mark.oracle("tangent_kernel")
def test_a_linear_model_has_the_kernel_of_its_data():
    """K = (xᵢ·xⱼ + 1) δ_ab at any weights: rank, condition and norm are C times those of one logit, or the same."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 20, dtype=torch.float64), torch.arange(12) % 3
    one, targets = x @ x.T + 1, F.one_hot(y, 3).double()
    eigenvalues = torch.linalg.eigvalsh(one)
    shares = eigenvalues / eigenvalues.sum()
    centring = torch.eye(12, dtype=torch.float64) - 1 / 12
    centred, residual = centring @ one @ centring, centring @ targets
    expected = {
        "trace": 3 * float(one.diagonal().mean()),
        "effective_rank": 3 * float(torch.special.entr(shares).sum().exp()),
        "condition": float(eigenvalues[-1] / eigenvalues[0]),
        "alignment": float(
            (residual * (centred @ residual)).sum() / (3**0.5 * centred.norm() * residual.square().sum())
        ),
        "label_norm": float((targets * torch.linalg.solve(one, targets)).sum()),
    }
    for seed in range(2):
        torch.manual_seed(seed)
        found = values(tangent_kernel(Snapshot(nn.Linear(20, 3).double(), F.cross_entropy, [(x, y)])))
        assert found == pytest.approx(expected, rel=1e-9)


def test_a_single_logit_and_its_labels():
    torch.manual_seed(0)
    x, y = torch.randn(9, 12, dtype=torch.float64), torch.arange(9) % 2
    net = nn.Linear(12, 1, bias=False).double()
    for target in (y.double()[:, None],):
        found = values(tangent_kernel(Snapshot(net, F.binary_cross_entropy_with_logits, [(x, target)])))
    sign = 2.0 * y.double() - 1
    assert found["label_norm"] == pytest.approx(float(sign @ torch.linalg.solve(x @ x.T, sign)), rel=1e-9)
    assert found["trace"] == pytest.approx(float(x.square().sum(1).mean()), rel=1e-9)


def test_regression_takes_its_targets():
    torch.manual_seed(0)
    x, y = torch.randn(7, 10, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    found = values(tangent_kernel(Snapshot(nn.Linear(10, 2, bias=False).double(), F.mse_loss, [(x, y)])))
    assert found["label_norm"] == pytest.approx(float((y * torch.linalg.solve(x @ x.T, y)).sum()), rel=1e-9)
    flat = values(tangent_kernel(Snapshot(Flat(10), F.mse_loss, [(x, y[:, 0])])))
    assert flat["label_norm"] == pytest.approx(float(y[:, 0] @ torch.linalg.solve(x @ x.T, y[:, 0])), rel=1e-9)


class Flat(nn.Module):
    """One number an example, without an axis of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(width, dtype=torch.float64))

    def forward(self, x):
        return x @ self.w


def test_labels_that_are_the_function_align_and_are_cheap():
    """With y an eigenvector of a centred kernel of one direction, the alignment is 1, and yᵀK⁻¹y = ‖y‖² / λ."""
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    snapshot = Snapshot(nn.Linear(1, 1, bias=False).double(), F.mse_loss, [(x, x)])
    found = tangent_kernel(snapshot, ridge=1e-9)
    assert found["tangent_alignment"].value == pytest.approx(1)
    assert found["tangent_alignment"].stderr == pytest.approx(0, abs=1e-9)
    assert found["tangent_effective_rank"].value == pytest.approx(1)
    assert found["tangent_label_norm"].value == pytest.approx(4 / 4, rel=1e-6)  # K = xxᵀ has the eigenvalue 4
    assert "with a ridge of 1e-09, the condition is 4e+09" in found["tangent_label_norm"].note


def test_a_singular_kernel_has_no_condition_and_needs_a_ridge():
    torch.manual_seed(0)
    x, y = torch.randn(6, 9, dtype=torch.float64), torch.arange(6) % 3
    x[1] = x[0]  # examples that repeat
    snapshot = Snapshot(nn.Linear(9, 3).double(), F.cross_entropy, [(x, y)])
    found = tangent_kernel(snapshot)
    assert found["tangent_condition"].note == "undefined: the kernel is singular to rounding"
    assert found["tangent_label_norm"].value is None
    assert found["tangent_label_norm"].note == (
        "undefined: the kernel is singular to rounding; a ridge > 0 regularizes it"
    )
    found = tangent_kernel(snapshot, ridge=0.1)
    one, targets = x @ x.T + 1, F.one_hot(y, 3).double()
    shifted = one + 0.1 * one.trace() / 6 * torch.eye(6, dtype=torch.float64)
    expected = float((targets * torch.linalg.solve(shifted, targets)).sum())
    assert found["tangent_label_norm"].value == pytest.approx(expected, rel=1e-9)


def test_more_logits_than_weights():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    found = tangent_kernel(Snapshot(nn.Linear(4, 3).double(), F.cross_entropy, [(x, y)]))
    assert found["tangent_condition"].value is None
    assert found["tangent_effective_rank"].value <= 15  # the weights


def test_standard_errors_are_the_spread_over_samples():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    drawn = []
    for _ in range(60):
        x = torch.randn(40, 3, dtype=torch.float64)
        y = (x[:, 0] + 0.5 * torch.randn(40) > 0).long()
        found = tangent_kernel(Snapshot(net, F.cross_entropy, [(x, y)]))
        drawn.append([(found[f"tangent_{k}"].value, found[f"tangent_{k}"].stderr) for k in ("trace", "alignment")])
    for key in range(2):
        value, error = torch.tensor([pairs[key] for pairs in drawn], dtype=torch.float64).T
        assert float(error.mean() / value.std()) == pytest.approx(1, abs=0.35)


def test_float32_is_computed_in_float64():
    net, x, y = build("mlp", n=8)
    net.float()
    found = values(tangent_kernel(Snapshot(net, F.cross_entropy, [(x.float(), y)])))
    net.double()
    expected = values(tangent_kernel(Snapshot(net, F.cross_entropy, [(x.float().double(), y)])))
    assert found == pytest.approx(expected, rel=1e-9)
    assert all(p.dtype == torch.float64 for p in net.parameters())


def test_neither_batches_nor_memory_matter(monkeypatch):
    net, x, y = build("conv", n=10)
    expected = values(tangent_kernel(Snapshot(net, F.cross_entropy, [(x, y)]), examples=7))
    size = sum(p.numel() for p in net.parameters())
    monkeypatch.setattr(gram_module, "room", lambda device: 4 * 8 * size * 5)  # five rows at a time
    batches = list(zip(x.split(3), y.split(3), strict=True))
    found = values(tangent_kernel(Snapshot(net, F.cross_entropy, batches), examples=7))
    assert {k: v for k, v in found.items() if v is not None} == pytest.approx(
        {k: v for k, v in expected.items() if v is not None}, rel=1e-7
    )


def test_a_permutation_of_units_leaves_it():
    net, x, y = build("mlp", n=8)
    before = values(tangent_kernel(Snapshot(net, F.cross_entropy, [(x, y)])))
    order = torch.randperm(6)
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[0].bias.copy_(net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order])
    assert values(tangent_kernel(Snapshot(net, F.cross_entropy, [(x, y)]))) == pytest.approx(before, rel=1e-6)


def test_what_has_no_kernel_or_no_labels(monkeypatch):
    torch.manual_seed(0)
    spoken = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).double()
    tokens = torch.randint(5, (6, 7))
    loss = lambda out, y: F.cross_entropy(out.movedim(2, 1), y)  # noqa: E731
    found = tangent_kernel(Snapshot(spoken, loss, [(tokens, tokens.roll(-1, 1))]))
    assert {e.note for e in found.values()} == {"undefined: an example has several answers"}
    net, x, y = build("mlp")
    one = tangent_kernel(Snapshot(net, F.cross_entropy, [(x[:1], y[:1])]))
    assert {e.note for e in one.values()} == {"undefined: there are fewer than two examples"}
    same = tangent_kernel(Snapshot(net, F.cross_entropy, [(x, torch.zeros_like(y))]), examples=9)
    assert same["tangent_alignment"].note == "undefined: the labels, or the gradients, are the same for all examples"
    assert same["tangent_trace"].value > 0
    ignoring = lambda out, target: F.cross_entropy(out, target, ignore_index=1)  # noqa: E731
    some = tangent_kernel(Snapshot(net, ignoring, [(x, y)], count=lambda _, target: (target != 1).sum()))
    assert some["tangent_alignment"].note.startswith("undefined: the loss ignores some of the labels")
    assert some["tangent_trace"].value > 0
    paired = nn.Sequential(nn.Linear(4, 3)).double()
    unlabelled = tangent_kernel(Snapshot(paired, lambda out, _: out.square().mean(), [(x, torch.zeros(24, 5))]))
    assert unlabelled["tangent_label_norm"].note == "undefined: the targets are neither labels nor numbers"
    assert unlabelled["tangent_trace"].value == pytest.approx(3 * float((x.square().sum(1) + 1).mean()))
    monkeypatch.setattr(sys.modules["genbench.measures.tangent_kernel"], "room", lambda device: 100)
    large = tangent_kernel(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert large["tangent_trace"].note.startswith(
        "undefined: the kernel of 24 examples with 3 logits each takes 0.0 GiB"
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"examples": 1}, "examples is 1; accepted: an integer of at least 2"),
        ({"ridge": -1}, r"ridge is -1; accepted: a number in \[0, inf\)"),
    ],
)
def test_settings(setting, message):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=message):
        tangent_kernel(Snapshot(net, F.cross_entropy, [(x, y)]), **setting)
