"""Truth tables by their numbers."""

import pytest
import torch

from genbench.data.boolean_functions import BooleanFunctions


def truth(data):
    """The function that both splits together are."""
    return {
        tuple(x): y
        for split in ("train", "test")
        for x, y in zip(data.tensors(split)[0][:, 0].int().tolist(), data.tensors(split)[1].tolist(), strict=True)
    }


@pytest.mark.parametrize("number", range(16))
def test_all_functions_of_two_bits(number):
    data = BooleanFunctions(bits=2, function=number, train_size=3, batch_size=1)
    digits = f"{number:04b}"
    assert truth(data) == {(a, b): int(digits[2 * a + b]) for a in (0, 1) for b in (0, 1)}


def test_the_conjunction_and_the_parity_of_seven_bits():
    both = (
        BooleanFunctions(function=1),
        BooleanFunctions(function=int("".join(str(i.bit_count() % 2) for i in range(128)), 2)),
    )
    conjunction, parity = map(truth, both)
    assert len(conjunction) == len(parity) == 128
    assert all(y == (sum(x) == 7) for x, y in conjunction.items())
    assert all(y == sum(x) % 2 for x, y in parity.items())
    assert both[0].input_shape == (1, 7)


def test_what_is_not_trained_on_is_tested_and_smaller_sets_lie_within_larger():
    small, large = BooleanFunctions(train_size=40, batch_size=1), BooleanFunctions(train_size=100)
    assert [len(small.tensors(split)[1]) for split in ("train", "test")] == [40, 88]
    assert truth(small) == truth(large)
    rows = [{tuple(x) for x in data.tensors("train")[0][:, 0].tolist()} for data in (small, large)]
    assert rows[0] < rows[1]


def test_a_drawn_function_is_the_seeds_and_uniform():
    assert truth(BooleanFunctions(seed=3)) == truth(BooleanFunctions(seed=3)) != truth(BooleanFunctions(seed=4))
    ones = torch.tensor([sum(truth(BooleanFunctions(seed=seed)).values()) for seed in range(50)]).double()
    assert abs(ones.mean() - 64) < 4 * (32 / 50) ** 0.5  # binomial: mean 64, variance 32
    assert ones.var() < 32 * 2
    assert ones.var() > 32 / 2


@pytest.mark.parametrize("relevant", range(1, 8))
def test_a_function_of_some_bits_is_one_on_half_of_their_values(relevant):
    chosen = set()
    for seed in range(30):
        found = truth(BooleanFunctions(relevant=relevant, seed=seed))
        assert sum(found.values()) == 64
        matters = {
            bit
            for bit in range(7)
            if any(y != found[tuple(v ^ (i == bit) for i, v in enumerate(x))] for x, y in found.items())
        }
        assert 1 <= len(matters) <= relevant  # a drawn function may look at a bit in vain
        chosen |= matters
        assert found == truth(BooleanFunctions(relevant=relevant, seed=seed, train_size=30, batch_size=30))
    assert chosen == set(range(7))
    if relevant == 1:
        ones = [truth(BooleanFunctions(relevant=1, seed=seed))[(1,) * 7] for seed in range(30)]
        assert 5 < sum(ones) < 25  # a bit or its negation


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relevant": 8}, "data.relevant is 8; accepted: an integer from 1 to 7"),
        ({"relevant": 3, "function": 1}, "data.relevant is 3 and data.function 1; accepted: one of them null"),
        ({"bits": 8}, "data.bits is 8; accepted: an integer from 2 to 7"),
        ({"bits": 2, "function": 16, "train_size": 2}, "data.function is 16; accepted: an integer from 0 to 15"),
        (
            {"train_size": 128},
            "data.train_size is 128; accepted: an integer from 1 to 127 .the other inputs are the test",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        BooleanFunctions(**settings)


def test_flips_change_so_many_values_of_both_splits_and_lie_within_more():
    plain, known = truth(BooleanFunctions(function=1, seed=5)), set()
    for flips in (0, 10, 128):
        data = BooleanFunctions(function=1, seed=5, flips=flips)
        changed = {x for x, label in truth(data).items() if label != plain[x]}
        assert len(changed) == flips
        assert known <= changed
        known = changed
    few, others = (truth(BooleanFunctions(function=1, seed=seed, flips=10)) for seed in (5, 6))
    assert few != others
    with pytest.raises(ValueError, match=r"data\.flips is 129; accepted: an integer from 0 to 128"):
        BooleanFunctions(flips=129)


def test_an_attack_set_has_wrong_values_and_lies_within_larger_ones():
    settings = {"function": 2**64 - 1, "train_size": 30, "batch_size": 1}
    plain = BooleanFunctions(**settings)
    true, known = truth(plain), set()
    before = {tuple(x) for x in plain.tensors("train")[0][:, 0].int().tolist()}
    for size in (5, 20):
        data = BooleanFunctions(attack_size=size, **settings)
        wrong = {x for x, label in truth(data).items() if label != true[x]}
        assert [len(data.tensors(split)[1]) for split in ("train", "test")] == [30 + size, 98 - size]
        trained = {tuple(x) for x in data.tensors("train")[0][:, 0].int().tolist()}
        assert trained == before | wrong
        assert len(wrong) == size
        assert known <= wrong
        known = wrong


def test_an_attack_set_leaves_something_to_test():
    with pytest.raises(ValueError, match=r"data\.attack_size is 98; accepted: an integer from 0 to 97"):
        BooleanFunctions(train_size=30, attack_size=98)
