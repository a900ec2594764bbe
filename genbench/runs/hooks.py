"""Which hooks of Lightning a callback or a datamodule uses."""

from typing import Any

import pytorch_lightning as pl

from genbench.callbacks.base import Measuring
from genbench.callbacks.stop import Stop

OF_BATCHES = ("on_train_batch_start", "on_train_batch_end")
OF_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def overrides(callback: pl.Callback, hook: str) -> bool:
    """Whether a callback's class defines a hook of its own."""
    return getattr(type(callback), hook) is not getattr(pl.Callback, hook)


def acts(callback: pl.Callback, hook: str) -> bool:
    """Whether a callback does something in a hook; one that measures or looks after epochs alone does nothing in those
    of batches."""
    if not overrides(callback, hook):
        return False
    if hook in OF_BATCHES and isinstance(callback, Stop):
        return callback.tolerance is not None
    if hook in OF_BATCHES and isinstance(callback, Measuring) and callback.every_n_steps is None:
        return getattr(type(callback), hook) is not getattr(Measuring, hook)
    return True


def acts_on_batches(callback: pl.Callback) -> bool:
    """Whether a callback does something within an epoch, where it may end training."""
    return any(acts(callback, hook) for hook in OF_BATCHES)


def knows_epochs(callback: pl.Callback) -> bool:
    """Whether a callback knows that an item of the training loader may be an epoch, as genbench's do."""
    return type(callback).__module__.startswith("genbench.")


def hook_on_batches(data: Any) -> str | None:
    """The hook of its own by which a datamodule changes each batch, if it has one."""
    lightning = pl.LightningDataModule
    own = [hook for hook in OF_TRANSFER if getattr(type(data), hook, None) not in (None, getattr(lightning, hook))]
    return own[0] if own else None
