"""Reports of a folder of records: the table in the terminal and as files, figures, one HTML page."""

import json
import re
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.privacy import clean
from genbench.process import collecting
from genbench.report import claims, render, terminal
from genbench.report.dataframe import read as read_csv
from genbench.report.dataframe import table_of
from genbench.report.latex import latex, verdicts_latex
from genbench.report.model import Point, Table, Verdicts
from genbench.report.selection import Selection, load, select
from genbench.report.table import build, points

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.report.html import Picture

__all__ = [
    "Point", "Report", "Table", "build", "load", "points", "read_csv", "status_lines", "table_of", "table_text",
    "trouble", "write_table",
]  # fmt: skip

_FORMATS = ("svg", "png")
_MANIFEST = "figures.json"
_RENDERED = {"markdown": render.markdown, "latex": latex, "csv": render.comma_separated}
_CLAIMS = "claims.csv"
_FILES = {"markdown": "table.md", "latex": "table.tex", "csv": "table.csv"}


class Report:
    """The report of a folder of runs: a table in the terminal, files, or one HTML page. Reads the folder once.

    It shows the runs of the last command, or with ``everything`` all runs in the folder. ``spec`` replaces the sweep's
    own table. ``trust`` imports rules of claims that the folder names and that are not genbench's own. Raises
    ``ValueError`` as :func:`genbench.report.table.build` does.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        spec: Mapping[str, Any] | None = None,
        everything: bool = False,
        trust: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.selection = load(folder, everything=everything)
        self._spec = spec
        self._trust = trust

    @cached_property
    @collecting.paused()
    def table(self) -> Table:
        """The table."""
        return build(self.selection, self._spec)

    @cached_property
    @collecting.paused()
    def points(self) -> list[Point]:
        """The completed runs."""
        return points(self.selection, self._spec)

    @cached_property
    def verdicts(self) -> Verdicts | None:
        """The verdicts on the claims that the last command registered; None without claims."""
        return claims.of_selection(self.selection, trust=self._trust)

    def write(self) -> list[Path]:
        """Write table.md, table.tex, table.csv, report.html and figures/ into the folder, and claims.csv if there are
        verdicts; return the paths written.

        Figures are drawn only if their records have changed.
        """
        from genbench.report import html

        written = [_write(self.folder / name, self.text(kind)) for kind, name in _FILES.items()]
        written += _write_claims(self.verdicts, self.folder / _CLAIMS)
        pictures = _pictures(self, keep=True)
        page = html.page(self.selection, self.table, self.points, pictures, self.verdicts)
        written.append(_write(self.folder / "report.html", page))
        return written + [self.folder / "figures" / f"{item.name}.{kind}" for item in pictures for kind in _FORMATS]

    def text(self, kind: str) -> str:
        """Return the report as ``markdown``, ``latex``, ``csv`` or ``html``; write nothing."""
        from genbench.report import html

        if kind == "html":
            return html.page(self.selection, self.table, self.points, _pictures(self, keep=False), self.verdicts)
        text = table_text(self.table, kind)
        if kind == "csv" or self.verdicts is None:
            return text
        below = (
            render.verdicts_markdown(self.verdicts)
            if kind == "markdown"
            else verdicts_latex(self.verdicts, self.table.title)
        )
        return f"{text}\n{below}"

    def show(self, console: "Console | None" = None) -> None:
        """Print the table, the verdicts, the failed runs and the command that runs them again."""
        from rich.console import Console
        from rich.text import Text

        console = console or Console()
        console.print(terminal.renderable(self.table, console.width))
        if self.verdicts is not None:
            console.print(claims.renderable(self.verdicts))
        for line in trouble(self.selection):
            console.print(Text(line, style="red"), soft_wrap=True)


def table_text(table: Table, kind: str) -> str:
    """Return a table as ``markdown``, ``latex`` or ``csv``."""
    return _RENDERED[kind](table)


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write table.md, table.tex and table.csv into the folder; return the paths written."""
    return [_write(folder / name, _RENDERED[kind](table)) for kind, name in _FILES.items()]


def _write_claims(verdicts: Verdicts | None, path: Path) -> list[Path]:
    """Write claims.csv; without verdicts, remove one of an earlier command."""
    if verdicts is not None and verdicts.rows:
        return [_write(path, render.verdicts_csv(verdicts))]
    if path.is_file() and render.is_claims(records.read_bytes(path)):
        path.unlink()
    return []


def trouble(selection: Selection) -> list[str]:
    """List the runs that failed or whose record is damaged, and how to run them again."""

    overrides = _overrides(selection)

    def named(state: str, word: str) -> list[str]:
        return [
            f"{word}: {run.run_id} ({overrides[run.run_id]})"
            + (f": {clean(run.record['error'])}" if run.record else "")
            for run in selection.runs
            if run.state == state
        ]

    lines = [*named("failed", "failed"), *named("damaged", "damaged")]
    if lines:
        again = (
            f"with the same command: {command(selection.sweep)}"
            if selection.sweep
            else "with the command that started them"
        )
        lines.append(f"run these again {again}")
    return named("diverged", "final") + lines


def status_lines(folder: str | Path, *, everything: bool = False) -> list[str]:
    """Count the runs in ``folder`` by state, then list those that failed or diverged, with the reason.

    Counts the runs of the last command, or with ``everything`` all runs.
    """
    loaded = records.load(folder)
    selection = select(loaded, everything=everything)
    hidden = {record["run_id"] for record in loaded.records} - {run.run_id for run in selection.runs}
    states = {run_id: state for run_id, state in records.status(folder).items() if run_id not in hidden}
    names = ("done", "running", "diverged", "failed", "damaged", "missing")
    counts = {name: sum(state == name for state in states.values()) for name in names}
    always = ("done", "running", "failed", "missing")
    lines = [", ".join(f"{count} {name}" for name, count in counts.items() if count or name in always)]
    overrides = _overrides(selection)
    errors = {record["run_id"]: record["error"] for record in selection.records}
    for run_id, state in states.items():
        if state in ("failed", "diverged", "damaged"):
            reason = clean(errors.get(run_id) or _damage(Path(folder) / run_id))
            lines.append(f"{state}: {run_id} ({overrides.get(run_id, 'not in the last sweep')}): {reason}")
    for path, reason in selection.problems:
        run_id, _, name = path.partition("/")
        if run_id not in states or name not in ("", records.RECORD):
            what = "a record" if name in ("", records.RECORD) else "read"
            lines.append(f"not {what}: {path} {clean(reason)}")
    lines += selection.left_out[len(selection.problems) :]
    if selection.sweep and counts["failed"] + counts["damaged"] + counts["missing"]:
        lines.append(f"the same command runs what is missing: {command(selection.sweep)}")
    return lines


def _damage(folder: Path) -> str:
    try:
        records.verify(folder)
    except records.RecordError as error:
        return str(error)
    return "unknown"


def command(sweep: Mapping[str, Any]) -> str:
    """Return the command line of a sweep."""
    return shlex.join(["genbench", *map(str, sweep["command"])])


def _overrides(selection: Selection) -> dict[str, str]:
    """Return the overrides of each run, by run id."""
    seeds = {record["run_id"]: f"seed={record['seed']}" for record in selection.records}
    plan = (selection.sweep or {}).get("runs", [])
    return seeds | {run["run_id"]: " ".join(map(clean, run.get("overrides", []))) for run in plan}


def _write(path: Path, content: str) -> Path:
    records.write_atomic(path, content)
    return path


@collecting.paused()
def _pictures(report: Report, *, keep: bool) -> list["Picture"]:
    """Load the figures if they were drawn from the same records; else draw them, and write them if ``keep``."""
    from genbench.report.html import Picture

    folder = report.folder / "figures"
    inputs = _inputs(report)
    before: set[str] = set()
    try:
        manifest = json.loads(records.read_bytes(folder / _MANIFEST))
        before = {name for name in map(str, manifest["files"]) if re.fullmatch(r"\w+\.(svg|png)", name)}
        if manifest["inputs"] == inputs and all(
            records.file_digest(folder / name) == expected for name, expected in manifest["files"].items()
        ):
            return [
                Picture(
                    item["name"], item["title"], item["caption"], records.read_bytes(folder / f"{item['name']}.svg")
                )
                for item in manifest["figures"]
            ]
    except (OSError, ValueError, KeyError, TypeError):  # absent, interrupted or altered: draw again
        pass
    from genbench.report.figures import style, sweep

    pictures, files = [], {}
    if keep:
        folder.mkdir(exist_ok=True)
    with style.context():
        for drawn in sweep.draw(report.selection, report.table, report.points):
            contents = {kind: style.saved(drawn, kind) for kind in (_FORMATS if keep else _FORMATS[:1])}
            pictures.append(Picture(drawn.name, drawn.title, drawn.caption, contents["svg"]))
            for kind, content in contents.items() if keep else ():
                name = f"{drawn.name}.{kind}"
                records.write_atomic(folder / name, content)
                files[name] = records.file_digest(folder / name)
    if keep:
        named = [{"name": item.name, "title": item.title, "caption": item.caption} for item in pictures]
        manifest = {"inputs": inputs, "figures": named, "files": files}
        records.write_atomic(folder / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for name in before - files.keys():  # drawn from other runs
            (folder / name).unlink(missing_ok=True)
    return pictures


def _inputs(report: Report) -> str:
    """Digest of all that figures depend on: the records, the table's text and the code that draws."""
    code = [records.file_digest(file) for file in sorted((Path(__file__).parent / "figures").glob("*.py"))]
    words = [render.comma_separated(report.table), *report.table.figures]
    read = [[record["digest"], record.get("added")] for record in report.selection.records]
    return records.digest([*code, read, words])
