"""What a snapshot offers beyond the Hessian: Gauss–Newton, layers, representations, per-example gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import genbench.measures.evaluation as evaluation
import genbench.measures.example_gradients as example_gradients
import genbench.measures.operators as module
from genbench.measures import Snapshot, hessian_eigenvalues, l2_norm
from tests.helpers.networks import NETS, build, dense_gauss_newton, dense_hessian


@pytest.mark.parametrize("name", NETS)
def test_gauss_newton_against_the_dense_matrix(name):
    net, x, y = build(name)
    g = dense_gauss_newton(net, x, y)
    v = torch.randn(len(g), dtype=torch.float64)
    for batches in ([(x, y)], [(x[:10], y[:10]), (x[10:], y[10:])]):
        snapshot = Snapshot(net, F.cross_entropy, batches)
        for _ in range(2):  # with and without kept graphs
            torch.testing.assert_close(snapshot.gauss_newton.matvec(v), g @ v, rtol=1e-9, atol=1e-12)


def test_gauss_newton_of_other_losses():
    net, x, y = build("mlp")
    target = F.one_hot(y, 3).double()
    for loss in (F.mse_loss, F.binary_cross_entropy_with_logits, lambda f, t: (f - t).abs().pow(3).mean()):
        g = dense_gauss_newton(net, x, target, loss)
        v = torch.randn(len(g), dtype=torch.float64)
        snapshot = Snapshot(net, loss, [(x, target)])
        torch.testing.assert_close(snapshot.gauss_newton.matvec(v), g @ v, rtol=1e-9, atol=1e-12)
    linear = Snapshot(net, lambda f, t: (f * t).mean(), [(x, target)])
    assert not linear.gauss_newton.matvec(v).any()


def test_outputs_of_several_parts():
    net, x, y = build("mlp")
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    parts = Snapshot(
        net,
        lambda out, t: F.cross_entropy(torch.cat([out["first"], out["rest"]], 1), t),
        [(x, y)],
        forward=lambda m, b: ({"first": m(b[0])[:, :1], "rest": m(b[0])[:, 1:]}, b[1]),
    )
    v = torch.randn(whole.size, dtype=torch.float64)
    torch.testing.assert_close(parts.gauss_newton.matvec(v), whole.gauss_newton.matvec(v))
    assert parts.mean_loss == pytest.approx(whole.mean_loss)


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_what_is_kept_changes_nothing(monkeypatch, kept):
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    v = torch.randn(snapshot.size, dtype=torch.float64)
    expected = snapshot.hessian.matvec(v)
    each = snapshot.shared("graphs of hessian", module._Kept).each  # bytes of an example
    monkeypatch.setattr(evaluation, "room", lambda _device: 4 * each * (5 * kept + 3) if kept else 0)
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(5), y.split(5), strict=True)))
    first, second = parts.hessian.matvec(v), parts.hessian.matvec(v)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(first, expected, rtol=1e-10, atol=1e-13)
    held = parts.shared("graphs of hessian", module._Kept)
    assert held.complete == (kept == 5)
    assert bool(held.graphs) == bool(kept)
    assert held.held <= held.room


def test_outputs_are_kept_once_asked_for_and_dropped_beyond_a_bound(monkeypatch):
    net, x, y = build("mlp", n=100)
    calls = []
    # passes over fewer show how the network and the loss treat the examples
    net.register_forward_hook(lambda _module, args, _output: calls.append(1) if len(args[0]) == 100 else None)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert snapshot.examples == len(snapshot.predictions[0][1]) == 100
    assert len(calls) == 1
    monkeypatch.setattr(evaluation, "_OUTPUTS", 0)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert snapshot.mean_loss
    assert "predictions" not in snapshot._shared
    assert len(snapshot.predictions) == 1
    assert len(calls) == 3


@pytest.mark.parametrize("name", NETS)
def test_a_selected_layer_is_a_block_of_the_whole(name):
    net, x, y = build(name)
    h = dense_hessian(net, x, y)
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    start = 0
    for key, p in whole.parameters.items():
        block = h[start : start + p.numel(), start : start + p.numel()]
        part = whole.select(key)
        assert part.size == p.numel()
        v = torch.randn(p.numel(), dtype=torch.float64)
        torch.testing.assert_close(part.hessian.matvec(v), block @ v, rtol=1e-9, atol=1e-12)
        assert l2_norm(part)["l2"].value == pytest.approx(float(p.norm()))
        start += p.numel()


def test_selection_by_module_and_misspelt():
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    part = snapshot.select("0", "6.bias")
    assert list(part.parameters) == ["0.weight", "6.bias"]
    assert part.mean_loss == snapshot.mean_loss
    assert snapshot.size > part.size == 18 + 3
    assert hessian_eigenvalues(part)["lambda_1"].value <= hessian_eigenvalues(snapshot)["lambda_1"].value + 1e-9
    with pytest.raises(ValueError, match=r"no trainable parameter or layer '6.weigth'; did you mean '6.weight'"):
        snapshot.select("6.weigth")
    with pytest.raises(ValueError, match="no parameters are selected"):
        snapshot.select()


def test_representations_are_what_layers_are_given():
    net, x, y = build("mlp")
    found = Snapshot(net, F.cross_entropy, [(x[:9], y[:9]), (x[9:], y[9:])]).representations
    assert list(found) == ["0", "2", "4", "output"]
    torch.testing.assert_close(found["0"], x)
    torch.testing.assert_close(found["2"], net[1](net[0](x)).detach())
    torch.testing.assert_close(found["4"], net[:4](x).detach())
    torch.testing.assert_close(found["output"], net(x).detach())


@pytest.mark.parametrize("name", NETS)
def test_representations_of_every_net(name):
    net, x, y = build(name)
    found = Snapshot(net, F.cross_entropy, [(x, y)]).representations
    assert all(len(t) == 24 for t in found.values())
    assert list(found)[-1] == "output"
    torch.testing.assert_close(next(iter(found.values())), x)
    assert not any(m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("name", NETS)
def test_example_gradients(name, monkeypatch):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])])
    monkeypatch.setattr(example_gradients, "_ENTRIES", 7 * snapshot.size)
    each = torch.cat(list(snapshot.example_gradients()))
    assert each.shape == (24, snapshot.size)
    _, mean = snapshot.gradient_at(snapshot.vector)
    torch.testing.assert_close(each.mean(0), mean, rtol=1e-9, atol=1e-12)
    one = Snapshot(net, F.cross_entropy, [(x[11:12], y[11:12])])
    torch.testing.assert_close(each[11], one.gradient_at(one.vector)[1], rtol=1e-9, atol=1e-12)


def test_example_gradients_of_recurrent_layers_are_batched(monkeypatch):
    net, x, y = build("gru")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    calls = []
    run = snapshot.run
    monkeypatch.setattr(snapshot, "run", lambda *args, **settings: calls.append(1) or run(*args, **settings))
    assert len(next(snapshot.example_gradients())) == 24
    assert len(calls) < 10  # not one by one


def test_example_gradients_where_vmap_cannot_go():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else self.layer(2 * x)

    _, x, y = build("mlp")
    net = Branches().double()
    snapshot = Snapshot(net, F.cross_entropy, [(x[i : i + 1], y[i : i + 1]) for i in range(6)])
    each = torch.cat(list(snapshot.example_gradients()))
    torch.testing.assert_close(each.mean(0), snapshot.gradient_at(snapshot.vector)[1])


def test_example_gradients_need_a_mean_over_examples():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, lambda f, t: F.cross_entropy(f, t).square(), [(x, y)])
    with pytest.raises(ValueError, match="the mean over its examples"):
        list(snapshot.example_gradients())
