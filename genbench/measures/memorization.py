"""What networks memorize: the train examples that they answer right only where they were trained on them, and the test
examples that one train example helps."""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.modules.batchnorm import _NormBase

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.ood import auroc
from genbench.measures.outputs import undefined
from genbench.measures.performance import labelled_members
from genbench.measures.sampling import sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom

_BINS = 10
_BLOCK = 256  # test examples that all networks answer at once
_ARMS = ("memorized", "random", "matched")


@measure(
    "memorization",
    by_member=False,
    names=(
        "memorization",
        "right_inside",
        "right_outside",
        "memorization_clean",
        "memorization_mislabelled",
        "memorization_auroc",
        "memorization_of_label_*",
        "share_clean_at_*",
        "share_mislabelled_at_*",
    ),
)
def memorization(snapshot: Snapshot) -> dict[str, Estimate]:
    """The memorization of an example by a training procedure: P(right | trained on it) − P(right | left out), in
    [−1, 1], over networks that each left a random share of the examples out (Feldman & Zhang 2020, arXiv 2008.03703).

    The networks are the members of an ensemble with ``data.left_out``. Of the examples of the snapshot, the train
    split:

    - ``memorization``: the mean; ``right_inside`` and ``right_outside`` are the means of the two probabilities;
    - ``memorization_clean`` and ``memorization_mislabelled``: the means of those with right and with wrong labels,
      where the data say which these are; ``memorization_auroc``: the probability that a wrong label has more of it
      than a right one, ties counted half (DeLong et al. 1988 for the standard error);
    - ``memorization_of_label_<k>``: the mean of those rightly labelled k;
    - ``share_clean_at_<c>`` and ``share_mislabelled_at_<c>``: a histogram, the shares in bins of a tenth around c %;
      the first also holds all below 0.

    Each example's estimate is of as many networks as there are, and noisy by its binomials; standard errors are those
    of a mean over the examples. :func:`genbench.analysis.memorization` has an interval for each.
    """
    known = _known(snapshot)
    if isinstance(known, str):
        return {"memorization": undefined(known)}
    right, seen, labels = known
    inside, outside = _shares(right, seen)
    scores, wrong = inside - outside, snapshot.mislabelled
    clean = torch.ones_like(labels, dtype=torch.bool) if wrong is None else ~wrong.to(labels.device)
    groups = {"clean": scores[clean], "mislabelled": scores[~clean]}
    found = {
        "memorization": sample_mean(scores),
        "right_inside": sample_mean(inside),
        "right_outside": sample_mean(outside),
    }
    for name, own in groups.items():
        if not len(own):
            found[f"memorization_{name}"] = undefined(f"no example is {name}")
            continue
        found[f"memorization_{name}"] = sample_mean(own)
        bins = (own * _BINS).long().clamp(0, _BINS - 1).bincount(minlength=_BINS) / len(own)
        found |= {f"share_{name}_at_{(100 * i + 50) // _BINS}": Estimate(float(share)) for i, share in enumerate(bins)}
    if all(map(len, groups.values())):
        value, stderr = auroc(groups["mislabelled"].cpu().numpy(), groups["clean"].cpu().numpy())
        found["memorization_auroc"] = Estimate(value, stderr=stderr)
    else:
        found["memorization_auroc"] = undefined("no label is known to be wrong, or all are")
    for k in labels[clean].unique().tolist():
        found[f"memorization_of_label_{k}"] = sample_mean(scores[clean & (labels == k)])
    return found


@measure(
    "memorization",
    by_member=False,
    names=(
        "influence_of_chosen",
        "influence_where_chosen",
        "influence_of_label",
        "same_label_of_chosen",
        "memorization_of_chosen",
    ),
)
def influence(snapshot: Snapshot, *, train: Snapshot, share: float = 0.05) -> dict[str, Estimate]:
    """The influence of a train example on a test example: P(test example right | trained on it) − P(… | left out), over
    networks that each left a random share of the train examples out (Feldman & Zhang 2020, arXiv 2008.03703).

    Of many noisy estimates the largest is too large. So the first half of the networks chooses: for each test example
    the train example of the largest influence, and the ``share`` of test examples for which that is largest. The other
    half, which had no part in it, estimates.

    - ``influence_of_chosen``: the mean influence of the chosen pairs in the other half;
    - ``influence_where_chosen``: that in the first half, too large by the choice;
    - ``influence_of_label``: the mean influence, in the other half, of all train examples of the test example's label;
    - ``same_label_of_chosen``: the share of the chosen pairs of one label;
    - ``memorization_of_chosen``: the mean memorization of the chosen train examples in the other half: see
      :func:`memorization`.

    Standard errors are those of a mean over the chosen test examples, which may share a train example.

    Args:
        snapshot: an ensemble on the test split.
        train: the same on the train split, whose members left examples out.
        share: of the test examples, in (0, 1].
    """
    check_number("share", share, low=0, high=1, open_low=True)
    known = _known(train)
    if isinstance(known, str):
        return {"influence_of_chosen": undefined(known)}
    tested = _answers(snapshot)
    if isinstance(tested, str):
        return {"influence_of_chosen": undefined(tested)}
    half = len(known[0]) // 2
    halves = [(known[0][own], known[1][own], tested[0][own]) for own in (slice(half), slice(half, None))]
    if any(seen.all(0).any() or not seen.any(0).all() for _, seen, _ in halves):
        return {"influence_of_chosen": undefined("a half of the networks has all, or none, trained on some example")}
    (_, first_seen, first_right), (_, second_seen, second_right) = halves
    found = [_influences(rows, first_seen).max(1) for rows in first_right.split(_BLOCK, 1)]
    largest, partners = (torch.cat(parts) for parts in zip(*found, strict=True))
    chosen = largest.topk(math.ceil(share * len(largest))).indices
    partners, second = partners[chosen], _influences(second_right[:, chosen], second_seen)
    labels, own = known[2], tested[1][chosen]
    inside, outside = _shares(*halves[1][:2])
    same = (labels == own[:, None]).double()
    return {
        "influence_of_chosen": sample_mean(second.gather(1, partners[:, None])[:, 0]),
        "influence_where_chosen": sample_mean(largest[chosen]),
        "influence_of_label": sample_mean((second * same).sum(1) / same.sum(1).clamp(min=1)),
        "same_label_of_chosen": sample_mean((labels[partners] == own).double()),
        "memorization_of_chosen": sample_mean((inside - outside)[partners]),
    }


@measure("memorization", by_member=False, names=tuple(f"accuracy_without_{arm}_at_*" for arm in _ARMS))
def memorization_removal(
    snapshot: Snapshot,
    *,
    train: Snapshot,
    shares: Sequence[float] = (0.1, 0.2, 0.4),
    networks: int = 10,
    steps: int = 600,
    lr: float = 0.05,
    momentum: float = 0.9,
    batch_size: int = 50,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The test accuracy of fresh networks that are trained without the most memorized train examples, and without as
    many others (Feldman & Zhang 2020, arXiv 2008.03703).

    - ``accuracy_without_memorized_at_<c>``: without the c % that the members of the ensemble memorize most, by
      :func:`memorization`, ties at random;
    - ``accuracy_without_random_at_<c>``: without c % at random, others for each network;
    - ``accuracy_without_matched_at_<c>``: without as many of each label as the first, at random.

    At 0 nothing is removed. Each is the mean over ``networks`` fresh networks, with its standard error. They are copies
    of the network, start from the initial weights of the first members, and are trained by SGD on the snapshot's own
    loss without any other method of the run, in batches drawn with replacement; the same random numbers draw those of a
    network in every arm. So removal is tested by networks that had no part in the choice.

    Args:
        snapshot: an ensemble on the test split, with initial weights.
        train: the same on the train split, whose members left examples out.
        shares: of the train examples to remove, each in (0, 1) and of whole percents.
        networks: trained in each arm, at least 1 and at most the members.
        steps: of each training, at least 0.
        lr: learning rate, > 0.
        momentum: in [0, 1).
        batch_size: examples of a step, at least 1.
        seed: of what is removed at random and of batches, at least 0.
    """
    for index, each in enumerate(shares):
        check_number(f"shares[{index}]", each, low=0, high=1, open_low=True, open_high=True)
    percents = [round(100 * each) for each in shares]
    if len(set(percents)) < len(percents) or 0 in percents:
        raise ValueError(f"shares is {list(shares)!r}; accepted: shares of different whole percents")
    for name, number, least in (("networks", networks, 1), ("steps", steps, 0), ("batch_size", batch_size, 1)):
        check_integer(name, number, least=least)
    check_number("lr", lr, low=0, open_low=True)
    check_number("momentum", momentum, low=0, high=1, open_high=True)
    check_integer("seed", seed, least=0)
    known, name = _known(train), f"accuracy_without_memorized_at_{percents[0]}"
    if isinstance(known, str):
        return {name: undefined(known)}
    if len(train.members) < networks:
        raise ValueError(f"networks is {networks}; accepted: at most the {len(train.members)} members of the ensemble")
    members = train.members[:networks]
    if any(member.initial is None for member in members):
        return {name: undefined("there are no initial weights")}
    if any(isinstance(m, _NormBase) and m.track_running_stats for m in members[0].model.modules()):
        return {name: undefined("batch norm keeps statistics, which networks side by side have no room for")}
    right, seen, labels = known
    inside, outside = _shares(right, seen)
    draw = StepRandom(seed, 0)
    n, lanes, arms = len(labels), [], []
    shuffled = draw.permutation("memorization.ties", n)
    memorized = shuffled[(outside - inside).cpu()[shuffled].argsort(stable=True)]
    for percent, each in zip([0, *percents], [0.0, *shares], strict=True):
        count = round(each * n)
        of_label = labels.cpu()[memorized[:count]].bincount(minlength=int(labels.max()) + 1)
        for index in range(networks):
            order = draw.permutation(f"memorization.{percent}.{index}", n)
            first = _first_of_each(labels.cpu()[order], of_label)
            rows = {"memorized": memorized[count:], "random": order[count:], "matched": order[~first]}
            for arm in _ARMS if count else _ARMS[:1]:
                lanes.append((index, rows[arm]))
                arms.append((arm, percent))
    right_of = _fresh_accuracies(
        snapshot, members, train, lanes, steps=steps, lr=lr, momentum=momentum, batch_size=batch_size, seed=seed
    )
    found = {}
    for arm, percent in dict.fromkeys(arms):
        own = right_of[[i for i, each in enumerate(arms) if each == (arm, percent)]]
        for shown in _ARMS if percent == 0 else (arm,):
            found[f"accuracy_without_{shown}_at_{percent}"] = sample_mean(own)
    return found


def _first_of_each(labels: Tensor, counts: Tensor) -> Tensor:
    """Whether an example is among the first ``counts[k]`` of its label k, bool [n]."""
    found = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(counts.tolist()):
        found[(labels == label).nonzero()[:count, 0]] = True
    return found


def _answers(snapshot: Snapshot) -> tuple[Tensor, Tensor] | str:
    """Whether each member answers right, float64 [M, n], and the labels [n]."""
    return snapshot.shared("answers of members", lambda: _answered(snapshot))


def _answered(snapshot: Snapshot) -> tuple[Tensor, Tensor] | str:
    known = labelled_members(snapshot)
    return known if isinstance(known, str) else ((known[0].argmax(2) == known[1]).double(), known[1])


def _known(snapshot: Snapshot) -> tuple[Tensor, Tensor, Tensor] | str:
    """What members answer right, float64 [M, N], what each was trained on, bool [M, N], and the labels [N]; or why it
    is not known."""
    if snapshot.trained_on is None:
        return "the data do not say which examples each network was trained on"
    found = _answers(snapshot)
    if isinstance(found, str):
        return found
    right, labels = found
    seen = snapshot.trained_on.T.to(labels.device)
    if seen.shape != right.shape:
        return f"{tuple(seen.shape)} networks and examples were trained on, {tuple(right.shape)} are measured"
    if seen.all(0).any():
        return "every network was trained on some example; data.left_out leaves examples out"
    if not seen.any(0).all():
        return "no network was trained on some example"
    return right, seen, labels


def _shares(right: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """P(right | trained on it) and P(right | left out) of each example [N], of networks [M, N]."""
    inside = seen.to(right)
    return (right * inside).sum(0) / inside.sum(0), (right * (1 - inside)).sum(0) / (1 - inside).sum(0)


def _influences(right: Tensor, seen: Tensor) -> Tensor:
    """The influence [T, N] of each train example on each test example, of networks [M, T] and [M, N]."""
    inside = seen.to(right)
    return right.T @ (inside / inside.sum(0)) - right.T @ ((1 - inside) / (1 - inside).sum(0))


def _fresh_accuracies(
    snapshot: Snapshot,
    members: Sequence[Snapshot],
    train: Snapshot,
    lanes: Sequence[tuple[int, Tensor]],
    *,
    steps: int,
    lr: float,
    momentum: float,
    batch_size: int,
    seed: int,
) -> Tensor:
    """The test accuracy [lanes] of networks that are trained side by side: each the number of the member whose initial
    weights it starts from, and the rows of the train split that it is trained on."""
    x, y = (torch.cat(parts) for parts in zip(*train.blocks(_BLOCK), strict=True))
    net = copy.deepcopy(members[0].model).train()
    starts = [member.with_state(member.initial or {}).parameters for member in members]
    which = torch.tensor([index for index, _ in lanes])
    weights = {name: torch.stack([starts[index][name] for index, _ in lanes]) for name in starts[0]}
    sizes = torch.tensor([len(rows) for _, rows in lanes])
    padded = nn.utils.rnn.pad_sequence([rows for _, rows in lanes], batch_first=True)

    def loss(own: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return snapshot.loss(functional_call(net, dict(own), (inputs,)), targets)

    slopes = torch.vmap(grad(loss), randomness="different")
    speed = {name: torch.zeros_like(p) for name, p in weights.items()}
    for step in range(steps):
        places = StepRandom(seed, step).uniform("memorization.batch", len(members), batch_size)[which]
        rows = padded.gather(1, (places.double() * sizes[:, None]).long()).to(y.device)
        found = slopes(weights, x[rows], y[rows])
        for name, p in weights.items():
            speed[name] = momentum * speed[name] + found[name]
            weights[name] = p - lr * speed[name]
    net.eval()
    right, n = torch.zeros(len(lanes), dtype=torch.float64, device=y.device), 0
    answer = torch.vmap(lambda own, inputs: functional_call(net, dict(own), (inputs,)), in_dims=(0, None))
    for inputs, targets in snapshot.blocks(_BLOCK):
        right += (answer(weights, inputs).argmax(2) == targets).double().sum(1)
        n += len(targets)
    return right / n
