"""The YAML files of measures and callbacks build what they say and list every setting."""

import inspect
from pathlib import Path

import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf

import genbench.measures as measures
from genbench.callbacks import Flatness, Gap, WeightNorms
from genbench.callbacks.flatness import _STANDARD
from genbench.measures import Estimate, Snapshot
from tests.measures.nets import build

CONF = Path(__file__).parents[2] / "conf"


def test_standard_measures_are_bound_with_their_defaults():
    config = OmegaConf.load(CONF / "measures" / "standard.yaml")
    assert set(config) == set(_STANDARD)
    net, x, y = build("mlp")
    for name, node in config.items():
        function = getattr(measures, node._target_.removeprefix("genbench.measures."))
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert {p.name: p.default for p in parameters} == {k: v for k, v in node.items() if not k.startswith("_")}
        result = instantiate(node)(Snapshot(net, F.cross_entropy, [(x, y)]))
        estimates = {name: result} if isinstance(result, Estimate) else result
        assert list(estimates) == [name]
        assert estimates[name].value is not None


def test_default_callbacks():
    config = OmegaConf.create(
        {
            "callbacks": OmegaConf.load(CONF / "callbacks" / "default.yaml"),
            "measures": OmegaConf.load(CONF / "measures" / "standard.yaml"),
        }
    )
    built = instantiate(config.callbacks)
    assert isinstance(built.gap, Gap)
    assert isinstance(built.weight_norms, WeightNorms)
    assert isinstance(built.flatness, Flatness)
    assert set(built.flatness.measures) == set(_STANDARD)
