"""Two processes that share every batch against one: every method of the configuration folder, and what may go wrong."""

import os
from datetime import timedelta
from itertools import combinations

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import nn

from genbench.config import folder
from genbench.models.slots import Dropout
from genbench.regularization import Method
from genbench.rng import StepRandom
from genbench.runs import build, distributed, hooks
from genbench.runs.executors.processes import start_server
from genbench.training import Finish, Lane, Shard, StopTogether
from tests.helpers.choices import METHOD, MODEL, SEPARATE, STRONG, choices

pytestmark = pytest.mark.timeout(900)  # two processes and this one train every case before the first test
STEPS = 20
WHOLE = ("ghost_batch_norm", "gradient_norm")  # of a batch that no process has
METHODS = [name for name in choices("regularization") if name not in WHOLE]
SCHEDULERS = choices("scheduler")
OPTIMIZERS = [name for name in choices("optimizer") if name not in SEPARATE]
# every method with the MLP, optimizers and schedules taking turns; what depends on the network with the others
CASES = {
    method: [
        *(f"{group}={name}" for group, name in (("regularization", method), ("model", "mlp"), *turns)),
        *METHOD.get(method, []),
        *(STRONG.get(method, []) if method != "early_stopping" else []),  # which would end it early
    ]
    for method, *turns in (
        (m, ("optimizer", OPTIMIZERS[i % len(OPTIMIZERS)]), ("scheduler", SCHEDULERS[i % len(SCHEDULERS)]))
        for i, m in enumerate(METHODS)
    )
} | {
    "several": ["regularization=[l2,mixup,augmentation,sam,gradient_clipping,dropout,swa]", "model=cnn"],
    "cnn with batch norm, twice a step": ["regularization=[batch_norm,sam,swa]", "model=cnn"],
    "gru": ["regularization=[dropout,batch_norm]", "model=gru"],
    "penalties with a pass of their own": [
        "regularization=[jacobian,gradient_penalty,batch_norm,dropout,sam]",
        "model=cnn",
    ],
    "members that stop early": [
        "regularization=[ensemble,early_stopping]",
        "regularization.early_stopping.patience=1",
        "optimizer.lr=0.1",
    ],
    "a threshold": ["callbacks.stop.train_accuracy=0.2"],
    "the midst of an epoch": [],
    "a loss within an epoch": ["callbacks.stop.train_loss=1.5", "callbacks.stop.tolerance=0.01"],
    "parameters without gradients": ["optimizer=adamw"],
    "an optimizer that averages": ["regularization=batch_norm", "optimizer=schedule_free_adamw"],
}


class Sometimes(nn.Module):
    """Uses one layer for few examples, and another never."""

    threshold = 1.5

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.all, self.rare, self.never = (nn.Linear(40, classes) for _ in range(3))

    def forward(self, x):
        x = x.flatten(1)
        rare = x[:, 0] > self.threshold
        output = self.all(x)
        return output.index_add(0, rare.nonzero().flatten(), self.rare(x[rare])) if rare.any() else output


class Ends(pl.Callback):
    """Ends training in the midst of an epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= 13


def trained(config, shard=None):
    """Everything that training leaves in the lanes, in float64, and the history."""
    data = build.build_data(config)
    module = build.build_module(config, data, shard).double()
    data._splits = {name: (x.double(), y) for name, (x, y) in data._splits.items()}
    first = shard is None or shard.rank == 0
    asking = list(build.build_callbacks(config).values()) if first else []
    callbacks = [Finish(), *asking]
    if shard is not None:
        callbacks.append(StopTogether(shard, each_batch=shard.broadcast(any(map(hooks.acts_on_batches, asking)))))
    trainer = build.build_trainer(
        config,
        shard=shard,
        steps_per_epoch=data.steps_per_epoch,
        default_root_dir=None,
        enable_checkpointing=False,
        callbacks=callbacks,
    )
    with build.quiet():
        trainer.fit(module, datamodule=data)
    return [lane.state_dict() for lane in module.lanes], module.history


def process(rank, of, port, configs, results):
    """One of the processes: trains everything in turn."""
    torch.set_num_threads(1)
    os.environ |= distributed.environment_of(rank, of, port)  # its traffic stays on this machine
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=of, timeout=timedelta(seconds=60))
    torch.save({name: trained(config, Shard(rank, of)) for name, config in configs.items()}, results / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two processes made of every case, and what one did."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    results = tmp_path_factory.mktemp("share")
    nothing = ["~callbacks.gap", "~callbacks.weight_norms", "~callbacks.measures"]
    short = ["data.train_size=200", "data.val_fraction=0.1", "data.batch_size=20", f"trainer.max_steps={STEPS}"]
    configs = {}
    with initialize_config_dir(str(folder()), version_base="1.3"):
        for name, overrides in CASES.items():
            small = next((MODEL[model] for model in MODEL if f"model={model}" in overrides), [])
            composed = compose("train", [*short, *nothing, "trainer.accelerator=cpu", *overrides, *small])
            configs[name] = OmegaConf.to_container(composed, resolve=True)
    configs["the midst of an epoch"]["callbacks"]["ends"] = {"_target_": f"{__name__}.Ends"}
    configs["parameters without gradients"]["model"] = {"_target_": f"{__name__}.Sometimes"}
    with distributed.store() as (port, _):
        context = start_server()
        both = [
            context.Process(target=process, args=(rank, 2, port, configs, results), daemon=True) for rank in range(2)
        ]
        for one in both:
            one.start()
        alone = {name: trained(config) for name, config in configs.items()}
        for one in both:
            one.join(600)
        assert [one.exitcode for one in both] == [0, 0]
    return alone, *(torch.load(results / f"{rank}.pt", weights_only=True) for rank in range(2))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(processes, case):
    """Weights, and what methods and batch norms keep: alike on both, and as on one device to 1e-9."""
    (one, history), (first, theirs), (second, _) = (made[case] for made in processes)
    for whole, ours, others in zip(one, first, second, strict=True):
        assert whole.keys() == ours.keys()
        assert all(torch.equal(ours[key], others[key]) for key in ours)
        kept = [key for key in whole if torch.isfinite(whole[key]).all()]
        a, b = (torch.cat([state[key].double().flatten() for key in kept]) for state in (whole, ours))
        assert float((a - b).norm() / a.norm()) < 1e-9
    assert [(row["epoch"], row["step"]) for row in history] == [(row["epoch"], row["step"]) for row in theirs]
    assert {"a threshold": 9, "the midst of an epoch": 13, "a loss within an epoch": 19}.get(case, STEPS) == history[
        -1
    ]["step"]
    for row, other in zip(history, theirs, strict=True):
        assert other["train/optimization/objective"] == pytest.approx(row["train/optimization/objective"], rel=1e-9)


def test_every_case_trains_and_differs_from_the_others(processes):
    """A case that left the network alone, or a method without effect, would prove nothing."""
    alone = processes[0]
    seen = {
        name: torch.cat(
            [t.flatten() for key, t in state.items() if key.startswith("network") and key.endswith("weight")]
        )
        for name in METHODS
        if name not in ("batch_norm", "ensemble")  # of other parameters
        for state in [alone[name][0][0]]
    }
    alike = [(a, b) for a, b in combinations(seen, 2) if torch.equal(seen[a], seen[b])]
    assert not alike


def test_a_process_has_its_rows_of_what_is_drawn_for_the_whole_batch():
    x, y, draw = torch.arange(12.0).view(6, 2), torch.arange(6), StepRandom(3, 7)
    parts = [Shard(rank, 3).rows(x, y, draw) for rank in range(3)]
    for whole, index in ((x, 0), (y, 1)):
        assert torch.equal(torch.cat([part[index] for part in parts]), whole)
    for kind in ("uniform", "normal"):
        rows = torch.cat([getattr(part[2], kind)("site", 2, 5) for part in parts])
        assert torch.equal(rows, getattr(draw, kind)("site", 6, 5))
    assert parts[1][2].beta("share", 0.3) == draw.beta("share", 0.3)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="a batch of 10 examples cannot be shared by 3 processes"):
        Shard(0, 3).rows(torch.zeros(10, 2), torch.zeros(10), StepRandom(0, 0))


@pytest.mark.parametrize("method", WHOLE)
def test_a_method_that_needs_the_whole_batch_is_refused(configure, method):
    config = configure(f"regularization={method}")
    data = build.build_data(config)
    build.build_module(config, data)
    with pytest.raises(ValueError, match=r"needs the whole batch, which 2 processes share; accepted: one process"):
        build.build_module(config, data, Shard(0, 2))


class Columns(nn.Module):
    """Drops what does not begin with the batch."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 3), Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(x).T).T


class Shuffles(Method):
    """Orders the examples after the batch was shared."""

    def penalty(self, net, x, y, output, draw):
        return output[draw.permutation("order", len(output))].mean()


@pytest.mark.parametrize("case", ["slot", "order"])
def test_draws_that_are_not_one_for_each_example_are_refused(case):
    net = Columns()
    if case == "order":
        net.drop.set(0)
    lane = Lane(net, [Shuffles()] if case == "order" else [], seed=0)
    lane.shard = Shard(0, 2)
    with pytest.raises(ValueError, match=r"draw at 'dropout\.0' of shape \(3, 5\)|draw at 'order' orders"):
        lane.gradient_step(
            torch.randn(10, 4), torch.zeros(10).long(), draw=StepRandom(0, 0), lr=0.1, backward=lambda loss: 0
        )
