from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from genbench.callbacks import Gap, Measures, Stop
from genbench.measures import margin
from tests.helpers.lightning_projects import Plain, data, fit


def test_the_steps_until_the_end_are_a_result_where_something_may_stop_it():
    stop, idle = Stop(train_accuracy=0.01), Stop()
    fitted = fit(callbacks=[stop, idle], max_epochs=3)
    assert stop.results["train/optimization/steps"].value == fitted.global_step > 0
    assert (idle.results, stop.history, stop.seconds) == ({}, [], 0.0)


def test_stop():
    easy = fit(callbacks=[Stop(train_accuracy=0.01)])
    assert easy.current_epoch == 1
    hard = fit(callbacks=[Stop(train_loss=1e-9, train_accuracy=1.0)], max_epochs=2)
    assert hard.current_epoch == 2
    gap = Gap(every_n_epochs=1)
    fit(callbacks=[gap], max_epochs=6)
    losses = [entry["train/performance/cross_entropy"] for entry in gap.history]
    threshold = (losses[2] + min(losses[:2])) / 2
    assert losses[2] < min(losses[:2])
    assert fit(callbacks=[Stop(train_loss=threshold)], max_epochs=6).current_epoch == 3
    assert fit(callbacks=[Stop(train_loss=threshold, every_n_epochs=2)], max_epochs=6).current_epoch == 4


def test_stop_at_a_margin():
    """The epoch after which 99 % of the examples have it."""

    class Fitting(Plain):
        def __init__(self):
            torch.manual_seed(1)
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))

    record = Measures(measures={"margin": partial(margin, percentile=1)}, split="train", every_n_epochs=1)
    fit(Fitting(), [record], max_epochs=60)
    margins = [entry["train/margin/margin"] for entry in record.history]
    threshold = next(m for m in margins if m > max(0.0, margins[0]))
    stopped = margins.index(threshold) + 1
    assert stopped > 1
    assert fit(Fitting(), [Stop(train_margin=threshold)], max_epochs=60).current_epoch == stopped
    assert fit(Fitting(), [Stop(train_margin=1e9)], max_epochs=2).current_epoch == 2
    with pytest.raises(ValueError, match=r"^Stop train_margin is 0; accepted: a number > 0$"):
        Stop(train_margin=0)


def test_the_loss_is_the_mean_that_count_says():
    threshold, seen = 1.0, []

    def count(output, target):
        seen.append(len(target))
        return float((target == 0).sum())  # a batch counts by its labels 0

    def loss(output, target):  # 0.5 in batches with a label 0, 2 in others
        return output.sum() * 0 + (0.5 if (target == 0).any() else 2.0)

    class Sorted(Plain):
        def train_dataloader(self):
            x, y = data(20, 0).tensors
            return DataLoader(TensorDataset(x[y.argsort()], y.sort().values), batch_size=5)

    labels = data(20, 0).tensors[1].sort().values.split(5)
    plain = sum(0.5 if (y == 0).any() else 2.0 for y in labels) / len(labels)
    assert plain > threshold  # without count= it would train on
    assert fit(Sorted(), [Stop(train_loss=threshold, loss=loss)], max_epochs=3).current_epoch == 3
    assert not seen
    assert fit(Sorted(), [Stop(train_loss=threshold, loss=loss, count=count)], max_epochs=3).current_epoch == 1
    assert seen


def test_a_part_that_the_module_has_not_is_refused_before_training():
    with pytest.raises(ValueError, match="network='nosuch' is not a part of Plain; accepted: layers"):
        fit(callbacks=[Stop(train_loss=1.0, network="nosuch")])
