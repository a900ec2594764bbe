"""Reports of a folder of records: the table in the terminal and as files, figures, one HTML page."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.records import Records, clean
from genbench.report import render
from genbench.report.table import Point, Table, build, points

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.report.html import Picture

__all__ = ["Point", "Table", "build", "points", "show", "status_lines", "text", "trouble", "write"]

_FORMATS = ("svg", "png")
_MANIFEST = "figures.json"


def write(folder: str | Path, *, spec: Mapping[str, Any] | None = None) -> list[Path]:
    """Write table.md, table.tex, table.csv, report.html and figures/ into ``folder``; return the paths written.

    ``spec`` replaces the table of the sweep. Figures whose records have not changed are left as they are. Raises
    ``ValueError`` as :func:`genbench.report.table.build` does.
    """
    from genbench.report import html

    folder = Path(folder)
    loaded = records.load(folder)
    table, found = build(loaded, spec), points(loaded, spec)
    written = []
    for name, text in (
        ("table.md", render.markdown(table)),
        ("table.tex", render.latex(table)),
        ("table.csv", render.comma_separated(table)),
    ):
        written.append(_write(folder / name, text))
    pictures = _pictures(loaded, table, found, keep=True)
    written.append(_write(folder / "report.html", html.page(loaded, table, found, pictures)))
    return written + [folder / "figures" / f"{item.name}.{kind}" for item in pictures for kind in _FORMATS]


def text(folder: str | Path, kind: str) -> str:
    """The report of ``folder`` as ``markdown``, ``latex``, ``csv`` or ``html``; writes nothing."""
    from genbench.report import html

    loaded = records.load(folder)
    table = build(loaded)
    if kind == "html":
        found = points(loaded)
        return html.page(loaded, table, found, _pictures(loaded, table, found, keep=False))
    return {"markdown": render.markdown, "latex": render.latex, "csv": render.comma_separated}[kind](table)


def show(folder: str | Path, console: "Console | None" = None, *, spec: Mapping[str, Any] | None = None) -> None:
    """Print the table, then the runs that failed and the command that tries them again."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    loaded = records.load(folder)
    console.print(render.terminal(build(loaded, spec), console.width))
    for line in trouble(loaded):
        console.print(Text(line, style="red"), soft_wrap=True)


def trouble(loaded: Records) -> list[str]:
    """Lines that name the runs which failed, or whose record is damaged, and how to run them again."""

    def named(status: str, word: str) -> list[str]:
        ended = [record for record in loaded.records if record["status"] == status]
        return [f"{word}: {r['run_id']} ({_overrides(loaded, r['run_id'])}): {clean(r['error'])}" for r in ended]

    final, lines = named("diverged", "final"), named("failed", "failed")
    damaged = [path.split("/")[0] for path, _ in loaded.problems if path != records.SWEEP]
    planned = {run["run_id"] for run in (loaded.sweep or {}).get("runs", [])}
    lines += [f"damaged: {name} ({_overrides(loaded, name)})" for name in damaged if name in planned]
    if lines and loaded.sweep:
        lines.append(f"run these again with the same command: {command(loaded.sweep)}")
    elif lines:
        lines.append("run these again with the command that started them")
    return final + lines


def status_lines(folder: str | Path) -> list[str]:
    """How many runs of ``folder`` are in which state, then those that failed or diverged, with the reason."""
    states = records.status(folder)
    loaded = records.load(folder)
    names = ("done", "running", "diverged", "failed", "damaged", "missing")
    counts = {name: sum(state == name for state in states.values()) for name in names}
    always = ("done", "running", "failed", "missing")
    lines = [", ".join(f"{count} {name}" for name, count in counts.items() if count or name in always)]
    errors = {record["run_id"]: record["error"] for record in loaded.records}
    for run_id, state in states.items():
        if state in ("failed", "diverged", "damaged"):
            reason = clean(errors.get(run_id) or _damage(loaded.folder / run_id))
            lines.append(f"{state}: {run_id} ({_overrides(loaded, run_id)}): {reason}")
    lines += [
        f"not a record: {path} {clean(reason)}" for path, reason in loaded.problems if path.split("/")[0] not in states
    ]
    if loaded.sweep and counts["failed"] + counts["damaged"] + counts["missing"]:
        lines.append(f"the same command runs what is missing: {command(loaded.sweep)}")
    return lines


def _damage(folder: Path) -> str:
    try:
        records.verify(folder)
    except records.RecordError as error:
        return str(error)
    return "unknown"


def command(sweep: Mapping[str, Any]) -> str:
    """The command line of a sweep."""
    return shlex.join(["genbench", *map(str, sweep["command"])])


def _overrides(loaded: Records, run_id: str) -> str:
    for run in (loaded.sweep or {}).get("runs", []):
        if run["run_id"] == run_id:
            return " ".join(map(clean, run.get("overrides", [])))
    record = next((item for item in loaded.records if item["run_id"] == run_id), None)
    return f"seed={record['seed']}" if record else "not in the last sweep"


def _write(path: Path, content: str) -> Path:
    records.write_atomic(path, content)
    return path


def _pictures(loaded: Records, table: Table, found: Sequence[Point], *, keep: bool) -> list["Picture"]:
    """The figures: those on disk when they were drawn from the same records, else new ones (written when ``keep``)."""
    from genbench.report.html import Picture

    folder = loaded.folder / "figures"
    inputs = _inputs(loaded, table)
    try:
        manifest = json.loads(records.read_bytes(folder / _MANIFEST))
        if manifest["inputs"] == inputs and all(
            records.file_digest(folder / name) == expected for name, expected in manifest["files"].items()
        ):
            return [
                Picture(
                    item["name"], item["title"], item["caption"], records.read_bytes(folder / f"{item['name']}.svg")
                )
                for item in manifest["figures"]
            ]
    except (OSError, ValueError, KeyError, TypeError):  # absent, interrupted or altered: drawn again
        pass
    from genbench.report import drawing, figures

    pictures, files = [], {}
    if keep:
        folder.mkdir(exist_ok=True)
    with drawing.style():
        for drawn in figures.draw(loaded, table, found):
            contents = {kind: drawing.saved(drawn, kind) for kind in (_FORMATS if keep else _FORMATS[:1])}
            pictures.append(Picture(drawn.name, drawn.title, drawn.caption, contents["svg"]))
            for kind, content in contents.items() if keep else ():
                name = f"{drawn.name}.{kind}"
                records.write_atomic(folder / name, content)
                files[name] = records.file_digest(folder / name)
    if keep:
        named = [{"name": item.name, "title": item.title, "caption": item.caption} for item in pictures]
        manifest = {"inputs": inputs, "figures": named, "files": files}
        records.write_atomic(folder / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return pictures


def _inputs(loaded: Records, table: Table) -> str:
    """Digest of all that figures depend on: records, histories, the table's words, and the code that draws."""
    code = [records.file_digest(Path(__file__).with_name(name)) for name in ("drawing.py", "figures.py", "curves.py")]
    words = [render.comma_separated(table), *table.figures]
    return records.digest([*code, [record["digest"] for record in loaded.records], words])
