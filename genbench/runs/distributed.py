"""Train one run in several processes: start them, wait for them, and follow the first of them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from genbench import records
from genbench.process.termination import terminable
from genbench.runs import process_group
from genbench.runs.build import Config, build_data, build_module, build_trainer, quiet, signals, threads_of
from genbench.runs.executors.base import GRACE, cause_of_death
from genbench.runs.planned import Plan
from genbench.runs.results import write_record
from genbench.runs.run import Interrupted, Run, interrupted
from genbench.runs.state import keep_traceback
from genbench.training import Diverged, ProcessLost, Shard, StopTogether

_GRACE = 5.0  # seconds that a process has to end by itself once another has ended
_PROGRAM = (
    "import json, sys; sent = json.loads(sys.stdin.readline()); sys.path[:] = sent.pop('path')\n"
    "from genbench.runs import worker; worker.main(**sent)"
)


def train(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Start the processes of one run and wait for the first, which writes the record.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, once all processes have ended.
    """
    (run,) = runs
    try:
        error = _train(run)
    except KeyboardInterrupt:
        raise Interrupted("the run was interrupted") from None
    if error is None:
        run.record = records.read(run.folder / records.RECORD)
    else:
        name = run.config["name"]
        run.record = write_record(run.planned, experiment=name, status="failed", error=error, seconds={})
    return [run.record]


def follow(config: Config, planned: Plan, shard: Shard) -> None:
    """Train a run together with its first process, which alone measures it and writes its files."""
    try:
        with threads_of(config), quiet():
            data = build_data(config) if planned.datamodule is None else planned.datamodule
            module = build_module(config, data, shard)
            told = shard.broadcast((None, False))
            if told is None:  # training has ended already; the first process measures the run
                return
            resume, each_batch = told
            trainer = build_trainer(
                config,
                shard=shard,
                steps_per_epoch=data.steps_per_epoch,
                default_root_dir=planned.folder,
                callbacks=[StopTogether(shard, each_batch=each_batch)],
                enable_checkpointing=False,
            )
            with signals():
                trainer.fit(module, datamodule=data, ckpt_path=resume)
    except (Diverged, ProcessLost):  # the first process reports it
        pass
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the run was interrupted") from None
        keep_traceback(planned.folder, reason)
        raise


def _train(run: Run) -> str | None:
    """Start the processes and wait for them: the reason why there is no record, in one line; None if there is one."""
    of = process_group.size(run.config["trainer"])
    sent = json.dumps({"path": sys.path, **run.request()})
    processes: list[subprocess.Popen[bytes]] = []
    with store() as (port, errors), terminable():
        try:
            for rank in range(of):
                processes.append(_start(environment_of(rank, of, port), shown=rank == 0))
                _send(processes[-1], sent)
            first, *others = processes
            while first.poll() is None and not any(process.poll() for process in others):
                time.sleep(0.02)
            if first.returncode is None:  # it has the same error, or notices the loss, and writes
                _wait(first)
            else:
                for process in others:
                    _wait(process)
            if first.returncode == 0:
                return None
            if errors.check([process_group.ERROR]):
                return errors.get(process_group.ERROR).decode()
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


def environment_of(rank: int, of: int, port: int) -> dict[str, str]:
    """Environment variables that torchrun sets for a process, and those that keep its traffic on this machine."""
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
    """A store through which processes of this machine meet, and its port.

    It listens on the loopback interface alone; torch's own would listen on every interface.
    """
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
        start_new_session=True,  # Ctrl-C is for the process that started them
    )


def _send(process: "subprocess.Popen[bytes]", text: str) -> None:
    """Send a process its run. The pipe stays open: its end tells the process that this one has ended."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended; its exit status tells why
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()


def _wait(process: "subprocess.Popen[bytes]", seconds: float = _GRACE) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
