"""Tables of results from elsewhere: a DataFrame or a CSV file with one run per row."""

import io
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.checks import nearest
from genbench.privacy import clean
from genbench.records.settings import show
from genbench.report.format import listed
from genbench.report.model import Table
from genbench.report.selection import SelectedRun, Selection, of_record
from genbench.report.table import build

if TYPE_CHECKING:
    import pandas as pd

SEED = "seed"


def table_of(
    frame: "pd.DataFrame",
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    baseline: Any = None,
    seed: str | None = None,
    title: str = "results",
) -> Table:
    """Build the table of a frame with one run per row, as :func:`genbench.report.table.build` does from records.

    The caption states every default that was used; a footnote names each cell that is not a number.

    Args:
        frame: one run per row.
        rows: columns whose values label the table's rows (default: the text columns that vary).
        columns: the metrics (default: the other columns of numbers).
        baseline: label of the row with which the others are compared, paired by ``seed``.
        seed: the column of seeds (default: "seed"; without such a column, runs are numbered within their row).
        title: the table's title.

    Raises:
        ValueError: a column that the frame does not have, or runs that nothing distinguishes; one line.
    """
    frame = frame.set_axis([clean(name) for name in frame.columns], axis=1)
    names = list(frame.columns)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the column {twice[0]!r} appears twice")
    for name in [*(rows or ()), *(columns or ()), *([seed] if seed is not None else ())]:
        if name not in names:
            raise ValueError(f"there is no column {name!r}; {nearest(name, names)}")
    seed = SEED if seed is None and SEED in names else seed
    cells = {name: frame[name].tolist() for name in names}
    said = []
    if not rows:
        texts = [name for name in names if name not in (seed, *(columns or ())) and not _is_numeric(cells[name])]
        kinds = {name: len({_setting(cell) for cell in cells[name]}) for name in texts}
        # a column of unique values names runs, not methods: it is the last resort
        rows = [name for name in texts if 1 < kinds[name] < len(frame)] or [name for name in texts if kinds[name] > 1]
        rows = rows or texts[:1]
        if not rows:
            raise ValueError(f"no column of text can label the rows; name some in rows, of {', '.join(names)}")
        said.append(f"No rows were named: these are the text columns that vary ({listed(rows)}).")
    if not columns:
        columns = [name for name in names if name not in (seed, *rows) and _is_numeric(cells[name])]
        said.append("No columns were named: these are the numeric columns.")
    if not columns:
        raise ValueError(f"no column of numbers is left to show; name some in columns, of {', '.join(names)}")
    if seed is None:
        said.append(
            "No column holds seeds: runs are numbered within their row in the given order, and paired by number."
        )
    spec: dict[str, Any] = {
        "caption": " ".join(said),
        "rows": list(rows),
        "columns": [{"label": name, "metric": name} for name in columns],
        **({} if baseline is None else {"baseline": show(baseline)}),
    }
    return build(Selection(title, _runs(cells, len(frame), rows, columns, seed)), spec)


def read(path: Path) -> "pd.DataFrame":
    """Read a CSV file as text. The first line names the columns; commas, semicolons or tabs separate them.

    Raises:
        ValueError: it cannot be read, or is no CSV file; one line.
    """
    import pandas as pd

    try:
        content = records.read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no CSV file: it is not UTF-8 text") from None
    separator = max(",;\t", key=content.partition("\n")[0].count)
    try:
        # read all as text, and the header as an ordinary line: pandas would take "None" for missing, rename a second
        # column of the same name, and shift a line that is too long
        lines = pd.read_csv(io.StringIO(content), sep=separator, header=None, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise ValueError(f"{path} is no CSV file: {' '.join(str(error).split())}") from None
    return lines.iloc[1:].set_axis([str(name).strip() for name in lines.iloc[0]], axis=1)


def _runs(
    cells: dict[str, list[Any]], count: int, rows: Sequence[str], columns: Sequence[str], seed: str | None
) -> list[SelectedRun]:
    runs = []
    taken: dict[tuple[str, ...], dict[Hashable, int]] = {}
    for index in range(count):
        settings = {name: text for name in rows if (text := _setting(cells[name][index]))}
        label = tuple(settings.get(name, "–") for name in rows)
        own = taken.setdefault(label, {})
        number = str(len(own)) if seed is None else _setting(cells[seed][index])
        if not number:
            raise ValueError(f"run {index + 1} has no {seed}")
        if (other := own.setdefault(number, index)) != index:
            outside = [name for name in cells if name not in (*rows, *columns)]
            differing = [name for name in outside if _setting(cells[name][other]) != _setting(cells[name][index])]
            hint = f"; they differ in {listed(differing[:3])}" if differing else ""
            raise ValueError(
                f"the row {'/'.join(label)!r} holds {seed} {number} twice (runs {other + 1} and {index + 1}); name in "
                f"rows what distinguishes them{hint}"
            )
        runs.append(_run(index, number, settings, {name: cells[name][index] for name in columns}))
    return runs


def _run(index: int, seed: str, settings: dict[str, str], measured: dict[str, Any]) -> SelectedRun:
    """Return a line of the file as the record of a completed run."""
    parts: dict[str, dict[str, Any]] = {"metrics": {}, "seconds": {}, "notes": {}}
    for name, cell in measured.items():
        value = _number(cell)
        if value is None and (text := _setting(cell)):
            parts["notes"][name] = f"{text[:40]!r} is no number"
        clock = name.startswith("seconds.")
        parts["seconds" if clock else "metrics"][name.removeprefix("seconds.") if clock else name] = value
    record = {
        "run_id": f"run {index + 1}",
        "status": "completed",
        "error": None,
        "seed": seed,
        "choices": settings,
        **{part: {} for part in ("config", "altered", "converged", "provenance")},
        **parts,
    }
    return of_record(record)


def _is_missing(cell: Any) -> bool:
    import pandas as pd

    return (isinstance(cell, str) and not cell.strip()) or (pd.api.types.is_scalar(cell) and bool(pd.isna(cell)))


def _number(cell: Any) -> float | None:
    """Return the number in a cell, or None."""
    if _is_missing(cell) or isinstance(cell, bool) or (isinstance(cell, str) and "_" in cell):
        return None
    try:
        value = float(cell)
    except OverflowError:  # an integer beyond float64: its digits say more than "infinite"
        return cell
    except (TypeError, ValueError):
        return None
    return None if value != value else value


def _is_numeric(cells: Sequence[Any]) -> bool:
    """Whether most cells of a column are numbers; a word among them counts as a missing value."""
    held = [cell for cell in cells if not _is_missing(cell)]
    return 2 * sum(_number(cell) is not None for cell in held) > len(held)


def _setting(cell: Any) -> str:
    """Return a cell as text, '' if empty; equal numbers give equal texts, unless that would round them."""
    if _is_missing(cell):
        return ""
    value = _number(cell)
    text = show(value) if isinstance(value, float) else show(cell)
    return text if value is None or float(text) == value else str(cell).strip()
