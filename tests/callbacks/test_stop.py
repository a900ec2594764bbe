import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from genbench.callbacks import Gap, Measures, Stop
from genbench.measures import margin
from tests.helpers.lightning_projects import Plain, data, fit


def test_the_steps_until_the_end_are_a_result_where_something_may_stop_it():
    stop, idle = Stop(train_accuracy=0.01), Stop()  # two of them, which a checkpoint tells apart
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


class Slow(Plain):
    """Small steps on a convex loss: it falls nearly smoothly, by less and less a step."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.layers = nn.Linear(4, 3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(data(64, 0), batch_size=8)


class Losses(pl.Callback):
    """The train loss after every step."""

    def __init__(self):
        self.losses = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        x, y = data(64, 0).tensors
        with torch.no_grad():
            self.losses[trainer.global_step] = float(nn.functional.cross_entropy(pl_module(x), y))


class Counted(Stop):
    """Notes the steps at which it looks."""

    def _reached(self, trainer, pl_module):
        self.looks = [*getattr(self, "looks", []), trainer.global_step]
        return super()._reached(trainer, pl_module)


@pytest.mark.parametrize("threshold", [0.8, 0.7, 0.55])
@pytest.mark.parametrize("tolerance", [0.02, 0.01])
def test_with_a_tolerance_the_loss_at_the_stop_is_just_below_the_threshold(threshold, tolerance):
    coarse, losses = Losses(), Losses()
    stop = Counted(train_loss=threshold, every_n_epochs=2, tolerance=tolerance)
    fitted = fit(Slow(), [stop, losses], max_epochs=40)
    fit(Slow(), [Stop(train_loss=threshold, every_n_epochs=10), coarse], max_epochs=40)
    assert threshold * (1 - tolerance) <= losses.losses[fitted.global_step] <= threshold
    assert coarse.losses[max(coarse.losses)] < threshold * (1 - tolerance)
    assert stop.looks == sorted(set(stop.looks))  # none twice
    assert len(stop.looks) < 25
    assert fitted.global_step % 8  # within an epoch
    assert stop.results["train/optimization/steps"].value == fitted.global_step


def test_it_looks_again_after_half_the_logarithms_way():
    stop = Counted(train_loss=0.5, every_n_epochs=2, tolerance=0.05)
    losses = Losses()
    fit(Slow(), [stop, losses], max_epochs=40)
    due, rate = [16, 32], 0.0  # two epochs each: before the second look nothing is known of the rate
    while due[-1] < stop.looks[-1]:
        before, last = due[-2:]
        rate = max(math.log(losses.losses[before] / losses.losses[last]) / (last - before), rate / 2)
        way = max(math.log(losses.losses[last] / 0.5), -math.log(0.95)) / 2
        wait = max(1, int(min(way / rate, 2 * (last - before))))
        due.append(min(last + wait, (last // 16 + 1) * 16))
    assert stop.looks == due


def test_where_the_loss_rises_it_looks_again_after_as_many_steps():
    class Rising(Slow):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, maximize=True)

    stop = Counted(train_loss=0.01, every_n_epochs=3, tolerance=0.1)
    fit(Rising(), [stop], max_epochs=9)
    assert stop.looks == [24, 48, 72]


def test_a_pass_that_fails_ends_the_looks_within_epochs(caplog):
    class Breaks(Counted):
        def _reached(self, trainer, pl_module):
            super()._reached(trainer, pl_module)
            if trainer.global_step > 40:
                raise RuntimeError("no pass")
            return False

    stop = Breaks(train_loss=0.5, every_n_epochs=2, tolerance=0.1)
    assert fit(Slow(), [stop], max_epochs=12).current_epoch == 12
    assert [step % 16 for step in stop.looks if step > 48] == [0] * 3
    assert "no pass" in caplog.text


def test_later_looks_make_one_forward_pass():
    class Counting(Slow):
        passes = 0

        def forward(self, x):
            type(self).passes += not self.training
            return super().forward(x)

    counts = []

    class Looks(Stop):
        def _reached(self, trainer, pl_module):
            before = Counting.passes
            found = super()._reached(trainer, pl_module)
            counts.append(Counting.passes - before)
            return found

    fit(Counting(), [Looks(train_loss=1e-9)], max_epochs=4)
    assert counts[0] > 8  # eight batches, and the search for their structure
    assert counts[1:] == [8, 8, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0.1}, "Stop tolerance is 0.1 and train_loss is null; accepted: null, or both"),
        ({"tolerance": 0, "train_loss": 1}, r"Stop tolerance is 0; accepted: a number in \(0, 1\)"),
        ({"tolerance": 1.0, "train_loss": 1}, r"Stop tolerance is 1.0; accepted: a number in \(0, 1\)"),
    ],
)
def test_a_wrong_tolerance_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Stop(**settings)


def test_a_part_that_the_module_has_not_is_refused_before_training():
    with pytest.raises(ValueError, match="network='nosuch' is not a part of Plain; accepted: layers"):
        fit(callbacks=[Stop(train_loss=1.0, network="nosuch")])
