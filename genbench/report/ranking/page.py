"""``ranking.html``: the runs as points to look at, and the ranking beside them; one file that needs no network."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.checks import require
from genbench.report.html import environment
from genbench.report.ranking.columns import Columns
from genbench.report.ranking.text import caption, tables

if TYPE_CHECKING:
    from genbench.analysis.ranking import Ranking

_DIGITS = 6  # significant, of a number: more would be points that look the same in a larger file


def page(ranking: "Ranking", columns: Columns) -> str:
    """Return the page. A reader picks measure, gap, colour and filter, and sorts the ranking.

    Raises:
        ConfigError: Plotly, which draws it, is not installed.
    """
    offline = require("plotly.offline", extra="interactive", needed_by="ranking.html")
    heads = {name: of for _, part in tables(ranking) for name, of in part.items()}
    keys = {"τ": "tau", "Ψ": "psi", "rank": "rank", "ρ": "rho", "τ-b": "tau_b", "n": "runs"}
    keys |= {"wrong in": "wrong", "information": "information", "τ within": "within", "ΔR²": "increment"}
    keys |= {"τ with those left out": "tau_worst", "reliability": "reliability", "sign error: mean, 90 %": "sign_error"}
    keys |= {"of configurations": "pair_sign_error"}
    keys |= {"lowest τ in a part": "lowest", "below 0 in": "turned", "measure": "measure"}
    keys |= {name: "difference" for name in heads if name.endswith("baseline's")}
    rows = []
    for row in ranking.rows:
        cells = []
        for name, of in heads.items():
            value = row[keys[name]]
            known = isinstance(value, str) or (value is not None and not math.isnan(value))
            cells.append((of(row), str(value) if known else ""))
        rows.append({"measure": row["measure"], "control": row["control"], "cells": cells})
    names = [name for name in ranking.table["measure"] if name in columns.frame]
    data: dict[str, Any] = {
        "measures": names,
        "gaps": [columns.gap, *(name for name in columns.answers if name != columns.gap)],
        "settings": [*columns.hyperparameters],
    }
    shown = [*data["gaps"], *names, *data["settings"]]
    data["columns"] = {name: [_plain(value) for value in columns.frame[name]] for name in shown}
    rows = [row for row in rows if row["control"] or row["measure"] in names]
    return (
        environment()
        .get_template("ranking.html.j2")
        .render(
            ranking=ranking,
            columns=[*heads],
            rows=rows,
            caption=caption(ranking),
            data=data,
            plotly=offline.get_plotlyjs(),
        )
    )


def _plain(value: Any) -> Any:
    """A number of few digits, None of one that is not finite, or text."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        number = float(value)
        return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None
    return str(value)
