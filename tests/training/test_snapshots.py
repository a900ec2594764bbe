"""Snapshot ensembles: which weights are kept, what the network is made of them, and that a record says it all."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from genbench import records
from genbench.measures import Snapshot, distance_from_init, ensemble_curve
from genbench.models import Ensemble
from genbench.regularization import SWA
from genbench.regularization.base import in_order
from genbench.regularization.snapshots import Snapshots
from genbench.runs import build, execute, measure_checkpoint, plan
from genbench.training import AtomicCheckpointIO, Checkpoint, schedule
from tests.helpers.commands import composed
from tests.helpers.equality import same
from tests.helpers.networks import network
from tests.helpers.runs import Blobs, Trace


@pytest.mark.parametrize("cycles", [2, 4, 5, 20])  # of 15 steps
def test_the_members_are_the_networks_at_the_cycles_ends(fit, cycles):
    trace = Trace()
    module = fit(lambda: [trace, Snapshots(cycles=cycles)], epochs=3)
    steps = [[p.detach() for p in network().parameters()], *trace.steps]
    assert len(steps) == 16
    assert len(module.network.members) == cycles
    for index, member in enumerate(module.network.members, start=1):
        kept = steps[index * 15 // cycles]
        assert all(torch.equal(p, q) for p, q in zip(member.parameters(), kept, strict=True))


def test_its_probabilities_are_the_mean_of_the_members(fit):
    net = fit(lambda: [Snapshots(cycles=3)]).network
    x, _ = Blobs().splits["val"]
    mean = torch.stack([member(x).softmax(-1) for member in net.members]).mean(0)
    torch.testing.assert_close(net(x).softmax(-1), mean)
    assert not torch.allclose(net.members[0](x), net.members[2](x))


def test_its_last_member_is_plain_training_on_the_schedule(fit):
    cycles = partial(schedule.cyclic, cycles=3)
    ensemble = fit(lambda: [Snapshots(cycles=3)], scheduler=cycles).network
    assert same(ensemble.members[-1], fit(scheduler=cycles).network)


def test_each_member_has_the_batch_statistics_of_its_weights(fit):
    module = fit(lambda: [Snapshots(cycles=3)], networks=[network(norm=True)])
    x, _ = Blobs().splits["train"]
    means = [member[1].running_mean for member in module.network.members]
    for member, mean in zip(module.network.members, means, strict=True):
        torch.testing.assert_close(mean, member[0](x).mean(0))
    assert not torch.allclose(means[0], means[2])


def test_cycles_that_had_not_ended_have_the_last_weights():
    net = network()
    method = Snapshots(cycles=4)
    method.build(net)
    params = list(net.parameters())
    for step in range(1, 8):  # of 20
        with torch.no_grad():
            for p in params:
                p.fill_(step)
        method.after_step(params, step / 20)
    assert [int(member[0].bias.detach()[0]) for member in method.finish(net, []).members] == [5, 7, 7, 7]


def test_an_ensemble_of_them_has_all_their_members(fit):
    pair = fit(lambda: [Snapshots(cycles=3)], seeds=(0, 1)).network
    assert len(pair.members) == 6
    alone = fit(lambda: [Snapshots(cycles=3)], networks=[network(1)], seeds=(1,)).network
    assert all(same(a, b) for a, b in zip(pair.members[3:], alone.members, strict=True))


def test_all_members_started_from_the_same_weights(fit):
    net = fit(lambda: [Snapshots(cycles=2)]).network
    start = network().state_dict()
    found = distance_from_init(Snapshot(net, F.cross_entropy, [Blobs().splits["train"]], initial=start))["distance"]
    squares = [sum((p - start[name]).square().sum() for name, p in member.named_parameters()) for member in net.members]
    assert found.value == pytest.approx(float(torch.stack(squares).sqrt().mean().detach()))


def test_it_resumes_bit_for_bit(fit, tmp_path):
    class Killed(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyError("killed")

    methods = lambda: [Snapshots(cycles=4)]  # noqa: E731
    settings = {"epochs": 5, "plugins": [AtomicCheckpointIO()], "scheduler": partial(schedule.cyclic, cycles=4)}
    whole = fit(methods, **settings)
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(KeyError, match="killed"):
        fit(methods, callbacks=[Checkpoint(path, seconds=0), Killed()], **settings)
    assert same(whole, fit(methods, callbacks=[Checkpoint(path, seconds=1e9)], ckpt_path=str(path), **settings))


RUN = ("regularization=snapshots", "regularization.snapshots.cycles=3", "model.width=12")


@pytest.mark.parametrize("scheduler", ["constant", "cosine"])
def test_a_record_says_by_which_schedule_it_was_trained(configure, scheduler):
    """One choice is enough, and what another schedule was chosen for is not lost: it is the same run."""
    plain = configure(*RUN, f"scheduler={scheduler}")
    planned = plan.plan(plain, choices={"scheduler": scheduler})
    cyclic = {"_target_": "genbench.training.schedule.cyclic", "_partial_": True, "cycles": 3}
    assert planned.bound["scheduler"] == cyclic
    assert planned.choices["scheduler"] == "cyclic"
    assert planned.run_id == plan.plan(configure(*RUN, "scheduler=cyclic", "scheduler.cycles=3")).run_id
    module = build.build_module(plain, build.build_data(plain))
    assert module.make_scheduler.func is schedule.cyclic
    assert module.make_scheduler.keywords == {"cycles": 3}


def test_a_finished_run_is_measured_with_its_curve_of_members(configure, tmp_path):
    record = execute.run(configure(*RUN, "regularization=[snapshots,batch_norm]", "callbacks={}", "logger={}"))
    folder = tmp_path / "runs" / record["experiment"] / record["run_id"]
    state = torch.load(folder / "weights.pt", weights_only=True)
    assert {key.split(".")[1] for key in state} == {"0", "1", "2"}
    found = measure_checkpoint.run(
        composed(f"checkpoint={folder}", "measures=ensemble", "split=test", "pictures=null", "device=cpu")
    )
    data = build.build_data(record["config"])
    nets = [build.build_module(record["config"], data).network for _ in range(3)]
    for index, net in enumerate(nets):
        prefix = f"members.{index}."
        net.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    snapshot = Snapshot(Ensemble(nets).eval(), F.cross_entropy, data.evaluation_batches("test"))
    curve = ensemble_curve(snapshot)
    assert set(curve) == {
        f"{name}_of_{m}"
        for name in ("accuracy", "cross_entropy", "calibration_error", "calibrated_cross_entropy")
        for m in (1, 2, 3)
    }
    for name, estimate in curve.items():
        assert found.estimates[f"test/performance/{name}"].value == estimate.value
    assert found.estimates["test/performance/accuracy"].value == curve["accuracy_of_3"].value


def test_callbacks_measure_the_ensemble_and_the_record_holds_it(configure):
    record = execute.run(configure(*RUN, "logger={}"))
    assert record["status"] == "completed", record["error"]
    assert record["notes"]["train/flatness/trace"] == "mean of 3 members"
    assert records.members(record["config"]) == 1


def test_no_other_method_sets_the_final_weights_beside_it():
    with pytest.raises(ValueError, match=r"regularization=snapshots\+swa: both set the final weights; choose one"):
        in_order({"snapshots": Snapshots(cycles=2), "swa": SWA(start=0.5)})


@pytest.mark.parametrize("cycles", [1, 2.0, True])
def test_what_is_no_number_of_cycles_is_refused(cycles):
    with pytest.raises(ValueError, match=r"cycles is .*; accepted: an integer of at least 2"):
        Snapshots(cycles=cycles)
