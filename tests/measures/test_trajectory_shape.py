"""Minimum spanning trees of known points, dimensions of known sets, and what a sketch preserves."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from genbench.measures.trajectory_shape import Sketch, homology_dimension, lifetime_sum, lifetimes


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_lifetimes_of_small_sets():
    line = torch.tensor([[0.0], [1], [3], [7]], dtype=torch.float64)[torch.tensor([2, 0, 3, 1])]
    assert lifetimes(line).tolist() == pytest.approx([1, 2, 4])
    square = torch.tensor([[0.0, 0], [0, 2], [2, 0], [2, 2]], dtype=torch.float64)
    assert lifetimes(square).tolist() == pytest.approx([2, 2, 2])
    star = torch.cat([torch.zeros(1, 5), 3 * torch.eye(5)]).double()  # the corners are 3√2 apart
    assert lifetimes(star).tolist() == pytest.approx([3] * 5)
    for alpha in (0.5, 1, 2):
        assert lifetime_sum(line, alpha=alpha).value == pytest.approx(1 + 2**alpha + 4**alpha)
    twice = torch.cat([line, line])
    assert lifetime_sum(twice).value == pytest.approx(7)  # copies have lifetimes of zero
    assert lifetimes(twice).tolist() == pytest.approx([0] * 4 + [1, 2, 4], abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (40, 2), (90, 7), (60, 300)])
def test_the_tree_is_scipys(n, d):
    x = rand(n, d, seed=n)
    tree = minimum_spanning_tree(squareform(pdist(x.numpy()))).data
    np.testing.assert_allclose(lifetimes(x).numpy(), np.sort(tree), rtol=1e-9)
    assert lifetime_sum(x, alpha=0.7).value == pytest.approx(float((tree**0.7).sum()), rel=1e-9)


def test_small_steps_far_from_the_origin_keep_their_lengths():
    steps = 1e-5 * rand(30, 400)
    far = 100 * rand(1, 400, seed=1) + steps.cumsum(0)
    assert lifetime_sum(far).value == pytest.approx(lifetime_sum(steps.cumsum(0)).value, rel=1e-6)


@pytest.mark.parametrize(("d", "bias"), [(1, 0.01), (2, 0.08), (3, 0.2)])
def test_uniform_points_in_a_cube_have_its_dimension(d, bias):
    """Within the standard error and the bias of the boundary that the docstring states."""
    for seed in range(3):
        x = rand(1000, d, seed=seed)
        inside = torch.cat([x, torch.zeros(1000, 5 - d)], 1) @ torch.linalg.qr(torch.randn(5, 5).double())[0]
        found = homology_dimension(inside, seed=seed)
        assert abs(found.value - d) < 4 * found.stderr + bias, (seed, found)
        assert 0 < found.stderr < 0.2


def test_without_a_boundary_there_is_no_such_bias():
    """A torus of three dimensions, flat in six."""
    values = []
    for seed in range(3):
        angles = 2 * math.pi * rand(1000, 3, seed=seed)
        found = homology_dimension(torch.cat([angles.cos(), angles.sin()], 1), seed=seed)
        assert abs(found.value - 3) < 4 * found.stderr
        values.append(found)
    error = math.sqrt(sum(e.stderr**2 for e in values)) / 3
    assert abs(sum(e.value for e in values) / 3 - 3) < 3 * error < 0.5


def test_the_error_is_that_over_samples_and_not_much_more():
    found = [homology_dimension(rand(300, 2, seed=seed), seed=seed) for seed in range(40)]
    spread = np.std([e.value for e in found], ddof=1)
    assert 0.7 < np.sqrt(np.mean([e.stderr**2 for e in found])) / spread < 2


def test_other_powers_and_what_leaves_the_dimension_unchanged():
    x = rand(400, 2)
    known = homology_dimension(x)
    assert homology_dimension(x, alpha=0.5).value == pytest.approx(2, abs=0.3)
    rotation = torch.linalg.qr(torch.randn(2, 2).double())[0]
    moved = homology_dimension(7 * x @ rotation + 3)
    assert (moved.value, moved.stderr) == pytest.approx((known.value, known.stderr), rel=1e-6)
    again = homology_dimension(torch.cat([x, x[:100]]))  # copies do not count
    assert (again.value, again.stderr) == pytest.approx((known.value, known.stderr), rel=1e-6)
    assert homology_dimension(x, seed=1).value != known.value
    assert lifetime_sum(7 * x).value == pytest.approx(7 * lifetime_sum(x).value, rel=1e-9)


@pytest.mark.parametrize(("size", "width"), [(1000, 64), (1003, 64), (70, 64), (64, 64)])
def test_a_sketch_preserves_distances(size, width):
    torch.manual_seed(size)
    vectors = torch.randn(5, size, dtype=torch.float64)
    vectors[0] = torch.eye(size)[3]  # a single weight is kept exactly
    vectors[1, 10:] = 0
    errors = []
    for seed in range(300):
        sketch = Sketch(size, width, seed=seed, device=torch.device("cpu"))
        small = torch.stack([sketch(v) for v in vectors])
        assert small.shape == (5, width)
        assert float(small[0].norm()) == pytest.approx(1)
        errors.append(small.square().sum(1) / vectors.square().sum(1) - 1)
    errors = torch.stack(errors)
    bound = (2 / width) ** 0.5
    assert (errors.mean(0).abs() <= 4 * bound / 300**0.5 + 1e-9).all()
    assert (errors.std(0) <= 1.15 * bound).all()
    one, same = (Sketch(size, width, seed=5, device=torch.device("cpu"))(vectors[2]) for _ in range(2))
    assert torch.equal(one, same)
    sketch = Sketch(size, width, seed=0, device=torch.device("cpu"))
    assert torch.allclose(sketch(vectors[1] - 2 * vectors[2]), sketch(vectors[1]) - 2 * sketch(vectors[2]))


def test_undefined():
    assert homology_dimension(rand(49, 2)).note == "undefined: 49 different weights, at least 50 are needed"
    assert homology_dimension(torch.ones(200, 3)).note == "undefined: 1 different weights, at least 50 are needed"
    assert lifetime_sum(torch.ones(200, 3)).note == "undefined: 1 different weights, at least 2 are needed"
    assert lifetime_sum(torch.empty(0, 3)).value is None
    wrong = rand(60, 2)
    wrong[3, 1] = float("nan")
    for function in (homology_dimension, lifetime_sum):
        assert function(wrong).note == "undefined: weights are not finite"
        with pytest.raises(ValueError, match=r"^alpha is 0; accepted: a number in \(0, inf\)$"):
            function(rand(60, 2), alpha=0)
    # a tree joins them by ever longer edges
    growing = torch.tensor([[3.0**k] for k in range(60)], dtype=torch.float64)
    assert homology_dimension(growing).note.startswith("undefined: the lifetime sum grows as the number")
