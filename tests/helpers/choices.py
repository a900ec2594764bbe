"""What a choice of the configuration folder needs in a short test of every choice."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from genbench import config

# a network small enough for a pack in float64, and the data that it is for; at the rates of the YAMLs training of
# some is chaotic, and rounding grows with it
MODEL = {
    "alexnet": ["model.width=2"],
    "cnn": ["model.width=6"],
    "cnn5": ["model.width=2"],
    "decoder": ["model.width=4", "model.heads=2", "model.patch=4", "optimizer.lr=0.001"],
    "gru": ["model.width=3", "optimizer.lr=0.01"],
    "inception": ["model.width=6"],
    "lstm": ["model.width=3"],
    "mlp": ["model.width=12"],
    "random_features": ["model.width=12"],
    "resnet18": ["model.width=2"],
    "rnn": ["model.width=3", "optimizer.lr=0.01"],
    "transformer": ["model.width=4", "model.heads=2", "model.patch=4", "optimizer.lr=0.001"],
    "wide_resnet": ["model.depth=10", "model.width=1"],
}
# the data that a method is for, where it is not for sequences, and what it needs of a model that has a setting for it
METHOD: dict[str, list[str]] = {
    "augmix": ["data=digits"],
    "flip": ["data=digits"],
    "rand_augment": ["data=digits"],
    "random_crop": ["data=digits"],
    "rotation": ["data=digits"],
    "stochastic_depth": ["model.residual=true"],
    "trivial_augment": ["data=digits"],
}
# what a data set needs to be small, or to be there at all
DATA: dict[str, list[str]] = {
    name: ["data.path=${oc.env:GENBENCH_TINY}"]  # written by conftest.py
    for name in ("cifar10", "cifar100", "fashion_mnist", "images", "mnist", "svhn", "tiny_imagenet")
}
DATA["cifar10_crop"] = ["data.path=${oc.env:GENBENCH_TINY}", "data.crop=4"]
DATA["boolean_functions"] = ["data.train_size=100"]
DATA["grouped_images"] = ["data.path=${oc.env:GENBENCH_TINY}", "data.groups=[[0,1,2,3,4],[5,6,7,8,9]]"]
DATA["imagenet"] = ["data.path=${oc.env:GENBENCH_TINY}", "data.size=8"]
# within a few steps nothing would be stopped, clipped or averaged at the strengths of a real run; what fits any network
STRONG = {
    "early_stopping": ["regularization.early_stopping.patience=1"],
    "ghost_batch_norm": ["regularization.ghost_batch_norm.size=2"],
    "gradient_clipping": ["regularization.gradient_clipping.max_norm=0.01"],
    "group_norm": ["regularization.group_norm.groups=1"],  # which divides any number of channels
    "max_norm": ["regularization.max_norm.limit=0.3"],
    "random_subspace": ["regularization.random_subspace.dimension=20"],  # of the smallest network of an experiment
    "swa": ["regularization.swa.start=0.1"],
}
# optimizers that are no pack's; their steps jump within rounding, too (a sign, an eigenbasis, bfloat16), so that two
# processes do not train to 1e-9 what one does
SEPARATE = ("lion", "muon", "schedule_free_adamw", "schedule_free_sgd", "soap")


def choices(group: str) -> list[str]:
    """The names in a group."""
    return [*config.choices(group)]


def merged(path: Path) -> Any:
    """A file of the configuration folder with those that it extends or includes."""
    node = OmegaConf.load(path)
    for base in reversed([name for name in node.pop("defaults", []) if isinstance(name, str) and name != "_self_"]):
        node = OmegaConf.merge(merged(path.with_name(f"{base}.yaml")), node)
    return node


def needs(model: str, method: str) -> list[str] | None:
    """The overrides with which a model and a method train together; None where no data suits both."""
    settings = yaml.safe_load(config.choices("model")[model].read_text())
    asked = dict.fromkeys([*MODEL.get(model, []), *METHOD.get(method, [])])
    found = [each for each in asked if not each.startswith("model.") or each[6:].split("=")[0] in settings]
    return found if sum(each.startswith("data=") for each in found) < 2 else None
