"""Plain attributes of methods: which have changed, and what a checkpoint holds of them."""

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from genbench.regularization import Method
from genbench.training import Lane
from genbench.training.attributes import Unsavable, register_missing
from tests.helpers.networks import Counts, network


@dataclass
class Nested:
    seen: list[int] = field(default_factory=list)


class Keeps(Method):
    """Has an attribute of every kind."""

    calls: ClassVar[list[int]] = [0]  # of all methods of this class

    def __init__(self) -> None:
        super().__init__()
        self.setting("strength", 1.0)
        self.count, self.seen, self.by_name, self.window = 0, [1, [2]], {"a": [1.0]}, deque([1])
        self.nested, self.tensor, self.rule = Nested(), torch.zeros(2), lambda x: x
        self.last = None
        self.hidden, self.steps, self.tick = [nn.Linear(1, 1)], (step for step in range(9)), _ticks()
        self.mixed, self.gone = {"rule": lambda: 0, "count": [0]}, 1
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.scale = nn.Parameter(torch.ones(1))

    def decay(self) -> int:
        return TABLE["k"]


TABLE = {"k": 1}


def _ticks():
    count = 0

    def tick():
        nonlocal count
        count += 1
        return count

    return tick


CHANGES = {
    "count": lambda m: setattr(m, "count", 1),
    "seen": lambda m: m.seen[1].append(3),
    "by_name": lambda m: m.by_name["a"].append(2.0),
    "window": lambda m: m.window.append(2),
    "nested": lambda m: m.nested.seen.append(1),
    "tensor": lambda m: m.tensor.add_(1),
    "rule": lambda m: setattr(m, "rule", lambda x: -x),
    "last": lambda m: setattr(m, "last", {"step": (1, True, None), "norms": {2.5}, "mean": torch.ones(1)}),
    "new": lambda m: setattr(m, "new", "text"),
    "gone": lambda m: delattr(m, "gone"),
    "hidden": lambda m: m.hidden[0].weight.data.add_(1),
    "steps": lambda m: next(m.steps),
    "tick": lambda m: m.tick(),
    "mixed": lambda m: m.mixed["count"].append(1),
}


class Wraps(Method):
    """Keeps a module."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Counts()


def test_parts_of_networks_and_methods_are_watched():
    lane, other = (Lane(nn.Sequential(Counts(), nn.ReLU()), [Wraps()], seed=0) for _ in "ab")
    attributes, again = lane.attributes(), other.attributes()
    lane.network(torch.zeros(2, 5, dtype=torch.float64))
    lane.methods[0].part.calls = 7
    assert sorted(attributes.title(key) for key in attributes.changed()) == ["Counts.calls"] * 2
    again.load(attributes.save(), torch.device("cpu"))
    assert (other.network[0].calls, other.methods[0].part.calls) == (1, 7)


@pytest.fixture
def lane():
    return Lane(network(0), [Method(), Keeps()], seed=0)


def test_what_does_not_change_is_not_found(lane):
    attributes = lane.attributes()
    method = lane.methods[1]
    method.strength.fill_(2)  # a buffer
    lane.trained[0].data.add_(1)
    method.count, method.seen = 0, [1, [2]]  # set, to the same
    assert attributes.changed() == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_at_any_depth(lane, name):
    attributes = lane.attributes()
    CHANGES[name](lane.methods[1])
    assert attributes.changed() == [(1, "attribute", name)]
    assert attributes.title(attributes.changed()[0]) == f"Keeps.{name}"


@pytest.mark.parametrize(
    ("change", "title"),
    [
        (lambda method: method.calls.append(1), "Keeps.calls"),
        (lambda method: TABLE.update(k=TABLE["k"] + 1), "Keeps.decay"),
        (lambda method: method.scale.requires_grad_(False), "Keeps's parameters"),
        (lambda method: method.register_forward_hook(lambda *_: None), "Keeps's hooks"),
        (lambda method: method.scale.register_hook(lambda grad: grad), "Keeps's hooks"),
    ],
    ids=["class", "global", "frozen", "hook", "hook of a weight"],
)
def test_a_change_beside_the_attributes_is_found_and_not_saved(lane, change, title):
    attributes = lane.attributes()
    change(lane.methods[1])
    assert [attributes.title(key) for key in attributes.changed()] == [title]
    with pytest.raises(Unsavable, match=rf"^{title} changes in training, and no checkpoint can hold it"):
        attributes.save()


def test_a_buffer_that_is_not_persistent_is_saved(lane):
    attributes = lane.attributes()
    lane.methods[1].cache.add_(1)
    assert attributes.changed() == []  # a buffer may change
    other = Lane(network(1), [Method(), Keeps()], seed=1)
    cache = other.methods[1].cache
    other.attributes().load(attributes.save(), torch.device("cpu"))
    assert torch.equal(cache, torch.ones(2))  # in place, as a pack needs it


def test_a_buffer_that_training_registers_is_loaded(lane):
    lane.methods[1].register_buffer("first", torch.ones(2))
    other = Lane(network(1), [Method(), Keeps()], seed=1)
    register_missing(other, lane.state_dict())
    other.load_state_dict(lane.state_dict())
    assert torch.equal(other.methods[1].first, torch.ones(2))
    register_missing(other, {"nowhere.first": torch.ones(2)})  # loading says what it cannot place
    with pytest.raises(RuntimeError, match=r"nowhere\.first"):
        other.load_state_dict(lane.state_dict() | {"nowhere.first": torch.ones(2)})


def test_what_is_saved_can_be_set_in_another_lane(lane, tmp_path):
    attributes = lane.attributes()
    plain = ("count", "seen", "by_name", "tensor", "last", "new", "gone")
    for name in plain:
        CHANGES[name](lane.methods[1])
    torch.save(attributes.save(), tmp_path / "saved")
    other = Lane(network(1), [Method(), Keeps()], seed=1)
    again = other.attributes()
    again.load(torch.load(tmp_path / "saved", weights_only=True), torch.device("cpu"))
    assert sorted(key.name for key in again.changed()) == sorted(plain)
    ours, theirs = (vars(each.methods[1]) for each in (lane, other))
    for name in ("count", "seen", "by_name", "new"):
        assert ours[name] == theirs[name], name
    assert "gone" not in theirs
    assert torch.equal(theirs["tensor"], torch.ones(2))
    assert theirs["last"] == {"step": (1, True, None), "norms": {2.5}, "mean": torch.ones(1)}


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("window", deque([2]), "deque"),
        ("nested", Nested([1]), "Nested"),
        ("rule", lambda x: -x, "function"),
        ("last", SimpleNamespace(a=1), "SimpleNamespace"),
        ("last", [nn.Linear(1, 1)], "list"),
        ("steps", (step for step in range(2)), "generator"),
        ("mixed", {"rule": lambda: 0, "count": [1]}, "dict"),
    ],
)
def test_what_no_checkpoint_holds_is_named(lane, name, value, kind):
    attributes = lane.attributes()
    setattr(lane.methods[1], name, value)
    with pytest.raises(Unsavable, match=rf"^Keeps\.{name} changes in training, .* this {kind}: .*; accepted: buffers"):
        attributes.save()


def test_a_reference_to_the_network_is_no_state_of_its_own(lane):
    """A copy in its place would no longer follow the network."""
    method = lane.methods[1]
    method.last = list(lane.trained)
    attributes = lane.attributes()
    lane.trained[0].data.mul_(2)
    assert attributes.save() == []
    for reference in (lane.trained[0], lane.trained[0].detach()[1:], id(lane.trained[0]), lane.network):
        method.seen = [reference]
        with pytest.raises(Unsavable, match=r"^Keeps\.seen changes"):
            attributes.save()
