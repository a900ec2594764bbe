"""How networks train."""

from genbench.training.checkpoint import AtomicCheckpointIO, Checkpoint
from genbench.training.lane import Lane
from genbench.training.module import Diverged, Finish, Training
from genbench.training.pack import Pack, Unpackable
from genbench.training.share import Agree, Lost, Share

__all__ = [
    "Agree",
    "AtomicCheckpointIO",
    "Checkpoint",
    "Diverged",
    "Finish",
    "Lane",
    "Lost",
    "Pack",
    "Share",
    "Training",
    "Unpackable",
]
