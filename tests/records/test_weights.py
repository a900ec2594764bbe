"""Weights of other people's files: found wherever they stand, by whichever name, and refused where that is a guess."""

import argparse
import functools
import re

import numpy as np
import pytest
import torch
from torch import nn

from genbench.checks import ConfigError
from genbench.records.weights import read_state
from genbench.runs.subject import load_weights


def make(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(32, 3))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight


STATE = make(0).state_dict()
EMA = {key: t + 1 for key, t in STATE.items()}


def named(start, state=STATE):
    return {f"{start}{key}": t for key, t in state.items()}


def fill(network, content, path, key=None):
    torch.save(content, path)
    load_weights(network, read_state(path), "checkpoint", key=key)
    return network


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"net": STATE, "acc": 93.0, "epoch": 12},
        {"model_state": STATE, "step": 3},
        {"params_ema": STATE},
        {"a": [1, {"b": {"weights": STATE}}]},
        {
            "epoch": torch.tensor(3),
            "state_dict": named("module."),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(4)}}},
        },
        {"state_dict": named("net._orig_mod."), "pytorch-lightning_version": "2.6"},
        named("ema.module."),
        {"0": {"weight": STATE["0.weight"], "bias": STATE["0.bias"]}}
        | {"1": {key[2:]: t for key, t in STATE.items() if key[0] == "1"}}
        | {"3": {key[2:]: t for key, t in STATE.items() if key[0] == "3"}},
        {"state_dict": STATE, "best_acc": np.float64(0.93), "epoch": np.int64(3), "lr": np.float32(0.1)},
        {"model": STATE, "again": STATE},  # the same tensors: no choice to make
        {"model": STATE, "again": {key: t.clone() for key, t in STATE.items()}},
        {"model": named("net.") | named("criterion.", {"weight": torch.ones(3)})},
        {key: t for key, t in STATE.items() if "num_batches" not in key},
    ],
    ids=lambda content: "+".join(list(map(str, content))[:2]),
)
def test_weights_are_found_wherever_they_stand(content, tmp_path):
    network = fill(make(), content, tmp_path / "file.pt")
    assert all(torch.equal(t, STATE[key]) for key, t in network.state_dict().items())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_what_is_wrapped_within_the_network_or_within_the_file_does_not_count(wrap, tmp_path):
    def build(wrapped):
        net = make()
        features = nn.Sequential(net[0], net[1])
        return nn.ModuleDict({"features": wrap(features) if wrapped else features, "head": net[3]})

    content = {f"features.{key}" if key[0] in "01" else f"head.{key[2:]}": t for key, t in STATE.items()}
    plain = fill(build(False), content, tmp_path / "plain.pt")
    assert torch.equal(plain["features"][0].weight, STATE["0.weight"])
    wrapped = fill(build(True), content, tmp_path / "plain.pt")
    assert wrapped.state_dict().keys() != plain.state_dict().keys()
    for net in (wrapped, fill(build(False), wrapped.state_dict(), tmp_path / "wrapped.pt")):
        assert all(
            torch.equal(one, other)
            for one, other in zip(net.state_dict().values(), plain.state_dict().values(), strict=True)
        )


def test_half_precision_becomes_the_networks(tmp_path):
    content = {key: t.half() if t.is_floating_point() else t for key, t in STATE.items()}
    network = fill(make(), content, tmp_path / "half.pt")
    assert torch.equal(network[0].weight, STATE["0.weight"].half().float())


@pytest.mark.parametrize("name", ["table.weight", "head.weight"])
def test_a_tensor_with_two_names_may_be_stored_under_one(name, tmp_path):
    value = torch.randn(10, 4)
    network = fill(Tied(), {"net": {name: value}}, tmp_path / "tied.pt")
    assert network.table.weight is network.head.weight
    assert torch.equal(network.table.weight, value)
    both = {"table.weight": value, "head.weight": value + 1}
    with pytest.raises(ConfigError, match=r"'table.weight' and 'head.weight' differ, but are one tensor"):
        fill(Tied(), both, tmp_path / "tied.pt")


def test_of_two_that_fit_equally_well_one_is_to_be_chosen(tmp_path):
    content = {"state_dict": STATE, "state_dict_ema": EMA}
    with pytest.raises(ConfigError, match=r"^checkpoint has several states that fit equally well; accepted: ") as error:
        fill(make(), content, tmp_path / "two.pt")
    assert re.findall(r"key=(\S+?)(?:,|$)", str(error.value)) == ["state_dict", "state_dict_ema"]
    for key, state in content.items():
        assert torch.equal(fill(make(), content, tmp_path / "two.pt", key)[0].weight, state["0.weight"])
    assert torch.equal(fill(make(), STATE | {"ema": EMA}, tmp_path / "two.pt", ".")[0].weight, STATE["0.weight"])
    lanes = {"models": [STATE, EMA]}
    with pytest.raises(ConfigError, match=r"accepted: key=models\.0, key=models\.1$"):
        fill(make(), lanes, tmp_path / "two.pt")
    assert torch.equal(fill(make(), lanes, tmp_path / "two.pt", "models.1")[0].weight, EMA["0.weight"])
    with pytest.raises(ConfigError, match="nothing that fits at key=ema; accepted: key=state_dict, key=state_dict_ema"):
        fill(make(), content, tmp_path / "two.pt", "ema")
    # one that fits better is taken
    worse = {"small": {"0.weight": torch.ones(8, 1, 3)}, "net": STATE}
    assert torch.equal(fill(make(), worse, tmp_path / "two.pt")[0].weight, STATE["0.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": {key: t for key, t in STATE.items() if key != "3.bias"}}, "checkpoint has no '3.bias'"),
        ({"net": STATE | {"4.weight": torch.ones(2)}}, "checkpoint has '4.weight', which the model has not"),
        ({"net": STATE | {"3.bias": torch.ones(5)}}, r"checkpoint: '3.bias' has shape \(5,\), the model's \(3,\)"),
        ({"other": {"kernel": torch.ones(2)}}, "checkpoint has no '0.weight'"),
        ({"epoch": 3}, "'file.pt' holds no state dict"),
    ],
)
def test_what_does_not_fit_is_named(content, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fill(make(), content, tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (functools.partial(torch.optim.Adam, lr=0.1), "functools.partial"),
        (make(), "torch.nn.modules.container.Sequential"),
    ],
)
def test_what_cannot_be_loaded_safely_is_named(extra, named, tmp_path):
    with pytest.raises(ConfigError, match="holds no weights that can be loaded safely") as error:
        fill(make(), {"model": STATE, "args": extra}, tmp_path / "file.pt")
    assert f"it holds {named}, which is no tensor; accepted: a state dict alone" in str(error.value)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_a_file_that_holds_itself_ends(tmp_path):
    content = {"net": STATE}
    content["self"] = content
    network = fill(make(), content, tmp_path / "loop.pt")
    assert torch.equal(network[0].weight, STATE["0.weight"])
