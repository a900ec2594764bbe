"""The schedule of callbacks, their results and messages, and that they do not change training."""

import csv
import json
import math
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from genbench.callbacks import Gap, Measures, Optimization, Stop
from genbench.measures import (
    Estimate,
    Snapshot,
    accuracy,
    distance_from_init,
    hessian_eigenvalues,
    hessian_trace,
    l2_norm,
    measure,
    spectral_norm,
)
from tests.helpers.lightning_projects import (
    Odd,
    Plain,
    data,
    fit,
    trainer,
    understand,
)

NORMS = {"l2": l2_norm, "distance": distance_from_init, "spectral": spectral_norm}
QUICK = {"lambda_1": hessian_eigenvalues, "trace": hessian_trace}


def full(dataset) -> list:
    return [tuple(dataset.tensors)]


def mean_loss(snapshot: Snapshot) -> Estimate:
    return Estimate(snapshot.mean_loss)


def everything(**settings) -> list[pl.Callback]:
    return [
        Gap(every_n_epochs=1, **settings),
        Measures(every_n_epochs=1, **settings),
        Measures(every_n_steps=4, measures=QUICK, split="test", **settings),
        Stop(train_loss=1e-9, loss=settings.get("loss", F.cross_entropy), forward=settings.get("forward")),
    ]


@pytest.mark.parametrize(("stranger", "settings"), [(Plain, {}), (Odd, {"forward": understand})])
def test_final_weights_and_random_states_are_bit_identical(stranger, settings):
    states = []
    measuring = everything(**settings)
    for callbacks in ([], measuring):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        module = stranger()
        fit(module, callbacks)
        states.append(
            (module.state_dict(), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
        )
    for (name, a), b in zip(states[0][0].items(), states[1][0].values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(states[0][1], states[1][1])
    assert states[0][2:] == states[1][2:]
    for callback, times in zip(measuring[:3], (3, 3, 6), strict=True):
        assert len(callback.history) == times
        assert all(estimate.value is not None for estimate in callback.results.values())


def schedule(**settings) -> list[tuple[float, int]]:
    """Return (epoch, step) of each measurement in 3 epochs of 7 steps."""
    norms = Measures(measures={"l2": l2_norm}, **settings)
    fit(callbacks=[norms])
    return [(entry["epoch"], entry["step"]) for entry in norms.history]


def test_schedules_of_steps():
    assert schedule(every_n_steps=6) == [(6 / 7, 6), (1 + 5 / 7, 12), (2 + 4 / 7, 18), (3, 21)]
    powers = [(1 / 7, 1), (2 / 7, 2), (4 / 7, 4), (1 + 1 / 7, 8), (2 + 2 / 7, 16), (3, 21)]
    assert schedule(every_n_steps="powers_of_two") == powers
    assert schedule(every_n_steps=[2, 9]) == [(2 / 7, 2), (1 + 2 / 7, 9), (3, 21)]
    assert schedule(every_n_epochs=[2]) == [(2, 14), (3, 21)]
    # a step of both schedules is measured once
    assert schedule(every_n_steps=7, every_n_epochs=1) == schedule(every_n_epochs=1) == [(1, 7), (2, 14), (3, 21)]
    assert schedule(every_n_steps=14, every_n_epochs="powers_of_two") == [(1, 7), (2, 14), (3, 21)]


def test_epochs_at_powers_of_two():
    norms = Measures(measures={"l2": l2_norm}, every_n_epochs="powers_of_two")
    fit(callbacks=[norms], max_epochs=9)
    assert [entry["epoch"] for entry in norms.history] == [1, 2, 4, 8, 9]


def test_steps_of_accumulated_gradients_and_of_two_optimizers_are_optimizer_steps():
    class Two(Plain):
        """Two optimizers, each of which steps at every batch."""

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch))
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.layers[0], self.layers[-1])]

    accumulated, double = (Measures(measures={"l2": l2_norm}, every_n_steps=3) for _ in range(2))
    fit(callbacks=[accumulated], accumulate_grad_batches=2)  # 4 steps per epoch
    assert [entry["step"] for entry in accumulated.history] == [3, 6, 9, 12]
    fit(Two(), [double])
    assert [entry["step"] for entry in double.history] == [4, 6, 10, 12, 16, 18, 22, 24, 28, 30, 34, 36, 40, 42]


def test_schedule_and_the_end_measured_once():
    each, second, end = Gap(every_n_epochs=1), Gap(every_n_epochs=2), Gap()
    fit(callbacks=[each, second, end])
    assert [(e["epoch"], e["step"]) for e in each.history] == [(1, 7), (2, 14), (3, 21)]
    assert [(e["epoch"], e["step"]) for e in second.history] == [(2, 14), (3, 21)]
    assert [(e["epoch"], e["step"]) for e in end.history] == [(3, 21)]
    assert each.history[-1] == second.history[-1] == end.history[-1]
    assert each.history[-1]["train/performance/accuracy"] == each.results["train/performance/accuracy"].value


def test_stopped_within_an_epoch():
    norms = Measures(measures=NORMS, every_n_epochs=2)
    fit(callbacks=[norms], max_steps=17, max_epochs=-1)
    assert norms.history[-1]["step"] == 17
    assert len({entry["step"] for entry in norms.history}) == len(norms.history)


class Restore(pl.Callback):
    """Changes the final weights before callbacks measure at the end."""

    def on_train_end(self, trainer, pl_module):
        with torch.no_grad():
            for p in pl_module.parameters():
                p.mul_(2)


def test_weights_chosen_at_the_end_replace_the_last_epochs():
    norms, module = Measures(measures=NORMS, every_n_epochs=1), Plain()
    fit(module, [Restore(), norms])
    assert [entry["epoch"] for entry in norms.history] == [1, 2, 3]
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double()
    assert norms.history[-1]["weights/norm/l2"] == pytest.approx(float(flat.norm()))


@pytest.mark.parametrize("asked", [False, True])
def test_standard_errors_are_history_and_for_loggers_a_detail_as_seconds_are(tmp_path, asked):
    flatness = Measures(measures=QUICK, every_n_epochs=1, log_details=asked)
    ours = fit(callbacks=[flatness], logger=CSVLogger(tmp_path, name="a", version=""))
    with open(tmp_path / "a" / "metrics.csv") as file:
        *_, last = csv.DictReader(file)
    top, trace = (flatness.results[f"train/flatness/{name}"] for name in QUICK)
    details = {
        "stderr/train/flatness/trace": trace.stderr,  # lambda_1 is exact up to its residual
        "seconds/train/flatness/lambda_1": top.seconds,
        "seconds/train/flatness/trace": trace.seconds,
    }
    assert all(details.values())
    logged = {key: float(value) for key, value in last.items() if key.startswith(("stderr", "seconds"))}
    assert logged == pytest.approx(details if asked else {})
    assert float(last["train/flatness/trace"]) == pytest.approx(trace.value)
    assert flatness.history[-1] == {
        "epoch": 3,
        "step": 21,
        "train/flatness/lambda_1": top.value,
        "train/flatness/trace": trace.value,
        "stderr/train/flatness/trace": trace.stderr,
    }
    assert not any(key.startswith(("stderr", "seconds")) for key in ours.callback_metrics)


def test_every_logger_gets_the_values(tmp_path):
    gap = Gap(every_n_epochs=1)
    loggers = [CSVLogger(tmp_path, name=name, version="") for name in ("a", "b")]
    fit(callbacks=[gap], logger=loggers)
    for name in ("a", "b"):
        with open(tmp_path / name / "metrics.csv") as file:
            rows = [row for row in csv.DictReader(file) if row["test/gap/accuracy"]]
        assert [int(row["step"]) for row in rows] == [7, 14, 21]
        assert float(rows[-1]["test/gap/accuracy"]) == pytest.approx(gap.results["test/gap/accuracy"].value)


def test_values_can_be_monitored(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/performance/cross_entropy", filename="best")
    gap = Gap(every_n_epochs=1)
    fit(callbacks=[gap, best], enable_checkpointing=True)
    losses = [entry["val/performance/cross_entropy"] for entry in gap.history]
    assert float(best.best_model_score) == pytest.approx(min(losses), rel=1e-6)


def test_resumed_as_if_never_interrupted(tmp_path):
    def callbacks():
        return [
            Gap(every_n_epochs=1),
            Measures(measures=NORMS, every_n_epochs=1),
            Measures(every_n_epochs=2, measures=QUICK),
        ]

    def saving():
        return ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)

    whole = callbacks()
    fit(callbacks=[*whole, saving()], enable_checkpointing=True, max_epochs=4)
    saved = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    states = {key: state for key, state in saved["callbacks"].items() if key.startswith(("Gap", "Measures"))}
    assert len(states) == 3
    starts = [state.pop("start") for key, state in states.items() if key.startswith("Measures")]
    assert all(torch.equal(t, starts[0][name]) for start in starts for name, t in start.items())
    assert json.loads(json.dumps(states)) == states  # plain types
    resumed = callbacks()
    torch.manual_seed(5)
    ours = trainer(resumed, max_epochs=2)
    ours.fit(Plain(), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    for a, b in zip(whole, resumed, strict=True):
        assert [e["epoch"] for e in b.history] == [1, 2][-len(b.history) :]
        assert b.history == a.history[: len(b.history)]
    ours = trainer(resumed := callbacks(), max_epochs=4)
    ours.fit(Plain(), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    for a, b in zip(whole, resumed, strict=True):
        assert [e["step"] for e in b.history] == [e["step"] for e in a.history]
        known = {key: (e.value, e.stderr, e.interval, e.converged) for key, e in b.results.items()}
        assert known.keys() == a.results.keys()
        assert all(seconds >= 0 for seconds in (e.seconds for e in b.results.values()))
    # the distance is from the initial weights: further than one epoch can go
    distances = [entry["weights/norm/distance"] for entry in resumed[1].history]
    assert distances == sorted(distances)


def test_two_of_a_kind_keep_their_own_state(tmp_path):
    pair = [Measures(every_n_epochs=1, measures=QUICK), Measures(measures=QUICK, split="test")]
    fit(callbacks=[*pair, ModelCheckpoint(tmp_path)], enable_checkpointing=True, max_epochs=1)
    assert pair[0].state_key != pair[1].state_key
    assert list(pair[1].results) == ["test/flatness/lambda_1", "test/flatness/trace"]


def test_a_second_fit_starts_anew():
    gap, norms = Gap(every_n_epochs=1), Measures(measures=NORMS)
    fit(callbacks=[gap, norms])
    fit(callbacks=[gap, norms], max_epochs=1)
    assert [entry["epoch"] for entry in gap.history] == [1]
    one_epoch = Measures(measures=NORMS)
    fit(callbacks=[one_epoch], max_epochs=1)
    assert norms.history == one_epoch.history


def test_examples():
    seen = []

    @measure("test")
    def count(snapshot: Snapshot) -> Estimate:
        seen.append([len(y) for _, y in snapshot.predictions])
        return Estimate(float(snapshot.examples))

    fit(callbacks=[Measures(examples=25, measures={"n": count}, split="test")])
    assert seen == [[10, 10, 5]]


def test_ones_own_datamodule_and_network():
    x, y = data(64, 0).tensors
    asked = []

    class Own(pl.LightningDataModule):
        splits = ("train", "test")

        def train_dataloader(self):
            return Plain().train_dataloader()

        def evaluation_batches(self, split):
            asked.append(split)
            return [(x, y)] if split == "train" else [(-x, y)]

    class Wrapped(Plain):
        def __init__(self):
            super().__init__()
            self.network = self.layers
            self.unused = nn.Linear(2, 2)

        val_dataloader = None

        def configure_optimizers(self):
            return torch.optim.SGD(self.network.parameters(), 0.1)

    gap, norms, module = Gap(network="network"), Measures(measures=NORMS, network="network"), Wrapped()
    trainer([gap, norms]).fit(module, datamodule=Own())
    assert asked == ["train", "test"]
    assert {key.split("/")[0] for key in gap.results} == {"train", "test"}
    expected = accuracy(Snapshot(module.network, F.cross_entropy, [(-x, y)])).value
    assert gap.results["test/performance/accuracy"].value == expected
    assert "weights/norm/l2.0.weight" in norms.results
    assert not any("unused" in key for key in norms.results)


def test_loaders_given_to_fit():
    gap = Gap()
    loader = torch.utils.data.DataLoader(data(64, 0), batch_size=10)

    class Bare(Plain):
        train_dataloader = val_dataloader = test_dataloader = None

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch)

    ours = trainer([gap])
    ours.fit(Bare(), loader, [loader, loader])
    assert {key.split("/")[0] for key in gap.results} == {"train", "val"}
    assert gap.results["val/gap/accuracy"].value == 0


class Explodes(Plain):
    def on_train_epoch_end(self):
        with torch.no_grad():
            self.layers[0].weight.fill_(math.nan)


def test_a_diverged_network_is_null_with_the_reason():
    gap, norms, flatness = Gap(), Measures(measures=NORMS), Measures()
    ours = fit(Explodes(), [gap, norms, flatness, Stop(train_loss=1e-9)], max_epochs=1)
    for callback in (gap, norms, flatness):
        assert callback.results
        for key, estimate in callback.results.items():
            assert estimate.value is None, key
            assert "not finite" in estimate.note
    assert "train/flatness/lambda_1" in flatness.results
    # the distance of one layer was finite an epoch earlier; only what was measured at the end counts
    assert not set(ours.callback_metrics) & {*gap.results, *norms.results, *flatness.results}


def test_within_an_epoch_of_persistent_workers():
    """Their only iterator is in use by training."""

    class Workers(Plain):
        def train_dataloader(self):
            return torch.utils.data.DataLoader(
                data(64, 0), batch_size=10, shuffle=True, num_workers=1, persistent_workers=True
            )

    states = []
    for callbacks in ([], [callback := Measures(measures={"loss": mean_loss}, every_n_steps=5)]):
        torch.manual_seed(0)
        module = Workers()
        fit(module, callbacks, max_epochs=2)
        states.append(module.state_dict())
    assert [entry["step"] for entry in callback.history] == [5, 10, 14]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_batches_that_are_not_understood_are_null_with_the_reason():
    gap = Gap()
    fit(Odd(), [gap], max_epochs=1)
    assert "with forward=(model, batch)" in gap.results["train/performance/accuracy"].note


@pytest.mark.parametrize("function", [F.mse_loss, F.huber_loss])  # the latter has no gradient in mixed dtypes
def test_other_losses(function):
    class Regression(Plain):
        def training_step(self, batch):
            return function(self(batch[0]), F.one_hot(batch[1], 3).float())

    def loss(output, target):
        return function(output, F.one_hot(target, 3).float())

    module, flatness = Regression(), Measures(loss=loss, measures=QUICK)
    fit(module, [flatness])
    expected = hessian_eigenvalues(Snapshot(module, loss, full(data(64, 0))))["lambda_1"].value
    assert flatness.results["train/flatness/lambda_1"].value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gap(every_n_epochs=0), "Gap every_n_epochs is 0"),
        (lambda: Gap(every_n_epochs="doubling"), "Gap every_n_epochs is 'doubling'.*or powers_of_two"),
        (lambda: Gap(examples=0), "Gap examples is 0"),
        (lambda: Gap(every_n_steps=-1), "Gap every_n_steps is -1; accepted.*or powers_of_two, or null"),
        (lambda: Gap(every_n_steps=[4, 0]), "Gap every_n_steps is 0; accepted: an integer of at least 1"),
        (lambda: Measures(every_n_steps=True), "Measures every_n_steps is True"),
        (lambda: Optimization(path_length=1), "Optimization path_length is 1; accepted: true, false"),
        (lambda: Measures(split="dev"), "Measures split is 'dev'; accepted: train, val, test"),
        (lambda: Measures(measures={"a": 3}), "Measures measures.a is 3"),
        (lambda: Measures(every_n_epochs=1.5), "Measures every_n_epochs is 1.5"),
        (lambda: Stop(train_loss=-1), "Stop train_loss is -1"),
        (lambda: Stop(train_loss=0), "Stop train_loss is 0"),
        (lambda: Stop(train_loss=math.nan), "Stop train_loss is nan"),
        (lambda: Stop(train_accuracy=1.1), "Stop train_accuracy is 1.1"),
        (lambda: Stop(train_loss=1, every_n_epochs=0), "Stop every_n_epochs is 0"),
    ],
)
def test_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [Gap, Measures, Optimization, Stop])
@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("loss", None, "a function of output and target"),
        ("forward", "net", "a function of model and batch, or null"),
        ("count", 3, "a function of output and target, or null"),
        ("network", 1, "the dotted name of a part of the module, or null"),
    ],
)
def test_arguments_that_cannot_be_called_or_name_no_part_are_refused_at_once(kind, name, value, accepted):
    with pytest.raises(ValueError, match=f"^{kind.__name__} {name} is {value!r}; accepted: {accepted}$"):
        kind(**{name: value})
