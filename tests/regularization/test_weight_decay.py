from functools import partial

import torch

from genbench.regularization import WeightDecay
from genbench.regularization.base import Method
from tests.helpers.equality import same
from tests.helpers.networks import network
from tests.helpers.runs import by_hand, fit


def test_with_adam_it_is_adamw():
    trained = fit(lambda: [WeightDecay(strength=0.3)]).network
    assert same(trained, by_hand(network(), partial(torch.optim.AdamW, lr=0.05, weight_decay=0.3, fused=True)))


def test_without_a_gradient_the_weights_shrink_by_the_same_factor_each_step():
    module = fit(lambda: [WeightDecay(strength=0.5), Zero()], optimizer=partial(torch.optim.SGD, lr=0.1), epochs=1)
    for p, start in zip(module.network.parameters(), network().parameters(), strict=True):
        torch.testing.assert_close(p, start * (1 - 0.1 * 0.5) ** 5, rtol=1e-12, atol=0)


class Zero(Method):
    """Makes the gradient zero."""

    def gradient(self, params, grads, draw):
        return [torch.zeros_like(g) for g in grads]
