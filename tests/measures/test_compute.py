"""Floating-point operations against counts by hand."""

import pytest
import torch
import torch.nn.functional as F

from genbench.measures import Snapshot, flops
from genbench.models import CNN, GRU, MLP, Ensemble, Linear
from genbench.models.decoder import Decoder
from genbench.models.lstm import LSTM
from genbench.models.resnet18 import ResNet18
from genbench.models.rnn import RNN
from genbench.models.transformer import Transformer


def of(net, shape, n=3):
    batch = torch.randn(n, *shape), torch.arange(n)
    return flops(Snapshot(net, F.cross_entropy, [batch, batch])).value


def recurrent(gates, width=6, steps=40):
    return 2 * (steps * 2 * gates * width * (1 + width) + 2 * width * steps * 10)


@pytest.mark.oracle("flops")
@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        (Linear, {}, 2 * 40 * 10),
        (MLP, {}, 2 * (40 * 100 + 100 * 100 + 100 * 10)),
        (MLP, {"normalization": "batch_norm", "parametrization": "ntk"}, 2 * (40 * 100 + 100 * 100 + 100 * 10)),
        (CNN, {}, 2 * (19 * 25 * 5 + 10 * 25 * 25 * 3 + 5 * 25 * 25 * 3 + 125 * 10)),
        (RNN, {}, recurrent(1)),
        (GRU, {}, recurrent(3)),
        (LSTM, {}, recurrent(4)),
        # patches, then in each block 12 w² a token and two products of 40² tokens with w numbers, then the head
        (Transformer, {}, 2 * (40 * 32 + 2 * (40 * 12 * 32**2 + 2 * 40**2 * 32) + 32 * 10)),
        (Decoder, {}, 2 * (40 * 32 + 2 * (40 * 12 * 32**2 + 2 * 40**2 * 32) + 32 * 10)),
    ],
)
def test_counts_by_hand(model, settings, expected):
    net = model(input_shape=(1, 40), classes=10, **settings)
    assert of(net, (1, 40)) == of(net, (1, 40), n=1) == expected


@pytest.mark.oracle("flops")
def test_images():
    """ResNet-18 of one channel: on 8 × 8, 4 × 4, 2 × 2 and one point."""
    net = ResNet18(input_shape=(1, 8, 8), classes=10, width=1)
    first = 64 * 9 * (1 + 4)  # the stem, four convolutions
    others = sum(side**2 * w * (9 * (w / 2 + 3 * w) + w / 2) for side, w in ((4, 2), (2, 4), (1, 8)))
    assert of(net, (1, 8, 8)) == 2 * (first + others + 8 * 10)


def test_the_members_of_an_ensemble_cost_what_one_does():
    nets = [MLP(input_shape=(1, 40), classes=10) for _ in range(3)]
    assert of(Ensemble(nets), (1, 40)) == of(nets[0], (1, 40))
