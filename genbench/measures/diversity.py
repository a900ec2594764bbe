"""How differently networks answer, and at which cost: members of an ensemble, and samples around one of them."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.outputs import Reading, undefined, with_logits
from genbench.measures.perturbations import generator_of
from genbench.measures.sampling import sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

SUBSPACES = ("random", "diagonal", "low_rank")
_SCALES = (1e-3, 10.0)  # of a step, in norms of the weights
_HALVINGS = 12


@measure(
    "performance",
    by_member=False,
    names=("members_diversity_at_0", *(f"{each}_{kind}_at_*" for each in SUBSPACES for kind in ("diversity", "gain"))),
)
def diversity(
    snapshot: Snapshot,
    *,
    subspaces: Sequence[str] = ("random",),
    points: Sequence[float] = (1, 2, 5, 10),
    samples: int = 4,
    seed: int = 0,
) -> dict[str, Estimate]:
    """How often networks answer differently, over their error: the diversity–accuracy plane of Fort et al. 2019 (arXiv
    1912.02757).

    ``members_diversity_at_0`` is the share of examples that two members of an ensemble answer differently over the
    error of the second, mean over the ordered pairs. For each of ``subspaces``, the networks w + s δ are sampled around
    the last member w, with a δ each of

    - ``random``: a standard normal vector;
    - ``diagonal``: normal numbers, each times the standard deviation of its weight over the members;
    - ``low_rank``: Σ_k ε_k (w_k − w̄), ε standard normal, the sum over the members.

    The last two are Gaussians around a trajectory where the members are moments of one training
    (``regularization=snapshots``). δ has the norm of w, and s is the scale, by bisection, at which the samples' mean
    accuracy is p points below that of w, for each p of ``points``. ``<subspace>_diversity_at_p`` is then the mean over
    the samples of the share of examples that w and the sample answer differently, over the sample's error;
    ``<subspace>_gain_at_p`` is how much more accurate than w the mean of the probabilities of w and all samples is.

    Args:
        snapshot: an ensemble of classifiers with logits or probabilities [N, K].
        subspaces: any of ``random``, ``diagonal``, ``low_rank``.
        points: of accuracy that samples lose, each > 0.
        samples: number of samples, at least 1.
        seed: of the directions, at least 0.
    """
    for name, given in (("subspaces", subspaces), ("points", points)):
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise ValueError(f"{name} is {given!r}; accepted: a list")
    for index, each in enumerate(subspaces):
        check_choice(f"subspaces[{index}]", each, SUBSPACES)
    for index, loss in enumerate(points):
        check_number(f"points[{index}]", loss, low=0, high=100, open_low=True)
    check_integer("samples", samples, least=1)
    check_integer("seed", seed, least=0)
    members = snapshot.members
    if len(members) < 2:
        return {"members_diversity_at_0": undefined("one member" if members else "the network is no ensemble")}
    answers, labels = [], torch.empty(0)
    for member in members:
        with member.measuring():
            reading = with_logits(member)
            if isinstance(reading, str):
                return {"members_diversity_at_0": undefined(reading)}
            network = _Network(member, reading)
            if network.labels.ndim > 1 or reading.ignored:
                return {"members_diversity_at_0": undefined("the network has several answers an example, or none")}
            labels = network.labels
            answers.append(network.log_p(member.vector).argmax(1))
    pairs = [_diversity(a, b, labels) for i, a in enumerate(answers) for j, b in enumerate(answers) if i != j]
    found = {"members_diversity_at_0": Estimate(float(torch.stack(pairs).mean()))}
    vectors, last = torch.stack([member.vector for member in members]), members[-1]
    with last.measuring():
        for subspace in subspaces:
            directions = _directions(subspace, vectors, samples, generator_of(seed, f"diversity.{subspace}"))
            for loss in points:
                found |= {
                    f"{subspace}_{name}_at_{loss:g}": each
                    for name, each in _sampled(network, directions, loss / 100).items()
                }
    return found


class _Network:
    """A classifier whose answers are asked at other weights."""

    def __init__(self, snapshot: Snapshot, reading: Reading) -> None:
        self.snapshot, self.reading = snapshot, reading
        self.labels = torch.cat([reading.labels(output, target) for output, target in snapshot.predictions])

    def log_p(self, vector: Tensor) -> Tensor:
        """log p [N, K] at weights [size]."""
        outputs = [output for output, *_ in self.snapshot.predictions_at(vector)]
        return torch.cat([self.reading.logits(output) for output in outputs]).double().log_softmax(1)

    def accuracy(self, log_p: Tensor) -> float:
        return float((log_p.argmax(1) == self.labels).double().mean())


def _directions(subspace: str, vectors: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """δ [samples, size] of the members' weights [M, size], with the norm of the last."""
    away = vectors - vectors.mean(0)

    def normal(count: int) -> Tensor:
        return torch.randn((samples, count), generator=generator, dtype=torch.float64).to(vectors)

    if subspace == "low_rank":
        found = normal(len(vectors)) @ away
    else:
        found = normal(vectors.shape[1]) * (1.0 if subspace == "random" else vectors.std(0))
    return found * (vectors[-1].norm() / found.norm(dim=1, keepdim=True))


def _sampled(network: _Network, directions: Tensor, loss: float) -> dict[str, Estimate]:
    """Diversity and gain of samples that lose so much accuracy."""
    vector = network.snapshot.vector
    own = network.log_p(vector)
    accuracy = network.accuracy(own)

    def at(scale: float) -> Tensor:
        return torch.stack([network.log_p(vector + scale * direction) for direction in directions])

    def lost(scale: float) -> float:
        return accuracy - sum(network.accuracy(log_p) for log_p in at(scale)) / len(directions)

    scale = _smallest(lambda scale: lost(scale) >= loss)
    if scale is None:
        absent = undefined(f"no scale of the samples costs {100 * loss:g} points of accuracy")
        return {"diversity": absent, "gain": absent}
    logs = at(scale)
    values = torch.stack([_diversity(own.argmax(1), each.argmax(1), network.labels) for each in logs])
    mean = torch.cat([own[None], logs]).logsumexp(0)
    return {"diversity": sample_mean(values), "gain": Estimate(network.accuracy(mean) - accuracy)}


def _smallest(reached: Callable[[float], bool]) -> float | None:
    """A scale that reaches the loss, next to one that does not, by bisection; None if the largest does not."""
    low, high = map(math.log, _SCALES)
    if not reached(_SCALES[1]):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _diversity(ours: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
    """The share of different answers over the error of theirs; NaN where these do not err."""
    return (ours != theirs).double().mean() / (theirs != labels).double().mean()
