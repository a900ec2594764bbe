"""Projects with ``lightning`` or ``pytorch_lightning`` in the layout of the Lightning–Hydra
template: a module around ``self.net`` with torchmetrics, a datamodule that splits one set, components by Hydra."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, random_split
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from genbench.callbacks import Gap, Measures
from genbench.measures import gradient_norm
from tests.helpers.lightning_projects import data

CONFIG = """
optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 0.02}
trainer:
  _target_: ${package}.Trainer
  max_epochs: 2
  accelerator: cpu
  check_val_every_n_epoch: 1
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: ${folder}
callbacks:
  model_checkpoint: {_target_: "${package}.callbacks.ModelCheckpoint", dirpath: "${folder}", filename: best,
                     monitor: val/performance/cross_entropy, mode: min}
  gap: {_target_: genbench.callbacks.Gap, every_n_epochs: 1}
  flatness:
    _target_: genbench.callbacks.Measures
    split: test
    examples: 40
    measures:
      lambda_1: {_target_: genbench.measures.hessian_eigenvalues, _partial_: true, k: 2}
      gradient_norm: {_target_: genbench.measures.gradient_norm, _partial_: true}
      distance: {_target_: genbench.measures.distance_from_init, _partial_: true}
logger:
  csv: {_target_: "${package}.loggers.CSVLogger", save_dir: "${folder}", name: csv, version: ""}
"""


def project(package: str) -> SimpleNamespace:
    """The template's module and datamodule, of either package."""
    lightning: Any = importlib.import_module(package)

    class Module(lightning.LightningModule):
        def __init__(self, net: nn.Module, optimizer: Any, compile: bool = False) -> None:
            super().__init__()
            self.save_hyperparameters(logger=False, ignore=["net"])
            self.net = net
            self.criterion = nn.CrossEntropyLoss()
            self.train_acc, self.val_acc, self.test_acc = (MulticlassAccuracy(3, average="micro") for _ in range(3))
            self.train_loss, self.val_acc_best = MeanMetric(), MaxMetric()

        def forward(self, x):
            return self.net(x)

        def on_train_start(self):
            for metric in (self.val_acc, self.val_acc_best):
                metric.reset()

        def model_step(self, batch):
            x, y = batch
            logits = self.forward(x)
            return self.criterion(logits, y), logits.argmax(1), y

        def training_step(self, batch, batch_idx):
            loss, preds, targets = self.model_step(batch)
            self.train_loss(loss)
            self.train_acc(preds, targets)
            self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
            self.log("train/acc", self.train_acc, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, batch_idx):
            _, preds, targets = self.model_step(batch)
            self.val_acc(preds, targets)
            self.log("val/acc", self.val_acc, on_step=False, on_epoch=True)

        def on_validation_epoch_end(self):
            self.val_acc_best(self.val_acc.compute())
            self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True)

        def test_step(self, batch, batch_idx):
            _, preds, targets = self.model_step(batch)
            self.test_acc(preds, targets)
            self.log("test/acc", self.test_acc, on_step=False, on_epoch=True)

        def setup(self, stage):
            if self.hparams.compile and stage == "fit":
                self.net = torch.compile(self.net, backend="aot_eager")

        def configure_optimizers(self):
            return {"optimizer": self.hparams.optimizer(params=self.trainer.model.parameters())}

    class Data(lightning.LightningDataModule):
        def __init__(self, batch_size: int = 16) -> None:
            super().__init__()
            self.save_hyperparameters(logger=False)
            self.data_train = self.data_val = self.data_test = None

        def setup(self, stage=None):
            if self.trainer is not None:
                self.batch_size = self.hparams.batch_size // self.trainer.world_size
            if not self.data_train and not self.data_val and not self.data_test:
                whole = ConcatDataset([data(100, 0), data(100, 1)])
                generator = torch.Generator().manual_seed(42)
                self.data_train, self.data_val, self.data_test = random_split(whole, (100, 40, 60), generator=generator)

        def _loader(self, dataset, shuffle=False):
            return DataLoader(dataset, batch_size=self.batch_size, shuffle=shuffle)

        def train_dataloader(self):
            return self._loader(self.data_train, shuffle=True)

        def val_dataloader(self):
            return self._loader(self.data_val)

        def test_dataloader(self):
            return self._loader(self.data_test)

    return SimpleNamespace(Module=Module, Data=Data, seed_everything=lightning.seed_everything)


def train(package: str, folder: Path, *, measured: bool = True, compiled: bool = False) -> SimpleNamespace:
    """Train as the template's train.py does."""
    name = "lightning.pytorch" if package == "lightning" else package
    config = OmegaConf.create(CONFIG)
    config.package, config.folder = name, str(folder)
    theirs = project(package)
    theirs.seed_everything(12, workers=True)
    datamodule = theirs.Data()
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    model = theirs.Module(net, instantiate(config.optimizer), compile=compiled)
    chosen = config.callbacks if measured else {}
    callbacks = {key: instantiate(node) for key, node in chosen.items()}
    loggers = [instantiate(node) for node in config.logger.values()]
    trainer = instantiate(config.trainer, callbacks=list(callbacks.values()), logger=loggers)
    trainer.fit(model=model, datamodule=datamodule)
    return SimpleNamespace(model=model, net=net, data=datamodule, trainer=trainer, **callbacks)


@pytest.fixture(params=["pytorch_lightning", "lightning"])
def package(request) -> str:
    if request.param == "lightning":
        pytest.importorskip("lightning", reason="the other package of Lightning is not installed")
    return request.param


def whole(dataset) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = zip(*dataset, strict=True)
    return torch.stack(x), torch.stack(y)


def test_every_estimate_of_every_split_is_there_and_right(package, tmp_path):
    plain = train(package, tmp_path / "plain", measured=False)
    found = train(package, tmp_path / "measured")
    for (name, a), b in zip(plain.model.state_dict().items(), found.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name

    found.model.eval()
    each = {}
    for split in ("train", "val", "test"):
        x, y = whole(getattr(found.data, f"data_{split}"))
        p = found.net(x).detach().double().softmax(1)
        each[split] = {
            "accuracy": float((p.argmax(1) == y).double().mean()),
            "cross_entropy": float(F.nll_loss(p.log(), y)),
        }
        for name, value in each[split].items():
            assert found.gap.results[f"{split}/performance/{name}"].value == pytest.approx(value, rel=1e-5)
    for split in ("val", "test"):
        gap = each[split]["cross_entropy"] - each["train"]["cross_entropy"]
        assert found.gap.results[f"{split}/gap/cross_entropy"].value == pytest.approx(gap, rel=1e-4)
    assert len(found.gap.history) == 2
    for callback in (found.gap, found.flatness):
        assert all(estimate.value is not None for estimate in callback.results.values())
    assert found.model_checkpoint.best_model_score == pytest.approx(
        min(row["val/performance/cross_entropy"] for row in found.gap.history), rel=1e-6
    )
    logged = (tmp_path / "measured" / "csv" / "metrics.csv").read_text().partition("\n")[0].split(",")
    assert {"train/loss", "test/gap/accuracy", "test/flatness/lambda_1"} <= set(logged)
    assert not any(key.startswith(("stderr/", "seconds/")) for key in logged)
    (tested,) = found.trainer.test(found.model, datamodule=found.data, verbose=False)
    assert found.gap.results["test/performance/accuracy"].value == pytest.approx(tested["test/acc"])


def test_a_checkpoint_of_theirs_keeps_what_was_measured(package, tmp_path):
    found = train(package, tmp_path)
    saved = torch.load(tmp_path / "best.ckpt", weights_only=False)["callbacks"]
    (state,) = (value for key, value in saved.items() if key.startswith("Gap"))
    again = Gap(every_n_epochs=1)
    again.load_state_dict(state)
    assert again.history == found.gap.history[: len(again.history)]


def test_examples_of_theirs_are_a_subset_by_seed_of_the_split(package, tmp_path):
    found = train(package, tmp_path)
    again = Measures(split="test", examples=40, measures={"gradient_norm": gradient_norm})
    assert found.flatness.results["test/optimization/gradient_norm"].note is None
    batches = again._splits.data(found.trainer, found.model, "test", examples=40).batches
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    test = {tuple(row.tolist()) for row in whole(found.data.data_test)[0]}
    assert len({tuple(row.tolist()) for row in x} & test) == 40
    found.model.eval()
    slopes = torch.autograd.grad(F.cross_entropy(found.model(x), y), list(found.model.parameters()))
    expected = float(torch.cat([g.reshape(-1) for g in slopes]).double().norm())
    assert found.flatness.results["test/optimization/gradient_norm"].value == pytest.approx(expected, rel=1e-4)
