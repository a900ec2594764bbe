"""Performance of an ensemble by its number of members, and what its members share and where they differ."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from genbench.checks import check_flag, check_integer
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.performance import labelled_members
from genbench.measures.sampling import sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.measures.temperature import cross_calibrated
from genbench.records.estimate import Estimate

_PARTS = ("risk", "bias2", "variance")
_NAMES = ("accuracy", "cross_entropy", "calibrated_cross_entropy", "calibration_error")


@measure("performance", by_member=False, names=tuple(f"{name}_of_*" for name in _NAMES))
def ensemble_curve(snapshot: Snapshot, *, bins: int = 15) -> dict[str, Estimate]:
    """``accuracy_of_m``, ``cross_entropy_of_m`` (nats), ``calibrated_cross_entropy_of_m`` (after temperature scaling:
    see :func:`genbench.measures.calibrated_cross_entropy`) and ``calibration_error_of_m`` (with ``bins`` equal bins) of
    m of the M members of an ensemble, m = 1 to M: of the mean of their probabilities (Lakshminarayanan et al. 2017,
    arXiv 1612.01474, Fig. 2 and 3).

    Each is the mean over the M sets of m consecutive members, the first following the last. The standard error is that
    over members, s / √⌊M/m⌋, as so many of the sets have no member in common; ``None`` where there is one.
    Members from one training (``regularization=snapshots``) are not independent: theirs describes only the spread.
    """
    check_integer("bins", bins, least=1)
    known = labelled_members(snapshot)
    if isinstance(known, str):
        return {"ensemble_curve": undefined(known)}
    logs, labels = known[0].double(), known[1]
    total = len(logs)
    curve = {}
    for m in range(1, total + 1):
        values = []
        for first in range(total if m < total else 1):
            chosen = torch.arange(first, first + m, device=logs.device) % total
            log_p = logs[chosen].logsumexp(0) - math.log(m)
            calibration = multiclass_calibration_error(log_p.exp(), labels, log_p.shape[1], n_bins=bins)
            right, cost = log_p.argmax(1) == labels, -log_p.gather(1, labels[:, None])
            scaled = cross_calibrated(log_p, labels).mean() if len(labels) > 1 else math.nan
            values.append([float(right.double().mean()), float(cost.mean()), float(scaled), float(calibration)])
        columns = torch.tensor(values, dtype=torch.float64)
        apart = total // m
        errors = columns.std(0) / math.sqrt(apart) if apart > 1 else [None] * len(_NAMES)
        for name, mean, error in zip(_NAMES, columns.mean(0), errors, strict=True):
            curve[f"{name}_of_{m}"] = Estimate(float(mean), stderr=None if error is None else float(error))
    return curve


@measure(
    "performance", by_member=False, names=tuple(f"squared_{part}{end}" for end in ("", "_of_*") for part in _PARTS)
)
def ensemble_bias_variance(snapshot: Snapshot, *, probabilities: bool = False, average: int = 1) -> dict[str, Estimate]:
    """The squared error of the members' outputs on one-hot labels, E‖f − e‖², as ``squared_bias2`` of what members
    share, ‖E f − e‖², plus ``squared_variance``, E‖f − E f‖² (Geman et al. 1992, Neural Comput. 4, 1).

    Expectations are over members, with their initial weights, and with ``data.parts`` their examples: the variance is
    Σ ‖f_m − f̄‖² / (M − 1), the bias the rest of the mean risk; both are unbiased. A mean of m members has
    the risk bias² + variance / m. Wrong labels of the data count to the bias². Standard errors are those of a mean over
    the examples, for these members.

    Args:
        snapshot: network, loss and data.
        probabilities: whether f are the probabilities, so that the risk is the Brier score.
        average: m ≥ 1; above 1, f are the ⌊M/m⌋ means of m members each that have none in common, and the names end in
            ``_of_m``.
    """
    check_flag("probabilities", probabilities)
    ending = "" if check_integer("average", average, least=1) == 1 else f"_of_{average}"
    names = [f"squared_{each}{ending}" for each in _PARTS]
    count = len(snapshot.members) // average
    if count < 2:
        few = "one member" if average == 1 else f"{len(snapshot.members)} members make no two means of {average}"
        return dict.fromkeys(names, undefined(few if snapshot.members else "the network has no members"))
    if probabilities:
        known = labelled_members(snapshot)
        if isinstance(known, str):
            return dict.fromkeys(names, undefined(known))
        found, targets = known[0].double().exp(), known[1]
    else:
        found, targets = _outputs(snapshot)
    if found.ndim != 3 or targets.ndim != 1 or targets.is_floating_point():
        return dict.fromkeys(names, undefined("targets are not one label an example"))
    found = found[: count * average].unflatten(0, (count, average)).mean(1)
    risk = (found - F.one_hot(targets, found.shape[2]).to(found)).square().sum(2).mean(0)
    variance = (found - found.mean(0)).square().sum(2).sum(0) / (count - 1)
    return {name: sample_mean(each) for name, each in zip(names, (risk, risk - variance, variance), strict=True)}


def _outputs(snapshot: Snapshot) -> tuple[Tensor, Tensor]:
    """The members' outputs [M, N, ...], float64, and the targets."""
    outputs, targets = [], torch.empty(0)
    for member in snapshot.members:
        with member.measuring():
            pairs = list(member.predictions)
        outputs.append(torch.cat([output for output, _ in pairs]).double())
        targets = torch.cat([target for _, target in pairs])
    return torch.stack(outputs), targets
