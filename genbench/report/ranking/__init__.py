"""Rankings of measures: of a folder of runs or of a CSV file, as tables, files and figures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.checks import ConfigError
from genbench.report.ranking.columns import Columns, of_file, of_selection
from genbench.report.ranking.page import page
from genbench.report.ranking.text import comma_separated, latex_text, markdown, renderable

if TYPE_CHECKING:
    from genbench.analysis.ranking import Ranking

__all__ = ["Columns", "check_output", "of_file", "of_selection", "page", "ranked", "renderable", "text", "write"]

_TEXTS = {"markdown": markdown, "latex": latex_text, "csv": comma_separated}
_FILES = {"markdown": "ranking.md", "latex": "ranking.tex", "csv": "ranking.csv"}


def ranked(columns: Columns, *, falls: Sequence[str] | None = None, **settings: Any) -> "Ranking":
    """Rank the measures of these columns; the notes also say what was taken for what. With ``falls`` no direction is
    learned: these measures are to fall with the gap too, and the others to rise. Further ``settings`` are those of
    :func:`genbench.analysis.rank`."""
    from genbench.analysis import rank

    directions = dict(columns.directions)
    if falls is not None:
        directions = {name: sign or 1 for name, sign in directions.items()} | dict.fromkeys(falls, -1)
    found = rank(
        columns.frame,
        gap=columns.gap,
        measures=columns.measures,
        hyperparameters=columns.hyperparameters,
        seeds=columns.seeds,
        directions=directions,
        beside=columns.beside,
        test_size=columns.test_size,
        **settings,
    )
    return replace(found, notes=[*columns.said, *found.notes])


def text(ranking: "Ranking", kind: str) -> str:
    """Return a ranking as ``markdown``, ``latex`` or ``csv``."""
    return _TEXTS[kind](ranking)


def check_output(folder: Path, source: Path) -> None:
    """Refuse to write a ranking over files that are not another one's.

    Raises:
        ValueError: with the file; one line.
    """
    for name in (*_FILES.values(), "ranking.html"):
        path = folder / name
        if path.exists() and (path.samefile(source) or not _is_ranking(path)):
            raise ValueError(f"{path} is no ranking, and would be overwritten; accepted: another folder with --output")
    if (folder / "figures").exists() and not (folder / "figures").is_dir():
        raise ValueError(f"{folder / 'figures'} is a file; accepted: another folder with --output")


def _is_ranking(path: Path) -> bool:
    """Whether a file begins as one of :func:`write`."""
    if not path.is_file():
        return False
    beginning = records.read_bytes(path)[:400].decode("utf-8", errors="replace")
    return {
        ".md": beginning.startswith("#### Which measure predicts"),
        ".tex": "Which measure predicts" in beginning,
        ".csv": beginning.startswith("measure,control,"),
        ".html": "<title>Which measure predicts" in beginning,
    }[path.suffix]


def write(ranking: "Ranking", columns: Columns, folder: Path) -> tuple[list[Path], str]:
    """Write ranking.md, ranking.tex, ranking.csv, ranking.html and figures/ranking_*.{svg,png} into the folder; return
    the paths, and why there is no ranking.html."""
    from genbench.analysis.selection import inside
    from genbench.report.figures import ranking as figures
    from genbench.report.figures import style

    columns = replace(columns, frame=columns.frame[inside(columns.frame, ranking.within)])
    written = [folder / name for name in _FILES.values()]
    for kind, path in zip(_FILES, written, strict=True):
        records.write_atomic(path, text(ranking, kind))
    missing = ""
    try:
        records.write_atomic(folder / "ranking.html", page(ranking, columns))
        written.append(folder / "ranking.html")
    except ConfigError as reason:
        missing = str(reason)
    drawn = figures.draw(ranking, columns.frame)
    (folder / "figures").mkdir(exist_ok=True)
    for each in drawn:
        for kind in ("svg", "png"):
            written.append(folder / "figures" / f"{each.name}.{kind}")
            records.write_atomic(written[-1], style.saved(each, kind))
    return written, missing
