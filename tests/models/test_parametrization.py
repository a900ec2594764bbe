"""Parametrizations: the function that training starts from, and how far a step moves it as the width grows."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.models import CNN, MLP, Inception
from genbench.models.attention import Attention
from genbench.models.cnn5 import CNN5
from genbench.models.decoder import Decoder
from genbench.models.parametrization import Scaled
from genbench.models.resnet18 import ResNet18
from genbench.models.transformer import Transformer
from genbench.training.stack import Stack

MODELS = [MLP, CNN, CNN5, ResNet18, Inception, Transformer, Decoder]
OPTIMIZERS = {"mup_adam": (torch.optim.Adam, 0.01), "mup_sgd": (torch.optim.SGD, 0.1)}


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(model, width=8, seed=0, **settings):
    torch.manual_seed(seed)
    return model(input_shape=(1, 8), classes=10, width=width, **settings)


def batch(n=16):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 1, 8, generator=generator), torch.arange(n) % 10


def effective(net):
    """Every parameter as its layer takes it, by its name in the standard network."""
    found = {}
    for name, module in net.named_modules():
        if not name.endswith("layer"):
            multipliers = module.multipliers if isinstance(module, Scaled) else {}
            owner = module.layer if isinstance(module, Scaled) else module
            prefix = f"{name}." if name else ""
            found |= {f"{prefix}{k}": p * multipliers.get(k, 1.0) for k, p in owner.named_parameters(recurse=False)}
    return found


@pytest.mark.parametrize("model", MODELS)
def test_standard_is_what_torch_draws(model):
    net, default = make(model, parametrization="standard", base_width=4), make(model)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), default.parameters(), strict=True))
    assert not any(isinstance(m, Scaled) for m in net.modules())
    first = next(p.detach() for p in net.parameters() if p.ndim > 1)
    bound = (first[0].numel()) ** -0.5
    assert 0.8 * bound < float(first.abs().max()) <= bound  # U(±1/√fan_in)


@pytest.mark.parametrize("kind", ["mup_adam", "mup_sgd"])
@pytest.mark.parametrize("model", MODELS)
def test_mup_at_its_base_width_is_standard(model, kind):
    net, default = make(model, parametrization=kind, base_width=8), make(model)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), default.parameters(), strict=True))
    assert not any(isinstance(m, Scaled) for m in net.modules())


@pytest.mark.parametrize("model", MODELS)
def test_ntk_starts_from_the_standard_function(model):
    net, default = make(model, parametrization="ntk"), make(model)
    x, _ = batch()
    torch.testing.assert_close(net(x), default(x), rtol=1e-9, atol=1e-9)
    for layer in (m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv1d)):
        assert 0.5 < float(layer.weight.detach().abs().max()) <= 1  # U(±1) at every width


@pytest.mark.parametrize("kind", ["mup_adam", "mup_sgd"])
@pytest.mark.parametrize("model", [MLP, Transformer])
def test_mup_starts_from_the_standard_weights_but_for_the_head_and_the_biases(model, kind):
    """Four times the base width: the head's weights are halved, biases of layers that read wide ones doubled."""
    net, default = effective(make(model, 16, parametrization=kind, base_width=4)), effective(make(model, 16))
    assert net.keys() == default.keys()
    first = next(iter(net)).rpartition(".")[0] if model is MLP else "patches"
    for name, value in net.items():
        layer, _, kind_of = name.rpartition(".")
        normalizes = layer == "norm" or layer.endswith(("attention.0", "hidden.0"))
        wide = kind_of == "bias" and layer != first and not normalizes
        expected = default[name] * (0.5 if name == "head.weight" else 2 if wide else 1)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12, msg=name)


def test_attention_scales_with_the_width_of_a_head():
    """√d₀ / d with heads of d = 8 and d₀ = 2 numbers, in place of 1/√d."""
    net = make(Transformer, 32, parametrization="mup_adam", base_width=8)
    for each, expected in ((net, 2**0.5 / 8), (make(Transformer, 32), 8**-0.5)):
        scales = [m.scale for m in each.modules() if isinstance(m, Attention)]
        assert scales == pytest.approx([expected] * 2)


def moved(model, width, parametrization, optimizer, steps=3, **settings):
    """How far some steps move the features and the logits: root mean squares, averaged over seeds."""
    totals = torch.zeros(2)
    make_optimizer, lr = optimizer
    x, y = batch()
    for seed in range(2):
        net = make(model, width, seed, parametrization=parametrization, base_width=16, **settings)
        before = net.features(x).detach(), net(x).detach()
        steps_of = make_optimizer(net.parameters(), lr=lr)
        for _ in range(steps):
            steps_of.zero_grad()
            F.cross_entropy(net(x), y).backward()
            steps_of.step()
        after = net.features(x).detach(), net(x).detach()
        totals += torch.stack([(a - b).square().mean().sqrt() for a, b in zip(after, before, strict=True)])
    return totals / 2


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("model", "settings"), [(MLP, {"depth": 3}), (CNN, {"depth": 2}), (Transformer, {"patch": 2})])
def test_coordinate_check(model, settings, kind):
    """Eight times as wide, features and logits move as far under μP; those of the standard network farther."""
    narrow, wide = (moved(model, width, kind, OPTIMIZERS[kind], **settings) for width in (32, 256))
    assert 0.8 < float((wide / narrow).min()) <= float((wide / narrow).max()) < 1.25
    narrow, wide = (moved(model, width, "standard", OPTIMIZERS[kind], **settings) for width in (32, 256))
    assert float((wide / narrow)[1]) > 1.8


@pytest.mark.parametrize("parametrization", ["standard", "ntk", "mup_adam"])
@pytest.mark.parametrize(("model", "layers"), [(MLP, 4), (CNN, 4)])
def test_init_scale_is_a_factor_of_each_layer(model, layers, parametrization):
    """A ReLU net without biases is homogeneous: its output grows by the scale to the power of its layers."""
    nets = [make(model, depth=3, parametrization=parametrization, base_width=4, init_scale=s) for s in (1.0, 0.5)]
    with torch.no_grad():
        for net in nets:
            for name, p in net.named_parameters():
                if name.endswith("bias"):
                    p.zero_()
    x, _ = batch()
    torch.testing.assert_close(nets[1](x), nets[0](x) * 0.5**layers, rtol=1e-9, atol=1e-12)
    assert float(nets[1](x).detach().abs().max()) > 0


@pytest.mark.parametrize("kind", ["ntk", "mup_adam", "mup_sgd"])
@pytest.mark.parametrize("model", [MLP, ResNet18, Transformer])
def test_scaled_networks_stack(model, kind):
    """Outputs and gradients of lanes are those of the networks; copies and checkpoints keep the multipliers."""
    nets = [make(model, seed=seed, parametrization=kind, base_width=4) for seed in range(2)]
    assert any(isinstance(m, Scaled) for m in nets[0].modules())
    x, y = batch()
    alone = []
    for net in nets:
        loss = F.cross_entropy(net(x), y)
        alone.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]))
    stack = Stack([copy.deepcopy(net) for net in nets])
    weights = [w.clone().requires_grad_() for w in stack.weights]
    lanes = x.expand(2, *x.shape), y.expand(2, -1)
    losses = stack.map(lambda net, x, y: F.cross_entropy(net(x), y), *lanes, weights=weights)
    grads = torch.autograd.grad(losses.sum(), weights)
    for lane in range(2):
        torch.testing.assert_close(torch.cat([g[lane].flatten() for g in grads]), alone[lane], rtol=1e-9, atol=1e-12)
    fresh = make(model, seed=5, parametrization=kind, base_width=4)
    fresh.load_state_dict(nets[0].state_dict())
    assert torch.equal(fresh.eval()(x), nets[0].eval()(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parametrization": "mup"}, "model.parametrization is 'mup'; accepted: standard, ntk, mup_adam, mup_sgd"),
        ({"parametrization": "mup_sgd"}, r"model.base_width is None; accepted: an integer of at least 1 \(param"),
        ({"base_width": 0}, "model.base_width is 0; accepted: an integer of at least 1"),
        ({"init_scale": -1}, r"model.init_scale is -1; accepted: a number in \[0, inf\)"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        make(MLP, **settings)
