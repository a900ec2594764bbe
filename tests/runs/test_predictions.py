"""The predictions of a folder's runs are those of its records, on the same examples in the same order."""

import numpy as np
import pytest

from genbench import records
from genbench.analysis import bias_variance, influence, memorization
from genbench.checks import ConfigError
from genbench.runs import execute
from genbench.runs.predictions import predictions

FAST = ("callbacks.measures=null", "callbacks.weight_norms=null", "logger={}")


@pytest.fixture
def folder(configure, tmp_path):
    """Two seeds of each of two training subsets."""
    configs = configure(*FAST, each=[{"data.seed": subset, "seed": seed} for subset in (0, 1) for seed in (2, 3)])
    for config in configs:
        record = execute.run(config)
        assert record["status"] == "completed", record["error"]
    return tmp_path / "runs" / "default"


def test_they_are_those_of_the_records(folder):
    found = predictions(folder)
    by_id = {record["run_id"]: record for record in records.load(folder).records}
    assert sorted(zip(found.subsets, found.seeds, strict=True)) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert found.log_probabilities.shape == (4, len(found.labels), 10)
    assert np.allclose(found.probabilities.sum(-1), 1)
    rows = np.arange(len(found.labels))
    for run_id, log_p in zip(found.run_ids, found.log_probabilities, strict=True):
        metrics = by_id[run_id]["metrics"]
        assert (log_p.argmax(-1) == found.labels).mean() == metrics["test/performance/accuracy"]
        assert -log_p[rows, found.labels].mean() == pytest.approx(metrics["test/performance/cross_entropy"], rel=1e-5)
    parts = bias_variance(found.log_probabilities, found.labels, loss="cross_entropy", subsets=found.subsets)
    risk = np.mean([record["metrics"]["test/performance/cross_entropy"] for record in by_id.values()])
    assert parts["risk"].value == pytest.approx(risk, rel=1e-5)
    assert parts["variance_subsets"].value + parts["variance_seeds"].value == pytest.approx(parts["variance"].value)


def test_validation_examples_differ_between_subsets(folder):
    with pytest.raises(ConfigError, match=r"^run \w{12} has other examples in val than \w{12}$"):
        predictions(folder, split="val")
    one = [record["run_id"] for record in records.load(folder).records if record["config"]["data"]["seed"] == 0]
    assert predictions(folder, split="val", run_ids=one).subsets == (0, 0)


def test_runs_that_left_examples_out_say_which_and_tell_what_they_memorize(configure, tmp_path):
    """Of one ``data.seed``; memorization and influence are of these arrays."""
    settings = ("data.left_out=0.4", "data.seed=5", "data.train_size=50", "data.batch_size=10", "trainer.max_steps=120")
    configs = configure(*FAST, *settings, each=[{"seed": seed} for seed in range(8)])
    for config in configs:
        assert execute.run(config)["status"] == "completed"
    folder = tmp_path / "runs" / "default"
    train, test = predictions(folder, split="train"), predictions(folder)
    assert train.trained_on.shape == train.right.shape
    assert (train.trained_on.sum(1) == round(0.6 * train.right.shape[1])).all()
    assert len({tuple(row) for row in train.trained_on}) == 8
    assert not test.trained_on.any()
    known = train.trained_on.any(0) & ~train.trained_on.all(0)
    scores = memorization(train.right, train.trained_on)
    assert (scores.low[known] <= scores.high[known]).all()
    assert train.right[train.trained_on].mean() > train.right[~train.trained_on].mean() + 0.1
    assert influence(test.right, train.trained_on).value.shape == (len(test.labels), len(train.labels))


def test_what_cannot_be_compared_is_refused(folder, configure, tmp_path):
    with pytest.raises(ConfigError, match=r"^split=tset is not there; accepted: train, test, val$"):
        predictions(folder, split="tset")
    known = records.load(folder).records[0]["run_id"]
    with pytest.raises(ConfigError, match=rf"^run_ids has '{known[:-1]}'; did you mean '{known}'\?$"):
        predictions(folder, run_ids=[known[:-1]])
    with pytest.raises(ConfigError, match=r"^other has no completed run; accepted: "):
        predictions(tmp_path / "other")
    execute.run(configure(*FAST, "optimizer.lr=0.0123"))
    with pytest.raises(ConfigError, match=r"^default holds several configurations: .*lr.*; accepted: run_ids of one"):
        predictions(folder)
    assert len(predictions(folder, run_ids=[known]).seeds) == 1


def test_a_run_that_cannot_be_read_is_not_left_out_silently(folder):
    first, *others = [record["run_id"] for record in records.load(folder).records]
    (folder / first / "record.json").write_text("{")
    with pytest.raises(ConfigError, match=rf"^default has a run that cannot be read: {first}/record.json is truncated"):
        predictions(folder)
    assert len(predictions(folder, run_ids=others).seeds) == 3
    weights = folder / others[0] / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(ConfigError, match=rf"the run {others[0]} cannot be read: .*weights.pt is damaged"):
        predictions(folder, run_ids=others)
