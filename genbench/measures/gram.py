"""Inner products of rows as long as the weights, which need not all fit into memory."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from genbench.process.memory import room

Rows = Callable[[], Iterable[Tensor]]  # gives the same rows [b, size], some at a time, whenever it is called

NOT_FINITE = "the gradient of an example is not finite"
_SHARE = 0.25  # of the free memory, for rows that are kept
_ENTRIES = 2**22  # numbers of the other rows that are held in float64 at a time


def gram(sources: Sequence[tuple[int, Rows]], *, size: int, device: torch.device) -> Tensor:
    """⟨rowᵢ, rowⱼ⟩ [N, N], float64, of the rows of several sources, one after the other; each is given with its number
    of rows.

    As many rows as fit into a quarter of the free memory are kept, and multiplied with those that follow; where not all
    fit, later sources are asked again.

    Raises:
        ValueError: a row is not finite.
    """
    total = sum(n for n, _ in sources)
    found = torch.zeros(total, total, dtype=torch.float64, device=device)
    fit = max(1, int(_SHARE * room(device)) // (8 * size))
    for start in range(0, total, fit):
        stop = min(start + fit, total)
        kept = torch.empty(stop - start, size, dtype=torch.float64, device=device)
        position = 0
        for n, rows in sources:
            if position + n <= start:  # all their products are known
                position += n
                continue
            for some in rows():
                for part in some.split(max(1, _ENTRIES // size)):
                    first, position = position, position + len(part)
                    new = part[max(start - first, 0) :].double()
                    first = max(first, start)
                    if not len(new):
                        continue
                    mine = new[: max(stop - first, 0)]
                    kept[first - start : first - start + len(mine)] = mine
                    known = min(position, stop) - start
                    found[start : start + known, first:position] = kept[:known] @ new.T
        del kept
    if not torch.isfinite(found).all():
        raise ValueError(NOT_FINITE)
    return found.triu() + found.triu(1).T
