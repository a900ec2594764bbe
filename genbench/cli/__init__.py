"""The commands. Heavy imports happen where they are used, so that ``--help`` answers at once."""

from genbench.cli.commands import measure, train
from genbench.cli.tables import table

__all__ = ["measure", "table", "train"]
