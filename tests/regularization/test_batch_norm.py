import pytest
import torch
from torch import nn

from genbench.models import CNN, GRU, MLP, Linear, Normalization
from genbench.regularization import BatchNorm

NORMS = nn.BatchNorm1d | nn.BatchNorm2d


@pytest.mark.parametrize("shape", [(1, 40), (1, 8, 8)])
@pytest.mark.parametrize("model", [MLP, CNN, GRU])
def test_every_slot_is_filled_as_the_model_would_itself(model, shape):
    torch.manual_seed(0)
    net = BatchNorm().build(model(input_shape=shape, classes=10))
    torch.manual_seed(0)
    own = model(input_shape=shape, classes=10, normalization="batch_norm")
    assert [type(m) for m in net.modules()] == [type(m) for m in own.modules()]
    assert not any(isinstance(m, Normalization) for m in net.modules())
    x = torch.randn(16, *shape)
    assert torch.equal(net(x), own(x))  # the same initial weights: building the norm draws nothing
    assert torch.equal(net.eval()(x), own.eval()(x))


def test_units_are_normalized_over_the_batch():
    net = BatchNorm().build(MLP(input_shape=(1, 4), classes=2, depth=1, activation="identity"))
    features = net.features(100 * torch.randn(32, 1, 4))
    assert torch.allclose(features.mean(0), torch.zeros(100), atol=1e-5)
    assert torch.allclose(features.var(0, unbiased=False), torch.ones(100), atol=1e-3)


def test_it_takes_the_networks_type():
    net = BatchNorm().build(MLP(input_shape=(1, 4), classes=2).double())
    assert net(torch.randn(8, 1, 4, dtype=torch.float64)).dtype == torch.float64


def test_a_network_without_free_slots_is_refused():
    with pytest.raises(ValueError, match=r"^regularization BatchNorm: Linear has no free normalization slots$"):
        BatchNorm().build(Linear(input_shape=(1, 4), classes=2))
    with pytest.raises(ValueError, match="MLP has no free normalization slots"):
        BatchNorm().build(MLP(input_shape=(1, 4), classes=2, normalization="batch_norm"))
