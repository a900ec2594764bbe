"""When callbacks measure, what they say, and that they change nothing."""

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

from genbench.callbacks import Flatness, Gap, Stop, WeightNorms
from genbench.measures import Estimate, Snapshot, accuracy, hessian_eigenvalues, hessian_trace, measure
from tests.callbacks.strangers import Odd, Plain, data, fit, trainer, understand

QUICK = {"lambda_1": hessian_eigenvalues, "trace": hessian_trace}


def full(dataset) -> list:
    return [tuple(dataset.tensors)]


def everything(**settings) -> list[pl.Callback]:
    return [
        Gap(every_n_epochs=1, **settings),
        WeightNorms(every_n_epochs=1),
        Flatness(every_n_epochs=1, **settings),
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
    for callback in measuring[:3]:
        assert len(callback.history) == 3
        assert all(estimate.value is not None for estimate in callback.results.values())


def test_gap_is_that_of_the_final_weights():
    gap = Gap()
    module = Plain()
    ours = fit(module, [gap])
    module.eval()
    for split, dataset in (("train", data(64, 0)), ("val", data(30, 1)), ("test", data(50, 2))):
        x, y = dataset.tensors
        p = module(x).detach().double().softmax(1)
        found = {
            name: gap.results[f"{split}/performance/{name}"].value
            for name in ("accuracy", "cross_entropy", "soft_error")
        }
        assert found["accuracy"] == pytest.approx(float((p.argmax(1) == y).double().mean()))
        assert found["cross_entropy"] == pytest.approx(float(F.nll_loss(p.log(), y)), rel=1e-5)
        assert found["soft_error"] == pytest.approx(float(1 - p[torch.arange(len(y)), y].mean()), rel=1e-5)
        assert 0 <= gap.results[f"{split}/performance/calibration_error"].value <= 1
        if split == "train":
            train = found
        else:
            signs = {"accuracy": -1, "cross_entropy": 1, "soft_error": 1}
            for name, sign in signs.items():
                expected = sign * (found[name] - train[name])
                assert gap.results[f"{split}/gap/{name}"].value == pytest.approx(expected)
    assert "train/gap/accuracy" not in gap.results
    for key, estimate in gap.results.items():
        assert float(ours.callback_metrics[key]) == pytest.approx(estimate.value, rel=1e-6)
    assert gap.seconds > 0


def test_weight_norms_since_the_start():
    norms = WeightNorms()
    module = Plain()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, [norms])
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double()
    moved = torch.cat([(p.detach() - start[name]).reshape(-1) for name, p in module.named_parameters()]).double()
    assert norms.results["weights/norm/l2"].value == pytest.approx(float(flat.norm()))
    assert norms.results["weights/norm/distance"].value == pytest.approx(float(moved.norm()))
    tops = [float(torch.linalg.svdvals(p.detach())[0]) for p in module.parameters() if p.ndim == 2]
    assert norms.results["weights/norm/spectral"].value == pytest.approx(max(tops), rel=1e-5)
    weight = module.layers[0].weight.detach()
    assert norms.results["weights/norm/l2.layers.0.weight"].value == pytest.approx(float(weight.norm()), rel=1e-6)


def test_flatness_is_that_of_the_final_weights():
    flatness = Flatness()
    module = Plain()
    fit(module, [flatness])
    names = ("lambda_1", "trace", "sam_sharpness", "average_sharpness", "adaptive_sharpness")
    assert list(flatness.results) == [f"train/flatness/{name}" for name in names]
    snapshot = Snapshot(module, F.cross_entropy, full(data(64, 0)))
    top = flatness.results["train/flatness/lambda_1"]
    assert top.value == pytest.approx(hessian_eigenvalues(snapshot)["lambda_1"].value, rel=1e-4)
    assert top.converged
    assert top.residual <= 1e-3
    trace = flatness.results["train/flatness/trace"]
    assert trace.value == pytest.approx(hessian_trace(snapshot).value, rel=1e-3)
    assert trace.stderr > 0


def test_schedule_and_the_end_measured_once():
    each, second, end = Gap(every_n_epochs=1), Gap(every_n_epochs=2), Gap()
    fit(callbacks=[each, second, end])
    assert [(e["epoch"], e["step"]) for e in each.history] == [(1, 7), (2, 14), (3, 21)]
    assert [(e["epoch"], e["step"]) for e in second.history] == [(2, 14), (3, 21)]
    assert [(e["epoch"], e["step"]) for e in end.history] == [(3, 21)]
    assert each.history[-1] == second.history[-1] == end.history[-1]
    assert each.history[-1]["train/performance/accuracy"] == each.results["train/performance/accuracy"].value


def test_stopped_within_an_epoch():
    norms = WeightNorms(every_n_epochs=2)
    fit(callbacks=[norms], max_steps=17, max_epochs=-1)
    assert norms.history[-1]["step"] == 17
    assert len({entry["step"] for entry in norms.history}) == len(norms.history)


class Restore(pl.Callback):
    """Sets other final weights before anything is measured at the end."""

    def on_train_end(self, trainer, pl_module):
        with torch.no_grad():
            for p in pl_module.parameters():
                p.mul_(2)


def test_weights_chosen_at_the_end_replace_the_last_epochs():
    norms, module = WeightNorms(every_n_epochs=1), Plain()
    fit(module, [Restore(), norms])
    assert [entry["epoch"] for entry in norms.history] == [1, 2, 3]
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double()
    assert norms.history[-1]["weights/norm/l2"] == pytest.approx(float(flat.norm()))


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
        return [Gap(every_n_epochs=1), WeightNorms(every_n_epochs=1), Flatness(every_n_epochs=2, measures=QUICK)]

    def saving():
        return ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)

    whole = callbacks()
    fit(callbacks=[*whole, saving()], enable_checkpointing=True, max_epochs=4)
    saved = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    states = {key: state for key, state in saved["callbacks"].items() if key.startswith(("Gap", "Flatness"))}
    assert len(states) == 2
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
    # the distance is still that from the first weights: further than one epoch can go
    distances = [entry["weights/norm/distance"] for entry in resumed[1].history]
    assert distances == sorted(distances)


def test_two_of_a_kind_keep_their_own_state(tmp_path):
    pair = [Flatness(every_n_epochs=1, measures=QUICK), Flatness(measures=QUICK, split="test")]
    fit(callbacks=[*pair, ModelCheckpoint(tmp_path)], enable_checkpointing=True, max_epochs=1)
    assert pair[0].state_key != pair[1].state_key
    assert list(pair[1].results) == ["test/flatness/lambda_1", "test/flatness/trace"]


def test_a_second_fit_starts_anew():
    gap, norms = Gap(every_n_epochs=1), WeightNorms()
    fit(callbacks=[gap, norms])
    fit(callbacks=[gap, norms], max_epochs=1)
    assert [entry["epoch"] for entry in gap.history] == [1]
    one_epoch = WeightNorms()
    fit(callbacks=[one_epoch], max_epochs=1)
    assert norms.history == one_epoch.history


def test_examples():
    seen = []

    @measure("test")
    def count(snapshot: Snapshot) -> Estimate:
        seen.append([len(y) for _, y in snapshot.predictions])
        return Estimate(float(snapshot.examples))

    fit(callbacks=[Flatness(examples=25, measures={"n": count}, split="test")])
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

    gap, norms, module = Gap(), WeightNorms(), Wrapped()
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
    gap, norms, flatness = Gap(), WeightNorms(), Flatness()
    ours = fit(Explodes(), [gap, norms, flatness, Stop(train_loss=1e-9)], max_epochs=1)
    for callback in (gap, norms, flatness):
        assert callback.results
        for key, estimate in callback.results.items():
            assert estimate.value is None, key
            assert "not finite" in estimate.note
    assert "train/flatness/lambda_1" in flatness.results
    # the distance of one layer was finite an epoch earlier; only what was measured at the end counts
    assert not set(ours.callback_metrics) & {*gap.results, *norms.results, *flatness.results}


def test_batches_that_are_not_understood_are_null_with_the_reason():
    gap = Gap()
    fit(Odd(), [gap], max_epochs=1)
    assert "with forward=(model, batch)" in gap.results["train/performance/accuracy"].note


def test_other_losses():
    class Regression(Plain):
        def training_step(self, batch):
            return F.mse_loss(self(batch[0]), F.one_hot(batch[1], 3).float())

    def squared(output, target):
        return F.mse_loss(output, F.one_hot(target, 3).float())

    module, flatness = Regression(), Flatness(loss=squared, measures=QUICK)
    fit(module, [flatness])
    expected = hessian_eigenvalues(Snapshot(module, squared, full(data(64, 0))))["lambda_1"].value
    assert flatness.results["train/flatness/lambda_1"].value == pytest.approx(expected, rel=1e-4)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gap(every_n_epochs=0), "Gap every_n_epochs is 0"),
        (lambda: Gap(every_n_epochs="doubling"), "Gap every_n_epochs is 'doubling'.*or powers_of_two"),
        (lambda: Gap(examples=0), "Gap examples is 0"),
        (lambda: Flatness(split="dev"), "Flatness split is 'dev'; accepted: train, val, test"),
        (lambda: Flatness(measures={"a": 3}), "Flatness measures.a is 3"),
        (lambda: WeightNorms(every_n_epochs=1.5), "WeightNorms every_n_epochs is 1.5"),
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
