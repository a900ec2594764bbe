"""Several runs as one: which can train together, and their training. Each leaves what it would have left alone."""

import contextlib
import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from pytorch_lightning import LightningDataModule
from torch import Tensor

from genbench import records
from genbench.callbacks.base import Measuring
from genbench.data.batches import Batches, Epochs
from genbench.process.memory import Allocated, keep_freed
from genbench.process.progress import Pace, duration
from genbench.process.termination import terminable
from genbench.records import digest
from genbench.runs import build, distributed, execute, plan, remeasure
from genbench.runs.plan import Config, Plan
from genbench.runs.run import ENDED, Interrupted, Run, checkpoint_in, ending, final_record, finished_record, interrupted
from genbench.training import AtomicCheckpointIO, Checkpoint, Diverged
from genbench.training.checkpoint import position, set_position
from genbench.training.pack import Pack, Unpackable, out_of_memory

FOLDER = "packs"  # in the folder of an experiment: the state of packs that are not finished
# what runs of one pack may differ in besides the numeric settings of their methods
FREE = (
    "seed",
    "optimizer",
    "scheduler",
    "callbacks",
    "data.seed",
    "data.label_noise",
    "data.noise_kind",
    "data.imbalance",
    "data.duplicates",
    "data.inputs",
    "data.train_size",
    "data.val_fraction",
    "model.dropout",
    "model.init_scale",
)
# numbers of methods on which the operations of a step depend: how many of something it does
COUNTS = ("members", "n", "steps", "projections", "groups", "cycles")
# what a callback may use of Lightning's hooks: those that a pack can call for each of its runs
HOOKS = (
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
    "teardown",
    "state_dict",
    "load_state_dict",
    "state_key",
)


_PAYS = 128  # lanes: on a processor the time of a lane rises beyond (benchmarks/lanes.py)


class TooLarge(MemoryError):
    """The lanes do not fit in memory together."""


def key(planned: Plan) -> str:
    """What runs must have in common to train as one: everything but :data:`FREE` and numeric settings of methods, of
    which :data:`COUNTS` must agree too."""

    def shared(node: Any, path: str) -> Any:
        if path in FREE:
            return None
        if isinstance(node, Mapping):
            return {name: shared(value, f"{path}.{name}" if path else name) for name, value in node.items()}
        numeric = isinstance(node, float | int) and not isinstance(node, bool)
        free = numeric and path.startswith("regularization.") and path.rpartition(".")[2] not in COUNTS
        return None if free else node

    return json.dumps([shared(planned.bound, ""), planned.steps_per_epoch, planned.batch_size], sort_keys=True)


def unfinished(folder: Path) -> list[list[str]]:
    """The ids of the runs of each pack of an experiment's folder that left a checkpoint."""
    return [list(state["runs"]) for _, state in _checkpoints(folder / FOLDER)]


def resume(run: Run) -> bool:
    """Continue a run by itself if an interrupted pack of it left a checkpoint, at the width of that pack, so that its
    numbers are those that it would have had; whether there was one."""
    if not any(run.planned.run_id in ids for ids in unfinished(run.folder.parent)):
        return False
    _train([run])
    _tidy(run.folder.parent / FOLDER)
    return True


def fitting(config: Config, *, processes: int) -> int:
    """How many lanes of this run fit in half the memory that a process may have, from what a step of one allocates; on
    a processor no more than pay."""
    data = build.build_data(config)
    module = build.build_module(config, data)
    pack = Pack([module.lanes[0]], optimizer=module.make_optimizer, own_batches=True)
    x, y = next(iter(data.train_dataloader()))
    allocated = Allocated()
    with contextlib.suppress(Unpackable):  # said when they shall train
        pack.prepare(total_steps=1)
        pack.gradient_step(x[:1], y[:1], step=0)  # traced; from now on it is the operations alone
        with allocated:
            pack.gradient_step(x[:1], y[:1], step=1)
    fit = max(1, _free() // (2 * processes * max(1, allocated.bytes)))
    return fit if torch.cuda.is_available() else min(fit, _PAYS)


def _free() -> int:
    """Bytes that can be allocated, on the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def run(
    configs: Sequence[Config],
    *,
    choices: Sequence[Mapping[str, Any]],
    overrides: Sequence[Sequence[str]],
    typed: Sequence[Sequence[str]] | None = None,
    expected: Sequence[Plan] = (),
) -> list[dict[str, Any] | None]:
    """Train runs of one :func:`key` as one and write their records; None for those that another process trains.

    They continue from the checkpoint of an interrupted pack that holds them all.

    Raises:
        Unpackable: they cannot be vectorized; no record was written, and they can be trained one by one.
        TooLarge: they do not fit in memory; fewer of them may.
        experiment.Interrupted: somebody stopped them; the same call continues from the last checkpoint.
    """
    if distributed.size(configs[0]["trainer"]) > 1:
        raise Unpackable("trainer=ddp shares one run among processes")
    keep_freed()
    plans = [
        plan.plan(config, choices=chosen, typed=words)
        for config, chosen, words in zip(configs, choices, typed or [()] * len(configs), strict=True)
    ]
    for planned, other in zip(plans, expected, strict=bool(expected)):
        if reason := plan.other_code(planned, other):
            raise Unpackable(reason)
    found: list[dict[str, Any] | None] = [finished_record(planned) for planned in plans]
    with ExitStack() as locks, build.threads_of(configs[0]), build.quiet():
        mine = []
        for index, planned in enumerate(plans):
            if found[index] is not None:
                continue
            planned.folder.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(FileLock(planned.folder / records.LOCK, timeout=1))
            except Timeout:
                continue
            if (record := final_record(planned.folder)) is not None:
                found[index] = remeasure.renewed(configs[index], planned, record)
            if found[index] is None:
                mine.append(index)
        if mine:
            runs = [Run(configs[i], plans[i], overrides[i]) for i in mine]
            try:
                left = [one for one in runs if not _measured(one)]
                if left:
                    _train(left)
                _tidy(runs[0].folder.parent / FOLDER)
            finally:
                for one in runs:
                    one.close()
            for index, one in zip(mine, runs, strict=True):
                found[index] = one.record
    return found


def _measured(run: Run) -> bool:
    """Measure a run that was broken off when it had ended; whether it was."""
    state = checkpoint_in(run.folder)
    if state is None or ENDED not in state:
        return False
    with terminable():
        execute.measure(run, state)
    return True


def _train(runs: list[Run]) -> None:
    for one in runs:
        one.build()
    folder = runs[0].folder.parent / FOLDER
    path, state = _checkpoint_of(runs, folder)
    checkpoint = Checkpoint(
        path,
        seconds=min(one.config["checkpoint_seconds"] for one in runs),
        loggers=[log for one in runs for log in one.logs],
    )
    pack = RunPack(runs, checkpoint, state)
    pack.pace = Pace(runs[0].folder)
    for one in runs:
        assert one.module is not None
        one.module.pace = pack.pace
    trainer = build.build_trainer(
        runs[0].config,
        steps_per_epoch=runs[0].data.steps_per_epoch,
        default_root_dir=folder,
        checkpoint_io=PackCheckpointIO(),
        callbacks=[Dispatch(pack), checkpoint],
    )
    try:
        with build.signals():
            trainer.fit(pack, datamodule=PackData(pack), ckpt_path=None if state is None else str(path))
    except Unpackable:
        raise
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the pack was interrupted") from None
        if out_of_memory(reason):
            raise TooLarge(f"{len(pack.lanes)} lanes do not fit in memory") from reason
        pack.fail(reason)
        checkpoint.drop_if_unusable(reason)
    finally:
        pack.pace.end()
    if all(one.finished for one in runs):
        path.unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Remove the checkpoints whose runs are all finished: of packs that were halved, or broken off at their end."""
    for path, state in _checkpoints(folder):
        if all(final_record(folder.parent / run_id) for run_id in state["runs"]):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other packs' files
        folder.rmdir()


def _checkpoint_of(runs: Sequence[Run], folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """Where the state of these runs is kept, and their last one: that of a pack that held all of them."""
    ids = [one.planned.run_id for one in runs]
    own = folder / f"{digest(sorted(ids))[:12]}.ckpt"
    held = [(path, state) for path, state in _checkpoints(folder) if set(ids) <= state["runs"].keys()]
    if not held:
        return own, None
    path, state = max(held, key=lambda each: each[1]["global_step"])
    if path != own:
        if set(ids) == state["runs"].keys():
            path.replace(own)
        else:  # another process may continue the rest of them
            state["runs"] = {run_id: state["runs"][run_id] for run_id in ids}
            PackCheckpointIO().save_checkpoint(state, own)
    return own, state


def _checkpoints(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of a folder of packs and what lies there; what cannot be read is removed."""
    for path in sorted(folder.glob("*.ckpt")):
        try:
            state = PackCheckpointIO().load_checkpoint(path)
        except (OSError, MemoryError):  # its pack has ended meanwhile, or it may be readable the next time
            continue
        except Exception:  # damaged, or of another version: its runs start again
            path.unlink(missing_ok=True)
            continue
        yield path, state


class PackedTrainer:
    """What a run of a pack, its module and its callbacks, sees of the Trainer."""

    def __init__(self, trainer: pl.Trainer, run: Run) -> None:
        self._trainer = trainer
        self.datamodule = run.data
        self.loggers = run.logs
        self.callback_metrics: dict[str, Any] = {}
        self.should_stop = False
        self.ended = False  # at the end of an epoch that the others go on from

    @property
    def current_epoch(self) -> int:
        return self._trainer.current_epoch + self.ended

    @property
    def estimated_stepping_batches(self) -> int:
        return int(self._trainer.max_epochs or 0) * self.datamodule.steps_per_epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


class RunPack(Pack):
    """The lanes of several runs as one network. A run ends by itself: when it has trained enough, diverged or failed.

    Raises:
        Unpackable: their networks, methods, optimizers or callbacks do not allow it.
    """

    def __init__(self, runs: Sequence[Run], checkpoint: Checkpoint, before: Mapping[str, Any] | None = None) -> None:
        modules: list[Any] = [one.module for one in runs]
        ends = [0, *accumulate(len(module.lanes) for module in modules)]
        self.places = [range(a, b) for a, b in pairwise(ends)]  # the lanes of each run
        groups = [0] * ends[-1]
        if before is not None:  # each at its old place, so that it goes on bit for bit
            self.places = [range(*before["runs"][one.planned.run_id]["places"]) for one in runs]
            groups = before["groups"]
        width = len(groups)
        lanes: list[Any] = [None] * width
        in_group: dict[int, int] = {}
        owner = [0] * width
        for index, (module, places) in enumerate(zip(modules, self.places, strict=True)):
            for place, lane in zip(places, module.lanes, strict=True):
                owner[place], lanes[place] = index, lane
                in_group.setdefault(groups[place], index)
        # the places of runs that have ended are filled with copies of a lane, which train as idly as they did; where
        # they shared an optimizer with runs that are left, with a lane of those
        self._unused = [place for place, lane in enumerate(lanes) if lane is None]
        for place in self._unused:
            owner[place] = in_group.get(groups[place], 0)
        self.used = width - len(self._unused)
        for one in runs:
            for callback in one.callbacks:
                used = [h for h in vars(pl.Callback) if not h.startswith("_") and _overrides(callback, h)]
                if other := sorted(set(used) - set(HOOKS)):
                    raise Unpackable(f"callback {type(callback).__name__} uses {other[0]}, which a pack has not")
        apart = {groups[place]: _apart(modules[owner[place]].make_optimizer) for place in self._unused}
        makers = [
            modules[index].make_optimizer if groups[place] in in_group else apart[groups[place]]
            for place, index in enumerate(owner)
        ]
        super().__init__(
            [copy.deepcopy(modules[0].lanes[0]) if lane is None else lane for lane in lanes],
            optimizer=makers,
            scheduler=[modules[index].make_scheduler for index in owner],
            own_batches=True,
        )
        self.owner = owner
        self.runs = list(runs)
        self._checkpoint = checkpoint
        self._modules_of_runs = modules
        self.active = list(range(len(runs)))
        for index, one in enumerate(runs):
            one.lanes, one.spent = width, partial(self._spent, index)
        self.calls = {  # what callbacks do in a hook, and of which run they are
            hook: [
                (index, getattr(callback, hook))
                for index, one in enumerate(runs)
                for callback in one.callbacks
                if _overrides(callback, hook) and not _idle(callback, hook)
            ]
            for hook in HOOKS
            if hook.startswith(("setup", "on_"))
        }
        self.by_batch = bool(self.calls["on_train_batch_start"] or self.calls["on_train_batch_end"])
        self._epoch: list[Tensor] = []
        self._position: dict[str, Any] | None = None  # of the loader, in a checkpoint
        self._started: float | None = None
        self.pace: Pace | None = None  # where it notes how far it is

    # -- a run

    def trainer_of(self, index: int) -> Any:
        """The Trainer as this run sees it."""
        return self._trainers[index]

    def module_of(self, index: int) -> Any:
        """The run's own module."""
        return self._modules_of_runs[index]

    def guarded(self, index: int, action: Any) -> None:
        """Do something for one run; what it raises ends this run alone."""
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
        """Finish runs: their final weights, which all are kept before measuring begins, measures and records."""
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
        """Have what measures tell of which run, with the seconds that are ``left`` for all."""
        if self.pace is not None:
            more = "" if left is None else f" ({duration(left)} left)"
            self.pace.whose = f"run {index + 1} of {len(self.runs)}{more}: "

    def _leave(self, index: int, status: str, error: str | None) -> tuple[str, str | None]:
        """End the training of a run: how it ended."""
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
        spent = self._spent(index)
        write = partial(one.write, fit=spent, total=spent, lanes=len(self.lanes))
        try:
            write(status, error)
        except OSError as reason:  # the others may have better luck
            with contextlib.suppress(OSError):
                write("failed", one.explain(reason))

    def _spent(self, index: int) -> float:
        """The seconds of a run: its share of the training, and its own measures."""
        share = len(self.places[index]) / self.used
        fit = (self.elapsed() - sum(other.measure_seconds for other in self.runs)) * share
        return fit + self.runs[index].measure_seconds

    def fail(self, reason: BaseException) -> None:
        """End all runs that are left by an error of the whole pack."""
        for index in list(self.active):
            self.end([index], "failed", self.runs[index].explain(reason))

    def elapsed(self) -> float:
        """Seconds of training until now."""
        return self.module_of(0).seconds_before + (time.perf_counter() - self._started if self._started else 0.0)

    # -- Lightning

    def attach(self, trainer: pl.Trainer) -> None:
        """Give every run its view of the Trainer."""
        self._trainers = [PackedTrainer(trainer, one) for one in self.runs]
        for module, seen in zip(self._modules_of_runs, self._trainers, strict=True):
            module.trainer = seen

    def configure_optimizers(self) -> torch.optim.Optimizer:
        for one in self.runs:
            one.data.to(self.device)
        self._started = time.perf_counter()
        try:
            optimizer = super().configure_optimizers()
        except ValueError as reason:  # a setting decides the structure of the network, say
            raise Unpackable(str(reason)) from reason
        for index, lane in enumerate(self.lanes):
            if lane.stopped or self.owner[index] not in self.active:
                self.release(index)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["groups"] = self.lane_optimizer.groups
        checkpoint["objectives"] = list(self._epoch)  # of the epoch in whose midst it is
        checkpoint["loader"] = position(self.trainer)
        checkpoint["runs"] = {}
        for index in self.active:  # what has ended is not to be continued
            one, places = self.runs[index], self.places[index]
            checkpoint["runs"][one.planned.run_id] = {
                "places": [places.start, places.stop],
                "history": list(self.module_of(index).history),
                "seconds": self.elapsed(),
                "callbacks": {callback.state_key: callback.state_dict() for callback in one.callbacks},
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        (optimizer,) = checkpoint["optimizer_states"]
        for place in self._unused:  # the optimizer there is that of the lane which fills it
            optimizer["lanes"][place] = optimizer["lanes"][self.places[self.owner[place]].start]
        self._epoch = checkpoint["objectives"]
        self._position = checkpoint["loader"]
        for one, module in zip(self.runs, self._modules_of_runs, strict=True):
            state = checkpoint["runs"][one.planned.run_id]
            module.continue_from(state)
            for callback in one.callbacks:
                if state["callbacks"].get(callback.state_key):
                    callback.load_state_dict(state["callbacks"][callback.state_key])

    @property
    def total_steps(self) -> int:
        return self.module_of(0).total_steps

    def training_step(self, batch: Any) -> None:
        """A step with the batch, or unless ``by_batch`` with each of an epoch."""
        for x, y in [batch] if self.by_batch else batch:
            trainer: Any = self.trainer
            logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
            lr = self.lane_optimizer.lr.tolist() if logged else []
            self.advance(x, y, total_steps=self._steps)
            self._epoch.append(self.objectives)
            if logged:
                self._log_step(self.objectives.tolist(), lr)
            step = self.trainer.global_step
            if self.pace is not None:
                self.pace.look(step, self._steps, lambda: float(self.objectives.nanmean()))
            if step == self._steps:
                self.trainer.should_stop = True
                break
            if not self.by_batch:  # it is no callback's turn within an epoch
                self._checkpoint.after_step(self.trainer, last=step % self.runs[0].data.steps_per_epoch == 0)

    def _log_step(self, objectives: list[float], lr: list[float]) -> None:
        """Each run's loggers; of its members those that have not stopped count, as in a training of its own."""
        for index in self.active:
            module, places = self.module_of(index), self.places[index]
            own = [objectives[p] for p, lane in zip(places, module.lanes, strict=True) if not lane.stopped]
            values = sum(own) / len(own), lr[places.start]
            self.guarded(index, partial(module.log_step, self.trainer.global_step, lambda values=values: values))

    def on_fit_start(self) -> None:
        for module in self._modules_of_runs:
            module.on_fit_start()

    def on_train_start(self) -> None:
        self._steps = self.total_steps
        self._epoch = [t.to(self.device) for t in self._epoch]
        set_position(self.trainer, self._position)
        for module in self._modules_of_runs:
            module.on_train_start()

    def on_train_epoch_end(self) -> None:
        objectives = torch.stack(self._epoch, 1).tolist()  # [lanes, steps]
        self._epoch.clear()
        ended = []
        for index in list(self.active):
            module, places = self.module_of(index), self.places[index]
            own = [objectives[place] for place, lane in zip(places, module.lanes, strict=True) if not lane.stopped]
            self.guarded(index, partial(module.end_epoch, own))
            for place, lane in zip(places, module.lanes, strict=True):
                if lane.stopped and index in self.active:
                    self.release(place)
            if index in self.active and self.trainer_of(index).should_stop:
                self.trainer_of(index).ended = True
                ended.append(index)
        self.end(ended)
        if not self.active:
            self.trainer.should_stop = True


class Dispatch(pl.Callback):
    """Calls the callbacks of every run as Lightning would call them in a training of its own."""

    def __init__(self, pack: RunPack) -> None:
        self._pack = pack

    def _all(self, hook: str, *args: Any) -> None:
        pack = self._pack
        for index, call in pack.calls[hook]:
            if index in pack.active:
                pack.guarded(index, partial(call, pack.trainer_of(index), pack.module_of(index), *args))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._pack.attach(trainer)
        self._all("setup", stage)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_fit_start")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_train_start")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_train_epoch_start")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch("on_train_batch_start", batch, batch_idx)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch("on_train_batch_end", batch, batch_idx, outputs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_train_epoch_end")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pack.end(list(self._pack.active))

    def _batch(self, hook: str, batch: Any, batch_idx: int, *outputs: Any) -> None:
        pack = self._pack
        for index, call in pack.calls[hook]:
            if index in pack.active:
                places = pack.places[index]
                own = tuple(t[places.start : places.stop] for t in batch)
                args = (pack.trainer_of(index), pack.module_of(index), *outputs, own, batch_idx)
                pack.guarded(index, partial(call, *args))


class PackData(LightningDataModule):
    """The training batches of a pack, lane by lane."""

    def __init__(self, pack: RunPack) -> None:
        super().__init__()
        self._pack = pack

    def train_dataloader(self) -> Batches | Epochs:
        pack = self._pack
        loaders = [one.data.train_dataloader() for one in pack.runs]
        starts = [(index, place - pack.places[index].start) for place, index in enumerate(pack.owner)]
        lanes = [(index, row % len(pack.places[index])) for index, row in starts]
        batches = type(loaders[0]).merge(loaders, lanes)
        return batches if pack.by_batch else Epochs(batches)


class PackCheckpointIO(AtomicCheckpointIO):
    """Makes the folder anew where another process has removed it, as it was empty."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        for _ in range(10):
            Path(path).parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # removed in between
                super().save_checkpoint(checkpoint, path, storage_options)
                return
        raise OSError(f"{Path(path).name} cannot be written: its folder is removed all the time")


def _apart(make: Any) -> Any:
    """The maker of an optimizer that is shared with no lane of another."""
    return lambda groups: make(groups)


def _overrides(callback: pl.Callback, hook: str) -> bool:
    return getattr(type(callback), hook) is not getattr(pl.Callback, hook)


def _idle(callback: pl.Callback, hook: str) -> bool:
    """Whether a callback does nothing in a hook of each batch: one that measures, but not after steps."""
    if "batch" not in hook or not isinstance(callback, Measuring) or callback.every_n_steps is not None:
        return False
    return getattr(type(callback), hook) is getattr(Measuring, hook)
