"""What a set of measures sees of a network: its split, some of the examples for curvature, and the train split."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from genbench.callbacks.splits import AUTO, FEW, Data, few, noted
from genbench.measures import Estimate, Snapshot
from genbench.measures.base import MeasureOf, evaluate, needs_data, of_flatness, of_train, reason


@dataclass(frozen=True)
class Views:
    """The snapshots of one network that a set of measures is evaluated on, and the notes on their examples.

    During training, at its end and afterwards, measures see the same.
    """

    measures: Mapping[str, MeasureOf]
    split: str
    snapshot: Snapshot
    few: Snapshot | None = None
    notes: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        measures: Mapping[str, MeasureOf],
        split: str,
        *,
        examples: int | str | None,
        snapshot: Callable[[str], Snapshot | None],
        data: Callable[[int], Data | None],
        without: Callable[[Any], Snapshot],
    ) -> "Views":
        """Return the views of a network.

        Args:
            measures: functions by name; those with the argument ``train`` also get a snapshot of the train split.
            split: name of the split that they are evaluated on.
            examples: number of examples of the split; ``None`` for all; ``"auto"`` for all, but at most 1,024 for
                measures of curvature and sharpness.
            snapshot: split -> the network on these examples; ``None`` if there is no such split.
            data: number -> so many examples of the split.
            without: batches -> the network on these, which say why there are none when a measure reads them.

        Raises:
            ValueError: the network cannot be measured.
        """
        absent, found, some, note = f"there is no {split} split", None, None, None
        if any(map(needs_data, measures.values())):
            try:
                found = snapshot(split)
                if found is not None and examples == AUTO and any(map(of_flatness, measures.values())):
                    chosen = data(FEW)
                    if chosen is not None and (note := few(split, chosen)):
                        some = found.on(chosen.batches)
            except Exception as error:  # measures of weights need no data
                absent = reason(error)
        if found is None:
            found = without(_Absent(absent))
        if any(map(of_train, measures.values())):
            try:
                train = snapshot("train") or without(_Absent("there is no train split"))
            except Exception as error:
                train = without(_Absent(reason(error)))
            bound: Any = partial
            measures = {name: bound(each, train=train) if of_train(each) else each for name, each in measures.items()}
        return cls(measures, split, found, some, {f"{split}/flatness": note})

    def evaluate(
        self,
        *,
        known: Mapping[str, Mapping[str, Estimate]] | None = None,
        keep: Callable[[str, dict[str, Estimate]], None] | None = None,
    ) -> dict[str, Estimate]:
        """Return the estimates by metric key; ``known`` and ``keep`` as in :func:`genbench.measures.base.evaluate`."""

        def kept(name: str, found: dict[str, Estimate]) -> None:
            if keep is not None:
                keep(name, noted(found, self.notes))

        found = evaluate(self.measures, self.snapshot, split=self.split, few=self.few, known=known, keep=kept)
        return noted(found, self.notes)


class _Absent:
    """The batches of a split without data; measures of weights never iterate over them."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __iter__(self) -> Iterator[Any]:
        raise ValueError(self.reason)
