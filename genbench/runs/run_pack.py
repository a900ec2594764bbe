"""The network of a pack: the lanes of several runs, trained as one, each run with its own data, callbacks and end."""

import contextlib
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from genbench.data.batches import Batches, Epochs
from genbench.process.progress import Pace, duration
from genbench.runs.pack_callbacks import calls_by_hook, check_hooks
from genbench.runs.run import Run, ending, interrupted
from genbench.training import Checkpoint, Diverged, Lane, Pack, Unpackable
from genbench.training.checkpoint import position, set_position
from genbench.training.step import Unhooked


@dataclass(frozen=True)
class Layout:
    """Which lanes of a pack belong to which run.

    A pack that continues without the runs that have ended keeps its width, so that it goes on bit for bit: the lanes
    of those runs stay idle. An idle lane trains with the settings of a run with which it shares an optimizer, if one is
    left.

    Attributes:
        places: the lanes of each run.
        owners: for each lane, the index of the run with whose settings and data it trains.
        groups: for each lane, the number of the optimizer that it shares.
        unused: the idle lanes.
        left_groups: the groups of idle lanes alone.
    """

    places: list[range]
    owners: list[int]
    groups: list[int]
    unused: list[int]
    left_groups: set[int]

    @classmethod
    def of(cls, run_ids: Sequence[str], sizes: Sequence[int], before: Mapping[str, Any] | None = None) -> "Layout":
        """The layout of runs with so many lanes each: side by side, or as in the pack's checkpoint ``before``."""
        if before is None:
            ends = [0, *accumulate(sizes)]
            places = [range(start, end) for start, end in pairwise(ends)]
            groups = [0] * ends[-1]
        else:
            places = [range(*before["runs"][run_id]["places"]) for run_id in run_ids]
            groups = list(before["groups"])
        owner = {place: index for index, own in enumerate(places) for place in own}
        first: dict[int, int] = {}  # the first run of each group
        for index, own in enumerate(places):
            for place in own:
                first.setdefault(groups[place], index)
        unused = [place for place in range(len(groups)) if place not in owner]
        owners = [owner.get(place, first.get(group, 0)) for place, group in enumerate(groups)]
        return cls(places, owners, groups, unused, set(groups) - first.keys())

    @property
    def width(self) -> int:
        """Number of lanes."""
        return len(self.groups)

    @property
    def used(self) -> int:
        """Number of lanes that belong to runs."""
        return self.width - len(self.unused)


class PackedTrainer:
    """The Trainer of a pack as the module and the callbacks of one of its runs see it."""

    def __init__(self, trainer: pl.Trainer, run: Run) -> None:
        self._trainer = trainer
        self.datamodule = run.data
        self.loggers = run.logs
        self.callbacks = run.callbacks
        self.callback_metrics: dict[str, Any] = {}
        self.should_stop = False
        self.ended = False  # at the end of an epoch after which other runs train on

    @property
    def current_epoch(self) -> int:
        return self._trainer.current_epoch + self.ended

    @property
    def estimated_stepping_batches(self) -> int:
        return int(self._trainer.max_epochs or 0) * self.datamodule.steps_per_epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


class RunPack(Pack):
    """Trains the lanes of several runs as one network. Each run ends by itself: trained enough, diverged or failed.

    Raises:
        Unpackable: their networks, methods, optimizers or callbacks do not allow it.
    """

    def __init__(self, runs: Sequence[Run], checkpoint: Checkpoint, before: Mapping[str, Any] | None = None) -> None:
        for one in runs:
            check_hooks(one)
        modules: list[Any] = [one.module for one in runs]
        layout = Layout.of([one.planned.run_id for one in runs], [len(module.lanes) for module in modules], before)
        lanes: dict[int, Lane] = {
            place: lane
            for places, module in zip(layout.places, modules, strict=True)
            for place, lane in zip(places, module.lanes, strict=True)
        }
        # a maker of its own for each optimizer that no run is left to share
        apart = {group: _distinct(modules[0].make_optimizer) for group in layout.left_groups}
        super().__init__(
            [lanes[i] if i in lanes else copy.deepcopy(modules[0].lanes[0]) for i in range(layout.width)],
            optimizer=[
                apart.get(group, modules[owner].make_optimizer)
                for group, owner in zip(layout.groups, layout.owners, strict=True)
            ],
            scheduler=[modules[owner].make_scheduler for owner in layout.owners],
            own_batches=True,
        )
        self.runs, self.layout = list(runs), layout
        self.places, self.owners = layout.places, layout.owners
        self._checkpoint = checkpoint
        self._run_modules = modules
        self.active = list(range(len(runs)))
        for index, one in enumerate(runs):
            one.width, one.seconds = layout.width, partial(self._seconds, index)
        self.calls = calls_by_hook(self.runs)
        self.by_batch = bool(self.calls["on_train_batch_start"] or self.calls["on_train_batch_end"])
        self._objectives: list[Tensor] = []  # of the present epoch, [lanes] each
        self._position: dict[str, Any] | None = None  # of the loader, in a checkpoint
        self._started: float | None = None
        self.pace: Pace | None = None  # notes how far the training is

    # -- a run

    def trainer_of(self, index: int) -> Any:
        """The Trainer as this run sees it."""
        return self._trainers[index]

    def module_of(self, index: int) -> Any:
        """The run's own module."""
        return self._run_modules[index]

    def guarded(self, index: int, action: Any) -> None:
        """Call ``action`` for one run; an error ends this run alone."""
        self._say_whose(index)
        try:
            action()
        except Diverged as reason:
            self.end([index], "diverged", str(reason))
        except (Exception, SystemExit) as reason:
            if interrupted(reason):
                raise
            self.end([index], "failed", self.runs[index].explain(reason))

    def end(self, indices: Sequence[int], status: str = "completed", error: str | None = None) -> None:
        """End runs: set and keep the final weights of all of them, then measure each and write its record."""
        if self.pace is not None:
            self.pace.whose = ""
        ended = [(index, *self._leave(index, status, error)) for index in indices if index in self.active]
        begun = time.monotonic()
        for done, (index, status, error) in enumerate(ended):
            left = (time.monotonic() - begun) / done * (len(ended) - done) if done else None
            self._say_whose(index, left)
            if self.pace is not None:
                self.pace.say("measuring")
            self._conclude(index, status, error)

    def _say_whose(self, index: int, left: float | None = None) -> None:
        """Have progress name the run that is measured, and the seconds ``left`` for all runs."""
        if self.pace is not None:
            more = "" if left is None else f" ({duration(left)} left)"
            self.pace.whose = f"run {index + 1} of {len(self.runs)}{more}: "

    def _leave(self, index: int, status: str, error: str | None) -> tuple[str, str | None]:
        """End the training of a run; its status and error."""
        self.active.remove(index)
        for lane in self.places[index]:
            self.release(lane)
        if status != "completed":
            return status, error
        one = self.runs[index]
        with ending(one) as end:
            one.callbacks[0].on_train_end(self.trainer_of(index), self.module_of(index))
        return end.status, end.error

    def _conclude(self, index: int, status: str, error: str | None) -> None:
        """Measure a run and write its record."""
        one = self.runs[index]
        if status == "completed":
            with ending(one) as end:
                one.measure()
            status, error = end.status, end.error
        seconds = self._seconds(index)
        write = partial(one.write, fit=seconds, total=seconds, lanes=len(self.lanes))
        try:
            write(status, error)
        except OSError as reason:  # the others may still be written
            with contextlib.suppress(OSError):
                write("failed", one.explain(reason))

    def _seconds(self, index: int) -> float:
        """Seconds of a run: its share of the training, and its own measures."""
        share = len(self.places[index]) / self.layout.used
        fit = (self.elapsed() - sum(other.measure_seconds for other in self.runs)) * share
        return fit + self.runs[index].measure_seconds

    def fail(self, reason: BaseException) -> None:
        """End all runs that still train by an error of the whole pack."""
        for index in list(self.active):
            self.end([index], "failed", self.runs[index].explain(reason))

    def elapsed(self) -> float:
        """Seconds of training until now."""
        return self.module_of(0).seconds_before + (time.perf_counter() - self._started if self._started else 0.0)

    # -- Lightning

    def attach(self, trainer: pl.Trainer) -> None:
        """Give every run its view of the Trainer."""
        self._trainers = [PackedTrainer(trainer, one) for one in self.runs]
        for module, seen in zip(self._run_modules, self._trainers, strict=True):
            module.trainer = seen

    def configure_optimizers(self) -> torch.optim.Optimizer:
        for one in self.runs:
            one.data.to(self.device)
        self._started = time.perf_counter()
        try:
            optimizer = super().configure_optimizers()
        except ValueError as reason:  # networks of different structure, say
            raise Unpackable(str(reason)) from reason
        for index, lane in enumerate(self.lanes):
            if lane.stopped or self.owners[index] not in self.active:
                self.release(index)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["groups"] = self.lane_optimizer.groups
        checkpoint["objectives"] = list(self._objectives)  # of the epoch that it is in
        checkpoint["loader"] = position(self.trainer)
        checkpoint["runs"] = {}
        for index in self.active:  # an ended run is not continued
            one, places = self.runs[index], self.places[index]
            checkpoint["runs"][one.planned.run_id] = {
                "places": [places.start, places.stop],
                "history": list(self.module_of(index).history),
                "seconds": self.elapsed(),
                "attributes": self.module_of(index).attributes(),
                "callbacks": {callback.state_key: callback.state_dict() for callback in one.callbacks},
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        (optimizer,) = checkpoint["optimizer_states"]
        for place in self.layout.unused:  # an idle lane has the optimizer state of its owner's first lane
            optimizer["lanes"][place] = optimizer["lanes"][self.places[self.owners[place]].start]
        self._objectives = checkpoint["objectives"]
        self._position = checkpoint["loader"]
        for one, module in zip(self.runs, self._run_modules, strict=True):
            state = checkpoint["runs"][one.planned.run_id]
            module.continue_from(state)
            for callback in one.callbacks:
                if state["callbacks"].get(callback.state_key):
                    callback.load_state_dict(state["callbacks"][callback.state_key])

    @property
    def total_steps(self) -> int:
        return self.module_of(0).total_steps

    def training_step(self, batch: Any) -> None:
        """One step with the batch, or, unless ``by_batch``, a step with each batch of an epoch."""
        for x, y in [batch] if self.by_batch else batch:
            trainer: Any = self.trainer
            logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
            lr = self.lane_optimizer.lr.tolist() if logged else []
            self.advance(x, y, total_steps=self._steps, optimizer=self._unhooked)
            self._objectives.append(self.objectives)
            if logged:
                self._log_step(self.objectives.tolist(), lr)
            step = self.trainer.global_step
            if self.pace is not None:
                self.pace.look(step, self._steps, lambda: float(self.objectives.nanmean()))
            if step == self._steps:
                self.trainer.should_stop = True
                break
            if not self.by_batch:  # no callback is called within an epoch
                self._checkpoint.after_step(self.trainer, last=step % self.runs[0].data.steps_per_epoch == 0)

    def _log_step(self, objectives: list[float], lr: list[float]) -> None:
        """Log the step of each run: the mean over its lanes that have not stopped, as if it trained alone."""
        for index in self.active:
            module, places = self.module_of(index), self.places[index]
            own = [objectives[p] for p, lane in zip(places, module.lanes, strict=True) if not lane.stopped]
            values = sum(own) / len(own), lr[places.start]
            self.guarded(index, partial(module.log_step, self.trainer.global_step, lambda values=values: values))

    def on_fit_start(self) -> None:
        for module in self._run_modules:
            module.on_fit_start()

    def on_train_start(self) -> None:
        self._steps = self.total_steps
        self._unhooked = Unhooked(self.lane_optimizer, self.trainer)  # no callback of a pack looks at the optimizer
        self._objectives = [t.to(self.device) for t in self._objectives]
        set_position(self.trainer, self._position)
        for module in self._run_modules:
            module.on_train_start()

    def end_stopped(self, end_epoch: Callable[[int], None]) -> None:
        """End the runs that were told to stop within an epoch, which ends for them there: ``end_epoch`` calls their
        callbacks."""
        if stopped := [index for index in self.active if self.trainer_of(index).should_stop]:
            objectives = torch.stack(self._objectives, 1).tolist()
            for index in stopped:
                end_epoch(index)
                self._end_epoch(index, objectives)
            self._end_those_told()

    def on_train_epoch_end(self) -> None:
        objectives = torch.stack(self._objectives, 1).tolist()  # [lanes, steps]
        self._objectives.clear()
        for index in list(self.active):
            self._end_epoch(index, objectives)
        self._end_those_told()

    def _end_epoch(self, index: int, objectives: Sequence[Sequence[float]]) -> None:
        """Record an epoch of a run and release its lanes that stop; ``objectives`` [lanes, steps] of the pack."""
        module, places = self.module_of(index), self.places[index]
        own = [objectives[place] for place, lane in zip(places, module.lanes, strict=True) if not lane.stopped]
        self.guarded(index, partial(module.end_epoch, own))
        for place, lane in zip(places, module.lanes, strict=True):
            if lane.stopped and index in self.active:
                self.release(place)

    def _end_those_told(self) -> None:
        """End the runs that were told to stop."""
        ended = [index for index in self.active if self.trainer_of(index).should_stop]
        for index in ended:
            self.trainer_of(index).ended = True
        self.end(ended)
        if not self.active:
            self.trainer.should_stop = True


class PackData(LightningDataModule):
    """The training batches of the runs of a pack, side by side."""

    def __init__(self, pack: RunPack) -> None:
        super().__init__()
        self._pack = pack

    def train_dataloader(self) -> Batches | Epochs:
        pack = self._pack
        loaders = [one.data.train_dataloader() for one in pack.runs]
        starts = [(index, place - pack.places[index].start) for place, index in enumerate(pack.owners)]
        lanes = [(index, row % len(pack.places[index])) for index, row in starts]
        batches = type(loaders[0]).merge(loaders, lanes)
        return batches if pack.by_batch else Epochs(batches)


def _distinct(make: Any) -> Any:
    """A maker of optimizers that does not compare equal to ``make``, so that no optimizer is shared with its lanes."""
    return lambda groups: make(groups)
