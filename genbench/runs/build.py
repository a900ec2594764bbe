"""Build the parts of a run from its configuration: data, network, methods, optimizer, callbacks, Trainer."""

import contextlib
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from pytorch_lightning.callbacks import ProgressBar
from torch import Tensor

from genbench.config import PASSED, ConfigError, one_line, signature
from genbench.models.embedded import Embedded
from genbench.module_state import eval_mode
from genbench.process.termination import patient
from genbench.regularization.base import Method, in_order
from genbench.rng import derive_seed
from genbench.runs import distributed
from genbench.training import AtomicCheckpointIO, Lane, Shard, Training

Config = Mapping[str, Any]


def make(node: Config, **passed: Any) -> Any:
    """Instantiate a component; what its constructor refuses is a ConfigError in the constructor's words."""
    try:
        # plain lists: Hydra's own would be part of an optimizer's state, which no checkpoint can be read back with
        return instantiate({"_convert_": "all", **node}, **passed)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ConfigError(one_line(ConfigError(*cause.args))) from error
        raise ConfigError(one_line(cause or error)) from error


def build_data(config: Config) -> Any:
    """The datamodule of a configuration."""
    return make(config["data"])


def build_module(config: Config, data: Any, shard: Shard | None = None) -> Training:
    """The lanes of a run, each with its own initial weights, draws and order of batches."""
    seed = config["seed"]
    methods = lambda: in_order({key: make(node) for key, node in config["regularization"].items()})  # noqa: E731
    count = max([1, *(method.members for method in methods())])
    data.order_seeds = tuple(derive_seed(seed, "order", index) for index in range(count))
    lanes = []
    for index in range(count):
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "weights", index))
            network = build_network(config["model"], data)
        lanes.append(Lane(network, methods(), seed=derive_seed(seed, "draws", index)))
    try:
        optimizer = make(config["optimizer"])
        optimizer([{"params": lane.trained} for lane in lanes])
    except (IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {one_line(error)}") from error
    scheduler = make(_own_scheduler(config) or config["scheduler"])
    steps = config["trainer"].get("max_steps")
    return Training(lanes, optimizer=optimizer, scheduler=scheduler, max_steps=steps, shard=shard)


def _own_scheduler(config: Config) -> dict[str, Any] | None:
    """The schedule that a method has in place of the run's own."""
    for node in config["regularization"].values():
        scheduler = getattr(get_object(node["_target_"]), "scheduler", Method.scheduler)
        if (own := scheduler(node)) is not None:
            return own
    return None


def build_network(node: Config, data: Any) -> torch.nn.Module:
    """The network that a node names, with random weights from torch's global generator; it must fit the data, of which
    it is told the shape of an input, the number of classes and the shape of a target, if it asks for them. To one that
    asks for the shape of an input, tokens come through an embedding."""
    accepted = {parameter.name for parameter in signature(get_object(node["_target_"]))}
    known = {key: getattr(data, key) for key in PASSED["model"] if key in accepted and hasattr(data, key)}
    vocabulary = getattr(data, "vocabulary", None) if "input_shape" in known else None
    if vocabulary is not None:
        known["input_shape"] = (data.channels, *data.input_shape)
    network = make(node, **known)
    if vocabulary is not None:
        network = Embedded(network, vocabulary=vocabulary, channels=data.channels)
    if not hasattr(data, "tensors"):  # somebody else's datamodule: what does not fit is said at the first batch
        return network
    x, y = data.tensors("train")
    with torch.no_grad(), torch.random.fork_rng(), eval_mode(network):
        try:
            output = network(x[:1])
            fault = _no_language_model(network, x[:1], output) if getattr(data, "targets", "last") == "all" else None
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"model {type(network).__name__} does not fit the data: {one_line(error)}") from error
    if fault is not None:
        raise ConfigError(
            f"model {type(network).__name__} {fault}; accepted where data.targets=all: model=decoder with model.patch=1"
            " or another causal network with outputs [B, classes, T]; else data.targets=last"
        )
    if output.shape != (1, data.classes, *y.shape[1:]):
        raise ConfigError(
            f"model {type(network).__name__} gives outputs of shape {tuple(output.shape[1:])}; "
            f"the data has {data.classes} classes"
        )
    network.train()
    return network


def _no_language_model(network: torch.nn.Module, x: Tensor, output: Tensor) -> str | None:
    """Why a network does not predict the next token at each position of x [1, T]; None if it does."""
    if output.shape[2:] != x.shape[1:]:
        return f"gives outputs of shape {tuple(output.shape[1:])}, not one at each of {x.shape[1]} positions"
    before = x.shape[1] // 2
    other = torch.cat([x[:, :before], (x[:, before:] == 0).to(x.dtype)], 1)  # tokens that there are, all of them others
    if not torch.allclose(network(other)[..., :before], output[..., :before], atol=1e-6):
        return "sees the tokens that it is to predict"
    return None


def build_callbacks(config: Config) -> dict[str, pl.Callback]:
    return {key: make(node) for key, node in config["callbacks"].items() if node is not None}


def build_trainer(config: Config, *, steps_per_epoch: int, shard: Shard | None = None, **settings: Any) -> pl.Trainer:
    """Lightning's Trainer of this process.

    It knows nothing of other processes that train the run: Lightning's reducer expects one backward pass a step, its
    barriers that all of them do the same, and its handler of SIGTERM talks to them in the midst of a step.
    """
    node = {**config["trainer"], "max_steps": -1}  # the steps are counted by Training
    node |= {"strategy": "auto", "num_nodes": 1, "devices": 1}
    if distributed.on_gpu(config["trainer"]) and torch.cuda.is_available():
        node["devices"] = [torch.cuda.current_device() if shard is None else shard.local_rank]
    if node.get("max_epochs") is None:
        node["max_epochs"] = math.ceil(config["trainer"]["max_steps"] / steps_per_epoch)
    fixed = {
        "plugins": [settings.pop("checkpoint_io", None) or AtomicCheckpointIO()],
        "enable_progress_bar": any(isinstance(part, ProgressBar) for part in settings.get("callbacks", ())),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,  # the callbacks evaluate, with full passes
        "logger": False,
    }
    try:
        return make({**fixed, **node}, **settings)
    except Exception as error:
        raise ConfigError(f"trainer: {one_line(error)}") from error


@contextlib.contextmanager
def threads_of(config: Config) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(config["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 are heeded after a step; Lightning leaves Ctrl-C ignored once it has handled one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with patient():
            yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning's remarks about loaders, devices and logging intervals say nothing about a run that we built."""
    names = ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning.*")
            warnings.filterwarnings("ignore", module="lightning_fabric.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
