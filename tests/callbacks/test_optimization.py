"""Steps to a loss, gradient noise and path length, compared with a recording of every step."""

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from genbench.callbacks import Measures, Optimization
from genbench.measures import Snapshot, gradient_variance
from genbench.models import Ensemble
from tests.helpers.lightning_projects import Multitask, Plain, data, fit, multitask, multitask_loss, trainer

STEPS, BETWEEN = "train/optimization/steps_to_1e-1", "train/optimization/steps_from_1e-1_to_1e-2"
FIRST, LAST = "train/optimization/gradient_variance_epoch_1", "train/optimization/gradient_variance"
PATH = "weights/optimization/path_length"


class Easy(Plain):
    """Learns quickly, in three steps per epoch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.03)

    def train_dataloader(self) -> DataLoader:
        x, y = data(48, 0).tensors
        return DataLoader(torch.utils.data.TensorDataset(2 * x, y), batch_size=16, shuffle=True)


class Watch(pl.Callback):
    """Records the train loss and the weights after every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: list[torch.Tensor] = []
        self.epochs: list[torch.Tensor] = []

    def now(self, module: pl.LightningModule) -> torch.Tensor:
        return torch.cat([p.detach().reshape(-1) for p in module.parameters() if p.requires_grad]).double()

    def on_train_start(self, trainer, pl_module):
        self.weights.append(self.now(pl_module))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(self.now(pl_module))
        x, y = data(48, 0).tensors
        with torch.no_grad():
            self.losses.append(float(F.cross_entropy(pl_module(2 * x), y)))

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append(self.now(pl_module))


def reached(losses: list[float], threshold: float) -> int:
    """Return the first step, counted from 1, after which the loss is at most the threshold."""
    return next(i for i, loss in enumerate(losses, 1) if loss <= threshold)


def test_steps_to_a_loss_and_the_looks_between_which_it_was_reached():
    watch, each, third, sparse = Watch(), Optimization(every_n_steps=1), Optimization(), Optimization(every_n_epochs=7)
    fit(Easy(), [watch, each, third, sparse], max_epochs=60)
    first, second = reached(watch.losses, 0.1), reached(watch.losses, 0.01)
    assert each.results[STEPS].value == first
    assert each.results[STEPS].interval == (first - 1, first)
    assert each.results[BETWEEN].value == second - first
    assert each.results[BETWEEN].interval == (second - first - 1, second - first + 1)
    for callback, resolution in ((third, 3), (sparse, 21)):
        looks = watch.losses[resolution - 1 :: resolution]
        a, b = (resolution * reached(looks, threshold) for threshold in (0.1, 0.01))
        assert callback.results[STEPS].value == a
        assert callback.results[STEPS].interval == (a - resolution, a)
        assert callback.results[BETWEEN].value == b - a
        low, high = callback.results[BETWEEN].interval
        assert low <= second - first <= high


def test_a_loss_that_is_not_reached_is_null_with_the_reason():
    callback = Optimization()
    fit(Plain(), [callback], max_epochs=2)
    assert callback.results[STEPS].value is None
    assert callback.results[STEPS].note == "not reached: cross-entropy 0.1 in 14 steps"
    assert callback.results[BETWEEN].note == "not reached: cross-entropy 0.01 in 14 steps"


def test_variance_after_the_first_epoch_and_at_the_end():
    watch, callback, module = Watch(), Optimization(every_n_epochs=2), Easy()
    fit(module, [watch, callback], max_epochs=3)
    batches = [(2 * data(48, 0).tensors[0], data(48, 0).tensors[1])]
    assert callback.results[LAST].value == pytest.approx(
        gradient_variance(Snapshot(module, F.cross_entropy, batches)).value, rel=1e-5
    )
    torch.nn.utils.vector_to_parameters(watch.epochs[0].float(), module.parameters())
    assert callback.results[FIRST].value == pytest.approx(
        gradient_variance(Snapshot(module, F.cross_entropy, batches)).value, rel=1e-5
    )
    assert FIRST in callback.history[0]
    assert LAST not in callback.history[0]


def test_the_variance_at_the_end_is_that_of_the_measure():
    callback, measures = Optimization(), Measures(measures={"gradient_variance": gradient_variance})
    fit(Easy(), [callback, measures], max_epochs=2)
    assert callback.results[LAST].value == measures.results[LAST].value


def test_path_length():
    watch, callback = Watch(), Optimization(every_n_epochs=None)
    fit(Easy(), [watch, callback], max_epochs=3)
    steps = [float((b - a).norm()) for a, b in zip(watch.weights, watch.weights[1:], strict=False)]
    assert len(steps) == 9
    assert callback.results[PATH].value == pytest.approx(sum(steps), rel=1e-6)
    assert callback.results[PATH].value > float((watch.weights[-1] - watch.weights[0]).norm())
    assert callback.results[PATH].seconds > 0
    without = Optimization(path_length=False)
    fit(Easy(), [without], max_epochs=1)
    assert PATH not in without.results


def test_the_path_of_an_ensemble_is_its_members_mean():
    class Pair(Easy):
        def __init__(self):
            super().__init__()
            self.network = Ensemble([self.layers, nn.Sequential(nn.Linear(4, 3))])

        def training_step(self, batch):
            return sum(F.cross_entropy(member(batch[0]), batch[1]) for member in self.network.members)

        def configure_optimizers(self):
            return torch.optim.SGD(self.network.parameters(), 0.1)

    class Each(pl.Callback):
        paths = 0.0

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before = [nn.utils.parameters_to_vector(m.parameters()).clone() for m in pl_module.network.members]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            now = [nn.utils.parameters_to_vector(m.parameters()) for m in pl_module.network.members]
            self.paths += sum(float((b - a).detach().norm()) for a, b in zip(self.before, now, strict=True)) / 2

    each, callback = Each(), Optimization(network="network")
    fit(Pair(), [each, callback], max_epochs=2)
    assert callback.results[PATH].value == pytest.approx(each.paths, rel=1e-5)
    assert callback.results[PATH].note == "mean of 2 members"


class Halve(pl.Callback):
    """Changes of the weights between epochs and at the end are not part of the path."""

    def on_train_epoch_end(self, trainer, pl_module):
        with torch.no_grad():
            for p in pl_module.parameters():
                p.mul_(0.5)


def test_weights_chosen_between_epochs_are_no_step():
    class Lengths(Watch):
        length = 0.0

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before = self.now(pl_module)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.length += float((self.now(pl_module) - self.before).norm())

    lengths, callback = Lengths(), Optimization()
    fit(Easy(), [lengths, callback, Halve()], max_epochs=3)
    assert callback.results[PATH].value == pytest.approx(lengths.length, rel=1e-6)


@pytest.mark.parametrize("schedule", [{}, {"every_n_steps": 2}], ids=["epochs", "steps"])
def test_resumed_as_if_never_interrupted(tmp_path, schedule):
    def saving():
        return ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)

    class Ordered(Easy):
        def train_dataloader(self):
            x, y = data(48, 0).tensors
            return DataLoader(torch.utils.data.TensorDataset(2 * x, y), batch_size=16)

    whole = Optimization(**schedule)
    torch.manual_seed(0)
    trainer([whole, saving()], max_epochs=40, enable_checkpointing=True).fit(Ordered())
    known = {key: (e.value, e.interval, e.note) for key, e in whole.results.items()}
    assert None not in [value for value, *_ in known.values()]
    for epoch in (0, 5, 20):
        resumed = Optimization(**schedule)
        trainer([resumed], max_epochs=40).fit(Ordered(), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        assert {key: (e.value, e.interval, e.note) for key, e in resumed.results.items()} == known
        assert resumed.history == whole.history


def test_training_is_bit_identical():
    states = []
    for callbacks in ([], [Optimization(every_n_steps=1)]):
        torch.manual_seed(0)
        module = Plain()
        fit(module, callbacks)
        states.append({**module.state_dict(), "random": torch.get_rng_state()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_second_fit_starts_anew():
    callback, fresh = Optimization(), Optimization()
    fit(Easy(), [callback], max_epochs=20)
    for each in (callback, fresh):
        fit(Easy(), [each], max_epochs=2)
    assert callback.history == fresh.history


def test_multiple_losses():
    """Without a classifier there is no cross-entropy, but still gradients and a path."""
    callback = Optimization(loss=multitask_loss, forward=multitask)
    fit(Multitask(), [callback])
    assert callback.results[STEPS].note.startswith("undefined: the targets are no class labels")
    assert callback.results[FIRST].value > 0
    assert callback.results[PATH].value > 0


def test_a_diverged_network_is_null_with_the_reason():
    class Explodes(Plain):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            with torch.no_grad():
                self.layers[0].weight.fill_(float("nan"))

    callback = Optimization()
    fit(Explodes(), [callback], max_epochs=1)
    for key, estimate in callback.results.items():
        assert estimate.value is None, key
        assert estimate.note
