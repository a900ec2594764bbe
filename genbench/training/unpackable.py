"""What lanes cannot do as one, and how it is said."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Unpackable(ValueError):
    """Networks, methods or an optimizer cannot be vectorized; the message is one line."""


def out_of_memory(reason: BaseException) -> bool:
    """Whether an error is a lack of memory, on a GPU or not."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(reason, kinds) or (isinstance(reason, RuntimeError) and "can't allocate memory" in str(reason))


@contextmanager
def vectorizing() -> Iterator[None]:
    """Turn errors of the block, the first time that lanes compute as one, into :class:`Unpackable`: an operation has no
    batched form, or none that a trace holds. A lack of memory stays what it is."""
    try:
        yield
    except Unpackable:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Unpackable(f"the training step cannot be vectorized: {reason}") from error
