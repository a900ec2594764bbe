"""Runs as loggers know them, and a small training that they follow."""

import csv
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from genbench.loggers import RunInfo

ROW = {"test/performance/accuracy": 0.5, "test/gap/accuracy": 0.25}


RECORD = {"status": "completed", "metrics": {"test/performance/accuracy": 0.75, "val/gap/accuracy": None}, "seconds": {"fit": 2.0}}  # noqa: E501  # fmt: skip


def make_run(folder: Path, run_id: str = "0123456789ab", **changes: object) -> RunInfo:
    settings: dict = {
        "folder": folder / "ablation" / run_id,
        "experiment": "ablation",
        "run_id": run_id,
        "seed": 3,
        "choices": {"data": "mnist1d", "model": "mlp", "regularization": ["l2", "mixup"]},
        "config": {"data": {"label_noise": 0.2}, "seed": 3, "regularization": {"l2": {"strength": 0.1}, "mixup": {}}},
        "overrides": ["regularization=[l2,mixup]", "data.label_noise=0.2", "seed=3"],
    }
    return RunInfo(**{**settings, **changes})


def log(built: list[Logger], metrics: dict[str, float], *, step: int) -> None:
    for logger in built:
        logger.log_metrics(metrics, step=step)


class Toy(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        loss = self.net(batch).square().mean()
        self.log("train/performance/cross_entropy", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(built: list[Logger] | bool, epochs: int = 3) -> torch.Tensor:
    module = Toy()
    trainer = pl.Trainer(
        max_epochs=epochs, logger=built, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4))
    return module.net.weight.detach().clone()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
