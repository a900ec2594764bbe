"""Executors compute the units of a sweep: processes of this machine, joblib, submitit or Ray."""

from genbench.runs.executors.base import GRACE, Died, Executor, OutOfTime, cause_of_death, died, limited, running
from genbench.runs.executors.joblib import Joblib
from genbench.runs.executors.processes import Processes, start_server
from genbench.runs.executors.ray import Ray
from genbench.runs.executors.submitit import Submitit

__all__ = [
    "GRACE",
    "Died",
    "Executor",
    "Joblib",
    "OutOfTime",
    "Processes",
    "Ray",
    "Submitit",
    "cause_of_death",
    "died",
    "limited",
    "running",
    "start_server",
]
