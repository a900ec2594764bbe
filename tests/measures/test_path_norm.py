"""The path norm against products of matrices, enumerated paths, and networks that are the same function."""

import copy
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from genbench.measures import Snapshot, path_norm
from genbench.models import CNN, MLP, Ensemble
from tests.helpers.networks import build, mlp


def norm_of(net: nn.Module, *shape: int) -> float:
    """The path norm of a network of inputs of this shape; checked not to depend on their values."""
    net = net.double().eval()
    found = [
        path_norm(Snapshot(net, lambda out, _: out.square().mean(), [(x, torch.zeros(len(x)))]))["path_norm"]
        for x in (torch.randn(4, *shape, dtype=torch.float64), torch.zeros(2, *shape, dtype=torch.float64))
    ]
    assert found[0].note is None
    assert found[0].value == found[1].value
    return found[0].value


def reason_of(net: nn.Module, x: Tensor) -> str:
    found = path_norm(Snapshot(net.eval(), lambda out, _: out.square().mean(), [(x, torch.zeros(len(x)))]))
    assert found["path_norm"].value is None
    assert found["path_norm_over_margin"].value is None
    return found["path_norm"].note


class Function(nn.Module):
    """Layers that a function calls."""

    def __init__(self, function, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def squares(*layers: nn.Module) -> list[np.ndarray]:
    return [layer.weight.detach().double().numpy() ** 2 for layer in layers]


def by_paths(net: nn.Sequential) -> float:
    """Σ over paths from an input or a bias to an output of the product of the squared weights, path by path."""
    linear = [copy.deepcopy(layer).requires_grad_(False) for layer in net if isinstance(layer, nn.Linear)]
    sizes = [linear[0].in_features, *(layer.out_features for layer in linear)]
    total = 0.0
    for first in range(len(sizes)):  # 0: the inputs; l: the biases of layer l
        for units in product(*map(range, sizes[first:])):
            weight = 1.0 if first == 0 else float(linear[first - 1].bias[units[0]]) ** 2
            for layer, (source, target) in zip(linear[first:], pairwise(units), strict=True):
                weight *= float(layer.weight[target, source]) ** 2
            total += weight
    return total


def test_a_deep_linear_network_is_the_product_of_the_squared_matrices():
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise((5, 7, 4, 6, 3))))
    expected = np.ones(5)
    for matrix in squares(*net):
        expected = matrix @ expected
    assert norm_of(net, 5) == pytest.approx(expected.sum(), rel=1e-12)


@pytest.mark.oracle("path_norm")
def test_worked_out_by_hand():
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0]]))
        net[0].bias.fill_(-3.0)
        net[2].weight.fill_(-2.0)
        net[2].bias.fill_(5.0)
    assert norm_of(net, 2) == (1 + 4 + 9) * 4 + 25


@pytest.mark.oracle("path_norm")
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_it_is_the_sum_over_all_paths(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.LeakyReLU(0.2), nn.Linear(2, 3)).double()
    assert norm_of(net, 3) == pytest.approx(by_paths(net), rel=1e-12)


def test_frozen_weights_count():
    net, x, y = build("frozen")
    assert path_norm(Snapshot(net, F.cross_entropy, [(x, y)]))["path_norm"].value == pytest.approx(by_paths(net))


@pytest.mark.oracle("path_norm")
def test_over_the_margin():
    net, x, _ = build("mlp")
    y = net(x).argmax(1)
    batches = list(zip(x.split(5), y.split(5), strict=True))
    found = path_norm(Snapshot(net, F.cross_entropy, batches))
    top = net(x).detach().topk(2).values
    gamma = np.percentile((top[:, 0] - top[:, 1]).numpy(), 10)
    assert found["path_norm_over_margin"].value == pytest.approx(by_paths(net) / gamma**2, rel=1e-9)
    wrong = path_norm(Snapshot(net, F.cross_entropy, [(x, net(x).argmin(1))]))
    assert wrong["path_norm"].value == found["path_norm"].value
    assert wrong["path_norm_over_margin"].value is None
    assert "not positive" in wrong["path_norm_over_margin"].note


def test_residual_sums_add_their_paths():
    torch.manual_seed(0)
    first, inner, last = nn.Linear(3, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 2, bias=False)
    net = Function(lambda x, a, b, c: c(F.relu(a(x)) + F.relu(b(F.relu(a(x))))), first, inner, last)
    a, b, c = squares(first, inner, last)
    h = a @ np.ones(3)
    expected = c @ (h + b @ h + inner.bias.detach().numpy() ** 2)
    assert norm_of(net, 3) == pytest.approx(expected.sum(), rel=1e-6)


def test_a_tied_weight_counts_wherever_it_is_used():
    layer = nn.Linear(3, 3, bias=False)
    (a,) = squares(layer)
    net = Function(lambda x, layer: layer(torch.relu(layer(torch.relu(layer(x))))), layer)
    assert norm_of(net, 3) == pytest.approx((a @ a @ a @ np.ones(3)).sum(), rel=1e-6)


def test_concatenation_and_reshaping():
    torch.manual_seed(0)
    one, two, last = nn.Linear(4, 2, bias=False), nn.Linear(4, 3), nn.Linear(5, 2, bias=False)

    def run(x, one, two, last):
        both = torch.cat([one(x), two(x)], -1).relu()
        parts = both.view(len(x), 5, 1).transpose(1, 2).squeeze(1).split([1, 4], 1)
        return last(torch.cat([parts[0], parts[1][:, [0, 1, 2, 3]]], 1))

    a, b, c = squares(one, two, last)
    h = np.concatenate([a @ np.ones(4), b @ np.ones(4) + two.bias.detach().numpy() ** 2])
    assert norm_of(Function(run, one, two, last), 4) == pytest.approx((c @ h).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv1d(2, 3, 3, bias=False), (2, 7)),
        (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, groups=2, dilation=2), (4, 9)),
        (lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), (2, 6)),
        (lambda: nn.Conv2d(2, 4, 3, stride=(1, 2), padding="valid", groups=2), (2, 5, 6)),
        (lambda: nn.ConvTranspose1d(4, 2, 3, stride=2, groups=2), (4, 5)),
    ],
)
def test_a_convolution_is_its_dense_matrix(layer, shape):
    torch.manual_seed(0)
    layer = layer().double()
    x = torch.zeros(1, *shape, dtype=torch.float64)
    shift = layer(x).detach().reshape(-1)
    units = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *shape)
    matrix = layer(units).detach().flatten(1).T - shift[:, None]
    dense = nn.Linear(x.numel(), len(shift)).double()
    head = nn.Linear(len(shift), 3).double()
    with torch.no_grad():
        dense.weight.copy_(matrix)
        dense.bias.copy_(shift)
    found = norm_of(nn.Sequential(layer, nn.ReLU(), nn.Flatten(), head), *shape)
    expected = norm_of(nn.Sequential(nn.Flatten(), dense, nn.ReLU(), head), *shape)
    assert found == pytest.approx(expected, rel=1e-12)


def normalization(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        for t in (norm.running_mean, norm.weight, norm.bias):
            t.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm.double().eval()


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_is_folded_into_the_layer_before(bias):
    torch.manual_seed(0)
    conv, norm = nn.Conv1d(2, 3, 3, bias=bias).double(), normalization(nn.BatchNorm1d(3))
    linear, other = nn.Linear(12, 4, bias=bias).double(), normalization(nn.BatchNorm1d(4))
    net = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), linear, other, nn.ReLU(), nn.Linear(4, 3).double())
    folded = copy.deepcopy(net)
    folded[0], folded[1] = fuse_conv_bn_eval(net[0].eval(), net[1]), nn.Identity()
    folded[4], folded[5] = fuse_linear_bn_eval(net[4].eval(), net[5]), nn.Identity()
    assert norm_of(net, 2, 6) == pytest.approx(norm_of(folded, 2, 6), rel=1e-12)

    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    shift = (norm.bias - scale * norm.running_mean).detach()
    bare = nn.Sequential(nn.Conv1d(3, 3, 1, bias=False).double(), nn.ReLU(), norm)  # nothing to fold it into
    (weight,) = squares(bare[0])
    expected = 5 * (scale.numpy() ** 2 * (weight[:, :, 0] @ np.ones(3)) + shift.numpy() ** 2).sum()
    assert norm_of(bare, 3, 5) == pytest.approx(expected, rel=1e-12)


def test_factors_and_constants_are_weights():
    torch.manual_seed(0)
    a, b = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
    shift = torch.randn(4, dtype=torch.float64)
    net = Function(lambda x, a, b: b(torch.relu(2 - (-3 * a(x) / 0.5 - shift) + 1)) - 1.5, a, b)
    folded_a, folded_b = copy.deepcopy(a), copy.deepcopy(b)
    with torch.no_grad():
        folded_a.weight.mul_(6)
        folded_a.bias.mul_(6).add_(3).add_(shift)
        folded_b.bias.sub_(1.5)
    assert norm_of(net, 3) == pytest.approx(norm_of(nn.Sequential(folded_a, nn.ReLU(), folded_b), 3), rel=1e-12)


@pytest.mark.parametrize("pool", [nn.AvgPool1d(2), nn.MaxPool1d(3, stride=2), nn.AdaptiveAvgPool1d(3)])
def test_pooling_does_to_the_squares_what_it_does_to_activations(pool):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), pool, nn.Conv1d(3, 4, 2), nn.ReLU(), nn.Flatten()).double()
    literal = copy.deepcopy(net)
    with torch.no_grad():
        for p in literal.parameters():
            p.square_()
        expected = float(literal(torch.ones(1, 2, 8, dtype=torch.float64)).sum())
    assert norm_of(net, 2, 8) == pytest.approx(expected, rel=1e-12)


def test_operations_in_place():
    torch.manual_seed(0)
    a, b, c = (nn.Linear(3, 3).double() for _ in range(3))

    def in_place(x, a, b, c):
        h = a(x)
        flat = h.view(-1)
        F.relu_(flat)  # also in h
        r = b(h)
        r += h
        r.mul_(2).add_(0.5)
        return c(F.relu(r, inplace=True))

    def plain(x, a, b, c):
        h = torch.relu(a(x))
        return c(torch.relu((b(h) + h) * 2 + 0.5))

    assert norm_of(Function(in_place, a, b, c), 3) == pytest.approx(norm_of(Function(plain, a, b, c), 3), rel=1e-12)


def test_matrix_products_and_parametrized_weights():
    torch.manual_seed(0)
    plain, head = nn.Linear(3, 4), nn.Linear(4, 2)
    a, c = squares(plain, head)
    bias = plain.bias.detach().numpy() ** 2, head.bias.detach().numpy() ** 2
    expected = (c @ (a @ np.ones(3) + bias[0]) + bias[1]).sum()
    by_product = Function(lambda x, a, b: b((x @ a.weight.T + a.bias).relu()), plain, head)
    by_einsum = Function(lambda x, a, b: b(torch.einsum("oi,ni->no", a.weight, x).add(a.bias).relu()), plain, head)
    assert norm_of(by_product, 3) == pytest.approx(expected, rel=1e-6)
    assert norm_of(by_einsum, 3) == pytest.approx(expected, rel=1e-6)
    normed = nn.Sequential(parametrizations.weight_norm(plain), nn.ReLU(), head)
    assert norm_of(normed, 3) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
def test_invariances(seed, scale):
    """Units in another order, and layers rescaled without a change of the function; unlike the sum of squares."""
    torch.manual_seed(seed)
    net = mlp().double()
    other, order = copy.deepcopy(net), torch.randperm(6)
    with torch.no_grad():
        factors = torch.rand(6, dtype=torch.float64) * scale + 0.01
        other[0].weight.copy_((net[0].weight * factors[:, None])[order])
        other[0].bias.copy_((net[0].bias * factors)[order])
        other[2].weight.copy_((net[2].weight / factors)[:, order])
    x = torch.randn(7, 4, dtype=torch.float64)
    torch.testing.assert_close(net(x), other(x))
    assert norm_of(net, 4) == pytest.approx(norm_of(other, 4), rel=1e-9)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed[0].weight.mul_(2)
    assert norm_of(changed, 4) > norm_of(net, 4)


def test_of_our_own_networks():
    assert norm_of(MLP(input_shape=[4], classes=3, width=5, residual=True, normalization="batch_norm"), 4) > 0
    assert norm_of(CNN(input_shape=[1, 40], classes=10, activation="leaky_relu", dropout=0.3), 1, 40) > 0
    assert norm_of(CNN(input_shape=[1, 12, 12], classes=10, width=3), 1, 12, 12) > 0
    members = [MLP(input_shape=[4], classes=3, width=5).double() for _ in range(2)]
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = path_norm(Snapshot(Ensemble(members), F.nll_loss, [(x, y)]))["path_norm"]
    assert found.value == pytest.approx(sum(norm_of(member, 4) for member in members) / 2)


@pytest.mark.parametrize(
    ("name", "operation"), [("conv", "tanh"), ("tied", "tanh"), ("gru", "gru"), ("attention", "multi_head_attention")]
)
def test_what_it_is_undefined_for(name, operation):
    net, x, _ = build(name)
    assert operation in reason_of(net, x)


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (F.gelu, "gelu"),
        (F.silu, "silu"),
        (F.elu, "elu"),
        (torch.sigmoid, "sigmoid"),
        (lambda x: x.softmax(1), "softmax"),
        (lambda x: F.layer_norm(x, (4,)), "layer_norm"),
        (lambda x: F.group_norm(x, 2), "group_norm"),
        (lambda x: F.batch_norm(x, None, None, training=True), "statistics of the batch"),
        (lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0], "scaled_dot_product_attention"),
        (lambda x: x * torch.relu(x), "product of activations"),
        (lambda x: x @ x.T, "product of activations"),
        (lambda x: F.linear(x, x), "product of activations"),
        (lambda x: x / (x + 1), "quotient by activations"),
        (lambda x: 1 / x, "quotient by activations"),
        (lambda x: x**2, "pow"),
        (lambda x: x if x.sum() > 0 else -x, "gt"),
        (lambda x: x * float(x.sum()), "float"),
        (lambda x: torch.from_numpy(np.ones(4)) * torch.tensor(x.tolist()), "tolist"),
        (lambda x: F.pad(x, (1, 1), value=2.0), "pad with a value"),
        (lambda x: torch.zeros(len(x), 4, dtype=x.dtype).copy_(x), "copy"),
        (lambda x: torch.ones(len(x), 4, dtype=x.dtype).add_(x), "another tensor"),
    ],
)
def test_the_operation_is_named(function, operation):
    net = nn.Sequential(nn.Linear(4, 4), Function(function)).double()
    assert operation in reason_of(net, torch.randn(5, 4, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_recurrent_embedded_constant_and_compiled():
    class Last(nn.Module):
        def forward(self, x):
            return x[0][:, -1]

    lstm = nn.Sequential(nn.LSTM(2, 3, batch_first=True), Last()).float()
    assert "lstm" in reason_of(lstm, torch.randn(4, 5, 2))
    embedded = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    assert "not real numbers" in reason_of(embedded, torch.randint(5, (4, 2)))
    constant = Function(lambda x, layer: layer(torch.ones_like(x)), nn.Linear(3, 2))
    assert "does not depend on the input" in reason_of(constant, torch.randn(4, 3))
    scripted = nn.Sequential(torch.jit.script(nn.Linear(3, 2)))
    assert "compiled" in reason_of(scripted, torch.randn(4, 3))


def test_single_precision_is_summed_in_double():
    torch.manual_seed(0)
    net = mlp()
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    found = path_norm(Snapshot(net, F.cross_entropy, [(x, y)]))["path_norm"].value
    assert found == pytest.approx(by_paths(net), rel=1e-13)
