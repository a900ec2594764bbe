"""``data.batch_size=null``: every step has all training examples."""

import pytest
import torch
import torch.nn.functional as F

from genbench.runs import build, execute, packing, plan

CHOSEN = (
    "data.batch_size=null",
    "optimizer=sgd",
    "callbacks.gap.every_n_epochs=null",
    "~callbacks.weight_norms",
    "~callbacks.measures",
)


def weights(record, runs, name="weights"):
    return torch.load(runs / record["experiment"] / record["run_id"] / f"{name}.pt", weights_only=True)


def test_a_step_is_that_of_gradient_descent(configure, tmp_path):
    """Of logistic regression: W − lr/N Σ (p − y) xᵀ over all N = 180 train examples."""
    record = execute.run(configure(*CHOSEN, "model=linear", "trainer.max_steps=1"))
    before, after = (weights(record, tmp_path / "runs", name) for name in ("initial", "weights"))
    x, y = build.build_data(configure(*CHOSEN)).tensors("train")
    assert len(y) == 180
    x, weight, bias = x.flatten(1).double(), before["head.weight"].double(), before["head.bias"].double()
    error = (x @ weight.T + bias).softmax(1) - F.one_hot(y, 10)
    torch.testing.assert_close(after["head.weight"].double(), weight - 0.3 / 180 * error.T @ x, rtol=0, atol=1e-6)
    torch.testing.assert_close(after["head.bias"].double(), bias - 0.3 * error.mean(0), rtol=0, atol=1e-6)


def test_it_is_packed_with_sets_of_its_own_size(configure, tmp_path):
    configs = [configure(*CHOSEN, f"seed={seed}") for seed in range(2)]
    found = execute.run_packed(configs, choices=[{}] * 2, overrides=[()] * 2)
    for config, record in zip(configs, found, strict=True):
        assert record["provenance"]["lanes"] == 2
        alone = execute.run({**config, "runs_dir": str(tmp_path / "alone")})
        ours, theirs = weights(record, tmp_path / "runs"), weights(alone, tmp_path / "alone")
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    keys = [packing.key(plan.plan(configure(*CHOSEN, f"data.train_size={size}"))) for size in (200, 201)]
    assert keys[0] != keys[1]  # an epoch is one step of each, but of more examples


def test_the_order_of_the_examples_does_not_matter(configure, tmp_path):
    """Only the seed of the order differs; at 20 examples a batch the weights differ by far more."""
    apart = []
    for size in ("null", "20"):
        found = []
        for order in (0, 1):
            config = configure(*CHOSEN, "trainer.max_steps=5", f"data.batch_size={size}")
            data = build.build_data(config)
            module = build.build_module(config, data).double()
            data.order_seeds = (order,)
            data._splits = {name: (x.double(), y) for name, (x, y) in data._splits.items()}
            trainer = build.build_trainer(
                config, steps_per_epoch=data.steps_per_epoch, default_root_dir=None, enable_checkpointing=False
            )
            with build.quiet():
                trainer.fit(module, datamodule=data)
            found.append(torch.cat([p.detach().flatten() for p in module.network.parameters()]))
        apart.append(float((found[0] - found[1]).norm() / found[0].norm()))
    assert apart[0] < 1e-12
    assert apart[1] > 1e-3


def test_the_batch_is_as_large_as_the_train_split(configure):
    data = build.build_data(configure("data.batch_size=null", "data.val_fraction=0.25"))
    assert (data.batch_size, data.steps_per_epoch) == (150, 1)
    with pytest.raises(ValueError, match="batch_size is 151"):
        build.build_data(configure("data.batch_size=151", "data.val_fraction=0.25"))
