"""Norms against direct computations, convolutions against the dense matrices of their maps."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import (
    Snapshot,
    convolution_spectral_norms,
    distance_from_init,
    l2_norm,
    matrix_distances,
    matrix_norms,
    norms_over_margin,
    parameter_norms,
    spectral_norm,
)
from genbench.measures.norms import circular_convolution_norm
from tests.helpers.networks import NETS, build, mlp


@pytest.mark.oracle("l2_norm", "distance_from_init")
@pytest.mark.parametrize("name", NETS)
def test_l2_and_distance(name):
    net, x, y = build(name)
    initial = {key: torch.ones_like(t) for key, t in net.state_dict().items()}
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)
    trained = {key: p.detach() for key, p in net.named_parameters() if p.requires_grad}
    flat = torch.cat([p.reshape(-1) for p in trained.values()])
    norms, moved = l2_norm(snapshot), distance_from_init(snapshot)
    assert norms["l2"].value == pytest.approx(float(flat.norm()))
    assert moved["distance"].value == pytest.approx(float((flat - 1).norm()))
    assert set(norms) == {"l2", *(f"l2.{key}" for key in trained)}
    assert set(moved) == {"distance", *(f"distance.{key}" for key in trained)}
    for key, p in trained.items():
        assert norms[f"l2.{key}"].value == pytest.approx(float(p.norm()))
        assert moved[f"distance.{key}"].value == pytest.approx(float((p - 1).norm()))


@pytest.mark.oracle("spectral_norm")
def test_spectral():
    net = nn.Sequential(nn.Linear(5, 3), nn.Conv1d(2, 4, 3), nn.LayerNorm(3))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[1, 2] = -7.0
        net[1].weight.fill_(0.5)  # rank one: ½ · √(4 · 6)
    norms = spectral_norm(Snapshot(net, F.mse_loss, []))
    assert norms["spectral.0.weight"].value == pytest.approx(7)
    assert norms["spectral.1.weight"].value == pytest.approx(0.5 * 24**0.5)
    assert norms["spectral"].value == pytest.approx(7)
    assert set(norms) == {"spectral", "spectral.0.weight", "spectral.1.weight"}


@pytest.mark.oracle("spectral_norm")
@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (8, 3, 5)])
def test_spectral_is_the_largest_singular_value(shape):
    torch.manual_seed(0)
    net = nn.ParameterDict({"w": torch.randn(shape)})
    exact = float(torch.linalg.svdvals(net["w"].detach().double().reshape(shape[0], -1))[0])
    assert spectral_norm(Snapshot(net, F.mse_loss, []))["spectral"].value == pytest.approx(exact, rel=1e-12)


def test_undefined():
    snapshot = Snapshot(nn.LayerNorm(3), F.mse_loss, [])
    assert spectral_norm(snapshot)["spectral"].value is None
    assert distance_from_init(snapshot)["distance"].note == "no initial weights given"
    other = Snapshot(nn.LayerNorm(3), F.mse_loss, [], initial={"weight": torch.zeros(4)})
    assert "'weight' of shape (3,)" in distance_from_init(other)["distance"].note


# -- sums and products


def moved(net: nn.Module) -> dict[str, torch.Tensor]:
    return {key: t + 0.5 if t.is_floating_point() else t for key, t in net.state_dict().items()}


def separable(net: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Data of which every margin is positive: labelled by the network."""
    x = torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return x, net(x).argmax(1)


def oracle(net: nn.Module, x: torch.Tensor, y: torch.Tensor, initial: dict[str, torch.Tensor]) -> dict[str, float]:
    """The formulas of Jiang et al. 2020, appendix C, line by line in NumPy."""
    trained = {name: p.detach().double().numpy() for name, p in net.named_parameters() if p.requires_grad}
    w = {name: p.reshape(len(p), -1) for name, p in trained.items() if p.ndim > 1}
    change = {name: v - initial[name].double().numpy().reshape(len(v), -1) for name, v in w.items()}
    spec = {name: np.linalg.svd(v, compute_uv=False)[0] ** 2 for name, v in w.items()}
    fro = {name: np.sum(v**2) for name, v in w.items()}
    logits = net(x).detach().numpy()
    right = logits[np.arange(len(y)), y]
    logits[np.arange(len(y)), y] = -np.inf
    margin = np.percentile(right - logits.max(1), 10)
    d, flat = len(w), np.concatenate([p.ravel() for p in trained.values()])
    of_spec, of_fro = np.log(list(spec.values())).sum(), np.log(list(fro.values())).sum()
    over = 2 * np.log(margin) if margin > 0 else np.nan
    ranks = sum(fro[name] / spec[name] for name in w)
    return {
        "params": flat.size,
        "param_norm": np.sum(flat**2),
        "l1": np.abs(flat).sum(),
        "fro_norm": sum(fro.values()),
        "fro_over_spec": ranks,
        "log_prod_of_spec": of_spec,
        "log_prod_of_fro": of_fro,
        "log_sum_of_spec": np.log(d * np.exp(of_spec) ** (1 / d)),
        "log_sum_of_fro": np.log(d * np.exp(of_fro) ** (1 / d)),
        "fro_dist": sum(np.sum(v**2) for v in change.values()),
        "dist_spec_init": sum(np.linalg.svd(v, compute_uv=False)[0] ** 2 for v in change.values()),
        "log_prod_of_spec_over_margin": of_spec - over,
        "log_prod_of_fro_over_margin": of_fro - over,
        "log_sum_of_spec_over_margin": np.log(d * np.exp(of_spec - over) ** (1 / d)),
        "log_sum_of_fro_over_margin": np.log(d * np.exp(of_fro - over) ** (1 / d)),
        "log_spec_init_main": of_spec - over + np.log(sum(np.sum(change[n] ** 2) / spec[n] for n in w)),
        "log_spec_orig_main": of_spec - over + np.log(ranks),
    }


def all_norms(snapshot: Snapshot) -> dict:
    measures = (parameter_norms, matrix_norms, matrix_distances, norms_over_margin)
    return {key: estimate for measure in measures for key, estimate in measure(snapshot).items()}


@pytest.mark.oracle("parameter_norms", "matrix_norms", "matrix_distances", "norms_over_margin")
@pytest.mark.parametrize("name", NETS)
def test_by_the_formulas_of_the_paper(name):
    net, x, _ = build(name)
    net.eval()
    y = net(x).argmax(1)
    found = all_norms(Snapshot(net, F.cross_entropy, [(x[:7], y[:7]), (x[7:], y[7:])], initial=moved(net)))
    expected = oracle(net, x, y, moved(net))
    assert {key for key in found if "." not in key} == set(expected)
    for key, value in expected.items():
        assert found[key].value == pytest.approx(value, rel=1e-9), key


@pytest.mark.oracle("parameter_norms", "matrix_norms", "matrix_distances", "norms_over_margin")
def test_worked_out_by_hand():
    """W₁ = diag(3, 4) of squares 25 and 16, W₂ = (2, 0; 0, 2) of 8 and 4, biases of 1; the start is zero."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.tensor([3.0, 4.0])))
        net[2].weight.copy_(2 * torch.eye(2))
        for layer in (net[0], net[2]):
            layer.bias.fill_(1.0)
    x, y = torch.eye(2, dtype=torch.float64), torch.tensor([0, 1])  # outputs (9, 3) and (3, 11): margins 6 and 8
    initial = {key: torch.zeros_like(t) for key, t in net.state_dict().items()}
    found = all_norms(Snapshot(net, F.cross_entropy, [(x, y)], initial=initial))
    gamma = 6.2  # a tenth of the way
    expected = {
        "params": 12,
        "param_norm": 37,
        "l1": 15,
        "l1.0.weight": 7,
        "fro_norm": 33,
        "fro_norm.2.weight": 8,
        "fro_over_spec": 25 / 16 + 2,
        "fro_over_spec.0.weight": 25 / 16,
        "log_prod_of_spec": math.log(64),
        "log_sum_of_spec": math.log(16),
        "log_prod_of_fro": math.log(200),
        "log_sum_of_fro": math.log(2 * 200**0.5),
        "fro_dist": 33,
        "dist_spec_init": 20,
        "dist_spec_init.0.weight": 16,
        "log_prod_of_spec_over_margin": math.log(64 / gamma**2),
        "log_sum_of_fro_over_margin": math.log(2 * 200**0.5 / gamma),
        "log_spec_init_main": math.log(64 / gamma**2 * (25 / 16 + 2)),
        "log_spec_orig_main": math.log(64 / gamma**2 * (25 / 16 + 2)),
    }
    for key, value in expected.items():
        assert found[key].value == pytest.approx(value, rel=1e-12), key


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40))
def test_invariances(seed, size):
    """Permuted units and other batches change nothing; rescaled layers of a ReLU network keep the product of the norms,
    and raise their sum."""
    torch.manual_seed(seed)
    net = mlp().double()
    x, y = separable(net)
    start = moved(net)
    before = all_norms(Snapshot(net, F.cross_entropy, [(x, y)], initial=start))
    order, scale = torch.randperm(6), 30.0
    swapped, grown = mlp().double(), mlp().double()
    swapped.load_state_dict(permuted(net.state_dict(), order))
    grown.load_state_dict(net.state_dict())
    with torch.no_grad():
        grown[0].weight.mul_(scale)
        grown[0].bias.mul_(scale)
        grown[2].weight.div_(scale)
    batches = list(zip(x.split(size), y.split(size), strict=True))
    after = all_norms(Snapshot(swapped, F.cross_entropy, batches, initial=permuted(start, order)))
    for key, estimate in before.items():
        assert after[key].value == pytest.approx(estimate.value, rel=1e-9), key
    scaled = all_norms(Snapshot(grown, F.cross_entropy, batches, initial=start))
    for key in ("log_prod_of_spec_over_margin", "log_sum_of_fro_over_margin", "fro_over_spec", "log_spec_orig_main"):
        assert scaled[key].value == pytest.approx(before[key].value, rel=1e-9), key
    for key in ("param_norm", "l1", "fro_norm", "fro_dist", "dist_spec_init", "log_spec_init_main"):
        assert scaled[key].value > 1.01 * before[key].value, key


def permuted(state: dict[str, torch.Tensor], order: torch.Tensor) -> dict[str, torch.Tensor]:
    """The units of the first hidden layer in another order."""
    weights = {"0.weight": state["0.weight"][order], "0.bias": state["0.bias"][order]}
    return {**state, **weights, "2.weight": state["2.weight"][:, order]}


def test_what_is_undefined_says_so():
    net, x, _ = build("mlp")
    y = net(x).argmin(1)
    wrong = norms_over_margin(Snapshot(net, F.cross_entropy, [(x, y)], initial=moved(net)))
    assert all(e.value is None and "not positive" in e.note and "-" in e.note for e in wrong.values())
    regression = norms_over_margin(Snapshot(net, F.mse_loss, [(x, net(x).detach())]))
    assert all(e.value is None and "the targets are no class labels" in e.note for e in regression.values())

    y = net(x).argmax(1)
    start = norms_over_margin(Snapshot(net, F.cross_entropy, [(x, y)], initial=net.state_dict()))
    assert "initial ones" in start["log_spec_init_main"].note
    assert start["log_spec_orig_main"].value is not None
    without = norms_over_margin(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert without["log_spec_init_main"].note == "no initial weights given"
    assert matrix_distances(Snapshot(net, F.cross_entropy, []))["fro_dist"].note == "no initial weights given"
    with torch.no_grad():
        net[2].weight.zero_()
    zero = matrix_norms(Snapshot(net, F.cross_entropy, []))
    assert zero["fro_norm"].value > 0
    for key in ("fro_over_spec", "log_prod_of_spec", "log_sum_of_spec", "log_prod_of_fro", "log_sum_of_fro"):
        assert zero[key].value is None
        assert "'2.weight' is zero" in zero[key].note

    vectors = Snapshot(nn.LayerNorm(3), F.mse_loss, [(torch.randn(2, 3), torch.randn(2, 3))], initial={})
    for measure in (matrix_norms, norms_over_margin, convolution_spectral_norms):
        assert all(estimate.value is None and estimate.note for estimate in measure(vectors).values())
    assert parameter_norms(vectors)["param_norm"].value == pytest.approx(3)


# -- convolutions


def circular(weight: np.ndarray, size: tuple[int, ...], stride, dilation, groups: int) -> np.ndarray:
    """The dense matrix of the convolution on a circle, [out · outputs, in · inputs], entry by entry."""
    out, fan, *kernel = weight.shape
    outputs = [n // s for n, s in zip(size, stride, strict=True)]
    matrix = np.zeros((out, *outputs, fan * groups, *size))
    for o, i, at, tap in product(range(out), range(fan), product(*map(range, outputs)), product(*map(range, kernel))):
        source = tuple((a * s + t * d) % n for a, s, t, d, n in zip(at, stride, tap, dilation, size, strict=True))
        channel = i + fan * (o // (out // groups))
        matrix[(o, *at, channel, *source)] += weight[(o, i, *tap)]
    return matrix.reshape(out * math.prod(outputs), -1)


@pytest.mark.oracle("convolution_spectral_norms")
@pytest.mark.parametrize(
    ("shape", "size", "stride", "dilation", "groups"),
    [
        ((3, 2, 3), (7,), (1,), (1,), 1),
        ((3, 2, 3), (8,), (1,), (2,), 1),
        ((4, 2, 3), (8,), (2,), (1,), 1),
        ((2, 3, 5), (9,), (3,), (1,), 1),
        ((4, 2, 3), (8,), (2,), (3,), 2),
        ((2, 2, 5), (3,), (1,), (1,), 1),  # round the circle more than once
        ((3, 2, 3, 3), (5, 6), (1, 1), (1, 1), 1),
        ((4, 1, 3, 2), (4, 6), (2, 1), (1, 2), 2),
        ((2, 2, 3, 3), (6, 6), (2, 3), (1, 1), 1),
        ((6, 1, 3, 3), (4, 4), (2, 2), (1, 1), 3),
        ((2, 2, 2, 2, 2), (3, 2, 4), (1, 1, 2), (1, 1, 1), 1),
    ],
)
def test_on_the_circle_it_is_the_norm_of_the_dense_matrix(shape, size, stride, dilation, groups):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = np.linalg.svd(circular(w.numpy(), size, stride, dilation, groups), compute_uv=False)[0]
    found = circular_convolution_norm(w, size, stride=stride, dilation=dilation, groups=groups)
    assert found == pytest.approx(exact, rel=1e-10)


def test_the_formula_of_sedghi_gupta_and_long():
    """Stride 1 in two dimensions: the singular values of the two-dimensional Fourier transform of the kernel."""
    w = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    transform = np.fft.fft2(w.numpy(), (6, 7)).transpose(2, 3, 0, 1)
    exact = np.linalg.svd(transform, compute_uv=False).max()
    assert circular_convolution_norm(w, (6, 7), stride=(1, 1), dilation=(1, 1)) == pytest.approx(exact, rel=1e-12)


def of_layer(layer: nn.Module, x: torch.Tensor) -> tuple[float | None, float, str | None]:
    """The measure, and the norm of the layer's own dense matrix."""
    layer = layer.double()
    found = convolution_spectral_norms(Snapshot(layer, lambda out, _: out.square().mean(), [(x, torch.zeros(len(x)))]))
    assert found["spectral_fft"].value == found["spectral_fft.weight"].value
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None]).reshape(-1), x[0])
    dense = jacobian.reshape(len(jacobian), -1).numpy()
    return found["spectral_fft"].value, np.linalg.svd(dense, compute_uv=False)[0], found["spectral_fft"].note


@pytest.mark.oracle("convolution_spectral_norms")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv1d(2, 3, 5, padding=2, padding_mode="circular"), (2, 8)),
        (lambda: nn.Conv1d(2, 3, 3, padding="same", dilation=2, padding_mode="circular"), (2, 7)),
        (lambda: nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2, padding_mode="circular"), (4, 6, 4)),
    ],
)
def test_a_layer_with_circular_padding_is_exact(layer, shape):
    torch.manual_seed(0)
    value, exact, _ = of_layer(layer(), torch.randn(5, *shape, dtype=torch.float64))
    assert value == pytest.approx(exact, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 9),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    padding=st.one_of(st.integers(0, 8), st.just("same")),
    groups=st.integers(1, 2),
    transposed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_layer_with_zero_padding_is_bounded(n, kernel, stride, dilation, padding, groups, transposed, seed):
    options = {"dilation": dilation, "groups": groups}
    torch.manual_seed(seed)
    if transposed:
        padding = 0 if padding == "same" else padding
        assume((n - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 >= 1)
        layer = nn.ConvTranspose1d(2, 4, kernel, stride=stride, padding=padding, **options)
    else:
        assume(padding == "same" or n + 2 * padding >= dilation * (kernel - 1) + 1)
        stride = 1 if padding == "same" else stride
        layer = nn.Conv1d(2, 4, kernel, stride=stride, padding=padding, **options)
    bound, exact, _ = of_layer(layer, torch.randn(3, 2, n, dtype=torch.float64))
    assert exact <= bound * (1 + 1e-9)


def test_the_bound_is_close_for_a_small_kernel():
    torch.manual_seed(0)
    bound, exact, _ = of_layer(nn.Conv1d(3, 3, 3, padding=1), torch.randn(2, 3, 60, dtype=torch.float64))
    assert exact <= bound <= 1.01 * exact


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), kernel=st.integers(1, 5), stride=st.integers(1, 3))
def test_between_the_reshaped_norm_and_the_root_of_the_kernel_times_it(seed, kernel, stride):
    """WWᵀ is the mean of the blocks' products, and each block is W times waves of norm √kernel."""
    w = torch.randn(3, 2, kernel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reshaped = float(torch.linalg.matrix_norm(w.reshape(3, -1), 2))
    found = circular_convolution_norm(w, (6,), stride=(stride,), dilation=(1,))
    assert reshaped * (1 - 1e-9) <= found <= kernel**0.5 * reshaped * (1 + 1e-9)


@pytest.mark.oracle("convolution_spectral_norms")
def test_the_measures_built_on_convolutions():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    ).double()
    x = torch.randn(20, 2, 8, dtype=torch.float64)
    y = net(x).argmax(1)
    start = moved(net)
    found = convolution_spectral_norms(Snapshot(net, F.cross_entropy, [(x, y)], initial=start))
    margins = net(x).detach().sort(1).values.numpy()
    gamma = np.percentile(margins[:, 2] - margins[:, 1], 10)
    w, v = net[0].weight.detach(), net[3].weight.detach()

    def on_circle(weight):
        return np.linalg.svd(circular(weight.numpy(), (8,), (1,), (1,), 1), compute_uv=False)[0] ** 2

    spec = [on_circle(w), float(torch.linalg.matrix_norm(v, 2)) ** 2]
    moves = [on_circle(torch.full_like(w, 0.5)), v.numel() / 4]  # of rank one
    ranks = sum(float(t.square().sum()) / s for t, s in zip((w, v), spec, strict=True))
    init = sum(t.numel() / 4 / s for t, s in zip((w, v), spec, strict=True))
    expected = {
        "spectral_fft": max(spec) ** 0.5,
        "spectral_fft.0.weight": spec[0] ** 0.5,
        "spectral_fft.3.weight": spec[1] ** 0.5,
        "log_prod_of_spec_fft": math.log(spec[0] * spec[1]),
        "log_sum_of_spec_fft": math.log(2 * (spec[0] * spec[1]) ** 0.5),
        "fro_over_spec_fft": ranks,
        "dist_spec_init_fft": sum(moves),
        "log_prod_of_spec_over_margin_fft": math.log(spec[0] * spec[1] / gamma**2),
        "log_sum_of_spec_over_margin_fft": math.log(2 * (spec[0] * spec[1]) ** 0.5 / gamma),
        "log_spec_init_main_fft": math.log(spec[0] * spec[1] / gamma**2 * init),
        "log_spec_orig_main_fft": math.log(spec[0] * spec[1] / gamma**2 * ranks),
    }
    for key, value in expected.items():
        assert found[key].value == pytest.approx(value, rel=1e-9), key
    whole = {key for key in found if not key.startswith(("spectral_fft.", "fro_over_spec_fft.", "dist_spec_init_fft."))}
    assert whole == {key for key in expected if not key.startswith("spectral_fft.")}


def test_where_the_circle_does_not_fit():
    reflecting = of_layer(nn.Conv1d(2, 3, 3, padding=1, padding_mode="reflect"), torch.randn(2, 2, 6).double())
    assert reflecting[0] is None
    assert "'weight' has reflect padding" in reflecting[2]
    uneven = of_layer(nn.Conv1d(2, 3, 3, padding=1, stride=2, padding_mode="circular"), torch.randn(2, 2, 7).double())
    assert uneven[0] is None
    assert "round its 7 points" in uneven[2]

    net = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(18, 3))
    x = torch.randn(4, 2, 6)
    found = convolution_spectral_norms(Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 1, 2, 0]))]))
    assert found["spectral_fft.2.weight"].value is not None
    for key in ("spectral_fft", "spectral_fft.0.weight", "log_prod_of_spec_fft", "fro_over_spec_fft"):
        assert "'0.weight' has reflect padding" in found[key].note


def test_a_convolution_that_is_never_called():
    net = nn.ModuleDict({"used": nn.Linear(2, 3), "unused": nn.Conv1d(2, 2, 3)})
    net.forward = lambda x: net["used"](x)
    found = convolution_spectral_norms(Snapshot(net, F.cross_entropy, [(torch.randn(3, 2), torch.tensor([0, 1, 2]))]))
    assert "'unused.weight' is never called" in found["spectral_fft"].note


def test_without_convolutions_it_is_the_spectral_norm():
    net, x, y = build("gru")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    exact, plain = convolution_spectral_norms(snapshot), spectral_norm(snapshot)
    assert {key.replace("spectral_fft", "spectral"): e.value for key, e in exact.items() if "spectral" in key} == {
        key: e.value for key, e in plain.items()
    }


def test_a_forward_of_ones_own():
    """The model's input is found whatever the batches are."""
    conv = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(12, 3))
    batch = {"image": torch.randn(5, 8), "label": torch.tensor([0, 1, 2, 0, 1])}
    own = Snapshot(conv, F.cross_entropy, [batch], forward=lambda model, b: (model(b["image"][:, None]), b["label"]))
    pairs = Snapshot(conv, F.cross_entropy, [(batch["image"][:, None], batch["label"])])
    found, expected = convolution_spectral_norms(own), convolution_spectral_norms(pairs)
    assert {k: e.value for k, e in found.items()} == {k: e.value for k, e in expected.items()}
    assert found["spectral_fft"].value is not None
