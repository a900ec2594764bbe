"""The network of a LightningModule that is measured, and whether it can be."""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.checks import check_function
from genbench.measures import Snapshot
from genbench.measures.base import reason
from genbench.module_state import unwrapped

FORWARD = "forward=(model, batch) -> (output, target)"


def check_subject(owner: str, *, loss: object, forward: object, count: object, network: object) -> None:
    """Refuse arguments of the callback ``owner`` that do not say what it measures."""
    check_function(f"{owner} loss", loss, of="output and target")
    check_function(f"{owner} forward", forward, of="model and batch", optional=True)
    check_function(f"{owner} count", count, of="output and target", optional=True)
    if network is not None and not isinstance(network, str):
        raise ValueError(f"{owner} network is {network!r}; accepted: the dotted name of a part of the module, or null")


def is_own(pl_module: Any) -> bool:
    """Whether this is genbench's own module."""
    from genbench.training.module import Training  # other projects need not import it

    return isinstance(pl_module, Training)


def network(pl_module: Any, name: str | None = None) -> nn.Module:
    """Return the part of a module with this dotted name, without torch.compile and data-parallel wrappers.

    Without a name, return the module itself; or its ``network`` if the module is genbench's own, or has no ``forward``
    and all of its weights in ``network``.

    Raises:
        ValueError: there is no such part, or it is not a network.
    """
    if name is None:
        inner = getattr(pl_module, "network", None)
        if is_own(pl_module):
            return pl_module.network
        if isinstance(inner, nn.Module) and not _has_forward(pl_module):
            own = {id(p) for p in inner.parameters()}
            return inner if all(id(p) in own for p in pl_module.parameters()) else pl_module
        return pl_module
    part = reduce(lambda owner, word: getattr(owner, word, None), name.split("."), pl_module)
    if not isinstance(part, nn.Module):
        parts = ", ".join(key for key, _ in pl_module.named_children())
        raise ValueError(f"network={name!r} is not a part of {type(pl_module).__name__}; accepted: {parts or 'none'}")
    return unwrapped(part)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copy a network's parameters and buffers."""
    return {name: t.detach().clone() for name, t in module.state_dict().items() if isinstance(t, Tensor)}


def probe(snapshot: Snapshot) -> None:
    """Check on the first batch that a network can be measured.

    Raises:
        ValueError: it cannot; names the argument to pass to the callback.
    """
    model = snapshot.model
    if snapshot.forward is None and not _has_forward(model):
        raise ValueError(f"{type(model).__name__} has no forward: pass {FORWARD}, or network= with the part that has")
    try:
        output, target, *_ = next(snapshot.predictions_at(snapshot.vector))
    except Exception as error:
        text = reason(error)
        mend = "" if "forward=" in text or "accepted:" in text else f"; pass {FORWARD}"
        if text.startswith("loss failed"):
            mend = f"; pass loss=(output, target) -> mean over the batch, or {FORWARD}"
        raise ValueError(text + mend) from error
    if snapshot.loss is F.cross_entropy and not _are_classes(output, target):
        raise ValueError(
            "the loss is cross-entropy, but these are not logits with labels or probabilities: pass loss=(output, "
            "target) -> mean over the batch"
        )


def _has_forward(model: nn.Module) -> bool:
    forward: Any = model.forward
    name = getattr(getattr(forward, "__func__", forward), "__qualname__", "")
    return name not in ("_forward_unimplemented", "LightningModule.forward")


def _are_classes(output: Any, target: Any) -> bool:
    """Whether ``output`` is [N, K, ...], K ≥ 2, and ``target`` labels [N, ...] or probabilities [N, K, ...]."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor) or output.ndim < 2 or output.shape[1] < 2:
        return False
    if not target.is_floating_point():
        return True
    total = target.sum(1)
    return bool((target >= 0).all()) and torch.allclose(total, torch.ones_like(total), atol=1e-3)
