"""Versions, code and device that made a run's numbers."""

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from genbench.runs import process_group, source
from genbench.runs.build import Config


def provenance(bound: Config) -> dict[str, Any]:
    """Versions, commits, device and threads of a run with this configuration; nothing that names the machine."""
    cuda = torch.cuda.is_available() and bound["trainer"].get("accelerator") != "cpu"
    return {
        "genbench": version("genbench"),
        "genbench_code": source.of_genbench(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pytorch_lightning": pl.__version__,
        "git": commit(Path(__file__).parents[2]),
        "user_git": user_commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "devices": process_group.size(bound["trainer"]),
        "threads": bound["threads"],
    }


def user_commit() -> str | None:
    """Commit of the user's own repository, the one that holds the working directory; None where there is none."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)
    return None if root is None else commit(root)


@functools.cache
def commit(checkout: Path) -> str | None:
    """Commit of a checkout, with a plus sign if tracked files were changed; None for a folder that is no checkout."""
    if not (checkout / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
