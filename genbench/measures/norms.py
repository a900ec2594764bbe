"""Norms of the weights, whole and per parameter."""

import math

import torch
from torch import Tensor

from genbench.measures.base import measure
from genbench.measures.estimate import Estimate
from genbench.measures.snapshot import Snapshot


@measure("norm", of_weights=True)
def l2_norm(snapshot: Snapshot) -> dict[str, Estimate]:
    """‖w‖₂ of all trainable parameters as ``l2``, of each as ``l2.<name>``."""
    return _euclidean("l2", snapshot.parameters)


@measure("norm", of_weights=True)
def distance_from_init(snapshot: Snapshot) -> dict[str, Estimate]:
    """‖w − w⁰‖₂ of all trainable parameters as ``distance``, of each as ``distance.<name>``; ``None`` where the
    snapshot has no initial weights, or of other names or shapes."""
    initial = snapshot.initial
    if initial is None:
        return {"distance": Estimate(None, note="no initial weights given")}
    for name, p in snapshot.parameters.items():
        if name not in initial or initial[name].shape != p.shape:
            return {"distance": Estimate(None, note=f"initial weights have no {name!r} of shape {tuple(p.shape)}")}
    moved = {name: p.double() - initial[name].to(p.device).double() for name, p in snapshot.parameters.items()}
    return _euclidean("distance", moved)


@measure("norm", of_weights=True)
def spectral_norm(snapshot: Snapshot) -> dict[str, Estimate]:
    """The largest singular value of each trainable weight as ``spectral.<name>`` and the largest of them as
    ``spectral``; exact, from the eigenvalues of WWᵀ in float64.

    A weight of two or more dimensions is taken as the matrix of its first dimension × all others (out × rest for
    linear layers and convolutions; the gates of a recurrent layer stacked); vectors (biases, scales) have none.
    """
    matrices = {name: p.reshape(len(p), -1) for name, p in snapshot.parameters.items() if p.ndim >= 2 and p.numel()}
    if not matrices:
        return {"spectral": Estimate(None, note="undefined: the network has no weight matrices")}
    values = {f"spectral.{name}": _largest_singular_value(w) for name, w in matrices.items()}
    return {key: Estimate(value) for key, value in {"spectral": max(values.values()), **values}.items()}


def _largest_singular_value(w: Tensor) -> float:
    w = w.double() if w.shape[0] <= w.shape[1] else w.double().T
    return math.sqrt(max(float(torch.linalg.eigvalsh(w @ w.T)[-1]), 0.0))


def _euclidean(key: str, tensors: dict[str, Tensor]) -> dict[str, Estimate]:
    norms = torch.stack([torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors.values()])
    values = dict(zip((f"{key}.{name}" for name in tensors), norms.tolist(), strict=True))
    return {key: Estimate(float(norms.norm())), **{name: Estimate(value) for name, value in values.items()}}
