"""The loss surface around a network, as arrays, and along the straight line to another network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_choice, check_flag, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.curvature import hessian_eigenvectors
from genbench.measures.outputs import Reading, read, undefined
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

_DIRECTIONS = ("random", "hessian")


@dataclass(frozen=True, eq=False)
class Slice:
    """The loss along a line: ``loss`` [n] at ``coordinates`` [n], the share of correct answers beside it where the
    network is a classifier (else ``None``), and what the coordinate is. NaN where the loss is not finite."""

    coordinates: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    axis: str

    @property
    def note(self) -> str | None:
        """Mask of the points with a loss that is not finite."""
        return _note(self.loss)


@dataclass(frozen=True, eq=False)
class Plane:
    """The loss on a plane: ``loss`` [len(y), len(x)] at w + x·d₁ + y·d₂, otherwise as :class:`Slice`."""

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    axes: tuple[str, str]

    @property
    def note(self) -> str | None:
        """Mask of the points with a loss that is not finite."""
        return _note(self.loss)


def loss_line(
    snapshot: Snapshot,
    *,
    direction: str | Tensor = "random",
    filter_normalized: bool = True,
    points: int = 51,
    reach: float = 1.0,
    seed: int = 0,
) -> Slice:
    """L(w + t·d) at ``points`` equally spaced t in [−reach, reach], buffers as they are; an odd number of points has
    the network itself in the middle.

    Args:
        snapshot: network, loss and data.
        direction: ``random``, a Gaussian one; ``hessian``, the unit eigenvector of the largest eigenvalue, so that t is
            a distance between weights; or any d [size], taken as it is.
        filter_normalized: of a random direction, see :func:`filter_normalize`; without, it has unit length.
        points: at least 2.
        reach: largest |t|, > 0, in units of the direction.
        seed: of the random direction, or of the search for eigenvectors.

    Reference: Li et al. 2018 (arXiv 1712.09913), who draw t from −1 to 1.
    """
    coordinates = _coordinates(points, reach)
    with snapshot.measuring():
        (d,), (axis,) = _directions(snapshot, direction, 1, filter_normalized, seed)
        reading = read(snapshot)
        loss, accuracy = _values([_at(snapshot, snapshot.vector + float(t) * d, reading) for t in coordinates])
    return Slice(coordinates, loss, accuracy, axis)


def loss_plane(
    snapshot: Snapshot,
    *,
    directions: str | tuple[Tensor, Tensor] = "random",
    filter_normalized: bool = True,
    points: int = 25,
    reach: float = 1.0,
    seed: int = 0,
) -> Plane:
    """L(w + x·d₁ + y·d₂) on a grid of points × points, settings as of :func:`loss_line`.

    Two random directions are independent, not orthogonal, but nearly so in many dimensions, as in the paper.
    ``hessian`` takes the eigenvectors of the two largest eigenvalues.
    """
    coordinates = _coordinates(points, reach)
    with snapshot.measuring():
        (first, second), axes = _directions(snapshot, directions, 2, filter_normalized, seed)
        grid = [(float(x), float(y)) for y in coordinates for x in coordinates]
        reading = read(snapshot)
        loss, accuracy = _values([_at(snapshot, snapshot.vector + (x * first + y * second), reading) for x, y in grid])
    shape = (points, points)
    accuracy = None if accuracy is None else accuracy.reshape(shape)
    return Plane(coordinates, coordinates, loss.reshape(shape), accuracy, (axes[0], axes[1]))


def interpolation(
    snapshot: Snapshot, other: Snapshot | Mapping[str, Tensor] | None = None, *, points: int = 25
) -> Slice:
    """L((1−t)·w + t·w′) at ``points`` equally spaced t in [0, 1], from this network to another of the same
    architecture, on this snapshot's data; the initial weights, unless another is given (Goodfellow et al. 2015,
    arXiv 1412.6544).

    Whatever else differs is interpolated too, frozen parameters and the running statistics of batch normalization
    included; integers stay as they are here. Between networks with batch normalization the statistics of neither end
    are those of the weights in between, so that part of a barrier may be the normalization's and vanish once the
    statistics are taken anew from data (Jordan et al. 2023, arXiv 2211.08403).

    Args:
        snapshot: network, loss and data.
        other: a snapshot or a state dict.
        points: at least 2; the ends are exact.

    Raises:
        ValueError: another architecture, or no initial weights and no other network.
    """
    check_integer("points", points, least=2)
    if other is None and snapshot.initial is None:
        raise ValueError("other is None and the snapshot has no initial weights; accepted: a snapshot or a state dict")
    target = other.state if isinstance(other, Snapshot) else snapshot.initial if other is None else other
    assert target is not None
    here, there = snapshot.state, snapshot.with_state(target).state
    coordinates = np.arange(points) / (points - 1)
    found = []
    with snapshot.measuring():
        reading = read(snapshot)
        for t in map(float, coordinates):
            between = {
                name: ((1 - t) * a.double() + t * there[name].double()).to(a.dtype) if a.is_floating_point() else a
                for name, a in here.items()
            }
            view = snapshot.with_state(between)
            found.append(_at(view, view.vector, reading))
    loss, accuracy = _values(found)
    return Slice(
        coordinates,
        loss,
        accuracy,
        "from here to the initial weights" if other is None else "from here to the other network",
    )


@measure("flatness", by_member=False, names=("barrier", "error_barrier"))
def linear_mode_connectivity(
    snapshot: Snapshot, other: Snapshot | Mapping[str, Tensor] | None = None, *, points: int = 25
) -> dict[str, Estimate]:
    """max over t in [0, 1] of L(t) − ((1−t)·L(0) + t·L(1)) along :func:`interpolation`, as ``barrier`` (loss units),
    and the same of the error, 1 − accuracy, as ``error_barrier``: zero where the path is convex, as its ends count.

    Two networks are linearly connected where it is zero. Over ``points`` values of t, hence a lower bound. Frankle et
    al. 2020 (arXiv 1912.05671) subtract the mean of the ends, ½(L(0) + L(1)); this is the definition of Entezari et
    al. 2022 (arXiv 2110.06296), equal to it where the ends are equally good.

    Args:
        snapshot: network, loss and data.
        other: a snapshot or a state dict of the same architecture; the initial weights, unless one is given.
        points: at least 2.
    """
    check_integer("points", points, least=2)
    if other is None and snapshot.initial is None:
        missing = Estimate(None, note="undefined: no other network and no initial weights")
        return {"barrier": missing, "error_barrier": missing}
    path = interpolation(snapshot, other, points=points)
    if path.note:
        missing = Estimate(None, note=f"undefined: {path.note}")
        return {"barrier": missing, "error_barrier": missing}
    error = (
        undefined(str(read(snapshot)))
        if path.accuracy is None
        else Estimate(_barrier(path.coordinates, 1 - path.accuracy))
    )
    return {"barrier": Estimate(_barrier(path.coordinates, path.loss)), "error_barrier": error}


def filter_normalize(snapshot: Snapshot, direction: Tensor) -> Tensor:
    """``direction`` [size] with every filter scaled to the norm of the network's filter: d ← d·‖w‖/‖d‖.

    A filter is a row W[i] of a weight of two or more dimensions: the weights into one unit or channel (of an embedding,
    a token's vector; of a transposed convolution, those out of a channel). Biases and the parameters of normalization,
    all of one dimension or none, do not move: their part of the direction is zero (the authors' option ``biasbn``).

    So the line does not change when a layer of a ReLU network is multiplied by a factor and the next one divided by it.
    It does change when units are rescaled one by one, as the filters of the next layer then change their shape.

    Reference: Li et al. 2018 (arXiv 1712.09913), section 4.
    """
    scaled = []
    pieces = direction.double().split([p.numel() for p in snapshot.parameters.values()])
    for d, p in zip(pieces, snapshot.parameters.values(), strict=True):
        if p.ndim < 2 or not p.numel():
            scaled.append(torch.zeros_like(d))
            continue
        rows = d.reshape(len(p), -1)
        lengths = rows.norm(dim=1, keepdim=True)
        wanted = p.double().reshape(len(p), -1).norm(dim=1, keepdim=True)
        scaled.append((rows * (wanted / lengths.where(lengths > 0, 1.0))).reshape(-1))
    return torch.cat(scaled)


def _directions(
    snapshot: Snapshot, wanted: str | Tensor | tuple[Tensor, ...], k: int, filter_normalized: bool, seed: int
) -> tuple[list[Tensor], list[str]]:
    """``k`` directions [size], float64, and what one step along each is."""
    check_integer("seed", seed, least=0)
    check_flag("filter_normalized", filter_normalized)
    name = "direction" if k == 1 else "directions"
    if isinstance(wanted, Tensor | tuple | list):
        given = [wanted] if isinstance(wanted, Tensor) else list(wanted)
        if len(given) != k or any(not isinstance(d, Tensor) or d.shape != (snapshot.size,) for d in given):
            shapes = ", ".join(str(tuple(d.shape)) if isinstance(d, Tensor) else repr(d) for d in given)
            raise ValueError(
                f"{name}: {shapes}; accepted: {k} of shape ({snapshot.size},), or {', '.join(_DIRECTIONS)}"
            )
        if not all(torch.isfinite(d).all() for d in given):
            raise ValueError(f"{name}: not finite (NaN or infinite)")
        axes = ["the given direction"] if k == 1 else ["the first direction", "the second direction"]
        return [d.detach().to(snapshot.device).double() for d in given], axes
    check_choice(name, wanted, _DIRECTIONS)
    if wanted == "hessian":
        values, vectors = hessian_eigenvectors(snapshot, k=k, seed=seed)
        return list(vectors), [
            f"eigenvector of λ{'₁₂'[i]} = {e.value:.4g}" + ("" if e.converged else " (not converged)")
            for i, e in enumerate(values.values())
        ]
    drawn = []
    for index in range(k):
        generator = torch.Generator().manual_seed(derive_seed(seed, "surface", index))
        d = torch.randn(snapshot.size, generator=generator, dtype=torch.float64).to(snapshot.device)
        drawn.append(filter_normalize(snapshot, d) if filter_normalized else d / d.norm())
    kind = "filter-normalized random direction" if filter_normalized else "random direction of unit length"
    return drawn, [kind] if k == 1 else [f"first {kind}", f"second {kind}"]


def _coordinates(points: int, reach: float) -> np.ndarray:
    """Symmetric to the last bit, with an exact zero where ``points`` is odd."""
    check_integer("points", points, least=2)
    if check_number("reach", reach, low=0) == 0:
        raise ValueError(f"reach is {reach!r}; accepted: a number > 0")
    return float(reach) * ((2 * np.arange(points) - (points - 1)) / (points - 1))


def _at(snapshot: Snapshot, vector: Tensor, reading: Reading | str) -> tuple[float, float | None]:
    """Loss and accuracy at other weights [size]; NaN where the loss is not finite."""
    total, examples, wrong, labels = 0.0, 0.0, 0, 0
    for output, target, loss, n in snapshot.predictions_at(vector):
        total, examples = total + n * float(loss), examples + n
        if isinstance(reading, Reading):
            errors = reading.wrong(output, target)
            wrong, labels = wrong + int(errors.sum()), labels + errors.numel()
    mean = total / examples
    if not np.isfinite(mean):
        return np.nan, np.nan if labels else None
    return mean, (labels - wrong) / labels if labels else None


def _values(found: list[tuple[float, float | None]]) -> tuple[np.ndarray, np.ndarray | None]:
    loss, accuracy = zip(*found, strict=True)
    return np.array(loss), None if None in accuracy else np.array(accuracy)


def _barrier(t: np.ndarray, values: np.ndarray) -> float:
    return float((values - ((1 - t) * values[0] + t * values[-1])).max())


def _note(loss: np.ndarray) -> str | None:
    gaps = int(np.isnan(loss).sum())
    return f"the loss is not finite at {gaps} of {loss.size} points" if gaps else None
