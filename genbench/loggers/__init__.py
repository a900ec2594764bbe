"""Loggers that mirror the record during training: a CSV file, TensorBoard, Weights & Biases.

Each file of the group ``logger`` configures a Lightning logger, or a partial that takes ``run`` and returns one.
"""

from genbench.loggers.base import RunInfo, build, check, finish
from genbench.loggers.csv import CSVLogger
from genbench.loggers.tensorboard import TensorBoardLogger
from genbench.loggers.wandb import WandbLogger, add, check_adds, log_report

__all__ = [
    "CSVLogger",
    "RunInfo",
    "TensorBoardLogger",
    "WandbLogger",
    "add",
    "build",
    "check",
    "check_adds",
    "finish",
    "log_report",
]
