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
from threadpoolctl import threadpool_limits
from torch import Tensor

from genbench.checks import ConfigError
from genbench.config import PASSED, one_line, signature
from genbench.models.embedded import Embedded
from genbench.module_state import eval_mode
from genbench.process.termination import patient
from genbench.regularization.base import Method, in_order
from genbench.rng import derive_seed
from genbench.runs import process_group
from genbench.training import AtomicCheckpointIO, Lane, Shard, Training

Config = Mapping[str, Any]


def make(node: Config, **passed: Any) -> Any:
    """Instantiate a component.

    Raises:
        ConfigError: its constructor refuses a setting; in the constructor's words.
    """
    try:
        # plain lists: Hydra's own would enter the optimizer's state, and no checkpoint with them can be read back
        return instantiate({"_convert_": "all", **node}, **passed)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ConfigError(one_line(ConfigError(*cause.args))) from error
        raise ConfigError(one_line(cause or error)) from error


def build_data(config: Config) -> Any:
    """Build the datamodule of a configuration."""
    return make(config["data"])


def build_module(config: Config, data: Any, shard: Shard | None = None) -> Training:
    """Build the lanes of a run, each with its own initial weights, random draws and order of batches, except for what a
    method has them share."""
    seed = config["seed"]
    methods = lambda: in_order({key: make(node) for key, node in config["regularization"].items()})  # noqa: E731
    count = max([1, *(method.members for method in methods())])
    share_init, share_order = (
        any(getattr(method, name) for method in methods()) for name in ("share_init", "share_order")
    )
    parts = getattr(data, "parts", 1)
    if parts not in (1, count):
        raise ConfigError(f"data.parts is {parts}; accepted: 1, or the number of networks that the run trains, {count}")
    if share_init and share_order and parts == 1:
        raise ConfigError("regularization Ensemble: share_init and share_order are true; accepted: one, or data.parts")
    inits, orders = ([0] * count if shared else range(count) for shared in (share_init, share_order))
    data.order_seeds = tuple(derive_seed(seed, "order", index) for index in orders)
    lanes = []
    for init, order in zip(inits, orders, strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "weights", init))
            network = build_network(config["model"], data)
        lanes.append(Lane(network, methods(), seed=derive_seed(seed, "draws", order)))
    try:
        optimizer = make(config["optimizer"])
        optimizer([{"params": lane.trained} for lane in lanes])
    except (IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {one_line(error)}") from error
    scheduler = make(scheduler_of_method(config) or config["scheduler"])
    steps = config["trainer"].get("max_steps")
    return Training(lanes, optimizer=optimizer, scheduler=scheduler, max_steps=steps, shard=shard)


def scheduler_of_method(config: Config) -> dict[str, Any] | None:
    """The schedule of a method, which replaces that of the run; None if no method has one."""
    for node in config["regularization"].values():
        scheduler = getattr(get_object(node["_target_"]), "scheduler", Method.scheduler)
        if (own := scheduler(node)) is not None:
            return own
    return None


def build_network(node: Config, data: Any) -> torch.nn.Module:
    """Build the network of a config node, with random weights from torch's global generator.

    Passes the data's shapes and number of classes if the constructor takes them. Tokens reach a network that takes the
    shape of an input through an embedding.

    Raises:
        ConfigError: the network does not fit the data.
    """
    accepted = {parameter.name for parameter in signature(get_object(node["_target_"]))}
    known = {key: getattr(data, key) for key in PASSED["model"] if key in accepted and hasattr(data, key)}
    vocabulary = getattr(data, "vocabulary", None) if "input_shape" in known else None
    if vocabulary is not None:
        known["input_shape"] = (data.channels, *data.input_shape)
    network = make(node, **known)
    if vocabulary is not None:
        network = Embedded(network, vocabulary=vocabulary, channels=data.channels)
    if not hasattr(data, "tensors"):  # a foreign datamodule; its first batch shows whether the network fits
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
    """The reason why a network does not predict the next token at each position of x [1, T]; None if it does."""
    if output.shape[2:] != x.shape[1:]:
        return f"gives outputs of shape {tuple(output.shape[1:])}, not one at each of {x.shape[1]} positions"
    before = x.shape[1] // 2
    other = torch.cat([x[:, :before], (x[:, before:] == 0).to(x.dtype)], 1)  # other tokens of the vocabulary
    if not torch.allclose(network(other)[..., :before], output[..., :before], atol=1e-6):
        return "sees the tokens that it is to predict"
    return None


def build_callbacks(config: Config) -> dict[str, pl.Callback]:
    """Build the callbacks of a configuration, by key."""
    return {key: make(node) for key, node in config["callbacks"].items() if node is not None}


def build_trainer(config: Config, *, steps_per_epoch: int, shard: Shard | None = None, **settings: Any) -> pl.Trainer:
    """Build Lightning's Trainer of this process.

    It takes this process for the only one of the run. Lightning's reducer expects one backward pass a step, its
    barriers expect every process to do the same, and its handler of SIGTERM communicates in the middle of a step.
    """
    node = {**config["trainer"], "max_steps": -1}  # Training counts the steps
    node |= {"strategy": "auto", "num_nodes": 1, "devices": 1}
    if process_group.on_gpu(config["trainer"]) and torch.cuda.is_available():
        node["devices"] = [torch.cuda.current_device() if shard is None else shard.local_rank]
    if node.get("max_epochs") is None:
        node["max_epochs"] = math.ceil(config["trainer"]["max_steps"] / steps_per_epoch)
    fixed = {
        "plugins": [settings.pop("checkpoint_io", None) or AtomicCheckpointIO()],
        "enable_progress_bar": any(isinstance(part, ProgressBar) for part in settings.get("callbacks", ())),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,  # callbacks evaluate on whole splits
        "logger": False,
    }
    try:
        return make({**fixed, **node}, **settings)
    except Exception as error:
        raise ConfigError(f"trainer: {one_line(error)}") from error


@contextlib.contextmanager
def threads_of(config: Config) -> Iterator[None]:
    """Use the run's number of threads, in NumPy too."""
    before = torch.get_num_threads()
    torch.set_num_threads(config["threads"])
    try:
        with threadpool_limits(config["threads"], user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Heed SIGTERM and SIGUSR1 after a step, and restore the handler of Ctrl-C, which Lightning leaves ignored."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with patient():
            yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's remarks about loaders, devices and logging intervals, which we have chosen."""
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
