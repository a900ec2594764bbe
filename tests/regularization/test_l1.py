import pytest
import torch

from genbench.regularization import L1
from genbench.training import Lane
from tests.helpers.networks import network
from tests.helpers.runs import Blobs, gradient


def test_it_adds_the_sign_to_the_gradient():
    x, y = Blobs().splits["train"]
    plain = gradient(Lane(network(), [], seed=0), x, y)
    lane = Lane(network(), [L1(strength=0.3)], seed=0)
    for p, g, reference in zip(lane.trained, gradient(lane, x, y), plain, strict=True):
        torch.testing.assert_close(g, reference + 0.3 * p.detach().sign())


def test_the_penalty_is_the_strength_times_the_sum_of_sizes():
    net = network()
    method = L1(strength=0.3)
    method.build(net)
    sizes = sum(float(p.detach().abs().sum()) for p in net.parameters())
    assert float(method.penalty(net, None, None, None, None).detach()) == pytest.approx(0.3 * sizes, rel=1e-12)
