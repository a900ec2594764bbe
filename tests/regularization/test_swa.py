import pytest
import torch

from genbench.regularization import SWA
from tests.helpers.equality import same
from tests.helpers.networks import network
from tests.helpers.runs import Blobs, Trace, fit


def test_swa_is_the_mean_of_the_weights_of_the_last_part():
    trace = Trace()
    trained = fit(lambda: [trace, SWA(start=0.5)], epochs=4).network
    last = trace.steps[len(trace.steps) // 2 :]
    for p, *values in zip(trained.parameters(), *last, strict=True):
        torch.testing.assert_close(p.detach(), torch.stack(values).mean(0), rtol=1e-12, atol=1e-14)


def test_swa_estimates_batch_statistics_at_the_averaged_weights():
    trained = fit(lambda: [SWA(start=0.5)], networks=[network(norm=True)]).network
    x, _ = Blobs().splits["train"]
    with torch.no_grad():
        torch.testing.assert_close(trained[1].running_mean, trained[0](x).mean(0))
        torch.testing.assert_close(trained[1].running_var, trained[0](x).var(0))
    assert trained[1].momentum == 0.1


def test_swa_that_never_began_leaves_the_weights():
    assert same(fit(lambda: [SWA(start=1.0)]).network, fit().network)


@pytest.mark.parametrize("start", [-0.1, 1.1, "half"])
def test_what_is_no_share_of_training_is_refused(start):
    with pytest.raises(ValueError, match=r"SWA: start is .*; accepted: a number in \[0, 1\]"):
        SWA(start=start)
