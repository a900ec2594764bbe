"""The last weights of training, whole or as sketches: what is kept, measured, and resumed."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from genbench.callbacks import TrajectoryShape
from genbench.measures.trajectory_shape import Sketch, homology_dimension, lifetime_sum
from tests.helpers.lightning_projects import Plain, data, fit, trainer

SUM, DIMENSION = "weights/trajectory/lifetime_sum", "weights/trajectory/dimension"


class Watch(pl.Callback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(torch.cat([p.detach().reshape(-1) for p in pl_module.parameters() if p.requires_grad]))


def watched(*callbacks, epochs=12, **settings):
    watch = Watch()
    fit(None, [watch, *callbacks], max_epochs=epochs, **settings)
    return torch.stack(watch.weights)


def test_the_last_weights_are_measured():
    last, every_third, all_of_them = TrajectoryShape(points=60), TrajectoryShape(points=50, stride=3), TrajectoryShape()
    weights = watched(last, every_third, all_of_them, epochs=30)  # of 7 steps
    assert len(weights) == 210
    for callback, points in ((last, weights[-60:]), (every_third, weights[2::3][-50:]), (all_of_them, weights)):
        assert callback.results[SUM].value == pytest.approx(lifetime_sum(points).value, rel=1e-9)
        expected = homology_dimension(points)
        assert callback.results[DIMENSION].value == pytest.approx(expected.value, rel=1e-9)
        assert callback.results[DIMENSION].stderr == pytest.approx(expected.stderr, rel=1e-9)
        assert callback.seconds > callback.results[DIMENSION].seconds > 0
    assert last.results[SUM].note is None
    assert all_of_them.results[SUM].note == "of 210 weights, all there were"
    assert last.keys([]) == [*last.results]


def test_more_than_the_memory_holds_is_sketched():
    callback = TrajectoryShape(points=60, memory=60 * 64 * 4 / 2**20, seed=3)
    weights = watched(callback)
    sketch = Sketch(weights.shape[1], 64, seed=3, device=torch.device("cpu"))
    points = torch.stack([sketch(w) for w in weights[-60:]])
    assert callback.results[SUM].value == pytest.approx(lifetime_sum(points).value, rel=1e-6)
    assert callback.results[SUM].value == pytest.approx(lifetime_sum(weights[-60:]).value, rel=0.1)
    note = "of sketches of 64 numbers: squared distances have an error of at most 17.7%"
    assert callback.results[SUM].note == note
    assert callback.state_dict()["kept"].shape == (60, 64)


def test_a_schedule_and_too_few_steps():
    callback = TrajectoryShape(every_n_epochs=4)
    watched(callback, epochs=9)
    assert [row["step"] for row in callback.history] == [28, 56, 63]
    assert callback.history[0][DIMENSION] is None
    assert callback.history[0][SUM] < callback.history[1][SUM] < callback.history[2][SUM]
    assert callback.history[1][DIMENSION] is not None
    few = TrajectoryShape()
    watched(few, epochs=2)
    assert few.results[DIMENSION].note == (
        "undefined: 14 different weights, at least 50 are needed; of 14 weights, all there were"
    )


def test_batches_that_are_no_step_do_not_count():
    callback = TrajectoryShape()
    weights = watched(callback, epochs=20, accumulate_grad_batches=2)
    assert callback.state_dict()["seen"] == 80
    # before the first step the weights are the initial ones; later copies add nothing to a tree
    assert callback.results[SUM].value == pytest.approx(lifetime_sum(weights[1:]).value, rel=1e-6)


class Steady(Plain):
    """Draws no random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def train_dataloader(self):
        return DataLoader(data(64, 0), batch_size=10)


@pytest.mark.parametrize("settings", [{"points": 50}, {"points": 50, "memory": 0.001}, {"points": 500, "stride": 2}])
def test_resumed_as_if_never_interrupted(tmp_path, settings):
    torch.manual_seed(0)
    whole, saving = TrajectoryShape(**settings), ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer([whole, saving], max_epochs=18, enable_checkpointing=True).fit(Steady())
    known = {key: (e.value, e.stderr, e.note) for key, e in whole.results.items()}
    assert None not in [value for value, *_ in known.values()]
    for epoch in (0, 8, 16):
        resumed = TrajectoryShape(**settings)
        path = tmp_path / f"epoch={epoch}.ckpt"
        trainer([resumed], max_epochs=18).fit(Steady(), ckpt_path=path, weights_only=True)
        assert {key: (e.value, e.stderr, e.note) for key, e in resumed.results.items()} == known
        assert resumed.history == whole.history


def test_training_is_bit_identical_and_a_second_fit_starts_anew():
    states = []
    for callbacks in ([], [TrajectoryShape(memory=0.001)]):
        torch.manual_seed(0)
        module = Plain()
        fit(module, callbacks)
        states.append({**module.state_dict(), "random": torch.get_rng_state()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    callback, fresh = TrajectoryShape(), TrajectoryShape()
    watched(callback, epochs=12)
    for each in (callback, fresh):
        watched(each, epochs=9)
    assert callback.history == fresh.history


def test_a_diverged_network_is_null_with_the_reason():
    class Explodes(Plain):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            with torch.no_grad():
                self.layers[0].weight.fill_(float("nan"))

    callback = TrajectoryShape()
    fit(Explodes(), [callback], max_epochs=1)
    for estimate in callback.results.values():
        assert estimate.value is None
        assert estimate.note.startswith("undefined: weights are not finite")


class Thaws(pl.Callback):
    """Trains a layer from an epoch on, as finetuning does, or up to it."""

    def __init__(self, epoch: int, *, frozen_first: bool = True) -> None:
        self.epoch, self.frozen_first = epoch, frozen_first

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.layers[0].requires_grad_((trainer.current_epoch >= self.epoch) == self.frozen_first)


@pytest.mark.parametrize("frozen_first", [True, False])
def test_other_trainable_weights_begin_the_trajectory_anew(frozen_first):
    torch.manual_seed(0)
    last, some, watch = TrajectoryShape(points=60), TrajectoryShape(), Watch()
    sketched = TrajectoryShape(points=60, memory=1e-4)
    fit(None, [last, some, sketched, Thaws(3, frozen_first=frozen_first), watch], max_epochs=15)
    size = len(watch.weights[-1])
    points = torch.stack([w for w in watch.weights if len(w) == size])
    assert 60 < len(points) < len(watch.weights)
    assert last.results[SUM].value == pytest.approx(lifetime_sum(points[-60:]).value, rel=1e-9)
    assert some.results[SUM].value == pytest.approx(lifetime_sum(points).value, rel=1e-9)
    assert last.results[SUM].note is None
    assert some.results[SUM].note == f"of {len(points)} weights, all there were since others became trainable"
    assert sketched.results[SUM].value == pytest.approx(lifetime_sum(points[-60:]).value, rel=0.2)


class Kinds(pl.LightningModule):
    """Complex, half and single precision, a layer that is made in its first pass, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.wave = nn.Parameter(torch.randn(4, 6, dtype=torch.complex64))
        self.narrow, self.head = nn.Linear(6, 5).bfloat16(), nn.LazyLinear(3)
        self.frozen = nn.Linear(4, 6).requires_grad_(False)

    def training_step(self, batch):
        hidden = (batch[0].to(torch.complex64) @ self.wave).abs() + self.frozen(batch[0])
        return nn.functional.cross_entropy(self.head(self.narrow(hidden.bfloat16()).float()), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)

    def train_dataloader(self):
        return DataLoader(data(64, 0), batch_size=10)


def test_weights_of_every_kind():
    class Real(pl.Callback):
        def __init__(self) -> None:
            self.weights: list[torch.Tensor] = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            parts = [p.detach() for p in pl_module.parameters() if p.requires_grad]
            parts = [part for p in parts for part in ((p.real, p.imag) if p.is_complex() else (p,))]
            self.weights.append(torch.cat([part.reshape(-1).double() for part in parts]))

    torch.manual_seed(0)
    whole, none, watch = TrajectoryShape(points=60), TrajectoryShape(network="frozen"), Real()
    fit(Kinds(), [whole, none, watch], max_epochs=12)
    points = torch.stack(watch.weights[-60:])
    assert whole.results[SUM].value == pytest.approx(lifetime_sum(points).value, rel=1e-4)
    assert whole.results[DIMENSION].value == pytest.approx(homology_dimension(points).value, rel=1e-3)
    for estimate in none.results.values():
        assert estimate.value is None
        assert estimate.note.endswith("; no weights were trained")


@pytest.mark.parametrize(
    ("setting", "value"), [("points", 49), ("stride", 0), ("alpha", 0), ("memory", 0), ("seed", -1)]
)
def test_wrong_settings(setting, value):
    with pytest.raises(ValueError, match=f"^TrajectoryShape {setting} is {value}; accepted: "):
        TrajectoryShape(**{setting: value})
