"""What outputs are is told by the loss, and every measure of answers, margins and likelihoods reads them alike."""

import math
from collections import OrderedDict
from dataclasses import dataclass, field, fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import (
    Snapshot,
    accuracy,
    adversarial_accuracy,
    brier_score,
    calibration_error,
    cross_entropy,
    disagreement,
    ensemble_curve,
    fisher_trace,
    gauss_newton_trace,
    hessian_trace,
    input_margin,
    linear_mode_connectivity,
    margin,
    negative_entropy,
    ood_auroc,
    pacbayes_sigma,
    sam_sharpness,
    soft_error,
)
from genbench.measures.outputs import Reading, read
from genbench.models import Ensemble

PERFORMANCE = (accuracy, cross_entropy, soft_error, brier_score, negative_entropy)
LIKELIHOOD = (*PERFORMANCE, calibration_error, margin, input_margin, fisher_trace, adversarial_accuracy)


class Ending(nn.Module):
    """A network and what is done to its logits."""

    def __init__(self, net: nn.Module, end) -> None:
        super().__init__()
        self.net = net
        self.end = end

    def forward(self, x):
        return self.end(self.net(x))


def classifier(classes: int = 3) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes)).double()
    x = torch.randn(40, 4, dtype=torch.float64)
    z = net(x).detach()
    y = z.argmax(1) if classes > 1 else (z[:, 0] > 0).long()
    y[:4] = (y[:4] + 1) % max(2, classes)  # a tenth is wrong
    return net, x, y


def of_logits(z: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """By NumPy, of logits [N, K] and labels."""
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right = p[np.arange(len(y)), y]
    hot = np.eye(z.shape[1])[y]
    others = np.where(hot == 1, -np.inf, z).max(1)
    return {
        "accuracy": float((z.argmax(1) == y).mean()),
        "cross_entropy": float(-np.log(right).mean()),
        "soft_error": float(1 - right.mean()),
        "brier_score": float(((p - hot) ** 2).sum(1).mean()),
        "negative_entropy": float((p * np.log(p)).sum(1).mean()),
        "margin": float(np.percentile(z[np.arange(len(y)), y] - others, 10)),
    }


ENDS = {
    "probabilities": (lambda z: z.softmax(1), lambda p, y: F.nll_loss(p.log(), y)),
    "log-probabilities": (lambda z: z.log_softmax(1), F.nll_loss),
}


@pytest.mark.parametrize("kind", ENDS)
def test_probabilities_are_not_put_through_a_softmax_again(kind):
    net, x, y = classifier()
    end, loss = ENDS[kind]
    snapshot = Snapshot(Ending(net, end), loss, [(x[:25], y[:25]), (x[25:], y[25:])])
    plain = Snapshot(net, F.cross_entropy, [(x, y)])
    assert read(snapshot).kind == kind
    assert read(plain).kind == "logits"
    expected = of_logits(net(x).detach().numpy(), y.numpy())
    for function in (*PERFORMANCE, margin):
        assert function(snapshot).value == pytest.approx(expected[function.__name__], rel=1e-9)
    for function in LIKELIHOOD:
        assert function(snapshot).value == pytest.approx(function(plain).value, rel=1e-6), function.__name__
        assert function(snapshot).note is None
    assert cross_entropy(snapshot).value == pytest.approx(snapshot.mean_loss, rel=1e-12)


@pytest.mark.parametrize("kind", ENDS)
def test_measures_that_move_weights_read_probabilities_too(kind):
    net, x, y = classifier()
    end, loss = ENDS[kind]
    snapshot = Snapshot(Ending(net, end), loss, [(x, y)])
    plain = Snapshot(net, F.cross_entropy, [(x, y)])
    for key, found in pacbayes_sigma(plain).items():
        assert pacbayes_sigma(snapshot)[key].value == pytest.approx(found.value, rel=1e-6)
    expected = sam_sharpness(plain, rho=0.05, normalize_logits=True)
    found = sam_sharpness(snapshot, rho=0.05, normalize_logits=True)
    expected, found = (e["sam_sharpness"] if isinstance(e, dict) else e for e in (expected, found))
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    other = {f"net.{name}": torch.randn_like(p) for name, p in net.state_dict().items()}
    plain_other = {name.removeprefix("net."): p for name, p in other.items()}
    barrier = linear_mode_connectivity(snapshot, other, points=5)
    for key, value in linear_mode_connectivity(plain, plain_other, points=5).items():
        assert barrier[key].value == pytest.approx(value.value, rel=1e-9)
    assert disagreement(snapshot, other=Snapshot(net, F.cross_entropy, [(x, y)])).value == 0
    assert ood_auroc(snapshot).value == pytest.approx(ood_auroc(plain).value, rel=1e-9)
    assert ood_auroc(snapshot, score="energy").note == f"undefined: outputs are {kind}, which have no energy"


def test_an_ensemble_of_probabilities():
    net, x, y = classifier()
    torch.manual_seed(1)
    nets = [net, nn.Linear(4, 3).double()]
    end, loss = ENDS["probabilities"]
    found = ensemble_curve(Snapshot(Ensemble([Ending(n, end) for n in nets]), loss, [(x, y)]))
    expected = ensemble_curve(Snapshot(Ensemble(nets), F.cross_entropy, [(x, y)]))
    assert found.keys() == expected.keys()
    for key, estimate in expected.items():
        assert found[key].value == pytest.approx(estimate.value, rel=1e-5)


def test_a_softmax_under_a_loss_of_logits_is_one_of_logits():
    # the usual mistake: the loss takes another softmax, and so does what is reported
    net, x, y = classifier()
    snapshot = Snapshot(Ending(net, lambda z: z.softmax(1)), F.cross_entropy, [(x, y)])
    assert read(snapshot).kind == "logits"
    assert cross_entropy(snapshot).value == pytest.approx(snapshot.mean_loss, rel=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        F.multi_margin_loss,
        lambda z, y: F.cross_entropy(z, y, label_smoothing=0.3),
        lambda z, y: F.cross_entropy(z, y, label_smoothing=0.01),
        lambda z, y: F.cross_entropy(z, y, weight=torch.tensor([1.0, 5, 2], dtype=z.dtype)),
        lambda z, y: (F.softmax(z, 1) - F.one_hot(y, 3)).square().mean(),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_losses_that_constants_do_not_change_are_of_logits(loss, dtype):
    net, x, y = classifier()
    if loss is F.multi_margin_loss:  # max(0, 1 − z_y + z_k)
        assert float(loss(net(x) + 3, y)) == pytest.approx(float(loss(net(x), y)))
    found = read(Snapshot(net.to(dtype), loss, [(x.to(dtype), y)]))
    assert (found.kind, found.scale) == ("logits", 1)


def squares(output, target):
    return (output - F.one_hot(target, 3)).square().mean()


def test_outputs_that_are_neither_have_answers_and_no_likelihood():
    net, x, y = classifier()
    snapshot = Snapshot(net, squares, [(x, y)])
    right = float((net(x).argmax(1) == y).double().mean())
    found = accuracy(snapshot)
    assert found.value == pytest.approx(right)
    assert "no logits" in found.note
    for function in (cross_entropy, soft_error, brier_score, calibration_error, margin, input_margin, fisher_trace):
        estimate = function(snapshot)
        assert estimate.value is None
        assert estimate.note.startswith("undefined: the loss changes when a constant is added to all outputs")
    sigmoids = Snapshot(
        Ending(net, torch.sigmoid), lambda p, y: F.binary_cross_entropy(p, F.one_hot(y, 3).to(p)), [(x, y)]
    )
    assert read(sigmoids).kind == "scores"
    assert cross_entropy(sigmoids).value is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [30.0, 0.25, -1.0])
def test_a_number_in_the_loss_belongs_to_the_logits(scale, dtype):
    """A temperature, the scale of cosines, and the sign of distances."""
    net, x, y = classifier()
    weight = torch.ones(3, dtype=dtype)  # a tensor of the network's precision
    snapshot = Snapshot(
        Ending(net, lambda z: z / scale).to(dtype),
        lambda z, y: F.cross_entropy(scale * z, y, weight=weight),
        [(x.to(dtype), y)],
    )
    plain = Snapshot(net, F.cross_entropy, [(x.to(dtype), y)])
    for function in LIKELIHOOD:
        assert function(snapshot).value == pytest.approx(function(plain).value, rel=1e-3), function.__name__
    assert cross_entropy(snapshot).value == pytest.approx(
        snapshot.mean_loss, rel=1e-4 if dtype == torch.float32 else 1e-9
    )
    found, expected = (sam_sharpness(s, rho=0.05, normalize_logits=True) for s in (snapshot, plain))
    assert found.value == pytest.approx(expected.value, rel=1e-3)


NOT_PAIRED = (
    "undefined: the loss does not fall when the output of a label rises: they are paired otherwise, or are no scores"
)


def test_a_loss_that_rises_with_the_label_is_of_no_logits():
    net, x, y = classifier()
    snapshot = Snapshot(net, lambda d, y: F.cross_entropy(-d, y, label_smoothing=0.1), [(x, y)])
    for function in (accuracy, cross_entropy, margin):
        assert (function(snapshot).value, function(snapshot).note) == (None, NOT_PAIRED)


def test_labels_that_the_loss_shifts_are_not_those_of_the_outputs():
    """As the causal language models of transformers do: the output at t is of the label at t + 1."""
    torch.manual_seed(0)
    net, y = nn.Embedding(9, 9).double(), torch.randint(9, (12, 6))
    shifted = Snapshot(net, lambda z, y: F.cross_entropy(z[:, :-1].reshape(-1, 9), y[:, 1:].reshape(-1)), [(y, y)])
    plain = Snapshot(net, lambda z, y: F.cross_entropy(z.reshape(-1, 9), y[:, 1:].reshape(-1)), [(y[:, :-1], y)])
    assert accuracy(shifted).note == NOT_PAIRED
    assert cross_entropy(shifted).value is None
    assert (
        cross_entropy(plain).note
        == "undefined: outputs of shape (12, 5, 9) and targets of shape (12, 6) are no classes and labels"
    )


def test_a_loss_that_takes_nothing_but_probabilities():
    net, x, y = classifier()

    def loss(p, y):
        return -torch.distributions.Categorical(probs=p, validate_args=True).log_prob(y).mean()

    snapshot = Snapshot(Ending(net, lambda z: z.softmax(1)), loss, [(x, y)])
    assert read(snapshot).kind == "probabilities"
    assert cross_entropy(snapshot).value == pytest.approx(snapshot.mean_loss, rel=1e-9)


def test_a_loss_that_writes_into_its_outputs_or_wants_all_of_them():
    net, x, y = classifier()

    def halving(z, y):
        return F.cross_entropy(z.mul_(0.5), y)

    def whole(z, y):
        assert len(z) == 40
        return F.cross_entropy(z, y)

    expected = cross_entropy(Snapshot(net, F.cross_entropy, [(x, y)])).value
    assert cross_entropy(Snapshot(net, whole, [(x, y)])).value == pytest.approx(expected, rel=1e-12)
    assert read(Snapshot(net, halving, [(x, y)])).scale == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_one_sigmoid(shape):
    net, x, y = classifier(1)
    z = net(x).detach().numpy()[:, 0]
    expected = of_logits(np.stack([np.zeros_like(z), z], 1), y.numpy())
    target = y.double().reshape(shape)
    sigmoid = Snapshot(
        Ending(net, lambda z: z.sigmoid().reshape(-1, *shape[1:])), F.binary_cross_entropy, [(x, target)]
    )
    logit = Snapshot(
        Ending(net, lambda z: z.reshape(-1, *shape[1:])), F.binary_cross_entropy_with_logits, [(x, target)]
    )
    assert (read(sigmoid).kind, read(logit).kind) == ("probabilities", "logits")
    for function in (*PERFORMANCE, margin):
        assert function(sigmoid).value == pytest.approx(expected[function.__name__], rel=1e-9)
        assert function(logit).value == pytest.approx(expected[function.__name__], rel=1e-9)
    for function in LIKELIHOOD:
        assert function(sigmoid).value == pytest.approx(function(logit).value, rel=1e-6), function.__name__


def test_one_logit_and_labels_of_another_form():
    net, x, y = classifier(1)
    plain = Snapshot(net, F.binary_cross_entropy_with_logits, [(x, y.double()[:, None])])
    integers = Snapshot(net, lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.to(z)), [(x, y)])
    for function in (*PERFORMANCE, margin, fisher_trace, pacbayes_sigma):
        one, other = (function(s) for s in (plain, integers))
        one, other = (e["pacbayes_sigma"] if isinstance(e, dict) else e for e in (one, other))
        assert other.value == pytest.approx(one.value, rel=1e-12)


@pytest.mark.parametrize(
    "loss", [F.mse_loss, lambda p, y: F.binary_cross_entropy_with_logits(p, y, pos_weight=torch.tensor(3.0))]
)
def test_one_output_that_is_neither(loss):
    net, x, y = classifier(1)
    snapshot = Snapshot(Ending(net, torch.sigmoid), loss, [(x, y.double()[:, None])])
    assert cross_entropy(snapshot).value is None
    assert cross_entropy(snapshot).note.startswith("undefined: one output an example, which is no logit")


def test_nothing_is_said_of_logits_where_the_targets_are_numbers():
    net, x, _ = classifier()
    for target, loss in (
        (torch.randn(40, 3, dtype=torch.float64), F.mse_loss),
        (torch.randint(2, (40, 3)).double(), F.binary_cross_entropy_with_logits),
    ):
        for function in (accuracy, cross_entropy, margin, fisher_trace, adversarial_accuracy, ood_auroc):
            found = function(Snapshot(net, loss, [(x, target)]))
            assert found.value is None
            assert found.note == "undefined: the targets are no class labels but float64 of shape (40, 3)"


@pytest.mark.parametrize("steps", [5, 3])  # as many as classes: the loss alone tells the axes apart
def test_classes_last(steps):
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3).double(), torch.randn(20, steps, 4, dtype=torch.float64)
    y = torch.randint(3, (20, steps))
    last = Snapshot(net, lambda z, y: F.cross_entropy(z.reshape(-1, 3), y.reshape(-1)), [(x, y)])
    first = Snapshot(Ending(net, lambda z: z.movedim(2, 1)), F.cross_entropy, [(x, y)])
    assert (read(last).axis, read(first).axis) == (2, 1)
    expected = of_logits(net(x).detach().reshape(-1, 3).numpy(), y.reshape(-1).numpy())
    for function in (*PERFORMANCE, margin):
        assert function(last).value == pytest.approx(expected[function.__name__], rel=1e-9)
        assert function(last).stderr == (None if (e := function(first).stderr) is None else pytest.approx(e, rel=1e-9))


class Tagger(nn.Module):
    """Sequences with the time first, as torch's recurrent layers have them by default, or with the examples first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head = nn.GRU(2, 4, batch_first=batch_first), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.gru(x)[0])


@pytest.mark.parametrize("steps", [3, 5])  # batches of 5 and 7 examples
def test_examples_are_no_time_steps(steps):
    torch.manual_seed(1)
    x, y = torch.randn(12, steps, 2).double(), torch.randint(3, (12, steps))

    def loss(z, y):
        return F.cross_entropy(z.reshape(-1, 3), y.reshape(-1))

    first, last = Tagger(True).double(), Tagger(False).double()
    expected = Snapshot(first, loss, [(x[:5], y[:5]), (x[5:], y[5:])])
    found = Snapshot(last, loss, [(a.transpose(0, 1), b.T) for a, b in ((x[:5], y[:5]), (x[5:], y[5:]))])
    assert (expected.target_axis, found.target_axis) == (0, 1)
    for function in (*PERFORMANCE, margin, input_margin):
        a, b = function(found), function(expected)
        assert a.value == pytest.approx(b.value, rel=1e-9), function.__name__
        assert a.stderr == (None if b.stderr is None else pytest.approx(b.stderr, rel=1e-9)), function.__name__
    other = first.state_dict() | {"head.bias": torch.tensor([1.0, 0, 0]).double()}
    a, b = (disagreement(s, other=s.with_state(other)) for s in (found, expected))
    assert (a.value, a.stderr) == pytest.approx((b.value, b.stderr), rel=1e-9)
    if steps == 3:  # of the labels drawn, too, each place is one
        a, b = (fisher_trace(s, passes=20) for s in (found, expected))
        assert abs(a.value - b.value) <= 4 * math.hypot(a.stderr, b.stderr)


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor
    attentions: tuple | None = None
    parts: list = field(default_factory=list)


@dataclass
class Nested:
    inner: Output
    loss: None = None


@dataclass
class ModelOutput(OrderedDict):
    """As transformers' outputs: fields that are entries too."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            if getattr(self, entry.name) is not None:
                self[entry.name] = getattr(self, entry.name)


class Entries(dict):
    pass


@pytest.mark.parametrize(
    ("wrap", "taken"),
    [
        (lambda z, h: Output(z, h), lambda o: o.logits),
        (lambda z, h: ModelOutput(logits=z, hidden_states=(h, h)), lambda o: o["logits"]),
        (lambda z, h: Entries(hidden=h, logits=z), lambda o: o["logits"]),
        (lambda z, h: {"hidden": h, "scores": z}, lambda o: o["scores"]),
        (lambda z, h: (h, z), lambda o: o[1]),
        (lambda z, h: Nested(Output(z, h)), lambda o: o.inner.logits),
    ],
)
def test_the_logits_among_several_outputs(wrap, taken):
    net, x, y = classifier()
    snapshot = Snapshot(
        Ending(net, lambda z: wrap(z, 2 * z.relu())), lambda o, y: F.cross_entropy(taken(o), y), [(x, y)]
    )
    plain = Snapshot(net, F.cross_entropy, [(x, y)])
    for function in (*LIKELIHOOD, hessian_trace, ood_auroc):
        assert function(snapshot).value == pytest.approx(function(plain).value, rel=1e-9), function.__name__


def test_dataclasses_have_a_gauss_newton_matrix():
    @dataclass
    class Unknown:
        logits: torch.Tensor
        hidden: torch.Tensor

    net, x, y = classifier()
    wrapped = Ending(net, lambda z: Unknown(z, z.relu()))
    found = gauss_newton_trace(Snapshot(wrapped, lambda o, y: F.cross_entropy(o.logits, y), [(x, y)]))
    assert found.value == pytest.approx(gauss_newton_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value, rel=1e-9)


def test_several_outputs_that_the_loss_is_of():
    net, x, y = classifier()
    wrapped = Ending(net, lambda z: (z, z.relu()))
    found = accuracy(Snapshot(wrapped, lambda o, y: F.cross_entropy(o[0], y) + o[1].mean(), [(x, y)]))
    assert found.note == "undefined: the loss is of 2 tensors of the output, none of them named logits"


def test_noise_is_no_token():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    found = ood_auroc(Snapshot(net, F.cross_entropy, [(torch.randint(5, (9, 2)), torch.randint(3, (9,)))]))
    assert (found.value, found.note) == (None, "undefined: inputs are not real numbers")


def test_outputs_that_are_not_finite_are_wrong():
    output = torch.tensor([[1.0, 2.0], [math.nan, 2.0], [1.0, math.inf]])
    assert Reading("logits", 1, 0).wrong(output, torch.tensor([1, 1, 1])).tolist() == [False, True, True]
    one = Reading("logits", None, 0)
    assert one.wrong(torch.tensor([1.0, -1.0, math.nan]), torch.ones(3)).tolist() == [False, True, True]
