"""Where the CPU may wait for a GPU, and why.

- Within a training step: nowhere.
- Between steps: at the places below, each with a case of :mod:`tests.device.cases`, a run or a pack that waits there. A
  place at which it no longer waits is wrong here, too.
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
    "genbench/regularization/least_squares.py: LeastSquares.finish": (
        "mlp-least_squares-adam-cosine",
        "the ridge, at the end",
    ),
    "genbench/regularization/least_squares.py: least_squares": (
        "mlp-least_squares-adam-cosine",
        "the rank of the features, at the end",
    ),
    "genbench/data/base.py: TensorData.to.<locals>.<dictcomp>": ("a run", "the data move, once"),
    "genbench/data/batches.py: Batches.__iter__": ("a run", "the order of an epoch moves, once for all its steps"),
    "genbench/training/lane.py: SeparateLanes.begin_epoch.<locals>.<listcomp>": (
        "a run",
        "which lanes train, once an epoch",
    ),
    "genbench/training/module.py: Training.on_train_epoch_end": (
        "a run",
        "the objectives of an epoch's steps, at once",
    ),
    "genbench/training/module.py: Training.end_epoch": ("a run", "whether all lanes have stopped, once an epoch"),
    "genbench/training/module.py: Finish.on_train_end": ("a run", "whether the weights are finite, at the end"),
    "genbench/runs/run.py: _save.<locals>.<dictcomp>": ("a pack", "the weights that a run keeps"),
    "genbench/runs/single.py: train": ("a run", "Lightning moves the network"),
    "genbench/runs/packed.py: _train": ("a pack", "Lightning moves the networks"),
    "genbench/training/pack.py: Pack._separate_steps": (
        "a pack",
        "the first step, which is taken lane by lane to compare",
    ),
    "genbench/runs/run_pack.py: RunPack.configure_optimizers": (
        "a pack",
        "which lanes have stopped in a checkpoint, once",
    ),
    "genbench/runs/run_pack.py: RunPack.on_train_epoch_end": ("a pack", "the objectives of an epoch's steps, at once"),
    "genbench/runs/run_pack.py: RunPack._end_epoch": ("a pack", "which lanes have stopped, once an epoch"),
    "genbench/runs/run_pack.py: RunPack._end_epoch.<locals>.<listcomp>": ("a pack", "which lanes train, once an epoch"),
    "genbench/runs/run_pack.py: RunPack.training_step.<locals>.<lambda>": (
        "a pack",
        "the objective that progress shows, every few seconds",
    ),
    "genbench/training/module.py: Training.total_steps": ("a run", "Lightning sets up its loaders, once"),
    "genbench/training/module.py: Training._step.<locals>.<lambda>": (
        "a run",
        "the objective that progress shows, every few seconds",
    ),
}
