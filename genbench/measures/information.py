"""The information plane: mutual information of the layers' activations T with input X and label Y, in bits.

A layer's T is its input, flattened to [N, D], under the layer's name; the network's ``output`` is one more. Results
without a layer's name are those of the layer called last. The input of the first layer, the data, is left out. The
distribution is that of the N examples, each with probability 1/N, so that no estimate exceeds log₂ N. A note marks an
estimate within 1 % of that: it says more about N than about the network.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.performance import class_labels
from genbench.measures.representation import NO_HIDDEN, hidden, penultimate
from genbench.measures.sampling import some
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_ENTRIES = 2**22  # of a block of rows or of kernels
_WHOLE = 2.0**53  # float64 holds whole numbers up to here
_NO_LABELS = Estimate(None, note="undefined: the targets are not one class an example")
_BOUNDED: dict[tuple[float, float], tuple[type[nn.Module], ...]] = {
    (0.0, 1.0): (nn.Sigmoid, nn.Hardsigmoid),
    (-1.0, 1.0): (nn.Tanh, nn.Hardtanh, nn.Softsign, nn.RNNBase),
}


@measure("information", names=("xt_*", "ty_*"))
def mutual_information_binned(
    snapshot: Snapshot,
    *,
    bins: int = 30,
    width: float | None = None,
    edges: Sequence[float] | None = None,
    name: str = "binned",
) -> dict[str, Estimate]:
    """I(X;T) and I(T;Y) of activations in bins, as ``xt_binned`` and ``ty_binned``, of each layer as
    ``xt_binned.<layer>`` and ``ty_binned.<layer>`` (Shwartz-Ziv & Tishby 2017, arXiv 1703.00810).

    Of a deterministic network with continuous activations I(X;T) is infinite, or that of the finite sample; what is
    computed here is a property of the bins.

    Each unit's activation is replaced by its bin, and T is the whole row of bins. It is a function of X, so that
    I(X;T) = H(T); I(T;Y) = H(T) + H(Y) − H(T, Y).

    The ``bins`` equal bins lie on the range of the activation where it is bounded: [0, 1] in a network with sigmoids,
    [−1, 1] in one with tanh or a recurrent layer, if all values of the layer are within; otherwise on the range of all
    values of the layer (Saxe et al. 2018, ICLR, with 100 bins for ReLU). An activation that is no module is not seen:
    give ``edges``.

    Args:
        snapshot: network and data; targets are classes.
        bins: number of bins (30 bins have 31 edges; linspace(−1, 1, 30) in public code makes 29), at least 1.
        width: of the bins instead, [k · width, (k + 1) · width) for integers k, > 0: they do not move when the range
            of an unbounded activation grows.
        edges: of the bins instead, for all layers, not falling; values beyond the first and the last fall into the
            bins there. tanh(linspace(−50, 50, 31)) has narrow bins where tanh saturates.
        name: in the names of the estimates, in place of ``binned``, where bins are compared.

    Raises:
        ValueError: edges that fall, or fewer than two; both a width and edges; or a name that holds other signs than
            letters, digits and _.
    """
    check_integer("bins", bins, least=1)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name is {name!r}; accepted: letters, digits and _")
    given = None if edges is None else _check_edges(edges)
    if width is not None:
        check_number("width", width, low=0, open_low=True)
        if given is not None:
            raise ValueError(f"width is {width!r} with edges; accepted: one of the two")
    labels = class_labels(snapshot)

    def information(x: Tensor) -> tuple[float, float | None]:
        if width is not None:
            t = _numbers(x, lambda block: _multiples(block, width))
        else:
            t = discretize(x, equal_edges(*_range(snapshot, x), bins) if given is None else given)
        return entropy(t), None if labels is None else discrete_information(t, labels.cpu())

    return _plane(snapshot, name, snapshot.examples, information)


@measure("information", names=("xt_kde", "xt_kde.*", "ty_kde", "ty_kde.*"))
def mutual_information_kde(snapshot: Snapshot, *, variance: float = 0.1, examples: int = 4096) -> dict[str, Estimate]:
    """I(X;T + ε) and I(T + ε;Y), ε ~ N(0, σ²I), as ``xt_kde`` and ``ty_kde``, of each layer as ``xt_kde.<layer>`` and
    ``ty_kde.<layer>``.

    I(X;T) is bounded from above by −1/N Σᵢ log₂ 1/N Σⱼ exp(−‖tᵢ − tⱼ‖² / 2σ²); I(T;Y) is the same bound on the entropy
    of T less those within each class, weighted by the classes' shares, which is an estimate and no bound (Kolchinsky &
    Tracey 2017, arXiv 1706.02419; Saxe et al. 2018, ICLR).

    Args:
        snapshot: network and data; targets are classes.
        variance: σ² of the noise, > 0, in units of the activations squared. Saxe et al. print 0.1; their code has 1e-3.
        examples: maximum number of examples, evenly spaced, at least 2; the kernel costs their square in time, not
            in memory.
    """
    if check_number("variance", variance, low=0) == 0:
        raise ValueError(f"variance is {variance!r}; accepted: a number > 0")
    check_integer("examples", examples, least=2)
    labels = class_labels(snapshot)
    rows = some(snapshot.examples, examples).to(snapshot.device)
    if labels is not None:
        labels = labels[rows]
    return _plane(snapshot, "kde", len(rows), lambda x: kernel_information(x[rows], labels, variance))


def equal_edges(low: float, high: float, bins: int) -> Tensor:
    """The ``bins`` + 1 edges of equal bins on [low, high], float64."""
    return torch.linspace(low, high, bins + 1, dtype=torch.float64)


def _multiples(x: Tensor, width: float) -> Tensor:
    """k of the bin [k · width, (k + 1) · width) that holds each value of x, float64.

    Raises:
        ValueError: a width so small that float64 does not tell these bins apart.
    """
    x = x.double()
    largest = float(x.abs().max())
    if largest / width >= _WHOLE:
        raise ValueError(
            f"width is {width!r}, of values up to {largest:.3g}; accepted: at least {largest / _WHOLE:.3g}"
        )
    k = (x / width).floor()
    k -= (k * width > x).double()  # the quotient is rounded
    return k + ((k + 1) * width <= x).double() + 0.0  # no -0


def discretize(x: Tensor, edges: Tensor) -> Tensor:
    """Numbers [N] for the rows of x [N, D]: the same for rows whose values all lie in the same bins [eᵢ, eᵢ₊₁). The
    outer bins also hold the values beyond the edges."""
    inner = edges[1:-1].to(x.device)
    return _numbers(x, lambda block: torch.bucketize(block.double().contiguous(), inner, right=True, out_int32=True))


def _numbers(x: Tensor, code: Callable[[Tensor], Tensor]) -> Tensor:
    """Numbers [N] for the rows of x [N, D]: the same for rows with the same codes."""
    known: dict[bytes, int] = {}
    numbers = []
    for block in x.split(max(1, _ENTRIES // x.shape[1])):
        numbers += [known.setdefault(row.tobytes(), len(known)) for row in code(block).cpu().numpy()]
    return torch.tensor(numbers)


def entropy(values: Tensor) -> float:
    """H of integers [N] as they occur, in bits."""
    counts = values.unique(return_counts=True)[1].sort().values  # the order of the sum is that of no data
    return float(torch.special.entr(counts.double() / len(values)).sum()) / math.log(2)


def discrete_information(a: Tensor, b: Tensor) -> float:
    """I(A;B) = H(A) + H(B) − H(A, B) of integers [N] as they occur together, in bits."""
    a, b = a.unique(return_inverse=True)[1], b.unique(return_inverse=True)[1]
    return max(entropy(a) + entropy(b) - entropy(a * (int(b.max()) + 1) + b), 0.0)


def kernel_information(x: Tensor, labels: Tensor | None, variance: float) -> tuple[float, float | None]:
    """I(X;T) and I(T;Y) of :func:`mutual_information_kde` for rows t [N, D] and classes [N], in bits."""
    x = x.double() - x.double().mean(0)  # the nearer to 0, the less is lost when squares are subtracted
    squares = x.square().sum(1)
    if labels is None:
        classes = torch.zeros(len(x), dtype=torch.long, device=x.device)
    else:
        classes = labels.unique(return_inverse=True)[1]
    members = nn.functional.one_hot(classes).double()
    counts = members.sum(0)
    whole, within = [], []
    for rows in torch.arange(len(x), device=x.device).split(max(1, _ENTRIES // len(x))):
        distances = squares[rows, None] + squares - 2 * x[rows] @ x.T
        distances[torch.arange(len(rows), device=x.device), rows] = 0
        sums = (distances.clamp_min(0) / (-2 * variance)).exp() @ members
        whole.append((sums.sum(1) / len(x)).log2())
        own = classes[rows]
        within.append((sums.gather(1, own[:, None]).squeeze(1) / counts[own]).log2())
    of_all, of_classes = abs(float(torch.cat(whole).mean())), abs(float(torch.cat(within).mean()))
    return of_all, None if labels is None else of_all - of_classes


def _plane(
    snapshot: Snapshot, suffix: str, examples: int, information: Callable[[Tensor], tuple[float, float | None]]
) -> dict[str, Estimate]:
    features = hidden(snapshot)
    subset = [] if examples == snapshot.examples else [f"{examples} of {snapshot.examples} examples"]

    def estimate(bits: float | None) -> Estimate:
        if bits is None:
            return _NO_LABELS
        saturated = bits >= 0.99 * math.log2(examples) > 0
        remarks = subset + ([f"saturated: within 1 % of log2 N = {math.log2(examples):.4g}"] if saturated else [])
        return Estimate(bits, note="; ".join(remarks) or None)

    found = {layer: tuple(map(estimate, information(x))) for layer, x in features.items()}
    last = penultimate(features)
    found = {"": (NO_HIDDEN, NO_HIDDEN) if last is None else found[last]} | {f".{k}": v for k, v in found.items()}
    return {f"{kind}_{suffix}{k}": v[i] for i, kind in enumerate(("xt", "ty")) for k, v in found.items()}


def _range(snapshot: Snapshot, x: Tensor) -> tuple[float, float]:
    """The range of the activation if it is bounded, else that of the values."""
    low, high = float(x.min()), float(x.max())
    for (least, most), activations in _BOUNDED.items():
        if least <= low and high <= most and any(isinstance(m, activations) for m in snapshot.model.modules()):
            return least, most
    return low, high


def _check_edges(edges: Sequence[float]) -> Tensor:
    try:
        values = torch.tensor([float(edge) for edge in edges], dtype=torch.float64)
    except (TypeError, ValueError):
        values = torch.empty(0)
    if len(values) < 2 or not values.isfinite().all() or (values.diff() < 0).any():
        raise ValueError(f"edges is {edges!r}; accepted: null, or at least two numbers that do not fall")
    return values
