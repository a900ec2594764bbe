import pytest
import torch

from genbench.regularization.ema import EMA
from tests.helpers.networks import network
from tests.helpers.runs import Trace


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_it_is_the_weighted_mean_of_all_weights(fit, decay):
    trace = Trace()
    module = fit(lambda: [trace, EMA(decay=decay)], epochs=3)
    steps = len(trace.steps)
    assert steps == 15
    shares = torch.tensor([decay ** (steps - 1 - s) for s in range(steps)], dtype=torch.float64)
    shares /= shares.sum()
    for index, p in enumerate(module.lanes[0].trained):
        mean = sum(share * weights[index] for share, weights in zip(shares, trace.steps, strict=True))
        torch.testing.assert_close(p.detach(), mean, rtol=1e-12, atol=1e-12)


def test_batch_norms_have_the_statistics_of_the_mean_weights(fit):
    module = fit(lambda: [EMA(decay=0.9)], networks=[network(norm=True)])
    x, _ = module.trainer.datamodule.splits["train"]
    hidden = module.network[0](x)
    torch.testing.assert_close(module.network[1].running_mean, hidden.mean(0))


@pytest.mark.parametrize("decay", [1.0, -0.1, "0.9"])
def test_what_is_no_decay_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay is .*; accepted: a number in \[0, 1\)"):
        EMA(decay=decay)
