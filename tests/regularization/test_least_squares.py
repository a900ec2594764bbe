"""A last layer fitted by least squares."""

import numpy as np
import pytest
import torch
from torch import nn

from genbench.models import MLP, RandomFeatures
from genbench.regularization import LeastSquares
from genbench.regularization.least_squares import least_squares
from genbench.runs import execute


def problem(n, width, classes=3, seed=0):
    torch.manual_seed(seed)
    features = torch.randn(n, width, dtype=torch.float64)
    return features, nn.functional.one_hot(torch.randint(classes, (n,)), classes).double()


@pytest.mark.parametrize(("n", "width"), [(30, 7), (20, 20), (9, 40)])
def test_it_is_the_pseudoinverse(n, width):
    features, targets = problem(n, width)
    expected = np.linalg.pinv(features.numpy()) @ targets.numpy()
    assert np.allclose(least_squares(features, targets).numpy(), expected, rtol=1e-8, atol=1e-10)


def test_features_of_low_rank_have_the_fit_of_minimum_norm():
    features, targets = problem(30, 4)
    doubled = torch.cat([features, features], 1)
    half = least_squares(features, targets) / 2
    torch.testing.assert_close(least_squares(doubled, targets), torch.cat([half, half]))


@pytest.mark.parametrize(("n", "width"), [(30, 7), (9, 40)])
def test_with_a_ridge_it_solves_the_normal_equations(n, width):
    features, targets = problem(n, width)
    inner = features.T @ features + 0.3 * torch.eye(width, dtype=torch.float64)
    torch.testing.assert_close(least_squares(features, targets, 0.3), torch.linalg.solve(inner, features.T @ targets))


@pytest.mark.parametrize(("n", "width"), [(30, 7), (12, 40)])
def test_the_chosen_ridge_has_the_smallest_error_of_examples_left_out(n, width):
    """Fitted n times for each penalty, each time without one example."""
    features, targets = problem(n, width)
    largest = float(torch.linalg.matrix_norm(features, 2)) ** 2
    grid, errors = largest * np.logspace(-10, 0, 41), []
    for ridge in grid:
        rest = [[j for j in range(n) if j != i] for i in range(n)]
        out = [features[i] @ least_squares(features[r], targets[r], ridge) - targets[i] for i, r in enumerate(rest)]
        errors.append(float(torch.stack(out).square().sum()))
    best = grid[int(np.argmin(errors))]
    torch.testing.assert_close(least_squares(features, targets, None), least_squares(features, targets, best))


def finished(net, ridge=0.0, n=40):
    torch.manual_seed(1)
    x, y = torch.randn(n, 1, 6), torch.arange(n) % 3
    method = LeastSquares(ridge=ridge)
    return method.finish(method.build(net), [(x[:25], y[:25]), (x[25:], y[25:])]), x, y


def test_the_network_ends_with_the_fit_of_its_own_features_and_interpolates():
    torch.manual_seed(0)
    net = RandomFeatures(input_shape=(1, 6), classes=3, width=100)
    before = net.layer[0].weight.clone()
    trained, x, y = finished(net)
    assert trained is net
    assert torch.equal(net.layer[0].weight, before)
    assert not net.head.bias.any()
    outputs = net(x)
    torch.testing.assert_close(outputs, nn.functional.one_hot(y, 3).float(), atol=1e-3, rtol=0)
    shrunk, *_ = finished(RandomFeatures(input_shape=(1, 6), classes=3, width=100), ridge=1e3)
    assert shrunk.head.weight.norm() < 0.5 * net.head.weight.norm()


def test_dropout_and_batch_norm_are_those_of_evaluation():
    torch.manual_seed(0)
    net = MLP(input_shape=(1, 6), classes=3, width=60, dropout=0.5, normalization="batch_norm")
    _, x, y = finished(net)
    assert net.training
    torch.testing.assert_close(net.eval()(x), nn.functional.one_hot(y, 3).float(), atol=1e-3, rtol=0)


def test_members_that_have_their_own_examples_fit_those(configure, tmp_path):
    """Two networks of one run: each fits its half of the train set and not the other's."""
    config = configure(
        "regularization=[ensemble,least_squares]",
        "regularization.ensemble.members=2",
        "data.parts=2",
        "data.val_fraction=0",
        "model=random_features",
        "model.width=400",
        "model.bandwidth=3",
        "trainer.max_steps=1",
    )
    record = execute.run(config)
    path = tmp_path / "runs" / "default" / record["run_id"] / "weights.pt"
    from genbench.runs import build

    data = build.build_data(config)
    network = build.build_module(config, data).network
    network.load_state_dict(torch.load(path, weights_only=True))
    x, y = data.tensors("train")
    half = len(y) // 2
    with torch.no_grad():
        right = [[float((m(x[p]).argmax(1) == y[p]).float().mean()) for p in (slice(half), slice(half, None))]
                 for m in network.eval().members]  # fmt: skip
    assert right[0][0] == right[1][1] == 1
    assert max(right[0][1], right[1][0]) < 0.9


def test_what_has_no_linear_head_is_refused():
    with pytest.raises(ValueError, match="Sequential has no linear layer head with weights of its own; accepted: a"):
        LeastSquares().build(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match="LeastSquares: ridge is -1; accepted"):
        LeastSquares(ridge=-1)


def test_a_head_whose_weights_are_computed_is_refused():
    net = RandomFeatures(input_shape=(1, 6), classes=3, width=5)
    torch.nn.utils.parametrizations.weight_norm(net.head)
    with pytest.raises(ValueError, match="RandomFeatures has no linear layer head with weights of its own"):
        LeastSquares().build(net)


@pytest.mark.parametrize("ridge", [0.0, 0.3, None])
@pytest.mark.parametrize("width", [0, 5])
def test_features_that_are_all_zero_have_no_weights(width, ridge):
    features, targets = torch.zeros(9, width, dtype=torch.float64), torch.eye(9, dtype=torch.float64)[:, :3]
    assert torch.equal(least_squares(features, targets, ridge), torch.zeros(width, 3, dtype=torch.float64))


def test_targets_of_many_labels_are_refused():
    net = RandomFeatures(input_shape=(1, 6), classes=3, width=5)
    with pytest.raises(ValueError, match="targets are not one label an example"):
        LeastSquares().finish(net, [(torch.randn(4, 1, 6), torch.rand(4, 3))])
