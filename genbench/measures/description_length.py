"""Code lengths of the labels given the inputs, in bits: prequential, in two parts, and by a mixture.

A code length is −log₂ of a probability that is fixed before the labels are seen. So n labels drawn uniformly from K
classes are coded in fewer than n log₂ K − 20 bits with a probability of at most 2⁻²⁰, by any code (Shannon 1948).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.outputs import Reading, undefined, with_logits
from genbench.measures.random_state import seed_all
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom, derive_seed

_TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
_SHARES = (0.001, 0.03)  # of the uniform distribution
_STEPS = tuple(2.0**j for j in range(2, -11, -1))  # between two values of a weight
_REST = 32  # bits of a number that is not rounded
BLOCK = 4096  # examples that are read at once


@measure(
    "information",
    by_member=False,
    names=(
        "prequential_bits",
        "prequential_bits_per_label",
        "prequential_ratio",
        "prequential_bits_at_*",
        "prequential_block_bits_at_*",
        "prequential_plain_bits",
        "prequential_plain_ratio",
    ),
)
def prequential_code(
    snapshot: Snapshot, *, first: int = 32, steps: int = 200, lr: float = 0.002, batch_size: int = 64, seed: int = 0
) -> dict[str, Estimate]:
    """The prequential code length of the labels: each block of labels is coded by this network, trained from its
    initial weights on the blocks before (Blier & Ollivier 2018, arXiv 1802.07044; Voita & Titov 2020, arXiv
    2003.12298):

        log₂ K · n₁ − Σ_k log₂ p_k(y of block k | x of block k),

    the first n₁ labels by the uniform code, p_k of the network after training on blocks 1 to k − 1. Blocks end at
    n₁, 2n₁, 4n₁, … and n, in an order drawn by ``seed``. p_k is a Bayesian mixture of the uniform distribution and
    of that of the network at temperatures ½ to 8, with 0.1 or 3 % of the uniform one; its weights start equal, are
    multiplied by the probability that each part gave to every block before, and half of them is spread evenly again
    after each block. So the code is at most log₂ 11 + 1.14 bits a further block longer than the uniform one.

    ``prequential_bits`` is the total, ``prequential_bits_per_label`` its n-th part, ``prequential_ratio`` that over
    log₂ K, ``prequential_bits_at_<N>`` the bits of the first N labels, and ``prequential_block_bits_at_<N>`` the bits a
    label of the block that ends at N. ``prequential_plain_bits`` and ``prequential_plain_ratio`` are those of the
    network's own distributions without the mixture, as in the formula above. The code depends on the blocks and on how
    the networks are trained, and bounds the description length of the labels, not of the network.

    Trains a copy of the network once for each block, by Adam, in training mode, on the snapshot's own loss. The
    weights of this snapshot are not used. Undefined without initial weights, and for outputs that are no logits of one
    label an example.

    Args:
        snapshot: network, loss and data, with initial weights.
        first: labels of the first block, n₁ ≥ 1.
        steps: of each training, at least 0.
        lr: learning rate of Adam, > 0.
        batch_size: examples of a step, drawn with replacement, at least 1.
        seed: of the order, the batches and the network's own random numbers, at least 0.
    """
    training = _Training(first, steps, lr, batch_size, seed)
    reading = label_reading(snapshot)
    if isinstance(reading, str):
        return {"prequential_bits": undefined(reading)}
    if snapshot.initial is None:
        return {"prequential_bits": undefined("there are no initial weights")}
    start = snapshot.with_state(snapshot.initial).state
    x, targets = training.data(snapshot)
    y = labels_of(targets)
    classes, ends = number_of_classes(snapshot, reading), training.ends(len(y))
    coder, bits = _Coder(classes), [ends[0] * math.log2(classes)]
    plain = bits[0]
    for number, (low, high) in enumerate(pairwise(ends)):
        net = _trained(snapshot, start, x, targets, training.batches(number, low), training)
        log_p = torch.cat([_log_p(reading, net, part) for part in x[low:high].split(BLOCK)])
        bits.append(coder.bits(log_p, y[low:high]))
        plain -= float(log_p.gather(1, y[low:high, None]).sum()) / math.log(2)
        coder.share()
    return {
        **_lengths("prequential", bits, ends, classes),
        "prequential_plain_bits": Estimate(plain),
        "prequential_plain_ratio": Estimate(plain / (len(y) * math.log2(classes))),
    }


@measure(
    "information",
    by_member=False,
    names=(
        "two_part_bits",
        "two_part_weight_bits",
        "two_part_label_bits",
        "two_part_bits_per_label",
        "two_part_ratio",
        "two_part_step",
    ),
)
def two_part_code(snapshot: Snapshot) -> dict[str, Estimate]:
    """The length of a code in two parts, the network and then the labels given it (Rissanen 1978, Automatica 14, 465):

        min over Δ of  bits of the weights rounded to Δ − log₂ p(labels | inputs, rounded weights) + log₂ 13.

    The change of each weight from its initial one, which the receiver draws by the same seed, is rounded to a multiple
    of Δ ∈ {4, 2, …, 2⁻¹⁰}, and the integers k of a tensor are coded by the adaptive code of Krichevsky & Trofimov 1981
    on the 2M + 1 numbers up to M = max|k|, with Elias's γ code of M + 1. Buffers that training changed cost 32 bits a
    number. p is the mixture with the uniform distribution and over temperatures of :func:`prequential_code`.

    ``two_part_bits`` is the total, ``two_part_weight_bits`` and ``two_part_label_bits`` its parts (the first with the
    log₂ 13), ``two_part_bits_per_label``, ``two_part_ratio`` to the uniform code, and ``two_part_step`` Δ. Rescaling
    the layers of a ReLU network, which leaves its function, changes it.

    Undefined without initial weights, and for outputs that are no logits of one label an example.

    Args:
        snapshot: network, loss and data, with initial weights.
    """
    reading = label_reading(snapshot)
    if isinstance(reading, str):
        return {"two_part_bits": undefined(reading)}
    if snapshot.initial is None:
        return {"two_part_bits": undefined("there are no initial weights")}
    start = snapshot.with_state(snapshot.initial)
    classes = number_of_classes(snapshot, reading)
    rest = sum(_REST * t.numel() for name, t in snapshot.fixed.items() if not torch.equal(t, start.fixed[name]))
    found = []
    for step in _STEPS:
        integers = {
            name: ((p - start.parameters[name]).double() / step).round() for name, p in snapshot.parameters.items()
        }
        rounded = torch.cat([(start.parameters[name].double() + k * step).flatten() for name, k in integers.items()])
        predicted = list(snapshot.predictions_at(rounded))
        log_p = torch.cat([log_probabilities(reading.logits(output)) for output, *_ in predicted])
        labels = torch.cat([reading.labels(output, target) for output, target, *_ in predicted])
        weights = sum(map(integer_bits, integers.values())) + rest + math.log2(len(_STEPS))
        found.append((weights, _Coder(classes).bits(log_p, labels), step))
    weights, of_labels, step = min(found, key=lambda each: each[0] + each[1])
    bits, n = weights + of_labels, snapshot.examples
    return {
        "two_part_bits": Estimate(bits),
        "two_part_weight_bits": Estimate(weights),
        "two_part_label_bits": Estimate(of_labels),
        "two_part_bits_per_label": Estimate(bits / n),
        "two_part_ratio": Estimate(bits / (n * math.log2(classes))),
        "two_part_step": Estimate(step),
    }


@measure(
    "information",
    by_member=False,
    names=(
        "mixture_bits",
        "mixture_bits_*",
        "mixture_block_bits_at_*",
        "mixture_ratio",
        "mixture_best_bits",
        "mixture_excess",
    ),
)
def mixture_code(
    snapshot: Snapshot,
    *,
    widths: Sequence[int] = (2, 8, 32),
    first: int = 32,
    steps: int = 200,
    lr: float = 0.005,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The code length of the labels under a mixture over a ladder of models, each weighted by 2⁻ᴸ, L the length of its
    name (Solomonoff 1964, Inform. Control 7, 1, in small):

        −log₂ Σ_m 2^−L(m) p_m(labels | inputs) ≤ min over m of  L(m) − log₂ p_m(labels | inputs).

    The models are ``uniform``; ``frequencies``, the labels without the inputs (Krichevsky & Trofimov 1981);
    ``logistic``, and ``mlp_<width>`` with one hidden layer of ReLU for each of ``widths``. The i-th is named by the
    i-th word of Elias's γ code, of 2⌊log₂ i⌋ + 1 bits, a prefix code. Networks code prequentially: see
    :func:`prequential_code`. Their inputs are standardized, as the receiver knows the inputs of all labels.

    ``mixture_bits`` is the total, ``mixture_bits_per_label``, ``mixture_ratio`` to the uniform code,
    ``mixture_bits_at_<N>`` the bits of the first N labels, ``mixture_block_bits_at_<N>`` the bits a label of the block
    that ends at N, ``mixture_bits_<model>`` those of a model without its name,
    ``mixture_best_bits`` the smallest of them with it, and ``mixture_excess`` the first minus the last, which is never
    positive. The network of the snapshot is not used.

    Args:
        snapshot: its data are classified.
        widths: of the hidden layers, each at least 1, or none.
        first: labels of the first block, at least 1.
        steps: of each training, at least 0.
        lr: learning rate of Adam, > 0.
        batch_size: examples of a step, drawn with replacement, at least 1.
        seed: of the order, the initial weights and the batches, at least 0.

    Raises:
        ValueError: inputs are not real numbers.
    """
    if isinstance(widths, str) or not isinstance(widths, Sequence):
        raise ValueError(f"widths is {widths!r}; accepted: a list of numbers")
    for index, width in enumerate(widths):
        check_integer(f"widths[{index}]", width, least=1)
    training = _Training(first, steps, lr, batch_size, seed)
    reading = label_reading(snapshot)
    if isinstance(reading, str):
        return {"mixture_bits": undefined(reading)}
    x, targets = training.data(snapshot)
    y = labels_of(targets)
    if not x.is_floating_point():
        raise ValueError(f"inputs are {x.dtype}; accepted: real numbers")
    classes, ends = number_of_classes(snapshot, reading), training.ends(len(y))
    x = x.flatten(1)
    x = (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-6)
    found = {
        "uniform": [n * math.log2(classes) for n in ends],
        "frequencies": [_frequencies(y[:n], classes) for n in ends],
    }
    for name, hidden in {"logistic": [], **{f"mlp_{width}": [width] for width in widths}}.items():
        found[name] = _laddered([x.shape[1], *hidden, classes], x, y, ends, training)
    names = torch.tensor([gamma_bits(i) for i in range(1, len(found) + 1)], dtype=torch.float64)
    lengths = torch.tensor(list(found.values()), dtype=torch.float64) + names[:, None]
    mixed = (-torch.logsumexp(-lengths * math.log(2), 0) / math.log(2)).tolist()
    best = float(lengths[:, -1].min())
    bits = [mixed[0], *(after - before for before, after in pairwise(mixed))]
    return {
        **_lengths("mixture", bits, ends, classes),
        **{f"mixture_bits_{name}": Estimate(each[-1]) for name, each in found.items()},
        "mixture_best_bits": Estimate(best),
        "mixture_excess": Estimate(mixed[-1] - best),
    }


def gamma_bits(i: int) -> int:
    """The length 2⌊log₂ i⌋ + 1 of the number i ≥ 1 in the γ code of Elias 1975; Σ 2^−length ≤ 1."""
    return 2 * (i.bit_length() - 1) + 1


def integer_bits(integers: Tensor) -> float:
    """The length of integers [...] in the adaptive code of Krichevsky & Trofimov 1981 on the numbers −M to M, M the
    largest modulus, with the γ code of M + 1."""
    if not integers.numel():
        return 0.0
    most = int(integers.abs().max())
    counts = integers.flatten().unique(return_counts=True)[1]
    return gamma_bits(most + 1) + _adaptive(counts, 2 * most + 1)


def _adaptive(counts: Tensor, symbols: int) -> float:
    """−log₂ of the probability of a sequence with these numbers of each of its symbols, each predicted by
    (its number so far + ½) / (all so far + symbols/2)."""
    counts = counts.double()
    n, half = float(counts.sum()), symbols / 2
    nats = math.lgamma(n + half) - math.lgamma(half) - float((torch.lgamma(counts + 0.5) - math.lgamma(0.5)).sum())
    return nats / math.log(2)


def _frequencies(labels: Tensor, classes: int) -> float:
    return _adaptive(torch.bincount(labels, minlength=classes), classes)


class _Coder:
    """The bits of labels under a Bayesian mixture of the uniform distribution and softened predictions."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        parts = 1 + len(_TEMPERATURES) * len(_SHARES)
        self.weights = torch.full((parts,), -math.log(parts), dtype=torch.float64)  # logarithms

    def bits(self, log_p: Tensor, labels: Tensor) -> float:
        """The length of labels [n] under log p [n, K]; weighs each part by the probability that it gave them."""
        true = [torch.full((len(labels),), -math.log(self.classes), dtype=torch.float64)]
        for temperature in _TEMPERATURES:
            p = (log_p.double() / temperature).softmax(1).gather(1, labels[:, None])[:, 0].cpu()
            true += [((1 - share) * p + share / self.classes).log() for share in _SHARES]
        joint = self.weights + torch.stack(true).sum(1)
        total = torch.logsumexp(joint, 0)
        self.weights = joint - total
        return -float(total) / math.log(2)

    def share(self) -> None:
        """Spread half of the weight evenly, as the best temperature changes with the number of examples (Herbster &
        Warmuth 1998)."""
        self.weights = (0.5 * self.weights.exp() + 0.5 / len(self.weights)).log()


@dataclass(frozen=True)
class _Training:
    """How networks are trained on the first of all labels, and where blocks end."""

    first: int
    steps: int
    lr: float
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        check_integer("first", self.first, least=1)
        check_integer("steps", self.steps, least=0)
        check_number("lr", self.lr, low=0, open_low=True)
        check_integer("batch_size", self.batch_size, least=1)
        check_integer("seed", self.seed, least=0)

    def ends(self, n: int) -> list[int]:
        """Where blocks of n labels end."""
        found = [min(self.first, n)]
        while found[-1] < n:
            found.append(min(2 * found[-1], n))
        return found

    def data(self, snapshot: Snapshot) -> tuple[Tensor, Tensor]:
        """All inputs and targets, in the order in which they are coded."""
        x, targets = (torch.cat(parts) for parts in zip(*snapshot.blocks(BLOCK), strict=True))
        order = StepRandom(self.seed, 0).permutation("description_length.order", len(targets)).to(targets.device)
        return x[order], targets[order]

    def batches(self, number: int, n: int) -> Tensor:
        """The positions [steps, batch] of the batches among the first n examples."""
        generator = StepRandom(self.seed, number).generator("description_length.batches")
        return torch.randint(n, (self.steps, min(self.batch_size, n)), generator=generator)


def label_reading(snapshot: Snapshot) -> Reading | str:
    """The way to read logits of one label an example, or why there are none."""
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return reading
    if reading.ignored:
        return "the loss ignores labels"
    output, target = snapshot.predictions[0]
    shape = tuple(reading.logits(output).shape)
    if len(shape) != 2 or reading.labels(output, target).shape != shape[:1]:
        return f"outputs of shape {shape} and targets of shape {tuple(target.shape)} are not one label an example"
    return reading


def number_of_classes(snapshot: Snapshot, reading: Reading) -> int:
    return reading.logits(snapshot.predictions[0][0]).shape[1]


def labels_of(targets: Tensor) -> Tensor:
    """The classes [n] of targets as the loss takes them: of one logit an example, numbers [n] or [n, 1]."""
    return targets.reshape(len(targets)).long()


def _trained(
    snapshot: Snapshot, start: Mapping[str, Tensor], x: Tensor, targets: Tensor, batches: Tensor, training: _Training
) -> nn.Module:
    """A copy of the network, trained from ``start``, in evaluation mode."""
    net = copy.deepcopy(snapshot.model)
    with torch.no_grad():
        for name, tensor in chain(net.named_parameters(), net.named_buffers()):
            tensor.copy_(start[name])
    seed_all(derive_seed(training.seed, "description_length.network") % 2**32)  # restored after the measurement
    for p in net.parameters():
        p.grad = None
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=training.lr, foreach=True)
    net.train()
    for positions in batches.to(targets.device):
        optimizer.zero_grad()
        snapshot.loss(net(x[positions]), targets[positions]).backward()
        optimizer.step()
    return net.eval()


def _log_p(reading: Reading, net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return log_probabilities(reading.logits(net(x)))


def log_probabilities(logits: Tensor) -> Tensor:
    """log p [n, K]; of logits that are not finite the uniform distribution, which the receiver knows as well."""
    fine = logits.isfinite().all(1, keepdim=True)
    return torch.where(fine, logits, torch.zeros_like(logits)).double().log_softmax(1)


def _laddered(sizes: list[int], x: Tensor, y: Tensor, ends: list[int], training: _Training) -> list[float]:
    """The bits of the labels before each end, coded by fully connected networks of these sizes."""
    classes, lanes = sizes[-1], len(ends) - 1
    draw = StepRandom(training.seed, 0)
    layers = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        scale = math.sqrt((2 if index < len(sizes) - 2 else 1) / fan_in)
        weight = scale * draw.normal(f"description_length.{sizes}.{index}", fan_in, fan_out)
        # all blocks train at once: a network each, side by side
        layers.append((weight.to(x).repeat(lanes, 1, 1), x.new_zeros(lanes, 1, fan_out)))
    parameters = [p.requires_grad_() for layer in layers for p in layer]

    def logits(h: Tensor, lane: slice = slice(None)) -> Tensor:
        for index, (weight, bias) in enumerate(layers):
            h = torch.baddbmm(bias[lane], h.relu() if index else h, weight[lane])
        return h

    coder, bits = _Coder(classes), [ends[0] * math.log2(classes)]
    if not lanes:
        return bits
    batches = _padded([training.batches(number, end) for number, end in enumerate(ends[:-1])]).to(y.device)
    optimizer = torch.optim.Adam(parameters, lr=training.lr, foreach=True)
    for positions in batches.unbind(1):
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(x[positions]).flatten(0, 1), y[positions].flatten(), reduction="sum")
        (loss / positions.shape[1]).backward()
        optimizer.step()
    for lane, (low, high) in enumerate(pairwise(ends)):
        with torch.no_grad():
            log_p = log_probabilities(logits(x[None, low:high], slice(lane, lane + 1))[0])
        bits.append(bits[-1] + coder.bits(log_p, y[low:high]))
        coder.share()
    return bits


def _padded(batches: list[Tensor]) -> Tensor:
    """Batches [lanes, steps, batch] of the largest size: smaller ones are repeated."""
    size = max(each.shape[1] for each in batches)
    return torch.stack([each.repeat(1, -(-size // each.shape[1]))[:, :size] for each in batches])


def _lengths(kind: str, bits: Sequence[float], ends: Sequence[int], classes: int) -> dict[str, Estimate]:
    """The estimates of a code from the bits of each block."""
    sums = list(accumulate(bits))
    per_label = sums[-1] / ends[-1]
    sizes = [high - low for low, high in pairwise([0, *ends])]
    return {
        f"{kind}_bits": Estimate(sums[-1]),
        f"{kind}_bits_per_label": Estimate(per_label),
        f"{kind}_ratio": Estimate(per_label / math.log2(classes)),
        **{f"{kind}_bits_at_{end}": Estimate(total) for end, total in zip(ends, sums, strict=True)},
        **{
            f"{kind}_block_bits_at_{end}": Estimate(each / size)
            for end, each, size in zip(ends, bits, sizes, strict=True)
        },
    }
