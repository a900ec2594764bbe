"""Tasks of Ray."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from genbench.checks import ConfigError, check_number, require
from genbench.privacy import clean
from genbench.runs.executors.base import Call, Died, Executor, last_line


class Ray(Executor):
    """Tasks of Ray: on the cluster at ``address``, or on a local one that ends with the sweep.

    ``num_cpus`` and ``num_gpus`` are the resources of one function; fractions are allowed.
    """

    def __init__(self, *, n_jobs: int, address: str | None, num_cpus: float, num_gpus: float) -> None:
        super().__init__(n_jobs=n_jobs)
        check_number("hydra.launcher.num_cpus", num_cpus, low=0)
        check_number("hydra.launcher.num_gpus", num_gpus, low=0)
        self.here, self.gpu = address is None, num_gpus > 0
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        if address is None:  # Ray reads these when it is imported
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers by default
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # loopback interface only
        self._ray = require("ray", extra="ray", needed_by="hydra/launcher=ray")

        if address is not None:  # before anything is written
            self._connect(address)

    def start(self, *, units: int, folder: Path) -> None:
        import math

        if self.here:
            self._connect(
                "local",
                num_cpus=math.ceil(self.n_jobs * self._resources["num_cpus"]),
                include_dashboard=False,
                object_store_memory=100 * 2**20,  # arguments and results are small
            )
        # no retries by Ray: the function itself may have killed the process
        self._task = self._ray.remote(_call).options(max_retries=0, **self._resources)

    def _connect(self, address: str, **settings: Any) -> None:
        import logging

        try:
            self._ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = clean(error).partition(". ")[0]
            raise ConfigError(f"hydra.launcher.address={address}: Ray does not start: {reason}") from None

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        return self._task.remote(Call(function, args)).future()

    def result(self, future: "Future[Any]") -> Any:
        try:
            value, error = future.result()
        except self._ray.exceptions.OutOfMemoryError:
            raise Died("the process was killed by Ray: out of memory") from None
        except self._ray.exceptions.WorkerCrashedError:
            raise Died("Ray's process was killed (out of memory?)") from None
        except self._ray.exceptions.RayError as failure:
            raise Died(f"the task failed: {last_line(failure)}") from None
        if error is not None:
            raise error
        return value

    def stop(self, *, abort: bool) -> None:
        self._ray.shutdown()  # ends the tasks of this process, on a shared cluster too


def _call(call: Call) -> tuple[Any, Exception | None]:
    return call()
