"""Hidden units of two networks in the same order: weight matching, and the barrier that is left after it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.perturbations import generator_of
from genbench.measures.pytree import leaves
from genbench.measures.snapshot import Snapshot
from genbench.measures.surface import linear_mode_connectivity
from genbench.records.estimate import Estimate

_EXAMPLES = 32  # on which it is checked that a permutation of the units changes nothing
_ROUNDING = 1e3  # units in the last place of the largest output, by which the sums of permuted units may differ
State = dict[str, Tensor]


@measure("flatness", by_member=False, names=("matched_barrier", "matched_error_barrier"))
def matched_mode_connectivity(
    snapshot: Snapshot,
    other: Snapshot | Mapping[str, Tensor] | None = None,
    *,
    points: int = 25,
    sweeps: int = 100,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The barriers of :func:`genbench.measures.linear_mode_connectivity` to another network whose hidden units were put
    in the order of this one by :func:`match_weights`, as ``matched_barrier`` and ``matched_error_barrier``. Networks
    that differ by a permutation of their units compute the same function and have none (Ainsworth et al. 2022, arXiv
    2209.04836; Entezari et al. 2022, arXiv 2110.06296).

    ``converged`` says whether the matching ended within ``sweeps``. It ends in a local optimum: a barrier that is left
    may be that of a better matching. With batch normalization it may also be that of the statistics in between (see
    :func:`genbench.measures.interpolation`). Undefined for networks that are no chain of linear layers and
    convolutions, such as residual, recurrent and attention networks.

    Args:
        snapshot: network, loss and data.
        other: a snapshot or a state dict of the same architecture; ``None`` gives no value.
        points: on the line, at least 2.
        sweeps: bound on those over the layers, at least 1.
        seed: of the order of the layers, at least 0.
    """
    check_integer("points", points, least=2)
    check_integer("sweeps", sweeps, least=1)
    generator = generator_of(seed, "match_weights")
    names = ("matched_barrier", "matched_error_barrier")
    if other is None:
        return dict.fromkeys(names, undefined("no other network"))
    found = _matched(snapshot, other, sweeps, generator)
    if isinstance(found, str):
        return dict.fromkeys(names, undefined(found))
    state, converged = found
    barriers = linear_mode_connectivity(snapshot, state, points=points).values()
    return {name: replace(each, converged=converged) for name, each in zip(names, barriers, strict=True)}


def match_weights(
    snapshot: Snapshot, other: Snapshot | Mapping[str, Tensor], *, sweeps: int = 100, seed: int = 0
) -> State:
    """The state of another network of the same architecture with its hidden units in another order, which leaves its
    function as it is: that in which ⟨w, w′⟩, the inner product of all parameters of the two networks, is largest.

    One layer after the other, in a random order, gets the best permutation of its units, with those of its neighbours
    held fixed, until none changes ("weight matching", Ainsworth et al. 2022, arXiv 2209.04836, algorithm 1): a local
    optimum, and for one hidden layer the global one. The units of a layer are the rows of its weight and its bias, the
    columns of the next layer's weight, and the entries of what is between them, scales, shifts and statistics of a
    normalization, of which the statistics do not count in the inner product.

    Raises:
        ValueError: another architecture, or one that is no chain of linear layers and convolutions.
    """
    check_integer("sweeps", sweeps, least=1)
    found = _matched(snapshot, other, sweeps, generator_of(seed, "match_weights"))
    if isinstance(found, str):
        raise ValueError(f"{found}; accepted: a chain of linear layers and convolutions")
    return found[0]


@dataclass(frozen=True)
class _Units:
    """The hidden units of a layer, and the axes of tensors of the state that belong to them. An axis may have several
    consecutive entries a unit, as that of the first linear layer after convolutions has."""

    layer: str
    size: int
    axes: tuple[tuple[str, int], ...]


def _matched(
    snapshot: Snapshot, other: Snapshot | Mapping[str, Tensor], sweeps: int, generator: torch.Generator
) -> tuple[State, bool] | str:
    theirs = snapshot.with_state(other.state if isinstance(other, Snapshot) else other).state
    with snapshot.measuring():
        units = _units(snapshot)
        if isinstance(units, str):
            return units
    # of either network: a scale of ones, or a last layer of zeros, hides in one what the other shows
    for each in (snapshot, snapshot.with_state(theirs)):
        with each.measuring():
            if (reason := _changed(each, units, generator)) is not None:
                return reason
    weights = [name for name, _ in snapshot.model.named_parameters() if name in theirs]
    ours, found = ({name: s[name].double().cpu() for name in weights} for s in (snapshot.state, theirs))
    orders, converged = _assigned(ours, found, units, sweeps, generator)
    return _permuted(theirs, units, orders), converged


def _assigned(
    ours: State, theirs: State, units: Sequence[_Units], sweeps: int, generator: torch.Generator
) -> tuple[list[Tensor], bool]:
    """For each group of units, which of theirs is the i-th of ours; and whether the last sweep changed nothing."""
    from scipy.optimize import linear_sum_assignment

    orders = [torch.arange(each.size) for each in units]
    for _ in range(sweeps):
        gained = False
        for index in torch.randperm(len(units), generator=generator).tolist():
            own = units[index]
            others = [each for each in units if each is not own]
            moved = _permuted(theirs, others, [o for o, each in zip(orders, units, strict=True) if each is not own])
            overlap = sum(_rows(ours, own, i) @ _rows(moved, own, i).T for i in _places(ours, own))
            assert isinstance(overlap, Tensor)
            order = torch.from_numpy(linear_sum_assignment(overlap.numpy(), maximize=True)[1])
            place = torch.arange(own.size)
            new, old = float(overlap[place, order].sum()), float(overlap[place, orders[index]].sum())
            if new > old + 1e-12 * float(overlap.abs().sum()):
                orders[index], gained = order, True
        if not gained:
            return orders, True
    return orders, False


def _places(state: State, units: _Units) -> Iterator[int]:
    return (i for i, (name, _) in enumerate(units.axes) if name in state)


def _rows(state: State, units: _Units, i: int) -> Tensor:
    """The weights of each unit in a tensor, [size, ·]."""
    name, axis = units.axes[i]
    return state[name].unflatten(axis, (units.size, -1)).movedim(axis, 0).reshape(units.size, -1)


def _permuted(state: State, units: Sequence[_Units], orders: Sequence[Tensor]) -> State:
    """A state whose i-th unit is the order[i]-th of this one."""
    state = dict(state)
    for own, order in zip(units, orders, strict=True):
        for name, axis in own.axes:
            if name in state:
                t = state[name].unflatten(axis, (own.size, -1))
                state[name] = t.index_select(axis, order.to(t.device)).flatten(axis, axis + 1)
    return state


def _units(snapshot: Snapshot) -> list[_Units] | str:
    """The units between each layer and the next, in the order of the calls; or why there are none."""
    calls = _calls(snapshot)
    if twice := next((name for name in calls if calls.count(name) > 1), None):
        return f"{twice} is called several times"
    modules = dict(snapshot.model.named_modules())
    layers = [i for i, name in enumerate(calls) if isinstance(modules[name], nn.Linear | nn.Conv1d | nn.Conv2d)]
    if len(layers) < 2:
        return "the network has no hidden layer of a linear layer or convolution"
    if computed := next((calls[i] for i in layers if _of(calls[i], "weight") not in snapshot.state), None):
        return f"{computed}.weight is computed from other tensors"
    found = []
    for start, end in pairwise(layers):
        size = len(snapshot.state[_of(calls[start], "weight")])
        axes = [(name, 0) for each in calls[start:end] for name in _tensors(modules[each], each)]
        axes.append((_of(calls[end], "weight"), 1))
        for name, axis in axes:
            if name not in snapshot.state or snapshot.state[name].shape[axis] % size:
                return f"{name.rpartition('.')[0]} has not the units of {calls[start]}"
        found.append(_Units(calls[start], size, tuple(axes)))
    return found


def _calls(snapshot: Snapshot) -> list[str]:
    """The names of the modules that have tensors of their own, in the order in which they are called."""
    called: list[str] = []

    def note(name: str) -> Any:
        return lambda _module, _inputs: called.append(name)

    owners = [(name, m) for name, m in snapshot.model.named_modules() if _tensors(m, name)]
    batch = _few(snapshot)
    handles = [module.register_forward_pre_hook(note(name)) for name, module in owners]
    try:
        _output(snapshot, batch)
    finally:
        for handle in handles:
            handle.remove()
    return called


def _tensors(module: nn.Module, name: str) -> list[str]:
    """The names of a module's own parameters and buffers but for numbers, such as counts of batches."""
    own = [*module._parameters.items(), *module._buffers.items()]
    return [_of(name, key) for key, tensor in own if tensor is not None and tensor.ndim]


def _of(module: str, key: str) -> str:
    """The name of a tensor of a module."""
    return f"{module}.{key}".removeprefix(".")


def _changed(snapshot: Snapshot, units: Sequence[_Units], generator: torch.Generator) -> str | None:
    """Why units cannot be permuted: the outputs change. None if they can."""
    batch = _few(snapshot)
    before = _output(snapshot, batch)
    for own in units:
        order = torch.randperm(own.size, generator=generator)
        if torch.equal(order, torch.arange(own.size)):
            order = order.roll(1)
        view = snapshot.with_state(_permuted(snapshot.state, [own], [order]))
        with view.measuring():
            after = _output(view, batch)
        for a, b in zip(before, after, strict=True):
            if not torch.allclose(a, b, rtol=0, atol=_ROUNDING * torch.finfo(a.dtype).eps * float(a.abs().max())):
                return f"the outputs change when the units of {own.layer} are permuted: the network is no chain"
    return None


def _few(snapshot: Snapshot) -> Any:
    """A batch of some examples."""
    return snapshot.pieces(next(snapshot.each_batch()), _EXAMPLES)[0]


def _output(snapshot: Snapshot, batch: Any) -> list[Tensor]:
    with torch.no_grad():
        output = snapshot.run(batch).output
    return [leaf.clone() for leaf in leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
