"""Margins and changes of the outputs under augmentations of the inputs.

The augmentations are those of ``regularization=augmentation`` at its settings times a strength: sequences [B, C, L] are
shifted and scaled, images [B, C, H, W] shifted and rotated, and both get noise. Other data have none.
"""

import math
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.inputs.augmentation import augmented
from genbench.measures.base import measure
from genbench.measures.corrupted import applicable
from genbench.measures.early_layer import check_layer, check_layer_of, early_layer
from genbench.measures.margins import signed
from genbench.measures.outputs import Reading, undefined, with_logits
from genbench.measures.performance import class_labels, labelled, mean_over_examples
from genbench.measures.sampling import few
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom, derive_seed

AUGMENTATION = {"shift": 0.2, "scale": 0.1, "rotation": 10.0, "noise": 0.4}  # of conf/regularization/augmentation.yaml
_BLOCK = 1024  # examples that are augmented together


@measure("margin", check=check_layer_of)
def augmented_margin(
    snapshot: Snapshot,
    *,
    layer: str | None = None,
    strength: float = 1.0,
    versions: int = 4,
    examples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The mean of five quantiles of the margins of augmented inputs in an early layer, mean over ``versions`` of each
    example with its standard error over them, the examples fixed ("augment margin": Natekar & Sharma 2020, arXiv
    2012.02775, who rank networks by it).

    The margin of an example is m / (‖∇ₕ m‖₂ s), with m the correct logit − the largest other one, h what the layer is
    given, and s² the mean over the D entries of h of their variance over the N examples of the version (divided by N),
    without the ⌊D/20⌋ lowest and as many highest: to first order, the distance of h from the decision boundary in units
    of its spread. A ReLU network whose layers are rescaled keeps it. The quantiles are the quartiles q₁, q₂, q₃,
    interpolated linearly, and the fences as in the authors' code (parthnatekar/pgdl): below, the largest margin under
    q₁ − 1.5 (q₃ − q₁), or the smallest of all if none is there; above, likewise.

    Their layer is the output of the first one; here it is what the second is given, after normalization, activation and
    pooling. They augment 500 images by flips, contrast and crops. Undefined for data without augmentations, and where
    an example has not one class.

    Args:
        snapshot: a classifier of sequences or images.
        layer: whose input h is; the second layer by default.
        strength: of the augmentations, 1 for those of training, at least 0.
        versions: random versions of each example, at least 2.
        examples: at most so many, evenly spaced over the data, at least 2.
        seed: of the augmentations, at least 0.
    """
    check_layer(layer)
    _check(strength, versions, seed)
    check_integer("examples", examples, least=2)
    reading, labels = with_logits(snapshot), class_labels(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    if labels is None or len(labels) != snapshot.examples:
        return undefined("the targets are not one class an example")
    if (reason := without_augmentations(snapshot)) is not None:
        return undefined(reason)
    part = few(snapshot, examples)
    name = early_layer(part, layer)
    if name is None:
        return undefined("the network has no hidden layer")
    values = []
    for version in range(versions):
        found = _distances(augmented_snapshot(part, version, strength=strength, seed=seed), reading, name)
        if isinstance(found, str):
            return undefined(found)
        values.append(fmean(_quantiles(found)))
    return Estimate(fmean(values), stderr=stdev(values) / math.sqrt(versions))


@measure("robustness", by_member=False, names=("augmentation_change", "augmentation_flips"))
def augmentation_change(
    snapshot: Snapshot, *, strength: float = 1.0, versions: int = 4, seed: int = 0
) -> dict[str, Estimate]:
    """How much augmenting an input changes the output (Aithal et al. 2021, arXiv 2101.06459), mean over ``versions`` of
    each example and over the examples, with the standard error over these:

    - ``augmentation_change``: |max p(x′) − max p(x)| where the answer stays the same, p the probabilities of x and its
      version x′, and 1 where it does not, in [0, 1];
    - ``augmentation_flips``: the share of versions whose answer is another.

    The labels do not matter. The authors' code (sumukhaithal6/pgdl) sums over seven augmentations of images and one
    composition, each with a penalty for another answer, of 1 to 12 and chosen by hand, in place of the 1. Undefined for
    data without augmentations.

    Args:
        snapshot: a classifier of sequences or images.
        strength: of the augmentations, 1 for those of training, at least 0.
        versions: random versions of each example, at least 2.
        seed: of the augmentations, at least 0.
    """
    _check(strength, versions, seed)
    names = ("augmentation_change", "augmentation_flips")
    known = labelled(snapshot)
    if isinstance(known, str):
        return dict.fromkeys(names, undefined(known))
    if (reason := without_augmentations(snapshot)) is not None:
        return dict.fromkeys(names, undefined(reason))
    before, answers = known[0].double().exp().max(1)
    change, flips = torch.zeros_like(before), torch.zeros_like(before)
    for version in range(versions):
        moved = labelled(augmented_snapshot(snapshot, version, strength=strength, seed=seed))
        assert not isinstance(moved, str)
        after, others = moved[0].double().exp().max(1)
        other = others != answers
        change += torch.where(other, 1.0, (after - before).abs()) / versions
        flips += other.double() / versions
    return {name: mean_over_examples(snapshot, each) for name, each in zip(names, (change, flips), strict=True)}


def without_augmentations(snapshot: Snapshot) -> str | None:
    """Why the data have no augmentations; None if they have."""
    if applicable(snapshot) is None:
        return "inputs are neither sequences [B, C, L] nor images [B, C, H, W]"
    try:
        for _ in snapshot.blocks(_BLOCK):  # batches of several shapes are seen at the second
            pass
    except ValueError as error:
        return str(error)
    return None


def augmented_snapshot(snapshot: Snapshot, version: int, *, strength: float, seed: int) -> Snapshot:
    """The network on a version of its data that is augmented; its random numbers do not depend on the batches."""
    return snapshot.with_batches(_Augmented(snapshot, strength, derive_seed(seed, "augmentation", version)))


class _Augmented:
    """Batches of augmented examples, the same at every pass."""

    def __init__(self, snapshot: Snapshot, strength: float, seed: int) -> None:
        self._snapshot, self._seed = snapshot, seed
        self._settings = {name: strength * value for name, value in AUGMENTATION.items()}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index, (x, y) in enumerate(self._snapshot.blocks(_BLOCK)):
            # on the CPU, so that all devices get the same numbers
            yield augmented(x.cpu(), StepRandom(self._seed, index), **self._settings).to(x.device), y


def _distances(snapshot: Snapshot, reading: Reading, name: str) -> Tensor | str:
    """m / (‖∇ₕ m‖ s) of each example [N], float64; or why there are none."""
    given: list[Any] = []
    margins, slopes = [], []
    n, first, second = 0, torch.zeros(()), torch.zeros(())
    with snapshot.measuring():
        handle = snapshot.layers[name].register_forward_pre_hook(lambda _module, args: given.append(args[0]))
        try:
            for _, output, target in snapshot.at_inputs():
                h = given[-1]
                given.clear()
                m = signed(reading, output, target)
                if m.ndim != 1 or not isinstance(h, Tensor) or len(h) != len(m):
                    return f"{name} is not given one row an example"
                slope = torch.autograd.grad(m.sum(), h, materialize_grads=True)[0]
                h = h.detach().double().flatten(1)
                n, first, second = n + len(h), first + h.sum(0), second + h.square().sum(0)
                margins.append(m.detach())
                slopes.append(slope.double().flatten(1).norm(dim=1))
        finally:
            handle.remove()
    spread = _spread((second / n - (first / n).square()).clamp_min(0))
    if not spread:
        return f"what {name} is given is the same for all examples"
    found = torch.cat(margins) / (torch.cat(slopes) * spread)
    if not torch.isfinite(found).all():
        return f"margins do not depend on what {name} is given, of {int((~found.isfinite()).sum())} of {n} examples"
    return found


def _spread(variances: Tensor) -> float:
    """The root of the mean of variances without their lowest and highest 5 %."""
    cut = int(0.05 * len(variances))  # as scipy.stats.trim_mean
    return math.sqrt(float(variances.sort().values[cut : len(variances) - cut].mean()))


def _quantiles(margins: Tensor) -> list[float]:
    """Lower fence, quartiles and upper fence."""
    d = margins.cpu().numpy()
    q1, q2, q3 = np.quantile(d, (0.25, 0.5, 0.75))
    low, high = d[d < q1 - 1.5 * (q3 - q1)], d[d > q3 + 1.5 * (q3 - q1)]
    return [float(low.max() if len(low) else d.min()), q1, q2, q3, float(high.min() if len(high) else d.max())]


def _check(strength: float, versions: int, seed: int) -> None:
    check_number("strength", strength, low=0)
    check_integer("versions", versions, least=2)
    check_integer("seed", seed, least=0)
