"""LightningModules of other people's projects, in the styles that the callbacks must serve."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def data(n: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


class Dictionaries(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return {"signal": x, "label": y}


class Plain(pl.LightningModule):
    """Shuffled loader, dropout, batch norm: whatever touches a random state or a buffer shows in its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(data(64, 0), batch_size=10, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(data(30, 1), batch_size=10)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(data(50, 2), batch_size=10)


class Odd(Plain):
    """Dict batches, two losses, no validation."""

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        output = self(batch["signal"])
        return F.cross_entropy(output, batch["label"]) + 0.01 * output.square().mean()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Dictionaries(*data(64, 0).tensors), batch_size=10, shuffle=True)

    def val_dataloader(self) -> list:
        return []

    def test_dataloader(self) -> DataLoader:
        return DataLoader(Dictionaries(*data(50, 2).tensors), batch_size=10)


class Multitask(pl.LightningModule):
    """Two inputs, two heads and two losses, all in dictionaries; a frozen layer, and a schedule of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"signal": nn.Linear(4, 6), "context": nn.Linear(2, 6)})
        self.norm = nn.LayerNorm(6)
        self.heads = nn.ModuleDict({"label": nn.Linear(6, 3), "amount": nn.Linear(6, 1)})
        self.encoder["context"].weight.requires_grad_(False)

    def forward(self, signal: Tensor, context: Tensor) -> dict[str, Tensor]:
        hidden = self.norm(torch.relu(self.encoder["signal"](signal) + self.encoder["context"](context)))
        return {"label": self.heads["label"](hidden), "amount": self.heads["amount"](hidden).squeeze(1)}

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        return multitask_loss(*multitask(self, batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], 0.01)

    def train_dataloader(self) -> DataLoader:
        x, y = data(60, 0).tensors
        rows = [
            {"signal": x[i], "context": x[i, :2].flip(0), "label": y[i], "amount": x[i].sum(), "name": f"row {i}"}
            for i in range(len(x))
        ]
        return DataLoader(rows, batch_size=16, shuffle=True)


def multitask(model: nn.Module, batch: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return model(batch["signal"], batch["context"]), {key: batch[key] for key in ("label", "amount")}


def multitask_loss(output: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    classification = F.cross_entropy(output["label"], target["label"])
    return classification + 0.5 * F.mse_loss(output["amount"], target["amount"])


def understand(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return model(batch["signal"]), batch["label"]


def trainer(callbacks: list[pl.Callback], **settings) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    defaults = {"max_epochs": 3, "logger": False, "accelerator": "cpu", "log_every_n_steps": 1, **quiet}
    return pl.Trainer(callbacks=callbacks, **{**defaults, **settings})


def fit(module: pl.LightningModule | None = None, callbacks: list[pl.Callback] | None = None, **settings) -> pl.Trainer:
    """A trainer after training a module, by default a new ``Plain``, from a fixed random state."""
    torch.manual_seed(0)
    ours = trainer(callbacks or [], **settings)
    ours.fit(Plain() if module is None else module)
    return ours
