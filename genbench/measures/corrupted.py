"""Performance on common corruptions of the data."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from genbench.checks import check_integer, nearest
from genbench.inputs.common_corruptions import CORRUPTIONS, SEVERITIES, common_corruptions_of, corrupt
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.performance import brier, labelled, mean_over_examples
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom

_BLOCK = 256  # examples that are corrupted together
_BINS = 15  # of the calibration error


@measure(
    "robustness",
    by_member=False,
    names=(
        "corrupted_accuracy",
        "corrupted_accuracy_*",
        "corrupted_cross_entropy",
        "corrupted_cross_entropy_*",
        "corrupted_brier_score",
        "corrupted_brier_score_*",
        "corrupted_calibration_error",
        "corrupted_calibration_error_*",
    ),
)
def corrupted_performance(
    snapshot: Snapshot,
    *,
    corruptions: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Performance on the data after common corruptions at severities 1 to 5 (Hendrycks & Dietterich 2019,
    arXiv 1903.12261), images as in CIFAR-10-C, sequences likewise: see :mod:`genbench.inputs.common_corruptions`.

    ``corrupted_{accuracy, cross_entropy, brier_score, calibration_error}`` are means over corruptions and severities,
    with ``_1`` to ``_5`` means over the corruptions at a severity; ``corrupted_accuracy_<corruption>`` is the mean over
    severities, which :func:`mean_corruption_error` uses. Standard errors are over the examples, each with the
    mean of its values; calibration errors (of 15 bins) are those of each corruption and severity, averaged.

    Args:
        snapshot: a classifier of sequences [B, C, L], in any unit, or images [B, C, H, W] with their ``scaling``.
        corruptions: their names; ``None``: all.
        seed: of the corruptions, at least 0.

    Raises:
        ValueError: an unknown corruption, or images outside [0, 1].
    """
    check_integer("seed", seed, least=0)
    if corruptions is not None:
        if isinstance(corruptions, str) or not isinstance(corruptions, Sequence):
            raise ValueError(f"corruptions is {corruptions!r}; accepted: a list of names, or null")
        for name in corruptions:
            if name not in CORRUPTIONS:
                raise ValueError(f"corruptions has {name!r}; {nearest(str(name), CORRUPTIONS)}")
    if isinstance(reason := labelled(snapshot), str):
        return {"corrupted_accuracy": undefined(reason)}
    if (accepted := applicable(snapshot)) is None:
        return {"corrupted_accuracy": INAPPLICABLE}
    chosen = list(accepted if corruptions is None else corruptions)
    for name in chosen:
        if name not in accepted:
            raise ValueError(f"corruptions has {name!r}; {nearest(name, accepted)}")
    found: dict[str, tuple[Tensor, int]] = {}  # of each entry, the sum of its values by example, and of how many
    errors: dict[str, list[float]] = {}  # the same of calibration errors
    for severity in range(1, SEVERITIES + 1):
        for name in chosen:
            known = labelled(under_corruption(snapshot, name, severity, seed=seed))
            assert not isinstance(known, str)
            log_p, labels = known
            values = {
                "accuracy": (log_p.argmax(1) == labels).double(),
                "cross_entropy": -log_p.gather(1, labels[:, None])[:, 0].double(),
                "brier_score": brier(log_p, labels),
            }
            for kind, each in values.items():
                keys = [f"corrupted_{kind}", f"corrupted_{kind}_{severity}"]
                for key in [*keys, f"corrupted_accuracy_{name}"] if kind == "accuracy" else keys:
                    total, n = found.get(key, (torch.zeros(()), 0))
                    found[key] = total + each, n + 1
            error = multiclass_calibration_error(log_p.exp(), labels, log_p.shape[1], n_bins=_BINS, validate_args=False)
            for key in ("corrupted_calibration_error", f"corrupted_calibration_error_{severity}"):
                errors.setdefault(key, []).append(float(error))
    estimates = {key: mean_over_examples(snapshot, total / n) for key, (total, n) in found.items()}
    return estimates | {key: Estimate(sum(values) / len(values)) for key, values in errors.items()}


def mean_corruption_error(
    metrics: Mapping[str, float | None], baseline: Mapping[str, float | None], *, split: str = "test"
) -> float:
    """The mean over corruptions of a network's error relative to a baseline's, Σ_s E_{s,c} / Σ_s E⁰_{s,c} (Hendrycks &
    Dietterich 2019, Sect. 4.2), as a share: 1 for the baseline itself.

    Args:
        metrics: the network's, as in its record, with those of :func:`corrupted_performance`.
        baseline: the baseline's metrics.
        split: the measured split.

    Raises:
        ValueError: they share no corruption, one lacks a corruption of the other, or the baseline makes no error under
            one.
    """
    prefix = f"{split}/robustness/corrupted_accuracy_"
    names = {key.removeprefix(prefix) for key in (*metrics, *baseline) if key.startswith(prefix)}
    names = {name for name in names if not name.isdigit()}
    if not names:
        raise ValueError(f"metrics have no {prefix}*; accepted: those of a run with corrupted_performance")
    ratios = []
    for name in sorted(names):
        ours, theirs = metrics.get(prefix + name), baseline.get(prefix + name)
        if ours is None or theirs is None:
            raise ValueError(f"{prefix}{name} was measured of one network only; accepted: the same corruptions of both")
        if theirs >= 1:
            raise ValueError(f"{prefix}{name} of the baseline is {theirs}; accepted: less than 1")
        ratios.append((1 - ours) / (1 - theirs))
    return sum(ratios) / len(ratios)


INAPPLICABLE = Estimate(None, note="undefined: inputs are neither sequences [B, C, L] nor images [B, C, H, W]")


def applicable(snapshot: Snapshot) -> tuple[str, ...] | None:
    """The corruptions that apply to the snapshot's inputs; None if there are none."""
    args, _ = snapshot.first_input
    if not args or not isinstance(args[0], Tensor):
        return None
    try:
        return common_corruptions_of(args[0])
    except ValueError:
        return None


def under_corruption(snapshot: Snapshot, corruption: str, severity: int, *, seed: int) -> Snapshot:
    """The network on its data after a corruption; its random numbers do not depend on the batches."""
    return snapshot.with_batches(_Corrupted(snapshot, corruption, severity, seed))


class _Corrupted:
    """Batches of corrupted examples, the same at every pass."""

    def __init__(self, snapshot: Snapshot, corruption: str, severity: int, seed: int) -> None:
        self._snapshot, self._corruption, self._severity, self._seed = snapshot, corruption, severity, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index, (x, y) in enumerate(self._snapshot.blocks(_BLOCK)):
            draw = StepRandom(self._seed, index)
            if x.ndim != 4:
                yield corrupt(x, self._corruption, self._severity, draw), y
                continue
            mean, std = (
                _channels(name, value, x) for name, value in zip(("mean", "std"), self._snapshot.scaling, strict=True)
            )
            yield (corrupt(x * std + mean, self._corruption, self._severity, draw) - mean) / std, y


def _channels(name: str, value: float | Sequence[float], x: Tensor) -> Tensor:
    found = torch.as_tensor(value, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
    if len(found) not in (1, x.shape[1]):
        raise ValueError(
            f"scaling: {name} has {len(found)} numbers; accepted: one, or one for each of {x.shape[1]} channels"
        )
    if name == "std" and not (found > 0).all():
        raise ValueError(f"scaling: std is {value!r}; accepted: more than 0")
    return found
