"""Random numbers of steps and packs where they are counted, as on a GPU; those of the CPU are tested with training."""

import math

import pytest
import torch

from genbench import rng
from genbench.models import MLP
from genbench.regularization import Dropout, InputNoise, Mixup
from genbench.rng import PackRandom, PredrawnRandom, StepRandom
from genbench.training import Lane, Pack
from tests.helpers.operations import Operations

DRAWS = [("uniform", (2, 4)), ("normal", (3,)), ("permutation", (6,)), ("normal", ())]


@pytest.fixture
def counted(monkeypatch):
    """The CPU counts its numbers, too."""
    monkeypatch.setattr(rng, "counts", lambda device: True)
    yield
    rng._ahead.cache_clear()


def test_the_cpu_draws_from_torchs_generators_and_other_devices_count():
    assert not rng.counts(torch.device("cpu"))
    assert rng.counts(torch.device("cuda"))
    own = torch.Generator().manual_seed(rng.derive_seed(3, 7, "a"))
    assert torch.equal(StepRandom(3, 7).uniform("a", 5), torch.rand(5, generator=own))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("kind", "shape"), DRAWS)
def test_numbers_follow_from_seed_step_and_site_alone(kind, shape, monkeypatch):
    def draw(seed, step, site):
        return getattr(StepRandom(seed, step), kind)(site, *shape)

    steps = [draw(1, step, "a") for step in range(70)]  # some of them ahead
    rng._ahead.cache_clear()
    assert torch.equal(draw(1, 69, "a"), steps[69])
    assert len({tuple(t.flatten().tolist()) for t in steps}) > (60 if kind != "permutation" else 50)
    monkeypatch.setattr(rng, "_AHEAD", (1, 64))  # one by one
    assert all(torch.equal(draw(1, step, "a"), drawn) for step, drawn in enumerate(steps))
    if math.prod(shape) > 2:
        assert not any(torch.equal(steps[5], other) for other in (draw(2, 5, "a"), draw(1, 5, "b")))


@pytest.mark.usefixtures("counted")
def test_numbers_that_a_caller_changes_are_its_own():
    StepRandom(0, 1).uniform("a", 3).zero_()
    assert StepRandom(0, 1).uniform("a", 3).min() > 0


@pytest.mark.usefixtures("counted")
def test_classes():
    p = torch.tensor([0.2, 0.5, 0.3]).expand(20_000, 3)
    shares = StepRandom(0, 0).classes("a", p).bincount() / 20_000
    assert torch.allclose(shares, p[0], atol=0.015)


def recorded(lanes):
    draws = PackRandom([2**40 + i for i in range(lanes)])
    for index, record in enumerate(draws.recorders):
        for place, (kind, shape) in enumerate(DRAWS):
            getattr(record, kind)(f"{kind}{place}", *shape)
        record.beta("share", 0.1 + index)
    return draws


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("lanes", [1, 2, 9])
def test_a_lane_of_a_pack_draws_what_it_draws_alone(lanes):
    given = recorded(lanes).at(11)
    for place, (kind, shape) in enumerate(DRAWS):
        site = f"{kind}{place}"
        drawn = torch.vmap(lambda numbers, s=site, k=kind, n=shape: getattr(PredrawnRandom(numbers), k)(s, *n))(given)
        for lane in range(lanes):
            assert torch.equal(drawn[lane], getattr(StepRandom(2**40 + lane, 11), kind)(site, *shape))
    for lane in range(lanes):
        assert given["share"][lane] == StepRandom(2**40 + lane, 11).beta("share", 0.1 + lane)
    assert given["share"].dtype == torch.float64


@pytest.mark.usefixtures("counted")
def test_a_step_of_many_lanes_takes_as_many_operations_as_one_of_two():
    counts = []
    for lanes in (2, 60):
        draws = recorded(lanes)
        draws.at(0)
        with Operations() as operations:
            draws.at(1)
        counts.append(len(operations.names))
    assert counts[0] == counts[1] < 8


@pytest.mark.usefixtures("counted")
def test_a_pack_trains_what_its_lanes_train_alone(monkeypatch):
    def lanes():
        torch.manual_seed(0)
        made = [MLP(input_shape=(1, 8), classes=3, width=10) for _ in range(3)]
        return [
            Lane(net.double(), [InputNoise(std=0.1), Mixup(alpha=0.4), Dropout(rate=0.3)], seed=seed)
            for seed, net in enumerate(made)
        ]

    x, y = torch.randn(3, 20, 1, 8, dtype=torch.float64), torch.arange(20).expand(3, 20) % 3
    pack = Pack(lanes(), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1), own_batches=True)
    update = pack.prepare(total_steps=4)
    for step in range(4):
        pack.gradient_step(x, y, step=step)
        update.step()
    for index, lane in enumerate(lanes()):
        optimizer = torch.optim.SGD(lane.trained, lr=0.1)
        for step in range(4):
            lane.gradient_step(x[index], y[index], draw=StepRandom(lane.seed, step), lr=0.1)
            optimizer.step()
        for p, q in zip(lane.trained, pack.networks[index].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
