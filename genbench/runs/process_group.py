"""The processes that train one run together: how many there are, what they accept, and how they meet.

They are started by :mod:`genbench.runs.distributed`, or by torchrun or SLURM's srun, which start the same command in
every process.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from genbench.checks import ConfigError, check_choice, check_integer
from genbench.training import Shard

ERROR = "error"  # key in the store: the error that has ended a process
_ENDLESS = timedelta(days=7)  # the others wait while the first measures, however long; a death is noticed at once


def size(trainer: Mapping[str, Any]) -> int:
    """Number of processes that train one run (torch's world size)."""
    return trainer.get("devices", 1) * trainer.get("num_nodes", 1)


def check(trainer: Mapping[str, Any]) -> None:
    """Refuse devices that do not exist, and several devices for a run that is not shared."""
    strategy = check_choice("trainer.strategy", trainer.get("strategy", "auto"), ("auto", "ddp"))
    for key in ("devices", "num_nodes"):
        value = check_integer(f"trainer.{key}", trainer.get(key, 1), least=1)
        if value > 1 and strategy != "ddp":
            raise ConfigError(f"trainer.{key} is {value}; accepted: 1, or more with trainer=ddp")
    if size(trainer) == 1:
        return
    accelerator = check_choice("trainer.accelerator", trainer.get("accelerator", "auto"), ("auto", "cpu", "gpu"))
    if accelerator != "cpu" and 0 < (gpus := torch.cuda.device_count()) < trainer.get("devices", 1):
        raise ConfigError(f"trainer.devices is {trainer['devices']}; accepted: at most {gpus}, the GPUs there are")
    environment = _environment()
    if environment is None and trainer.get("num_nodes", 1) > 1:
        raise ConfigError(
            f"trainer.num_nodes is {trainer['num_nodes']}; "
            "accepted: 1, or more where torchrun or srun starts the command"
        )
    if environment is not None and environment.world_size() != size(trainer):
        raise ConfigError(
            f"trainer.devices × trainer.num_nodes is {size(trainer)}; "
            f"torchrun or srun has started {environment.world_size()} processes"
        )


def on_gpu(trainer: Mapping[str, Any]) -> bool:
    """Whether a run trains on GPUs."""
    accelerator = trainer.get("accelerator", "auto")
    return accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())


@contextlib.contextmanager
def joined(trainer: Mapping[str, Any]) -> Iterator[Shard | None]:
    """Join the other processes of the run; yields this process's shard of every batch.

    None in the only process of a run, and in one that is to start the others.
    """
    environment = _environment() if size(trainer) > 1 else None
    if environment is None:
        yield None
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    shard = Shard(environment.global_rank(), environment.world_size(), local_rank=environment.local_rank())
    if on_gpu(trainer):
        torch.cuda.set_device(shard.local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_gpu(trainer) else "gloo"  # Python objects are broadcast on the CPU
    dist.init_process_group(backend, rank=shard.rank, world_size=shard.world_size, timeout=_ENDLESS)
    try:
        yield shard
    finally:
        dist.destroy_process_group()


def _environment() -> Any:
    """Lightning's description of the cluster that has started several processes, this one among them; else None."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            environment = kind()
            return environment if environment.world_size() > 1 else None
    return None
