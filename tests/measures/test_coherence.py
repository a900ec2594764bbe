"""Coherence and stiffness against the gradients one by one, closed forms, and the spread over samples."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import genbench.measures.coherence as module
from genbench.callbacks import Measures
from genbench.measures import (
    Snapshot,
    gradient_coherence,
    gradient_noise_scale,
    stiffness,
    train_coherence,
    train_stiffness,
)
from tests.helpers.lightning_projects import Plain, data, fit
from tests.helpers.measured import one_by_one
from tests.helpers.networks import NETS, Vector, build


def of_gradients(g: torch.Tensor, labels: torch.Tensor | None = None) -> Snapshot:
    """A snapshot whose examples have these gradients: ℓᵢ = gᵢ·w, and the labels as targets."""
    net = Vector(torch.zeros(g.shape[1], dtype=torch.float64))
    labels = torch.zeros(len(g), dtype=torch.long) if labels is None else labels
    targets = list(zip(g.split(4), labels.split(4), strict=True))

    class Inputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = net.w

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    return Snapshot(Inputs(), lambda out, _: out.mean(), targets)


def cosines(g: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
    return F.normalize(g) @ F.normalize(g if other is None else other).T


@pytest.mark.oracle("gradient_coherence", "stiffness")
@pytest.mark.parametrize("name", NETS)
def test_all_pairs_of_all_gradients(name):
    net, x, y = build(name)
    g = one_by_one(net, x, y)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:7], y[:7]), (x[7:], y[7:])])
    products, same, off = g @ g.T, y[:, None] == y, ~torch.eye(len(y), dtype=torch.bool)
    power = products.diagonal().mean()
    found = {key: e.value for key, e in gradient_coherence(snapshot).items()}
    assert found["coherence"] == pytest.approx(float(products.mean() / power), rel=1e-9)
    assert found["coherence_within"] == pytest.approx(float(products[same].mean() / power), rel=1e-9)
    assert found["coherence_between"] == pytest.approx(float(products[~same].mean() / power), rel=1e-9)
    assert found["m_coherence"] == pytest.approx(24 / (1 + gradient_noise_scale(snapshot).value), rel=1e-9)
    share = float(same.double().mean())
    parts = share * found["coherence_within"] + (1 - share) * found["coherence_between"]
    assert parts == pytest.approx(found["coherence"], rel=1e-9)

    found = {key: e.value for key, e in stiffness(snapshot).items()}
    for kind, h in (("cosine", cosines(g)), ("sign", cosines(g).sign())):
        of = [[h[(y[:, None] == a) & (y == b) & off].mean() for b in range(3)] for a in range(3)]
        table = torch.tensor(of)
        assert found[f"stiffness_{kind}"] == pytest.approx(float(h[off].mean()), abs=1e-9)
        assert found[f"stiffness_{kind}_within"] == pytest.approx(float(table.diagonal().mean()), abs=1e-9)
        between = table[~torch.eye(3, dtype=torch.bool)].mean()
        assert found[f"stiffness_{kind}_between"] == pytest.approx(float(between), abs=1e-9)


@pytest.mark.oracle("gradient_coherence", "stiffness")
def test_equal_orthogonal_and_opposed_gradients():
    eye = torch.eye(8, dtype=torch.float64)
    for g, m_coherence, cosine in (
        (eye[:1].expand(8, 8), 8.0, 1.0),
        (3 * eye, 1.0, 0.0),
        (torch.cat([eye[:1], -eye[:1]]).repeat(4, 1), 0.0, -1 / 7),
    ):
        snapshot = of_gradients(g)
        assert gradient_coherence(snapshot)["m_coherence"].value == pytest.approx(m_coherence, abs=1e-12)
        assert stiffness(snapshot)["stiffness_cosine"].value == pytest.approx(cosine, abs=1e-12)
    equal = gradient_coherence(of_gradients(eye[:1].expand(8, 8)))["m_coherence"]
    assert equal.stderr == pytest.approx(0, abs=1e-12)


@pytest.mark.oracle("gradient_coherence")
def test_the_authors_idealized_data():
    """Chatterjee & Zielinski's example: a share of the gradient in common, the rest each example's own."""
    eye = torch.eye(11, dtype=torch.float64)
    g = torch.sqrt(torch.tensor(0.3)) * eye[0] + torch.sqrt(torch.tensor(0.7)) * eye[1:]
    found = gradient_coherence(of_gradients(g))
    assert found["coherence"].value == pytest.approx(0.3 + 0.7 / 10, rel=1e-6)
    assert stiffness(of_gradients(g))["stiffness_cosine"].value == pytest.approx(0.3, rel=1e-6)


@pytest.mark.oracle("train_coherence", "train_stiffness")
def test_two_samples():
    net, x, y = build("mlp", n=30)
    ours, train = (Snapshot(net, F.cross_entropy, [(x[rows], y[rows])]) for rows in (slice(18), slice(18, 30)))
    g = one_by_one(net, x, y)
    a, b = g[:18], g[18:]
    expected = (a @ b.T).mean() / (a.square().sum(1).mean() * b.square().sum(1).mean()).sqrt()
    assert train_coherence(ours, train).value == pytest.approx(float(expected), rel=1e-9)
    both = Snapshot(net, F.cross_entropy, [(x, y)])
    whole = gradient_coherence(both)["coherence"]
    assert train_coherence(both, both).value == pytest.approx(whole.value, rel=1e-9)

    found = {key: e.value for key, e in train_stiffness(ours, train).items()}
    for kind, h in (("cosine", cosines(a, b)), ("sign", cosines(a, b).sign())):
        table = torch.tensor(
            [[h[(y[:18, None] == i) & (y[18:] == j)].mean() for j in range(3)] for i in range(3)], dtype=torch.float64
        )
        there = ~table.isnan()
        eye = torch.eye(3, dtype=torch.bool)
        assert found[f"train_stiffness_{kind}"] == pytest.approx(float(h.mean()), abs=1e-9)
        assert found[f"train_stiffness_{kind}_within"] == pytest.approx(float(table[eye & there].mean()), abs=1e-9)
        assert found[f"train_stiffness_{kind}_between"] == pytest.approx(float(table[~eye & there].mean()), abs=1e-9)


def test_standard_errors_are_the_spread_over_samples():
    """Gradients of three classes with means of their own, drawn again and again with the same numbers of each."""
    generator = torch.Generator().manual_seed(0)
    means = 0.7 * torch.randn(3, 6, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)

    def sample(y: torch.Tensor) -> Snapshot:
        return of_gradients(means[y] + torch.randn(len(y), 6, dtype=torch.float64, generator=generator), y)

    drawn: dict[str, list] = {}
    for _ in range(40):
        ours, train = sample(labels), sample(labels[::2])
        found = gradient_coherence(ours) | stiffness(ours) | train_stiffness(ours, train)
        # overall ones take the classes too as drawn
        mixed, other = (
            sample(torch.multinomial(torch.tensor([3.0, 2, 1]), n, True, generator=generator)) for n in (60, 40)
        )
        overall = gradient_coherence(mixed) | stiffness(mixed) | train_stiffness(mixed, other)
        overall["train_coherence"] = train_coherence(mixed, other)
        for key, e in ({k: e for k, e in overall.items() if "_within" not in k and "_between" not in k}).items():
            drawn.setdefault(key, []).append((e.value, e.stderr))
        for key, e in found.items():
            if "_within" in key or "_between" in key:
                drawn.setdefault(key, []).append((e.value, e.stderr))
    assert len(drawn) == 4 + 6 + 6 + 1
    for key, pairs in drawn.items():
        values, errors = torch.tensor(pairs, dtype=torch.float64).T
        assert float(errors.mean() / values.std()) == pytest.approx(1, abs=0.4), key


def test_examples_whose_gradient_is_zero_are_left_out():
    g = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    found = stiffness(of_gradients(g))["stiffness_cosine"]
    assert found.value == pytest.approx(0.5**0.5)
    assert found.note == "without 2 examples whose gradient is zero"
    nothing = of_gradients(torch.zeros(5, 2, dtype=torch.float64))
    assert gradient_coherence(nothing)["coherence"].note == "undefined: every gradient is zero"
    assert train_coherence(nothing, nothing).note == "undefined: every gradient is zero"
    assert stiffness(nothing)["stiffness_sign"].note.startswith("undefined: every gradient is zero; without 5")


def test_well_fitted_examples_keep_the_direction_of_their_gradients():
    """In float32 1 − p is rounded to 0 where the loss is below 1e-7: the gradients are those of float64."""
    net, x, y = build("mlp")
    with torch.no_grad():
        net[4].weight.mul_(400)
        y = net(x).argmax(1)
        expected = stiffness(Snapshot(net, F.cross_entropy, [(x, y)]))["stiffness_cosine"].value
        snapshot = Snapshot(net.float(), F.cross_entropy, [(x.float(), y)])
    assert stiffness(snapshot)["stiffness_cosine"].value == pytest.approx(expected, abs=1e-3)


def test_one_class_one_example_of_a_class_and_no_classes():
    g = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = stiffness(of_gradients(g)) | gradient_coherence(of_gradients(g))
    assert one["stiffness_cosine_between"].note == "undefined: all examples are of one class"
    assert one["coherence_between"].note == "undefined: all examples are of one class"
    assert one["stiffness_cosine_within"].value == pytest.approx(one["stiffness_cosine"].value, rel=1e-12)
    assert one["coherence_within"].value == pytest.approx(one["coherence"].value, rel=1e-12)
    each = stiffness(of_gradients(g, torch.arange(6)))
    assert each["stiffness_cosine_within"].note == "undefined: no class has two examples"
    assert each["stiffness_cosine_between"].value == pytest.approx(each["stiffness_cosine"].value, rel=1e-12)
    assert each["stiffness_cosine_between"].stderr is None
    pair = stiffness(of_gradients(g, torch.tensor([0, 0, 1, 2, 3, 4])))["stiffness_cosine_within"]
    assert pair.value == pytest.approx(float(cosines(g)[0, 1]), rel=1e-12)
    assert pair.stderr is not None
    net, x, _ = build("mlp")
    fitted = Snapshot(net, F.mse_loss, [(x, torch.randn(24, 3, dtype=torch.float64))])
    found = gradient_coherence(fitted) | stiffness(fitted) | train_stiffness(fitted, fitted)
    for name in ("coherence", "stiffness_sign", "train_stiffness_cosine"):
        assert 0 <= abs(found[name].value) <= 24
        assert found[f"{name}_within"].note == "undefined: the targets are not one class an example"


def test_a_single_example():
    g = torch.ones(1, 3, dtype=torch.float64)
    found = gradient_coherence(of_gradients(g))
    assert found["m_coherence"].value == pytest.approx(1)
    assert found["m_coherence"].stderr is None
    assert stiffness(of_gradients(g))["stiffness_cosine"].note == "undefined: there are fewer than two examples"
    assert train_stiffness(of_gradients(g), of_gradients(-g))["train_stiffness_sign"].value == -1


def test_a_language_model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).double()
    tokens = torch.randint(5, (6, 7))
    loss = lambda out, y: F.cross_entropy(out.movedim(2, 1), y)  # noqa: E731
    snapshot = Snapshot(net, loss, [(tokens, tokens.roll(-1, 1))])
    rows = [torch.autograd.grad(loss(net(t[None]), t[None].roll(-1, 1)), list(net.parameters())) for t in tokens]
    g = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    found = stiffness(snapshot) | gradient_coherence(snapshot)
    off = ~torch.eye(6, dtype=torch.bool)
    assert found["stiffness_cosine"].value == pytest.approx(float(cosines(g)[off].mean()), rel=1e-9)
    assert found["coherence"].value == pytest.approx(float((g @ g.T).mean() / g.square().sum(1).mean()), rel=1e-9)
    assert found["coherence_within"].note == "undefined: the targets are not one class an example"


@pytest.mark.parametrize("function", [gradient_coherence, partial(stiffness, examples=9)])
def test_neither_batches_nor_memory_matter(function, monkeypatch):
    net, x, y = build("gru")
    expected = function(Snapshot(net, F.cross_entropy, [(x, y)]))
    monkeypatch.setattr("genbench.measures.optimization._ENTRIES", 300)
    found = function(Snapshot(net, F.cross_entropy, list(zip(x.split(5), y.split(5), strict=True))))
    for key, e in expected.items():
        assert found[key].value == pytest.approx(e.value, rel=1e-9)
        assert found[key].stderr == pytest.approx(e.stderr, rel=1e-6)


def test_sums_of_classes_that_do_not_fit(monkeypatch):
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    expected = gradient_coherence(snapshot)
    monkeypatch.setattr(module, "room", lambda device: 100)
    found = gradient_coherence(snapshot)
    assert found["m_coherence"].value == pytest.approx(expected["m_coherence"].value, rel=1e-9)
    assert found["coherence_within"].note == "undefined: the sums of the classes' gradients do not fit in memory"


def test_rescaling_all_gradients_leaves_everything():
    net, x, y = build("mlp")
    a = Snapshot(net, F.cross_entropy, [(x, y)])
    b = Snapshot(net, lambda out, target: 7 * F.cross_entropy(out, target), [(x, y)])
    for function in (gradient_coherence, stiffness):
        ours, theirs = function(a), function(b)
        assert all(ours[key].value == pytest.approx(theirs[key].value, rel=1e-9) for key in ours)


def test_fewer_examples_are_spread_over_the_data():
    net, x, y = build("mlp")
    found = stiffness(Snapshot(net, F.cross_entropy, [(x, y)]), examples=8)
    rows = torch.arange(0, 24, 3)
    expected = stiffness(Snapshot(net, F.cross_entropy, [(x[rows], y[rows])]))
    assert {key: e.value for key, e in found.items()} == {key: e.value for key, e in expected.items()}


def test_a_loss_that_is_no_mean_over_examples():
    net, x, y = build("mlp")
    weighted = lambda out, target: F.cross_entropy(out, target, weight=torch.tensor([1.0, 5.0, 9.0]).double())  # noqa: E731
    with pytest.raises(ValueError, match=r"loss of a batch is .*, the mean over its examples"):
        gradient_coherence(Snapshot(net, weighted, [(x, y)]))


def test_a_callback_hands_the_train_split_to_those_between_splits():
    callback = Measures(measures={"a": train_coherence, "b": partial(train_stiffness, examples=100)}, split="test")
    module = Plain()
    fit(module, callbacks=[callback], max_epochs=1)
    ours, train = (Snapshot(module, F.cross_entropy, [data(n, seed).tensors]) for n, seed in ((50, 2), (64, 0)))
    expected = {"a": train_coherence(ours, train)} | train_stiffness(ours, train, examples=100)
    for name, e in expected.items():
        found = callback.results[f"test/optimization/{name}"]
        assert found.value == pytest.approx(e.value, rel=1e-4)
        assert math.isclose(found.stderr, e.stderr, rel_tol=1e-3, abs_tol=1e-9)


@pytest.mark.parametrize("function", [stiffness, lambda s, **given: train_stiffness(s, s, **given)])
@pytest.mark.parametrize("wrong", [1, "abc", 2.5])
def test_settings(function, wrong):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=f"examples is {wrong!r}; accepted: an integer of at least 2"):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), examples=wrong)
