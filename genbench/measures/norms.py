"""Norms of the weights, whole and per parameter, and the capacities of Jiang et al. computed from them.

The names are those of Jiang et al. 2020 (arXiv 1912.02178, appendix C) as Dziugaite et al. 2020 (arXiv 2010.11924)
write them. W is each trainable weight of two or more dimensions, taken as the matrix of its first dimension × all
others: out × in of a linear layer, out × (in · kernel) of a convolution, the gates of a recurrent layer and the three
projections of attention stacked; tied weights once; d is their number. Vectors (biases, scales of a normalization) have
no matrix norm, but count in ‖w‖ and in the number of parameters. A batch norm is not folded into the layer before it.
Under a parametrization (weight norm, spectral norm) W is the effective weight: see
:mod:`genbench.measures.effective_weights`. If trainable matrices are the factors of LoRA, a note says that the norms
are of those.

Values are the plain complexity μ: Jiang et al. rank by √(μ/m), m the number of examples.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genbench.measures.base import measure
from genbench.measures.effective_weights import initial_weights, noting_low_rank, weights
from genbench.measures.margins import margin_percentile, spectral_square
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

Norms = dict[str, float]  # squared, by the name of the parameter
Grid = tuple[int, ...] | str  # size of the circular convolution per dimension, or why there is none

_BLOCKS = 2**21  # entries of a convolution's Fourier blocks at a time
_NO_MATRICES = "undefined: the network has no weight matrices"


@measure("norm", of_weights=True, names=("l2", "l2.*"))
@noting_low_rank
def l2_norm(snapshot: Snapshot) -> dict[str, Estimate]:
    """‖w‖₂ of all trainable weights as ``l2``, of each as ``l2.<name>``."""
    return _euclidean("l2", weights(snapshot))


@measure("norm", of_weights=True, names=("distance", "distance.*"))
@noting_low_rank
def distance_from_init(snapshot: Snapshot) -> dict[str, Estimate]:
    """‖w − w⁰‖₂ of all trainable weights as ``distance``, of each as ``distance.<name>``; ``None`` where the
    snapshot has no initial weights, or of other names or shapes."""
    moved = _moved(snapshot)
    if isinstance(moved, str):
        return {"distance": Estimate(None, note=moved)}
    return _euclidean("distance", moved)


@measure("norm", of_weights=True, names=("param_norm", "l1", "l1.*", "params"))
@noting_low_rank
def parameter_norms(snapshot: Snapshot) -> dict[str, Estimate]:
    """Norms of all trainable weights, biases included: ‖w‖₂² as ``param_norm``, ‖w‖₁ as ``l1`` and of each as
    ``l1.<name>``; and the number ω of trainable parameters as ``params``."""
    w = weights(snapshot)
    sums = {name: float(p.abs().sum(dtype=torch.float64)) for name, p in w.items()}
    flat = torch.cat([p.reshape(-1).double() for p in w.values()])
    values = {"params": float(snapshot.size), "param_norm": float(flat @ flat)}
    values |= {"l1": sum(sums.values()), **{f"l1.{name}": value for name, value in sums.items()}}
    return {key: Estimate(value) for key, value in values.items()}


@measure("norm", of_weights=True, names=("spectral", "spectral.*"))
@noting_low_rank
def spectral_norm(snapshot: Snapshot) -> dict[str, Estimate]:
    """The largest singular value of each trainable weight as ``spectral.<name>`` and the largest of them as
    ``spectral``; exact, from the eigenvalues of WWᵀ in float64.

    A weight of two or more dimensions is taken as the matrix of its first dimension × all others (out × rest for
    linear layers and convolutions; the gates of a recurrent layer stacked); vectors (biases, scales) have none.
    """
    return _largest("spectral", _spectral(snapshot))


@measure(
    "norm",
    of_weights=True,
    names=(
        "fro_norm",
        "fro_norm.*",
        "fro_over_spec",
        "fro_over_spec.*",
        "log_prod_of_spec",
        "log_sum_of_spec",
        "log_prod_of_fro",
        "log_sum_of_fro",
    ),
)
@noting_low_rank
def matrix_norms(snapshot: Snapshot) -> dict[str, Estimate]:
    """Sums and products of the norms of the weight matrices.

    ====================  ===========================================
    ``fro_norm``          Σ ‖W‖_F², and ‖W‖_F² as ``fro_norm.<name>``
    ``fro_over_spec``     Σ ‖W‖_F²/‖W‖₂², the sum of the stable ranks, and each as ``fro_over_spec.<name>``
    ``log_prod_of_spec``  log Π ‖W‖₂²
    ``log_sum_of_spec``   log d (Π ‖W‖₂²)^(1/d)
    ``log_prod_of_fro``   log Π ‖W‖_F²
    ``log_sum_of_fro``    log d (Π ‖W‖_F²)^(1/d)
    ====================  ===========================================

    ‖·‖₂ is that of :func:`spectral_norm`. ``None`` but for the first where a matrix is zero.
    """
    fro, spec = _frobenius(_matrices(weights(snapshot))), _nonzero(_spectral(snapshot))
    results = _sum("fro_norm", fro) | _stable_ranks(fro, spec, "")
    return results | _products("spec", spec) | _products("fro", _nonzero(fro))


@measure("norm", of_weights=True, names=("fro_dist", "fro_dist.*", "dist_spec_init", "dist_spec_init.*"))
@noting_low_rank
def matrix_distances(snapshot: Snapshot) -> dict[str, Estimate]:
    """Σ ‖W − W⁰‖_F² as ``fro_dist`` and Σ ‖W − W⁰‖₂² as ``dist_spec_init``, W⁰ the initial weights, and of each matrix
    as ``fro_dist.<name>`` and ``dist_spec_init.<name>``; ``None`` where there are no initial weights of these names
    and shapes."""
    moved = _moved(snapshot)
    if isinstance(moved, str):
        return {key: Estimate(None, note=moved) for key in ("fro_dist", "dist_spec_init")}
    return _sum("fro_dist", _frobenius(_matrices(moved))) | _sum("dist_spec_init", _spectral_of(_matrices(moved)))


@measure(
    "norm",
    names=(
        "log_prod_of_spec_over_margin",
        "log_sum_of_spec_over_margin",
        "log_prod_of_fro_over_margin",
        "log_sum_of_fro_over_margin",
        "log_spec_init_main",
        "log_spec_orig_main",
    ),
)
@noting_low_rank
def norms_over_margin(snapshot: Snapshot) -> dict[str, Estimate]:
    """Products of norms over γ², γ the 10th percentile of the margins of these data: see
    :func:`genbench.measures.margins.margin_percentile`.

    ================================  =========================================================
    ``log_prod_of_spec_over_margin``  log Π ‖W‖₂² / γ²
    ``log_sum_of_spec_over_margin``   log d (Π ‖W‖₂² / γ²)^(1/d)
    ``log_prod_of_fro_over_margin``   log Π ‖W‖_F² / γ²
    ``log_sum_of_fro_over_margin``    log d (Π ‖W‖_F² / γ²)^(1/d)
    ``log_spec_init_main``            log (Π ‖W‖₂² / γ²) Σ ‖W − W⁰‖_F²/‖W‖₂²
    ``log_spec_orig_main``            log (Π ‖W‖₂² / γ²) Σ ‖W‖_F²/‖W‖₂²
    ================================  =========================================================

    ``None`` if γ is not positive: γ² would make a wrong network look like a right one.
    """
    fro, spec = _frobenius(_matrices(weights(snapshot))), _nonzero(_spectral(snapshot))
    moved, margin = _moved(snapshot), positive_margin(snapshot)
    results = _products("spec", spec, margin, "_over_margin") | _products("fro", _nonzero(fro), margin, "_over_margin")
    return results | _mains(spec, fro, moved, margin, "")


@measure(
    "norm",
    names=(
        "spectral_fft",
        "spectral_fft.*",
        "log_prod_of_spec_fft",
        "log_sum_of_spec_fft",
        "fro_over_spec_fft",
        "fro_over_spec_fft.*",
        "dist_spec_init_fft",
        "dist_spec_init_fft.*",
        "log_prod_of_spec_over_margin_fft",
        "log_sum_of_spec_over_margin_fft",
        "log_spec_init_main_fft",
        "log_spec_orig_main_fft",
    ),
)
@noting_low_rank
def convolution_spectral_norms(snapshot: Snapshot) -> dict[str, Estimate]:
    """The measures computed from spectral norms, with convolutions as linear maps of their whole input instead of
    reshaped weights: ``spectral_fft`` and ``spectral_fft.<name>``, ``log_prod_of_spec_fft``,
    ``log_sum_of_spec_fft``, ``fro_over_spec_fft``, ``dist_spec_init_fft``, and over the margin
    ``log_prod_of_spec_over_margin_fft``, ``log_sum_of_spec_over_margin_fft``, ``log_spec_init_main_fft``,
    ``log_spec_orig_main_fft``. Frobenius norms stay those of the weights.

    The Fourier transform makes a convolution on a circle of N points block-diagonal, one block for each frequency
    (Sedghi, Gupta and Long 2019, arXiv 1805.10408). With a stride, aliased frequencies share a block. N is the
    input size plus the zero padding of one side (both ends may share it), rounded up to a multiple of the stride. The
    value is exact for circular padding of half the kernel. With zeros or no padding the circular convolution contains
    the layer, and the value is an upper bound, close if the kernel is small against N.
    (Sedghi et al. leave the padding out of N, which gives neither bound.) ``None`` if the padding repeats inputs. A
    transposed convolution is the transpose of one, with the same norm. The other weights, and convolutions that are
    no ``torch.nn.Conv*``, have the norms of :func:`spectral_norm`.
    """
    convolutions = _convolutions(snapshot)
    problems = {
        name: f"undefined: {name!r} {grid}" for name, (_, grid) in convolutions.items() if isinstance(grid, str)
    }
    moved, margin = _moved(snapshot), positive_margin(snapshot)
    fro, spec = _frobenius(_matrices(weights(snapshot))), _on_grids(weights(snapshot), convolutions)
    reason = next(iter(problems.values()), None)
    whole = _nonzero(spec) if reason is None else reason
    largest = _largest("spectral_fft", spec)
    if reason is not None:
        largest |= {f"spectral_fft.{name}": Estimate(None, note=note) for name, note in problems.items()}
        largest |= _none(reason, "spectral_fft")
    if isinstance(moved, str):
        distance = _none(moved, "dist_spec_init_fft")
    elif reason is not None:
        distance = _none(reason, "dist_spec_init_fft")
    else:
        distance = _sum("dist_spec_init_fft", _on_grids(moved, convolutions))
    results = largest | distance | _products("spec", whole, 1.0, "_fft") | _stable_ranks(fro, whole, "_fft")
    return results | _products("spec", whole, margin, "_over_margin_fft") | _mains(whole, fro, moved, margin, "_fft")


def circular_convolution_norm(
    weight: Tensor, size: Sequence[int], *, stride: Sequence[int], dilation: Sequence[int], groups: int = 1
) -> float:
    """The largest singular value of the convolution with ``weight`` [out, in / groups, *kernel] of inputs
    [in, *size] that go on in a circle, every ``stride``-th output taken.

    Args:
        weight: of a convolution in any number of dimensions.
        size: points of the input in each dimension, a multiple of the stride.
        stride: in each dimension.
        dilation: steps between points of the kernel, in each dimension.
        groups: of channels that do not mix.
    """
    kernel = weight.shape[2:]
    per_block = [n // s for n, s in zip(size, stride, strict=True)]
    half = [*per_block[:-1], per_block[-1] // 2 + 1]  # a real kernel has the same values at −f
    points = _indices(kernel) * torch.tensor(dilation)  # [T, D]
    aliases = _indices(stride) * torch.tensor(per_block)  # [A, D]
    n = torch.tensor(size)
    w = weight.detach().double().reshape(groups, weight.shape[0] // groups, weight.shape[1], len(points))
    w = (w / math.sqrt(len(aliases))).to(torch.complex128)
    square = 0.0
    for frequencies in _indices(half).split(max(1, _BLOCKS // (weight[0:1].numel() * weight.shape[0] * len(aliases)))):
        steps = (frequencies[:, None, None] + aliases[:, None]) * points  # [F, A, T, D]
        turns = ((steps % n).double() / n).sum(-1).to(w.device)
        waves = torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
        blocks = torch.einsum("goit,fat->fgoia", w, waves).flatten(3)
        if blocks.shape[2] > blocks.shape[3]:
            blocks = blocks.mT
        square = max(square, float(torch.linalg.eigvalsh(blocks @ blocks.mH)[..., -1].max()))
    return math.sqrt(square)


# -- norms by parameter, squared


def _matrices(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: p.reshape(len(p), -1).double() for name, p in tensors.items() if p.ndim >= 2 and p.numel()}


def _frobenius(matrices: dict[str, Tensor]) -> Norms:
    return {name: float(w.square().sum()) for name, w in matrices.items()}


def _spectral(snapshot: Snapshot) -> Norms:
    return snapshot.shared("spectral norms", lambda: _spectral_of(_matrices(weights(snapshot))))


def _spectral_of(matrices: dict[str, Tensor]) -> Norms:
    return {name: float(spectral_square(w)) for name, w in matrices.items()}


def _on_grids(tensors: dict[str, Tensor], convolutions: dict[str, tuple[nn.Module, Grid]]) -> Norms:
    norms = _spectral_of(_matrices({name: p for name, p in tensors.items() if name not in convolutions}))
    for name, (module, grid) in convolutions.items():
        if not isinstance(grid, str):
            options = {key: getattr(module, key) for key in ("stride", "dilation", "groups")}
            norms[name] = circular_convolution_norm(tensors[name], grid, **options) ** 2
    return norms


def _moved(snapshot: Snapshot) -> dict[str, Tensor] | str:
    """w − w⁰ of each trainable weight, float64, or why there is none."""
    initial = initial_weights(snapshot)
    if isinstance(initial, str):
        return initial
    return {name: w.double() - initial[name].double() for name, w in weights(snapshot).items()}


def _nonzero(norms: Norms) -> Norms | str:
    """Norms that one may divide by and take the logarithm of, or why not."""
    if not norms:
        return _NO_MATRICES
    zero = next((name for name, value in norms.items() if value == 0), None)
    return norms if zero is None else f"undefined: the weight {zero!r} is zero"


def positive_margin(snapshot: Snapshot) -> float | str:
    """γ, the 10th percentile of the margins, or why one may not divide by its square."""
    margin = margin_percentile(snapshot)
    if isinstance(margin, str):
        return f"undefined: there is no margin, {margin}"
    return margin if margin > 0 else f"undefined: the margin is {margin:.6g}, not positive"


# -- what is built of them


def _euclidean(key: str, tensors: dict[str, Tensor]) -> dict[str, Estimate]:
    norms = torch.stack([torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors.values()])
    values = dict(zip((f"{key}.{name}" for name in tensors), norms.tolist(), strict=True))
    return {key: Estimate(float(norms.norm())), **{name: Estimate(value) for name, value in values.items()}}


def _largest(key: str, norms: Norms) -> dict[str, Estimate]:
    if not norms:
        return _none(_NO_MATRICES, key)
    values = {f"{key}.{name}": Estimate(math.sqrt(value)) for name, value in norms.items()}
    return {key: Estimate(math.sqrt(max(norms.values()))), **values}


def _sum(key: str, values: Norms) -> dict[str, Estimate]:
    if not values:
        return _none(_NO_MATRICES, key)
    return {key: Estimate(sum(values.values())), **{f"{key}.{name}": Estimate(v) for name, v in values.items()}}


def _stable_ranks(fro: Norms, spec: Norms | str, suffix: str) -> dict[str, Estimate]:
    key = f"fro_over_spec{suffix}"
    if isinstance(spec, str):
        return _none(spec, key)
    return _sum(key, {name: fro[name] / spec[name] for name in fro})


def _products(kind: str, norms: Norms | str, margin: float | str = 1.0, suffix: str = "") -> dict[str, Estimate]:
    keys = f"log_prod_of_{kind}{suffix}", f"log_sum_of_{kind}{suffix}"
    if isinstance(norms, str):
        return _none(norms, *keys)
    if isinstance(margin, str):
        return _none(margin, *keys)
    product, d = _log_product(norms) - 2 * math.log(margin), len(norms)
    return {keys[0]: Estimate(product), keys[1]: Estimate(math.log(d) + product / d)}


def _mains(
    spec: Norms | str, fro: Norms, moved: dict[str, Tensor] | str, margin: float | str, suffix: str
) -> dict[str, Estimate]:
    init, orig = f"log_spec_init_main{suffix}", f"log_spec_orig_main{suffix}"
    if isinstance(spec, str):
        return _none(spec, init, orig)
    if isinstance(margin, str):
        return _none(margin, init, orig)
    product = _log_product(spec) - 2 * math.log(margin)
    ranks = sum(fro[name] / spec[name] for name in spec)
    results = {orig: Estimate(product + math.log(ranks))}
    if isinstance(moved, str):
        return results | _none(moved, init)
    distances = _frobenius(_matrices(moved))
    ratio = sum(distances[name] / spec[name] for name in spec)
    if ratio == 0:
        return results | _none("undefined: the weights are the initial ones", init)
    return results | {init: Estimate(product + math.log(ratio))}


def _log_product(norms: Norms) -> float:
    return sum(math.log(value) for value in norms.values())


def _none(note: str, *keys: str) -> dict[str, Estimate]:
    return {key: Estimate(None, note=note) for key in keys}


# -- where a convolution acts


def _convolutions(snapshot: Snapshot) -> dict[str, tuple[nn.Module, Grid]]:
    """The convolution of each weight that belongs to one, and its grid, or why there is none."""
    modules = {
        f"{name}.weight".removeprefix("."): module
        for name, module in snapshot.layers.items()
        if isinstance(module, nn.modules.conv._ConvNd)
    }
    modules = {name: module for name, module in modules.items() if name in weights(snapshot)}
    if not modules:
        return {}
    given: dict[str, Tensor | None] = dict.fromkeys(modules)
    returned: dict[str, Tensor] = {}
    handles = []
    for name, module in modules.items():

        def watch(_module: nn.Module, args: tuple[Tensor], output: Tensor, name: str = name) -> None:
            given[name], returned[name] = args[0], output

        handles.append(module.register_forward_hook(watch))
    try:
        args, kwargs = snapshot.first_input
        with torch.no_grad():
            snapshot.call(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, tuple[nn.Module, Grid]] = {}
    for name, module in modules.items():
        x = given[name]
        if x is None:
            found[name] = module, "is never called"
        else:
            larger = returned[name] if isinstance(module, nn.modules.conv._ConvTransposeNd) else x
            found[name] = module, _grid(module, larger.shape[-len(module.kernel_size) :])
    return found


def _grid(module: nn.modules.conv._ConvNd, size: Sequence[int]) -> Grid:
    """Size, per dimension, of the circular convolution that contains this layer's map from ``size`` points; or the
    reason why there is none."""
    grid = []
    for dim, n in enumerate(size):
        stride, reach = module.stride[dim], module.dilation[dim] * (module.kernel_size[dim] - 1)
        if isinstance(module.padding, str):
            left, right = (reach // 2, reach - reach // 2) if module.padding == "same" else (0, 0)
        else:
            left = right = int(module.padding[dim])
        if module.padding_mode == "zeros":
            # outputs further out see nothing but padding
            grid.append(-(-(n + min(max(left, right), reach)) // stride) * stride)
        elif module.padding_mode == "circular":
            if n % stride or (n + left + right - reach - 1) // stride + 1 > n // stride:
                return f"goes more than once round its {n} points, or not to the end with stride {stride}"
            grid.append(n)
        else:
            return f"has {module.padding_mode} padding"
    return tuple(grid)


def _indices(sizes: Sequence[int]) -> Tensor:
    """All index tuples of an array of these sizes, [Π sizes, dimensions]."""
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes))
