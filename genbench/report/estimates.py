"""Estimates as a table in the terminal."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from genbench.records import SEARCH
from genbench.records.estimate import Estimate
from genbench.report.format import letter

if TYPE_CHECKING:
    from rich.console import Group


def terminal(title: str, estimates: Mapping[str, Estimate]) -> "Group":
    """Return a rich table of the whole network's estimates, grouped by split and family, with notes below.

    Estimates of single layers are only counted.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for heading in ("value", "std. error", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note")
    notes: dict[str, str] = {}
    ordered = sorted(estimates.items(), key=lambda item: item[0].rpartition("/")[0])
    for group, members in itertools.groupby(ordered, key=lambda item: item[0].rpartition("/")[0]):
        table.add_row(Text(group, style="bold"))
        layers = 0
        for key, estimate in members:
            if is_of_layer(key):
                layers += 1
                continue
            value = Text("–", style="yellow") if estimate.value is None else f"{estimate.value:.4g}"
            error = "" if estimate.stderr is None else f"{estimate.stderr:.2g}"
            seconds = f"{estimate.seconds:.2f}" if estimate.seconds >= 0.005 else ""
            mark = notes.setdefault(text, letter(len(notes))) if (text := remark(estimate)) else ""
            table.add_row("  " + key.rpartition("/")[2], value, error, seconds, mark)
        if layers:
            table.add_row(Text(f"  … and {layers} of layers", style="dim"))
    return Group(table, *(Text(f"{mark} {text}", style="dim") for text, mark in notes.items()))


def is_of_layer(key: str) -> bool:
    """Whether a metric key belongs to a single layer or parameter."""
    return "." in key.rpartition("/")[2]


def remark(estimate: Estimate) -> str:
    """Return the note of an estimate; how a search went is part of it only if it did not converge."""
    parts = ["not converged"] if estimate.converged is False else []
    if estimate.interval is not None and estimate.stderr is None:
        low, high = estimate.interval
        parts.append(f"between {low:.4g} and {high:.4g}")
    notes = estimate.note.split("; ") if estimate.note else []
    return "; ".join([*parts, *(note for note in notes if not (estimate.converged and note.startswith(SEARCH)))])
