"""Curvature of the loss around single examples, by the input."""

from collections.abc import Callable

import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.model_inputs import why_no_inputs
from genbench.measures.ood import auroc
from genbench.measures.outputs import undefined
from genbench.measures.perturbations import generator_of
from genbench.measures.precision import in_double
from genbench.measures.sampling import few, sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_NAMES = ("input_curvature", "input_curvature_auroc")


@measure("sensitivity", by_member=False, names=_NAMES, passes=lambda given: given["directions"] + 1)
def input_curvature(
    snapshot: Snapshot, *, step: float = 1e-3, directions: int = 10, examples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """The curvature of the loss ℓ around single examples, high around memorized ones, mislabelled ones first (Garg et
    al. 2024, arXiv 2307.05831).

    The score of an example x is ‖∇ℓ(x + hv) − ∇ℓ(x)‖₂ / h, ∇ by the input, mean over random v of signs ±1. For small h
    it is that of ‖Hv‖₂, H the Hessian, in the mean at most ‖H‖_F = √tr H²; a ReLU network has kinks between x and
    x + hv too, which weigh more than its Hessian: compare at equal h. The authors' code has h = 10⁻³ and neither
    divides by h nor multiplies by the batch size of its mean loss.

    - ``input_curvature``: the mean score, with its standard error over the examples.
    - ``input_curvature_auroc``: the probability that a mislabelled example has a higher score than another, ties
      counted half, with its standard error (DeLong et al. 1988); 0.5 is chance. Undefined unless the data say which
      labels are wrong, as genbench's do after label noise, and some are.

    They are those of these weights. The authors average each example's score over the epochs of training, as it falls
    to nothing where the loss does; that takes the scores, of which callbacks keep these two numbers an epoch.
    Gradients are computed in float64 where the network allows. Undefined where the input has no real numbers, as of
    tokens.

    Args:
        snapshot: network, loss and data; examples are taken to be independent of each other, as in evaluation mode.
        step: h > 0, in units of the input.
        directions: v of each example, at least 1.
        examples: at most so many, evenly spaced over the data, at least 1.
        seed: of the directions.
    """
    check_number("step", step, low=0, open_low=True)
    check_integer("directions", directions, least=1)
    check_integer("examples", examples, least=1)
    check_integer("seed", seed, least=0)
    part = in_double(few(snapshot, examples))
    _ = part.losses
    if not part.divisible:
        return dict.fromkeys(_NAMES, undefined("the loss of a batch is not the mean of its examples' losses"))
    centre = _slopes(part)
    if centre is None:
        return dict.fromkeys(_NAMES, undefined(why_no_inputs(part)))
    scores = torch.zeros(part.examples, dtype=torch.float64, device=part.device)
    for index in range(directions):
        moved = _slopes(part, _moved(step, seed, index))
        assert moved is not None
        changes = [(after - before).norm(dim=1) for after, before in zip(moved, centre, strict=True)]
        scores += torch.cat(changes) / (step * directions)
    return dict(zip(_NAMES, (sample_mean(scores), _found(scores, part.mislabelled)), strict=True))


def _slopes(
    part: Snapshot, shift: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None
) -> list[Tensor] | None:
    """∂ℓᵢ/∂xᵢ of each example, float64 [n, D] of each few, as D may not be that of others; None without real
    inputs."""
    found = []
    with part.measuring():
        for inputs, output, target in part.at_inputs(shift):
            if not inputs:
                return None
            loss = part.loss(output, target) * len(inputs[0])  # the sum of the examples' losses
            if loss.requires_grad:
                slopes = torch.autograd.grad(loss, inputs, materialize_grads=True)
            else:
                slopes = tuple(map(torch.zeros_like, inputs))
            found.append(torch.cat([g.double().reshape(len(g), -1) for g in slopes], 1))
        part.count_pass()
    return found


def _moved(step: float, seed: int, index: int) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Moves inputs by ``step`` along random signs, which do not depend on how the examples are split."""
    generators: list[torch.Generator] = []

    def shift(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for i in range(len(generators), len(inputs)):
            generators.append(generator_of(seed, f"input_curvature.{index}.{i}"))
        signs = [torch.randint(2, x.shape, generator=g) * 2 - 1 for x, g in zip(inputs, generators, strict=True)]
        return tuple(x + step * s.to(x) for x, s in zip(inputs, signs, strict=True))

    return shift


def _found(scores: Tensor, wrong: Tensor | None) -> Estimate:
    """The area under the ROC curve of telling mislabelled examples by their scores."""
    if wrong is None:
        return undefined("the data do not say which labels are wrong")
    wrong = wrong.to(scores.device)
    if not wrong.any() or wrong.all():
        return undefined("all labels are wrong" if wrong.any() else "no label is wrong")
    value, stderr = auroc(scores[wrong].cpu().numpy(), scores[~wrong].cpu().numpy())
    return Estimate(value, stderr=stderr, note=f"{int(wrong.sum())} of {len(wrong)} labels are wrong")
