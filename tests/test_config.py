"""What identifies a run and what is refused."""

import copy

import pytest
import torch

from genbench.checks import ConfigError, nearest
from genbench.config import bind
from genbench.runs import execute, plan

COSINE = {"_target_": "genbench.training.schedule.cosine", "_partial_": True}
L2 = "genbench.regularization.L2"


def changed(plain, key, value):
    plain = copy.deepcopy(plain)
    *path, last = key.split(".")
    node = plain
    for part in path:
        node = node[part]
    node[last] = value
    return plain


def test_defaults_are_filled_in_from_signatures(configure):
    bound = bind(configure("optimizer=momentum"))
    assert bound["optimizer"]["dampening"] == 0
    assert bound["optimizer"]["momentum"] == 0.9
    assert "params" not in bound["optimizer"]
    assert "input_shape" not in bound["model"]


def test_what_a_component_passes_on_is_filled_in_and_checked_too(configure):
    plain = configure("data=mnist1d_stream")
    del plain["data"]["label_noise"]
    assert bind(plain)["data"]["label_noise"] == 0
    with pytest.raises(ConfigError, match=r"data\.lable_noise is not a setting .* did you mean 'label_noise'"):
        bind(changed(plain, "data.lable_noise", 0.1))


def test_what_cannot_change_the_numbers_is_no_part_of_the_identity(configure):
    plain = configure()
    run_id = plan.plan(plain).run_id
    for key, value in {"name": "other", "runs_dir": "elsewhere", "logger": {}, "checkpoint_seconds": 1.0}.items():
        assert plan.plan(changed(plain, key, value)).run_id == run_id, key
    assert plan.plan(changed(plain, "measures", {})).run_id == run_id  # they count where a callback takes them


def test_a_key_may_be_a_number(configure):
    plain = configure()
    figure = {"name": "flips", "x": "data.flips", "y": "test/performance/accuracy", "names": {0: "none", 0.5: "half"}}
    named = {**plain, "table": {"title": "Flips", "rows": ["model"], "columns": [], "figures": [figure]}}
    assert plan.plan(named).run_id == plan.plan(plain).run_id


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("threads", 2),
        ("data.train_size", 199),
        ("data.label_noise", 0.1),
        ("optimizer.lr", 0.011),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.max_steps", 28),
        ("callbacks.gap.every_n_epochs", 2),
        ("callbacks.measures.measures.lambda_1.k", 2),
    ],
)
def test_what_could_change_the_numbers_is(configure, key, value):
    plain = configure()
    assert plan.plan(changed(plain, key, value)).run_id != plan.plan(plain).run_id


def test_a_setting_left_at_its_default_hashes_like_the_default_spelled_out(configure):
    plain = configure("optimizer=adam")
    spelled = changed(plain, "optimizer.weight_decay", 0)
    assert plan.plan(spelled).run_id == plan.plan(plain).run_id


def test_one_setting_written_in_two_ways_is_one_run(configure):
    pairs = {"data.label_noise": (0, 0.0), "trainer.accelerator": ("cpu", "auto"), "optimizer.lr": (1, 1.0)}
    for key, (one, other) in pairs.items():
        if key == "trainer.accelerator" and torch.cuda.is_available():
            continue
        plans = [plan.plan(changed(configure(), key, value)) for value in (one, other)]
        assert plans[0] == plans[1], key
    order = [plan.plan(configure(f"regularization=[{names}]")).run_id for names in ("l2,mixup", "mixup,l2")]
    assert order[0] == order[1]


def test_the_content_of_the_data_is_part_of_the_identity(configure, monkeypatch):
    class Changed:
        digest = "another content"

    before = plan.plan(configure()).run_id
    monkeypatch.setattr(plan, "build_data", lambda config: Changed())
    assert plan.plan(configure()).run_id != before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.lrr", 0.1, "optimizer.lrr is not a setting of torch.optim.Adam; did you mean 'lr'?"),
        ("data.trian_size", 5, "data.trian_size is not a setting .* did you mean 'train_size'?"),
        ("regularization", {"l2": {"_target_": L2, "strenght": 1}}, "did you mean 'strength'?"),
        ("regularization", {"l2": {"_target_": L2}}, "regularization.l2.strength is missing"),
        ("measures.trace.probs", 3, "measures.trace.probs .*did you mean 'probes'?"),
        ("model._target_", "genbench.models.MLPP", "model._target_='genbench.models.MLPP' cannot be imported"),
        ("optimizer.lr", float("nan"), "optimizer.lr"),
        ("optimizer.lr", -1, "optimizer.lr is -1"),
        ("optimizer.lr", "abc", "optimizer.lr is 'abc'"),
        ("optimizer.eps", float("inf"), "optimizer.eps=inf is not a finite number"),
        ("seed", -1, "seed is -1; accepted"),
        ("threads", 0, "threads is 0; accepted"),
        ("name", "a/b", "name='a/b' is not the name of a folder"),
        ("trainer.max_steps", 0, "trainer.max_steps is 0; accepted"),
        ("trainer.max_epochs", -3, "trainer.max_epochs is -3; accepted"),
        ("trainer.max_steps", None, "training would never end"),
        ("data.train_size", 0, "data.train_size is 0"),
        ("data.train_size", 4001, "4000"),
        ("data.label_noise", 1.5, "data.label_noise is 1.5"),
        ("trainer.accelerator", "gpu", "trainer: .*gpu"),
        ("trainer.accelerator", "quantum", "trainer.accelerator is 'quantum'; accepted: auto, cpu, gpu, mps"),
        ("trainer.devices", 2, "trainer.devices is 2; accepted: 1, or more with trainer=ddp"),
        ("trainer.precision", "64-true", "trainer.precision is '64-true'; accepted: 32-true, bf16-mixed"),
        ("trainer.gradient_clip_val", 1.0, "trainer.gradient_clip_val is not a setting here"),
        ("trainer.max_step", 5, "trainer.max_step is not a setting .*did you mean 'max_steps'?"),
        ("threads", 10**8, "threads is 100000000; accepted"),
        ("checkpoint_seconds", -1, "checkpoint_seconds is -1; accepted"),
        ("callbacks.gapp", {"every_n_epochs": 3}, "callbacks.gapp is not chosen.*did you mean 'gap'?"),
        ("regularization.l2", {"strength": 3}, "regularization.l2 is not chosen, so it cannot be set"),
        ("scheduler", COSINE | {"warmup": 2}, "scheduler.warmup is 2; accepted"),
        ("model.activation", "sine", "model.activation is 'sine'; accepted"),
    ],
)
def test_an_invalid_configuration_is_refused_in_one_line(configure, tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message) as refusal:
        execute.run(changed(configure(), key, value))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()


def test_a_model_that_does_not_fit_the_data_is_refused(configure):
    narrow = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}
    with pytest.raises(ConfigError, match="model Linear does not fit the data"):
        plan.check(changed(configure(), "model", narrow))
    flat = {"_target_": "torch.nn.Flatten"}
    with pytest.raises(ConfigError, match=r"gives outputs of shape \(40,\); the data has 10 classes"):
        plan.check(changed(configure(), "model", flat))


def test_a_run_whose_first_step_would_fail_is_refused(configure):
    with pytest.raises(ConfigError, match=r"first training step fails: .*more than 1 value per channel"):
        execute.run(configure("regularization=batch_norm", "data.batch_size=1"))
    with pytest.raises(ConfigError, match=r"watches the validation split; set data\.val_fraction > 0"):
        execute.run(configure("regularization=early_stopping", "data.val_fraction=0"))


def test_nearest_names_the_close_one_or_all():
    assert nearest("droput", ["dropout", "l2"]) == "did you mean 'dropout'?"
    assert nearest("xyz", ["dropout", "l2"]) == "accepted: dropout, l2"
