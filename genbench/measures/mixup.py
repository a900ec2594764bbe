"""Mixtures of two examples as inputs, and what the network makes of those of one class."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.davies_bouldin import davies_bouldin
from genbench.measures.outputs import undefined
from genbench.measures.pairs import error_of_classes, pairs_within
from genbench.measures.performance import class_labels, labelled
from genbench.measures.perturbations import generator_of
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_BLOCK = 1024  # mixtures that pass through the network together
_NAMES = ("mixup_cross_entropy", "mixup_accuracy", "davies_bouldin_mixup")


@measure("robustness", by_member=False, names=_NAMES)
def label_wise_mixup(snapshot: Snapshot, *, pairs: int | None = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Performance on the means ½(x + x′) of pairs of examples of one class, with the class as their label: mean over
    the pairs of a class, then over the classes (Natekar & Sharma 2020, arXiv 2012.02775, and parthnatekar/pgdl):

    - ``mixup_cross_entropy``: in nats, by which they rank networks;
    - ``mixup_accuracy``: the share that gets the class;
    - ``davies_bouldin_mixup``: the cross-entropy times ``davies_bouldin_mean`` of
      :func:`genbench.measures.davies_bouldin`, the product that won the contest on predicting generalization.

    The standard error is that over the examples as a random sample, in which pairs that share an example depend on each
    other; of the product, with the index held fixed. They take all pairs within sets of ten examples a class.
    Classes with one example have no pair and are left out, with a note. Undefined where an example has not one class,
    or is no tensor of real numbers.

    Args:
        snapshot: a classifier.
        pairs: of each class at most so many, drawn at random, at least 2; ``None``: all.
        seed: of the pairs, at least 0.
    """
    if pairs is not None:
        check_integer("pairs", pairs, least=2, note="or null")
    generator = generator_of(seed, "label_wise_mixup")
    labels = class_labels(snapshot)
    if labels is None or len(labels) != snapshot.examples:
        return dict.fromkeys(_NAMES, undefined("the targets are not one class an example"))
    labels = labels.cpu()
    members = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    chosen = [pairs_within(each, pairs, generator) for each in members if len(each) > 1]
    if not chosen:
        return dict.fromkeys(_NAMES, undefined("no class has two examples"))
    mixed = mixtures(snapshot, torch.cat(chosen), 0.5)
    known = mixed if isinstance(mixed, str) else labelled(mixed)
    if isinstance(known, str):
        return dict.fromkeys(_NAMES, undefined(known))
    log_p, target = known
    if len(target) != sum(map(len, chosen)):
        return dict.fromkeys(_NAMES, undefined("the loss ignores some of the labels"))
    alone = len(members) - len(chosen)
    note = f"without {alone} of {len(members)} classes, which have one example" if alone else None
    values = -log_p.gather(1, target[:, None])[:, 0].double(), (log_p.argmax(1) == target).double()
    loss, accuracy = (replace(_mean(each.cpu(), chosen), note=note) for each in values)
    return dict(zip(_NAMES, (loss, accuracy, _product(snapshot, loss)), strict=True))


def mixtures(snapshot: Snapshot, pairs: Tensor, share: float) -> Snapshot | str:
    """The network on (1 − share) · x + share · x′ of pairs [p, 2] of positions of x and x′ in the data, with the target
    of x; or why there are none."""
    rows, places = pairs.unique(return_inverse=True)
    try:
        few = snapshot.subsets([rows])[0]
        x, y = next(few.blocks(len(rows)))
    except ValueError as error:
        return str(error)
    if not x.is_floating_point():
        return "the inputs are no real numbers, of which there is a mean"
    return snapshot.with_batches(_Mixtures(x, y, places, share))


class _Mixtures:
    """Batches of mixtures of pairs of examples."""

    def __init__(self, x: Tensor, y: Tensor, pairs: Tensor, share: float) -> None:
        self._x, self._y, self._pairs, self._share = x, y, pairs.to(x.device), share

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for one, other in (block.unbind(1) for block in self._pairs.split(_BLOCK)):
            yield torch.lerp(self._x[one], self._x[other], self._share), self._y[one]


def _mean(values: Tensor, pairs: list[Tensor]) -> Estimate:
    """The mean over classes of the means of their pairs."""
    by_class = values.split([len(each) for each in pairs])
    value = sum(float(each.mean()) for each in by_class) / len(pairs)
    return Estimate(value, stderr=error_of_classes(by_class, pairs))


def _product(snapshot: Snapshot, loss: Estimate) -> Estimate:
    index = davies_bouldin(snapshot, versions=0)["davies_bouldin_mean"]
    if index.value is None or loss.value is None:
        return Estimate(None, note=index.note)
    error = None if loss.stderr is None else index.value * loss.stderr
    return Estimate(index.value * loss.value, stderr=error, note=loss.note)
