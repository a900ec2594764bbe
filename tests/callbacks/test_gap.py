import pytest
import torch
import torch.nn.functional as F

from genbench.callbacks import Gap
from tests.helpers.lightning_projects import (
    Plain,
    data,
    fit,
)


def test_gap_is_that_of_the_final_weights():
    gap = Gap()
    module = Plain()
    ours = fit(module, [gap])
    module.eval()
    for split, dataset in (("train", data(64, 0)), ("val", data(30, 1)), ("test", data(50, 2))):
        x, y = dataset.tensors
        p = module(x).detach().double().softmax(1)
        found = {
            name: gap.results[f"{split}/performance/{name}"].value
            for name in ("accuracy", "cross_entropy", "soft_error")
        }
        assert found["accuracy"] == pytest.approx(float((p.argmax(1) == y).double().mean()))
        assert found["cross_entropy"] == pytest.approx(float(F.nll_loss(p.log(), y)), rel=1e-5)
        assert found["soft_error"] == pytest.approx(float(1 - p[torch.arange(len(y)), y].mean()), rel=1e-5)
        assert 0 <= gap.results[f"{split}/performance/calibration_error"].value <= 1
        if split == "train":
            train = found
        else:
            signs = {"accuracy": -1, "cross_entropy": 1, "soft_error": 1}
            for name, sign in signs.items():
                expected = sign * (found[name] - train[name])
                assert gap.results[f"{split}/gap/{name}"].value == pytest.approx(expected)
    assert "train/gap/accuracy" not in gap.results
    for key, estimate in gap.results.items():
        assert float(ours.callback_metrics[key]) == pytest.approx(estimate.value, rel=1e-6)
    assert gap.seconds > 0
