"""Eigenvalues and trace of the Hessian."""

import math

import torch

from genbench.checks import check_integer, check_number
from genbench.draw import derive
from genbench.measures.base import measure
from genbench.measures.estimate import Estimate
from genbench.measures.lanczos import Lanczos
from genbench.measures.snapshot import Snapshot


@measure("flatness")
def hessian_eigenvalues(
    snapshot: Snapshot, *, k: int = 1, tolerance: float = 1e-3, max_steps: int = 100, seed: int = 0
) -> dict[str, Estimate]:
    """The ``k`` largest eigenvalues λ₁ ≥ λ₂ ≥ … of ∇²L(w), as ``lambda_1`` … ``lambda_k``.

    Lanczos with full reorthogonalization, one Hessian-vector product a step, until every residual ‖Hv − λv‖/|λ| is at
    most ``tolerance``, or ``max_steps``; an eigenvalue of H then lies within residual·|λ| of the value, and usually far
    nearer (the error falls with the residual's square). ``converged`` says whether it was reached. An eigenvalue that
    occurs several times is found once, unless the space is exhausted.

    Args:
        snapshot: network, loss and data.
        k: how many, at most the number of parameters.
        tolerance: relative residual, > 0.
        max_steps: bound on the Hessian-vector products.
        seed: of the start vector, from a generator of its own.

    Returns:
        values in loss units, residuals relative to |λ|.
    """
    check_integer("k", k, least=1, most=snapshot.size)
    check_integer("max_steps", max_steps, least=k)
    tolerance = _positive("tolerance", tolerance)
    lanczos = _lanczos(snapshot, seed)
    for limit in range(k, max(k, max_steps) + 1):
        steps = lanczos.extend(limit)
        values, residuals = lanczos.ritz(steps)
        done = [r <= tolerance * abs(v) for v, r in zip(values[:k], residuals[:k], strict=True)]
        if all(done) or steps == snapshot.size:
            break
    return {
        f"lambda_{i + 1}": Estimate(
            float(values[i]),
            converged=bool(done[i]),
            residual=float(residuals[i] / abs(values[i])) if values[i] else float(residuals[i]),
        )
        for i in range(k)
    }


@measure("flatness")
def hessian_trace(snapshot: Snapshot, *, deflation: int = 10, probes: int = 20, seed: int = 0) -> Estimate:
    """tr ∇²L(w) with its standard error.

    tr H = tr QᵀHQ + tr PHP, P = I − QQᵀ. Q holds the first ``deflation`` Lanczos vectors (those of
    :func:`hessian_eigenvalues` with the same seed, which are not computed twice), so that the first part is known
    exactly and holds the large eigenvalues; the rest is estimated without bias from ``probes`` Rademacher vectors z
    as the mean of zᵀPHPz, whose spread is the standard error. Exact where ``deflation`` reaches the number of
    parameters, Hutchinson's estimator where it is 0.

    Args:
        snapshot: network, loss and data.
        deflation: Lanczos steps, each one Hessian-vector product.
        probes: random vectors, each one Hessian-vector product, at least 2.
        seed: of start vector and probes, from generators of their own.

    References: Hutchinson 1990 (Commun. Stat. Simul. 19, 433); Meyer et al. 2021, Hutch++ (arXiv 2010.09649), whose
    sketch of the range is a Krylov space here.
    """
    check_integer("deflation", deflation, least=0)
    check_integer("probes", probes, least=2)
    lanczos = _lanczos(snapshot, seed)
    steps = lanczos.extend(deflation)
    known = math.fsum(lanczos.alphas[:steps])
    if steps == snapshot.size:
        return Estimate(known, stderr=0.0)
    basis = lanczos.basis(steps)
    generator = torch.Generator().manual_seed(derive(seed, "probes"))
    samples = []
    for _ in range(probes):
        z = torch.randint(2, (snapshot.size,), generator=generator).double().mul_(2).sub_(1).to(snapshot.device)
        z = z - basis.T @ (basis @ z)
        samples.append(z @ snapshot.hessian_product(z))
    rest = torch.stack(samples)
    return Estimate(known + float(rest.mean()), stderr=float(rest.std()) / math.sqrt(probes))


def _lanczos(snapshot: Snapshot, seed: int) -> Lanczos:
    check_integer("seed", seed, least=0)
    return snapshot.shared(
        ("lanczos", seed),
        lambda: Lanczos(snapshot.hessian_product, snapshot.size, seed=derive(seed, "lanczos"), device=snapshot.device),
    )


def _positive(name: str, value: float) -> float:
    if check_number(name, value, low=0) == 0:
        raise ValueError(f"{name} is {value!r}; accepted: a number > 0")
    return float(value)
