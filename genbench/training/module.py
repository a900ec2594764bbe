"""The LightningModule of a run."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from genbench.training.attributes import Attributes, register_missing
from genbench.training.checkpoint import Checkpoint, position, set_position
from genbench.training.fused import fused
from genbench.training.lane import Lane, SeparateLanes, has_modes
from genbench.training.shard import Shard
from genbench.training.step import Unhooked, training_step


class Diverged(RuntimeError):
    """The training objective became NaN or infinite."""


class Training(pl.LightningModule):
    """Trains lanes side by side: one for an ordinary run, one for each member of an ensemble.

    One optimizer serves all lanes, with a parameter group for each. ``network`` is the result of the run: the lane's
    network, or the ensemble of them. ``finish`` may replace it.

    An optimizer with the modes ``train()`` and ``eval()`` takes gradients at other weights than the averaged ones that
    it is for (schedule-free, Defazio et al. 2024, arXiv 2405.15682). It is in training mode only within a step. So
    measures, validation, methods and checkpoints see averaged weights. Batch-norm statistics belong to the weights of
    the gradients until training ends, and are then estimated anew.

    Args:
        lanes: networks with their methods.
        optimizer: parameter groups -> optimizer; torch's Adam and AdamW run as their fused kernel, unless ``fused`` or
            ``foreach`` is set.
        scheduler: (optimizer, total steps) -> learning-rate schedule by step, or None.
        max_steps: training ends after so many steps, or with the Trainer's epochs. The Trainer's own ``max_steps`` is
            not used: with it, Lightning 2.6 resumes from an epoch's end by repeating one step of that epoch.
        shard: set where several processes train the run together. Each then needs the callback ``StopTogether``.
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
            if shard is not None and (whole := [method for method in lane.methods if method.whole_batch]):
                raise ValueError(
                    f"regularization {type(whole[0]).__name__}: needs the whole batch, which {shard.world_size} "
                    "processes share; accepted: one process"
                )
        self._averages = False  # whether the optimizer has modes
        self._scheduled = False  # whether it has a schedule
        self._objectives: list[Tensor] = []
        self._position: dict[str, Any] | None = None  # of the loader within its epoch, from a checkpoint
        self._kept: list[Any] = []  # plain attributes of the lanes' modules, from a checkpoint
        self._attributes: list[Attributes] = []  # one a lane, once training has begun
        self.seconds_before = 0.0  # until the checkpoint that training continues from
        self.history: list[dict[str, Any]] = []  # the mean training objective of each epoch
        self.pace: Pace | None = None  # receives the progress
        # is told of each step, where no callback acts within epochs and an item of the loader is an epoch
        self.checkpoint: Checkpoint | None = None
        self.ended: Callable[[Any], None] | None = None  # called with the Trainer once the network is final
        self.unfinished: Unfinished | None = None  # then keeps the measures taken so far
        self._assemble()

    def _assemble(self) -> None:
        networks = [lane.network for lane in self._lanes]
        members = [m for net in networks for m in (net.members if isinstance(net, Ensemble) else [net])]
        # not registered: its weights are registered in the lanes
        object.__setattr__(self, "network", networks[0] if len(networks) == 1 else Ensemble(members))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def configure_optimizers(self) -> Any:
        make = self.make_optimizer
        if all(p.is_floating_point() for lane in self._lanes for p in lane.trained):
            make = fused(make, (torch.optim.Adam, torch.optim.AdamW))  # others may get sparse gradients
        optimizer = make([{"params": lane.trained} for lane in self._lanes])
        self._averages = has_modes(optimizer)
        schedule = None
        if self.make_scheduler is not None:
            schedule = self.make_scheduler(optimizer, total_steps=self.total_steps)
        self._scheduled = schedule is not None
        return ([optimizer], [schedule]) if self._scheduled else optimizer

    def training_step(self, batch: Any) -> None:
        """One step of every lane that has not stopped: ``x`` [lanes, B, ...], ``y`` [lanes, B, ...]; with an iterator
        of such batches a step with each."""
        if not isinstance(batch, Iterator):
            self._step(*batch)
            return
        trainer: Any = self.trainer
        for x, y in batch:
            self._step(x, y)
            if trainer.should_stop:
                break
            assert self.checkpoint is not None
            self.checkpoint.after_step(trainer, last=trainer.global_step % trainer.datamodule.steps_per_epoch == 0)

    def _step(self, x: Tensor, y: Tensor) -> None:
        scheduler = self._scheduler
        step = self.trainer.global_step
        lr = float(self._optimizer.param_groups[0]["lr"])
        objectives = training_step(
            self._separate,
            x,
            y,
            optimizer=self._optimizer,
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
        """Log a step's training objective and learning rate, every ``trainer.log_every_n_steps`` steps. ``values`` is
        called only then, as a GPU waits for it."""
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
        """Number of steps of the whole training if nothing ends it early."""
        trainer: Any = self.trainer
        steps = int(trainer.estimated_stepping_batches)  # the number of items of the loader
        if self.checkpoint is not None:
            steps *= trainer.datamodule.steps_per_epoch
        return steps if self._max_steps is None else min(steps, self._max_steps)

    @property
    def seconds(self) -> float:
        """Seconds of training until now, including those before the checkpoint that it continues from."""
        return self.seconds_before + time.perf_counter() - self._started

    @property
    def validates(self) -> bool:
        """Whether a method watches the validation split."""
        return any(lane.validates for lane in self._lanes)

    def try_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Run one forward and backward pass of every lane, and build the schedule, to see whether they work."""
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
        optimizer: Any = self.optimizers()
        backward = self.manual_backward
        self._optimizer: Any = optimizer
        self._scheduler: Any = self.lr_schedulers() if self._scheduled else None
        if self.checkpoint is not None:  # no callback looks at a step
            self._optimizer, backward = Unhooked(optimizer.optimizer, self.trainer), Tensor.backward
        self._separate = SeparateLanes(self._lanes, optimizer, backward=backward)
        self._objectives[:] = [t.to(self.device) for t in self._objectives]
        set_position(self.trainer, self._position)
        self._attributes = [lane.attributes() for lane in self._lanes]
        for attributes, kept in zip(self._attributes, self._kept, strict=False):
            attributes.load(kept, self.device)

    def on_train_epoch_start(self) -> None:
        self._separate.begin_epoch()

    def on_train_epoch_end(self) -> None:
        # read once per epoch: within an epoch a GPU must not wait for the CPU
        objectives = torch.stack(self._objectives, 1).tolist()
        self._objectives.clear()
        self.end_epoch(objectives)

    def end_epoch(self, objectives: Sequence[Sequence[float]]) -> None:
        """Record an epoch; ``objectives`` [lanes, steps] are those of the lanes that trained in it."""
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
        checkpoint["objectives"] = list(self._objectives)  # of the present epoch
        checkpoint["loader"] = position(self.trainer)
        checkpoint["seconds"] = self.seconds
        checkpoint["attributes"] = self.attributes()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        register_missing(self, checkpoint["state_dict"])
        self.continue_from(checkpoint)
        self._objectives[:] = checkpoint["objectives"]
        self._position = checkpoint["loader"]

    def attributes(self) -> list[Any]:
        """What methods and foreign modules keep in Python and has changed in training, for a checkpoint, by lane.

        Raises:
            Unsavable: names an attribute that a checkpoint cannot hold.
        """
        return [attributes.save() for attributes in self._attributes]

    def continue_from(self, kept: Mapping[str, Any]) -> None:
        """Take over history, seconds and, when training starts, plain attributes from a checkpoint."""
        self.history[:] = kept["history"]
        self._kept = kept.get("attributes", [])  # absent from checkpoints of earlier code
        self.seconds_before = kept["seconds"]

    def finish(self, batches: Batches, *, trained_on: Tensor | None = None) -> None:
        """Set the final network; ``batches`` are the unaugmented train examples, of which each lane was trained on
        some, bool [examples, lanes], or on all."""
        for index, lane in enumerate(self._lanes):
            own = batches if trained_on is None or trained_on.all() else _own(batches, trained_on[:, index])
            if self._averages:
                estimate_norm_statistics(lane.network, own)
            lane.finish(own)
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
    """Sets the final network before any other callback measures it; the first of the callbacks."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        if pl_module.pace is not None:
            pl_module.pace.say("measuring")
        known = getattr(trainer.datamodule, "trained_on", None)  # type: ignore[attr-defined]
        pl_module.finish(pl_module._split("train"), trained_on=None if known is None else known("train"))
        if not all(torch.isfinite(p).all() for p in pl_module.network.parameters()):
            raise Diverged(f"diverged at step {trainer.global_step}: the weights are not finite")
        if pl_module.ended is not None:
            pl_module.ended(trainer)


def _own(batches: Batches, chosen: Tensor) -> Batches:
    """The chosen examples, bool [examples], in batches."""
    found, first = [], 0
    for x, y in batches:
        rows = chosen[first : first + len(y)].to(y.device)
        first += len(y)
        if rows.any():
            found.append((x[rows], y[rows]))
    return found


@torch.no_grad()
def evaluate(net: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean cross-entropy (nats) and accuracy over all labels of the batches, in evaluation mode."""
    with eval_mode(net):
        outputs = [(net(x), y) for x, y in batches]
    n = sum(y.numel() for _, y in outputs)
    loss = sum(F.cross_entropy(out, y, reduction="sum").double() for out, y in outputs)
    right = sum((out.argmax(1) == y).sum() for out, y in outputs)
    return {"cross_entropy": float(loss) / n, "accuracy": float(right) / n}
