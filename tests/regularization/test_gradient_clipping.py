from functools import partial

import torch

from genbench.regularization import GradientClipping
from tests.helpers.networks import network
from tests.helpers.runs import by_hand, fit


def test_it_is_torchs_clipping():
    trained = fit(lambda: [GradientClipping(max_norm=0.1)], optimizer=partial(torch.optim.SGD, lr=0.5)).network
    clip = lambda net: torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)  # noqa: E731
    reference = by_hand(network(), partial(torch.optim.SGD, lr=0.5), before=clip)
    for p, q in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=0)  # torch adds 1e-6 to the norm


def test_a_long_gradient_gets_the_norm_and_a_short_one_stays():
    method = GradientClipping(max_norm=2.5)
    long = [torch.tensor([3.0, 0.0]).double(), torch.tensor([[4.0]]).double()]  # of norm 5
    for g, expected in zip(method.gradient([], long, None), long, strict=True):
        torch.testing.assert_close(g, expected / 2)
    short = [g / 4 for g in long]
    for g, expected in zip(method.gradient([], short, None), short, strict=True):
        torch.testing.assert_close(g, expected)
