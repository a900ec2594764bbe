"""Numbers of what other callbacks measured: alone, in a pack, resumed and in another project, from their histories."""

import shutil

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from genbench.callbacks import Gap, Measures, Measuring, Optimization, Trajectory
from genbench.callbacks.trajectory import curves, reduced
from genbench.measures import Estimate, l2_norm
from genbench.measures.trajectory import At, Fall, First, Largest, Mean, Value
from genbench.runs import execute, plan
from genbench.runs.run import Interrupted
from tests.helpers.lightning_projects import Plain, fit, trainer

LOSS, ACC = "train/performance/cross_entropy", "train/performance/accuracy"
SETTINGS = (
    "callbacks=trajectory",
    "measures=norms",
    "callbacks.gap.every_n_steps=5",
    "callbacks.weight_norms.every_n_steps=5",
    "data.val_fraction=0",
    "+callbacks.trajectory.metrics.loss={_target_:genbench.measures.trajectory.At,metric:'" + LOSS + "',steps:[5,20]}",
    "+callbacks.trajectory.metrics.fitted={_target_:genbench.measures.trajectory.First,metric:'"
    + LOSS
    + "',at_most:2.1}",
    "+callbacks.trajectory.metrics.norm={_target_:genbench.measures.trajectory.Value,metric:weights/norm/l2,"
    "when:{_target_:genbench.measures.trajectory.Smallest,metric:'test/performance/cross_entropy'}}",
)


def numbers(record):
    return {key: value for key, value in record["metrics"].items() if "/trajectory/" in key}


def rows(callback, key):
    return {row["step"]: row[key] for row in callback.history}


def test_it_reads_histories_wherever_it_stands_also_what_is_measured_after_the_last_step():
    gap = Gap(every_n_steps=2)
    first = Trajectory(
        metrics={
            "loss": At(metric=LOSS, steps=[2, 14, 20]),
            "best": Value(metric="weights/norm/l2", when=Largest(metric="val/performance/accuracy")),
            "end": At(metric="weights/norm/l2", steps=[21]),
        }
    )
    norms = Measures(measures={"l2": l2_norm}, every_n_steps=1)
    trained = fit(callbacks=[first, gap, norms])  # seven steps in each of three epochs
    losses, accuracies, sizes = (
        rows(each, key) for each, key in ((gap, LOSS), (gap, "val/performance/accuracy"), (norms, "weights/norm/l2"))
    )
    best = max(accuracies, key=accuracies.get)
    found = {key: each.value for key, each in first.results.items()}
    assert found == {
        "train/trajectory/loss_at_2": losses[2],
        "train/trajectory/loss_at_14": losses[14],
        "train/trajectory/loss_at_20": losses[20],
        "weights/trajectory/best": sizes[best],
        "weights/trajectory/end_at_21": sizes[21],
    }
    for key, value in found.items():
        assert float(trained.callback_metrics[key]) == pytest.approx(value)


def test_it_changes_no_training():
    plain, watched = (
        fit(callbacks=[Gap(every_n_steps=2), *more])
        for more in ([], [Trajectory(metrics={"fitted": First(metric=ACC, at_least=0.9)})])
    )
    ours, theirs = plain.lightning_module.state_dict(), watched.lightning_module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_resumed_training_gives_the_same_numbers(tmp_path):
    def callbacks():
        metrics = {"loss": At(metric=LOSS, steps=[2, 20]), "fitted": First(metric=LOSS, at_most=1.05)}
        return Trajectory(metrics=metrics), Gap(every_n_steps=2)

    (whole, gap), (again, resumed) = callbacks(), callbacks()
    saved = ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, every_n_train_steps=7)
    torch.manual_seed(0)
    trainer([whole, gap, saved], enable_checkpointing=True).fit(Plain())
    kept = min(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    trainer([again, resumed]).fit(Plain(), ckpt_path=kept)
    assert rows(resumed, LOSS)[2] == rows(gap, LOSS)[2]
    assert again.results["train/trajectory/loss_at_2"].value == whole.results["train/trajectory/loss_at_2"].value
    assert again.results["train/trajectory/loss_at_20"].value == rows(resumed, LOSS)[20]


class Own(Measuring):
    """Somebody's callback, which does not say beforehand what it measures."""

    def measure(self, trainer, pl_module):
        return {"val/own/count": Estimate(trainer.global_step)}


def test_a_metric_that_no_callback_measures():
    wanted = {"x": First(metric="val/performance/acuracy", at_least=1)}
    with pytest.raises(
        ValueError, match=r"metrics.x reads 'val/performance/acuracy', .*mean 'val/performance/accuracy'"
    ):
        fit(callbacks=[Gap(), Trajectory(metrics=wanted)])
    with pytest.raises(ValueError, match="which no callback measures"):
        fit(
            callbacks=[Optimization(), Trajectory(metrics={"x": First(metric="test/performance/accuracy", at_least=1)})]
        )
    # a set of measures names some of its estimates itself, and a callback of somebody's may measure anything
    for more, note in (
        ([Measures(), Gap()], "no callback measured train/flatness/lambda_7; did you mean 'train/flatness/lambda_1'?"),
        ([Own()], "no callback measured train/flatness/lambda_7; accepted: val/own/count"),
    ):
        late = Trajectory(metrics={"x": At(metric="train/flatness/lambda_7", steps=[3])})
        fit(callbacks=[*more, late], max_epochs=1)
        assert list(late.results) == ["train/trajectory/x_at_3"]
        found = late.results["train/trajectory/x_at_3"]
        assert (found.value, found.note) == (None, note)


def test_a_reducer_that_fails_leaves_null_with_the_reason(caplog):
    class Broken:
        metrics = (LOSS,)

        def __call__(self, curves):
            raise RuntimeError("broken")

    last = Trajectory(metrics={"x": Broken()})
    fit(callbacks=[Gap(), last], max_epochs=1)
    assert last.results["train/trajectory/x"].note == "RuntimeError: broken"
    assert "not measured: train/trajectory/x: RuntimeError: broken" in caplog.text
    with pytest.raises(ValueError, match=r"metrics.x is <.*accepted: a reducer of genbench.measures.trajectory"):
        Trajectory(metrics={"x": len})


def test_where_several_callbacks_measure_one_metric_the_first_known_value_counts():
    first, second = Gap(), Gap()
    first.history = [{"epoch": 1, "step": 4, LOSS: 3.0}, {"epoch": 2, "step": 8, LOSS: None, f"stderr/{LOSS}": 3.0}]
    second.history = [
        {"epoch": 1, "step": 4, LOSS: 7.0},
        {"epoch": 2, "step": 8, LOSS: 2.0},
        {"epoch": 3, "step": 9, ACC: 0.5},
    ]
    found = curves([first, pl.Callback(), second])
    assert found == {LOSS: [(4, 3.0), (8, 2.0)], ACC: [(9, 0.5)]}
    assert reduced({"a": First(metric=LOSS, at_most=2)}, found)["train/trajectory/a"].interval == (4, 8)


def test_alone_in_a_pack_and_after_a_kill_while_measuring(configure, tmp_path, monkeypatch):
    configs = configure(*SETTINGS, each=[{"seed": seed} for seed in range(3)])
    packed = execute.run_packed(configs, choices=[{}] * 3, overrides=[()] * 3)
    separate = [execute.run({**config, "runs_dir": str(tmp_path / "alone")}) for config in configs]
    for ours, theirs in zip(packed, separate, strict=True):
        assert ours["provenance"]["lanes"] == 3
        expected = pytest.approx(numbers(theirs), rel=1e-4)
        assert numbers(ours) == expected
        assert set(numbers(ours)) == {
            "train/trajectory/loss_at_5",
            "train/trajectory/loss_at_20",
            "train/trajectory/fitted",
            "weights/trajectory/norm",
        }
        assert ours["interval"].get("train/trajectory/fitted") == theirs["interval"].get("train/trajectory/fitted")

    # killed after training: the next command measures, from the state that was kept
    shutil.rmtree(tmp_path / "alone")

    def killed(self, trainer, pl_module):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Trajectory, "on_fit_end", killed)
        with pytest.raises(Interrupted):
            execute.run({**configs[0], "runs_dir": str(tmp_path / "alone")})
    resumed = execute.run({**configs[0], "runs_dir": str(tmp_path / "alone")})
    assert numbers(resumed) == numbers(separate[0])
    assert all(value is not None for key, value in numbers(resumed).items() if "loss" in key)


def test_the_training_loss_of_every_epoch_is_a_curve_too(configure, tmp_path):
    """With full batches an epoch is a step, and its loss is that before the step."""
    config = configure(
        "callbacks=trajectory", "measures=norms", "data.batch_size=null", "trainer.max_steps=4",
        "callbacks.gap.every_n_steps=1",
        "+callbacks.trajectory.metrics.objective={_target_:genbench.measures.trajectory.At,"
        "metric:train/optimization/objective,steps:[2,3,4]}",
        "+callbacks.trajectory.metrics.loss={_target_:genbench.measures.trajectory.At,metric:'" + LOSS + "',"
        "steps:[1,2,3]}",
    )  # fmt: skip
    (packed,) = execute.run_packed([config], choices=[{}], overrides=[()])
    alone = execute.run({**config, "runs_dir": str(tmp_path / "alone")})
    for record in (packed, alone):
        found = numbers(record)
        for step in (1, 2, 3):
            before = found[f"train/trajectory/loss_at_{step}"]
            assert found[f"train/trajectory/objective_at_{step + 1}"] == pytest.approx(before, rel=1e-5)


def test_an_unknown_metric_is_refused_before_a_run(configure):
    config = configure(
        "callbacks=trajectory",
        "data.val_fraction=0",
        "+callbacks.trajectory.metrics.x={_target_:genbench.measures.trajectory.First,metric:'val/performance/accuracy',"
        "at_least:1}",
    )
    with pytest.raises(ValueError, match="reads 'val/performance/accuracy', which no callback measures"):
        plan.check(config)  # there is no validation split


class Spread:
    """A reducer of one's own, whose numbers are called by what was measured."""

    metrics = ("test/performance/accuracy",)

    def __call__(self, curves):
        return {str(step): Estimate(value) for step, value in curves[self.metrics[0]]}


def test_the_keys_that_it_will_have_are_known_before_training():
    accuracy, norm = "test/performance/accuracy", "weights/norm/l2"
    metrics = {
        "a": At(metric=accuracy, steps=[5, 20]),
        "first": First(metric=accuracy, at_least=0.5),
        "top": Largest(metric=norm),
        "fall": Fall(metric=norm, window=3),
        "mean": Mean(metric=norm),
        "own": Spread(),
    }
    assert Trajectory(metrics=metrics).keys([]) == [
        "test/trajectory/a_at_5",
        "test/trajectory/a_at_20",
        "test/trajectory/first",
        "weights/trajectory/top",
        "weights/trajectory/top_step",
        "weights/trajectory/fall",
        "weights/trajectory/fall_step",
        "weights/trajectory/mean",
        "test/trajectory/own*",
    ]
