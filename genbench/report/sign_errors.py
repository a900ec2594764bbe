"""A table of sign errors: how often each measure orders runs against their gap, along each hyperparameter."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genbench.analysis.pairs import MEAN
from genbench.analysis.statistics import Mean
from genbench.privacy import clean
from genbench.report.caption import published_caption
from genbench.report.format import listed
from genbench.report.model import Cell, Column, Row, Table
from genbench.report.ranking.columns import of_selection
from genbench.report.selection import Selection
from genbench.report.spec import MEAN_ERROR, WORST_ERROR, sign_errors_of


def build(selection: Selection, spec: Mapping[str, Any]) -> Table:
    """Build a further table whose rows are measures; see :class:`genbench.report.spec.SignErrors`.

    Raises:
        ValueError: a malformed spec, or a metric or setting that the runs do not have; one line.
    """
    from genbench.analysis.selection import inside, windows
    from genbench.analysis.sign_errors import sign_errors

    asked = sign_errors_of(spec)
    found = of_selection(
        selection,
        gap=asked.gap,
        measures=[*asked.measures],
        hyperparameters=[*asked.axes],
        within=[name for name in asked.within if name not in asked.measures],
    )
    kept = inside(found.frame, asked.within)
    frame, said = found.frame[kept].reset_index(drop=True), []
    if not kept.all():
        said = [f"{int((~kept).sum())} of {len(kept)} runs are left out, without {listed(windows(asked.within))}."]
    errors = sign_errors(
        frame, gap=asked.gap, measures=[*asked.measures], hyperparameters=[*asked.axes], test_size=asked.test_size
    )
    notes: list[str] = []
    rows = []
    for name, label in asked.measures.items():
        missing = int(frame[name].isna().sum())
        text = [f"no value in {missing} of {len(frame)} runs, whose pairs are left out"] if missing else []
        notes += [each for each in text if each not in notes]
        rows.append(Row(label=label, notes=tuple(map(notes.index, text))))
    columns = [
        Column(label=title, metric=asked.gap, digits=2, published=asked.published.get(title, {}))
        for title in (*asked.axes.values(), MEAN_ERROR, WORST_ERROR)
    ]
    own = errors[errors["axis"] != MEAN]
    grid = [
        [
            _cell(own[(own["measure"] == name) & (own["axis"] == axis)]["value"].to_numpy(), column, label)
            for axis, column in zip(asked.axes, columns, strict=False)
        ]
        + [_cell(own[own["measure"] == name]["value"].to_numpy(), column, label) for column in columns[-2:]]
        for name, label in asked.measures.items()
    ]
    environments = len({(row["axis"], row["a"], row["b"]) for row in own.to_dict("records")})
    return Table(
        title=clean(spec.get("title") or "Sign errors"),
        caption=[
            *([clean(spec["caption"])] if spec.get("caption") else []),
            f"The share of pairs of runs, apart in one hyperparameter, that a measure orders against {asked.gap}, "
            f"weighted by how surely {asked.test_size:,} test examples tell the two gaps apart; ½ is chance. An "
            "environment is two values of a hyperparameter: along each hyperparameter, and over all "
            f"{environments}, their mean.",
            *said,
            *published_caption(columns, rows, grid, []),
        ],
        header="measure",
        rows=rows,
        columns=columns,
        cells=grid,
        baseline=None,
        notes=notes,
        problems=[],
    )


def _cell(values: np.ndarray, column: Column, label: str) -> Cell:
    """The mean of the environments' sign errors, or in the last column their 90th percentile."""
    published = column.published.get(label)
    if not len(values):
        return Cell(status="–", published=published)
    value = np.quantile(values, 0.9) if column.label == WORST_ERROR else values.mean()
    return Cell(mean=Mean(float(value), None, len(values)), published=published)
