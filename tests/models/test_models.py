import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from genbench.models import CNN, GRU, MLP, Dropout, Ensemble, Linear, use_draw
from genbench.models.base import ACTIVATIONS
from genbench.models.lstm import LSTM
from genbench.models.recurrent import Recurrent
from genbench.models.rnn import RNN

SHAPES = {"mnist1d": (1, 40), "digits": (1, 8, 8)}
MODELS = [Linear, MLP, CNN, GRU, LSTM, RNN]


def make(model, shape=(1, 40), seed=0, **settings):
    torch.manual_seed(seed)
    return model(input_shape=shape, classes=10, **settings)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("model", "parameters"), [(Linear, 410), (MLP, 15_210), (CNN, 5_210), (GRU, 5_134), (LSTM, 5_242), (RNN, 4_918)]
)
def test_parameter_counts_on_mnist1d(model, parameters):
    assert count(make(model)) == parameters


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_logits_on_both_data_sets(model, shape):
    net = make(model, shape)
    x = torch.randn(5, *shape)
    assert net(x).shape == (5, 10)
    assert torch.equal(net(x), net.head(net.features(x)))
    assert torch.allclose(net(x)[2:3], net(x[2:3]), atol=1e-6)  # no example sees another


def test_mlp_is_the_composition_it_says():
    net, x = make(MLP), torch.randn(3, 1, 40)
    w1, b1, w2, b2, w3, b3 = net.parameters()
    h = (x.flatten(1) @ w1.T + b1).relu()
    assert torch.allclose(net(x), (h @ w2.T + b2).relu() @ w3.T + b3, atol=1e-6)
    residual = make(MLP, residual=True)
    assert torch.allclose(residual(x), (h + (h @ w2.T + b2).relu()) @ w3.T + b3, atol=1e-6)


def test_hidden_layers_of_several_widths():
    net, x = make(MLP, width=[7, 3], depth=2), torch.randn(3, 1, 40)
    w1, b1, w2, b2, w3, b3 = net.parameters()
    assert [tuple(w.shape) for w in (w1, w2, w3)] == [(7, 40), (3, 7), (10, 3)]
    h = (x.flatten(1) @ w1.T + b1).relu()
    assert torch.allclose(net(x), (h @ w2.T + b2).relu() @ w3.T + b3, atol=1e-6)


def test_cnn_is_the_reference():
    net, x = make(CNN), torch.randn(3, 1, 40)
    w1, b1, w2, b2, w3, b3, w, b = net.parameters()
    h = F.conv1d(x, w1, b1, stride=2, padding=1).relu()
    h = F.conv1d(h, w2, b2, stride=2, padding=1).relu()
    h = F.conv1d(h, w3, b3, stride=2, padding=1).relu()
    assert h.shape == (3, 25, 5)
    assert torch.allclose(net(x), h.flatten(1) @ w.T + b, atol=1e-6)


def test_gru_is_the_reference():
    net, x = make(GRU), torch.randn(3, 1, 40)
    outputs, _ = net.layers[0].rnn(x.view(3, 40, 1))
    assert torch.equal(net(x), net.head(outputs.reshape(3, -1)))


def test_gru_reads_images_row_by_row():
    net, x = make(GRU, (2, 3, 5)), torch.randn(4, 2, 3, 5)
    steps = torch.stack([x[:, :, row].flatten(1) for row in range(3)], dim=1)
    outputs, _ = net.layers[0].rnn(steps)
    assert torch.allclose(net(x), net.head(outputs.flatten(1)), atol=1e-6)


@pytest.mark.parametrize("model", [MLP, CNN, GRU, LSTM, RNN])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_settings_reach_the_network(model, shape):
    net = make(model, shape, width=7, depth=4, normalization="batch_norm", dropout=0.25)
    assert net(torch.randn(6, *shape)).shape == (6, 10)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    drops = [m for m in net.modules() if isinstance(m, Dropout)]
    assert len(norms) == len(drops) == 4
    assert all(drop.p == 0.25 and drop.active for drop in drops)
    assert {norm.num_features for norm in norms} == {14 if issubclass(model, Recurrent) else 7}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    net, x = make(MLP, depth=1, activation=name), torch.randn(3, 1, 40)
    function = {"identity": lambda h: h, "tanh": torch.tanh, "sigmoid": torch.sigmoid}.get(name) or getattr(F, name)
    linear = net.layers[0][0]
    assert torch.allclose(net.features(x), function(linear(x.flatten(1))))


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (MLP, {"width": 0}, "model.width is 0; accepted: an integer of at least 1"),
        (MLP, {"depth": -1}, "model.depth is -1"),
        (MLP, {"width": [7, 3], "depth": 3}, r"model.width is \[7, 3\]; accepted with model.depth=3: .* a list of 3"),
        (MLP, {"width": [7, 0]}, r"model.width\[1\] is 0; accepted: an integer of at least 1"),
        (
            MLP,
            {"width": [7, 3], "residual": True},
            r"model.width is \[7, 3\]; accepted with model.residual .* one width",
        ),
        (CNN, {"width": "wide"}, "model.width is 'wide'"),
        (GRU, {"depth": 1.5}, "model.depth is 1.5"),
        (GRU, {"bidirectional": "no"}, "model.bidirectional is 'no'; accepted: true, false"),
        (MLP, {"activation": "sine"}, "model.activation is 'sine'; accepted: relu, leaky_relu"),
        (CNN, {"normalization": "batchnorm"}, "model.normalization is 'batchnorm'; accepted: none, batch_norm"),
        (CNN, {"dropout": 1.0}, r"model.dropout is 1.0; accepted: a number in \[0, 1\)"),
        (CNN, {"shape": (1, 2)}, r"CNN does not fit an input of shape \(1, 2\); accepted: .* at least 3 points"),
        (CNN, {"shape": (40,)}, r"CNN does not fit an input of shape \(40,\)"),
        (GRU, {"shape": (40,)}, r"GRU does not fit an input of shape \(40,\)"),
    ],
)
def test_bad_settings_are_refused_in_one_line(model, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        make(model, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", MODELS)
def test_an_input_of_another_shape_is_refused_with_both_shapes(model):
    with pytest.raises(ValueError, match=r"given an input of shape \(5, 1, 41\); accepted: \(batch, 1, 40\)"):
        make(model)(torch.randn(5, 1, 41))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("norm", ["none", "batch_norm"])
@pytest.mark.parametrize("model", MODELS)
def test_stacked_networks_are_the_separate_ones(model, shape, norm):
    """Outputs, gradients and batch statistics of lanes under vmap, in training mode."""
    settings = {} if model is Linear else {"normalization": norm, "depth": 2}
    nets = [make(model, shape, seed, **settings).double() for seed in range(3)]
    x, y = torch.randn(3, 8, *shape, dtype=torch.float64), torch.randint(10, (3, 8))
    params, buffers = stack_module_state(nets)
    base = copy.deepcopy(nets[0])

    def loss(params, buffers, x, y):
        return F.cross_entropy(functional_call(base, (params, buffers), (x,)), y)

    grads = vmap(grad(loss))(params, buffers, x, y)
    for lane, net in enumerate(nets):
        F.cross_entropy(net(x[lane]), y[lane]).backward()
        for name, p in net.named_parameters():
            assert torch.allclose(grads[name][lane], p.grad, rtol=1e-9, atol=1e-12), name
        for name, buffer in net.named_buffers():
            assert torch.allclose(buffers[name][lane].double(), buffer.double(), rtol=1e-9), name


def test_ensemble_averages_probabilities_and_is_stable():
    nets = [make(MLP, seed=seed) for seed in range(3)]
    x = torch.randn(5, 1, 40)
    mean = torch.stack([net(x).softmax(1) for net in nets]).mean(0)
    ensemble = Ensemble(nets)
    assert torch.allclose(ensemble(x).exp(), mean, atol=1e-6)
    assert len(ensemble.members) == 3
    for net in nets:
        net.head.weight.data *= 1e4
    assert torch.isfinite(ensemble(x)).all()
    assert torch.allclose(Ensemble(nets[:1])(x), nets[0](x).log_softmax(1))


def test_an_ensemble_of_nothing_is_refused():
    with pytest.raises(ValueError, match="Ensemble was given 0 members; accepted: at least 1"):
        Ensemble([])


def test_weights_survive_a_checkpoint_and_a_deep_copy():
    net = make(CNN, dropout=0.3)
    use_draw(net, None)
    copied, fresh = copy.deepcopy(net), make(CNN, seed=1, dropout=0.3)
    fresh.load_state_dict(net.state_dict())
    x = torch.randn(4, 1, 40)
    assert torch.equal(net.eval()(x), copied.eval()(x))
    assert torch.equal(net(x), fresh.eval()(x))
