"""How far networks are apart."""

import torch
from torch import nn


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules have the same tensors, bit for bit."""
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def apart(ours: nn.Module, theirs: nn.Module) -> float:
    """The distance between the finite tensors of two modules, relative in norm."""
    pairs = list(zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True))
    assert all(name == other for (name, _), (other, _) in pairs)
    kept = [(a.double().flatten(), b.double().flatten()) for (_, a), (_, b) in pairs if torch.isfinite(b).all()]
    a, b = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return float((a - b).norm() / b.norm())


def assert_close(ours: nn.Module, theirs: nn.Module, *, rtol: float, atol: float = 0) -> None:
    """Assert that the parameters of two networks agree."""
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol)
