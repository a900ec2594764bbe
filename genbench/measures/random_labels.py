"""What networks that also see randomly labelled examples tell of their error."""

import math

import torch
from torch import Tensor

from genbench.measures.base import measure
from genbench.measures.outputs import read, undefined
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("bound", by_member=False, names=("ratt_bound", "ratt_excess", "clean_error", "random_error"))
def ratt_bound(snapshot: Snapshot, train: Snapshot) -> dict[str, Estimate]:
    """The bound on the error of a network that was trained on clean examples and on others whose labels were drawn
    uniformly from all K classes (Garg et al. 2021, arXiv 2105.00303):

        ``clean_error`` + (K − 1) (1 − K/(K − 1) · ``random_error``)

    of the shares of wrong answers to the train examples with clean labels and to those with drawn ones, which need no
    true label. ``ratt_bound`` is at most K, and where random labels are not fitted at all, random_error = 1 − 1/K, it
    is the clean error. It assumes that the network fits the true labels of the relabelled examples no better than those
    of new ones. The theorem adds a term for the number of examples; it is left out here, as in the authors' figures.
    ``ratt_excess`` is the bound less the error on the data: negative where the bound is violated.

    Standard errors take the examples as random samples: that of the bound is about K times that of ``random_error``.
    """
    names = ("ratt_bound", "ratt_excess", "clean_error", "random_error")
    drawn, reading = train.relabelled, read(train)
    if isinstance(reading, str):
        return dict.fromkeys(names, undefined(reading))
    here = read(snapshot)
    if isinstance(here, str):
        return dict.fromkeys(names, undefined(here))
    if drawn is None or not drawn.any() or drawn.all():
        which = "which labels were drawn is not known" if drawn is None else "no label was drawn, or every one"
        return dict.fromkeys(names, undefined(f"{which}; a train split with data.label_noise says it"))
    with train.measuring():
        wrong = torch.cat([reading.wrong(*batch) for batch in train.predictions])
        output, _ = next(iter(train.predictions))
        classes = reading.logits(output).shape[1]
    if len(wrong) != len(drawn):
        return dict.fromkeys(names, undefined(f"{len(wrong)} labels count of {len(drawn)} examples, not one of each"))
    drawn = drawn.to(wrong.device)
    error = _share(torch.cat([here.wrong(*batch) for batch in snapshot.predictions]))
    clean, random = _share(wrong[~drawn]), _share(wrong[drawn])
    bound = clean[0] + (classes - 1) - classes * random[0]
    variance = clean[1] + classes**2 * random[1]
    found = zip(names, ((bound, variance), (bound - error[0], variance + error[1]), clean, random), strict=True)
    return {name: Estimate(value, stderr=None if math.isnan(v) else math.sqrt(v)) for name, (value, v) in found}


def _share(wrong: Tensor) -> tuple[float, float]:
    """The share of wrong answers and the variance of its mean; NaN of one answer."""
    share, n = float(wrong.double().mean()), len(wrong)
    return share, share * (1 - share) / (n - 1) if n > 1 else math.nan
