"""The YAML files of measures and callbacks build what they name, and the sets of measures are consistent."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import genbench.measures as measures
from genbench.callbacks import Gap, Measures, Optimization, Stop, Trajectory, TrajectoryShape
from genbench.callbacks.measures import STANDARD
from genbench.measures import Snapshot
from genbench.measures.base import evaluate
from tests.helpers.networks import build

CONF = Path(__file__).parents[2] / "conf"
APART = {
    "generalization_gap",  # of two snapshots; others compare with the initial weights
    "disagreement",
    "train_coherence",  # of a split and the train split: measures=transfer
    "train_stiffness",
    "answer_information",  # of a split and a classifier of the train split: measures=explained
    "explained_information",
    "ratt_bound",  # of a split and the train split with relabelled examples: measures=random_labels
    "matched_mode_connectivity",  # of two networks, as the units of one are matched to the other's
    "gaussian_interpolation",  # of the data alone: measures=interpolation
    "convolution_interpolation",
    "stability_ratio",  # of gradient descent of one learning rate: experiment=cohen2021
    "log_prior",  # of fully connected networks with two classes: measures=log_prior
    "marginal_likelihood_bound",
    "lempel_ziv_complexity",  # of functions of two values: measures=simplicity
    "simplicity_bias",
    "rescaled",  # of another measure
    "scale_dependence",
    "over_examples",  # of other measures
    "prequential_code",  # trains networks of their own: measures=description_length
    "two_part_code",
    "variational_code",
    "error",  # 1 − accuracy, and its confidence limit
    "pac_bayes_optimized",  # of the train split and another: measures=bounds
    "subspace_compression_bound",  # the same, and of networks trained in a subspace alone
    "mixture_code",
    "gradient_step",  # of one learning rate
    "memorization",  # of ensembles whose members left examples out: experiment=feldman2020
    "influence",
    "memorization_removal",
    "learning_coefficient",  # chains of thousands of gradients: measures=learning_coefficient
}


def chosen(*overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("train", list(overrides)), resolve=True)


def snapshot() -> Snapshot:
    net, x, y = build("mlp")
    initial = {name: torch.zeros_like(t) for name, t in net.state_dict().items()}
    return Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)


def test_the_standard_set_is_that_of_the_callback_alone():
    bound = {name: instantiate(node) for name, node in chosen("measures=standard")["measures"].items()}
    assert {name: each.func for name, each in bound.items()} == STANDARD
    results = evaluate(bound, snapshot(), split="train")
    assert {k: e.value for k, e in results.items()} == {
        key: estimate.value for key, estimate in evaluate(STANDARD, snapshot(), split="train").items()
    }
    assert all(estimate.value is not None for estimate in results.values())


def test_the_full_set_is_the_standard_one_and_all_else_that_is_exported_but_for_robustness():
    sets = ("standard", "full", "robustness")
    standard, full, robustness = (chosen(f"measures={name}")["measures"] for name in sets)
    more = standard["lambda_1"] | {"k": 5, "bottom": 1}
    assert {name: full[name] for name in standard} == standard | {"lambda_1": more}
    taken, other = (
        {node["_target_"].removeprefix("genbench.measures.") for node in nodes.values()} for nodes in (full, robustness)
    )
    performance = {"accuracy", "calibration_error", "cross_entropy", "soft_error"}  # Gap's, on every split
    public = {name for name in measures.__all__ if hasattr(getattr(measures, name), "family")}
    assert taken | other == public - performance - APART
    assert not taken & other


@pytest.mark.parametrize("together", ["full", "robustness"])
def test_no_two_measures_of_a_set_give_the_same_key(together):
    seen: dict[str, str] = {}
    subject = snapshot()
    for name, node in chosen(f"measures={together}")["measures"].items():
        for key in evaluate({name: instantiate(node)}, subject, split="train"):
            assert key not in seen, (key, name, seen.get(key))
            seen[key] = name


@pytest.mark.parametrize("name", ["default", "full", "robustness", "trajectory", "trajectory_shape"])
def test_callbacks(name):
    built = {key: instantiate(node) for key, node in chosen(f"callbacks={name}")["callbacks"].items()}
    kinds = {"gap": Gap, "weight_norms": Measures, "measures": Measures, "stop": Stop}
    more = {
        "full": {"optimization": Optimization},
        "robustness": {"robustness": Measures},
        "trajectory": {"trajectory": Trajectory},
        "trajectory_shape": {"trajectory_shape": TrajectoryShape},
    }
    assert {key: type(callback) for key, callback in built.items()} == kinds | more.get(name, {})
    if name == "robustness":
        assert built["robustness"].split == "test"
        assert set(built["robustness"].measures) == set(chosen("measures=robustness")["measures"])
    assert set(built["measures"].measures) == set(STANDARD)
    norms = built["weight_norms"].measures
    assert norms == {name: STANDARD[name] for name in norms}
    assert list(norms) == ["l2", "distance", "spectral"]
    assert len({callback.state_key for callback in built.values()}) == len(built)
