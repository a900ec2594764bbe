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
