"""A run in the making: its parts, how it ends, and the record that it leaves."""

import contextlib
import io
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from genbench import loggers, records
from genbench.config import one_line
from genbench.privacy import shared
from genbench.process.progress import Pace
from genbench.records.estimate import Estimate
from genbench.records.unfinished import Unfinished
from genbench.runs.build import Config, build_callbacks, build_data, build_module, build_trainer, make
from genbench.runs.planned import Plan
from genbench.runs.provenance import provenance
from genbench.runs.results import FINAL, finished_record, measure_codes, write_history, write_record
from genbench.runs.state import CHECKPOINT, ENDED, TRACEBACK, keep_traceback, remove_state
from genbench.training import AtomicCheckpointIO, Diverged, Finish, ProcessLost, Shard, Training


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped a run; the same command continues it."""


def interrupted(reason: BaseException) -> bool:
    """Whether a run was stopped from outside; Lightning turns Ctrl-C into SystemExit and SIGTERM into its own error."""
    causes = (KeyboardInterrupt, SIGTERMException, ProcessLost)
    return isinstance(reason, causes) or isinstance(reason.__context__, causes)


class Run:
    """A run in the making. A backend trains it: ``Sequence[Run] -> list of records``.

    Attributes:
        config, planned, folder: what it is.
        record: the record of an earlier command if the run need not be trained again, or that of :meth:`write`.
        data, module, callbacks: what trains and measures it, after :meth:`build`.
        logs: its loggers, after :meth:`open`.
        width: number of lanes of the pack that trains it; None if it trains alone.
        seconds: function that returns the seconds of its training until now, measuring included.
    """

    data: Any
    module: Training | None = None
    width: int | None = None

    def __init__(self, config: Config, planned: Plan, overrides: Sequence[str] = ()) -> None:
        self.config, self.folder = config, planned.folder
        self.planned = replace(planned, datamodule=None)
        self.record = finished_record(planned)
        self.data = planned.datamodule if self.record is None else None
        self.callbacks: list[pl.Callback] = []
        self.logs: list[Any] = []
        self.seconds: Callable[[], float] = self._seconds
        self._overrides = overrides
        self._named: dict[str, Any] = {}

    def open(self) -> None:
        """Start the clock and the loggers, and remove the record of an earlier attempt."""
        self.started = time.perf_counter()
        for name in (records.RECORD, TRACEBACK):
            (self.folder / name).unlink(missing_ok=True)
        planned = self.planned
        self.logs = loggers.build(
            {key: make(node) for key, node in self.config["logger"].items()},
            loggers.RunInfo(
                folder=self.folder,
                experiment=self.config["name"],
                run_id=planned.run_id,
                seed=self.config["seed"],
                choices=planned.choices,
                config=shared(planned.bound),
                overrides=shared(list(self._overrides)),
                provenance=shared({**provenance(planned.bound), "overrides": list(planned.typed)}),
            ),
        )

    def request(self) -> dict[str, Any]:
        """What another process needs to train this run, as JSON holds it."""
        planned = self.planned
        return {
            "config": self.config,
            "choices": planned.choices,
            "overrides": list(self._overrides),
            "typed": list(planned.typed),
            "run_id": planned.run_id,
        }

    def build(self, shard: Shard | None = None) -> None:
        """Build the parts and write the initial weights. The data are those that the plan was made with."""
        if self.data is None:
            self.data = build_data(self.config)
        self.module = build_module(self.config, self.data, shard)
        self._named = build_callbacks(self.config)
        self.callbacks = [Finish(), *self._named.values()]
        self.module.ended = self._keep
        _save(self.folder / "initial.pt", self.module.network)

    def _seconds(self) -> float:
        assert self.module is not None
        return self.module.seconds

    # -- measuring, which a killed process continues

    def _keep(self, trainer: Any) -> None:
        """Write the state that :meth:`continue_from` reads, as measuring may take minutes."""
        assert self.module is not None
        ended = {
            "key": secrets.token_hex(8),
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": self.seconds(),
            "lanes": self.width or len(self.module.lanes),
        }
        try:
            state = {
                ENDED: ended,
                "weights": self.module.network.state_dict(),
                "history": list(self.module.history),
                "callbacks": {callback.state_key: callback.state_dict() for callback in self.callbacks},
            }
            AtomicCheckpointIO().save_checkpoint(state, self.folder / CHECKPOINT)
        except Exception as reason:  # no room, or a user's callback; only a run that is killed now needs the state
            warnings.warn(f"the end of training could not be kept: {one_line(reason)}", stacklevel=2)
        self._keep_estimates(ended)

    def _keep_estimates(self, ended: Mapping[str, Any]) -> None:
        """Have the callbacks write each estimate when it is there, and take those of the same network and code."""
        assert self.module is not None
        head = {
            "ended": ended["key"],
            "measures": self.planned.measures,
            "provenance": provenance(self.planned.bound),
        }
        self.module.unfinished = Unfinished(self.folder, head)

    def continue_from(self, state: Mapping[str, Any]) -> float:
        """Restore the end of a training from the ``state`` that it kept.

        Returns:
            seconds of training and measuring until the run was broken off.
        """
        ended = state[ENDED]
        assert self.module is not None
        module = self.module
        module.pace = Pace(self.folder)
        module.pace.say("measuring")
        module.finish([])  # gives the network the form that it has after training
        module.network.load_state_dict(state["weights"])
        trainer = build_trainer(
            self.config,
            steps_per_epoch=self.data.steps_per_epoch,
            default_root_dir=self.folder,
            logger=self.logs or False,
        )
        module.to(trainer.strategy.root_device)
        module.trainer = FinishedTrainer(  # type: ignore[assignment]
            trainer, self.data, self.callbacks, epoch=ended["epoch"], step=ended["step"]
        )
        self.call("setup", "fit")
        module.continue_from({"history": state["history"], "seconds": ended["seconds"]})
        for callback in self.callbacks:
            if state["callbacks"].get(callback.state_key):
                callback.load_state_dict(state["callbacks"][callback.state_key])
        self.call("on_fit_start")
        self.call("on_train_start")
        self._keep_estimates(ended)
        assert module.unfinished is not None
        known = {part: module.unfinished.seconds(part.state_key) for part in self.measuring}
        for part, seconds in known.items():
            part.seconds += seconds
        return ended["seconds"] + sum(known.values())

    def call(self, hook: str, *args: Any) -> None:
        """Call a hook of the callbacks as Lightning would, but not of the first, which has set the final network."""
        assert self.module is not None
        for callback in self.callbacks[1:]:
            getattr(callback, hook)(self.module.trainer, self.module, *args)

    def measure(self) -> None:
        """Call the hooks of the end of training, in which callbacks measure."""
        self.call("on_train_end")
        self.call("on_fit_end")
        self.call("teardown", "fit")

    @property
    def measuring(self) -> list[Any]:
        """The callbacks that measure."""
        return [callback for callback in self.callbacks if hasattr(callback, "results")]

    @property
    def measure_seconds(self) -> float:
        """Seconds of measuring until now."""
        return sum(part.seconds for part in self.measuring)

    # -- the end

    def explain(self, error: BaseException) -> str:
        """Write the traceback of an error to the folder; the error in one line."""
        keep_traceback(self.folder, error)
        return one_line(error)

    def write(self, status: str, error: str | None, *, fit: float, total: float, lanes: int | None = None) -> None:
        """Write weights and record. ``fit`` and ``total`` are seconds, measuring included."""
        if status == "completed":
            assert self.module is not None
            _save(self.folder / "weights.pt", self.module.network)
        history = self.module.history if self.module else []
        rows = [*history, *(row for part in self.measuring for row in part.history)]
        measure = self.measure_seconds
        estimates = {key: estimate for part in self.measuring for key, estimate in part.results.items()}
        if (least := getattr(self.data, "bayes_error", None)) is not None:
            value, stderr = least
            estimates["test/performance/bayes_error"] = Estimate(value, stderr=stderr or None)
        self.record = write_record(
            self.planned,
            experiment=self.config["name"],
            status=status,
            error=error,
            seconds={"fit": max(0.0, fit - measure), "measure": measure, "total": total},
            lanes=lanes or (len(self.module.lanes) if self.module else 1),
            estimates=estimates,
            measures=measure_codes(self.planned, self._named),
            history=write_history(self.folder / "history.csv", rows),
        )

    @property
    def finished(self) -> bool:
        """Whether it has a record and need not be trained again."""
        return self.record is not None and self.record["status"] in FINAL

    def close(self) -> None:
        """Close the loggers, and remove the checkpoint of a finished run; a failed one continues from it."""
        if self.module is not None and self.module.pace is not None:
            self.module.pace.end()
        loggers.finish(self.logs, self.record)
        if self.finished:
            remove_state(self.folder)


Backend = Callable[[Sequence[Run]], list[dict[str, Any]]]  # trains runs that are locked; their records


@contextlib.contextmanager
def opened(runs: Sequence[Run]) -> Iterator[None]:
    """Open runs, and close them whatever happens within."""
    with contextlib.ExitStack() as stack:
        for one in runs:
            one.open()
            stack.callback(one.close)
        yield


@dataclass
class End:
    """How a run ended."""

    status: str = "completed"
    error: str | None = None


@contextlib.contextmanager
def ending(run: Run, *, failed: Callable[[BaseException], None] | None = None) -> Iterator[End]:
    """Turn what is raised within into the end of the run: diverged or failed.

    ``failed`` is called with an error that makes the run fail.

    Raises:
        Interrupted: the run was stopped from outside, and so has not ended.
    """
    end = End()
    try:
        yield end
    except Diverged as reason:
        end.status, end.error = "diverged", str(reason)
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the run was interrupted") from None
        end.status, end.error = "failed", run.explain(reason)
        if failed is not None:
            failed(reason)


class FinishedTrainer:
    """A Trainer as callbacks see it after training: at the last epoch and step."""

    def __init__(
        self, trainer: pl.Trainer, data: Any, callbacks: Sequence[pl.Callback] = (), *, epoch: int = 0, step: int = 0
    ) -> None:
        self._trainer, self.datamodule, self.callbacks = trainer, data, list(callbacks)
        self.current_epoch, self.global_step = epoch, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


def _save(path: Path, network: torch.nn.Module) -> None:
    buffer = io.BytesIO()
    torch.save({key: value.cpu() for key, value in network.state_dict().items()}, buffer)
    records.write_atomic(path, buffer.getvalue(), settle=False)  # the record follows
