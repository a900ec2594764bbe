"""Where the CPU may wait for a GPU, and why.

- Within a training step: nowhere.
- Between steps: at the places below, each with a case of :mod:`tests.device.cases` that waits there. A place at which
  that case no longer waits is wrong here, too.
- In measures: anywhere, as a measure is a Python number in the end, many choose their next pass by a value of the last
  (Lanczos, line searches, root finding), and none runs within a step.
"""

# file and function -> (the case, the reason)
BETWEEN = {
    "genbench/training/module.py: evaluate": (
        "mlp-none-adam-cosine",
        "two numbers of a split, once for all its batches",
    ),
    "genbench/training/lane.py: Lane.after_epoch": (
        "mlp-early_stopping-adam-cosine",
        "once an epoch, of a method that watches the validation split",
    ),
    "genbench/regularization/early_stopping.py: EarlyStopping._good": (
        "mlp-early_stopping-adam-cosine",
        "the best loss so far, once an epoch",
    ),
    "genbench/regularization/early_stopping.py: EarlyStopping.after_epoch": (
        "mlp-early_stopping-adam-cosine",
        "whether to stop, once an epoch",
    ),
    "genbench/regularization/early_stopping.py: EarlyStopping.finish": (
        "mlp-early_stopping-adam-cosine",
        "whether there was a good epoch, at the end",
    ),
    "genbench/regularization/swa.py: WeightAverage.finish": (
        "mlp-swa-adam-cosine",
        "whether any weights were averaged, at the end",
    ),
}
