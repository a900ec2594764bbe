"""The one LightningModule."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.models import Ensemble
from genbench.module_state import eval_mode
from genbench.process.progress import Pace
from genbench.records.unfinished import Unfinished
from genbench.regularization.base import Batches
from genbench.regularization.swa import estimate_norm_statistics
from genbench.rng import StepRandom
from genbench.training.checkpoint import position, set_position
from genbench.training.lane import Lane, SeparateLanes, has_modes
from genbench.training.shard import Shard
from genbench.training.step import training_step


class Diverged(RuntimeError):
    """The training objective became NaN or infinite."""


class Training(pl.LightningModule):
    """Trains lanes side by side: an ordinary run has one, an ensemble one a member.

    One optimizer serves all lanes, a parameter group each. ``network`` is what the run gives: the lane's network, or
    the ensemble of them; what it is after ``finish`` may be another.

    An optimizer with modes, ``train()`` and ``eval()``, trains at other weights than those it is for, the averaged ones
    (schedule-free, Defazio et al. 2024, arXiv 2405.15682). It is in training mode from a step's gradient to its update
    alone: whatever is measured, validated, remembered by a method or kept is averaged. Batch-norm statistics are those
    of the weights it trains at until training ends, and are then estimated anew.

    Args:
        lanes: networks with their methods.
        optimizer: parameter groups -> optimizer.
        scheduler: (optimizer, total steps) -> learning-rate schedule by step, or None.
        max_steps: training ends after so many steps, or with the Trainer's epochs. Not the Trainer's own setting of
            that name: with it Lightning 2.6 resumes a checkpoint of an epoch's end by one step of that epoch.
        shard: this process's part where several train the run together; each needs the callback ``StopTogether`` then.
    """

    network: nn.Module

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler | None] | None = None,
        max_steps: int | None = None,
        shard: Shard | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.lanes = nn.ModuleList(lanes)
        self._lanes = list(lanes)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self._max_steps = max_steps
        self._shard = shard
        for lane in lanes:
            lane.shard = shard
        self._averages = False  # whether the optimizer has modes
        self._objectives: list[Tensor] = []
        self._position: dict[str, Any] | None = None  # of the loader, in a checkpoint
        self.seconds_before = 0.0  # spent before the checkpoint that training continues from
        self.history: list[dict[str, Any]] = []  # the training objective, a mean over each epoch
        self.pace: Pace | None = None  # where it notes how far it is
        self.ended: Callable[[Any], None] | None = None  # called with the Trainer once the network is final
        self.unfinished: Unfinished | None = None  # from then on: what has been measured of it
        self._assemble()

    def _assemble(self) -> None:
        networks = [lane.network for lane in self._lanes]
        members = [m for net in networks for m in (net.members if isinstance(net, Ensemble) else [net])]
        # not registered: its members' weights are the lanes' already
        object.__setattr__(self, "network", networks[0] if len(networks) == 1 else Ensemble(members))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([{"params": lane.trained} for lane in self._lanes])
        self._averages = has_modes(optimizer)
        schedule = None
        if self.make_scheduler is not None:
            schedule = self.make_scheduler(optimizer, total_steps=self.total_steps)
        self._scheduled = schedule is not None
        return ([optimizer], [schedule]) if self._scheduled else optimizer

    def training_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """One step of every lane that has not stopped: ``x`` [lanes, B, ...], ``y`` [lanes, B, ...]."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers() if self._scheduled else None
        step = self.trainer.global_step
        lr = float(optimizer.param_groups[0]["lr"])
        objectives = training_step(
            self._separate,
            *batch,
            optimizer=optimizer,
            schedule=None if scheduler is None else scheduler.step,
            step=step,
            total_steps=self._steps,
        )
        self._objectives.append(objectives)
        self.log_step(step + 1, lambda: (float(objectives.mean()), lr))
        if self.pace is not None:
            self.pace.look(step + 1, self._steps, lambda: float(objectives.mean()))
        if step + 1 == self._steps:
            self.trainer.should_stop = True

    def log_step(self, step: int, values: Callable[[], tuple[float, float]]) -> None:
        """Give the loggers a step's training objective and learning rate, every ``trainer.log_every_n_steps`` steps;
        ``values`` reads them, for which a GPU waits."""
        trainer: Any = self.trainer
        if not trainer.loggers or step % trainer.log_every_n_steps:
            return
        loss, lr = values()
        epoch = step / trainer.datamodule.steps_per_epoch
        row = {"train/optimization/loss": loss, "train/optimization/lr": lr, "epoch": epoch}
        for logger in trainer.loggers:
            logger.log_metrics(row, step=step)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, if nothing ends it early."""
        steps = int(self.trainer.estimated_stepping_batches)
        return steps if self._max_steps is None else min(steps, self._max_steps)

    @property
    def seconds(self) -> float:
        """Seconds of training until now, with those before the checkpoint that it continues from."""
        return self.seconds_before + time.perf_counter() - self._started

    @property
    def validates(self) -> bool:
        """Whether a method watches the validation split."""
        return any(lane.validates for lane in self._lanes)

    def try_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """One forward and backward pass of every lane, to see whether it works, and the schedule as it would be."""
        x, y = batch
        for index, lane in enumerate(self._lanes):
            lane.gradient_step(x[index], y[index], draw=StepRandom(lane.seed, 0, device=x.device), lr=0.0)
        if self.make_scheduler is not None:
            optimizer = self.make_optimizer([{"params": lane.trained} for lane in self._lanes])
            self.make_scheduler(optimizer, total_steps=100)

    def on_fit_start(self) -> None:
        self._started = time.perf_counter()

    def on_train_start(self) -> None:
        self._steps = self.total_steps
        self._separate = SeparateLanes(self._lanes, self.optimizers(), backward=self.manual_backward)
        self._objectives[:] = [t.to(self.device) for t in self._objectives]
        set_position(self.trainer, self._position)

    def on_train_epoch_end(self) -> None:
        # read once an epoch, so that a GPU never waits for the CPU within one
        objectives = torch.stack(self._objectives, 1).tolist()
        self._objectives.clear()
        self.end_epoch(objectives)

    def end_epoch(self, objectives: Sequence[Sequence[float]]) -> None:
        """Note what an epoch came to; ``objectives`` [lanes, steps] of the lanes that trained in it."""
        means = [sum(lanes) / len(lanes) for lanes in zip(*objectives, strict=True)]
        for step, mean in enumerate(means):
            if not math.isfinite(mean):
                step += self.trainer.global_step - len(means)
                raise Diverged(f"diverged at step {step}: the training loss is not finite")
        row = {"epoch": self.trainer.current_epoch + 1, "step": self.trainer.global_step}
        self.history.append({**row, "train/optimization/objective": sum(means) / len(means)})
        if self.validates:
            for lane in self._lanes:
                lane.after_epoch(partial(self._validate, lane))
            if all(lane.stopped for lane in self._lanes):
                self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = list(self.history)
        checkpoint["objectives"] = list(self._objectives)  # of the epoch in whose midst it is
        checkpoint["loader"] = position(self.trainer)
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.continue_from(checkpoint)
        self._objectives[:] = checkpoint["objectives"]
        self._position = checkpoint["loader"]

    def continue_from(self, kept: Mapping[str, Any]) -> None:
        """Take over the past of this training."""
        self.history[:] = kept["history"]
        self.seconds_before = kept["seconds"]

    def finish(self, batches: Batches) -> None:
        """Set the final network; ``batches`` are the unaugmented train examples."""
        for lane in self._lanes:
            if self._averages:
                estimate_norm_statistics(lane.network, batches)
            lane.finish(batches)
        self._assemble()

    def _validate(self, lane: Lane, split: str) -> dict[str, float]:
        if self._shard is None:
            return evaluate(lane.network, self._split(split))
        first = self._shard.rank == 0
        return self._shard.broadcast(evaluate(lane.network, self._split(split)) if first else {})

    def _split(self, name: str) -> list[tuple[Tensor, Tensor]]:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return data.evaluation_batches(name)


class Finish(pl.Callback):
    """Sets the final network before any other callback measures it; stands first in the list."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        if pl_module.pace is not None:
            pl_module.pace.say("measuring")
        pl_module.finish(pl_module._split("train"))
        if not all(torch.isfinite(p).all() for p in pl_module.network.parameters()):
            raise Diverged(f"diverged at step {trainer.global_step}: the weights are not finite")
        if pl_module.ended is not None:
            pl_module.ended(trainer)


@torch.no_grad()
def evaluate(net: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean cross-entropy (nats) and accuracy over the labels of the batches, in evaluation mode."""
    with eval_mode(net):
        outputs = [(net(x), y) for x, y in batches]
    n = sum(y.numel() for _, y in outputs)
    loss = sum(F.cross_entropy(out, y, reduction="sum").double() for out, y in outputs)
    right = sum((out.argmax(1) == y).sum() for out, y in outputs)
    return {"cross_entropy": float(loss) / n, "accuracy": float(right) / n}
