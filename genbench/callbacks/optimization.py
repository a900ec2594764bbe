"""Measure how training went."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genbench.callbacks.base import Every, Measuring
from genbench.checks import check_flag
from genbench.measures import Estimate, cross_entropy, gradient_variance
from genbench.measures.base import MeasureOf, attempt, reason
from genbench.measures.random_state import restoring_random_state
from genbench.measures.snapshot import Count, Forward, Loss

_MISSED = "not reached"
_LOSSES = {"1e-1": 0.1, "1e-2": 0.01}  # a dot in a metric key marks a layer


class Optimization(Measuring):
    """Measures the speed, gradient noise and path length of training (Jiang et al. 2020, arXiv 1912.02178, C.4).

    - ``train/optimization/steps_to_1e-1``: optimizer steps until the cross-entropy of the train split, by a full pass
      in evaluation mode, is at most 0.1; ``steps_from_1e-1_to_1e-2``: the further steps to 0.01. The loss is evaluated
      on a schedule, so that ``interval`` is (last evaluation above, first evaluation below); the value is the latter.
      ``None`` if the loss was not reached.
    - ``train/optimization/gradient_variance_epoch_1`` and ``gradient_variance``: :func:`genbench.measures.
      gradient_variance` after the first epoch and at the final weights.
    - ``weights/optimization/path_length``: Σ ‖w_{t+1} − w_t‖₂ over batches, for the trainable parameters; for an
      ensemble, the mean over its members.

    Args:
        every_n_epochs: how often to evaluate the loss, at least 1; ``"powers_of_two"`` for epochs 1, 2, 4, …; a list
            of epochs; ``None`` for never. It is always evaluated at the end of training.
        every_n_steps: the same in optimizer steps.
        path_length: whether to measure it; it costs a pass over the weights and a copy of them at every step.
        loss: (output, target) -> mean over the batch; its gradients are measured.
        forward: (model, batch) -> (output, target), for batches that are not (input, target).
        count: (output, target) -> weight of a batch in the mean (see :class:`genbench.measures.Snapshot`); ``None`` for
            its number of examples.
        examples: number of examples of the train split to measure on, the same each time (see
            :func:`genbench.callbacks.splits.take`); ``None`` for all.
        network: dotted name of the part of the module to measure; ``None`` for the module itself.
        log_details: whether loggers also get standard errors as ``stderr/<key>`` and costs as ``seconds/<key>``.
    """

    _evaluated: int  # the step of the last evaluation of the loss
    _reached: dict[str, list[int]]  # by threshold: steps of the last evaluation above and of the first below
    _noise: dict[str, Estimate]
    _lengths: Tensor | None  # path length of each member
    _path_seconds: float

    def __init__(
        self,
        *,
        every_n_epochs: Every = 1,
        every_n_steps: Every = None,
        path_length: bool = True,
        loss: Loss = nn.functional.cross_entropy,
        forward: Forward | None = None,
        count: Count | None = None,
        examples: int | None = None,
        network: str | None = None,
        log_details: bool = False,
    ) -> None:
        self.path_length = check_flag("Optimization path_length", path_length)
        super().__init__(
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            loss=loss,
            forward=forward,
            count=count,
            examples=examples,
            network=network,
            log_details=log_details,
        )
        self._live: list[list[Tensor]] = []  # the weights of each member
        self._previous: list[list[Tensor]] = []  # a copy of them at the last batch

    # -- when

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start_path(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start_path(pl_module)  # changes between epochs are not part of the path

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.path_length:
            self._extend_path()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self._noise["gradient_variance_epoch_1"] = self._variance(trainer, pl_module)
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = self.part(pl_module, "gradient_variance", lambda: {"": self._variance(trainer, pl_module)})
        self._noise["gradient_variance"] = found[""]
        if self.history and self.history[-1]["step"] == trainer.global_step:
            self.history.pop()  # it lacks this variance
        super().on_train_end(trainer, pl_module)

    # -- what

    def keys(self, splits: Sequence[str]) -> list[str]:
        speed = [f"train/optimization/{name}" for name in ("steps_to_1e-1", "steps_from_1e-1_to_1e-2")]
        noise = [f"train/optimization/{name}" for name in ("gradient_variance_epoch_1", "gradient_variance")]
        return [*speed, *noise, *(["weights/optimization/path_length"] if self.path_length else [])]

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        loss = self._measured(cross_entropy, trainer, pl_module)
        if trainer.global_step > self._evaluated:  # weights that change without a step do not count
            for name, threshold in _LOSSES.items():
                if loss.value is not None and loss.value <= threshold and name not in self._reached:
                    self._reached[name] = [self._evaluated, trainer.global_step]
            self._evaluated = trainer.global_step
        first, second = (self._reached.get(name) for name in _LOSSES)
        results = {"steps_to_1e-1": self._missed(loss, 0.1), "steps_from_1e-1_to_1e-2": self._missed(loss, 0.01)}
        if first is not None:
            results["steps_to_1e-1"] = Estimate(first[1], interval=(first[0], first[1]))
            if second is not None:
                between = (max(0, second[0] - first[1]), second[1] - first[0])
                results["steps_from_1e-1_to_1e-2"] = Estimate(second[1] - first[1], interval=between)
        results = {key: replace(estimate, seconds=loss.seconds / len(results)) for key, estimate in results.items()}
        found = {f"train/optimization/{key}": estimate for key, estimate in (results | self._noise).items()}
        if self.path_length:
            found["weights/optimization/path_length"] = self._path_length()
        return found

    def unmeasured(self) -> list[str]:
        return [key for key in super().unmeasured() if not (self.results[key].note or "").startswith(_MISSED)]

    def _missed(self, loss: Estimate, threshold: float) -> Estimate:
        note = loss.note if loss.value is None else f"{_MISSED}: cross-entropy {threshold} in {self._evaluated} steps"
        return Estimate(None, note=note)

    def _variance(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Estimate:
        with restoring_random_state():
            estimate = self._measured(gradient_variance, trainer, pl_module)
        self.seconds += estimate.seconds
        return estimate

    def _measured(self, function: MeasureOf, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Estimate:
        try:
            snapshot = self.snapshot(trainer, pl_module, "train")
        except Exception as error:  # a failed measurement never ends training
            return Estimate(None, note=reason(error))
        if snapshot is None:
            return Estimate(None, note="there is no train split")
        return attempt("", function, snapshot)[""]

    # -- the path

    def _start_path(self, pl_module: pl.LightningModule) -> None:
        if self.path_length:
            whole = self.subject(pl_module)
            members = getattr(whole, "members", None)
            networks = list(members) if isinstance(members, nn.ModuleList) else [whole]
            self._live = [[p for p in one.parameters() if p.requires_grad] for one in networks]
            self._previous = [[p.detach().clone() for p in weights] for weights in self._live]
            if self._lengths is None:
                self._lengths = torch.zeros(len(networks), dtype=torch.float64)
            self._lengths = self._lengths.to(self._previous[0][0].device)

    @torch.no_grad()
    def _extend_path(self) -> None:
        start = perf_counter()
        steps = []
        for weights, previous in zip(self._live, self._previous, strict=True):
            moved = torch._foreach_norm(torch._foreach_sub(weights, previous), 2, dtype=torch.float64)
            steps.append(torch.linalg.vector_norm(torch.stack(moved)))
            torch._foreach_copy_(previous, weights)
        assert self._lengths is not None
        self._lengths += torch.stack(steps)  # stays on the device: reading it would synchronize
        self._path_seconds += perf_counter() - start
        self.seconds += perf_counter() - start

    def _path_length(self) -> Estimate:
        assert self._lengths is not None
        n, length = len(self._lengths), float(self._lengths.mean())
        if not math.isfinite(length):
            return Estimate(None, note=f"the value is {length}")
        return Estimate(length, seconds=self._path_seconds, note=f"mean of {n} members" if n > 1 else None)

    # -- its state

    @property
    def state_key(self) -> str:
        return self._generate_state_key(**self._settings(), path_length=self.path_length)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "looked": self._evaluated,
            "reached": dict(self._reached),
            "noise": {name: asdict(estimate) for name, estimate in self._noise.items()},
            "lengths": None if self._lengths is None else self._lengths.tolist(),
            "walking": self._path_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._evaluated = state_dict["looked"]
        self._reached = dict(state_dict["reached"])
        self._noise = {name: Estimate(**estimate) for name, estimate in state_dict["noise"].items()}
        lengths = state_dict["lengths"]
        self._lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.float64)
        self._path_seconds = state_dict["walking"]

    def _reset(self) -> None:
        super()._reset()
        self._evaluated = 0
        self._reached = {}
        self._noise = {}
        self._lengths = None
        self._path_seconds = 0.0
