"""Schedules against their formulas."""

import math

import pytest
import torch
from torch import nn

from genbench.training import schedule


def rates(make, steps, lrs=(0.4,), **settings):
    """The learning rate of each step, of the last group."""
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], momentum=0.9)
    scheduler, found = make(optimizer, total_steps=steps, **settings), []
    for _ in range(steps):
        found.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    assert optimizer.param_groups[-1]["momentum"] == 0.9
    return found


def test_warm_up_is_linear_and_then_constant():
    assert rates(schedule.warmup, 20, warmup=0.25) == pytest.approx([0.08, 0.16, 0.24, 0.32] + [0.4] * 16)
    assert rates(schedule.warmup, 20, warmup=0.0) == [0.4] * 20
    assert rates(schedule.warmup, 20, warmup=0.05) == pytest.approx([0.4] * 20)  # one step of one


def test_a_constant_rate_may_be_a_multiple_of_the_optimizers():
    assert rates(schedule.constant, 3) == [0.4] * 3
    assert rates(schedule.constant, 3, lrs=(0.1, 0.4), factor=0.25) == pytest.approx([0.1] * 3)
    with pytest.raises(ValueError, match=r"scheduler\.factor is 0; accepted"):
        rates(schedule.constant, 3, factor=0)


def test_warm_up_to_a_half_cosine():
    falling = [0.2 * (1 + math.cos(math.pi * t / 15)) for t in range(15)]
    assert rates(schedule.cosine, 20, warmup=0.25) == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4, *falling])


def test_one_cycle_rises_and_falls_along_half_cosines():
    def half(a, b, share):
        return b + (a - b) * (1 + math.cos(math.pi * share)) / 2

    rising = [half(0.4 / 25, 0.4, t / 5) for t in range(6)]
    falling = [half(0.4, 0.4 / 25 / 1e4, t / 14) for t in range(1, 15)]
    assert rates(schedule.one_cycle, 20, warmup=0.3) == pytest.approx([*rising, *falling])


def test_the_exponential_schedule_falls_by_its_factor_once_an_epoch():
    expected = [0.4] * 3 + [0.2] * 3 + [0.1] * 2
    assert rates(schedule.exponential, 8, factor=0.5, every_n_steps=3) == pytest.approx(expected)
    for name, value in (("factor", 0), ("every_n_steps", 0)):
        with pytest.raises(ValueError, match=f"scheduler.{name} is 0; accepted"):
            rates(schedule.exponential, 8, **{name: value})


@pytest.mark.parametrize(("steps", "cycles"), [(20, 4), (20, 1), (6, 6)])
def test_cycles_of_equal_length_are_the_papers(steps, cycles):
    length = steps // cycles  # Huang et al. 2017, Eq. 2, t from 1
    expected = [0.2 * (1 + math.cos(math.pi * ((t - 1) % length) / length)) for t in range(1, steps + 1)]
    assert rates(schedule.cyclic, steps, cycles=cycles) == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "cycles"), [(17, 5), (100, 7), (3, 5), (1, 2)])
def test_a_cycle_starts_anew_after_its_share_of_the_steps(steps, cycles):
    found = rates(schedule.cyclic, steps, cycles=cycles)
    starts = [step for step, rate in enumerate(found) if rate == pytest.approx(0.4)]
    assert starts == sorted({i * steps // cycles for i in range(cycles)})
    for start, end in zip(starts, [*starts[1:], steps], strict=True):
        assert found[start:end] == pytest.approx(
            [0.2 * (1 + math.cos(math.pi * t / (end - start))) for t in range(end - start)]
        )


def test_no_cycle_is_no_schedule():
    with pytest.raises(ValueError, match=r"scheduler.cycles is 0; accepted: an integer of at least 1"):
        rates(schedule.cyclic, 20, cycles=0)


@pytest.mark.parametrize(
    "make", [schedule.cosine, schedule.one_cycle, schedule.warmup, schedule.step, schedule.cyclic, schedule.exponential]
)
def test_every_group_keeps_its_own_scale(make):
    assert rates(make, 20, lrs=(0.4, 0.1)) == pytest.approx([rate / 4 for rate in rates(make, 20)])


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("make", [schedule.cosine, schedule.one_cycle, schedule.warmup])
def test_runs_of_any_length(make, warmup):
    for steps in range(1, 30):
        assert all(0 <= rate <= 0.4 * (1 + 1e-12) for rate in rates(make, steps, warmup=warmup))


@pytest.mark.parametrize("make", [schedule.cosine, schedule.one_cycle, schedule.warmup])
def test_what_is_no_share_is_refused(make):
    with pytest.raises(ValueError, match=r"scheduler.warmup is 1.0; accepted: a number in \[0, 1\)"):
        rates(make, 20, warmup=1.0)
