"""How much of what a network tells of the labels a simpler classifier tells too."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import torch
from torch import Tensor

from genbench.checks import check_choice
from genbench.measures.base import measure
from genbench.measures.outputs import read, undefined
from genbench.measures.sampling import sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_BLOCK = 1024  # examples that are read at once
_STEPS = 1000  # of L-BFGS
_KEPT = 64  # classifiers whose answers are kept
_found: dict[tuple[str | bytes, ...], tuple[Tensor, str | None]] = {}


@measure("information", by_member=False)
def answer_information(snapshot: Snapshot) -> Estimate:
    """I(F; Y) of the answers F and the labels Y, in bits, from the shares of each pair of classes.

    Of n examples such a plug-in estimate is too high by (K − 1)² / (2n ln 2) bits to first order, if all K² pairs occur
    (Miller 1955).
    """
    found = _answers(snapshot)
    return undefined(found) if isinstance(found, str) else _estimate(_surprise_of_pair(*found))


@measure(
    "information",
    by_member=False,
    names=("*_explained", "*_share", "*_information", "*_accuracy", "*_lead"),
)
def explained_information(snapshot: Snapshot, train: Snapshot, *, by: str = "linear") -> dict[str, Estimate]:
    """Split I(F; Y), the information that the answers F have on the labels Y, at a simpler classifier L that is fitted
    to the train split: ``linear_explained`` = μ(F; L) = I(F; Y) − I(F; Y | L), in bits, and ``linear_share`` =
    μ / I(F; Y). Beside them ``linear_information`` = I(L; Y), ``linear_accuracy`` of L, and ``linear_lead``,
    the accuracy of F less it. Kalimeris et al. 2019 (arXiv 1905.11604) measure so how much of the
    performance of a network a linear classifier explains.

    μ is I(F; Y) where F tells nothing of Y that L does not, and 0 where F and L tell different things; where they
    complete each other, as in an exclusive or, it is negative. It is at most I(L; Y).

    All are plug-in estimates, from the shares of the triples (F, L, Y). Of n examples μ is too low by
    (K − 1)³ / (2n ln 2) bits to first order, if all K³ triples occur (after Miller 1955): of two classes by 0.7 / n, of
    ten by 526 / n. Standard errors are those over the examples, with L as it is.

    Args:
        snapshot: a network, its loss and data; answers and labels are one class an example.
        train: its data L is fitted to, by their labels.
        by: ``linear``, logistic regression with a penalty of ‖w‖²/2 on the summed loss; or ``neighbour``, the label of
            the nearest training example.

    Raises:
        ValueError: ``by`` is neither, or inputs are not real numbers.
    """
    check_choice("by", by, tuple(_CLASSIFIERS))
    names = [f"{by}_{name}" for name in ("explained", "share", "information", "accuracy", "lead")]
    found = _answers(snapshot)
    if isinstance(found, str):
        return dict.fromkeys(names, undefined(found))
    answers, labels = found
    (known, given), (x, _) = _data(train), _data(snapshot)
    if given.shape != (len(known),) or given.is_floating_point():
        return dict.fromkeys(names, undefined("targets of the train split are not one label an example"))
    simple, note = _remembered(by, known, given, x)
    simple = simple.to(answers)
    total = _surprise_of_pair(answers, labels)
    explained = total - _surprise_given(answers, labels, simple)
    whole = float(total.mean())
    share = Estimate(None, note="undefined: the answers tell nothing of the labels")
    if whole > 0:
        ratio = float(explained.mean()) / whole
        share = Estimate(ratio, stderr=_estimate((explained - ratio * total) / whole).stderr, note=note)
    right, other = (each == labels for each in (answers, simple))
    values = (
        _estimate(explained, note),
        share,
        _estimate(_surprise_of_pair(simple, labels), note),
        _estimate(other.double(), note),
        _estimate(right.double() - other.double(), note),
    )
    return dict(zip(names, values, strict=True))


def _answers(snapshot: Snapshot) -> tuple[Tensor, Tensor] | str:
    """The answers and the labels [N]; or why there are none."""
    reading = read(snapshot)
    if isinstance(reading, str):
        return reading
    if reading.ignored:
        return "the loss ignores labels"
    answers = torch.cat([reading.answers(output) for output, _ in snapshot.predictions])
    if answers.ndim != 1:
        return "an example has several answers"
    return answers, torch.cat([reading.labels(*batch) for batch in snapshot.predictions]).reshape(-1)


def _data(snapshot: Snapshot) -> tuple[Tensor, Tensor]:
    x, y = (torch.cat(parts) for parts in zip(*snapshot.blocks(_BLOCK), strict=True))
    if not x.is_floating_point():
        raise ValueError(f"inputs are {x.dtype}; accepted: real numbers")
    return x.flatten(1), y


def _remembered(by: str, x: Tensor, y: Tensor, at: Tensor) -> tuple[Tensor, str | None]:
    """The answers of a classifier, fitted once to the same data: along training the network alone changes."""
    digests = [sha256(part.cpu().numpy().tobytes()).digest() for part in (x, y, at)]
    key: tuple[str | bytes, ...] = (by, *digests)
    if key not in _found:
        if len(_found) >= _KEPT:
            del _found[next(iter(_found))]
        _found[key] = _CLASSIFIERS[by](x, y, at)
    return _found[key]


def _logistic(x: Tensor, y: Tensor, at: Tensor) -> tuple[Tensor, str | None]:
    """The answers of logistic regression, and a note if it did not converge."""
    from sklearn.linear_model import LogisticRegression

    if len(y.unique()) == 1:
        return y[:1].expand(len(at)), "one class in the train split"
    fitted = LogisticRegression(max_iter=_STEPS).fit(x.double().cpu().numpy(), y.cpu().numpy())
    note = f"logistic regression did not converge in {_STEPS} steps" if max(fitted.n_iter_) >= _STEPS else None
    return torch.from_numpy(fitted.predict(at.double().cpu().numpy())), note


def _nearest(x: Tensor, y: Tensor, at: Tensor) -> tuple[Tensor, str | None]:
    """The labels of the nearest examples."""
    square = x.square().sum(1)
    return torch.cat([y[(square - 2 * part @ x.T).argmin(1)] for part in at.split(_BLOCK)]), None


_CLASSIFIERS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, str | None]]] = {
    "linear": _logistic,
    "neighbour": _nearest,
}


def _log_share(*columns: Tensor) -> Tensor:
    """log₂ of the share of the examples that are equal to each one in all columns [N], float64."""
    index = torch.zeros_like(columns[0])
    for column in columns:
        index = index * (int(column.max()) + 1) + column
    return (index.bincount().double() / len(index)).log2()[index]


def _surprise_of_pair(f: Tensor, y: Tensor) -> Tensor:
    """log₂ p(f, y) / p(f) p(y) of each example, whose mean is I(F; Y)."""
    return _log_share(f, y) - _log_share(f) - _log_share(y)


def _surprise_given(f: Tensor, y: Tensor, given: Tensor) -> Tensor:
    """log₂ p(f, y | l) / p(f | l) p(y | l) of each example, whose mean is I(F; Y | L)."""
    return _log_share(f, y, given) + _log_share(given) - _log_share(f, given) - _log_share(y, given)


def _estimate(each: Tensor, note: str | None = None) -> Estimate:
    """The mean, with its standard error over the examples; that of a plug-in entropy to first order."""
    return replace(sample_mean(each), note=note)
