"""What keeps lanes from computing as one: found before they are stacked, in their first step, and between epochs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from genbench.models.slots import use_draw
from genbench.training.attributes import WHOLE, Attributes, Key
from genbench.training.contents import is_foreign, is_genbench, weight_hooks
from genbench.training.lane import Lane
from genbench.training.stack import Lanewise, Stack
from genbench.training.unpackable import Unpackable

T = TypeVar("T")
_BUFFERS = "and a pack keeps buffers alone; accepted: self.register_buffer, changed in place"


def is_known(lane: Lane) -> bool:
    """Whether network and methods are genbench's own, which are made and tested for packs."""
    return is_genbench(lane.network) and not any(map(is_foreign, lane.modules()))


def hidden_differences(lanes: Sequence[Lane]) -> dict[Key, str]:
    """Why lanes whose tensors are stacked would not be what they are by themselves, by what they keep. A pack calls the
    functions of lane 0 for all, with the tensors of each."""
    if is_known(lanes[0]):
        return {}
    first = lanes[0].attributes()
    found: dict[Key, str] = {}
    for index, lane in enumerate(lanes[1:], 1):
        for key, what in first.differences(lane.attributes()).items():
            found.setdefault(
                key, f"{what} is another in lane {index} than in lane 0; accepted: buffers, as of self.setting"
            )
    for key, (what, tensor) in first.aliases().items():
        found[key] = f"{what} keeps {tensor}, which a pack replaces; accepted: read from the network in a step"
    for index, module in enumerate(first.modules):
        for name, p in module._parameters.items():
            if weight_hooks(p):
                weight = f"{type(module).__name__}.{name}"
                found[Key(index, "hooks")] = f"{weight} has a hook, which a pack does not call; accepted: gradient()"
    return found


class Checks:
    """Compares what the lanes of a stack do together with what each does by itself.

    Args:
        lanes: the lanes.
        stack: the stack of them.
        hidden: their :func:`hidden_differences` before they were stacked.

    Raises:
        Unpackable: names a difference that a step may see.
    """

    def __init__(self, lanes: Sequence[Lane], stack: Stack, hidden: Mapping[Key, str]) -> None:
        self._lanes, self._stack, self._hidden = lanes, stack, hidden
        for key, reason in hidden.items():
            if key.of_step:
                raise Unpackable(reason)
        self._known = is_known(lanes[0])
        self.compares = len(lanes) > 1 and not self._known
        self._reads: set[Key] = set()  # by the traced step
        self._kept: dict[int, tuple[Attributes, dict[tuple[int, str], Tensor | None], list[Tensor]]] = {}

    def begin(self) -> None:
        """Note what the lanes keep before their first step."""
        if not self._known:
            for index, lane in enumerate(self._lanes):
                kept = lane.attributes()
                self._kept[index] = kept, kept.buffers(), [p.data for p in lane.parameters()]

    def release(self, index: int) -> None:
        """Check a lane that no longer trains no more."""
        self._kept.pop(index, None)

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Note what a step reads while it is traced.

        Raises:
            Unpackable: the step changes what is not a buffer, or reads what differs between lanes.
        """
        with self._unchanged(self._reads):
            yield
        for key, reason in self._hidden.items():
            if self._is_read(key):
                raise Unpackable(reason)

    def between_epochs(self) -> None:
        """Take over buffers and weights that ``after_epoch`` has assigned.

        Raises:
            Unpackable: it has changed something else that the step reads; a traced step would not see it.
        """
        for place, (attributes, rows, weights) in self._kept.items():
            shared = place != min(self._kept)  # the data of classes were looked at already

            def may_be_seen(key: Key, shared: bool = shared) -> bool:
                return self._is_read(key) or (key.of_step and not (shared and key.kind == "class"))

            for key in attributes.changed(may_be_seen):
                raise Unpackable(f"{attributes.title(key)} changes after an epoch, {_BUFFERS}")
            for p, row in zip(self._lanes[place].parameters(), weights, strict=True):
                if p.data_ptr() != row.data_ptr():
                    p.data = row.copy_(p.data)
            for (index, name), buffer in attributes.buffers().items():
                kept = rows.get((index, name))
                if buffer is kept:
                    continue
                module = attributes.modules[index]
                if kept is not None and buffer is not None and _kind(kept) == _kind(buffer):
                    module._buffers[name] = kept.copy_(buffer)
                elif self._is_read(Key(index, "attribute", name)):
                    raise Unpackable(f"{type(module).__name__}.{name} is new after an epoch, {_BUFFERS}")

    def _is_read(self, key: Key) -> bool:
        return key.kind == "attribute" and any(key._replace(name=name) in self._reads for name in (key.name, *WHOLE))

    @contextmanager
    def _unchanged(self, reads: set[Key]) -> Iterator[None]:
        """Raise Unpackable if the context changes what lane 0 keeps in Python, unless it reads that only after it has
        set it."""
        attributes = self._lanes[0].attributes()
        with nullcontext(set[Key]()) if self._known else attributes.reading(reads) as first:
            yield
        for key in attributes.changed(lambda key: key.kind == "attribute" or key.of_step):
            if key not in first or key in reads:
                raise Unpackable(f"{attributes.title(key)} changes in a step, {_BUFFERS}")

    def compare(self, separate: Callable[[], Mapping[str, Tensor]], joint: Callable[[], Mapping[str, Tensor]]) -> None:
        """Compare what lanes do together with what each does by itself, and if it differs once more at weights nearby,
        as rounding may switch a unit on.

        Raises:
            Unpackable: names the first lane that differs.
        """
        flat = self._stack.flat
        noise = torch.randn(flat.shape[1], generator=torch.Generator().manual_seed(0)).to(flat)
        for nudge in (0.0, 1e-3):
            with self._stack.preserved():
                flat.mul_(1 + nudge * noise)
                alone = self.without_effect(partial(_effects, self._stack, separate))
                other = _difference(self._stack, _effects(self._stack, joint), alone)
            if other is None:
                return
        assert other is not None
        index, what = other
        raise Unpackable(
            f"lane {index} has another {what} by itself than in a pack, which sees nothing but tensors of its network "
            "and methods; accepted: buffers, as of self.setting"
        )

    def without_effect(self, part: Callable[[], T]) -> T:
        """Call ``part`` and put back every tensor of the lanes.

        Raises:
            Unpackable: the part keeps something in another place than a buffer that it changes.
        """
        buffers = dict(self._lanes[0].named_buffers())
        with self._unchanged(set()):
            try:
                with self._stack.preserved(), Lanewise(), torch.enable_grad():
                    result = part()
            finally:
                for lane in self._lanes:
                    use_draw(lane.network, None)
                    for p in lane.parameters():
                        p.grad = None
        for name, buffer in self._lanes[0].named_buffers():
            if buffer is not buffers.get(name):
                raise Unpackable(f"{name} is another buffer after a step; accepted: changed in place, as by copy_")
        return result


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device


class Effect(NamedTuple):
    """A result of a part of a step, or the change that it makes to a tensor.

    Attributes:
        value: [lanes, ...].
        scale: norm [lanes] of the numbers whose rounding it has, 1 at least.
    """

    value: Tensor
    scale: Tensor


def _effects(stack: Stack, part: Callable[[], Mapping[str, Tensor]]) -> dict[str, Effect]:
    """Call ``part``, which returns results [lanes, ...] by name; return them and the changes of the stack's tensors."""
    before = {name: tensor.clone() for name, tensor in stack.tensors.items()}
    found = {name: Effect(value.clone(), value.new_ones(len(stack))) for name, value in part().items()}
    for name, tensor in stack.tensors.items():
        if tensor.is_floating_point():
            found[name] = Effect(tensor - before[name], _norms(before[name]).clamp_min(1))
    return found


def _difference(stack: Stack, ours: Mapping[str, Effect], theirs: Mapping[str, Effect]) -> tuple[int, str] | None:
    """The first lane whose effects differ by more than rounding, and the effect; None if there is none.

    Rounding is at most √ε of the effect and 1000 ε of its scale, with ε of the trained weights, or of autocast. It is a
    twentieth of a gradient, which jumps where a unit switches on. What is not finite is not compared.
    """
    kind, eps = stack.flat.device.type, torch.finfo(stack.flat.dtype).eps
    coarse = torch.finfo(torch.get_autocast_dtype(kind)).eps if torch.is_autocast_enabled(kind) else eps
    for name, (value, scale) in theirs.items():
        apart, size = _norms(ours[name].value - value), _norms(value)
        part = 0.05 if name == "gradient" else coarse**0.5
        far = (apart > part * size + 1000 * eps * scale.double()) & apart.isfinite()
        if far.any():
            return int(far.int().argmax()), name
    return None


def _norms(tensor: Tensor) -> Tensor:
    return tensor.double().reshape(len(tensor), -1).norm(dim=1)
