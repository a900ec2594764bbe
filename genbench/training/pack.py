"""Networks of one structure that train as one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.models.slots import Masked
from genbench.regularization.base import Parameters
from genbench.rng import PackRandom, PredrawnRandom, StepRandom
from genbench.training.cuda_graph import CudaGraphs, graphed
from genbench.training.fused import MakeOptimizer, fused
from genbench.training.lane import Lane
from genbench.training.pack_checks import Checks, hidden_differences
from genbench.training.stack import Stack
from genbench.training.step import gradient_step, training_step
from genbench.training.unpackable import Unpackable, vectorizing

T = TypeVar("T")
# optimizers that treat every parameter by itself: all parameters of a network can be one vector
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
)


class Pack(pl.LightningModule):
    """Trains networks of one structure as one, several times faster than one after the other.

    Up to rounding, each network gets the weights of its own training with the same batches. Nothing that one network
    does, divergence included, changes a bit of the others. The networks stay ordinary modules with the present weights.

    Args:
        networks: initialized networks of one structure, or lanes: networks with their methods.
        loss: (output, target) -> mean over the batch.
        optimizer: parameter groups -> optimizer, such as ``partial(torch.optim.Adam, lr=0.01)``; one for all, or one
            for each network. It must treat every parameter by itself, as SGD and the Adam family do.
        scheduler: (optimizer, total_steps=) -> schedule by step, or None; one for all, or one for each.
        own_batches: batches are (x [networks, B, ...], y [networks, B, ...]); else (x [B, ...], y [B, ...]) for all.
        graphs: on a CUDA device, compute the gradients of a step as one CUDA graph.

    Raises:
        ValueError: networks of different structure.
        Unpackable: in the first step, if it cannot be vectorized.

    Example:
        >>> networks = [nn.Linear(3, 2) for _ in range(8)]
        >>> pack = Pack(networks, optimizer=partial(torch.optim.SGD, lr=0.1))
        >>> trainer = pl.Trainer(max_epochs=5)  # doctest: +SKIP
        >>> trainer.fit(pack, loader)  # doctest: +SKIP
        >>> pack.networks[0].weight.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
        optimizer: MakeOptimizer | Sequence[MakeOptimizer],
        scheduler: Any = None,
        own_batches: bool = False,
        graphs: bool = True,
    ) -> None:
        super().__init__()
        if not networks:
            raise ValueError("networks is empty; accepted: at least one")
        self.automatic_optimization = False
        lanes = [n if isinstance(n, Lane) else Lane(n, seed=i, loss=loss) for i, n in enumerate(networks)]
        self.lanes = nn.ModuleList(lanes)
        self._lanes = lanes
        self._make_optimizers = _each("optimizer", optimizer, len(lanes))
        self._make_schedulers = _each("scheduler", scheduler, len(lanes))
        self._own_batches = own_batches
        self._graphs = graphs
        self._stack: Stack | None = None
        self._random: PackRandom | None = None
        self._shape: torch.Size | None = None
        self._checks: Checks | None = None
        self._after_is_compared = False
        self._programs: dict[Any, Callable[..., Any]] = {}

    @property
    def networks(self) -> list[nn.Module]:
        """The networks with their present weights."""
        return [lane.network for lane in self._lanes]

    # -- Lightning

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.prepare(total_steps=self.total_steps)

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole training if nothing ends it early."""
        return int(self.trainer.estimated_stepping_batches)

    def prepare(self, *, total_steps: int) -> "LaneOptimizer":
        """Stack the lanes, which are on their device by now, and make their optimizers."""
        hidden = hidden_differences(self._lanes)  # before their tensors move to common storage
        self._stack = _stacked(self._lanes)
        self._checks = Checks(self._lanes, self._stack, hidden)
        has_graphs = self._graphs and graphed(self._stack.flat.device)
        self._call = CudaGraphs(self._stack.preserved).call if has_graphs else _called
        self.lane_optimizer = LaneOptimizer(
            self._stack, self._make_optimizers, self._make_schedulers, total_steps=total_steps
        )
        return self.lane_optimizer

    def on_train_epoch_start(self) -> None:
        if self._checks is not None:
            self._checks.between_epochs()

    def training_step(self, batch: Any) -> None:
        self.advance(*batch, total_steps=self.total_steps)
        self.log("train/optimization/objective", self.objectives.mean(), on_step=False, on_epoch=True)

    def advance(self, x: Tensor, y: Tensor, *, total_steps: int, optimizer: Any = None) -> None:
        """Take one step of every lane, by the Trainer's ``optimizer`` unless one is given; set ``objectives`` to the
        training objectives [lanes]."""
        if not self._own_batches:
            x, y = (t.expand(len(self._lanes), *t.shape) for t in (x, y))
        self.objectives = training_step(
            self,
            x,
            y,
            optimizer=optimizer or self.optimizers(),
            schedule=self.lane_optimizer.schedule,
            step=self.trainer.global_step,
            total_steps=total_steps,
        )

    # -- the step

    def gradient_step(self, x: Tensor, y: Tensor, *, step: int) -> Tensor:
        """Leave each lane's gradient for the optimizer; return the training objectives [lanes], detached.

        Args:
            x: inputs [lanes, B, ...].
            y: targets [lanes, B, ...].
            step: number of steps before this one, which keys the random numbers.
        """
        if self._random is None or x.shape != self._shape:
            assert self._checks is not None
            self._shape = x.shape  # recorded again for batches of another size
            self._random = PackRandom([lane.seed for lane in self._lanes], device=x.device)
            self._checks.begin()
            separate = partial(self._separate_steps, x, y)
            with vectorizing():
                if step == 0 and self._checks.compares:
                    self._checks.compare(separate, partial(self._joint_step, x, y, step))
                else:
                    self._checks.without_effect(separate)
        return self._joint_step(x, y, step)["objective"]

    def after_step(self, progress: float) -> None:
        """Let the methods act on the weights that the optimizer has moved."""
        if self._lanes[0].changes_weights_after:
            assert self._checks is not None
            if self._checks.compares and not self._after_is_compared:
                separate = partial(self._separate_after_steps, progress)
                self._checks.compare(separate, partial(self._joint_after_step, progress))
            self._after_is_compared = True
            self._joint_after_step(progress)

    def _joint_step(self, x: Tensor, y: Tensor, step: int) -> dict[str, Tensor]:
        assert self._stack is not None
        assert self._random is not None
        objectives = self._call(self._joint_gradient, x, y, self._random.at(step), self.lane_optimizer.lr)
        return {"objective": objectives, "gradient": self._stack.gradient}

    def _joint_gradient(self, x: Tensor, y: Tensor, numbers: Mapping[str, Tensor], lr: Tensor) -> Tensor:
        assert self._stack is not None
        objectives, grads = self._program("gradient", self._gradient_step, x, y, numbers, lr)
        torch.cat([*(g.flatten(1) for g in grads), self._stack.padding], 1, out=self._stack.gradient)
        return objectives

    def _joint_after_step(self, progress: float) -> dict[str, Tensor]:
        assert self._stack is not None
        at = torch.full((), progress, dtype=torch.float64, device=self._stack.flat.device)
        self._call(self._joint_after, at)
        return {}

    def _joint_after(self, progress: Tensor) -> Tensor:
        after: Tensor = self._program("after", self._after_step, progress)
        return after

    def _program(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Return function(*args), which is traced once for each set of shapes, types and orders in memory."""
        assert self._stack is not None
        assert self._checks is not None
        key = (name, *((t.shape, t.stride(), t.dtype) for t in args if isinstance(t, Tensor)))
        if key not in self._programs:
            with vectorizing():
                with self._checks.tracing():
                    program = self._stack.traced(function, *args)
                result = program(*args)
                self._programs[key] = program
                return result
        return self._programs[key](*args)

    def _gradient_step(
        self, weights: Parameters, x: Tensor, y: Tensor, numbers: Mapping[str, Tensor], lr: Tensor
    ) -> tuple[Tensor, Parameters]:
        assert self._stack is not None
        return gradient_step(self._lanes[0], Vmapped(self._stack, weights), x, y, PredrawnRandom(numbers), lr)

    def _after_step(self, weights: Parameters, progress: Tensor) -> Tensor:
        assert self._stack is not None
        return Vmapped(self._stack, weights).apply(self._lanes[0].after_step, weights, shared=(progress,))

    def release(self, index: int) -> None:
        """Stop training a lane, which keeps its present weights."""
        if self._stack is not None:  # training has begun
            self._stack.release(index)
        if self._checks is not None:
            self._checks.release(index)

    # -- each lane by itself, once

    def _separate_steps(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Take the gradients of step 0 lane by lane, which records the random numbers that the lanes use."""
        assert self._stack is not None
        assert self._random is not None
        objectives, gradients = [], []
        for i, (lane, draw) in enumerate(zip(self._lanes, self._random.recorders, strict=True)):
            objectives.append(lane.gradient_step(x[i], y[i], draw=draw, lr=float(self.lane_optimizer.lr[i])))
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in lane.trained]
            gradients.append(torch.cat([g.flatten() for g in grads]))
        gradient = torch.cat([torch.stack(gradients), self._stack.padding], 1)
        return {"objective": torch.stack(objectives), "gradient": gradient}

    def _separate_after_steps(self, progress: float) -> dict[str, Tensor]:
        for lane in self._lanes:
            lane.after_step(lane.trained, progress)
        return {}


class Vmapped:
    """The backend of all lanes of a stack at once, by ``torch.vmap``.

    Args:
        stack: the lanes. Their tensors take the place of those of lane 0, whose methods the parts are.
        weights: the trainable parameters [lanes, ...].
    """

    def __init__(self, stack: Stack, weights: Parameters) -> None:
        self._stack, self.weights, self.batch_axis = stack, weights, 1

    def apply(self, part: Callable[..., Any], *args: Any, shared: Sequence[Any] = ()) -> Any:
        """part(*args, *shared); ``args`` have a leading axis of lanes, ``shared`` is the same for all."""
        return self._map(part, *args, weights=self.weights, shared=shared)

    def differentiate(
        self, objective: Callable[..., Tensor], x: Tensor, y: Tensor, draw: StepRandom, *, at: Parameters | None = None
    ) -> tuple[Tensor, Parameters]:
        """The objectives [lanes] and, as each depends on its own lane alone, their gradients from one backward pass."""
        again = partial(objective, again=at is not None)
        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in (self.weights if at is None else at)]
            objectives = self._map(again, x, y, draw, weights=leaves)
            grads = torch.autograd.grad(objectives.sum(), leaves, allow_unused=True)
        if any(g is None for g in grads):
            raise Unpackable("a parameter gets no gradient, which a pack does not tell from a gradient of zero")
        return objectives.detach(), list(grads)

    def _map(self, part: Callable[..., Any], *args: Any, weights: Sequence[Tensor], shared: Sequence[Any] = ()) -> Any:
        def one(lane: Lane, *args: Any) -> Any:
            result = part(*(PredrawnRandom(a) if isinstance(a, dict) else a for a in args))
            return lane.stopped if result is None else result  # vmap wants a tensor

        plain = [a.numbers if isinstance(a, PredrawnRandom) else a for a in args]
        return self._stack.map(one, *plain, weights=weights, shared=shared)


class LaneOptimizer(torch.optim.Optimizer):
    """The optimizers of all lanes, with their learning-rate schedules.

    Neighbouring lanes with equal settings share one optimizer over one tensor, so that a step is a single call.

    Args:
        stack: the lanes.
        make: parameter groups -> optimizer, for each lane.
        schedulers: (optimizer, total_steps=) -> schedule or None, for each lane; None for none.
        total_steps: steps of the whole training.

    Raises:
        Unpackable: an optimizer that does not treat every parameter by itself.
    """

    def __init__(
        self, stack: Stack, make: Sequence[MakeOptimizer], schedulers: Sequence[Any], *, total_steps: int
    ) -> None:
        self._parts: list[tuple[range, torch.optim.Optimizer, Any]] = []
        settings = [tuple(map(_settings, pair)) for pair in zip(make, schedulers, strict=True)]
        for _, group in groupby(range(len(settings)), settings.__getitem__):
            lanes = list(group)
            places = range(lanes[0], lanes[-1] + 1)
            rows = nn.Parameter(stack.flat[places.start : places.stop])
            rows.grad = stack.gradient[places.start : places.stop]
            optimizer = fused(make[lanes[0]], ELEMENTWISE)([{"params": [rows]}])
            if type(optimizer) not in ELEMENTWISE:
                accepted = ", ".join(kind.__name__ for kind in ELEMENTWISE)
                raise Unpackable(f"optimizer {type(optimizer).__name__} cannot be packed; accepted: {accepted}")
            scheduler = schedulers[lanes[0]]
            schedule = None if scheduler is None else scheduler(optimizer, total_steps=total_steps)
            self._parts.append((places, optimizer, schedule))
        self.lr = torch.zeros(len(settings), dtype=torch.float64, device=stack.flat.device)
        self._read_lr()
        super().__init__([{"params": [stack.flat]}], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for _, optimizer, _ in self._parts:
            optimizer.step()

    def schedule(self) -> None:
        """Set the learning rates of the next step, ``lr`` [lanes]."""
        if any(schedule is not None for *_, schedule in self._parts):
            for *_, schedule in self._parts:
                if schedule is not None:
                    schedule.step()
            self._read_lr()

    def _read_lr(self) -> None:
        for places, optimizer, _ in self._parts:
            self.lr[places.start : places.stop].fill_(optimizer.param_groups[0]["lr"])

    @property
    def groups(self) -> list[int]:
        """For each lane, the index of its optimizer."""
        return [index for index, (places, *_) in enumerate(self._parts) for _ in places]

    def lane_state(self, lane: int) -> dict[str, Any]:
        """The state of one lane's optimizer and schedule; its tensors have the size of the lane's weights."""
        places, optimizer, schedule = self._part(lane)
        (kept,) = optimizer.state.values() or ({},)
        row = lane - places.start
        own = {name: t[row].clone() if isinstance(t, Tensor) and t.ndim == 2 else t for name, t in kept.items()}
        return {"state": own, "schedule": None if schedule is None else schedule.state_dict()}

    def load_lane_state(self, lane: int, state: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`lane_state` returned."""
        places, optimizer, schedule = self._part(lane)
        (rows,) = optimizer.param_groups[0]["params"]
        kept = optimizer.state[rows]
        for name, value in state["state"].items():
            if isinstance(value, Tensor) and value.ndim == 1:
                value = value.to(rows.device)
                kept.setdefault(name, torch.zeros_like(rows))[lane - places.start] = value
            else:
                kept[name] = value.clone() if isinstance(value, Tensor) else value
        if schedule is not None:
            schedule.load_state_dict(state["schedule"])
            optimizer.param_groups[0]["lr"] = schedule.get_last_lr()[0]
        self._read_lr()

    def _part(self, lane: int) -> tuple[range, torch.optim.Optimizer, Any]:
        return next(part for part in self._parts if lane in part[0])

    def state_dict(self) -> dict[str, Any]:
        return {"state": {}, "param_groups": [], "lanes": [self.lane_state(i) for i in range(len(self.lr))]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for lane, state in enumerate(state_dict["lanes"]):
            self.load_lane_state(lane, state)


def _called(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _settings(make: Any) -> Any:
    """Equal for makers that make equal optimizers or schedules; the maker itself where that is unknown."""
    if isinstance(make, partial) and not make.args:
        return make.func, repr(sorted(make.keywords.items()))
    return make


def _stacked(lanes: Sequence[Lane]) -> Stack:
    for slots in zip(*([m for m in lane.modules() if isinstance(m, Masked)] for lane in lanes), strict=False):
        active = any(slot.active for slot in slots)  # lanes may have rate 0 and others not
        for slot in slots:
            slot.active = active
    return Stack(lanes, fixed=lanes[0].left_out)


def _each(name: str, value: Any, n: int) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{name} is a list of {len(value)}; accepted: one for all, or one for each of {n} networks")
    return list(value)
