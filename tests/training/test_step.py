"""The order of a training step, seen from a backend and an optimizer that write down what they are asked."""

from types import SimpleNamespace

import pytest
import torch

from genbench.training.step import Unhooked, gradient_step, training_step

PARTS = ("transforms", "perturbs", "changes_gradient", "changes_weights_before")


class Lane:
    """A lane whose parts are their names."""

    def __init__(self, *parts):
        self.transformed, self.objective, self.perturbed = "transform", "objective", "perturb"
        self.changed, self.before_step = "change", "before"
        self.m = None
        for part in PARTS:
            setattr(self, part, part in parts)


class Backend:
    weights = "w"

    def __init__(self):
        self.asked = []

    def apply(self, part, *args):
        self.asked.append((part, *args))
        return ("x'", "y'") if part == "transform" else f"{part}({args[1]})"

    def differentiate(self, objective, x, y, draw, *, at=None):
        self.asked.append((objective, x, y, draw, at))
        return f"loss({at})", f"g({at})"


@pytest.mark.parametrize(
    ("parts", "asked", "gradient"),
    [
        ((), [("objective", "x", "y", "draw", None)], "g(None)"),
        (
            PARTS,
            [
                ("transform", "x", "y", "draw"),
                ("objective", "x'", "y'", "draw", None),
                ("perturb", "w", "g(None)"),
                ("objective", "x'", "y'", "draw", "perturb(g(None))"),
                ("change", "w", "g(perturb(g(None)))", "draw"),
                ("before", "w", "lr", "draw"),
            ],
            "change(g(perturb(g(None))))",
        ),
    ],
    ids=["plain", "all"],
)
def test_the_parts_of_a_gradient_follow_one_another(parts, asked, gradient):
    backend = Backend()
    assert gradient_step(Lane(*parts), backend, "x", "y", "draw", "lr") == ("loss(None)", gradient)
    assert backend.asked == asked


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_step_is_gradient_optimizer_schedule_and_what_follows(scheduled):
    asked = []
    lanes = SimpleNamespace(
        gradient_step=lambda x, y, step: asked.append(("gradient", x, y, step)) or "objectives",
        after_step=lambda progress: asked.append(("after", progress)),
    )
    optimizer = SimpleNamespace(step=lambda: asked.append("optimizer"))
    schedule = (lambda: asked.append("schedule")) if scheduled else None
    found = training_step(lanes, "x", "y", optimizer=optimizer, schedule=schedule, step=3, total_steps=16)
    assert found == "objectives"
    assert asked == [("gradient", "x", "y", 3), "optimizer", *["schedule"] * scheduled, ("after", 0.25)]


def test_an_optimizer_that_needs_a_closure_is_given_one_that_does_nothing():
    class Needs(torch.optim.SGD):
        def step(self, closure):
            assert closure() is None
            super().step()

    weight = torch.ones(2, requires_grad=True)
    counted = SimpleNamespace(increment_ready=lambda: None, increment_completed=lambda: None)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(manual_optimization=SimpleNamespace(optim_step_progress=counted)))
    for kind in (Needs, torch.optim.SGD):
        weight.grad = torch.ones(2)
        Unhooked(kind([weight], lr=0.25), SimpleNamespace(fit_loop=loop)).step()
    assert weight.tolist() == [0.5, 0.5]
