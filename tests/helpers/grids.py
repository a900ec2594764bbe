"""Random tables of runs: a row a run, hyperparameters, a gap and measures."""

import math
from itertools import product

import numpy as np
import pandas as pd

AXES = {"lr": [0.1, 0.01, 0.001], "depth": [2, 4], "data": ["mnist", "cifar"]}
MEASURES = ["norm", "flat", "constant"]


def table(seed, seeds=3, drop=0.1):
    """A random grid: some runs are missing, some values of a measure too, and others tie."""
    draw = np.random.default_rng(seed)
    rows = [dict(zip(AXES, values, strict=True)) for values in product(*AXES.values()) for _ in range(seeds)]
    frame = pd.DataFrame(rows)
    frame["gap"] = draw.uniform(-0.1, 0.9, len(frame)).round(2)
    frame["norm"] = draw.normal(size=len(frame)).round(1)
    frame["flat"] = frame["gap"] + draw.normal(0, 0.2, len(frame))
    frame["constant"] = 1.0
    frame.loc[draw.random(len(frame)) < drop, "flat"] = math.nan
    return frame[draw.random(len(frame)) > drop].sample(frac=1, random_state=seed)
