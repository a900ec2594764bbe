"""Eigenvalues, trace and Frobenius norm of the Hessian and of the Gauss–Newton matrix.

They share their products, kept in the snapshot under the matrix and the seed. One Lanczos run starts from a Gaussian
direction and gives the eigenvalues and the subspace that the trace deflates. Vectors of random signs are the probes of
the trace and of the Frobenius norm, and the start vectors of :mod:`genbench.measures.spectral_density`.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.lanczos import Lanczos
from genbench.measures.operators import CurvatureOperator
from genbench.measures.precision import for_curvature
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

MATRICES = ("hessian", "gauss_newton")


@measure("flatness", passes=lambda given: given["max_steps"], names=("lambda_*",))
def hessian_eigenvalues(
    snapshot: Snapshot, *, k: int = 1, bottom: int = 0, tolerance: float = 1e-3, max_steps: int = 100, seed: int = 0
) -> dict[str, Estimate]:
    """The ``k`` largest eigenvalues λ₁ ≥ λ₂ ≥ … of ∇²L(w), as ``lambda_1`` … ``lambda_k``, and the ``bottom`` smallest,
    the smallest first, as ``lambda_min_1``, ….

    Lanczos with full reorthogonalization, one Hessian-vector product a step, until every residual ‖Hv − λv‖/|λ| is at
    most ``tolerance``, or for ``max_steps``; an eigenvalue of H then lies within residual·|λ| of the value, and usually
    far nearer (the error falls with the residual's square). ``converged`` says whether the tolerance was reached.

    One run finds a multiple eigenvalue only once, and may miss one that its start vector is nearly orthogonal to. If
    two or more values of an end are asked for, further runs therefore search the complement of the known eigenvectors,
    each from a start of its own and with up to ``max_steps`` products, until one finds nothing beyond the last value.
    Only then are the second and later values called converged. The smallest eigenvalues of a trained network are near
    zero and close together: expect them to need many more steps.

    Args:
        snapshot: network, loss and data.
        k: number of the largest eigenvalues, at most the number of parameters.
        bottom: number of the smallest eigenvalues.
        tolerance: relative residual, > 0.
        max_steps: maximum number of Hessian-vector products of each run.
        seed: of the start vectors, from generators of their own.

    Returns:
        values in loss units, residuals relative to |λ|.
    """
    return _eigenvalues(snapshot, "hessian", "", k, bottom, tolerance, max_steps, seed)


@measure("flatness", passes=lambda given: given["max_steps"], names=("ggn_lambda_*",))
def gauss_newton_eigenvalues(
    snapshot: Snapshot, *, k: int = 1, bottom: int = 0, tolerance: float = 1e-3, max_steps: int = 100, seed: int = 0
) -> dict[str, Estimate]:
    """As :func:`hessian_eigenvalues`, of the generalized Gauss–Newton matrix (the Fisher matrix if the loss is the
    cross-entropy of logits; see ``Snapshot.gauss_newton``), as ``ggn_lambda_1``, … and ``ggn_lambda_min_1``, ….
    """
    return _eigenvalues(snapshot, "gauss_newton", "ggn_", k, bottom, tolerance, max_steps, seed)


@measure("flatness", passes=lambda given: given["deflation"] + given["probes"])
def hessian_trace(snapshot: Snapshot, *, deflation: int = 12, probes: int = 12, seed: int = 0) -> Estimate:
    """tr ∇²L(w) with its standard error.

    tr H = tr QᵀHQ + tr PHP, P = I − QQᵀ. Q holds the first ``deflation`` Lanczos vectors (those of
    :func:`hessian_eigenvalues` with the same seed, which are not computed twice), so that the first part is known
    exactly and holds the large eigenvalues; the rest is estimated without bias from ``probes`` Rademacher vectors z
    as the mean of zᵀPHPz, whose spread gives the standard error. Exact if ``deflation`` reaches the number of
    parameters; Hutchinson's estimator if it is 0.

    Args:
        snapshot: network, loss and data.
        deflation: Lanczos steps, each one Hessian-vector product.
        probes: random vectors, each one Hessian-vector product, at least 2.
        seed: of start vector and probes, from generators of their own.

    References: Hutchinson 1990 (Commun. Stat. Simul. 19, 433); Meyer et al. 2021, Hutch++ (arXiv 2010.09649), whose
    sketch of the range is a Krylov space here.
    """
    return _trace(snapshot, "hessian", deflation, probes, seed)


@measure("flatness", passes=lambda given: given["deflation"] + given["probes"])
def gauss_newton_trace(snapshot: Snapshot, *, deflation: int = 12, probes: int = 12, seed: int = 0) -> Estimate:
    """As :func:`hessian_trace`, of the Gauss–Newton matrix; equal to tr ∇²L for networks that are piecewise linear in
    each of their weights, ReLU networks say."""
    return _trace(snapshot, "gauss_newton", deflation, probes, seed)


@measure("flatness", passes=lambda given: given["deflation"] + given["probes"])
def hessian_frobenius_norm(snapshot: Snapshot, *, deflation: int = 12, probes: int = 12, seed: int = 0) -> Estimate:
    """‖∇²L(w)‖_F = √Σλᵢ² with its standard error, from the products that :func:`hessian_trace` makes with the same
    settings: ‖H‖_F² = ‖HQ‖_F² + tr PH²P, the second part estimated by the mean of ‖HPz‖². The root of an unbiased
    estimate: its own bias is of the order of the squared standard error."""
    return _frobenius_norm(snapshot, "hessian", deflation, probes, seed)


@measure("flatness", passes=lambda given: given["deflation"] + given["probes"])
def gauss_newton_frobenius_norm(
    snapshot: Snapshot, *, deflation: int = 12, probes: int = 12, seed: int = 0
) -> Estimate:
    """As :func:`hessian_frobenius_norm`, of the Gauss–Newton matrix."""
    return _frobenius_norm(snapshot, "gauss_newton", deflation, probes, seed)


@measure("flatness", names=("lambda_1.*", "trace.*", "ggn_lambda_1.*", "ggn_trace.*"))
def layer_curvature(
    snapshot: Snapshot,
    *,
    matrix: str = "hessian",
    tolerance: float = 1e-2,
    max_steps: int = 50,
    deflation: int = 12,
    probes: int = 12,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Largest eigenvalue and trace of each parameter's diagonal block, ``lambda_1.<parameter>`` and
    ``trace.<parameter>`` (``ggn_…`` for the Gauss–Newton matrix).

    Traces come from the products of :func:`hessian_trace`, restricted to the block: they cost nothing more. Eigenvalues
    take a Lanczos run each. Vectors (biases, scales) have a trace and no eigenvalue. Any other block, with any measure,
    is ``snapshot.select(names)``.

    Args:
        snapshot: network, loss and data.
        matrix: hessian or gauss_newton.
        tolerance: relative residual of the eigenvalues, > 0.
        max_steps: bound on the products of each block.
        deflation: Lanczos steps for the traces.
        probes: random vectors for the traces, at least 2.
        seed: of start vectors and probes.
    """
    prefix = "" if check_matrix(matrix) == "hessian" else "ggn_"
    _check_run(tolerance, max_steps, seed, least=1)
    _check_parts(deflation, probes, seed)
    results = {}
    for name, p in snapshot.parameters.items():
        if p.ndim >= 2 and p.numel():
            found = _eigenvalues(snapshot.select(name), matrix, "", 1, 0, tolerance, min(max_steps, p.numel()), seed)
            results[f"{prefix}lambda_1.{name}"] = found["lambda_1"]
    known, samples = _trace_parts(snapshot, matrix, deflation, probes, seed)
    sizes = [p.numel() for p in snapshot.parameters.values()]
    for name, block, rest in zip(snapshot.parameters, known.split(sizes), samples.split(sizes, 1), strict=True):
        if block.numel():
            results[f"{prefix}trace.{name}"] = _with_error(float(block.sum()), rest.sum(1))
    return results


def hessian_eigenvectors(
    snapshot: Snapshot, *, k: int = 2, tolerance: float = 1e-2, max_steps: int = 100, seed: int = 0
) -> tuple[dict[str, Estimate], Tensor]:
    """The ``k`` largest eigenvalues, as :func:`hessian_eigenvalues` gives them, and their eigenvectors as orthonormal
    rows [k, size], float64; a vector's error is about residual·|λ| over the distance to the next eigenvalue."""
    with snapshot.measuring():
        values = _eigenvalues(snapshot, "hessian", "", k, 0, tolerance, max_steps, seed)
        top, _ = _ends(snapshot, "hessian", k, 0, tolerance, max_steps, seed)
        return values, top.vectors


def leading_vectors(snapshot: Snapshot, k: int, *, scale: Tensor, seed: int) -> Tensor:
    """Ritz vectors of the largest eigenvalues of D∇²L(w)D, D = diag(``scale``), as orthonormal rows, at most ``k``.

    They are of 12 Lanczos steps, which :func:`hessian_trace` makes too where D = I: directions, not eigenvectors."""
    plain = bool((scale == 1).all())
    lanczos = (
        _lanczos(for_curvature(snapshot), "hessian", seed)
        if plain
        else Lanczos(
            lambda v: scale * snapshot.hessian.matvec(scale * v),
            snapshot.size,
            seed=derive_seed(seed, "lanczos"),
            device=snapshot.device,
        )
    )
    steps = lanczos.extend(12)
    return lanczos.ritz_vectors(steps, min(k, steps))


def _eigenvalues(
    snapshot: Snapshot, matrix: str, prefix: str, k: int, bottom: int, tolerance: float, max_steps: int, seed: int
) -> dict[str, Estimate]:
    check_integer("k", k, least=1)
    check_integer("bottom", bottom, least=0)
    _check_run(tolerance, max_steps, seed, least=max(k, bottom))
    check_integer("k", k, least=1, most=snapshot.size)
    check_integer("bottom", bottom, least=0, most=snapshot.size)
    top, low = _ends(snapshot, matrix, k, bottom, tolerance, max_steps, seed)
    results = {}
    for end, name in ((top, f"{prefix}lambda_"), (low, f"{prefix}lambda_min_")):
        for i, (value, residual) in enumerate(zip(end.values, end.residuals, strict=True)):
            unsure = i > 0 and not end.complete
            results[f"{name}{i + 1}"] = Estimate(
                float(value),
                converged=bool(residual <= tolerance * abs(value)) and not unsure,
                residual=float(residual / abs(value)) if value else float(residual),
                note="eigenvalues may be missing before it: no second start has converged" if unsure else None,
            )
    return results


class Pairs(NamedTuple):
    """Eigenvalues of one end of the spectrum, the outermost first, their residuals ‖Hv − λv‖ and vectors as rows;
    ``complete`` if a further start found none beyond the last."""

    values: np.ndarray
    residuals: np.ndarray
    vectors: Tensor
    complete: bool


def _ends(
    snapshot: Snapshot, matrix: str, k: int, bottom: int, tolerance: float, max_steps: int, seed: int
) -> tuple[Pairs, Pairs]:
    """The largest and the smallest eigenvalues."""

    def find() -> tuple[Pairs, Pairs]:
        lanczos = _lanczos(snapshot, matrix, seed)
        for limit in range(max(k, bottom), max_steps + 1):
            steps = lanczos.extend(limit)
            values, residuals = lanczos.ritz(steps)
            done = residuals <= tolerance * np.abs(values)
            if (done[:k].all() and done[steps - bottom :].all()) or steps == snapshot.size:
                break
        if steps == snapshot.size:  # nothing can be missing
            residuals = np.zeros_like(residuals)
        whole = steps == snapshot.size
        top = Pairs(values[:k], residuals[:k], lanczos.ritz_vectors(steps, k), whole or k < 2)
        vectors = lanczos.ritz_vectors(steps, bottom, lowest=True)
        low = Pairs(values[::-1][:bottom], residuals[::-1][:bottom], vectors, whole or bottom < 2)
        settings = (tolerance, max_steps, seed)
        return _completed(snapshot, matrix, top, 1, *settings), _completed(snapshot, matrix, low, -1, *settings)

    return snapshot.shared(("ends", matrix, k, bottom, tolerance, max_steps, seed), find)


def _completed(
    snapshot: Snapshot, matrix: str, found: Pairs, sign: int, tolerance: float, max_steps: int, seed: int
) -> Pairs:
    """With what a start missed: ``sign`` is 1 at the upper end of the spectrum, −1 at the lower."""
    count = len(found.values)
    known = found.vectors
    for index in range(count + 1):
        if found.complete or not (found.residuals <= tolerance * np.abs(found.values)).all():
            break
        if len(known) >= snapshot.size:
            return found._replace(complete=True)
        last = found.values[-1]
        lanczos = Lanczos(
            operator_of(snapshot, matrix).matvec,
            snapshot.size,
            seed=derive_seed(seed, "deflated", sign, index),
            device=snapshot.device,
            known=known,
        )
        for limit in range(1, max_steps + 1):
            steps = lanczos.extend(limit)
            values, residuals = (part[::sign] for part in lanczos.ritz(steps))
            exhausted = steps == snapshot.size - len(known)
            settled = exhausted | (residuals <= tolerance * np.abs(values))
            if settled[0]:
                break
        if not settled[0]:  # the outermost is not known yet
            break
        missed = int(np.argmin(np.append(settled & (sign * (values - last) > tolerance * abs(last)), False)))
        if not missed:
            return found._replace(complete=True)
        vectors = lanczos.ritz_vectors(steps, missed, lowest=sign < 0)
        known = torch.cat([known, vectors])
        merged = np.append(found.values, values[:missed])
        order = np.argsort(-sign * merged, kind="stable")[:count]
        found = Pairs(
            merged[order],
            np.append(found.residuals, np.where(exhausted, 0.0, residuals[:missed]))[order],
            torch.cat([found.vectors, vectors])[torch.from_numpy(order.copy()).to(snapshot.device)],
            False,
        )
    return found


def _trace(snapshot: Snapshot, matrix: str, deflation: int, probes: int, seed: int) -> Estimate:
    known, samples = _trace_parts(snapshot, matrix, deflation, probes, seed)
    return _with_error(float(known.sum()), samples.sum(1))


def _trace_parts(snapshot: Snapshot, matrix: str, deflation: int, probes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Entry by entry, tr H = tr HQQᵀ + tr PHP: the first part [size], known, and samples of the second [probes, size],
    none where Q spans everything. Summed over a block of entries, they estimate the trace of that diagonal block."""
    basis, image, rest = _deflated(snapshot, matrix, deflation, probes, seed)
    samples = [z * product for z, product in rest]
    empty = torch.zeros(0, snapshot.size, dtype=torch.float64, device=snapshot.device)
    return (basis * image).sum(0), torch.stack(samples) if samples else empty


def _check_run(tolerance: float, max_steps: int, seed: int, *, least: int) -> None:
    """Refuse settings of a Lanczos run that is to find so many eigenvalues."""
    check_integer("max_steps", max_steps, least=least)
    if check_number("tolerance", tolerance, low=0) == 0:
        raise ValueError(f"tolerance is {tolerance!r}; accepted: a number > 0")
    check_integer("seed", seed, least=0)


def _check_parts(deflation: int, probes: int, seed: int) -> None:
    """Refuse settings of a trace."""
    check_integer("deflation", deflation, least=0)
    check_integer("probes", probes, least=2)
    check_integer("seed", seed, least=0)


def _frobenius_norm(snapshot: Snapshot, matrix: str, deflation: int, probes: int, seed: int) -> Estimate:
    _, image, rest = _deflated(snapshot, matrix, deflation, probes, seed)
    samples = [product.square().sum() for _, product in rest]
    square = _with_error(float(image.square().sum()), torch.stack(samples) if samples else torch.zeros(0))
    assert square.value is not None
    assert square.stderr is not None
    root = math.sqrt(square.value)
    return Estimate(root, stderr=square.stderr / (2 * root) if root else 0.0)


def _deflated(
    snapshot: Snapshot, matrix: str, deflation: int, probes: int, seed: int
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Q and HQ as rows [deflation, size], and pairs (Pz, HPz); no pairs where Q spans everything."""
    _check_parts(deflation, probes, seed)
    lanczos = _lanczos(snapshot, matrix, seed)
    steps = lanczos.extend(deflation)
    basis = lanczos.basis(steps)
    image = lanczos.image(steps) if steps else torch.zeros_like(basis)
    if steps == snapshot.size:
        return basis, image, []
    pairs = []
    for index in range(probes):
        z, product = random_probe(snapshot, matrix, seed, index)
        inside = basis @ z
        pairs.append((z - inside @ basis, product - inside @ image))
    return basis, image, pairs


def _with_error(known: float, samples: Tensor) -> Estimate:
    """A known part and the mean of samples, whose spread gives the standard error."""
    if not len(samples):
        return Estimate(known, stderr=0.0)
    return Estimate(known + float(samples.mean()), stderr=float(samples.std()) / math.sqrt(len(samples)))


def _lanczos(snapshot: Snapshot, matrix: str, seed: int) -> Lanczos:
    """Run 0."""
    check_integer("seed", seed, least=0)
    seed, key = derive_seed(seed, "lanczos"), ("lanczos", matrix, seed)
    return snapshot.shared(
        key, lambda: Lanczos(operator_of(snapshot, matrix).matvec, snapshot.size, seed=seed, device=snapshot.device)
    )


def random_probe(snapshot: Snapshot, matrix: str, seed: int, index: int) -> tuple[Tensor, Tensor]:
    """A vector of random signs, drawn again each time, and its product, kept."""
    check_integer("seed", seed, least=0)
    generator = torch.Generator().manual_seed(derive_seed(seed, "probe", index))
    z = torch.randint(2, (snapshot.size,), generator=generator).double().mul_(2).sub_(1).to(snapshot.device)
    return z, snapshot.shared(("probe", matrix, seed, index), lambda: operator_of(snapshot, matrix).matvec(z))


def operator_of(snapshot: Snapshot, matrix: str) -> CurvatureOperator:
    """The Hessian or the Gauss–Newton matrix, by its name."""
    return snapshot.hessian if matrix == "hessian" else snapshot.gauss_newton


def check_matrix(matrix: str) -> str:
    """Refuse a name that is no matrix."""
    return check_choice("matrix", matrix, MATRICES)
