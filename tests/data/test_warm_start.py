"""``data.warm_start_steps``: the first steps have batches of another size."""

import pytest
import torch

from genbench.data import Batches
from genbench.data.batches import WarmStart
from genbench.runs import build, execute

PLAIN = ("callbacks.gap.every_n_epochs=null", "~callbacks.weight_norms", "~callbacks.measures")
ALL = ("data.batch_size=null", "data.warm_start_batch_size=20")  # of 180 examples: nine steps an epoch of the small


def loader(size, *, seeds=None, warm_start=None):
    return Batches(
        torch.arange(12.0)[:, None], torch.arange(12), batch_size=size, seed=3, seeds=seeds, warm_start=warm_start
    )


def drawn(batches, epochs):
    found = []
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        found += [y.tolist() for _, y in batches]
    return found


@pytest.mark.parametrize("size", [12, 6, 5, 4])
@pytest.mark.parametrize("small", [1, 4, 5, 12])
def test_the_first_batches_are_those_of_the_other_size_and_the_others_stay(size, small):
    steps = 12 // size * 5
    warm = loader(size, warm_start=WarmStart(steps, small))
    assert len(warm) == len(loader(size))
    found, other = drawn(warm, 8), drawn(loader(small), -(-steps // (12 // small)))
    assert found[:steps] == other[:steps]
    assert found[steps:] == drawn(loader(size), 8)[steps:]


def test_each_lane_has_the_batches_of_its_seed():
    found = drawn(loader(12, seeds=(7, 3), warm_start=WarmStart(3, 4)), 4)
    alone = drawn(loader(12, warm_start=WarmStart(3, 4)), 4)
    assert [step[1] for step in found] == alone
    assert [len(step[0]) for step in found] == [4, 4, 4, 12]


def test_a_position_within_the_warm_start_continues():
    whole = drawn(loader(4, warm_start=WarmStart(6, 2)), 3)
    resumed = loader(4, warm_start=WarmStart(6, 2))
    resumed.load_state_dict({"epoch": 1, "position": 2})
    resumed.set_epoch(1)
    assert [y.tolist() for _, y in resumed] == whole[5:6]


def test_until_its_last_step_it_is_the_training_with_small_batches(configure, tmp_path):
    def weights(*overrides, steps):
        config = configure(*PLAIN, *overrides, f"trainer.max_steps={steps}")
        record = execute.run(config)
        folder = tmp_path / "runs" / record["experiment"] / record["run_id"]
        return torch.load(folder / "weights.pt", weights_only=True)

    small, warm = weights("data.batch_size=20", steps=11), weights(*ALL, "data.warm_start_steps=11", steps=11)
    assert all(torch.equal(small[name], warm[name]) for name in small)
    # the twelfth step is on all examples
    later = weights(*ALL, "data.warm_start_steps=11", steps=12)
    for other in (weights("data.batch_size=20", steps=12), warm):
        assert not torch.equal(later["head.weight"], other["head.weight"])


def test_a_pack_draws_again_where_the_size_changes(configure, tmp_path):
    """Dropout's masks have the shape of the batch."""
    chosen = (*PLAIN, *ALL, "data.warm_start_steps=4", "trainer.max_steps=8", "regularization=dropout", "optimizer=sgd")
    configs = configure(*chosen, each=[{"seed": seed, "data.seed": seed} for seed in range(2)])
    found = execute.run_packed(configs, choices=[{}] * 2, overrides=[()] * 2)
    for config, record in zip(configs, found, strict=True):
        assert record["provenance"]["lanes"] == 2, record["notes"]
        alone = execute.run({**config, "runs_dir": str(tmp_path / "alone")})
        ours, theirs = (
            torch.load(folder / each["experiment"] / each["run_id"] / "weights.pt", weights_only=True)
            for folder, each in ((tmp_path / "runs", record), (tmp_path / "alone", alone))
        )
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_bad_input(configure):
    for overrides, message in (
        (
            ("data.warm_start_steps=10",),
            "warm_start_steps is 10; accepted: a multiple of the 9 steps",
        ),
        (("data.warm_start_steps=-9",), "warm_start_steps is -9; accepted: an integer of at least 0"),
        (("data.warm_start_steps=9",), "warm_start_batch_size is None; accepted: an integer from 1 to 180"),
        (("data.warm_start_batch_size=181",), "warm_start_batch_size is 181; accepted: an integer from 1 to 180"),
        (("data=mnist1d_stream", "data.warm_start_steps=9"), "warm_start_steps is 9; accepted: 0 where data.fresh is"),
    ):
        with pytest.raises(ValueError, match=message):
            build.build_data(configure(*overrides))
