"""Whole trainings: final weights, several lanes, resuming, divergence."""

import pickle
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from genbench.regularization import SAM, SWA, EarlyStopping, Method, Mixup
from genbench.regularization.base import in_order
from genbench.training import AtomicCheckpointIO, Checkpoint, Diverged, schedule
from genbench.training.module import evaluate
from tests.helpers.equality import same
from tests.helpers.networks import network
from tests.helpers.runs import Blobs, Trace


def test_early_stopping_ends_and_restores_the_best_epoch(fit):
    trace = Trace()
    module = fit(
        lambda: [trace, EarlyStopping(patience=2)],
        networks=[network(norm=True)],
        optimizer=partial(torch.optim.Adam, lr=0.3),
        epochs=200,
    )
    losses = [loss for _, loss in trace.epochs]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 200
    for key, value in module.network.state_dict().items():
        assert torch.equal(value, trace.epochs[best][0][key]), key


def test_early_stopping_by_the_gap_restores_the_last_epoch_within_it(fit):
    class Gaps(Method):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def after_epoch(self, net, validate):
            gap = validate("train")["accuracy"] - validate("val")["accuracy"]
            self.epochs.append(({k: v.clone() for k, v in net.state_dict().items()}, gap))
            return False

    gaps = Gaps()
    module = fit(lambda: [gaps, EarlyStopping(patience=3, criterion="gap", max_gap=0.2)], epochs=200)
    good = [gap <= 0.2 for _, gap in gaps.epochs]
    last = max(index for index, each in enumerate(good) if each)
    assert last > 0
    assert len(good) == last + 4 < 200
    x, y = Blobs().splits["train"]
    assert all(torch.equal(module.network.state_dict()[key], value) for key, value in gaps.epochs[last][0].items())
    ends = [evaluate(module.network, [Blobs().splits[split]])["accuracy"] for split in ("train", "val")]
    assert ends[0] - ends[1] == pytest.approx(gaps.epochs[last][1])
    assert ends[0] == pytest.approx(float((module.network(x).argmax(1) == y).double().mean()))


def test_an_ensemble_is_its_members_trained_alone(fit):
    methods = lambda: in_order({"mixup": Mixup(alpha=0.4), "sam": SAM(rho=0.05)})  # noqa: E731
    together = fit(methods, seeds=(0, 1, 2))
    for seed, lane in enumerate(together.lanes):
        alone = fit(methods, networks=[network(seed)], seeds=(seed,))
        assert same(lane.network, alone.network), seed
    x, _ = Blobs().splits["val"]
    probabilities = torch.stack([lane.network(x).softmax(-1) for lane in together.lanes]).mean(0)
    torch.testing.assert_close(together.network(x).exp(), probabilities)


def test_a_member_that_stops_early_does_not_touch_the_others(fit):
    class StopFirst(Method):
        def after_epoch(self, net, validate):
            return net is first

    first = network(0)
    together = fit(lambda: [StopFirst()], networks=[first, network(1)], seeds=(0, 1), epochs=4)
    assert same(together.lanes[0].network, fit(networks=[network(0)], epochs=1).network)
    assert same(together.lanes[1].network, fit(networks=[network(1)], seeds=(1,), epochs=4).network)


def test_the_global_generators_are_neither_used_nor_touched(fit):
    torch.manual_seed(0)
    a = fit(lambda: [Mixup(alpha=0.4)], networks=[network()]).network
    torch.manual_seed(1)
    state = torch.get_rng_state()
    b = fit(lambda: [Mixup(alpha=0.4)], networks=[network()]).network
    assert same(a, b)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_resuming_at_any_epoch_is_bit_identical(fit, tmp_path, epoch):
    """With everything that has a state: Adam, a schedule, mixup, SWA, early stopping's memory, torch's own dropout."""

    def methods():
        return [Mixup(alpha=0.4), Remembering(patience=50), SWA(start=0.3)]

    class Remembering(EarlyStopping):
        """Early stopping's memory without its say on the final weights."""

        def finish(self, net, batches):
            return net

    def net():
        with torch.random.fork_rng():
            torch.manual_seed(5)
            parts = (nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))
            made = nn.Sequential(*parts).double()
        made.classes = 3
        return made

    class StopAt(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch + 1 == epoch + 1:
                raise KeyError("killed")

    settings = {
        "optimizer": partial(torch.optim.Adam, lr=0.05),
        "scheduler": partial(schedule.cosine, warmup=0.2),
        "epochs": 5,
        "max_steps": 23,  # in the middle of the last epoch
        "plugins": [AtomicCheckpointIO()],
    }
    torch.manual_seed(7)
    whole = fit(methods, networks=[net()], **settings)
    path = tmp_path / "checkpoint.ckpt"
    torch.manual_seed(7)
    with pytest.raises(KeyError, match="killed"):
        fit(methods, networks=[net()], callbacks=[Checkpoint(path, seconds=0), StopAt()], **settings)
    torch.manual_seed(8)  # another process starts from another state
    resumed = fit(methods, networks=[net()], callbacks=[Checkpoint(path, seconds=1e9)], ckpt_path=str(path), **settings)
    assert same(whole, resumed)


def test_training_ends_after_max_steps_or_epochs(fit):
    trace = Trace()
    fit(lambda: [trace], epochs=3, max_steps=8)
    assert len(trace.steps) == 8
    trace = Trace()
    fit(lambda: [trace], epochs=1, max_steps=8)
    assert len(trace.steps) == 5


def test_a_run_that_diverges_says_at_which_step(fit):
    with pytest.raises(Diverged, match=r"diverged at step \d+: the training loss"):
        fit(optimizer=partial(torch.optim.SGD, lr=1e308))


def test_weights_that_blow_up_in_the_last_step_are_noticed(fit):
    class Break(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            with torch.no_grad():
                pl_module.network[0].weight[0, 0] = torch.inf

    with pytest.raises(Diverged, match="diverged at step 5: the weights"):
        fit(epochs=1, callbacks=[Break()])


def test_a_damaged_checkpoint_is_not_read(tmp_path):
    path = tmp_path / "checkpoint.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(5)}, path)
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(path)["weights"], torch.arange(5))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_checkpoint_that_would_run_code_is_not_read(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("code from a file",))

    AtomicCheckpointIO().save_checkpoint({"weights": Harmful()}, tmp_path / "checkpoint.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "checkpoint.ckpt")


def test_evaluation_restores_the_mode_and_counts_examples():
    net = network(norm=True).train()
    x, y = Blobs().splits["train"]
    uneven = evaluate(net, [(x[:7], y[:7]), (x[7:], y[7:])])
    assert net.training
    whole = evaluate(net, [(x, y)])
    assert uneven == pytest.approx(whole, rel=1e-12)


def test_schedules_cover_the_whole_run(fit):
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    sgd = partial(torch.optim.SGD, lr=0.4)
    fit(scheduler=partial(schedule.cosine, warmup=0.25), epochs=4, optimizer=sgd, callbacks=[Watch()])
    assert max(rates) == pytest.approx(0.4)
    assert rates[0] < 0.1
    assert rates[-1] < 0.01
    rates.clear()
    fit(scheduler=partial(schedule.step, milestones=[0.5], factor=0.1), epochs=4, optimizer=sgd, callbacks=[Watch()])
    assert rates == pytest.approx([0.4] * 10 + [0.04] * 10)
