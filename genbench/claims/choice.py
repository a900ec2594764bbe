"""Which of the settings that were tried for a set of runs decides: that which validates best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.checks import check_choice

_ENDS = {"max": "highest", "min": "lowest"}


@dataclass(frozen=True)
class Choice:
    """The setting with the ``best`` (max or min) mean of ``metric`` over the other seeds.

    The seed at hand does not count, so that no setting is chosen for the luck of the run that it is judged by. A
    setting in which a run has no such number, as it diverged, comes last.
    """

    metric: str
    best: str

    @property
    def words(self) -> str:
        """How settings are chosen, as a sentence."""
        return (
            f"Of the settings that were tried for a set of runs, a seed counts with the one that has the "
            f"{_ENDS[self.best]} mean {self.metric} over the other seeds."
        )

    def among(self, groups: Sequence[Sequence[Mapping[str, Any]]], seed: int) -> int:
        """Return the position of the chosen group of records, each of one setting; the first of equal ones."""
        return max(range(len(groups)), key=lambda i: (self._score(groups[i], seed), -i))

    def _score(self, records: Sequence[Mapping[str, Any]], seed: int) -> float:
        others = [record for record in records if record["seed"] != seed and record["status"] != "failed"]
        numbers = [record["metrics"].get(self.metric) for record in others]
        if not numbers or any(number is None or not math.isfinite(number) for number in numbers):
            return -math.inf
        return {"max": 1, "min": -1}[self.best] * math.fsum(numbers) / len(numbers)


def choice_of(node: object) -> Choice | None:
    """Return the choice of the node ``claims.choose``; None without one.

    Raises:
        ValueError: what is not accepted, in one line.
    """
    if node is None:
        return None
    if not isinstance(node, Mapping) or set(node) != {"metric", "best"} or not isinstance(node["metric"], str):
        raise ValueError(f"claims.choose is {node!r}; accepted: {{metric: a metric, best: max or min}}, or null")
    return Choice(node["metric"], check_choice("claims.choose.best", node["best"], tuple(_ENDS)))
