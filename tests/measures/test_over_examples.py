import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import (
    Estimate,
    Snapshot,
    l2_norm,
    matrix_norms,
    measure,
    over_examples,
    pacbayes_measures,
    parameter_norms,
)
from tests.helpers.networks import build


def snapshot(examples=12, batch=5):
    net, x, y = build("mlp")
    x, y = x.repeat(examples, *[1] * (x.ndim - 1))[:examples], y.repeat(examples)[:examples]
    return Snapshot(net, F.cross_entropy, list(zip(x.split(batch), y.split(batch), strict=True)))


def of(value, **settings):
    return measure("norm")(lambda snapshot: Estimate(value, **settings))


@pytest.mark.oracle("over_examples")
def test_the_root_of_a_sum_of_squares_by_hand():
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        net.bias.zero_()
    batches = [(torch.eye(2), torch.tensor([0, 1])), (torch.eye(2), torch.tensor([0, 1]))]
    found = over_examples(Snapshot(net, F.cross_entropy, batches), measures={"a": parameter_norms, "b": matrix_norms})
    assert found["param_norm_over_examples"].value == pytest.approx(2.5)  # √(25/4)
    assert found["params_over_examples"].value == pytest.approx(math.sqrt(6 / 4))
    assert found["log_prod_of_spec_over_examples"].value == pytest.approx((math.log(16) - math.log(4)) / 2)
    assert found["fro_norm_over_examples"].value == pytest.approx(2.5)
    assert not [name for name in found if "." in name]


def test_a_logarithm_gives_the_logarithm_of_the_root():
    plain = over_examples(snapshot(), measures={"product": of(7.0)})["product_over_examples"].value
    logarithm = over_examples(snapshot(), measures={"log_product": of(math.log(7))})["log_product_over_examples"].value
    assert logarithm == pytest.approx(math.log(plain))


def test_errors_and_intervals_follow_by_the_slope():
    found = over_examples(
        snapshot(examples=4),
        measures={"a": of(9.0, stderr=0.6, interval=(4.0, 16.0), converged=False), "log_a": of(2.0, stderr=0.6)},
    )
    assert found["a_over_examples"].value == 1.5
    assert found["a_over_examples"].stderr == pytest.approx(
        (math.sqrt(9.0001 / 4) - math.sqrt(9 / 4)) / 1e-4 * 0.6, 1e-4
    )
    assert found["a_over_examples"].interval == (1.0, 2.0)
    assert found["a_over_examples"].converged is False
    assert found["log_a_over_examples"].stderr == pytest.approx(0.3)


def test_of_equal_numbers_of_examples_the_order_stays():
    taken = [
        over_examples(snapshot(), measures={"a": of(value)})["a_over_examples"].value for value in (0.0, 1e-3, 5.0)
    ]
    assert taken == sorted(taken)
    assert taken[0] == 0


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_batches_do_not_count(batch):
    found = over_examples(snapshot(batch=batch), measures={"norms": matrix_norms, "l2": l2_norm})
    other = over_examples(snapshot(), measures={"norms": matrix_norms, "l2": l2_norm})
    assert {name: each.value for name, each in found.items()} == {name: each.value for name, each in other.items()}


def test_what_has_no_value_says_why():
    def broken(snapshot):
        raise ValueError("it cannot")

    found = over_examples(
        snapshot(),
        measures={"negative": of(-1.0), "log_negative": of(-1.0), "broken": broken, "none": of(None, note="n")},
    )
    assert "a root has none" in found["negative_over_examples"].note
    assert found["log_negative_over_examples"].value == pytest.approx((-1 - math.log(12)) / 2)
    assert found["broken_over_examples"].note == "it cannot"
    assert found["none_over_examples"].note == "n"
    no_start = over_examples(snapshot(), measures={"pacbayes": partial(pacbayes_measures, samples=2)})
    assert "initial" in no_start["pacbayes_init_over_examples"].note


def test_a_measure_that_is_no_function_is_refused():
    with pytest.raises(ValueError, match=r"measures.a is 3; accepted: a function of a snapshot"):
        over_examples(snapshot(), measures={"a": 3})
