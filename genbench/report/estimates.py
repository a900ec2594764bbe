"""Estimates as a table in the terminal."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from genbench.measures.estimate import Estimate

if TYPE_CHECKING:
    from rich.table import Table


def terminal(title: str, estimates: Mapping[str, Estimate]) -> "Table":
    """A rich table of the whole network's estimates, grouped by what stands before their names; those of single layers
    are counted."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    names = [key.rpartition("/")[2] for key in estimates if not is_of_layer(key)]
    table.add_column("measure", no_wrap=True, min_width=2 + max(map(len, names), default=0))
    for heading in ("value", "std. error", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note")
    ordered = sorted(estimates.items(), key=lambda item: item[0].rpartition("/")[0])
    for group, members in itertools.groupby(ordered, key=lambda item: item[0].rpartition("/")[0]):
        table.add_row(Text(group, style="bold"))
        layers = 0
        for key, estimate in members:
            name = key.rpartition("/")[2]
            if is_of_layer(key):
                layers += 1
                continue
            value = Text("–", style="yellow") if estimate.value is None else f"{estimate.value:.4g}"
            error = "" if estimate.stderr is None else f"{estimate.stderr:.2g}"
            seconds = f"{estimate.seconds:.2f}" if estimate.seconds >= 0.005 else ""
            table.add_row(f"  {name}", value, error, seconds, Text(remark(estimate), style="dim"))
        if layers:
            table.add_row(Text(f"  … and {layers} of single layers", style="dim"))
    return table


def is_of_layer(key: str) -> bool:
    """Whether a metric key is that of a single layer or parameter."""
    return "." in key.rpartition("/")[2]


def remark(estimate: Estimate) -> str:
    """What must be known of an estimate besides its number."""
    parts = ["not converged"] if estimate.converged is False else []
    if estimate.interval is not None:
        low, high = estimate.interval
        parts.append(f"between {low:.4g} and {high:.4g}")
    return "; ".join([*parts, *([estimate.note] if estimate.note else [])])
