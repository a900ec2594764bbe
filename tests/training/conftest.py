"""A small data set, and training on it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genbench.data.batches import Batches
from genbench.regularization import Method
from genbench.training import Finish, Lane, Training

ADAM = partial(torch.optim.Adam, lr=0.05)


class Blobs(pl.LightningDataModule):
    """Three noisy classes in five dimensions: 60 examples to train on, 30 to validate."""

    classes = 3

    def __init__(self, order_seeds: Sequence[int] = (0,), batch_size: int = 12) -> None:
        super().__init__()
        self.order_seeds, self.batch_size = tuple(order_seeds), batch_size
        generator = torch.Generator().manual_seed(0)
        y = torch.arange(90) % 3
        x = torch.randn(90, 5, generator=generator, dtype=torch.float64)
        x[torch.arange(90), y] += 1
        self.splits = {"train": (x[:60], y[:60]), "val": (x[60:], y[60:])}

    def evaluation_batches(self, split: str) -> list[tuple[Tensor, Tensor]]:
        return [self.splits[split]]

    def train_dataloader(self) -> Batches:
        return Batches(*self.splits["train"], batch_size=self.batch_size, seed=0, seeds=self.order_seeds)


def network(seed: int = 0, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(8)] if norm else []
        net = nn.Sequential(nn.Linear(5, 8), *middle, nn.Tanh(), nn.Linear(8, 3)).double()
    net.classes = 3
    return net


def trainer(epochs: int, *, callbacks: Sequence[pl.Callback] = (), **settings: Any) -> pl.Trainer:
    """A quiet Trainer on the CPU."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        **settings,
    )


@pytest.fixture
def fit() -> Callable[..., Training]:
    """Train networks (one a lane) with methods on the blobs; the finished module."""

    def fit(
        methods: Callable[[], Sequence[Method]] = list,
        *,
        networks: Sequence[nn.Module] | None = None,
        seeds: Sequence[int] = (0,),
        optimizer: Any = ADAM,
        scheduler: Any = None,
        epochs: int = 3,
        max_steps: int | None = None,
        callbacks: Sequence[pl.Callback] = (),
        data: Blobs | None = None,
        **settings: Any,
    ) -> Training:
        networks = networks or [network(seed) for seed in seeds]
        lanes = [Lane(net, methods(), seed=seed) for net, seed in zip(networks, seeds, strict=True)]
        module = Training(lanes, optimizer=optimizer, scheduler=scheduler, max_steps=max_steps)
        resume = settings.pop("ckpt_path", None)
        trained = trainer(epochs, callbacks=[Finish(), *callbacks], **settings)
        trained.fit(module, datamodule=data or Blobs(order_seeds=seeds), ckpt_path=resume)
        return module

    return fit
