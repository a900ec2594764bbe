"""A rehearsal of a GPU on any machine: no tensor of another device, and no wait within a training step.

Everything that the configuration folder offers trains, is evaluated and is measured on the device of
:mod:`tests.device.pretended`.
"""

import inspect
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from genbench import config
from genbench.inputs.attacks import NORMS, perturb, random_start
from genbench.inputs.augmentation import augmented
from genbench.inputs.common_corruptions import corrupt
from genbench.inputs.common_corruptions.images import IMAGES
from genbench.inputs.common_corruptions.sequences import SEQUENCES
from genbench.measures import Estimate, Snapshot
from genbench.measures.base import evaluate as measure
from genbench.measures.base import of_train
from genbench.measures.snapshot import MARKS
from genbench.models import Ensemble
from genbench.regularization import Mixup
from genbench.rng import StepRandom
from genbench.runs import execute
from genbench.runs.build import build_data, make
from genbench.training.module import evaluate
from genbench.training.unpackable import Unpackable
from tests.device.cases import CASES, overrides
from tests.device.pretended import NAME, POSSIBLE, Mismatch, Rehearsal
from tests.device.waits import BETWEEN
from tests.helpers.choices import SEPARATE, choices, merged
from tests.helpers.equality import apart
from tests.helpers.packs import LANES, built, separately, together

pytestmark = pytest.mark.skipif(not POSSIBLE, reason=f"torch {torch.__version__} has no backends in Python")

SMALL = ["data.train_size=60", "data.val_fraction=0.2", "data.batch_size=10"]
FOUR = (*LANES, {"seed": 3})
STEPS = 3  # of which the first traces a pack's step and makes the states of optimizers
LEARNING = ["data.train_size=30", "data.batch_size=12", "optimizer=adam", "optimizer.lr=0.02"]
# of the settings of measures: some take thousands of steps, some need more examples
SHORT = {
    **{"batches": 2, "burn_in": 10, "chains": 2, "evaluations": 3, "leaps": 1, "m": 6, "min_tail": 2, "pairs": 2},
    **{"probes": 2, "samples": 4, "starts": 2, "steps": 16},
}
# networks that are measured: every measure is taken of the first two, and of others until it has a value
MEASURED = {
    "mlp": ["model=mlp", "model.width=6", "data.label_noise=0.2"],
    "cnn": ["model=cnn", "model.width=2", "data=digits"],
    "of two classes": ["model=mlp", "model.width=6", "data=boolean_functions"],
    "ensemble": ["model=mlp", "model.width=6", "regularization=ensemble", "regularization.ensemble.members=2"],
    "in a subspace": [
        *("model=mlp", "model.width=6"),
        *("regularization=random_subspace", "regularization.random_subspace.dimension=30"),
    ],
}


class Watched(Rehearsal):
    """A rehearsal of training; ``within`` are the waits within steps, ``waits`` those of what comes after."""

    def __init__(self):
        super().__init__()
        self.within = set()

    @contextmanager
    def around(self, step):
        self.waits.clear()
        yield
        if step > 0:
            self.within |= self.waits

    def train(self, configure, model, method, optimizer, scheduler):
        """Train alone, and packed where the optimizer allows it; then do what follows an epoch and the last one."""
        configs = configure(*overrides(model, method, optimizer, scheduler), *SMALL, each=FOUR)
        settings = {"device": NAME, "around": self.around}
        with self:
            lanes = separately(configs[0], torch.float32, STEPS, **settings)
            if optimizer not in SEPARATE:
                lanes += together(configs, torch.float32, STEPS, **settings)[:1]
            data = build_data(configs[0]).to(NAME)
            self.waits.clear()
            for lane in lanes:
                if lane.validates:
                    lane.after_epoch(lambda split, net=lane.network: evaluate(net, data.evaluation_batches(split)))
                lane.finish(data.evaluation_batches("train"))
                assert evaluate(lane.network, data.evaluation_batches("test"))["cross_entropy"] > 0


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_trains_alone_and_packed_and_is_evaluated(configure, case):
    rehearsal = Watched()
    rehearsal.train(configure, *case)
    assert rehearsal.mismatches == []
    assert rehearsal.within == set()
    assert {wait for wait in rehearsal.waits if wait.place not in BETWEEN} == set()


@pytest.mark.parametrize("case", sorted({case for case, _ in BETWEEN.values()} - {"a run", "a pack"}))
def test_places_that_wait_between_steps_do_so(configure, case):
    rehearsal = Watched()
    rehearsal.train(configure, *case.split("-"))
    assert {place for place, (shown, _) in BETWEEN.items() if shown == case} <= {w.place for w in rehearsal.waits}


# -- whole runs


@pytest.mark.parametrize("what", ["a run", "a pack"])
def test_whole_runs_wait_where_it_is_said(configure, monkeypatch, what):
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", property(lambda _: torch.device(NAME, 0)))
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda *_: None)  # it refuses other devices
    chosen = ["model=mlp", "model.width=6", "regularization=early_stopping", "checkpoint_seconds=0"]
    configs = configure(*chosen, *SMALL, "trainer.max_steps=9", each=FOUR)
    with Rehearsal() as rehearsal:
        if what == "a run":
            found = [execute.run(configs[0])]
        else:
            found = execute.run_packed(configs, choices=[{}] * len(configs), overrides=[()] * len(configs))
    assert [(record["status"], record["error"]) for record in found] == [("completed", None)] * len(found)
    assert rehearsal.mismatches == []
    places = {wait.place for wait in rehearsal.waits if not wait.place.startswith("genbench/measures/")}
    assert places - BETWEEN.keys() == set()
    assert {place for place, (shown, _) in BETWEEN.items() if shown == what} - places == set()


# -- measures


def measures():
    """The measures of every set, as the set and the name; of equal ones the first."""
    found, seen = [], []
    for choice in choices("measures"):
        for name, node in OmegaConf.to_container(merged(config.choices("measures")[choice])).items():
            if node not in seen:
                seen.append(node)
                found.append((choice, name))
    return found


def trained(configure, name):
    """A network of the CPU that has learned a few examples, with the weights that it started from, and its data."""
    if name not in _TRAINED:
        chosen = configure(*MEASURED[name], *LEARNING)
        networks = [lane.network for lane in separately(chosen, torch.float32, 200)]
        starts = [lane.network for lane in built(chosen, torch.float32)[1].lanes]
        network, start = (nets[0] if len(nets) == 1 else Ensemble(nets) for nets in (networks, starts))
        _TRAINED[name] = network, start.state_dict(), build_data(chosen)
    return _TRAINED[name]


_TRAINED = {}


def snapshot(configure, name, split):
    """A network on the device, on some of its examples."""
    network, start, data = deepcopy(trained(configure, name))
    network, start = network.to(NAME), {key: tensor.to(NAME) for key, tensor in start.items()}
    batches = [tuple(t[rows].to(NAME) for t in data.tensors(split)) for rows in (slice(12), slice(12, 24))]
    marks = {name: getattr(data, name)(split)[:24] for name in MARKS}
    return Snapshot(network, F.cross_entropy, batches, initial=start, **marks)


@pytest.mark.parametrize(("choice", "name"), measures(), ids=str)
def test_measures(configure, choice, name):
    node = configure(f"measures={choice}", *MEASURED["in a subspace"])["measures"][name]
    function = make({key: min(value, SHORT[key]) if key in SHORT and value else value for key, value in node.items()})
    found = {}
    for index, (subject, split) in enumerate((subject, split) for split in ("train", "test") for subject in MEASURED):
        if index > 1 and any(each.value is not None for values in found.values() for each in values):
            break  # of the first two all, of the others until there is a value
        with Rehearsal() as rehearsal:
            train = {"train": snapshot(configure, subject, "train")} if of_train(function) else {}
            seen = snapshot(configure, subject, split)
            found[subject, split] = measure({name: partial(function, **train)}, seen, split=split).values()
        assert rehearsal.mismatches == []
    else:
        pytest.fail(f"no value: {found}")


# -- inputs


SEQUENCE, IMAGE = (4, 2, 20), (4, 3, 16, 16)


def inputs(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(NAME)


@pytest.mark.parametrize(
    ("shape", "corruption"), [*((SEQUENCE, each) for each in SEQUENCES), *((IMAGE, each) for each in IMAGES)]
)
@pytest.mark.parametrize("severity", [1, 5])
def test_corruptions(shape, corruption, severity):
    with Rehearsal() as rehearsal:
        x = corrupt(inputs(*shape), corruption, severity, StepRandom(0, 0))
        assert x.device.type == NAME
    assert rehearsal.mismatches == []


@pytest.mark.parametrize("shape", [SEQUENCE, IMAGE])
def test_augmentations(shape):
    with Rehearsal() as rehearsal:
        x, draw = inputs(*shape), StepRandom(0, 0, device=NAME)
        rehearsal.waits.clear()
        assert augmented(x, draw, shift=0.1, scale=0.1, rotation=15, noise=0.1).device.type == NAME
    assert (rehearsal.mismatches, rehearsal.waits) == ([], set())


@pytest.mark.parametrize("norm", NORMS)
def test_attacks(norm):
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 3))
    with Rehearsal() as rehearsal:
        x, y = inputs(*SEQUENCE), torch.arange(4, device=NAME) % 3
        start = random_start(StepRandom(0, 0, device=NAME), "start", x, norm)
        size = torch.full((), 0.1, device=NAME)
        net.to(NAME)
        rehearsal.waits.clear()
        attacked = perturb(net, x, y, norm=norm, epsilon=size, step_size=size, steps=2, start=start, low=0, high=1)
        assert attacked.device.type == NAME
    assert (rehearsal.mismatches, rehearsal.waits) == ([], set())


# -- what is wrong is found


class Reading(Mixup):
    def transform(self, net, x, y, draw):
        return (x + self.alpha.item(), y)  # a wait


class Copying(Mixup):
    def transform(self, net, x, y, draw):
        return (x + torch.tensor(1.0).to(x.device), y)  # a wait


class Choosing(Mixup):
    def transform(self, net, x, y, draw):
        x[x > 0] -= 1  # a wait
        return x, y


class Forgetting(Mixup):
    def transform(self, net, x, y, draw):
        return (x + torch.ones(x.shape[-1]), y)  # a tensor of the CPU


class Keeping(Mixup):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.noise = torch.ones(40)  # no buffer: it does not move

    def transform(self, net, x, y, draw):
        return (x + self.noise, y)  # a tensor of the CPU


def wrong(configure, method):
    """Train with a method and none of the others; return the rehearsal and the line of the method that is wrong."""
    mixup = {"_target_": f"{__name__}.{method.__name__}", "alpha": 0.2}
    rehearsal = Watched()

    def with_method(*overrides, each):
        configs = configure(*overrides, each=each)
        return [{**each, "regularization": {"mixup": mixup}} for each in configs]

    with suppress(Mismatch, Unpackable):
        rehearsal.train(with_method, "mlp", "mixup", "adam", "constant")
    lines, first = inspect.getsourcelines(method)
    at = next(index for index, line in enumerate(lines) if "  # a " in line)
    return rehearsal, f"{first + at} {lines[at].strip()}"


@pytest.mark.parametrize("method", [Reading, Copying, Choosing])
def test_a_wait_within_a_step_is_found(configure, method):
    rehearsal, line = wrong(configure, method)
    found = {(wait.place, wait.line) for wait in rehearsal.within}
    assert found == {(f"tests/device/rehearsal.py: {method.__name__}.transform", line)}


@pytest.mark.parametrize("method", [Forgetting, Keeping])
def test_a_tensor_of_the_cpu_within_a_step_is_found(configure, method):
    rehearsal, line = wrong(configure, method)
    place = f"tests/device/rehearsal.py: {method.__name__}.transform, line {line}: "
    assert rehearsal.mismatches
    assert all(said.startswith(place) for said in rehearsal.mismatches)


def test_a_tensor_of_the_cpu_in_a_measure_is_found_although_the_measure_only_fails(configure):
    def weighted(snapshot):
        return Estimate(float((snapshot.vector * torch.ones(len(snapshot.vector))).sum()))

    with Rehearsal() as rehearsal:
        found = measure({"mine": weighted}, snapshot(configure, "mlp", "train"), split="train")
    assert found["train/other/mine"].value is None
    (said,) = rehearsal.mismatches
    assert "rehearsal.py: " in said
    assert "weighted, line" in said


def test_the_device_computes_what_the_cpu_computes(configure):
    chosen = configure(*overrides("cnn", "batch_norm", "adam", "cosine"), *SMALL)
    (here,) = separately(chosen, torch.float32, 5)
    with Rehearsal():
        (there,) = separately(chosen, torch.float32, 5, device=NAME)
        assert {p.device.type for p in there.trained} == {NAME}
        assert apart(there.cpu(), here) < 1e-5


def test_the_device_is_gone_after_a_rehearsal():
    with Rehearsal():
        assert torch.accelerator.is_available()
        assert torch.ones(2, device=NAME).sum().item() == 2
    assert not torch.accelerator.is_available()
    with pytest.raises(NotImplementedError):
        torch.ones(2, device=NAME)
