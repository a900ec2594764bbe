"""Callbacks that decide when to measure. They work with any LightningModule: ``Trainer(callbacks=[Gap()])``."""

from genbench.callbacks.base import Measuring
from genbench.callbacks.gap import Gap
from genbench.callbacks.measures import Measures
from genbench.callbacks.optimization import Optimization
from genbench.callbacks.stop import Stop
from genbench.callbacks.trajectory import Trajectory
from genbench.callbacks.trajectory_shape import TrajectoryShape

__all__ = ["Gap", "Measures", "Measuring", "Optimization", "Stop", "Trajectory", "TrajectoryShape"]
