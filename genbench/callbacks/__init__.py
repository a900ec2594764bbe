"""When to measure; no mathematics. They serve any LightningModule: ``Trainer(callbacks=[Gap(), Measures()])``."""

from genbench.callbacks.base import Measuring
from genbench.callbacks.gap import Gap
from genbench.callbacks.measures import Measures
from genbench.callbacks.optimization import Optimization
from genbench.callbacks.stop import Stop

__all__ = ["Gap", "Measures", "Measuring", "Optimization", "Stop"]
