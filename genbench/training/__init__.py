"""The training of networks: lanes, the step, packs, checkpoints."""

from genbench.training.checkpoint import AtomicCheckpointIO, Checkpoint
from genbench.training.lane import Lane
from genbench.training.module import Diverged, Finish, Training
from genbench.training.pack import Pack
from genbench.training.shard import ProcessLost, Shard, StopTogether
from genbench.training.unpackable import Unpackable

__all__ = [
    "AtomicCheckpointIO",
    "Checkpoint",
    "Diverged",
    "Finish",
    "Lane",
    "Pack",
    "ProcessLost",
    "Shard",
    "StopTogether",
    "Training",
    "Unpackable",
]
