"""A small data set, and training on it: by Lightning, by hand, and the gradient of one step."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.data.batches import Batches
from genbench.regularization import Method
from genbench.rng import StepRandom
from genbench.training import Finish, Lane, Training
from tests.helpers.networks import network

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
    """Train networks (one per lane) with methods on the blobs; return the finished module."""
    networks = networks or [network(seed) for seed in seeds]
    lanes = [Lane(net, methods(), seed=seed) for net, seed in zip(networks, seeds, strict=True)]
    module = Training(lanes, optimizer=optimizer, scheduler=scheduler, max_steps=max_steps)
    resume = settings.pop("ckpt_path", None)
    trained = trainer(epochs, callbacks=[Finish(), *callbacks], **settings)
    trained.fit(module, datamodule=data or Blobs(order_seeds=seeds), ckpt_path=resume)
    return module


def by_hand(net, optimizer, epochs=3, loss=F.cross_entropy, before=lambda net: None):
    """The plainest training loop, over the same batches."""
    optimizer = optimizer(net.parameters())
    batches: Batches = Blobs().train_dataloader()
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for x, y in batches:
            optimizer.zero_grad()
            loss(net(x[0]), y[0]).backward()
            before(net)
            optimizer.step()
    return net


def gradient(lane: Lane, x: Tensor, y: Tensor, step: int = 0) -> list[Tensor]:
    """The gradient that one step of a lane leaves for the optimizer."""
    lane.gradient_step(x, y, draw=StepRandom(lane.seed, step), lr=0.1)
    return [p.grad.clone() for p in lane.trained]


def descend(lane: Lane, x: Tensor, y: Tensor, step: int) -> None:
    """A step of plain gradient descent of one lane by itself."""
    lane.gradient_step(x, y, draw=StepRandom(lane.seed, step), lr=0.1)
    with torch.no_grad():
        for p in lane.trained:
            p.sub_(0.1 * p.grad)


class Trace(Method):
    """Remembers the weights after every step and every epoch."""

    order = 99

    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def after_step(self, params, progress):
        self.steps.append([p.detach().clone() for p in params])

    def after_epoch(self, net, validate):
        self.epochs.append(({k: v.clone() for k, v in net.state_dict().items()}, validate("val")["cross_entropy"]))
        return False
