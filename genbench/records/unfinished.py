"""The estimates of a run that is being measured: they survive a kill, and are not measured again."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from genbench.privacy import shared
from genbench.records.estimate import Estimate
from genbench.records.files import read_bytes, write_atomic

FILE = "unfinished.json"
SECONDS = 1.0
"""Of measuring between two writes: a kill loses no more, and many quick parts are not written many times."""


class Unfinished:
    """Estimates of the final network by callback and part, in a file of the run's folder, written as they come, at most
    once a second.

    Estimates that lie there are taken if their ``head`` equals this one: the same network, measured by the same code.

    Args:
        folder: the run's folder.
        head: what the estimates depend on, as JSON holds it.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self._path, self._head = folder / FILE, shared(dict(head))
        self._known = self._read()
        self._written = perf_counter()

    def seconds(self, callback: str) -> float:
        """Seconds that measuring the known parts of a callback took."""
        return sum(estimate.seconds for found in self.of(callback).values() for estimate in found.values())

    def of(self, callback: str) -> Mapping[str, dict[str, Estimate]]:
        """The known estimates of a callback: part -> key -> estimate."""
        return self._known.get(callback, {})

    def keep(self, callback: str, part: str, found: Mapping[str, Estimate]) -> None:
        """Keep the estimates of a part. On a full disk they are lost only if the run is interrupted."""
        self._known.setdefault(callback, {})[part] = dict(found)
        if perf_counter() - self._written < SECONDS:
            return
        measured = {
            callback: {
                part: {key: asdict(estimate) for key, estimate in found.items()} for part, found in parts.items()
            }
            for callback, parts in self._known.items()
        }
        with contextlib.suppress(OSError):
            write_atomic(self._path, json.dumps({**self._head, "measured": shared(measured)}, indent=1) + "\n")
        self._written = perf_counter()

    def _read(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        try:
            content = json.loads(read_bytes(self._path))
            if any(content[key] != value for key, value in self._head.items()):
                return {}
            return {
                callback: {
                    part: {key: Estimate(**estimate) for key, estimate in found.items()}
                    for part, found in parts.items()
                }
                for callback, parts in content["measured"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
