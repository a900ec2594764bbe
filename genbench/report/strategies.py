"""A page of strategies: each one's definition, from its docstring, and its results, from records."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench.report.format import decimals, half, number
from genbench.report.model import Table
from genbench.report.selection import Selection
from genbench.report.table import build


def page(folder: Path, experiments: Sequence[Selection]) -> str:
    """Return Markdown with a section for each choice of the group ``regularization`` in a folder of configurations.

    Definition and reference come from the docstring. Below them stand the results of each experiment with a row of the
    strategy, or with rows for its settings alone: for every column with a best value, the mean with its interval and
    the difference from the baseline. The columns are then sorted into better, worse and undecided by the test against
    the baseline after Holm's correction.
    """
    import yaml

    tables = [build(each) for each in experiments]
    lines = [
        "# Strategies",
        "",
        "Written by `genbench-table FOLDER … --strategies` from the docstrings and these records:",
        "",
    ]
    for table in tables:
        lines += [f"- **{table.title}.** {' '.join(table.caption)}"]
    for path in sorted((folder / "regularization").glob("*.yaml")):
        (entry,) = (yaml.safe_load(path.read_text()) or {path.stem: None}).items()
        name, node = entry
        if node is None:  # the baseline
            continue
        about = path.read_text().splitlines()[0].lstrip("# ")
        chosen = {key: "null" if value is None else value for key, value in node.items() if not key.startswith("_")}
        settings = ", ".join(f"`{key}={value}`" for key, value in chosen.items())
        lines += ["", f"## {name}", "", f"{about[0].upper()}{about[1:]}. {described(node['_target_'])}", ""]
        lines += [f"`regularization={name}`" + (f" with {settings}" if settings else "") + ".", ""]
        measured = [
            line
            for table, loaded in zip(tables, experiments, strict=True)
            for row in _rows(table, loaded, name)
            for line in _measured(table, row, name)
        ]
        lines += measured or ["Not measured in these experiments."]
    return "\n".join(lines) + "\n"


def described(target: str) -> str:
    """Return the docstring of a class as Markdown, without its arguments.

    >>> described("genbench.regularization.SAM").partition(", ")[0]
    'Takes the gradient at w + rho · g/‖g‖₂'
    """
    from hydra.utils import get_object

    text = inspect.cleandoc(get_object(target).__doc__ or "").partition("\nArgs:")[0]
    text = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{found[1].rsplit('.', 1)[-1]}`", text).replace("``", "`")
    text = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text.replace("arXiv\n", "arXiv "))
    return text.strip()


def _rows(table: Table, loaded: Selection, name: str) -> list[int]:
    """Return a strategy's rows, without the baseline: the row of its name, or all if it alone was trained."""
    only = all(record["choices"].get("regularization") == [name] for record in loaded.records)
    return [i for i, row in enumerate(table.rows) if i != table.baseline and (only or row.label == name)]


def _measured(table: Table, row: int, name: str) -> list[str]:
    """Return what a table says about a row, as lines of Markdown."""
    told: list[str] = []
    verdicts: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
    for column, cell, digits in zip(table.columns, table.cells[row], decimals(table)[row], strict=True):
        if not column.best:
            continue
        if cell.mean is None:
            told.append(f"*{column.title}* {cell.status or 'not measured'}")
            continue
        told.append(f"*{column.title}* {_interval(cell.mean, digits)}")
        if (difference := cell.difference) is not None:
            sign = "+" if difference.value > 0 else ""
            told[-1] += f" ({sign}{_interval(difference, digits)})"
            good = (difference.value > 0) == (column.best == "max")
            verdicts[("better" if good else "worse") if cell.significant else "undecided"].append(f"*{column.title}*")
    against = table.rows[table.baseline].label if table.baseline is not None else None
    label, chosen = table.rows[row].label, table.rows[row].chosen
    shown = ("" if label == name else f" ({table.header}: {label})") + (f" at {chosen}" if chosen else "")
    found = "; ".join(f"{verdict}: {', '.join(columns)}" for verdict, columns in verdicts.items() if columns)
    differing = (
        f" In parentheses the difference from {against}, paired by seed. After correction: {found}." if found else ""
    )
    return [f"**{table.title}**{shown}: {'; '.join(told)}.{differing}", ""]


def _interval(mean: Any, digits: int | None) -> str:
    interval = "" if mean.half_width is None else f" ± {half(mean.half_width, digits)}"
    return number(mean.value, digits) + interval
