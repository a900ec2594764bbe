"""Convolutional networks of the literature: published parameter counts, and each as the composition that it says."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.models import MLP
from genbench.models.alexnet import AlexNet
from genbench.models.cnn5 import CNN5
from genbench.models.inception import Inception
from genbench.models.resnet18 import ResNet18
from genbench.models.slots import Dropout, Normalization, StochasticDepth
from genbench.models.wide_resnet import WideResNet

SMALL = {
    CNN5: {"width": 2},
    ResNet18: {"width": 2},
    WideResNet: {"depth": 10, "width": 1},
    AlexNet: {"width": 2},
    Inception: {"width": 12},
}
LEAST = {CNN5: 4, ResNet18: 1, WideResNet: 1, AlexNet: 1, Inception: 1}


def make(model, shape=(1, 8, 8), **settings):
    torch.manual_seed(0)
    return model(input_shape=shape, classes=10, **settings)


@pytest.mark.parametrize(
    ("model", "shape", "settings", "parameters"),
    [
        (MLP, (3, 28, 28), {"width": 512, "depth": 3}, 1_735_178),  # Zhang et al. 2017, table 1
        (MLP, (3, 28, 28), {"width": 512, "depth": 1}, 1_209_866),
        (AlexNet, (3, 28, 28), {}, 1_387_786),
        (Inception, (3, 28, 28), {"normalization": "none"}, 1_649_402),
        (CNN5, (3, 32, 32), {}, 1_558_026),  # Nakkiran et al. 2020, appendix B
        (ResNet18, (3, 32, 32), {}, 11_171_146),  # as the authors' code has it
        (WideResNet, (3, 32, 32), {"depth": 28, "width": 10}, 36_479_194),  # 36.5 million, Zagoruyko & Komodakis 2016
        (WideResNet, (3, 32, 32), {}, 2_748_890),  # 2.7 million
    ],
)
def test_published_parameter_counts(model, shape, settings, parameters):
    with torch.device("meta"):
        net = make(model, shape, **settings)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("shape", [(1, 40), (1, 8, 8), (3, 9, 12)], ids=str)
@pytest.mark.parametrize("model", SMALL)
def test_logits_on_sequences_and_images(model, shape):
    net, x = make(model, shape, **SMALL[model]).eval(), torch.randn(5, *shape)
    assert net(x).shape == (5, 10)
    assert torch.equal(net(x), net.head(net.features(x)))
    assert torch.allclose(net(x)[2:3], net(x[2:3]), atol=1e-6)  # no example sees another


@pytest.mark.parametrize("model", SMALL)
def test_the_smallest_input(model):
    least = LEAST[model]
    assert make(model, (1, least, least), **SMALL[model]).eval()(torch.randn(2, 1, least, least)).shape == (2, 10)
    for shape in ((1, least, least - 1), (40,)) if least > 1 else ((40,),):
        with pytest.raises(ValueError, match=rf"{model.__name__} does not fit .*at least {least} points a side"):
            make(model, shape, **SMALL[model])


@pytest.mark.parametrize("model", SMALL)
def test_settings_reach_the_network(model):
    net = make(model, **{**SMALL[model], "activation": "gelu", "normalization": "none", "dropout": 0.25})
    kinds = [type(m) for m in net.modules()]
    assert nn.GELU in kinds
    assert nn.ReLU not in kinds
    assert Normalization in kinds
    assert all(drop.p == 0.25 for drop in net.modules() if isinstance(drop, Dropout))
    assert Dropout in kinds
    normalized = [type(m) for m in make(model, **{**SMALL[model], "normalization": "batch_norm"}).modules()]
    assert normalized.count(nn.BatchNorm2d) + normalized.count(nn.BatchNorm1d) == kinds.count(Normalization)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (CNN5, {"width": 0}, "model.width is 0; accepted: an integer of at least 1"),
        (WideResNet, {"depth": 12}, r"model.depth is 12; accepted: 10, 16, 22, 28"),
        (WideResNet, {"depth": 4}, r"model.depth is 4; accepted: an integer of at least 10"),
        (ResNet18, {"normalization": "batchnorm"}, "model.normalization is 'batchnorm'"),
    ],
)
def test_bad_settings_are_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        make(model, **settings)


def test_cnn5_is_the_composition_it_says():
    net, x = make(CNN5, (3, 16, 16), width=2, normalization="none"), torch.randn(4, 3, 16, 16)
    parameters = iter(net.parameters())
    h = x
    for pool in (1, 2, 2, 4):  # the last takes what is left
        h = F.max_pool2d(F.conv2d(h, next(parameters), next(parameters), padding=1).relu(), pool)
    assert h.shape == (4, 16, 1, 1)
    assert torch.allclose(net(x), F.linear(h.flatten(1), *parameters), atol=1e-6)


def test_a_block_adds_its_branch_to_its_input_or_to_a_projection_of_it():
    net = make(ResNet18, width=2).eval()
    plain, halving = net.layers[1], net.layers[2]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    x = torch.randn(3, 2, 8, 8)

    def branch(block, a):
        first, norm, _, _, second, _ = block.branch
        return F.conv2d(
            norm(F.conv2d(a, first.weight, stride=first.stride, padding=1)).relu(), second.weight, padding=1
        )

    a = plain.before[0](x).relu()
    assert torch.allclose(plain(x), x + branch(plain, a), atol=1e-4)
    a = halving.before[0](x).relu()
    projected = F.conv2d(a, halving.shortcut.weight, stride=2)
    assert torch.allclose(halving(x), projected + branch(halving, a), atol=1e-4)
    assert halving(x).shape == (3, 4, 4, 4)


@pytest.mark.parametrize(("model", "branches"), [(ResNet18, 8), (WideResNet, 3)])
def test_every_block_has_a_branch_for_stochastic_depth(model, branches):
    assert sum(isinstance(m, StochasticDepth) for m in make(model, **SMALL[model]).modules()) == branches


def test_local_response_normalization_is_that_of_krizhevsky():
    """x / (1 + α/n Σ x²)^β over the n = 9 channels around each."""
    norm, x = make(AlexNet).layers[0][-1], torch.randn(2, 12, 5, 5, dtype=torch.float64)
    for channel in (0, 7):
        around = x[:, max(0, channel - 4) : channel + 5].square().sum(1)
        expected = x[:, channel] / (1 + 1e-3 / 9 * around) ** 0.75
        assert torch.allclose(norm(x)[:, channel], expected)


def test_an_inception_module_joins_its_convolutions_and_halving_keeps_the_pooled_channels():
    net = make(Inception, (3, 28, 28), normalization="none")
    module, halving = net.layers[1], net.layers[3]
    x = torch.randn(2, 96, 28, 28)
    one, three = module[0][0], module[1][0]
    expected = torch.cat([one(x).relu(), three(x).relu()], 1)
    assert torch.allclose(module(x), expected)
    x = torch.randn(2, 80, 28, 28)
    assert halving(x).shape == (2, 160, 14, 14)
    assert torch.equal(halving(x)[:, 80:], F.max_pool2d(x, 3, 2, 1))
