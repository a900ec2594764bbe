"""Runs that train as one: each leaves what it would have left alone, whatever the others do."""

import contextlib
import copy
import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from genbench import records
from genbench.process import progress
from genbench.regularization import Method
from genbench.runs import build, execute, pack_checkpoints, packed, packing, plan
from tests.helpers.commands import TINY, cells, ctrl_c, start, sweep, typed
from tests.helpers.faults import Decides, Misbehaves, node, offer

FAST = (
    "measures.sam_sharpness.starts=2",
    "~measures.trace",
    "~measures.adaptive_sharpness",
    "~measures.average_sharpness",
)
# where rounding stays rounding: Adam makes steps of full length of it where a gradient is zero
SGD = ("optimizer=momentum", "optimizer.lr=0.02")


def pack(configs):
    return execute.run_packed(configs, choices=[{}] * len(configs), overrides=[()] * len(configs))


def alone(configs, tmp_path):
    """The same runs one by one, in a folder beside."""
    return [execute.run({**config, "runs_dir": str(tmp_path / "alone")}) for config in configs]


def seeds(configure, *overrides, n=3):
    return configure(*FAST, *overrides, each=[{"seed": seed} for seed in range(n)])


def folder(tmp_path, record, where="runs"):
    return tmp_path / where / record["experiment"] / record["run_id"]


def history(path):
    with (path / "history.csv").open() as file:
        return list(csv.DictReader(file))


def tensors(path):
    return torch.load(path, weights_only=True)


def same(a, b):
    a, b = tensors(a), tensors(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_close(ours, theirs):
    """Numbers by name, equal to rounding; what counts examples or steps is equal."""
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value == (None if theirs[key] is None else pytest.approx(theirs[key], rel=1e-3, abs=1e-6)), key


def assert_alike(packed, separate, tmp_path):
    """What two ways of training left of one run."""
    ours, theirs = folder(tmp_path, packed), folder(tmp_path, separate, "alone")
    assert records.verify(ours) == packed
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    for key in ("run_id", "experiment", "status", "error", "config", "choices", "seed", "converged"):
        assert packed[key] == separate[key], key
    # what a search says of itself is of that run's rounding
    said = [{k: v for k, v in each["notes"].items() if k not in each["converged"]} for each in (packed, separate)]
    assert said[0] == said[1]
    assert_close(packed["metrics"], separate["metrics"])
    assert packed["measure_seconds"].keys() == separate["measure_seconds"].keys()
    assert same(ours / "initial.pt", theirs / "initial.pt")
    for a, b in zip(history(ours), history(theirs), strict=True):
        assert (a["epoch"], a["step"]) == (b["epoch"], b["step"])
        assert_close(*({k: float(v) if v else None for k, v in row.items()} for row in (a, b)))
    if separate["status"] == "completed":
        a, b = tensors(ours / "weights.pt"), tensors(theirs / "weights.pt")
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4, msg=name)
        assert not same(ours / "weights.pt", ours / "initial.pt")


# -- each as if alone


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_lane_has_the_same_bits_whatever_its_companions_numbers_are(configure, tmp_path, optimizer):
    """At one width. Lanes of equal optimizers share one, so that its kernels see other rows together."""
    common = (f"optimizer={optimizer}", "regularization=[l2,dropout,sam,mixup]", "~callbacks", "+callbacks={}")
    equal, unequal = (
        configure(*common, each=[{"seed": seed, "runs_dir": str(tmp_path / name)} for seed in range(4)])
        for name in ("equal", "unequal")
    )
    for index, method, number, value in ((1, "l2", "strength", 0.5), (3, "dropout", "rate", 0), (3, "sam", "rho", 0.3)):
        unequal[index]["regularization"][method][number] = value
    unequal[1]["optimizer"]["lr"] = 0.002
    unequal[1]["regularization"]["mixup"]["alpha"] = 0
    unequal[3]["data"]["label_noise"] = 0.5
    unequal[3]["optimizer"]["lr"] = 1e20  # diverges
    ours, theirs = pack(unequal), pack(equal)
    assert [record["status"] for record in ours] == ["completed", "completed", "completed", "diverged"]
    for index in (0, 2):
        assert ours[index]["run_id"] == theirs[index]["run_id"]
        assert same(*(folder(tmp_path, theirs[index], name) / "weights.pt" for name in ("equal", "unequal")))
    assert ours[1]["run_id"] != theirs[1]["run_id"]


@pytest.mark.parametrize("callbacks", ["default", "full"], ids=["by_epoch", "by_batch"])
def test_loggers_of_a_pack_get_each_runs_own_loss_and_learning_rate(configure, tmp_path, callbacks):
    """Rates apart, and of an ensemble the members' mean."""
    common = ("measures=norms", "trainer.log_every_n_steps=4", f"callbacks={callbacks}", "scheduler=cosine", *SGD)
    ensemble = ("regularization=ensemble", "regularization.ensemble.members=2")
    configs = [configure(*common, *ensemble, f"seed={i}", f"optimizer.lr={0.02 * (i + 1)}") for i in range(2)]
    for ours, theirs in zip(pack(configs), alone(configs, tmp_path), strict=True):
        assert ours["provenance"]["lanes"] == 4
        rows = []
        for where in (folder(tmp_path, ours), folder(tmp_path, theirs, "alone")):
            with (where / "metrics.csv").open() as file:
                rows.append([row for row in csv.DictReader(file) if row["train/optimization/loss"]])
        assert [int(row["step"]) for row in rows[0]] == list(range(4, 28, 4))
        for key in ("step", "epoch", "train/optimization/loss", "train/optimization/lr"):
            a, b = ([float(row[key]) for row in found] for found in rows)
            assert a == pytest.approx(b, rel=1e-4), key


@pytest.mark.parametrize(
    ("overrides", "width"),
    [
        (("regularization=none",), 3),
        (("regularization=[l2,mixup,dropout]", "trainer.max_steps=31"), 3),  # ends within an epoch
        (("regularization=[ensemble,label_smoothing]", "regularization.ensemble.members=2"), 6),
        (
            (
                "regularization=ensemble",
                "regularization.ensemble={members: 2, share_init: true, share_order: true}",
                "data.parts=2",
                *SGD,
            ),
            6,
        ),
        (("regularization=swa", "regularization.swa.start=0.5"), 3),
        (("regularization=[swa,batch_norm]", "regularization.swa.start=0.5", *SGD), 3),
        (("callbacks=full", "callbacks.measures.every_n_steps=5", "regularization=sam", "logger=[csv,tensorboard]"), 3),
        (("callbacks=trajectory_shape", "callbacks.trajectory_shape.points=50", "trainer.max_steps=70"), 3),
    ],
    ids=["none", "mid-epoch", "ensemble", "parts", "swa", "batch_norm", "callbacks", "trajectory_shape"],
)
def test_each_run_leaves_what_it_leaves_alone(configure, tmp_path, overrides, width):
    configs = seeds(configure, *overrides)
    packed = pack(configs)
    for ours, theirs in zip(packed, alone(configs, tmp_path), strict=True):
        assert ours["status"] == "completed"
        assert ours["provenance"]["lanes"] == width
        assert ours["seconds"]["total"] >= ours["seconds"]["fit"] + ours["seconds"]["measure"] - 1e-6 > 0
        ours_files, theirs_files = (
            sorted(path.suffix for path in folder(tmp_path, record, where).rglob("*") if path.is_file())
            for record, where in ((ours, "runs"), (theirs, "alone"))
        )
        assert [s for s in ours_files if not s[1:].isdigit()] == [s for s in theirs_files if not s[1:].isdigit()]
        if "callbacks=full" in overrides:  # TensorBoard names its files by the time
            for record, where in ((ours, "runs"), (theirs, "alone")):
                assert list((folder(tmp_path, record, where) / "tensorboard").iterdir())
        assert_alike(ours, theirs, tmp_path)
    assert len({record["run_id"] for record in packed}) == 3
    assert not (tmp_path / "runs" / "default" / pack_checkpoints.FOLDER).exists()
    assert pack(configs) == packed  # not trained again


def test_batch_norm_statistics_of_averaged_weights_are_those_of_the_averaged_network(configure, tmp_path):
    configs = seeds(configure, "regularization=[swa,batch_norm]", "regularization.swa.start=0.5", *SGD, n=2)
    for config, record in zip(configs, pack(configs), strict=True):
        data = build.build_data(config)
        (lane,) = build.build_module(config, data).lanes
        lane.network.load_state_dict(tensors(folder(tmp_path, record) / "weights.pt"))
        from genbench.regularization.swa import estimate_norm_statistics

        estimate_norm_statistics(lane.network, data.evaluation_batches("train"))
        kept = tensors(folder(tmp_path, record) / "weights.pt")
        for name, value in lane.network.state_dict().items():
            torch.testing.assert_close(value, kept[name], rtol=1e-5, atol=1e-6, msg=name)


def test_each_run_stops_by_itself(configure, tmp_path):
    few = ("regularization=early_stopping", "data.val_fraction=0.4", "data.batch_size=10", "trainer.max_steps=300")
    configs = [configure(*FAST, *few, f"seed={seed}", "optimizer.lr=0.03", f"data.seed={seed}") for seed in range(4)]
    for config, patience in zip(configs, (1, 2, 3, 4), strict=True):
        config["regularization"]["early_stopping"]["patience"] = patience
    packed, separate = pack(configs), alone(configs, tmp_path)
    lengths = [len(history(folder(tmp_path, record))) for record in packed]
    assert len(set(lengths)) > 2  # they did stop at different epochs
    assert max(lengths) < 25
    for ours, theirs in zip(packed, separate, strict=True):
        assert_alike(ours, theirs, tmp_path)


def test_members_of_an_ensemble_stop_one_by_one(configure, tmp_path):
    few = ("regularization=[ensemble,early_stopping]", "regularization.ensemble.members=3", "optimizer.lr=0.03")
    few += ("regularization.early_stopping.patience=1", "data.val_fraction=0.4", "data.batch_size=10")
    configs = seeds(configure, *few, "trainer.max_steps=240", n=2)
    for ours, theirs in zip(pack(configs), alone(configs, tmp_path), strict=True):
        assert_alike(ours, theirs, tmp_path)


def test_a_threshold_ends_one_run_and_not_the_others(configure, tmp_path):
    long = ("trainer.max_steps=90", "optimizer.lr=0.03")
    configs = [
        configure(*FAST, *long, "callbacks.stop.train_accuracy=0.6"),
        configure(*FAST, *long, "callbacks.stop.train_loss=0.8", "seed=1"),
        configure(*FAST, *long, "seed=2"),
    ]
    packed = pack(configs)
    steps = [int(history(folder(tmp_path, record))[-1]["step"]) for record in packed]
    assert len({*steps, 90}) == 3
    assert steps[2] == 90
    for ours, theirs in zip(packed, alone(configs, tmp_path), strict=True):
        assert_alike(ours, theirs, tmp_path)


def test_runs_that_stop_within_an_epoch_stop_where_they_stop_alone(configure, tmp_path):
    near = ("trainer.max_steps=240", *SGD, "callbacks.stop.tolerance=0.02", "callbacks.stop.every_n_epochs=2")
    configs = [
        configure(*FAST, *near, f"callbacks.stop.train_loss={loss}", f"seed={seed}")
        for seed, loss in enumerate((1.1, 0.9, 0.7, 0.0001))
    ]
    packed = pack(configs)
    steps = [int(record["metrics"]["train/optimization/steps"]) for record in packed]
    per_epoch = build.build_data(configs[0]).steps_per_epoch
    assert len(set(steps)) == 4
    assert steps[3] == 240
    assert any(step % per_epoch for step in steps[:3])
    for ours, theirs, config in zip(packed, alone(configs, tmp_path), configs, strict=True):
        assert_alike(ours, theirs, tmp_path)
        assert ours["metrics"]["train/optimization/steps"] == theirs["metrics"]["train/optimization/steps"]
        if (loss := config["callbacks"]["stop"]["train_loss"]) > 0.1:
            assert 0.98 * loss <= ours["metrics"]["train/performance/cross_entropy"] <= loss


class Spy(pl.Callback):
    """Writes down what it is called with, and when."""

    def __init__(self, *, name: str, seed: int) -> None:
        self.calls = CALLS.setdefault((name, seed), [])

    def _note(self, hook, trainer, module, *values):
        self.calls.append((hook, trainer.current_epoch, trainer.global_step, *values))

    def setup(self, trainer, pl_module, stage):
        self._note("setup", trainer, pl_module, stage)

    def on_fit_start(self, trainer, pl_module):
        self._note("on_fit_start", trainer, pl_module)

    def on_train_start(self, trainer, pl_module):
        self._note("on_train_start", trainer, pl_module)

    def on_train_epoch_start(self, trainer, pl_module):
        self._note("on_train_epoch_start", trainer, pl_module)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._note("on_train_batch_start", trainer, pl_module, batch_idx, *(t.tolist() for t in batch))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._note("on_train_batch_end", trainer, pl_module, outputs, batch_idx, *(t.tolist() for t in batch))

    def on_train_epoch_end(self, trainer, pl_module):
        self._note("on_train_epoch_end", trainer, pl_module)
        if pl_module.history and trainer.current_epoch == self.last:
            trainer.should_stop = True

    last = None

    def on_train_end(self, trainer, pl_module):
        self._note("on_train_end", trainer, pl_module)

    def on_fit_end(self, trainer, pl_module):
        self._note("on_fit_end", trainer, pl_module)

    def teardown(self, trainer, pl_module, stage):
        self._note("teardown", trainer, pl_module, stage)


class SpyUntil(Spy):
    last = 1  # ends training after its second epoch


CALLS: dict = {}


@pytest.mark.parametrize("members", [1, 2])
def test_callbacks_are_called_as_in_a_training_of_their_own(configure, tmp_path, members):
    def configs(name):
        CALLS.clear() if name == "packed" else None
        method = ["regularization=ensemble", f"regularization.ensemble.members={members}"] if members > 1 else []
        found = seeds(configure, *method, n=3)
        for seed, config in enumerate(found):
            kind = "SpyUntil" if seed == 1 else "Spy"
            config["callbacks"] = {"spy": {"_target_": f"{__name__}.{kind}", "name": name, "seed": seed}}
        return found

    assert {record["status"] for record in pack(configs("packed"))} == {"completed"}
    assert {record["status"] for record in alone(configs("alone"), tmp_path)} == {"completed"}
    for seed in range(3):
        ours, theirs = CALLS["packed", seed], CALLS["alone", seed]
        assert [call[:3] for call in ours] == [call[:3] for call in theirs]
        assert ours == theirs
    assert len(CALLS["packed", 1]) < len(CALLS["packed", 0])


# -- isolation


def test_a_run_that_diverges_changes_no_bit_of_the_others(configure, tmp_path):
    def configs(lr):
        fast = (*FAST, "optimizer=sgd", "regularization=l2", "trainer.max_steps=45")
        return [configure(*fast, f"seed={s}", f"optimizer.lr={lr if s == 2 else 0.05}") for s in range(3)]

    ill = pack(configs(1e8))
    assert [record["status"] for record in ill] == ["completed", "completed", "diverged"]
    kept = [tensors(folder(tmp_path, record) / "weights.pt") for record in ill[:2]]
    shutil.rmtree(tmp_path / "runs")
    healthy = pack(configs(0.06))
    assert [record["status"] for record in healthy] == ["completed"] * 3
    for before, record in zip(kept, healthy[:2], strict=True):
        after = tensors(folder(tmp_path, record) / "weights.pt")
        assert all(torch.equal(before[name], after[name]) for name in before)
    separate = alone(configs(1e8)[2:], tmp_path)[0]
    assert re.fullmatch(r"diverged at step \d+: .*", separate["error"])
    assert {k: ill[2][k] for k in ("status", "error", "run_id", "metrics")} == {
        k: separate[k] for k in ("status", "error", "run_id", "metrics")
    }
    assert not (folder(tmp_path, separate) / "weights.pt").exists()


class Fails(pl.Callback):
    """Raises in one hook of one run."""

    def __init__(self, *, hook: str, kind: str = "RuntimeError", epoch: int = 0) -> None:
        self.hook, self.kind, self.epoch = hook, kind, epoch

    def _fail(self, hook, trainer):
        if hook == self.hook and trainer.current_epoch >= self.epoch:
            raise {"RuntimeError": RuntimeError, "SystemExit": SystemExit}[self.kind]("broken\non purpose")

    def setup(self, trainer, pl_module, stage):
        self._fail("setup", trainer)

    def on_fit_start(self, trainer, pl_module):
        self._fail("on_fit_start", trainer)

    def on_train_start(self, trainer, pl_module):
        self._fail("on_train_start", trainer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._fail("on_train_batch_end", trainer)

    def on_train_epoch_end(self, trainer, pl_module):
        self._fail("on_train_epoch_end", trainer)

    def on_train_end(self, trainer, pl_module):
        self._fail("on_train_end", trainer)

    def teardown(self, trainer, pl_module, stage):
        self._fail("teardown", trainer)


HOOKS = ["setup", "on_fit_start", "on_train_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end"]
HOOKS += ["teardown"]


def test_runs_whose_callbacks_raise_fail_alone(configure, tmp_path):
    """Each in another hook, and one that exits; two raise nothing, and their bits are those of an untroubled pack."""
    cases = [*((hook, "RuntimeError") for hook in HOOKS), ("on_train_epoch_end", "SystemExit")]
    configs = seeds(configure, n=len(cases) + 2)
    whole = pack([{**config, "runs_dir": str(tmp_path / "whole")} for config in configs])
    for config, (hook, kind) in zip(configs[1:], cases, strict=False):
        config["callbacks"]["probe"] = {"_target_": f"{__name__}.Fails", "hook": hook, "kind": kind, "epoch": 0}
    found = pack(configs)
    first, *failed, last = found
    for record, separate in zip(failed, alone(configs[1:-1], tmp_path), strict=True):
        assert (record["status"], record["error"]) == ("failed", separate["error"])
        assert (folder(tmp_path, record) / "traceback.txt").exists()
    assert len({record["error"] for record in failed}) == 2
    for record, untroubled in ((first, whole[0]), (last, whole[-1])):
        assert record["status"] == "completed"
        assert same(folder(tmp_path, record) / "weights.pt", folder(tmp_path, untroubled, "whole") / "weights.pt")
        assert_close(record["metrics"], untroubled["metrics"])


class Validates(pl.Callback):
    def on_validation_end(self, trainer, pl_module):
        """A hook that no pack calls."""


class Grows(Method):
    """Its setting decides the structure of the network."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(width, 1)

    def after_step(self, params, progress):
        pass


class NoMemory(Method):
    """One lane fits in memory, several do not."""

    def penalty(self, net, x, y, output, draw):
        if torch._C._functorch.is_batchedtensor(output):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return output.sum()


def probed(configure, kinds, group="regularization"):
    configs = seeds(configure, n=len(kinds))
    for config, (kind, settings) in zip(configs, kinds, strict=True):
        config[group] = {"probe": node(kind, **settings)}
    return configs


@pytest.mark.parametrize(
    ("group", "kinds", "message"),
    [
        ("regularization", [(Decides, {}), (Decides, {})], "the training step cannot be vectorized"),
        ("regularization", [(Grows, {"width": 2}), (Grows, {"width": 3})], "network 1 cannot be stacked on network 0"),
        ("callbacks", [(Validates, {}), (Validates, {})], "callback Validates uses on_validation_end"),
    ],
)
def test_what_cannot_be_packed_leaves_no_record(configure, tmp_path, group, kinds, message):
    with pytest.raises(packed.Unpackable, match=message) as found:
        pack(probed(configure, kinds, group))
    assert "\n" not in str(found.value)
    assert not list(tmp_path.rglob("record.json"))


def test_want_of_memory_in_the_first_step_asks_for_fewer_lanes(configure, tmp_path):
    with pytest.raises(packed.TooLarge, match="2 lanes do not fit in memory"):
        pack(probed(configure, [(NoMemory, {}), (NoMemory, {})]))
    assert not list(tmp_path.rglob("record.json"))


# -- interruption


class Kills(pl.Callback):
    """Kills the process at the end of an epoch, the first time only."""

    def __init__(self, *, flag: str, epoch: int) -> None:
        self.flag, self.epoch = flag, epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def killed(configs, tmp_path):
    """A pack in a process of its own, which is killed."""
    process = multiprocessing.get_context("fork").Process(target=pack, args=(configs,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "runs" / "default" / pack_checkpoints.FOLDER).glob("*.ckpt"))


def interrupting(configs, tmp_path, epochs):
    """Callbacks that kill at the start of these epochs; their flags, which stop them, are to be removed before."""
    for config in configs:
        config["checkpoint_seconds"] = 0
        for n, epoch in enumerate(epochs):
            flag = str(tmp_path / f"flag{n}")
            config["callbacks"][f"kill{n}"] = {"_target_": f"{__name__}.Kills", "flag": flag, "epoch": epoch}
    return configs


def uninterrupted(configs, tmp_path, epochs):
    for n in range(len(epochs)):
        (tmp_path / f"flag{n}").touch()
    whole = [{**config, "runs_dir": str(tmp_path / "whole")} for config in configs]
    found = pack(whole)
    for n in range(len(epochs)):
        (tmp_path / f"flag{n}").unlink()
    return found


def assert_identical(found, whole, tmp_path):
    for ours, theirs in zip(found, whole, strict=True):
        assert ours["status"] == theirs["status"] == "completed"
        assert ours["metrics"] == theirs["metrics"]
        assert ours["provenance"]["lanes"] == theirs["provenance"]["lanes"]
        a, b = folder(tmp_path, ours), folder(tmp_path, theirs, "whole")
        assert same(a / "weights.pt", b / "weights.pt")
        assert history(a) == history(b)
    assert not (tmp_path / "runs" / "default" / pack_checkpoints.FOLDER).exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ("regularization=[dropout,swa]", "regularization.swa.start=0.3", "scheduler=cosine", "callbacks=full"),
        ("regularization=[ensemble,batch_norm]", "regularization.ensemble.members=2", "optimizer=momentum"),
        ("callbacks.stop.train_loss=0.5", "callbacks.stop.tolerance=0.02", "trainer.max_steps=240", *SGD),
    ],
    ids=["dropout-swa", "ensemble-batch_norm", "stop"],
)
def test_a_killed_pack_continues_bit_for_bit(configure, tmp_path, overrides):
    configs = interrupting(seeds(configure, "trainer.max_steps=45", *overrides), tmp_path, [3])
    whole = uninterrupted(configs, tmp_path, [3])
    killed(configs, tmp_path)
    assert_identical(pack(configs), whole, tmp_path)


class Counts(Method):
    """Ends training after some epochs, which it counts in a plain attribute."""

    def __init__(self, *, most: int) -> None:
        super().__init__()
        self.setting("most", most)
        self.epochs = 0

    def after_epoch(self, net, validate):
        self.epochs += 1
        return self.epochs >= self.most


def test_a_killed_pack_remembers_what_methods_count_between_epochs(configure, tmp_path):
    configs = interrupting(seeds(configure, "trainer.max_steps=90"), tmp_path, [3])
    for config, most in zip(configs, (5, 4, 6), strict=True):
        config["regularization"] = {"counts": node(Counts, most=most)}
    whole = uninterrupted(configs, tmp_path, [3])
    killed(configs, tmp_path)
    found = pack(configs)
    assert_identical(found, whole, tmp_path)
    assert [len(history(folder(tmp_path, record))) for record in found] == [5, 4, 6]


def test_each_run_of_a_killed_pack_can_be_continued_alone(configure, tmp_path):
    configs = interrupting(seeds(configure, "trainer.max_steps=45"), tmp_path, [3])
    whole = uninterrupted(configs, tmp_path, [3])
    killed(configs, tmp_path)
    assert_identical([execute.run(config) for config in configs], whole, tmp_path)


@pytest.mark.parametrize("ended", [0, 1, 2])
@pytest.mark.parametrize("unlike", [False, True])
def test_what_is_left_of_a_pack_continues_bit_for_bit_after_every_kill(configure, tmp_path, ended, unlike):
    """One run, at any place, ends before the first kill; the others are killed twice. ``unlike``: with optimizers and
    schedules of different kinds, of which that run alone has its own."""
    configs = seeds(configure, "trainer.max_steps=63")
    if unlike:
        own = configure(*FAST, "optimizer=momentum", "scheduler=cosine")
        slow = configure(*FAST, "optimizer.lr=0.002")
        others = [i for i in range(3) if i != ended]
        configs[ended] |= {"optimizer": own["optimizer"], "scheduler": own["scheduler"]}
        configs[others[1]]["optimizer"] = slow["optimizer"]
    interrupting(configs, tmp_path, [3, 5])
    configs[ended]["callbacks"]["stop"]["train_accuracy"] = 0.01  # at the end of the first epoch
    whole = uninterrupted(configs, tmp_path, [3, 5])
    assert len(history(folder(tmp_path, whole[ended], "whole"))) == 1
    for _ in range(2):
        killed(configs, tmp_path)
        assert len(list(tmp_path.glob("runs/default/*/record.json"))) == 1
    assert_identical(pack(configs), whole, tmp_path)


def test_a_lane_of_another_group_that_has_ended_keeps_the_groups_as_they_were(configure, tmp_path):
    """The first run has settings of its own; one in the midst of the others ends, which share an optimizer."""
    configs = [
        configure(*FAST, "trainer.max_steps=45", f"seed={seed}", f"optimizer.lr={0.002 if seed == 0 else 0.01}")
        for seed in range(4)
    ]
    interrupting(configs, tmp_path, [3])
    configs[2]["callbacks"]["stop"]["train_accuracy"] = 0.01
    whole = uninterrupted(configs, tmp_path, [3])
    killed(configs, tmp_path)
    assert_identical(pack(configs), whole, tmp_path)


def test_a_run_that_failed_before_the_kill_starts_again_from_its_start(configure, tmp_path):
    configs = interrupting(seeds(configure), tmp_path, [2])
    flag = tmp_path / "flaky"
    configs[1]["callbacks"]["flaky"] = node(Misbehaves, what="raise the first time", flag=str(flag))
    flag.touch()
    whole = uninterrupted(configs, tmp_path, [2])
    flag.unlink()
    killed(configs, tmp_path)
    (failed,) = [json.loads(path.read_text()) for path in tmp_path.glob("runs/default/*/record.json")]
    assert failed["status"] == "failed"
    found = pack(configs)
    for ours, theirs in zip(found, whole, strict=True):
        assert ours["status"] == "completed"
        assert history(folder(tmp_path, ours)) == history(folder(tmp_path, theirs, "whole"))
        assert same(folder(tmp_path, ours) / "weights.pt", folder(tmp_path, theirs, "whole") / "weights.pt")
    assert not (tmp_path / "runs" / "default" / pack_checkpoints.FOLDER).exists()


def test_both_halves_of_an_interrupted_pack_continue(configure, tmp_path):
    configs = interrupting(seeds(configure, "trainer.max_steps=45", n=4), tmp_path, [3])
    whole = uninterrupted(configs, tmp_path, [3])
    killed(configs, tmp_path)
    (tmp_path / "flag0").touch()
    first = pack(configs[:2])
    assert pack_checkpoints.unfinished(tmp_path / "runs" / "default")  # the other half's state is still there
    assert_identical(first + pack(configs[2:]), whole, tmp_path)


def test_a_damaged_checkpoint_is_no_checkpoint(configure, tmp_path):
    configs = interrupting(seeds(configure), tmp_path, [2])
    whole = uninterrupted(configs, tmp_path, [2])
    killed(configs, tmp_path)
    (path,) = (tmp_path / "runs" / "default" / pack_checkpoints.FOLDER).glob("*.ckpt")
    path.write_bytes(path.read_bytes()[:-100])
    assert_identical(pack(configs), whole, tmp_path)


class Tidies(pl.Callback):
    """As another pack of the same experiment that ends: it removes the folder of packs, which is empty."""

    def on_train_epoch_start(self, trainer, pl_module):
        shutil.rmtree(trainer.default_root_dir, ignore_errors=True)


def test_another_pack_that_ends_may_remove_the_folder(configure, tmp_path):
    configs = seeds(configure, "checkpoint_seconds=0")
    configs[0]["callbacks"]["tidies"] = {"_target_": f"{__name__}.Tidies"}
    assert [record["status"] for record in pack(configs)] == ["completed"] * 3


def test_a_folder_that_is_removed_while_it_is_listed_holds_no_checkpoint(tmp_path, monkeypatch):
    (tmp_path / pack_checkpoints.FOLDER).mkdir()
    listed = os.scandir

    def removed(path):
        shutil.rmtree(path, ignore_errors=True)
        return listed(path)

    monkeypatch.setattr(os, "scandir", removed)
    assert pack_checkpoints.unfinished(tmp_path) == []


# -- which train together


def key(configure, *overrides):
    return packing.key(plan.plan(configure(*overrides)))


def test_what_runs_of_one_pack_may_differ_in(configure):
    common = key(configure, "regularization=l2")
    for free in ("seed=7", "regularization.l2.strength=0.5", "optimizer.lr=0.3", "optimizer=sgd", "scheduler=cosine"):
        assert key(configure, "regularization=l2", free) == common, free
    for free in ("data.label_noise=0.3", "data.seed=3", "callbacks.stop.train_loss=0.1", "model.init_scale=2"):
        assert key(configure, "regularization=l2", free) == common, free
    assert key(configure, "regularization=l2", "data.train_size=201") == common  # as many steps an epoch
    images = ("regularization=rand_augment", "data=digits")
    assert key(configure, *images, "regularization.rand_augment.magnitude=2") == key(configure, *images)
    others = [
        ("regularization=l2", "model=cnn"),
        ("regularization=l2", "model.width=12"),
        ("regularization=l1",),
        ("regularization=[l2,mixup]",),
        ("regularization=none",),
        ("regularization=l2", "data.batch_size=25"),
        ("regularization=l2", "data.train_size=300"),
        ("regularization=l2", "trainer.max_steps=28"),
        ("regularization=l2", "data=digits"),
        ("regularization=l2", "threads=2"),
        images,
        (*images, "regularization.rand_augment.n=1"),
    ]
    found = [common, *(key(configure, *other) for other in others)]
    assert len(set(found)) == len(found)


class Own(Method):
    """A method that declares nothing."""


class Declared(Method):
    per_lane = ("rate",)


class Data(pl.LightningDataModule):
    """A datamodule that declares nothing."""


class Net(torch.nn.Module):
    """A network that declares nothing."""


class Scaled(Net):
    per_lane = ("scale",)


def test_a_component_of_the_users_own_declares_what_may_differ(configure):
    """Undeclared, the numbers of a method may differ, but its counts, and nothing of a datamodule or a network."""
    ours = {"_target_": f"{__name__}.Own", "rate": 0.1, "steps": 3, "kind": "a", "on": True, "inner": {"size": 2}}
    bound = {
        "seed": 0,
        "regularization": {"own": ours, "declared": {"_target_": f"{__name__}.Declared", "rate": 0.1, "steps": 3}},
        "data": {"_target_": f"{__name__}.Data", "label_noise": 0.1, "seed": 0},
        "model": {"_target_": f"{__name__}.Net", "dropout": 0.1},
        "optimizer": {"lr": 0.1},
    }

    def changed(path, value):
        other = copy.deepcopy(bound)
        *parents, last = path.split(".")
        node = other
        for name in parents:
            node = node[name]
        assert node.get(last) != value
        node[last] = value
        return packing.key(SimpleNamespace(bound=other, steps_per_epoch=2, batch_size=3))

    common = changed("seed", 1)
    own, declared = "regularization.own", "regularization.declared"
    for path in (f"{own}.rate", f"{own}.inner.size", f"{declared}.rate", "optimizer.lr"):
        assert changed(path, 7) == common, path
    for path, value in ((f"{own}.kind", "b"), (f"{own}.steps", 7), (f"{own}.on", False), (f"{declared}.steps", 4)):
        assert changed(path, value) != common, path
    for path, value in (("data.label_noise", 0.2), ("data.seed", 1), ("model.dropout", 0.2)):
        assert changed(path, value) != common, path
    bound["model"] = {"_target_": f"{__name__}.Scaled", "dropout": 0.1, "scale": 1.0}
    common = changed("seed", 1)
    assert changed("model.scale", 2.0) == common
    assert changed("model.dropout", 0.2) != common


def test_lanes_of_a_run(configure):
    assert records.members(plan.plan(configure()).bound) == 1
    ensemble = ("regularization=[ensemble,l2]", "regularization.ensemble.members=4")
    assert records.members(plan.plan(configure(*ensemble)).bound) == 4


# -- sweeps

PACKED = "hydra/launcher=packed"


@pytest.fixture
def work(tmp_path):
    """An empty folder beside one of configurations with faults."""
    conf = tmp_path / "conf"
    offer(conf / "regularization" / "decides", Decides)
    offer(conf / "callbacks" / "poison", Misbehaves, what="kill", epoch=None)
    offer(conf / "callbacks" / "slow", Misbehaves, what="sleep 0.05", epoch=None)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def lanes_of(path):
    return [record["provenance"]["lanes"] for record in records.load(path).records]


def by_id(path):
    return {record["run_id"]: record for record in records.load(path).records}


def test_a_packed_sweep_gives_the_runs_and_the_table_of_processes(work):
    grid = ("regularization=none,l2,ensemble", "seed=0,1")
    status, out, err = sweep(work, PACKED, *grid)
    assert status == 0, err
    assert err.count("test accuracy") == 6
    assert "not packed" not in err
    status, _, err = sweep(work, "hydra/launcher=processes", *grid, "runs_dir=separate")
    assert status == 0, err
    ours, theirs = (by_id(work / name / "default") for name in ("runs", "separate"))
    assert ours.keys() == theirs.keys()
    for run_id, record in ours.items():
        assert record["choices"] == theirs[run_id]["choices"]
        assert_close(record["metrics"], theirs[run_id]["metrics"])
    assert sorted(lanes_of(work / "separate" / "default")) == [1] * 4 + [5] * 2
    assert min(lanes_of(work / "runs" / "default")) >= 2
    packs = " cost, seconds: for runs that trained in packs, equal shares of the pack's time."
    for a, b in zip(cells(work / "runs" / "default"), cells(work / "separate" / "default"), strict=True):
        assert a.keys() == b.keys()
        assert (packs in a["caption"]) == bool(b["caption"])  # of the first row alone
        a["caption"] = a["caption"].replace(packs, "")
        for name in a:
            try:
                assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-2, abs=1e-4), (name, a, b)
            except ValueError:
                assert a[name] == b[name], (name, a, b)

    # a second time: nothing is trained, the same table
    before = {path: path.stat().st_mtime_ns for path in work.glob("runs/default/*/record.json")}
    status, again, err = sweep(work, PACKED, *grid)
    assert (status, again) == (0, out), err
    assert {path: path.stat().st_mtime_ns for path in work.glob("runs/default/*/record.json")} == before
    assert not list(work.rglob(pack_checkpoints.FOLDER))


def test_what_cannot_be_vectorized_is_trained_by_itself_and_said(work):
    status, _, err = sweep(work, PACKED, "regularization=none,decides", "seed=0,1,2", "hydra.launcher.n_jobs=1")
    assert status == 0, err
    (said,) = [line for line in re.sub(r"\n(?! *(runs|reg|not))", " ", err).splitlines() if "not packed:" in line]
    assert "3 runs" in said
    assert "regularization=decides" in said
    assert "cannot be vectorized" in said
    found = by_id(work / "runs" / "default").values()
    assert {record["status"] for record in found} == {"completed"}
    assert (
        sorted(
            ("+".join(record["choices"]["regularization"]) or "none", record["provenance"]["lanes"]) for record in found
        )
        == [("decides", 1)] * 3 + [("none", 3)] * 3
    )


def test_a_run_that_kills_its_process_fails_alone(work):
    status, _, err = sweep(work, PACKED, "callbacks=default,poison", "seed=0,1,2", "trainer.max_steps=20")
    assert status == 1
    assert "Traceback" not in err, err
    path = work / "runs" / "default"
    poisoned = {run["run_id"] for run in records.read_sweep(path)["runs"] if "callbacks=poison" in run["overrides"]}
    assert len(poisoned) == 3
    for run_id, record in by_id(path).items():
        assert record["status"] == ("failed" if run_id in poisoned else "completed")
        assert not record["error"] or "SIGKILL" in record["error"]
    assert len(by_id(path)) == 6
    # what is kept is the state of runs that failed, from which they go on
    assert all(poisoned & set(ids) for ids in pack_checkpoints.unfinished(path))


def test_so_many_lanes_at_most(work):
    status, _, err = sweep(work, PACKED, "hydra.launcher.lanes=2", "seed=0,1", "optimizer.lr=0.01,0.02")
    assert status == 0, err
    assert lanes_of(work / "runs" / "default") == [2] * 4


@pytest.mark.parametrize("lanes", ["0", "many"])
def test_a_wrong_number_of_lanes_is_refused_in_one_line(work, lanes):
    status, out, err = typed(work, "genbench", "-m", PACKED, f"hydra.launcher.lanes={lanes}", "seed=0,1")
    assert (status, out) == (1, "")
    *_, last = err.splitlines()  # the first says that a sweep was planned
    assert re.fullmatch(r"genbench: hydra\.launcher\.lanes is .*; accepted: .*or auto\)", last), err
    assert not list(work.iterdir())


def test_a_packed_sweep_that_was_interrupted_resumes_to_the_same_numbers(work):
    """That one is killed: pytest -m kills."""
    grid = ("callbacks=slow", "seed=0,1,2,3", "regularization=none,l2", "trainer.max_steps=80")
    status, _, err = sweep(work, PACKED, *grid, "runs_dir=whole")
    assert status == 0, err

    process = start(work, "--config-dir", str(work.parent / "conf"), "-m", *TINY, PACKED, *grid)
    ctrl_c(process, once=lambda: list(work.glob("runs/default/packs/*.ckpt")))
    assert list(work.glob("runs/default/packs/*.ckpt"))
    assert not list(work.glob("runs/default/*/record.json"))
    status, _, err = sweep(work, PACKED, *grid)
    assert status == 0, err
    ours, theirs = (by_id(work / name / "default") for name in ("runs", "whole"))
    assert ours.keys() == theirs.keys()
    for run_id, record in ours.items():
        assert record["metrics"] == theirs[run_id]["metrics"]
        assert record["provenance"]["lanes"] == theirs[run_id]["provenance"]["lanes"] == 4
        assert same(*(work / name / "default" / run_id / "weights.pt" for name in ("runs", "whole")))


@pytest.mark.kills
@pytest.mark.timeout(1800)
def test_ten_kills_at_random_moments_end_in_the_same_table(work):
    """Four strategies of the ablation with all their strengths, and steps enough that ten lives do not get them done;
    how long each attempt lives, and what it leaves, is printed."""
    import random

    import pandas as pd

    arguments = ("experiment=ablation", PACKED, "regularization=none,l2,early_stopping,sam", "seed=0,1")
    arguments += ("trainer.max_steps=6000", "trainer.accelerator=cpu", "checkpoint_seconds=1")
    status, _, err = typed(work, "genbench", *arguments, "runs_dir=whole")
    assert status == 0, err
    continued, draw = 0, random.Random()
    for _ in range(10):
        process = start(work, *arguments)
        if training := draw.random() < 0.7:  # else it may be killed while it plans
            since, notes = time.time(), f"runs/ablation/*/{progress.FILE}"
            while not any(progress.read(path.parent, since=since) for path in work.glob(notes)):
                assert process.poll() is None
                time.sleep(0.1)
        life = draw.uniform(0, 8)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(life)
        assert process.returncode is None  # it is in the midst of something
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done, packs = (len(list(work.glob(f"runs/ablation/{what}"))) for what in ("*/record.json", "packs/*.ckpt"))
        continued += packs > 0
        print(
            f"killed after {life:.1f} s{' of training' * training}: {done} runs of 64 done, {packs} packs to continue"
        )
    assert continued
    status, _, err = typed(work, "genbench", *arguments)
    assert status == 0, err
    ours, theirs = (pd.read_csv(work / name / "ablation" / "table.csv") for name in ("runs", "whole"))
    kept = theirs.metric != "seconds.fit"
    assert kept.sum() == 4 * 12
    pd.testing.assert_frame_equal(ours[kept], theirs[kept], check_exact=True)
