import pytest
import torch

from genbench.models import CNN
from genbench.regularization.max_norm import MaxNorm
from tests.helpers.packs import compare


def test_longer_weights_are_projected_on_the_ball_and_shorter_ones_stay():
    net = CNN(input_shape=(1, 8, 8), classes=3, width=4, normalization="batch_norm").double()
    params = list(net.parameters())
    with torch.no_grad():
        for p in params:
            p.normal_(0, 0.3)
        net.head.weight[0].zero_()
    before = [p.detach().clone() for p in params]
    MaxNorm(limit=1.2).after_step(params, 0.5)
    touched = set()
    for p, old in zip(params, before, strict=True):
        if p.ndim == 1:
            assert torch.equal(p, old)
            continue
        for unit, was in zip(p, old, strict=True):
            touched.add(bool(was.norm() > 1.2))
            torch.testing.assert_close(unit, was * min(1.0, 1.2 / max(float(was.norm()), 1e-9)))
    assert touched == {True, False}


def test_every_lane_has_its_own_limit(configure):
    """At a limit that binds: packed and by itself."""
    chosen = ("cnn", "max_norm", "sgd", "constant", torch.float64, "regularization.max_norm.limit=0.3")
    assert max(compare(configure, *chosen)) < 1e-9


@pytest.mark.parametrize("limit", [0, -1, float("inf"), "long"])
def test_bad_settings_are_named(limit):
    with pytest.raises(ValueError, match="MaxNorm: limit is "):
        MaxNorm(limit=limit)
