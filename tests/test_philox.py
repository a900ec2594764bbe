"""Random numbers by counting, on the CPU: the operations are those of every device."""

import math
from collections import Counter

import pytest
import torch
from scipy import stats

from genbench import philox
from tests.helpers.operations import Operations

# Random123, tests/kat_vectors: counter and key -> words
KNOWN = {
    "00000000 00000000 00000000 00000000 00000000 00000000": "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff": "408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0": "d16cfe09 94fdcceb 5001e420 24126ea1",
}
KEY, OTHER = philox.key_of(2**62 + 7), philox.key_of(8)
N = 200_000


def at(step):
    return torch.tensor(step)


@pytest.mark.parametrize("given", KNOWN)
@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_known_answers(given, kind):
    words = [kind(int(word, 16)) for word in given.split()]
    found = philox.philox(words[:4], philox.key_of(int(words[4]) | int(words[5]) << 32))
    assert " ".join(f"{int(word):08x}" for word in found) == KNOWN[given]


def test_uniform_numbers():
    u = philox.uniform(KEY, at(3), (N,))
    assert u.dtype == torch.float32
    assert (u * 2**24 == (u * 2**24).floor()).all()
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    assert (u * 2**24).long().bitwise_and(1).float().mean() == pytest.approx(0.5, abs=4 / math.sqrt(N))


def test_normal_numbers():
    z = philox.normal(KEY, at(3), (N + 1,)).double()
    assert stats.kstest(z, "norm").pvalue > 0.01
    moments = [(z**k).mean() for k in (1, 2, 3, 4)]
    for moment, exact, variance in zip(moments, (0, 1, 0, 3), (1, 2, 15, 96), strict=True):
        assert moment == pytest.approx(exact, abs=4 * math.sqrt(variance / N))
    pairs = z[:-1].view(-1, 2)
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 4 / math.sqrt(N / 2)  # two numbers share a radius
    assert abs(pairs.square().sub(1).prod(1).mean()) < 4 * 2 / math.sqrt(N / 2)


@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_normal_numbers_are_finite_at_the_ends(monkeypatch, word):
    monkeypatch.setattr(philox, "_words", lambda key, step, n: torch.full((n,), word))
    z = philox.normal(KEY, at(0), (2,))
    assert z.isfinite().all()
    assert z.abs().max() < 6.7


def test_permutations():
    orders = philox.permutation(KEY, torch.arange(24_000), (4,))
    found = Counter(map(tuple, orders.tolist()))
    assert len(found) == 24
    assert stats.chisquare(list(found.values())).pvalue > 0.01
    assert philox.permutation(KEY, at(0), (1000,)).sort().values.tolist() == list(range(1000))


def test_equal_numbers_of_a_permutation_stay_in_their_order(monkeypatch):
    monkeypatch.setattr(philox, "_words", lambda key, step, n: torch.zeros(n, dtype=torch.int64))
    assert philox.permutation(KEY, at(0), (5,)).tolist() == [0, 1, 2, 3, 4]


def test_numbers_differ_between_steps_and_keys_without_correlation():
    base = philox.normal(KEY, at(3), (N,)).double()
    for other in (philox.normal(KEY, at(4), (N,)), philox.normal(OTHER, at(3), (N,)), base.roll(1), base.roll(4)):
        assert abs((base * other).mean()) < 4 / math.sqrt(N)


def test_more_numbers_begin_with_the_same():
    assert torch.equal(philox.uniform(KEY, at(1), (50,))[:7], philox.uniform(KEY, at(1), (7,)))


@pytest.mark.parametrize("draw", [philox.uniform, philox.normal, philox.permutation])
@pytest.mark.parametrize("n", [1, 5, 64, 1001])
def test_lanes_and_steps_draw_together_what_each_draws_alone(draw, n):
    keys = torch.tensor([philox.key_of(2**61 + seed) for seed in range(6)])
    steps = torch.arange(6) + 2**31
    together = torch.vmap(lambda key, step: draw(key.unbind(), step, (n,)))(keys, steps)
    ahead = draw(KEY, steps, (n,))
    for i in range(6):
        assert torch.equal(together[i], draw(philox.key_of(2**61 + i), steps[i], (n,)))
        assert torch.equal(ahead[i], draw(KEY, steps[i], (n,)))


@pytest.mark.parametrize("draw", [philox.uniform, philox.normal, philox.permutation])
def test_as_many_operations_for_many_lanes_as_for_two(draw):
    counts = []
    for lanes in (2, 300):
        keys, steps = torch.tensor([philox.key_of(seed) for seed in range(lanes)]), torch.full((lanes,), 5)
        with Operations() as operations:
            torch.vmap(lambda key, step: draw(key.unbind(), step, (9,)))(keys, steps)
        counts.append(len(operations.names))
    assert counts[0] == counts[1] < 200
