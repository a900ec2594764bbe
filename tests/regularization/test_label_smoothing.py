from functools import partial

import pytest
import torch
import torch.nn.functional as F

from genbench.regularization import LabelSmoothing
from tests.helpers.networks import network
from tests.helpers.runs import by_hand, fit


def test_it_is_torchs_label_smoothing():
    trained = fit(lambda: [LabelSmoothing(smoothing=0.2)]).network
    reference = by_hand(
        network(), partial(torch.optim.Adam, lr=0.05), loss=partial(F.cross_entropy, label_smoothing=0.2)
    )
    for p, q in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_the_loss_of_uniform_probabilities_is_the_log_of_the_classes():
    y = torch.tensor([0, 2, 1])
    loss = LabelSmoothing(smoothing=0.3).loss(torch.zeros(3, 4, dtype=torch.float64), y)
    assert float(loss) == pytest.approx(torch.log(torch.tensor(4.0, dtype=torch.float64)).item())
