import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

import genbench.measures
from genbench.callbacks import Measures, Optimization
from genbench.checks import covers
from genbench.measures import (
    Estimate,
    Snapshot,
    distance_from_init,
    hessian_eigenvalues,
    hessian_trace,
    l2_norm,
    measure,
    relative_flatness,
    spectral_norm,
)
from genbench.measures.base import names_of
from tests.helpers.lightning_projects import (
    Multitask,
    Odd,
    Plain,
    data,
    fit,
    multitask,
    multitask_loss,
)

CONF = Path(__file__).parents[2] / "conf"
NORMS = {"l2": l2_norm, "distance": distance_from_init, "spectral": spectral_norm}


def full(dataset) -> list:
    return [tuple(dataset.tensors)]


def test_weight_norms_since_the_start():
    norms = Measures(measures=NORMS)
    module = Plain()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, [norms])
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double()
    moved = torch.cat([(p.detach() - start[name]).reshape(-1) for name, p in module.named_parameters()]).double()
    assert norms.results["weights/norm/l2"].value == pytest.approx(float(flat.norm()))
    assert norms.results["weights/norm/distance"].value == pytest.approx(float(moved.norm()))
    tops = [float(torch.linalg.svdvals(p.detach())[0]) for p in module.parameters() if p.ndim == 2]
    assert norms.results["weights/norm/spectral"].value == pytest.approx(max(tops), rel=1e-5)
    weight = module.layers[0].weight.detach()
    assert norms.results["weights/norm/l2.layers.0.weight"].value == pytest.approx(float(weight.norm()), rel=1e-6)


def test_flatness_is_that_of_the_final_weights():
    flatness = Measures()
    module = Plain()
    fit(module, [flatness])
    names = ("lambda_1", "trace", "sam_sharpness", "average_sharpness", "adaptive_sharpness")
    whole = [key for key in flatness.results if "." not in key]
    assert whole == [*(f"weights/norm/{name}" for name in NORMS), *(f"train/flatness/{name}" for name in names)]
    snapshot = Snapshot(module, F.cross_entropy, full(data(64, 0)))
    top = flatness.results["train/flatness/lambda_1"]
    assert top.value == pytest.approx(hessian_eigenvalues(snapshot)["lambda_1"].value, rel=1e-4)
    assert top.converged
    assert top.residual <= 1e-3
    trace = flatness.results["train/flatness/trace"]
    assert trace.value == pytest.approx(hessian_trace(snapshot).value, rel=1e-3)
    assert trace.stderr > 0


@measure("flatness")
def refuses(snapshot: Snapshot) -> Estimate:
    assert snapshot.examples  # a measure that fails on its settings is refused before training
    raise ValueError("not for\nthis network")


@measure("flatness", of_weights=True)
def breaks(snapshot: Snapshot) -> Estimate:
    with torch.no_grad():
        for p in snapshot.model.parameters():
            p.add_(1)
    snapshot.model.train()
    torch.rand(3)
    return {}["nothing"]


def returns_a_number(snapshot: Snapshot) -> float:
    return 0.5


def plain(snapshot: Snapshot) -> Estimate:
    return Estimate(snapshot.mean_loss)


def infinite(snapshot: Snapshot) -> Estimate:
    return Estimate(math.inf, stderr=math.nan)


def test_a_measure_that_raises_is_null_with_the_reason_and_stops_nothing():
    bad = {"a": refuses, "b": breaks, "c": returns_a_number, "d": infinite}
    callback = Measures(measures={**bad, "e": plain, "f": partial(plain)}, every_n_epochs=1)
    module = Plain()
    fit(module, [callback])
    notes = {key: estimate.note for key, estimate in callback.results.items()}
    assert notes == {
        "train/flatness/a": "not for this network",
        "weights/flatness/b": "KeyError: 'nothing'",
        "train/other/c": "TypeError: a measure returned 0.5; accepted: an Estimate, or several in a dict by name",
        "train/other/d": "the value is inf",
        "train/other/e": None,
        "train/other/f": None,
    }
    values = [estimate.value for estimate in callback.results.values()]
    assert values[:4] == [None] * 4
    expected = Snapshot(module, F.cross_entropy, full(data(64, 0))).mean_loss
    assert values[4:] == pytest.approx([expected] * 2, rel=1e-5)


def test_training_is_the_same_with_measures_that_raise():
    states = []
    for callbacks in ([], [Measures(measures={"a": refuses, "b": breaks, "c": returns_a_number}, every_n_steps=2)]):
        torch.manual_seed(0)
        module = Plain()
        fit(module, callbacks)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_interrupted_measurement_interrupts_the_training():
    def interrupted(snapshot: Snapshot) -> Estimate:
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(callbacks=[Measures(measures={"a": interrupted}, every_n_epochs=1)])


def test_two_measures_that_give_one_key_are_told_apart_from_none():
    both = {"a": hessian_eigenvalues, "b": partial(hessian_eigenvalues, k=2)}
    callback = Measures(measures=both)
    fit(callbacks=[callback], max_epochs=1)
    assert callback.results["train/flatness/lambda_2"].value is not None
    callback = Measures(measures={**both, "c": partial(hessian_eigenvalues, max_steps=1)})
    fit(callbacks=[callback], max_epochs=1)
    assert "several measures" in callback.results["train/flatness/lambda_1"].note


def test_measures_of_the_weights_need_no_data():
    callback = Measures(measures={**NORMS, "lambda_1": hessian_eigenvalues, "trace": hessian_trace}, split="val")
    fit(Odd(), [callback], max_epochs=1)
    assert all(callback.results[f"weights/norm/{name}"].value is not None for name in NORMS)
    assert callback.results["val/flatness/trace"] == replace(
        callback.results["val/flatness/trace"], value=None, note="there is no val split"
    )


def test_one_snapshot_serves_all_measures():
    seen = set()

    @measure("flatness")
    def remember(snapshot: Snapshot) -> Estimate:
        seen.add(id(snapshot.losses))
        assert snapshot.session.live is not None
        return Estimate(0.0)

    callback = Measures(measures={"a": remember, "b": remember, "c": partial(remember)})
    fit(callbacks=[callback], max_epochs=1)
    assert len(seen) == 1
    assert [e.value for e in callback.results.values()] == [0.0] * 3


def test_every_measure_says_the_names_of_its_estimates():
    functions = {name: each for name, each in vars(genbench.measures).items() if hasattr(each, "family")}
    assert len(functions) > 80
    assert [name for name, each in functions.items() if "*" in names_of(name, each)] == []


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("weights/norm/l2", True),
        ("weights/norm/l2.net.0.weight", True),
        ("weights/norm/l22", False),
        ("weights/norm/share_of_small_weights", True),
        ("weights/norm/share_of_smal_weights", False),
        ("train/flatness/lambda_1", True),
        ("train/flatness/lambda1", False),
        ("train/other/anything", True),
    ],
)
def test_the_names_that_measures_say_are_known_before_training(key, known):
    @measure("norm", of_weights=True)
    def share(snapshot: Snapshot) -> Estimate:
        return Estimate(0.5)

    def silent(snapshot):
        return {"anything": Estimate(1.0)}

    norms = {"l2": genbench.measures.l2_norm, "lambda_1": genbench.measures.hessian_eigenvalues}
    callback = Measures(measures={**norms, "share_of_small_weights": share, "silent": silent})
    assert covers(callback.keys(["train"]), key) is known


def test_a_stranger_gets_the_full_set_without_subclassing():
    """With dictionaries of two inputs, two heads and two losses, every measure is a number or a null with a reason."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        nodes = compose("train", ["measures=full"]).measures
    full = {name: instantiate(node) for name, node in nodes.items()}
    given = {"loss": multitask_loss, "forward": multitask}
    callback = Measures(measures=full, every_n_epochs=2, **given)
    states = []
    for callbacks in ([], [callback, Optimization(every_n_steps=1, **given)]):
        torch.manual_seed(0)
        module = Multitask()
        fit(module, callbacks, max_epochs=2)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    known = callback.keys(["train", "val", "test"])
    measured = {key for key, estimate in callback.results.items() if estimate.value is not None}
    assert {key for key in measured if not covers(known, key)} == set()
    for key, estimate in callback.results.items():
        if estimate.value is None:
            assert estimate.note, key
            assert not re.match(r"\w+Error: ", estimate.note), (
                key,
                estimate.note,
            )  # a foreseen reason, not an error's text
        else:
            assert math.isfinite(estimate.value), key
    x, y = data(60, 0).tensors
    batch = {"signal": x, "context": x[:, :2].flip(1), "label": y, "amount": x.sum(1)}
    module.eval()
    loss = multitask_loss(*multitask(module, batch))
    trained = [p for p in module.parameters() if p.requires_grad]
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, trained)])
    assert callback.results["train/optimization/gradient_norm"].value == pytest.approx(float(slope.norm()), rel=1e-4)
    for key in ("lambda_1", "trace", "sam_sharpness", "ggn_trace", "empirical_fisher_trace"):
        assert callback.results[f"train/flatness/{key}"].value > 0, key


@pytest.mark.parametrize("members", [None, 2], ids=["network", "ensemble"])
def test_a_layer_that_the_network_has_not_is_refused_before_training(members):
    class Several(Plain):
        def __init__(self) -> None:
            super().__init__()
            if members:
                self.members = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])

    found = {"flat": partial(relative_flatness, layer="nosuch")}
    accepted = "weight" if members else "layers.0.weight"  # of a member, as it is measured by member
    with pytest.raises(ValueError, match=rf"measures\.flat\.layer is 'nosuch'; accepted: {accepted}"):
        fit(Several(), [Measures(measures=found)])
