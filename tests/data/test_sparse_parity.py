"""Parity against its brute-force count."""

import pytest
import torch

from genbench.data.sparse_parity import SparseParity


@pytest.mark.parametrize(("bits", "relevant"), [(5, 1), (5, 5), (40, 3)])
def test_the_label_is_the_parity_of_the_relevant_bits(bits, relevant):
    data = SparseParity(bits=bits, relevant=relevant, train_size=500, test_size=300, fresh=False)
    x, y = (torch.cat(parts) for parts in zip(data.tensors("train"), data.tensors("test"), strict=True))
    assert x.shape == (800, 1, bits)
    assert set(x.unique().tolist()) == {-1, 1}
    product = [int(torch.tensor(row[:relevant]).prod()) for row in x[:, 0].tolist()]
    assert y.tolist() == [(1 - sign) // 2 for sign in product]


def test_bits_are_uniform_and_independent_of_the_label_but_all_together():
    x, y = (
        SparseParity(train_size=20_000, test_size=1, batch_size=20_000, bits=8).train_dataloader().__iter__().__next__()
    )
    sign = 1.0 - 2 * y
    bound = 4 / 20_000**0.5
    assert x.mean(0).abs().max() < bound
    assert (x[:, 0] * sign[:, None]).mean(0).abs().max() < bound  # no bit says anything alone
    pairs = x[:, 0, [0, 0, 1]] * x[:, 0, [1, 2, 2]] * sign[:, None]
    assert pairs.mean(0).abs().max() < bound
    assert (x[:, 0, :3].prod(1) == sign).all()


def test_more_relevant_bits_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"^data.relevant is 6; accepted: an integer from 1 to 5 \(of data.bits\)$"):
        SparseParity(bits=5, relevant=6)
