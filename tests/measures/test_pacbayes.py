"""PAC-Bayes σ and box α where they are known, and the measures built on them, written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import nn

from genbench.measures import Snapshot, pacbayes_measures, pacbayes_sigma, sharpness_alpha, sharpness_measures
from genbench.measures.sharpness_ascent import Ball, ascend
from tests.helpers.measured import independent
from tests.helpers.networks import NETS, build

bce = F.binary_cross_entropy_with_logits


class Thresholds(nn.Module):
    """x > θⱼ?"""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((1, 30), theta, dtype=torch.float64))

    def forward(self, x):
        return (x.reshape(-1, 30) - self.theta).reshape(-1, 1)


def thresholds(theta: float) -> Snapshot:
    """Examples at every distance up to 1 from each θⱼ = θ: a step by t costs t/2 of its accuracy."""
    x = (theta + torch.linspace(-1, 1, 61, dtype=torch.float64)).repeat_interleave(30)[:, None]
    return Snapshot(Thresholds(theta), bce, [(x, (x > theta).double())])


@pytest.mark.oracle("pacbayes_sigma")
@pytest.mark.parametrize("theta", [1.0, 5.0])
def test_sigma_of_thresholds(theta):
    # drop = σ E|z| / 2
    exact = 2 * 0.1 / math.sqrt(2 / math.pi)
    found = pacbayes_sigma(thresholds(theta), samples=50)
    assert abs(found["pacbayes_sigma"].value - exact) < 3 * found["pacbayes_sigma"].stderr
    assert found["pacbayes_sigma"].stderr < 0.05 * exact
    aware = found["pacbayes_mag_sigma"]
    assert abs(aware.value - exact / theta) < 3 * aware.stderr
    for e in found.values():
        assert e.converged
        assert e.interval[0] < e.value < e.interval[1]


@pytest.mark.oracle("pacbayes_sigma")
@pytest.mark.parametrize("size", [1.0, 3.0])
def test_sigma_of_independent_margins(size):
    # an example of margin s is lost with probability Φ(−s/σ)
    exact = -size / norm.ppf(0.1)
    found = pacbayes_sigma(independent(torch.full((3000,), size)), samples=10)
    assert found["pacbayes_sigma"].value == pytest.approx(exact, rel=0.02)
    assert abs(found["pacbayes_sigma"].value - exact) < 3 * found["pacbayes_sigma"].stderr
    assert abs(found["pacbayes_mag_sigma"].value - exact / size) < 3 * found["pacbayes_mag_sigma"].stderr


def test_sigma_coverage():
    exact = 2 * 0.1 / math.sqrt(2 / math.pi)
    snapshot = thresholds(1.0)
    found = [pacbayes_sigma(snapshot, samples=12, seed=seed)["pacbayes_sigma"] for seed in range(200)]
    covered = sum(abs(e.value - exact) <= 2 * e.stderr for e in found)
    assert 0.90 <= covered / 200 <= 0.99


def test_another_drop():
    found = pacbayes_sigma(independent(torch.full((3000,), 1.0)), drop=0.3)["pacbayes_sigma"]
    assert abs(found.value + 1 / norm.ppf(0.3)) < 3 * found.stderr
    assert found.stderr < 0.02 * found.value


@pytest.mark.oracle("sharpness_alpha")
def test_alpha_of_one_example():
    # of two rows the difference moves by α on both sides: α = margin / 2(‖x‖₁ + 1); α′ = margin / Σ|w||x| + |b|
    net = nn.Linear(3, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.5, 1.0, -1.0]]))
        net.bias.copy_(torch.tensor([0.3, -0.1]))
    x = torch.tensor([[1.0, -1.0, 2.0]], dtype=torch.float64)
    margin = (1 + 2 + 1 + 0.3) - (0.5 - 1 - 2 - 0.1)
    found = sharpness_alpha(Snapshot(net, F.cross_entropy, [(x, torch.tensor([0]))]), tolerance=1e-3)
    low, high = found["sharpness_alpha"].interval
    assert low <= margin / (2 * 5) <= high * (1 + 1e-12)
    low, high = found["sharpness_mag_alpha"].interval
    size = (1 + 2 + 1 + 0.3) + (0.5 + 1 + 2 + 0.1)
    assert low <= margin / size <= high * (1 + 1e-12)
    for e in found.values():
        assert e.converged is False
        assert e.note == "the lower end withstood every attack, which is no proof"
        assert e.interval[0] < e.value < e.interval[1] <= e.interval[0] * 1.001


@pytest.mark.oracle("sharpness_alpha")
def test_alpha_of_independent_margins():
    # margins 1 to 100: up to ten examples may be lost, α = 11 loses the eleventh; α′ = 1 loses all
    found = sharpness_alpha(independent(torch.arange(1.0, 101)), tolerance=1e-3)
    assert found["sharpness_alpha"].value == pytest.approx(11, rel=1e-3)
    assert found["sharpness_mag_alpha"].value == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("name", NETS)
def test_the_ends_against_an_attack_on_the_loss(name):
    net, x, y = fitted(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    low, high = sharpness_alpha(snapshot)["sharpness_alpha"].interval
    base = float((net(x).argmax(1) != y).double().mean())

    def rising(delta):
        return snapshot.gradient_at(snapshot.vector + delta)

    def lost(alpha):
        rates = []
        ball = Ball(torch.ones_like(snapshot.vector), alpha, "linf")
        for delta, _, _ in ascend(rising, ball, rising(0)[1], steps=20):
            assert float(delta.abs().max()) <= alpha * (1 + 1e-12)
            output, target, *_ = next(snapshot.predictions_at(snapshot.vector + delta))
            rates.append(float((output.argmax(1) != target).double().mean()) - base)
        return max(rates)

    assert lost(low) <= 0.1
    assert lost(2 * high) > 0.1


class Attention(nn.Module):
    """A pre-norm transformer of one block that classifies sequences."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(9, 4), nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.feed = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.head = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))

    def forward(self, x):
        h = self.embedding(x)
        n = self.norm(h)
        h = h + self.attention(n, n, n, need_weights=False)[0]
        return self.head(h + self.feed(h)).mean(1)


def test_the_box_of_a_transformer_withstands_other_attacks():
    torch.manual_seed(0)
    x = torch.randint(9, (60, 5))
    y = x.sum(1) % 4
    net = Attention().double()
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    snapshot = Snapshot(net.eval(), F.cross_entropy, [(x, y)])
    found = sharpness_alpha(snapshot, steps=15)
    w, names = snapshot.vector, {k: p.shape for k, p in net.named_parameters()}
    generator = torch.Generator().manual_seed(0)

    def margins(vector):
        parts = vector.split([s.numel() for s in names.values()])
        parameters = {k: p.view(s) for (k, s), p in zip(names.items(), parts, strict=True)}
        z = torch.func.functional_call(net, parameters, (x,))
        return z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -math.inf).amax(1)

    base = float((margins(w) <= 0).double().mean())

    def lost(alpha, scale):
        """By plain steps of the signs of the gradient of Σ tanh(4m)."""
        worst = 0.0
        for start in range(3):
            u = alpha * (2 * torch.rand(len(w), generator=generator, dtype=torch.float64) - 1) * min(start, 1)
            for step in range(40):
                point = (w + scale * u).requires_grad_()
                m = margins(point)
                worst = max(worst, float((m <= 0).double().mean()) - base)
                (slope,) = torch.autograd.grad(-torch.tanh(4 * m).sum(), point)
                u = (u + 0.4 * 0.95**step * alpha * (slope * scale).sign()).clamp(-alpha, alpha)
        return worst

    for key, scale in (("sharpness_alpha", torch.ones_like(w)), ("sharpness_mag_alpha", w.abs())):
        low, high = found[key].interval
        assert low < found[key].value < high <= 1.05 * low
        for share in (1, 0.7):
            assert lost(share * low, scale) <= 0.1 + 1e-9
        assert lost(4 * high, scale) > 0.1


def quickly(snapshot):
    return sharpness_alpha(snapshot, steps=5)


def fitted(name, steps=150):
    net, x, y = build(name)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), x, y


def rescaled(factor):
    net, x, y = fitted("mlp")
    with torch.no_grad():
        net[0].weight *= factor
        net[0].bias *= factor
        net[2].weight /= factor
    return Snapshot(net, F.cross_entropy, [(x, y)])


@pytest.mark.parametrize(
    ("function", "plain", "aware"),
    [
        (pacbayes_sigma, "pacbayes_sigma", "pacbayes_mag_sigma"),
        (quickly, "sharpness_alpha", "sharpness_mag_alpha"),
    ],
)
def test_the_magnitude_aware_ones_survive_rescaling(function, plain, aware):
    before = function(rescaled(1.0))
    for factor in (8.0, 0.125):  # powers of two are exact in floating point
        after = function(rescaled(factor))
        assert after[aware].value == before[aware].value
        assert abs(after[plain].value / before[plain].value - 1) > 0.05


@pytest.mark.parametrize("function", [pacbayes_sigma, quickly])
def test_batch_splits_agree(function):
    net, x, y = fitted("conv")
    whole = function(Snapshot(net, F.cross_entropy, [(x, y)]))
    parts = function(Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True))))
    for key, e in whole.items():
        assert parts[key].value == pytest.approx(e.value, rel=1e-9)


def snapshot_with_start():
    net, x, y = fitted("mlp")
    initial = {k: v.clone() for k, v in build("mlp")[0].state_dict().items()}
    return net, Snapshot(net, F.cross_entropy, [(x, y)], initial=initial), initial


def lists(net, initial):
    w = [float(v) for p in net.parameters() for v in p.detach().reshape(-1)]
    w0 = [float(v) for p in initial.values() for v in p.reshape(-1)]
    return w, w0


@pytest.mark.oracle("pacbayes_measures")
def test_pacbayes_measures_written_out():
    net, snapshot, initial = snapshot_with_start()
    found = pacbayes_measures(snapshot, samples=5)
    radii = pacbayes_sigma(snapshot, samples=5)
    s, t = radii["pacbayes_sigma"].value, radii["pacbayes_mag_sigma"].value
    w, w0 = lists(net, initial)
    m, size, eps = 24, len(w), 1e-3
    moved = sum((a - b) ** 2 for a, b in zip(w, w0, strict=True))
    length = sum(a**2 for a in w)

    def aware(square):
        terms = [
            math.log((eps**2 + (t**2 + 1) * square / size) / (eps**2 + t**2 * (a - b) ** 2))
            for a, b in zip(w, w0, strict=True)
        ]
        return sum(terms) / 4 + math.log(m / t) + 10

    assert {key: e.value for key, e in found.items()} == pytest.approx(
        {
            "pacbayes_init": moved / (4 * s**2) + math.log(m / s) + 10,
            "pacbayes_orig": length / (4 * s**2) + math.log(m / s) + 10,
            "pacbayes_flatness": 1 / s**2,
            "pacbayes_mag_init": aware(moved),
            "pacbayes_mag_orig": aware(length),
            "pacbayes_mag_flatness": 1 / t**2,
        },
        rel=1e-12,
    )
    assert found["pacbayes_flatness"].stderr == pytest.approx(2 * radii["pacbayes_sigma"].stderr / s**3, rel=1e-9)


@pytest.mark.oracle("sharpness_measures")
def test_sharpness_measures_written_out():
    net, snapshot, initial = snapshot_with_start()
    found = sharpness_measures(snapshot, delta=0.1)
    radii = sharpness_alpha(snapshot)
    a, b = radii["sharpness_alpha"].value, radii["sharpness_mag_alpha"].value
    w, w0 = lists(net, initial)
    m, size, eps = 24, len(w), 1e-3
    moved = sum((p - q) ** 2 for p, q in zip(w, w0, strict=True))
    length = sum(p**2 for p in w)

    def aware(square):
        over = (b**2 + 4 * math.log(2 * size / 0.1)) * square / size
        terms = [math.log((eps**2 + over) / (eps**2 + b**2 * (p - q) ** 2)) for p, q in zip(w, w0, strict=True)]
        return sum(terms) / 4 + math.log(m / b) + 10

    assert {key: e.value for key, e in found.items()} == pytest.approx(
        {
            "sharpness_init": moved * math.log(2 * size) / (4 * a**2) + math.log(m / a) + 10,
            "sharpness_orig": length * math.log(2 * size) / (4 * a**2) + math.log(m / a) + 10,
            "sharpness_flatness": 1 / a**2,
            "sharpness_mag_init": aware(moved),
            "sharpness_mag_orig": aware(length),
            "sharpness_mag_flatness": 1 / b**2,
        },
        rel=1e-12,
    )
    assert all(e.stderr is None for e in found.values())


@pytest.mark.parametrize("function", [pacbayes_measures, sharpness_measures])
def test_without_initial_weights(function):
    net, x, y = fitted("mlp")
    found = function(Snapshot(net, F.cross_entropy, [(x, y)]))
    undefined = {key for key, e in found.items() if e.value is None}
    assert {key.partition("_")[2] for key in undefined} == {"init", "mag_init", "mag_orig"}
    assert all("initial weights" in found[key].note for key in undefined)


def everywhere(snapshot):
    for function in (pacbayes_sigma, sharpness_alpha, pacbayes_measures, sharpness_measures):
        yield from function(snapshot).values()


def test_no_classifier():
    snapshot = Snapshot(nn.Linear(4, 1), F.mse_loss, [(torch.randn(8, 4), torch.randn(8, 1))])
    for e in everywhere(snapshot):
        assert e.value is None
        assert "undefined" in e.note


def test_an_accuracy_that_cannot_fall_so_far():
    net, x, _ = build("mlp")
    with torch.no_grad():
        wrong = (net(x).argmax(1) + 1) % 3
    initial = net.state_dict()
    for e in everywhere(Snapshot(net, F.cross_entropy, [(x, wrong)], initial=initial)):
        assert e.value is None
        assert e.note == "undefined: the accuracy 0 cannot fall by 0.1"


def test_an_accuracy_that_does_not_fall():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.stack([self.w**2 + 1 + 0 * x, -self.w - self.w**2 + 0 * x], 1)

    snapshot = Snapshot(Constant(), F.cross_entropy, [(torch.randn(8), torch.zeros(8).long())])
    for function in (pacbayes_sigma, sharpness_alpha):
        for e in function(snapshot, evaluations=6).values():
            assert e.value is None
            assert e.converged is False
            assert "falls by less" in e.note


def test_a_bound_that_was_hit():
    found = pacbayes_sigma(thresholds(1.0), tolerance=1e-6, evaluations=4)["pacbayes_sigma"]
    assert found.converged is False
    assert found.interval[0] < found.value < found.interval[1]
    assert sharpness_alpha(thresholds(1.0), tolerance=1e-6, evaluations=4)["sharpness_alpha"].converged is False


@pytest.mark.parametrize(
    ("function", "bad"),
    [
        (pacbayes_sigma, {"drop": 0}),
        (pacbayes_sigma, {"drop": 1}),
        (pacbayes_sigma, {"tolerance": 0}),
        (pacbayes_sigma, {"samples": 1}),
        (pacbayes_sigma, {"evaluations": 2}),
        (pacbayes_sigma, {"seed": -1}),
        (sharpness_alpha, {"steps": 0}),
        (pacbayes_measures, {"epsilon": 0}),
        (sharpness_measures, {"delta": 1.0}),
        (sharpness_measures, {"delta": 0}),
    ],
)
def test_settings(function, bad):
    net, x, y = build("mlp")
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} is"):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), **bad)
