"""The processes that train one run together: how they start, meet and end.

They are started here, or by torchrun or SLURM's srun, in whose environment every one of them runs the same command.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from genbench.checks import check_choice, check_integer
from genbench.config import ConfigError
from genbench.process.termination import terminable
from genbench.runs.executors.base import GRACE, cause_of_death
from genbench.training import Shard

_ENDLESS = timedelta(days=7)  # the others wait while the first one measures, however long; a death is noticed at once
_GRACE = 5.0  # seconds for a process to end by itself, as another has
_ERROR = "error"  # where a process leaves the reason for its end
_PROGRAM = (
    "import json, sys; sent = json.loads(sys.stdin.readline()); sys.path[:] = sent.pop('path')\n"
    "from genbench.runs import distributed; distributed.main(**sent)"
)


def size(trainer: Mapping[str, Any]) -> int:
    """Processes that train one run."""
    return trainer.get("devices", 1) * trainer.get("num_nodes", 1)


def check(trainer: Mapping[str, Any]) -> None:
    """Refuse devices that do not exist, or several where the run is not shared."""
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


def started(trainer: Mapping[str, Any]) -> bool:
    """Whether this process is one of a run's, and not the one that is to start them."""
    return size(trainer) > 1 and _environment() is not None


@contextlib.contextmanager
def joined(trainer: Mapping[str, Any]) -> Iterator[Shard]:
    """Meet the other processes of the run."""
    environment = _environment()
    assert environment is not None
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    shard = Shard(environment.global_rank(), environment.world_size(), local_rank=environment.local_rank())
    if on_gpu(trainer):
        torch.cuda.set_device(shard.local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_gpu(trainer) else "gloo"  # what they tell each other lies on the CPU
    dist.init_process_group(backend, rank=shard.rank, world_size=shard.world_size, timeout=_ENDLESS)
    try:
        yield shard
    finally:
        dist.destroy_process_group()


def _environment() -> Any:
    """What Lightning knows of those that have started this process, if they started several."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            environment = kind()
            return environment if environment.world_size() > 1 else None
    return None


def train(
    config: Mapping[str, Any],
    *,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    typed: Sequence[str],
    run_id: str,
) -> str | None:
    """Start the processes of a run and wait for the end of the first one, which writes the record.

    Returns:
        why there is no record, in one line; None if there is one.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, once all processes have ended.
    """
    of = size(config["trainer"])
    told = {"config": config, "choices": choices, "overrides": list(overrides), "typed": list(typed), "run_id": run_id}
    sent = json.dumps({"path": sys.path, **told})
    processes: list[subprocess.Popen[bytes]] = []
    with store() as (port, errors), terminable():
        try:
            for rank in range(of):
                processes.append(_start(environment_of(rank, of, port), shown=rank == 0))
                _send(processes[-1], sent)
            first, *others = processes
            while first.poll() is None and not any(process.poll() for process in others):
                time.sleep(0.02)
            if first.returncode is None:  # it may have the same error, or loses another: it writes or leaves its state
                _wait(first)
            else:
                for process in others:
                    _wait(process)
            if first.returncode == 0:
                return None
            if errors.check([_ERROR]):
                return errors.get(_ERROR).decode()
            ended = next((rank for rank in range(1, of) if processes[rank].returncode), 0)
            return f"process {ended} of {of}: {cause_of_death(processes[ended].returncode or 0)}"
        except KeyboardInterrupt:
            if processes:
                processes[0].terminate()  # it writes its checkpoint and closes its loggers
                _wait(processes[0], GRACE)
            raise
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stdin is not None
                process.stdin.close()


def main(config: dict[str, Any], choices: dict[str, Any], overrides: list[str], typed: list[str], run_id: str) -> None:
    """One of the processes that :func:`train` has started."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from genbench.config import one_line
    from genbench.runs import execute
    from genbench.runs.run import Interrupted

    try:
        with joined(config["trainer"]) as shard:
            execute.train_shard(config, shard, choices=choices, overrides=overrides, typed=typed, run_id=run_id)
    except Interrupted:
        sys.exit(1)
    except BaseException as error:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        dist.TCPStore(*address, is_master=False).set(_ERROR, one_line(error))
        sys.exit(1)


def environment_of(rank: int, of: int, port: int) -> dict[str, str]:
    """What torchrun tells a process, and that what it has to say to the others is for this machine only."""
    environment = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(of),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "genbench",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    return environment | ({"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback} if loopback else {})


@contextlib.contextmanager
def store() -> Iterator[tuple[int, dist.TCPStore]]:
    """Where processes of this machine meet, and its port; torch's own would listen on every interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        own = os.dup(server.fileno())
        yield port, dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=own)


def _start(environment: Mapping[str, str], *, shown: bool) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=None if shown else subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for whoever started them
    )


def _send(process: "subprocess.Popen[bytes]", text: str) -> None:
    """Tell a process what to do; the pipe stays open, as its end is that of this process."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its exit status will say why
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()


def _wait(process: "subprocess.Popen[bytes]", seconds: float = _GRACE) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing more is sent
        pass
    os._exit(1)
