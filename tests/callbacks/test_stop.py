from genbench.callbacks import Gap, Stop
from tests.helpers.lightning_projects import (
    fit,
)


def test_stop():
    easy = fit(callbacks=[Stop(train_accuracy=0.01)])
    assert easy.current_epoch == 1
    hard = fit(callbacks=[Stop(train_loss=1e-9, train_accuracy=1.0)], max_epochs=2)
    assert hard.current_epoch == 2
    gap = Gap(every_n_epochs=1)
    fit(callbacks=[gap], max_epochs=6)
    losses = [entry["train/performance/cross_entropy"] for entry in gap.history]
    threshold = (losses[2] + min(losses[:2])) / 2
    assert losses[2] < min(losses[:2])
    assert fit(callbacks=[Stop(train_loss=threshold)], max_epochs=6).current_epoch == 3
    assert fit(callbacks=[Stop(train_loss=threshold, every_n_epochs=2)], max_epochs=6).current_epoch == 4
