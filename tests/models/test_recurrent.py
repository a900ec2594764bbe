"""LSTM and plain recurrent networks against their equations, alone and in a pack."""

from functools import partial

import pytest
import torch
from torch import nn

from genbench.models.lstm import LSTM
from genbench.models.rnn import RNN
from genbench.training.stack import Lanewise


@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("unit", [nn.LSTM, nn.RNN, partial(nn.RNN, nonlinearity="relu")])
def test_a_recurrence_written_out_is_torchs(unit, settings, batch_first):
    torch.manual_seed(0)
    rnn = unit(3, 4, batch_first=batch_first, **settings).double()
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    with Lanewise():
        ours = rnn(x)
    torch.testing.assert_close(ours, rnn(x))


def made(model, **settings):
    torch.manual_seed(0)
    return model(input_shape=(2, 5), classes=4, width=3, bidirectional=False, **settings).double()


def test_an_lstm_follows_its_equations():
    net, x = made(LSTM), torch.randn(6, 2, 5, dtype=torch.float64)
    w, u, b, d = (p.detach() for p in net.layers[0].rnn.parameters())
    h = c = torch.zeros(6, 3, dtype=torch.float64)
    outputs = []
    for t in range(5):
        enter, forget, new, leave = (x[:, :, t] @ w.T + b + h @ u.T + d).chunk(4, 1)
        c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
        h = leave.sigmoid() * c.tanh()
        outputs.append(h)
    torch.testing.assert_close(net.features(x), torch.cat(outputs, 1))


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_a_plain_recurrence_follows_its_equation(name):
    net, x = made(RNN, activation=name), torch.randn(6, 2, 5, dtype=torch.float64)
    w, u, b, d = (p.detach() for p in net.layers[0].rnn.parameters())
    h, outputs = torch.zeros(6, 3, dtype=torch.float64), []
    for t in range(5):
        h = getattr(torch, name)(x[:, :, t] @ w.T + b + h @ u.T + d)
        outputs.append(h)
    torch.testing.assert_close(net.features(x), torch.cat(outputs, 1))


def test_another_activation_is_refused():
    with pytest.raises(ValueError, match=r"model\.activation is 'gelu'; accepted: tanh, relu"):
        made(RNN, activation="gelu")
