"""The table of modular arithmetic against Python's own integers."""

from itertools import product

import pytest
import torch

from genbench.data.modular_arithmetic import ModularArithmetic

ANSWERS = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: a * b % p,
    "divide": lambda a, b, p: a * pow(b, -1, p) % p,
    "polynomial": lambda a, b, p: (a**3 + a * b * b + b) % p,
}


def table(data, *splits):
    """Equations and answers of some splits."""
    return {
        tuple(x): y for split in splits for x, y in zip(*map(torch.Tensor.tolist, data.tensors(split)), strict=True)
    }


@pytest.mark.parametrize("p", [2, 7, 97])
@pytest.mark.parametrize("operation", ANSWERS)
def test_every_pair_is_there_once_with_its_answer(operation, p):
    data = ModularArithmetic(p=p, operation=operation, batch_size=1)
    pairs = product(range(p), range(operation == "divide", p))
    expected = {(a, p, b, p + 1): ANSWERS[operation](a, b, p) for a, b in pairs}
    assert table(data, "train", "test") == expected
    assert sum(len(data.tensors(split)[1]) for split in data.splits) == len(expected)
    assert (data.input_shape, data.vocabulary, data.classes) == ((4,), p + 2, p)
    assert data.tensors("train")[0].dtype == torch.int64


def test_division_mod_97_has_the_table_of_the_paper():
    data = ModularArithmetic()
    assert [len(data.tensors(split)[1]) for split in ("train", "test")] == [4656, 4656]


def test_a_smaller_share_lies_within_a_larger_and_the_seed_chooses():
    small, large = (table(ModularArithmetic(p=11, batch_size=1, train_fraction=share), "train") for share in (0.3, 0.6))
    assert len(small) == 33
    assert small.items() < large.items()
    again, other = (table(ModularArithmetic(p=11, batch_size=1, train_fraction=0.3, seed=s), "train") for s in (0, 1))
    assert again == small != other


def test_places_of_tokens_may_be_shuffled_and_numbers_are_refused():
    plain, shuffled, random = (
        ModularArithmetic(p=11, batch_size=1, inputs=kind).tensors("train")[0]
        for kind in ("original", "shuffled_pixels", "random_pixels")
    )
    assert any(torch.equal(shuffled, plain[:, list(order)]) for order in product(range(4), repeat=4))
    assert torch.equal(random.sort(1).values, plain.sort(1).values)
    assert len({tuple((row >= 11).tolist()) for row in random}) == 6  # where the two signs may stand
    one_block = ModularArithmetic(p=11, batch_size=1, inputs="shuffled_blocks").tensors("train")[0]
    assert torch.equal(one_block, plain)  # four tokens
    with pytest.raises(ValueError, match=r"data\.inputs is 'gaussian'; accepted: original, .* where inputs are tokens"):
        ModularArithmetic(p=11, batch_size=1, inputs="gaussian")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 91}, "data.p is 91; accepted: a prime"),
        ({"p": 1}, "data.p is 1; accepted: an integer from 2 to 1000"),
        ({"operation": "power"}, "data.operation is 'power'; accepted: add, subtract, multiply, divide, polynomial"),
        ({"train_fraction": 1.0}, r"data.train_fraction is 1.0; accepted: a number in \[0, 1\)"),
        (
            {"train_fraction": 0.0},
            "data would have 0 training examples of the 9312 that there are; accepted: 1 to 9311",
        ),
        ({"channels": 0}, "data.channels is 0; accepted: an integer of at least 1"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ModularArithmetic(**settings)
