"""Bias and variance of linear regression in closed form, of numbers by hand, and of nested random effects."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from genbench.analysis.bias_variance import bias_variance


def values(found):
    return {name: estimate.value for name, estimate in found.items()}


def test_three_runs_and_two_examples_by_hand():
    found = bias_variance([[1.0, 0], [3, 0], [5, 3]], [2.0, 1])
    # variances 4 and 3 of the three, risks (1 + 1 + 9)/3 and (1 + 1 + 4)/3
    assert values(found) == pytest.approx(
        {"risk": (11 / 3 + 2) / 2, "bias2": (11 / 3 - 4 + 2 - 3) / 2, "variance": 3.5}
    )


@pytest.mark.parametrize("penalty", [0.0, 5.0])
def test_ridge_regression_has_its_closed_form(penalty):
    """A fixed design, fresh noise in each run: bias² = (λ xᵀA⁻¹β)² and variance = σ² xᵀA⁻¹XᵀXA⁻¹x, A = XᵀX + λ."""
    random = np.random.default_rng(0)
    design, beta, sigma = random.normal(size=(30, 4)), random.normal(size=4), 0.7
    test = random.normal(size=(200, 4))
    inverse = np.linalg.inv(design.T @ design + penalty * np.eye(4))
    noise = sigma * random.normal(size=(400, 30))
    fitted = (inverse @ design.T @ (design @ beta + noise).T).T  # [runs, 4]
    found = bias_variance(fitted @ test.T, test @ beta)
    bias = (penalty * test @ inverse @ beta) ** 2
    variance = sigma**2 * np.einsum("ni,ij,nj->n", test, inverse @ design.T @ design @ inverse, test)
    expected = {"risk": bias + variance, "bias2": bias, "variance": variance}
    for name, each in expected.items():
        # of the runs alone, as the examples are those of the closed form
        runs = math.sqrt(found[name].stderr ** 2 - each.var(ddof=1) / 200)
        assert abs(found[name].value - each.mean()) < 4 * runs + 1e-12, name
        assert found[name].value == pytest.approx(each.mean(), abs=0.1 * variance.mean())
    if penalty:
        assert found["bias2"].value > 3 * found["bias2"].stderr


def test_the_squared_loss_is_that_of_the_authors_code():
    random = np.random.default_rng(1)
    p, labels = softmax(random.normal(size=(6, 50, 4)), -1), random.integers(4, size=50)
    t = np.eye(4)[labels]
    variance = ((p**2).sum(-1).mean(0) - (p.mean(0) ** 2).sum(-1)).mean() * 6 / 5
    risk = ((p - t) ** 2).sum(-1).mean()
    expected = {"risk": risk, "bias2": risk - variance, "variance": variance}
    assert values(bias_variance(p, labels)) == pytest.approx(expected)
    assert values(bias_variance(p, t)) == pytest.approx(expected)


def test_the_cross_entropy_of_the_geometric_mean_by_hand():
    random = np.random.default_rng(2)
    log_p, labels = log_softmax(2 * random.normal(size=(5, 40, 3)), -1), random.integers(3, size=40)
    centre = log_p.mean(0) - logsumexp(log_p.mean(0), -1, keepdims=True)
    rows = np.arange(40)
    divergence = np.mean([(np.exp(centre) * (centre - each)).sum(-1) for each in log_p], 0)
    bias = -centre[rows, labels]
    risk = -log_p[:, rows, labels].mean()
    assert risk == pytest.approx((bias + divergence).mean())  # the decomposition is exact
    found = values(bias_variance(log_p, labels, loss="cross_entropy"))
    variance = 5 / 4 * divergence.mean()
    assert found == pytest.approx({"risk": risk, "bias2": risk - variance, "variance": variance})


def test_few_runs_estimate_the_cross_entropys_parts_of_many():
    random = np.random.default_rng(3)
    logits, labels = random.normal(size=(60, 4)), random.integers(4, size=60)

    def runs(count):
        return log_softmax(logits + 0.4 * random.normal(size=(count, 60, 4)), -1)

    exact = values(bias_variance(runs(5000), labels, loss="cross_entropy"))
    few = [values(bias_variance(runs(4), labels, loss="cross_entropy")) for _ in range(300)]
    for name in ("bias2", "variance"):
        mean, spread = np.mean([each[name] for each in few]), np.std([each[name] for each in few])
        assert mean == pytest.approx(exact[name], abs=4 * spread / 300**0.5 + 0.03 * exact["variance"])
    plain = np.mean([each["variance"] for each in few]) * 3 / 4
    assert plain < 0.85 * exact["variance"]  # without M / (M − 1)


@pytest.mark.parametrize("sizes", [(4,) * 30, (2, 3, 4, 5, 6) * 8])
def test_seeds_and_subsets_of_nested_effects(sizes):
    """Run j of subset i predicts 1 + aᵢ + eᵢⱼ, a of variance 2, e of variance 0.5; the target is 0."""
    random = np.random.default_rng(4)
    subsets = [i for i, m in enumerate(sizes) for _ in range(m)]
    own = math.sqrt(2) * random.normal(size=(len(sizes), 500))
    p = 1 + own[subsets] + math.sqrt(0.5) * random.normal(size=(len(subsets), 500))
    found = bias_variance(p, np.zeros(500), subsets=subsets)
    expected = {"risk": 3.5, "bias2": 1, "variance": 2.5, "variance_subsets": 2, "variance_seeds": 0.5}
    for name, value in expected.items():
        assert abs(found[name].value - value) < 4 * found[name].stderr, name
        assert found[name].stderr < 0.2
    parts = values(found)
    assert parts["variance"] == pytest.approx(parts["variance_subsets"] + parts["variance_seeds"])
    assert parts["risk"] == pytest.approx(parts["bias2"] + parts["variance"])


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_parts_add_up_and_the_order_of_runs_and_examples_does_not_matter(loss):
    random = np.random.default_rng(5)
    log_p, labels = log_softmax(random.normal(size=(9, 20, 3)), -1), random.integers(3, size=20)
    p = log_p if loss == "cross_entropy" else np.exp(log_p)
    subsets = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    found = bias_variance(p, labels, loss=loss, subsets=subsets.tolist())
    parts = values(found)
    assert parts["risk"] == pytest.approx(parts["bias2"] + parts["variance_subsets"] + parts["variance_seeds"])
    runs, rows = random.permutation(9), random.permutation(20)
    names = [f"data {i}" for i in subsets[runs]]
    again = bias_variance(p[runs][:, rows], labels[rows], loss=loss, subsets=names)
    assert {k: (e.value, e.stderr) for k, e in again.items()} == {
        k: pytest.approx((e.value, e.stderr)) for k, e in found.items()
    }
    same = bias_variance(np.stack([p[0]] * 4), labels, loss=loss)
    assert same["variance"].value == pytest.approx(0, abs=1e-12)
    assert same["bias2"].value == pytest.approx(same["risk"].value)


def test_the_error_is_the_spread_over_runs_and_examples():
    random = np.random.default_rng(6)
    found = []
    for _ in range(300):
        centre = random.normal(size=40)
        shared = random.normal(size=(6, 1))  # a run is high or low on all examples
        found.append(bias_variance(centre + shared + 0.3 * random.normal(size=(6, 40)), np.zeros(40)))
    for name in ("risk", "variance"):
        spread = np.std([each[name].value for each in found], ddof=1)
        errors = np.sqrt(np.mean([each[name].stderr ** 2 for each in found]))
        assert 0.8 < errors / spread < 1.6, name


def test_too_few_runs():
    p, t = np.random.default_rng(7).normal(size=(4, 10)), np.zeros(10)
    two = bias_variance(p[:2], t)
    assert two["variance"].stderr is None
    assert two["variance"].note == "of 2 runs or subsets, too few for a standard error"
    assert bias_variance(p[:3], t)["variance"].stderr > 0
    one = bias_variance(p, t, subsets=[5, 5, 5, 5])
    assert one["variance"].value == one["variance_seeds"].value == pytest.approx(p.var(0, ddof=1).mean())
    assert one["bias2"].note == "of one subset: variance over the seeds alone"
    assert one["variance_subsets"].note == "undefined: it needs several subsets, and several runs of a subset"
    apart = bias_variance(p, t, subsets=[1, 2, 3, 4])
    assert apart["variance"].value == bias_variance(p, t)["variance"].value
    assert apart["variance_seeds"].value is None
    assert apart["variance_subsets"].value is None
    assert apart["variance"].note is None


def test_bad_input():
    p = np.zeros((3, 10))
    with pytest.raises(ValueError, match=r"^predictions are of 1 runs; accepted: at least 2$"):
        bias_variance(p[:1], np.zeros(10))
    with pytest.raises(ValueError, match=r"^subsets has 2 entries; accepted: one for each of 3 runs$"):
        bias_variance(p, np.zeros(10), subsets=[1, 2])
    with pytest.raises(ValueError, match=r"^loss is 'absolute'; accepted: squared, cross_entropy$"):
        bias_variance(p, np.zeros(10), loss="absolute")
    with pytest.raises(ValueError, match=r"predictions have shape \(3, 10\), targets .* accepted: "):
        bias_variance(p, np.zeros(9))
    with pytest.raises(ValueError, match=r"accepted: .*runs, examples, classes. and integer"):
        bias_variance(p, np.zeros(10, dtype=int), loss="cross_entropy")
    three = np.zeros((3, 10, 4))
    with pytest.raises(ValueError, match=r"^labels lie in \[0, 4\]; accepted: 0 to 3$"):
        bias_variance(three, np.arange(10) % 5)
    with pytest.raises(ValueError, match=r"^targets have shape \(10, 3\); accepted: \(10, 4\)"):
        bias_variance(three, np.zeros((10, 3)))
    wrong = three.copy()
    wrong[0, 0, 0] = np.nan
    for loss in ("squared", "cross_entropy"):
        found = bias_variance(wrong, np.arange(10) % 4, loss=loss, subsets=[1, 1, 2])
        assert {e.note for e in found.values()} == {"undefined: a prediction is not finite"}
        assert len(found) == 5
    wrong[0, 0, 0] = -np.inf
    note = bias_variance(wrong, np.arange(10) % 4, loss="cross_entropy")["variance"].note
    assert note == "undefined: a run gives a class the probability 0"
    with pytest.raises(ValueError, match=r"^exponentials of predictions sum to 2.7\d+; accepted: 1, as log-prob"):
        bias_variance(np.full((3, 10, 3), -0.1), np.arange(10) % 3, loss="cross_entropy")
    probabilities = np.random.default_rng(8).dirichlet(np.ones(3), (4, 10))
    with pytest.raises(ValueError, match=r"accepted: 1, as log-probabilities do$"):
        bias_variance(probabilities, np.arange(10) % 3, loss="cross_entropy")
    with pytest.raises(ValueError, match=r"^predictions are of type complex128; accepted: real numbers$"):
        bias_variance(p * 1j, np.zeros(10))
    with pytest.raises(ValueError, match=r"^targets are of type object; accepted: real numbers$"):
        bias_variance(p, np.array([None] * 10))
    with pytest.raises(ValueError, match=r"^predictions are no array; accepted: rows of equal length$"):
        bias_variance([[1.0, 2.0], [1.0]], np.zeros(2))
    with pytest.raises(ValueError, match=r"^subsets has \[1\]; accepted: numbers or texts$"):
        bias_variance(p, np.zeros(10), subsets=[[1], [1], [2]])
    for target in (np.nan, np.inf):
        found = bias_variance(p, np.full(10, target))
        assert {e.note for e in found.values()} == {"undefined: a target is not finite"}
