"""When to measure; no mathematics. They serve any LightningModule: ``Trainer(callbacks=[Gap(), Flatness()])``."""

from genbench.callbacks.base import Measuring
from genbench.callbacks.flatness import Flatness
from genbench.callbacks.gap import Gap
from genbench.callbacks.stop import Stop
from genbench.callbacks.weight_norms import WeightNorms

__all__ = ["Flatness", "Gap", "Measuring", "Stop", "WeightNorms"]
