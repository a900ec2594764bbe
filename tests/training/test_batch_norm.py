"""Batch statistics of one process and of several."""

import pytest
import torch

from genbench.training.batch_norm import batch_statistics, by_channel


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 5, 4)])
def test_statistics_are_those_of_the_examples_and_places_of_each_channel(shape):
    x = torch.randn(shape, dtype=torch.float64) * 3 + 1
    mean, variance, centred = batch_statistics(x)
    rows = x.movedim(1, 0).flatten(1)
    torch.testing.assert_close(mean, rows.mean(1))
    torch.testing.assert_close(variance, rows.var(1, correction=0))
    torch.testing.assert_close(centred + by_channel(mean, x), x)


def test_shards_whose_statistics_are_averaged_have_those_of_the_whole_batch():
    x = torch.randn(8, 3, 5, dtype=torch.float64) * 3 + 1
    mean, variance, centred = batch_statistics(x)
    second = x[4:]
    of_second = iter([second.mean((0, 2)), (second - mean.view(3, 1)).square().mean((0, 2))])
    found = batch_statistics(x[:4], lambda t: (t + next(of_second)) / 2)
    for ours, whole in zip(found, (mean, variance, centred[:4]), strict=True):
        torch.testing.assert_close(ours, whole)
