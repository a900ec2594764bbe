"""The weights that act, against the plain network that has them as its parameters."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as spectral_hook
from torch.nn.utils import weight_norm as weight_hook

from genbench.measures import (
    Snapshot,
    convolution_spectral_norms,
    distance_from_init,
    effective_rank,
    l2_norm,
    layer_curvature,
    linear_cka,
    loss_line,
    matrix_distances,
    matrix_norms,
    normalized_margin,
    norms_over_margin,
    parameter_norms,
    path_norm,
    power_law,
    relative_flatness,
    spectral_norm,
    vc_dimension,
)
from genbench.measures.effective_weights import low_rank_note, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
OF_THE_FUNCTION = (
    l2_norm,
    distance_from_init,
    spectral_norm,
    matrix_norms,
    matrix_distances,
    norms_over_margin,
    convolution_spectral_norms,
    normalized_margin,
    power_law,
    path_norm,
    vc_dimension,
    effective_rank,
    linear_cka,
)


class Symmetric(nn.Module):
    """A parametrization of one's own, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return self.scale * (w + w.flip(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    return net.double()


WEIGHTED = (0, 3, 5)
KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm hook": weight_hook,
    "spectral_norm": parametrizations.spectral_norm,
    "spectral_norm hook": spectral_hook,
    "orthogonal": lambda m: parametrizations.orthogonal(m, orthogonal_map="cayley"),
    "own": lambda m: parametrize.register_parametrization(m, "weight", Symmetric()),
    "chain": lambda m: parametrize.register_parametrization(parametrizations.weight_norm(m), "weight", Symmetric()),
    "pruned": lambda m: prune.l1_unstructured(m, "weight", 0.4),
    "pruned twice": lambda m: prune.random_unstructured(prune.l1_unstructured(m, "weight", 0.4), "weight", 0.3),
}


def computed(kind: str) -> tuple[nn.Sequential, dict, nn.Sequential, dict]:
    """A network after some training with its initial state, and the plain one of the same function with its own."""
    net = network()
    torch.manual_seed(1)
    for i in WEIGHTED:
        KINDS[kind](net[i])
    net.train()
    x, y = data()
    net(x)  # the power iterations of spectral norm
    initial = copy.deepcopy(net.state_dict())
    start = plain_copy(net).state_dict()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, initial, plain_copy(net), start


def plain_copy(net: nn.Sequential) -> nn.Sequential:
    plain = network()
    modes = [m.training for m in net.modules()]
    net.eval()
    with torch.no_grad():
        net(data()[0])  # the hooks leave their weights as attributes
        for i in WEIGHTED:
            plain[i].weight.copy_(net[i].weight)
            plain[i].bias.copy_(net[i].bias)
    for module, mode in zip(net.modules(), modes, strict=True):
        module.training = mode
    return plain


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(30, 2, 6, generator=generator).double()
    return x, network()(x).argmax(1)


def values(found) -> dict[str, float | None]:
    return {key: e.value for key, e in (found if isinstance(found, dict) else {"": found}).items()}


def close(found: dict[str, float | None], expected: dict[str, float | None]) -> bool:
    known = {key: value for key, value in expected.items() if value is not None}
    nothing = {key for key, value in found.items() if value is None}
    return nothing == expected.keys() - known.keys() and {k: v for k, v in found.items() if v is not None} == (
        pytest.approx(known, rel=1e-9, abs=1e-12)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_measures_are_those_of_the_plain_network(kind):
    net, initial, plain, start = computed(kind)
    snapshot = Snapshot(net, F.cross_entropy, [data()], initial=initial)
    reference = Snapshot(plain, F.cross_entropy, [data()], initial=start)
    assert {*weights(snapshot)} == {*reference.parameters}
    for function in OF_THE_FUNCTION:
        assert close(values(function(snapshot)), values(function(reference))), function.__name__
    found, expected = values(parameter_norms(snapshot)), values(parameter_norms(reference))
    assert found.pop("params") == sum(p.numel() for p in net.parameters())
    expected.pop("params")
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["weight_norm", "weight_norm hook"])
def test_the_length_of_v_is_of_no_measure(kind):
    net, initial, *_ = computed(kind)
    longer = copy.deepcopy(initial), copy.deepcopy(net.state_dict())
    for state in longer:
        for name, tensor in state.items():
            if name.endswith(("original1", "weight_v")):
                tensor.mul_(10)
    before = Snapshot(net, F.cross_entropy, [data()], initial=initial)
    other = network()
    for i in WEIGHTED:
        KINDS[kind](other[i])
    other.load_state_dict(longer[1])
    after = Snapshot(other, F.cross_entropy, [data()], initial=longer[0])
    for function in OF_THE_FUNCTION:
        assert close(values(function(after)), values(function(before))), function.__name__


def test_the_spectral_norm_of_a_spectral_norm_is_one():
    net = network()
    for i in WEIGHTED:
        parametrizations.spectral_norm(net[i], n_power_iterations=200)
    net(data()[0])
    found = spectral_norm(Snapshot(net, F.cross_entropy, [data()]))
    assert values(found) == pytest.approx(dict.fromkeys(found, 1.0), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_them_changes_nothing(kind):
    net, initial, *_ = computed(kind)
    net.train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    names = [name for name, _ in net.named_parameters()]
    snapshot = Snapshot(net, F.cross_entropy, [data()], initial=initial)
    for function in OF_THE_FUNCTION:
        function(snapshot)
    assert [name for name, _ in net.named_parameters()] == names
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_a_parametrization_added_later_has_the_plain_start():
    net = network()
    start = copy.deepcopy(net.state_dict())
    parametrizations.weight_norm(net[3])
    with torch.no_grad():
        net[3].parametrizations.weight.original0.mul_(2)
    found = values(distance_from_init(Snapshot(net, F.cross_entropy, [data()], initial=start)))
    assert found["distance"] == pytest.approx(float(start["3.weight"].norm()), rel=1e-12)
    assert found["distance.3.weight"] == pytest.approx(found["distance"], rel=1e-12)
    missing = {name: t for name, t in start.items() if name != "3.weight"}
    note = distance_from_init(Snapshot(net, F.cross_entropy, [data()], initial=missing))["distance"].note
    assert note == "initial weights have no '3.parametrizations.weight.original0' of shape (8, 1)"


def test_a_layer_that_is_used_twice():
    class Twice(nn.Module):
        def __init__(self, shared: nn.Linear) -> None:
            super().__init__()
            self.first = shared
            self.second = shared
            self.head = nn.Linear(4, 3).double()

        def forward(self, x):
            return self.head(self.second(self.first(x).relu()).relu())

    torch.manual_seed(0)
    plain = Twice(nn.Linear(4, 4).double())
    net = copy.deepcopy(plain)
    parametrizations.weight_norm(net.first)
    x, y = torch.randn(20, 4).double(), torch.randint(3, (20,))
    snapshot, reference = (Snapshot(n, F.cross_entropy, [(x, y)]) for n in (net, plain))
    assert {*weights(snapshot)} == {"first.weight", "first.bias", "head.weight", "head.bias"}
    for function in (matrix_norms, l2_norm, normalized_margin, vc_dimension, power_law):
        assert close(values(function(snapshot)), values(function(reference))), function.__name__


def test_what_is_frozen_is_not_trainable():
    net = network()
    parametrizations.weight_norm(net[0])
    net[0].requires_grad_(False)
    assert [*weights(Snapshot(net, F.cross_entropy, [data()]))] == ["3.weight", "3.bias", "5.weight", "5.bias"]
    part = Snapshot(net, F.cross_entropy, [data()]).select("3")
    assert [*weights(part)] == ["3.weight", "3.bias"]


@pytest.mark.parametrize("norm", [weight_hook, parametrizations.weight_norm])
def test_recurrent_weights(norm):
    torch.manual_seed(0)
    gru = nn.GRU(2, 4, batch_first=True).double()
    expected = {name: p.detach().clone() for name, p in gru.named_parameters()}
    net = nn.Sequential(norm(gru, "weight_hh_l0"))
    found = weights(Snapshot(net, lambda out, y: out[0].square().mean(), [(data()[0].movedim(1, 2), data()[1])]))
    assert {*found} == {f"0.{name}" for name in expected}
    for name, weight in expected.items():
        torch.testing.assert_close(found[f"0.{name}"], weight, rtol=1e-12, atol=0)


class Masked(nn.Module):
    """A parametrization with a buffer that no state dict holds."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w * self.mask


def test_buffers_that_no_state_dict_holds():
    net = network()
    parametrize.register_parametrization(net[5], "weight", Masked(torch.eye(3, 8).double()))
    initial = {name: 0 * t for name, t in net.state_dict().items()}
    found = values(distance_from_init(Snapshot(net, F.cross_entropy, [data()], initial=initial)))
    assert found["distance.5.weight"] == pytest.approx(float(net[5].weight.norm()), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_is_the_change_of_the_gradient(kind):
    """By finite differences, as dense autograd shares torch's wrong second derivative of weight norm."""
    net, *_ = computed(kind)
    net[1], net[4] = nn.Tanh(), nn.Tanh()
    snapshot = Snapshot(net, F.cross_entropy, [data()])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        v = torch.randn(snapshot.size, generator=generator, dtype=torch.float64)
        after, before = (snapshot.gradient_at(snapshot.vector + sign * 1e-5 * v)[1] for sign in (1, -1))
        torch.testing.assert_close(snapshot.hessian.matvec(v), (after - before) / 2e-5, rtol=1e-5, atol=1e-7)


def test_relative_flatness_has_no_hessian_by_a_computed_weight():
    net = network()
    parametrizations.weight_norm(net[5])
    snapshot = Snapshot(net, F.cross_entropy, [data()])
    found = relative_flatness(snapshot)["relative_flatness"]
    assert found.value is None
    assert found.note.startswith("undefined: '5.weight' is computed from parameters")
    plain = Snapshot(network(), F.cross_entropy, [data()])
    assert values(relative_flatness(snapshot, layer="3")) == pytest.approx(
        values(relative_flatness(plain, layer="3")), rel=1e-9
    )


class Branch(nn.Module):
    """A layer beside it that has no units."""

    def __init__(self, extra: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.b = None if extra is None else nn.Linear(6, extra)
        self.c = None if extra is None else nn.Linear(extra, 5)

    def forward(self, x):
        hidden = torch.tanh(self.a(x))
        return self.out(hidden if self.b is None else torch.cat([hidden, self.b(x)], 1))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_parameters_without_elements():
    generator = torch.Generator().manual_seed(1)
    batch = torch.randn(40, 6, generator=generator).double(), torch.randint(3, (40,), generator=generator)
    full, empty = (
        Snapshot(net.double(), F.cross_entropy, [batch], initial={n: 0.5 * p for n, p in net.state_dict().items()})
        for net in (Branch(None), Branch(0))
    )
    assert empty.size == full.size + 5  # the bias of c
    for function in (*OF_THE_FUNCTION, layer_curvature, relative_flatness):
        found, expected = values(function(empty)), values(function(full))
        for key in expected.keys() - {"l2", "distance", "", "trace"}:
            if not key.startswith("trace."):
                same = found[key] == expected[key] or math.isclose(found[key], expected[key], rel_tol=1e-4)
                assert same, (function.__name__, key)
    assert not any(".b." in key for key in layer_curvature(empty))
    line = loss_line(empty, points=3)
    assert line.loss[1] == pytest.approx(empty.mean_loss, rel=1e-12)
    assert math.isfinite(line.loss.sum())


# -- factors of LoRA


class LoraLayer(nn.Module):
    """As peft's: the frozen layer, and factors in a dict by the adapter's name."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


class Factored(nn.Linear):
    """Of one's own: A and B beside the frozen weight."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(rank, inputs)), nn.Parameter(torch.randn(outputs, rank))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


class LoRALinear(nn.Module):
    """With layers for the factors."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs).requires_grad_(False)
        self.a, self.b = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)

    def forward(self, x):
        return self.linear(x) + self.b(self.a(x))


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (lambda: LoraLayer(nn.Linear(6, 5), 2), "0.lora_A.default.weight, 0.lora_B.default.weight"),
        (lambda: Factored(6, 5, 2), "0.down, 0.up"),
        (lambda: LoRALinear(6, 5, 2), "0.a.weight, 0.b.weight"),
    ],
)
def test_norms_of_factors_say_so(layer, names):
    torch.manual_seed(0)
    net = nn.Sequential(layer(), nn.ReLU(), nn.Linear(5, 3))
    snapshot = Snapshot(net, F.cross_entropy, [(torch.randn(9, 6), torch.randint(3, (9,)))])
    said = f"of low-rank factors ({names}, …) of a change of frozen weights, not of what acts"
    assert low_rank_note(snapshot) == said
    for function in (l2_norm, parameter_norms, spectral_norm, matrix_norms, normalized_margin, power_law):
        noted = [e.note for e in function(snapshot).values() if e.value is not None]
        assert noted
        assert all(note.endswith(said) for note in noted)


class LoraParametrization(nn.Module):
    """Factors inside a parametrization: what acts is their sum with the frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(5, 2))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w + self.lora_B @ self.lora_A


def test_factors_inside_a_parametrization_are_no_weights():
    layer = nn.Linear(6, 5).requires_grad_(False)
    parametrize.register_parametrization(layer, "weight", LoraParametrization())
    snapshot = Snapshot(layer, F.cross_entropy, [(torch.randn(9, 6), torch.randint(5, (9,)))])
    assert [*weights(snapshot)] == ["weight"]
    assert low_rank_note(snapshot) is None
    found = matrix_norms(snapshot)
    assert found["fro_norm"].value == pytest.approx(float(layer.weight.double().square().sum()), rel=1e-6)
    assert found["fro_norm"].note is None


def test_other_networks_have_no_factors():
    net = nn.Sequential(nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 6))
    bottleneck = nn.Sequential(net, nn.Linear(6, 3))
    x, y = torch.randn(9, 6), torch.randint(3, (9,))
    for model in (network(), net, bottleneck, nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3))):
        given = data() if isinstance(model[0], nn.Conv1d) else (x, y)
        given = (torch.randint(9, (9, 6)), y) if isinstance(model[0], nn.Embedding) else given
        assert low_rank_note(Snapshot(model, F.cross_entropy, [given])) is None
