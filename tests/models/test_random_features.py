import pytest
import torch
import torch.nn.functional as F

from genbench.models.random_features import RandomFeatures


def test_the_head_alone_is_trained():
    torch.manual_seed(0)
    net = RandomFeatures(input_shape=(1, 6), classes=3, width=20)
    x, y = torch.randn(50, 1, 6), torch.randint(3, (50,))
    weight, bias = net.layer[0].weight, net.layer[0].bias
    assert torch.allclose(net.features(x), (x.flatten(1) @ weight.T + bias).relu(), atol=1e-6)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {"head.weight", "head.bias"}
    before = weight.clone(), net.head.weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    assert torch.equal(weight, before[0])
    assert not torch.equal(net.head.weight, before[1])


def test_seeds_draw_other_features():
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(RandomFeatures(input_shape=(1, 6), classes=3, width=20))
    assert not torch.equal(nets[0].layer[0].weight, nets[1].layer[0].weight)


def test_fourier_features_have_the_products_of_the_gaussian_kernel():
    torch.manual_seed(0)
    net = RandomFeatures(input_shape=(1, 6), classes=3, width=200_000, bandwidth=2.0)
    x = torch.randn(5, 1, 6)
    features = net.features(x)
    apart = torch.cdist(x.flatten(1), x.flatten(1))
    assert torch.allclose(features @ features.T, (-apart.square() / (2 * 2.0**2)).exp(), atol=0.01)


@pytest.mark.parametrize("bandwidth", [0, -1, "wide"])
def test_a_bandwidth_is_positive(bandwidth):
    with pytest.raises(ValueError, match=r"model\.bandwidth is .*; accepted: a number in \(0, inf\)"):
        RandomFeatures(input_shape=(1, 6), classes=3, bandwidth=bandwidth)
