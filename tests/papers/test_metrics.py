"""What is known before training of the metrics that runs will have, against claims and against runs that ended."""

import csv
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench import config
from genbench.callbacks.splits import SPLITS
from genbench.checks import covers
from genbench.claims import registration
from genbench.runs.build import build_callbacks
from genbench.runs.plan import metric_keys
from tests.helpers.experiments import node, rows, settings

PAPERS = sorted(path.stem for path in (config.folder() / "experiment").glob("*.csv"))


def _chooses_metrics(override):
    return override.startswith(("measures", "callbacks", "trainer"))


@pytest.fixture(scope="module", params=PAPERS)
def known(request):
    """The name of an experiment that was run, and the metric keys that its runs can have."""
    found = set()
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        for row in dict.fromkeys(tuple(filter(_chooses_metrics, row)) for row in rows(request.param)):
            composed = compose("train", [f"experiment={request.param}", *row])
            plain: Any = OmegaConf.to_container(composed, resolve=True)
            found |= metric_keys(build_callbacks(plain).values(), SPLITS)
    return request.param, frozenset(found)


def test_the_metrics_that_the_claims_of_a_paper_name_are_not_refused(known):
    name, keys = known
    block, planned = node(name)["claims"], []
    for run in settings(name, 1):
        own = {key: value for key, value in run.items() if "." in key or key == "seed"}
        planned.append((block, own, {key: value for key, value in run.items() if key not in own}))
    registration.check(planned, metrics=[keys] * len(planned))


def test_the_metrics_of_runs_that_ended_were_known_before(known):
    name, keys = known
    with (config.folder() / "experiment" / f"{name}.csv").open() as file:
        head = next(row for row in csv.reader(file) if "run_id" in row)
    metrics = [column for column in head if column.count("/") >= 2]
    assert metrics
    assert [metric for metric in metrics if not covers(keys, metric)] == []
