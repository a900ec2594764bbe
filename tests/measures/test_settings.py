"""Settings of measures are refused before there is a network: before anything is trained."""

import math
from functools import partial

import pytest
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench.callbacks import Measures
from genbench.checks import ConfigError
from genbench.config import folder
from genbench.measures import Estimate, Snapshot, hessian_trace, l2_norm, measure
from genbench.measures.base import check_settings
from genbench.runs import execute, measure_checkpoint
from genbench.runs.build import make
from tests.helpers.networks import build

CHOICES = [path.stem for path in sorted((folder() / "measures").glob("*.yaml"))]
WRONG = ("abc", -1, [1], {"a": 1}, math.nan, math.inf)
# right although it looks wrong: a name, an end of the inputs' range, or of a generator's parameter, a list of one
RIGHT = [
    ("layer", "abc"),
    ("name", "abc"),
    ("low", -1),
    ("high", -1),
    ("end", -1),
    ("widths", [1]),
    ("percentiles", [1]),
    ("diversity.points", [1]),
]


@pytest.fixture(scope="module")
def settings():
    """Of each choice of measures: the node of each measure."""
    with initialize_config_dir(str(folder()), version_base="1.3"):
        return {
            choice: OmegaConf.to_container(compose("train", [f"measures={choice}"]).measures, resolve=True)
            for choice in CHOICES
        }


@pytest.mark.parametrize("choice", CHOICES)
def test_every_wrong_setting_of_every_measure_is_refused_by_its_name(settings, choice):
    nodes = settings[choice]
    check_settings({name: make(node) for name, node in nodes.items()})
    for name, node in nodes.items():
        for key in node.keys() - {"_target_", "_partial_", "path"}:
            for wrong in WRONG:
                if (key, wrong) in RIGHT or (f"{name}.{key}", wrong) in RIGHT:
                    continue
                with pytest.raises(ValueError, match=rf"^measures\.{name}[.:].*{key}.*(is|has|accepted|in) "):
                    check_settings({name: make({**node, key: wrong})})


def test_a_run_is_refused_before_it_is_trained_and_a_network_before_it_is_read(configure, tmp_path):
    line = r"^measures\.trace\.probes is 'abc'; accepted: an integer of at least 2$"
    with pytest.raises(ConfigError, match=line):
        execute.run(configure("measures.trace.probes=abc"))
    with pytest.raises(ConfigError, match=r"^measures\.lambda_1\.k is -1; accepted: an integer of at least 1$"):
        execute.run(configure("measures.lambda_1.k=-1"))
    with pytest.raises(ValueError, match=r"^network='nosuch' is not a part of Training; accepted: lanes$"):
        execute.run(configure("+callbacks.gap.network=nosuch"))
    assert not (tmp_path / "runs").exists()
    with initialize_config_dir(str(folder()), version_base="1.3"):
        cfg = compose("measure", ["checkpoint=nosuch", "measures.trace.probes=abc"])
    with pytest.raises(ValueError, match=line):
        measure_checkpoint.run(OmegaConf.to_container(cfg, resolve=True))


def test_measures_of_ones_own():
    looked = []

    @measure("own")
    def checking(snapshot, *, share=0.5):
        if not 0 < share < 1:
            raise ValueError(f"share is {share}; accepted: a number in (0, 1)")
        looked.append("no")
        return Estimate(snapshot.mean_loss * share)

    def plain(snapshot: Snapshot, *, power: int) -> Estimate:
        assert isinstance(snapshot, Snapshot)
        return Estimate(snapshot.mean_loss ** len(power))

    class Called:
        def __call__(self, snapshot):
            return Estimate(snapshot.examples)

    with pytest.raises(ValueError, match=r"^measures\.mine\.share is 2; accepted: a number in \(0, 1\)$"):
        Measures(measures={"mine": partial(partial(checking, share=3), share=2)})
    with pytest.raises(ValueError, match=r"^measures\.mine: TypeError: .*missing .*'power'$"):
        Measures(measures={"mine": plain})
    with pytest.raises(ValueError, match=r"^measures\.mine: ModuleNotFoundError: No module named 'nosuch'$"):
        Measures(measures={"mine": lambda snapshot: __import__("nosuch")})
    assert looked == []
    # what is wrong only of this network is said when it is measured
    found = Measures(measures={"mine": partial(checking, share=0.25), "other": Called(), "third": lambda s: s.nosuch})
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert found.measures["mine"](snapshot).value == pytest.approx(snapshot.mean_loss / 4)
    assert looked == ["no", "no"]
    Measures(measures={"trace": partial(hessian_trace, probes=2), "l2": l2_norm})
