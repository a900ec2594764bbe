"""Relative flatness: the curvature of one layer, weighted by its weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from genbench.checks import check_integer, nearest
from genbench.measures.base import measure
from genbench.measures.effective_weights import weights
from genbench.measures.frozen_network import FrozenNetwork
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed


def _check_layer(model: nn.Module, settings: Mapping[str, Any]) -> None:
    if isinstance(settings["layer"], str):
        _weight(FrozenNetwork(model), settings["layer"])


@measure("flatness", check=_check_layer, names=("relative_flatness", "relative_flatness.*"))
def relative_flatness(
    snapshot: Snapshot, *, layer: str | None = None, probes: int = 200, seed: int = 0
) -> dict[str, Estimate]:
    """κ(W) = Σ_{s,s′} ⟨w_s, w_s′⟩ · tr H_{s,s′} of one weight matrix, w_s its rows (the neurons), H_{s,s′} the block of
    ∇²L between the rows s and s′ (Petzka et al. 2021, arXiv 2001.00939, definition 3).

    Rescaling the layers of a ReLU network without changing its function does not change it; rescaling single units
    does, and the authors' experiments first scale each input of the layer to standard deviation 1. With W = UΣVᵀ it
    is the trace of H in the basis σᵣuᵣ ⊗ eⱼ: rank × inputs Hessian–vector products give it exactly. If these are
    more than ``probes``, it is estimated without bias as the mean of ⟨Z, HZ⟩ over Z = UΣE, E [rank, inputs] of random
    signs, with the standard error. A weight of more than two dimensions is taken as out × rest; the bias is left out.
    The authors' code of the regularizer divides by the number of inputs, the paper does not.

    Args:
        snapshot: network, loss and data.
        layer: name of a weight, or of the layer that has it; the last matrix of the network by default.
        probes: bound on the Hessian–vector products, at least 2.
        seed: of the random signs, from a generator of its own.

    Returns:
        ``relative_flatness``, and the same value under ``relative_flatness.<weight>``, with the name of the weight.
    """
    check_integer("probes", probes, least=2)
    generator = torch.Generator().manual_seed(derive_seed(check_integer("seed", seed, least=0), "relative_flatness"))
    if layer is not None and not isinstance(layer, str):
        raise ValueError(f"layer is {layer!r}; accepted: the name of a weight or of a layer, or null")
    name = _weight(snapshot, layer)
    if name is None:
        return {"relative_flatness": Estimate(None, note="undefined: the network has no trainable weight matrix")}
    if name not in snapshot.parameters:
        computed = f"undefined: {name!r} is computed from parameters, and the loss has a Hessian by those alone"
        return {"relative_flatness": Estimate(None, note=computed)}
    part = snapshot.select(name)
    w = part.vector.reshape(len(part.parameters[name]), -1)
    u, sigma, _ = torch.linalg.svd(w, full_matrices=False)
    basis = (u * sigma)[:, sigma > 1e-12 * sigma[0]]  # [out, rank]
    inputs = w.shape[1]
    if basis.shape[1] * inputs <= probes:
        terms = []
        for column in basis.T:
            for j in range(inputs):
                z = torch.zeros_like(w)
                z[:, j] = column
                terms.append(_curvature(part, z))
        found = Estimate(math.fsum(terms), stderr=0.0)
    else:
        samples = []
        for _ in range(probes):
            signs = torch.randint(2, (basis.shape[1], inputs), generator=generator).double().mul_(2).sub_(1)
            samples.append(_curvature(part, basis @ signs.to(basis.device)))
        drawn = torch.tensor(samples, dtype=torch.float64)
        found = Estimate(float(drawn.mean()), stderr=float(drawn.std()) / math.sqrt(probes))
    return {"relative_flatness": found, f"relative_flatness.{name}": found}


def _curvature(part: Snapshot, z: torch.Tensor) -> float:
    """⟨z, Hz⟩."""
    flat = z.reshape(-1)
    return float(flat @ part.hessian.matvec(flat))


def _weight(network: FrozenNetwork, layer: str | None) -> str | None:
    """The name of a weight of two or more dimensions; None where there is none."""
    found = {name: w.ndim for name, w in weights(network).items() if w.ndim >= 2 and w.numel()}
    if layer is None:
        return next(reversed([name for name, ndim in found.items() if ndim == 2] or [*found]), None)
    named = [name for name in found if name == layer or name == f"{layer}.weight"]
    if not named:
        raise ValueError(f"layer is {layer!r}; {nearest(layer, [*found])}")
    return named[0]
