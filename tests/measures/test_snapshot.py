"""What a snapshot promises: the mean over examples, and that measuring changes nothing."""

import inspect
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import genbench.measures as measures
from genbench.measures import Estimate, Snapshot, accuracy, hessian_eigenvalues, hessian_trace, l2_norm, measure
from genbench.models import Ensemble
from tests.helpers.networks import build


def dropout_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))
    net[1].eval()  # mixed modes
    net[4].bias.requires_grad_(False)
    net[0].weight.grad = torch.randn_like(net[0].weight)
    net[0].register_forward_hook(lambda *_: None)
    return net


def state_of(net: nn.Module, loader: DataLoader) -> list:
    tensors = [t.clone() for t in net.state_dict().values()]
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    modes = [m.training for m in net.modules()]
    hooks = [list(m._forward_hooks.items()) for m in net.modules()]
    flags = [p.requires_grad for p in net.parameters()]
    rng = [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), loader.generator.get_state()]
    return [tensors, grads, modes, hooks, flags, rng]


def equal(a, b) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Restless(TensorDataset):
    """Augments with every global generator there is."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.randn_like(x) + random.random() + np.random.rand(), y


def restless() -> DataLoader:
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    return DataLoader(Restless(x, y), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(1))


ALL = [getattr(measures, name) for name in measures.__all__ if hasattr(getattr(measures, name), "family")]
ALL.remove(measures.convolution_interpolation)  # refuses inputs that are no images or signals
OF_TWO = (
    measures.generalization_gap,
    measures.influence,
    measures.memorization_removal,
    measures.disagreement,
    measures.matched_mode_connectivity,
    measures.linear_cka,
    measures.gaussian_interpolation,
    measures.log_prior,
    measures.lempel_ziv_complexity,
    measures.simplicity_bias,
    measures.pac_bayes_optimized,
    measures.subspace_compression_bound,
    measures.train_coherence,
    measures.train_stiffness,
    measures.ratt_bound,
    measures.explained_information,
)


@measure("flatness")
def destructive(snapshot: Snapshot) -> Estimate:
    """Breaks all it can, and raises."""
    net = snapshot.model
    F.cross_entropy(net(torch.randn(5, 4)), torch.zeros(5).long()).backward()
    net.register_forward_hook(lambda *_: None)
    net[0].weight.data.mul_(2)
    net[1].running_mean.add_(1)
    net[4].weight.requires_grad_(False)
    net[0].weight.grad = None
    net.train()
    torch.rand(3), random.random(), np.random.rand()
    raise RuntimeError("broken")


@pytest.mark.parametrize("function", [*ALL, destructive], ids=lambda f: f.__name__)
def test_everything_is_restored(function):
    net, loader = dropout_net(), restless()
    initial = {k: torch.zeros_like(v) for k, v in net.state_dict().items()}
    before = state_of(net, loader)
    if function is destructive:
        with pytest.raises(RuntimeError, match="broken"):
            function(Snapshot(net, F.cross_entropy, loader, initial=initial))
    elif function in OF_TWO:
        both = [Snapshot(net, F.cross_entropy, loader, initial=initial) for _ in range(2)]
        few = {"steps": 16, "samples": 5} if function is measures.pac_bayes_optimized else {}
        function(both[0], **{list(inspect.signature(function).parameters)[1]: both[1]}, **few)
    elif function is measures.over_examples:
        function(Snapshot(net, F.cross_entropy, loader, initial=initial), measures={"trace": measures.hessian_trace})
    elif function in (measures.rescaled, measures.scale_dependence):
        function(Snapshot(net, F.cross_entropy, loader, initial=initial), measure=measures.keskar_sharpness)
    else:
        needed = {
            measures.stability_ratio: {"lr": 0.1},
            measures.gradient_step: {"lr": 0.1},
            measures.critical_sample_ratio: {"radius": 0.1, "step_size": 0.05},
        }
        function(Snapshot(net, F.cross_entropy, loader, initial=initial), **needed.get(function, {}))
    assert equal(state_of(net, loader), before)


def test_restored_after_an_exception_in_the_loss():
    net, loader = dropout_net(), restless()
    before = state_of(net, loader)
    calls = []

    def loss(output, target):
        calls.append(1)
        if len(calls) > 3:
            raise ZeroDivisionError
        return F.cross_entropy(output, target)

    with pytest.raises(ZeroDivisionError):
        hessian_eigenvalues(Snapshot(net, loss, loader))
    assert equal(state_of(net, loader), before)


def test_passes_over_an_augmenting_shuffling_loader_agree():
    snapshot = Snapshot(dropout_net(), F.cross_entropy, restless())
    assert snapshot.loss_at(snapshot.vector) == pytest.approx(snapshot.mean_loss, rel=1e-7)
    v = torch.randn(snapshot.size, dtype=torch.float64)
    assert torch.equal(snapshot.hessian.matvec(v), snapshot.hessian.matvec(v))


def test_training_on_changes_no_snapshot():
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    before = hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value
    with torch.no_grad():
        net[0].weight.mul_(3)
        net[1].running_mean.add_(1)
    assert hessian_trace(snapshot).value == before


def test_evaluation_mode():
    net, x, y = build("conv")
    net.train()
    torch.testing.assert_close(
        Snapshot(net, F.cross_entropy, [(x, y)]).mean_loss, float(F.cross_entropy(net.eval()(x), y))
    )


def test_batches_weigh_by_their_examples():
    net, x, y = build("mlp")
    uneven = Snapshot(net, F.cross_entropy, [(x[:1], y[:1]), (x[1:], y[1:])])
    assert uneven.mean_loss == pytest.approx(float(F.cross_entropy(net(x), y)), rel=1e-12)
    loss, gradient = uneven.gradient_at(uneven.vector)
    exact = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    assert loss == pytest.approx(uneven.mean_loss, rel=1e-12)
    torch.testing.assert_close(gradient, torch.cat([g.reshape(-1) for g in exact]))


def test_under_no_grad_and_inference_mode():
    net, x, y = build("mlp")
    expected = hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value
    with torch.no_grad():
        assert hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value == expected
    with torch.inference_mode():
        assert hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value == expected


def test_a_generator_is_read_once_and_kept():
    net, x, y = build("mlp")
    batches = ((a, b) for a, b in zip(x.split(5), y.split(5), strict=True))
    snapshot = Snapshot(net, F.cross_entropy, batches)
    assert snapshot.examples == 24
    assert hessian_trace(snapshot).value == pytest.approx(hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value)


def test_forward_for_other_batches():
    net, x, y = build("mlp")
    batches = [{"signal": x, "label": y}]
    snapshot = Snapshot(net, F.cross_entropy, batches, forward=lambda m, b: (m(b["signal"]), b["label"]))
    assert snapshot.mean_loss == Snapshot(net, F.cross_entropy, [(x, y)]).mean_loss


def test_ensemble_is_the_mean_of_its_members_but_one_predictor():
    (a, x, y), (b, _, _) = build("mlp", seed=0), build("mlp", seed=1)
    pair = Snapshot(Ensemble([a, b]), F.cross_entropy, [(x, y)])
    single = [Snapshot(net, F.cross_entropy, [(x, y)]) for net in (a, b)]
    for function in (hessian_trace, measures.sam_sharpness, measures.average_sharpness):
        estimate, parts = function(pair), [function(s) for s in single]
        assert estimate.value == pytest.approx(sum(p.value for p in parts) / 2)
        assert estimate.note == "; ".join(["mean of 2 members", *(p.note for p in parts if p.note)])
        if parts[0].stderr is not None:
            assert estimate.stderr == pytest.approx(sum(p.stderr**2 for p in parts) ** 0.5 / 2)
    norms = l2_norm(pair)
    assert norms["l2"].value == pytest.approx(sum(l2_norm(s)["l2"].value for s in single) / 2)
    initial = {k: torch.zeros_like(v) for k, v in Ensemble([a, b]).state_dict().items()}
    moved = measures.distance_from_init(Snapshot(Ensemble([a, b]), F.cross_entropy, [(x, y)], initial=initial))
    assert moved["distance"].value == pytest.approx(norms["l2"].value)
    averaged = (a(x).softmax(1) + b(x).softmax(1)) / 2
    assert accuracy(pair).value == pytest.approx(float((averaged.argmax(1) == y).double().mean()))
    assert measures.cross_entropy(pair).value == pytest.approx(float(F.nll_loss(averaged.log(), y)))
    assert accuracy(pair).note is None


FIELD_NAMES = [
    *("hessian_eigenvalues", "hessian_trace", "sam_sharpness", "average_sharpness", "adaptive_sharpness"),
    *("l2_norm", "distance_from_init", "spectral_norm"),
    *("accuracy", "cross_entropy", "soft_error", "calibration_error"),
]


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_exported_under_its_field_name(name):
    assert name in measures.__all__
    assert getattr(measures, name).__name__ == name
    assert getattr(measures, name).__doc__


def bad(name):
    net, x, y = build("mlp")
    batches = [(x, y)]
    loss = F.cross_entropy
    if name == "empty":
        batches = []
    elif name == "empty loader":
        batches = DataLoader(TensorDataset(x[:0], y[:0]))
    elif name == "nan weights":
        net[0].weight.data[0, 0] = float("nan")
    elif name == "infinite weights":
        net[0].bias.data[0] = float("inf")
    elif name == "nan loss":
        batches.append((x * float("nan"), y))
    elif name == "dict":
        batches = [{"x": x, "y": y}]
    elif name == "triple":
        batches = [(x, y, y)]
    elif name == "tensor":
        batches = [x]
    elif name == "targets":
        batches = [(x, y + 7)]
    elif name == "vector loss":
        loss = nn.CrossEntropyLoss(reduction="none")
    elif name == "dropout":
        net = nn.Sequential(net, type("Always", (nn.Module,), {"forward": lambda self, x: F.dropout(x, 0.5)})())
    elif name == "frozen":
        net.requires_grad_(False)
    elif name == "no batches":
        batches = 3
    elif name == "no examples":
        batches = [(x[:0], y[:0])]
    elif name == "lazy":
        net = nn.LazyLinear(3)
    elif name == "function":
        net = net.forward
    elif name == "no loss":
        loss = "cross_entropy"
    more = {name.removeprefix("no "): 3} if name in ("no forward", "no count") else {}
    return lambda: hessian_trace(Snapshot(net, loss, batches, **more), deflation=2, probes=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "batches is empty"),
        ("empty loader", "batches is empty"),
        ("nan weights", "weights '0.weight' are not finite"),
        ("infinite weights", "weights '0.bias' are not finite"),
        ("nan loss", "loss is nan on batch 1"),
        ("dict", "batch is a dict with keys x, y; accepted: a pair"),
        ("triple", "batch is a tuple of length 3"),
        ("tensor", "batch is a float64 tensor"),
        ("targets", "Target .* is out of bounds"),
        ("vector loss", r"loss returned a float64 tensor of shape \(24,\)"),
        ("dropout", "random numbers in evaluation mode"),
        ("frozen", "no trainable parameters"),
        ("no batches", "batches is 'int'"),
        ("no examples", "no examples"),
        ("lazy", "'weight' is not initialized"),
        ("function", "model is 'method'"),
        ("no loss", "loss is 'cross_entropy'; accepted: a function of output and target$"),
        ("no forward", "forward is 3; accepted: a function of model and batch, or null"),
        ("no count", "count is 3; accepted: a function of output and target, or null"),
    ],
)
def test_bad_input_is_one_clear_line(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        bad(name)()
    assert "\n" not in str(caught.value)


def test_one_example_and_one_class():
    net, x, _ = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x[:1], torch.zeros(1).long())])
    assert np.isfinite(hessian_trace(snapshot).value)
    single = Snapshot(nn.Linear(4, 1).double(), F.cross_entropy, [(x, torch.zeros(24).long())])
    assert accuracy(single).value is None
    assert "one output an example" in accuracy(single).note


def test_what_needs_only_outputs_shares_one_forward_pass():
    net, x, y = build("mlp", n=240)
    rows = []
    net.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    snapshot = Snapshot(net, F.cross_entropy, [(x[:80], y[:80]), (x[80:], y[80:])])
    names = ("accuracy", "cross_entropy", "soft_error", "calibration_error", "margin", "margin_quantiles")
    names += ("inverse_margin", "negative_entropy", "norms_over_margin")
    for name in names:
        getattr(measures, name)(snapshot)
    few = 3 * 32  # they show how the network and the loss treat the examples: twice whole, once in halves
    assert sum(rows) == len(x) + few
    for name in ("normalized_margin", "effective_rank", "participation_ratio", "neural_collapse"):
        getattr(measures, name)(snapshot)
    assert sum(rows) == 2 * len(x) + few  # what layers are given takes hooks: another pass, also shared


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(reduction="sum"), lambda out, y: F.mse_loss(out, out * 0, reduction="sum")]
)
def test_a_loss_that_is_a_sum_is_refused(loss):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=r"loss is the sum over the examples of a batch; accepted: their mean"):
        hessian_trace(Snapshot(net, loss, [(x, y)]))


def test_a_loss_that_couples_the_examples_is_not_taken_for_a_sum():
    net, x, y = build("mlp")
    coupled = Snapshot(net, lambda out, y: torch.logsumexp(out, 0).mean() + F.cross_entropy(out, y), [(x, y)])
    assert hessian_trace(coupled).value is not None


def test_curvature_of_a_loss_within_rounding_is_that_of_a_copy_in_float64():
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[20.0, 0, 0], [-20, 0, 0]]))
    x, y = torch.ones(6, 3), torch.zeros(6, dtype=torch.long)
    x[0] = 0.45  # the loss is that of this example: 1.5e-8 / 6
    found = hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)]))
    exact = hessian_trace(Snapshot(net.double(), F.cross_entropy, [(x.double(), y)]))
    assert found.note is None
    assert found.value == pytest.approx(exact.value, rel=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_on_another_device_than_its_batches():
    net, x, y = build("mlp")
    here = hessian_eigenvalues(Snapshot(net.double(), F.cross_entropy, [(x.double(), y)]), k=2)
    there = hessian_eigenvalues(Snapshot(net.double().cuda(), F.cross_entropy, [(x.double(), y)]), k=2)
    assert there["lambda_1"].value == pytest.approx(here["lambda_1"].value, rel=1e-6)
