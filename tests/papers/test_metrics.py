"""What is known before training of the metrics that runs will have, against claims and against runs that ended."""

import csv

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench import config
from genbench.callbacks.splits import SPLITS
from genbench.checks import covers
from genbench.claims import registration
from genbench.claims.runs import ClaimRuns
from genbench.config import resolve
from genbench.runs.build import build_callbacks
from genbench.runs.plan import metric_keys

PAPERS = sorted(path.stem for path in (config.folder() / "experiment").glob("*.csv"))


class Asked(ClaimRuns):
    """No runs; notes the metrics that rules ask for."""

    def __init__(self):
        super().__init__([], range(8))
        self.metrics = set()

    def check_metric(self, metric, planned):
        self.metrics.add(metric)
        super().check_metric(metric, planned)


def rows(grids):
    """The overrides of each grid that may change what is measured, with their first values."""
    for grid in grids or [{}]:
        chosen = {key: str(value) for key, value in grid.items() if key.startswith(("measures", "callbacks"))}
        yield tuple(f"{key}={value if value[0] == '[' else value.split(',')[0]}" for key, value in chosen.items())


@pytest.fixture(scope="module", params=PAPERS)
def known(request):
    """The name of an experiment that was run, its claims, and the metric keys that its runs can have."""
    name, found = request.param, set()
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        composed = compose("train", [f"experiment={name}"], return_hydra_config=True)
        grids = OmegaConf.to_container(composed.hydra.sweeper).get("grids")
        for row in dict.fromkeys(rows(grids)):
            plain = resolve(compose("train", [f"experiment={name}", *row]))
            found |= metric_keys(build_callbacks(plain).values(), SPLITS)
    return name, plain["claims"], frozenset(found)


def test_the_metrics_that_the_claims_of_a_paper_name_are_known(known):
    name, block, keys = known
    if block is None:
        pytest.skip(f"{name} has no claims")
    asked = Asked()
    for claim in registration.read(block).claims:
        claim.rule.evidence(asked)
    assert asked.metrics
    assert [metric for metric in sorted(asked.metrics) if not covers(keys, metric)] == []


def test_the_metrics_of_runs_that_ended_were_known_before(known):
    name, _, keys = known
    with (config.folder() / "experiment" / f"{name}.csv").open() as file:
        head = next(row for row in csv.reader(file) if "run_id" in row)
    metrics = [column for column in head if column.count("/") >= 2]
    assert metrics
    assert [metric for metric in metrics if not covers(keys, metric)] == []
