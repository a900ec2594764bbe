"""Runs every benchmark, each in a process of its own: the peak memory of a process starts from what its parent held."""

import subprocess
import sys
from pathlib import Path

SHARED = ("__init__", "__main__", "common", "jax_seeds", "peers")
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in SHARED)

if __name__ == "__main__":
    failed = []
    for name in NAMES:
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
