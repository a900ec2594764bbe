"""The teacher's Bayes error against exact integrals, and against what the teacher itself gets."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from genbench.data.teacher_student import Teacher, TeacherStudent
from genbench.rng import StepRandom
from genbench.runs import execute


def teacher(**settings):
    return Teacher(
        **{"classes": 10, "dimension": 40, "width": 100, "depth": 1, "temperature": 0.1, "seed": 0, **settings}
    )


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_of_a_linear_teacher_of_two_classes_it_is_an_integral(temperature):
    """The difference of the outputs is N(0, ‖w₁ − w₀‖²): one dimension."""
    source = teacher(classes=2, dimension=5, depth=0, temperature=temperature)
    (weights,) = source.weights
    scale = float((weights[:, 1] - weights[:, 0]).norm()) / temperature
    exact, _ = quad(lambda z: norm.pdf(z) / (1 + math.exp(scale * abs(z))), -10, 10)
    error, stderr = source.bayes_error
    assert stderr < 0.001
    assert abs(error - exact) < 4 * stderr


@pytest.mark.parametrize("settings", [{}, {"depth": 3, "temperature": 0.3}, {"classes": 2, "temperature": 0.05}])
def test_the_teacher_itself_has_that_error(settings):
    source, n = teacher(**settings), 100_000
    x, y = source.sample(n, StepRandom(1, 0))
    wrong = float((source.outputs(x[:, 0]).argmax(1) != y).double().mean())
    error, stderr = source.bayes_error
    assert abs(wrong - error) < 4 * (error * (1 - error) / n + stderr**2) ** 0.5


def test_certain_labels_are_the_teachers():
    source = teacher(temperature=0)
    x, y = source.sample(1000, StepRandom(1, 0))
    assert torch.equal(source.outputs(x[:, 0]).argmax(1), y)
    assert source.bayes_error == (0, 0)


def test_outputs_by_hand_and_classes_as_frequent():
    source = teacher(classes=2, dimension=3, width=4, depth=2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    a, b, c = source.weights
    torch.testing.assert_close(source.outputs(x), torch.tanh(torch.tanh(x @ a) @ b) @ c)
    _, y = teacher(classes=2).sample(50_000, StepRandom(2, 0))
    assert abs(y.double().mean() - 0.5) < 4 * 0.5 / 50_000**0.5


def test_the_teacher_is_the_same_for_every_seed_and_another_for_every_teacher_seed():
    small = {"train_size": 100, "test_size": 200}
    one, other, strange = (TeacherStudent(**small, **s) for s in ({}, {"seed": 1}, {"teacher_seed": 1}))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors("test"), other.tensors("test"), strict=True))
    assert not torch.equal(one.tensors("train")[0], other.tensors("train")[0])
    assert not torch.equal(one.tensors("test")[1], strange.tensors("test")[1])


def test_a_record_says_what_could_be_reached_at_best(configure):
    record = execute.run(configure("data=teacher_student", "data.test_size=100", "~measures.trace"))
    assert record["status"] == "completed", record["error"]
    error, stderr = teacher().bayes_error
    assert record["metrics"]["test/performance/bayes_error"] == error
    assert record["stderr"]["test/performance/bayes_error"] == stderr > 0
