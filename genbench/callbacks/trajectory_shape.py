"""Keep the last weights of training and measure the shape of their trajectory."""

import math
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from genbench.callbacks.base import Every, Measuring
from genbench.checks import check_integer, check_number
from genbench.measures import Estimate
from genbench.measures.trajectory_shape import FEWEST, Sketch, homology_dimension, lifetime_sum

_SUM, _DIMENSION = "weights/trajectory/lifetime_sum", "weights/trajectory/dimension"


class TrajectoryShape(Measuring):
    """Measures the shape of the trajectory of the trainable weights over the last steps of training, as the minimum
    spanning tree of ``points`` of them shows it:

    - ``weights/trajectory/lifetime_sum``: :func:`genbench.measures.trajectory_shape.lifetime_sum`;
    - ``weights/trajectory/dimension``: :func:`genbench.measures.trajectory_shape.homology_dimension`.

    :mod:`genbench.measures.trajectory_shape` says what they were found not to show. An ensemble is one network. Where
    others become trainable, as of a backbone that is frozen for some epochs, the trajectory begins anew.

    The weights are kept on their device in at most ``memory``; if they are too many, a random sketch of each
    (:class:`genbench.measures.trajectory_shape.Sketch`), and a note gives the error of its distances. Checkpoints hold
    them, so that a resumed training measures what an uninterrupted one does.

    Args:
        points: number of weights, at least 50; with fewer steps, all.
        stride: optimizer steps from one to the next, at least 1.
        alpha: power of the lifetimes, > 0.
        memory: in MiB, > 0; at least 64 numbers of each point are kept.
        seed: of the sketch and of the subsets of points, at least 0.
        every_n_epochs: how often to measure, at least 1; ``"powers_of_two"`` for epochs 1, 2, 4, …; a list of epochs;
            ``None`` for the end of training alone.
        every_n_steps: the same in optimizer steps.
        network: dotted name of the part of the module to measure; ``None`` for the module itself.
        log_details: whether loggers also get standard errors as ``stderr/<key>`` and costs as ``seconds/<key>``.
    """

    _kept: Tensor | None  # [points, width]; the next weights overwrite the oldest
    _seen: int
    _names: list[str]  # of the weights that are kept
    _size: int  # their numbers
    _anew: bool  # whether other weights were kept before them

    def __init__(
        self,
        *,
        points: int = 1000,
        stride: int = 1,
        alpha: float = 1.0,
        memory: float = 8.0,
        seed: int = 0,
        every_n_epochs: Every = None,
        every_n_steps: Every = None,
        network: str | None = None,
        log_details: bool = False,
    ) -> None:
        self.points = check_integer("TrajectoryShape points", points, least=FEWEST)
        self.stride = check_integer("TrajectoryShape stride", stride, least=1)
        self.alpha = check_number("TrajectoryShape alpha", alpha, low=0, open_low=True)
        self.memory = check_number("TrajectoryShape memory", memory, low=0, open_low=True)
        self.seed = check_integer("TrajectoryShape seed", seed, least=0)
        super().__init__(
            every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, network=network, log_details=log_details
        )

    # -- when

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._sketch: Sketch | None = None
        self._all = dict(self.subject(pl_module).named_parameters())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all = dict(self.subject(pl_module).named_parameters())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step // self.stride > self._step // self.stride:
            self._keep()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    @torch.no_grad()
    def _keep(self) -> None:
        start = perf_counter()
        names = [name for name, p in self._all.items() if p.requires_grad]
        if names:
            now = _flat([self._all[name] for name in names])
            if names != self._names or len(now) != self._size:  # as by a callback that thaws a backbone
                self._anew, self._seen, self._kept, self._sketch = self._seen > 0, 0, None, None
                self._names, self._size = names, len(now)
            width = max(64, math.floor(self.memory * 2**20 / (self.points * now.element_size())))
            if width < self._size and self._sketch is None:
                self._sketch = Sketch(self._size, width, seed=self.seed, device=now.device)
            if self._kept is None:
                self._kept = now.new_zeros(self.points, min(width, self._size))
            self._kept = self._kept.to(now.device)
            self._kept[self._seen % self.points] = now if self._sketch is None else self._sketch(now)
            self._seen += 1
        self.seconds += perf_counter() - start

    # -- what

    def keys(self, splits: Sequence[str]) -> list[str]:
        return [_SUM, _DIMENSION]

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        points, found = self._last(), {}
        for key in (_SUM, _DIMENSION):
            start = perf_counter()
            if key == _SUM:
                estimate = lifetime_sum(points, alpha=self.alpha)
            else:
                estimate = homology_dimension(points, alpha=self.alpha, seed=self.seed)
            note = "; ".join(filter(None, (estimate.note, *self._remarks(len(points)))))
            found[key] = replace(estimate, note=note or None, seconds=perf_counter() - start)
        return found

    def _last(self) -> Tensor:
        """The weights that are kept, the oldest first."""
        if self._kept is None:
            return torch.empty(0, 1)
        if self._seen <= self.points:
            return self._kept[: self._seen]
        return self._kept.roll(-(self._seen % self.points), 0)

    def _remarks(self, n: int) -> list[str]:
        said = []
        if not self._names:
            said.append("no weights were trained")
        elif n < self.points:
            said.append(f"of {n} weights, all there were" + " since others became trainable" * self._anew)
        if self._kept is not None and (width := self._kept.shape[1]) < self._size:
            error = math.sqrt(2 / width)
            said.append(f"of sketches of {width} numbers: squared distances have an error of at most {error:.1%}")
        return said

    # -- its state

    @property
    def state_key(self) -> str:
        own = {name: getattr(self, name) for name in ("points", "stride", "alpha", "memory", "seed")}
        return self._generate_state_key(**self._settings(), **own)

    def state_dict(self) -> dict[str, Any]:
        kept = None if self._kept is None else self._kept[: min(self._seen, self.points)].cpu().clone()
        own = {"seen": self._seen, "names": self._names, "size": self._size, "anew": self._anew}
        return {**super().state_dict(), "kept": kept, **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._seen, kept = state_dict["seen"], state_dict["kept"]
        self._names, self._size, self._anew = state_dict["names"], state_dict["size"], state_dict["anew"]
        if kept is not None:
            self._kept = torch.zeros(self.points, kept.shape[1], dtype=kept.dtype)
            self._kept[: len(kept)] = kept

    def _reset(self) -> None:
        super()._reset()
        self._kept = None
        self._seen, self._names, self._size, self._anew = 0, [], 0, False


def _flat(weights: Sequence[Tensor]) -> Tensor:
    """Weights as one vector in float32 at least, complex ones as pairs of real numbers."""
    real = [torch.view_as_real(w) if w.is_complex() else w for w in map(Tensor.detach, weights)]
    flat = torch.cat([w.reshape(-1) for w in real])
    return flat.to(torch.promote_types(flat.dtype, torch.float32))
