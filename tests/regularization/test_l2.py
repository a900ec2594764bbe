from functools import partial

import pytest
import torch

from genbench.regularization import L2
from tests.helpers.networks import network
from tests.helpers.runs import by_hand, fit


def test_with_sgd_it_is_weight_decay_of_twice_the_strength():
    trained = fit(lambda: [L2(strength=0.05)], optimizer=partial(torch.optim.SGD, lr=0.1)).network
    reference = by_hand(network(), partial(torch.optim.SGD, lr=0.1, weight_decay=0.1))
    for p, q in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_the_penalty_is_the_strength_times_the_sum_of_squares():
    net = network()
    method = L2(strength=0.3)
    method.build(net)
    squares = sum(float(p.detach().square().sum()) for p in net.parameters())
    assert float(method.penalty(net, None, None, None, None).detach()) == pytest.approx(0.3 * squares, rel=1e-12)
