import pytest
import torch
from torch import nn

from genbench.models import CNN, GRU, MLP, Linear, Normalization
from genbench.regularization.layer_norm import LayerNorm


def normalized(x, axis):
    """(x − mean) / √(variance + ε) along an axis."""
    return (x - x.mean(axis, keepdim=True)) / (x.var(axis, unbiased=False, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize(("model", "shape"), [(MLP, (1, 40)), (CNN, (1, 40)), (CNN, (1, 8, 8)), (GRU, (1, 40))])
def test_every_slot_normalizes_the_channels_at_each_position(model, shape):
    net = model(input_shape=shape, classes=3, depth=2).double()
    slots = [module for module in net.modules() if isinstance(module, Normalization)]
    LayerNorm().build(net)
    assert not any(isinstance(module, Normalization) for module in net.modules())
    seen = []
    norms = [module for module in net.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == len(slots) == 2
    for norm in norms:
        norm.register_forward_hook(lambda module, given, output: seen.append((given[0], output)))
    net(torch.randn(4, *shape, dtype=torch.float64))
    for (given, output), slot in zip(seen, slots, strict=True):
        assert given.shape[1] == slot.channels
        torch.testing.assert_close(output, normalized(given, 1))


def test_channels_are_scaled_and_shifted():
    norm, x = Normalization(3, 1).layer_norm().double(), torch.randn(2, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    torch.testing.assert_close(norm(x), normalized(x, 1) * norm.weight[:, None] + norm.bias[:, None])


def test_no_example_sees_another_and_training_is_evaluation():
    net, x = LayerNorm().build(MLP(input_shape=(1, 4), classes=2).double()), torch.randn(6, 1, 4, dtype=torch.float64)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]))
    assert torch.equal(net.eval()(x), net.train()(x))


def test_a_network_without_free_slots_is_refused():
    with pytest.raises(ValueError, match=r"^regularization LayerNorm: Linear has no free normalization slots$"):
        LayerNorm().build(Linear(input_shape=(1, 4), classes=2))
