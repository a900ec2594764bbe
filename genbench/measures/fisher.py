"""The Fisher matrix: its trace, true and empirical, and the norm that it gives the weights."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.example_gradients import example_gradient_norms
from genbench.measures.optimization import gradients
from genbench.measures.outputs import undefined, with_logits
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed


@measure("flatness")
def fisher_trace(snapshot: Snapshot, *, passes: int = 10, seed: int = 0) -> Estimate:
    """tr F = 1/N Σᵢ E_{y ∼ p(·|xᵢ)} ‖∇ log p(y|xᵢ)‖₂², p the network's probabilities, whatever the snapshot's loss is.

    F is the Gauss–Newton matrix of the cross-entropy (Martens 2020, arXiv 1412.1193). With no more than ``passes``
    classes the expectation is their sum, exact; with more, or several labels an example, it is the mean over ``passes``
    draws of all labels, with its standard error. Of outputs [N, K, T], the mean over the T positions.

    Args:
        snapshot: network and data; outputs are logits or probabilities [N, K, ...]. Labels do not matter.
        passes: over the examples' gradients, at least 2.
        seed: of the labels drawn, from a generator of its own.
    """
    check_integer("passes", passes, least=2)
    check_integer("seed", seed, least=0)
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    p = [
        reading.logits(output).movedim(1, -1).double().softmax(-1) for output, _ in snapshot.predictions
    ]  # [n, ..., K]
    likelihood = snapshot.with_loss(lambda output, labels: F.cross_entropy(reading.logits(output), labels))
    if all(each.ndim == 2 and each.shape[1] <= passes for each in p):
        shares, total = torch.cat(p), 0.0
        for k in range(shares.shape[1]):
            labels = [torch.full((len(each),), k, device=each.device) for each in p]
            total += float(shares[:, k] @ _squares(likelihood.with_targets(labels)))
        return Estimate(total / len(shares), stderr=0.0)
    generator = torch.Generator().manual_seed(derive_seed(seed, "labels"))
    # the cross-entropy is the mean over an example's T labels, whose gradients are independent draws
    sizes = [each.shape[snapshot.target_axis if each.ndim > 2 else 0] for each in p]
    counts = [each[..., 0].numel() / n for each, n in zip(p, sizes, strict=True)]
    positions = torch.cat([torch.full((n,), c, dtype=torch.float64) for n, c in zip(sizes, counts, strict=True)])
    samples = []
    for _ in range(passes):
        labels = [_draw(each, generator) for each in p]
        samples.append(_squares(likelihood.with_targets(labels)).cpu() * positions)
    drawn = torch.stack(samples)  # [passes, N]
    n = drawn.shape[1]
    return Estimate(float(drawn.mean()), stderr=math.sqrt(float(drawn.var(0).sum()) / passes) / n)


@measure("flatness")
def empirical_fisher_trace(snapshot: Snapshot) -> Estimate:
    """1/N Σᵢ ‖∇ℓᵢ(w)‖₂²: the trace of the Fisher matrix with the labels of the data instead of labels drawn by the
    network (Kunstner et al. 2019, arXiv 1905.12558, on how far apart the two may lie).

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    found = gradients(snapshot)
    return Estimate(float(found.mean.square().sum() + found.spread.sum() / found.examples))


@measure("norm")
def fisher_rao_norm(snapshot: Snapshot) -> Estimate:
    """‖w‖_fr = √⟨w, F w⟩, F = 1/N Σᵢ ∇ℓᵢ ∇ℓᵢᵀ with the labels of the data (Liang et al. 2019, arXiv 1711.01530,
    Definition 2), so ‖w‖²_fr = 1/N Σᵢ ⟨w, ∇ℓᵢ⟩².

    Unchanged when the layers of a ReLU network are rescaled without changing its function; without biases and with d
    weight matrices it is d √(1/N Σᵢ ⟨∂ℓᵢ/∂fᵢ, fᵢ⟩²) (Theorem 3.1). Jiang et al. 2020 (arXiv 1912.02178) use the square.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    found = gradients(snapshot)
    return Estimate(math.sqrt(found.along_weights / found.examples))


def _squares(snapshot: Snapshot) -> Tensor:
    """‖∇ℓᵢ‖₂² of each example [N], float64."""
    return example_gradient_norms(snapshot, torch.ones_like(snapshot.vector), p=2).square()


def _draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """A label from each distribution [..., K]."""
    labels = torch.multinomial(p.reshape(-1, p.shape[-1]).cpu(), 1, generator=generator)
    return labels.reshape(p.shape[:-1]).to(p.device)
