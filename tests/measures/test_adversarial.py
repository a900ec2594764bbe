"""Adversarial accuracy against closed forms, another library, and what must hold of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.data import Digits
from genbench.inputs.attacks import perturb, random_start
from genbench.measures import Snapshot, accuracy, adversarial_accuracy
from genbench.models import CNN
from genbench.rng import StepRandom
from tests.helpers.networks import NETS, build, taught

RADIUS = {"linf": 0.08, "l2": 0.4}
IMAGES = {"low": 0.0, "high": 1.0}


@pytest.fixture(scope="module")
def trained():
    """A network that has learnt the digits, and their test split."""
    data = Digits()
    torch.manual_seed(0)
    net = CNN(input_shape=data.input_shape, classes=10)
    return taught(net).eval(), *data.tensors("test")


@pytest.fixture(scope="module")
def snapshot(trained):
    net, x, y = trained
    return Snapshot(net, F.cross_entropy, [(x, y)])


@pytest.mark.oracle("adversarial_accuracy")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("starts", [0, 1, 3])
def test_a_linear_classifier_of_two_classes_falls_where_its_margin_does(norm, starts):
    """The margin of f(x) = w·x + b falls by at most epsilon times the dual norm of w, whatever the start."""
    torch.manual_seed(0)
    net = nn.Linear(5, 2).double()
    x, y = torch.randn(400, 5, dtype=torch.float64), torch.randint(2, (400,))
    w = (net.weight[1] - net.weight[0]).detach()
    margin = (x @ w + (net.bias[1] - net.bias[0]).detach()) * (2 * y - 1)
    for epsilon in (0.0, 0.1, 0.5):
        worst = margin - epsilon * (w.abs().sum() if norm == "linf" else w.norm())
        found = adversarial_accuracy(
            Snapshot(net, F.cross_entropy, [(x, y)]), norm=norm, epsilon=epsilon, steps=10, random_starts=starts
        )
        share = float((worst > 0).double().mean())
        assert found.value == pytest.approx(share, abs=1e-12)
        assert found.stderr == pytest.approx((share * (1 - share) / 399) ** 0.5)


@pytest.mark.oracle("adversarial_accuracy")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_foolbox_finds_as_many(trained, snapshot, norm):
    """Example by example: one step, many from the input, many from our random points of the ball."""
    from foolbox import PyTorchModel, attacks

    net, x, y = trained
    model, epsilon = PyTorchModel(net, bounds=(0, 1)), RADIUS[norm]
    single = attacks.LinfFastGradientAttack if norm == "linf" else attacks.L2FastGradientAttack
    several = attacks.LinfPGD if norm == "linf" else attacks.L2PGD
    right = net(x).argmax(1) == y

    def share(*tried):
        broken = torch.stack([attack(model, x, y, epsilons=epsilon)[2] for attack in tried]).any(0)
        return float((right & ~broken).double().mean())

    def ours(**settings):
        return adversarial_accuracy(snapshot, norm=norm, epsilon=epsilon, **IMAGES, **settings).value

    class Ours(several):
        """From the points that genbench starts at."""

        def __init__(self, index):
            super().__init__(rel_stepsize=2.5 / 20, steps=20)
            self.index = index

        def get_random_start(self, x0, size):
            blocks = enumerate(x.split(256))
            starts = [random_start(StepRandom(0, i), f"adversarial.{self.index}", part, norm) for i, part in blocks]
            return x0 + size * torch.cat(starts)

    found = [ours(steps=1, random_starts=0), ours(random_starts=0), ours(random_starts=1), ours(random_starts=3)]
    theirs = [
        share(single()),
        share(several(rel_stepsize=2.5 / 20, steps=20, random_start=False)),
        share(Ours(0)),
        share(Ours(0), Ours(1), Ours(2)),
    ]
    assert found == pytest.approx(theirs, abs=1e-3)
    assert 0.2 < found[-1] < found[0] < 0.9  # neither nothing nor everything is broken


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_effort_never_finds_less(snapshot, norm):
    settings = {"norm": norm, "epsilon": RADIUS[norm], **IMAGES}
    natural = accuracy(snapshot).value
    single = adversarial_accuracy(snapshot, steps=1, random_starts=0, **settings).value
    several = [adversarial_accuracy(snapshot, random_starts=n, **settings).value for n in (1, 2, 5)]
    assert natural > single > several[0] >= several[1] >= several[2]
    assert adversarial_accuracy(snapshot, **{**settings, "epsilon": 0}).value == natural


def test_without_the_input_a_label_may_be_answered_only_under_attack():
    """Of logits (0, sin x) the label 0 is right where sin x < 0, and a step of 3 overshoots the maximum."""

    class Wave(nn.Module):
        def __init__(self):
            super().__init__()
            self.height = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return torch.cat([torch.zeros_like(x), self.height * torch.sin(x)], 1)

    x, y = torch.tensor([[0.5], [-0.5]]), torch.tensor([0, 0])  # wrong, right
    snapshot = Snapshot(Wave(), F.cross_entropy, [(x, y)])
    settings = {"norm": "linf", "epsilon": 3.0, "steps": 1, "step_size": 3.0, "random_starts": 0}
    # sin(3.5) < 0 is right, sin(2.5) > 0 is wrong
    assert adversarial_accuracy(snapshot, **settings).value == 0
    assert adversarial_accuracy(snapshot, **settings, with_input=False).value == 0.5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_perturbed_inputs_lie_in_the_ball_and_the_range_and_raise_the_loss(trained, norm):
    net, x, y = trained
    net.zero_grad()  # those of another test
    epsilon, start = RADIUS[norm], random_start(StepRandom(0, 0), "start", x, norm)
    moved = perturb(net, x, y, norm=norm, epsilon=epsilon, step_size=0.3 * epsilon, steps=10, start=start, **IMAGES)
    distance = (moved - x).flatten(1)
    assert (distance.abs().amax(1) if norm == "linf" else distance.norm(dim=1)).max() <= epsilon * (1 + 1e-5)
    assert 0 <= moved.min() < moved.max() <= 1
    loss = [F.cross_entropy(net(z), y, reduction="none") for z in (x, moved)]
    assert (loss[1] > loss[0]).double().mean() > 0.99
    assert all(p.grad is None for p in net.parameters())
    assert not moved.requires_grad


def test_random_starts_are_uniform_in_the_ball():
    x = torch.zeros(20_000, 1, 3, dtype=torch.float64)
    box, ball = (random_start(StepRandom(0, 0), "start", x, norm).flatten(1) for norm in ("linf", "l2"))
    assert float(box.abs().max()) <= 1
    assert float(box.square().mean()) == pytest.approx(1 / 3, rel=0.02)
    radius = ball.norm(dim=1)
    assert float(radius.max()) <= 1
    for r in (0.5, 0.8):  # a ball of radius r has r³ of the volume
        assert float((radius <= r).double().mean()) == pytest.approx(r**3, abs=0.01)
    assert float(ball.mean(0).abs().max()) < 0.02


@pytest.mark.parametrize("name", NETS)
def test_any_network_however_its_data_are_split(name):
    net, x, y = build(name)
    whole = adversarial_accuracy(Snapshot(net, F.cross_entropy, [(x, y)]), epsilon=0.3)
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True)))
    assert adversarial_accuracy(parts, epsilon=0.3).value == whole.value < accuracy(parts).value


def test_blocks_do_not_depend_on_the_batches():
    net, x, y = build("mlp", n=24)
    for sizes in ([24], [1, 9, 14], [10, 10, 4], [5] * 4 + [4]):
        blocks = list(Snapshot(net, F.cross_entropy, list(zip(x.split(sizes), y.split(sizes), strict=True))).blocks(10))
        assert [len(target) for _, target in blocks] == [10, 10, 4]
        assert torch.equal(torch.cat([part for part, _ in blocks]), x)
        assert torch.equal(torch.cat([target for _, target in blocks]), y)


def test_positions_and_what_is_no_classifier():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, 5), torch.randint(3, (6, 5))
    net = nn.Conv1d(4, 3, 1)
    found = adversarial_accuracy(Snapshot(net, F.cross_entropy, [(x, y)]), epsilon=0.0)
    assert found.value == pytest.approx(float((net(x).argmax(1) == y).double().mean()))
    regression = Snapshot(nn.Linear(2, 3), F.mse_loss, [(torch.randn(4, 2), torch.randn(4, 3))])
    assert "undefined" in adversarial_accuracy(regression).note
    tokens = Snapshot(nn.EmbeddingBag(7, 3), F.cross_entropy, [(torch.randint(7, (4, 5)), torch.randint(3, (4,)))])
    assert adversarial_accuracy(tokens).note == "undefined: inputs are not real numbers"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "norm is 'l1'; accepted: linf, l2"),
        ({"epsilon": -0.1}, "epsilon is -0.1; accepted"),
        ({"steps": 0}, "steps is 0; accepted"),
        ({"random_starts": -1}, "random_starts is -1; accepted"),
        ({"step_size": -1}, "step_size is -1; accepted"),
        ({"low": 1, "high": 0}, "low is 1 and high 0; accepted: low below high"),
        ({"low": 0.5}, r"inputs lie in \[0, 1\]; accepted: within low=0.5 and high=None"),
    ],
)
def test_bad_input(snapshot, settings, message):
    with pytest.raises(ValueError, match=message):
        adversarial_accuracy(snapshot, **settings)
