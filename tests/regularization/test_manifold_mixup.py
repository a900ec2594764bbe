import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.models import CNN, GRU, MLP, Linear
from genbench.models.resnet18 import ResNet18
from genbench.models.transformer import Transformer
from genbench.models.wide_resnet import WideResNet
from genbench.regularization import SAM
from genbench.regularization.manifold_mixup import ManifoldMixup
from genbench.rng import StepRandom
from genbench.training import Lane

X, Y = torch.randn(6, 1, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
PAIRS = [1, 0, 3, 2, 5, 4]


def by_hand(net, x, y, draw, alpha):
    """The output and the targets of the paper: everything before the layer, the mixture, everything after it."""
    share = float(draw.beta("manifold_mixup.share", alpha))
    chosen = int(3 * draw.uniform("manifold_mixup.layer", 1))
    order = draw.permutation("manifold_mixup.order", 6)
    h, y = x[order].flatten(1), F.one_hot(y, 3).double()[order]
    for place, layer in enumerate([nn.Identity(), *net.layers]):
        h = layer(h)
        if place == chosen:
            h = share * h + (1 - share) * h[PAIRS]
    return chosen, net.head(h), share * y + (1 - share) * y[PAIRS]


@pytest.mark.parametrize("residual", [False, True])
def test_the_layer_that_is_drawn_is_mixed(residual):
    net = MLP(input_shape=(1, 5), classes=3, width=7, residual=residual).double()
    method = ManifoldMixup(alpha=2.0)
    plain = copy.deepcopy(net)
    method.build(net)
    seen = set()
    for step in range(20):
        chosen, output, target = by_hand(plain, X, Y, draw := StepRandom(0, step), 2.0)
        x, y = method.transform(net, X, Y, draw)
        torch.testing.assert_close(net(x), output)
        torch.testing.assert_close(y, target)
        seen.add(chosen)
    assert seen == {0, 1, 2}


def test_pairs_are_drawn_uniformly():
    x, met = torch.arange(6.0)[:, None], torch.zeros(6, 6)
    method = ManifoldMixup(alpha=1.0)
    net = MLP(input_shape=(1,), classes=3)
    method.build(net)
    for step in range(300):
        order = StepRandom(0, step).permutation("manifold_mixup.order", 6)
        method.transform(net, x, Y, StepRandom(0, step))
        met[order, order[PAIRS]] += 1
    assert met.diagonal().eq(0).all()
    others = met[~torch.eye(6, dtype=torch.bool)]
    assert float(((others - 60) ** 2 / 60).sum()) / 2 < 36  # χ² of 15 pairs, 14 degrees of freedom, p = 0.001


def test_between_steps_and_in_evaluation_nothing_is_mixed():
    net = MLP(input_shape=(1, 5), classes=3).double()
    plain = copy.deepcopy(net)
    lane = Lane(net, [ManifoldMixup(alpha=2.0)], seed=0)
    lane.gradient_step(X, Y, draw=StepRandom(0, 0), lr=0.1, backward=lambda loss: loss.backward())
    assert not torch.allclose(net(X), plain(X))
    assert torch.equal(net.eval()(X), plain(X))
    lane.after_step(lane.trained, 0.1)
    assert torch.equal(net.train()(X), plain(X))


def test_the_second_pass_of_a_step_mixes_as_the_first():
    net = MLP(input_shape=(1, 5), classes=3).double()
    lanes = [Lane(copy.deepcopy(net), [ManifoldMixup(alpha=2.0), *more], seed=0) for more in ([], [SAM(rho=0.0)])]
    for lane in lanes:
        lane.gradient_step(X, Y, draw=StepRandom(0, 3), lr=0.1, backward=lambda loss: loss.backward())
    for a, b in zip(*(lane.trained for lane in lanes), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda lane: pickle.loads(pickle.dumps(lane))])
def test_a_copy_mixes_by_itself(clone):
    lane = Lane(MLP(input_shape=(1, 5), classes=3).double(), [ManifoldMixup(alpha=2.0)], seed=0)
    other = clone(lane)
    x, y = other.transformed(X, Y, StepRandom(0, 1))
    assert lane.methods[0].share == 1
    mixed = other.objective(x, y, StepRandom(0, 1))
    assert mixed != lane.objective(x, y, StepRandom(0, 1))
    assert torch.equal(mixed, lane.objective(*lane.transformed(X, Y, StepRandom(0, 1)), StepRandom(0, 1)))


@pytest.mark.parametrize(
    ("model", "shape", "layers"),
    [
        (CNN, (1, 40), 3),
        (CNN, (3, 8, 8), 3),
        (GRU, (1, 40), 1),
        (ResNet18, (3, 8, 8), 8),
        (WideResNet, (3, 8, 8), 6),
        (Transformer, (1, 40), 2),
    ],
)
def test_networks_whose_layers_are_known(model, shape, layers):
    net = ManifoldMixup(alpha=2.0).build(model(input_shape=shape, classes=3))
    assert [len(layer._forward_hooks) for layer in net.layers] == [1] * layers


def test_alpha_zero_leaves_all_but_the_order():
    net = MLP(input_shape=(1, 5), classes=3).double()
    before = net(X)
    method = ManifoldMixup(alpha=0)
    method.build(net)
    x, y = method.transform(net, X, Y, draw := StepRandom(0, 0))
    order = draw.permutation("manifold_mixup.order", 6)
    torch.testing.assert_close(net(x), before[order])
    assert torch.equal(y.argmax(1), Y[order])


def test_bad_input():
    with pytest.raises(ValueError, match="alpha is "):
        ManifoldMixup(alpha=-1)
    with pytest.raises(ValueError, match=r"^regularization manifold_mixup: Linear has no layers to mix"):
        ManifoldMixup(alpha=1).build(Linear(input_shape=(1, 4), classes=2))
    method = ManifoldMixup(alpha=1)
    net = method.build(MLP(input_shape=(1, 5), classes=3))
    with pytest.raises(ValueError, match=r"manifold_mixup: a batch of 5 examples; accepted: an even number"):
        method.transform(net, X[:5], Y[:5], StepRandom(0, 0))
