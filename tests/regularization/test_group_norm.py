import pytest
import torch
from torch import nn

from genbench.models import CNN, MLP, Linear, Normalization
from genbench.regularization.group_norm import GroupNorm


@pytest.mark.parametrize(("model", "shape"), [(MLP, (1, 40)), (CNN, (1, 40)), (CNN, (1, 8, 8))])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_every_slot_normalizes_each_group_of_channels_over_all_positions(model, shape, groups):
    net = GroupNorm(groups=groups).build(model(input_shape=shape, classes=3, width=6, depth=2).double())
    assert not any(isinstance(module, Normalization) for module in net.modules())
    seen = []
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            with torch.no_grad():
                module.weight.normal_()
                module.bias.normal_()
            module.register_forward_hook(lambda norm, given, output: seen.append((norm, given[0], output)))
    net(torch.randn(4, *shape, dtype=torch.float64))
    assert len(seen) == 2
    for norm, given, output in seen:
        grouped = given.reshape(4, groups, -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
        expected = ((grouped - mean) / (variance + 1e-5).sqrt()).view_as(given)
        each = [1, 6, *[1] * (given.ndim - 2)]
        torch.testing.assert_close(output, expected * norm.weight.view(each) + norm.bias.view(each))


def test_no_example_sees_another():
    net = GroupNorm(groups=2).build(CNN(input_shape=(1, 40), classes=2, width=4).double())
    x = torch.randn(6, 1, 40, dtype=torch.float64)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]))


def test_bad_input():
    with pytest.raises(
        ValueError, match="group_norm: groups is 4, which does not divide 6 channels; accepted: 1, 2, 3"
    ):
        GroupNorm(groups=4).build(MLP(input_shape=(1, 4), classes=2, width=6))
    with pytest.raises(ValueError, match="group_norm: groups is 0; accepted: an integer of at least 1"):
        GroupNorm(groups=0)
    with pytest.raises(ValueError, match=r"^regularization GroupNorm: Linear has no free normalization slots$"):
        GroupNorm(groups=1).build(Linear(input_shape=(1, 4), classes=2))
