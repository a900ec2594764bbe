"""The page of a paper, in Markdown: written from the experiment's YAML file and its summary alone."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from genbench import records
from genbench.claims.verdict import HOLDS, VIOLATED
from genbench.report import command, render
from genbench.report.figures import style
from genbench.report.figures.style import Drawing
from genbench.report.papers import scoreboard
from genbench.report.papers.experiments import PAPERS_SCALE
from genbench.report.papers.scoreboard import Board, Entry
from genbench.report.render import escaped
from genbench.report.selection import Selection
from genbench.report.table import build

_THEOREM = "A theorem: it checks the code, and is counted apart from the claims."


def write(shown: Board, target: Path) -> list[Path]:
    """Write a page for each entry of the scoreboard that has runs, and its figures; return the paths written."""
    written = []
    for entry in shown.entries:
        if entry.selection is None:
            continue
        drawn = scoreboard.drawings(entry)
        files = {f"{entry.experiment.choice}.md": text(shown, entry, drawn).encode()}
        files |= {image(entry, each): style.saved(each, "png") for each in drawn}
        for name, content in files.items():
            records.write_atomic(target / name, content)
            written.append(target / name)
    return written


def image(entry: Entry, drawing: Drawing) -> str:
    """Return the name of the file of a figure."""
    return f"{entry.experiment.choice}-{drawing.name}.png"


def text(shown: Board, entry: Entry, drawn: Sequence[Drawing]) -> str:
    """Return the page of a paper: what was claimed and run, the table, the figures, the verdicts, the critiques."""
    return "\n".join(_lines(shown, entry, drawn)) + "\n"


def _lines(shown: Board, entry: Entry, drawn: Sequence[Drawing]) -> Iterator[str]:
    assert entry.selection is not None
    paper = entry.paper
    yield f"# {escaped(entry.experiment.choice)}: {escaped(paper.title)}\n"
    cited = f", [{escaped(paper.link)}]({paper.url})" if paper.link else ""
    yield f"{escaped(paper.citation)}{cited}. {escaped(entry.counts)}.\n"
    yield f"## {'What was claimed' if paper.link else 'What is asked'}\n\n{escaped(paper.claimed)}\n"
    yield "## What was run\n"
    yield from (f"- {line}" for line in _run(shown, entry))
    if paper.scaled_down:
        yield "\nUnlike the paper:\n"
        yield from (f"- {escaped(line)}" for line in paper.scaled_down)
    also = [each for each in entry.also if each.selection is not None]
    yield f"\n## The {'tables' if also or entry.spec.get('further') else 'table'}\n"
    yield from map(_table, (entry, *also))
    if drawn:
        yield "## Figures"
    for each in drawn:
        title = escaped(each.title)
        yield f"\n### {title}\n\n![{title}]({image(entry, each)})\n\n{escaped(each.caption)}"
    yield from _verdicts(entry)
    if paper.limits:
        yield "\n## Limits\n"
        yield from (f"- {escaped(line)}" for line in paper.limits)
    if paper.critiques:
        yield "\n## Critiques\n"
        yield from (f"- {escaped(each.text)} ({escaped(each.source)})" for each in paper.critiques)


def _table(entry: Entry) -> str:
    """Return the table of an entry that has runs, without what is scaled down, which the caption would repeat."""
    assert entry.selection is not None
    sweep = {**(entry.selection.sweep or {}), "paper": None}
    return render.markdown(build(replace(entry.selection, sweep=sweep), entry.spec))


def _verdicts(entry: Entry) -> Iterator[str]:
    """Yield the verdicts: a table of numbers, then of each claim its statement, rule and finding."""
    if not entry.verdicts:
        return
    yield f"\n## Verdicts\n\n| {' | '.join(render.VERDICT_HEAD)} |"
    yield "|:--|:--" + "|--:" * (len(render.VERDICT_HEAD) - 2) + "|"
    yield from (f"| {' | '.join(map(escaped, render.verdict_numbers(row)))} |" for row in entry.verdicts)
    sets = entry.judged.sets
    yield f"\n{escaped(' '.join(each for each in entry.judged.caption if each not in sets))}"
    if sets:
        yield "\nIn the rules:\n"
        yield from (f"- {escaped(each)}" for each in sets)
    for row in entry.verdicts:
        parts, finding = render.paired(row)
        yield f"\n### {escaped(row.claim)}: {row.status}\n"
        yield escaped(f"{row.statement.removesuffix('.')}{f' ({row.source})' * bool(row.source)}.")
        if row.status in (HOLDS, VIOLATED):
            yield f"\n{_THEOREM}"
        each = parts != render.numbered(row)[0]
        yield f"\nRule{', and what was found of each part' * each}:\n"
        yield from (f"- {escaped(part)}" for part in parts)
        if finding:
            yield f"\nFinding: {escaped(finding)}."
        if tried := (entry.paper.tried or {}).get(row.claim):
            yield f"\nWhat was tried: {escaped(tried)}"


def _run(shown: Board, entry: Entry) -> Iterator[str]:
    """Yield what was run, by which command, with which versions, and what the other scale costs."""
    for each in (entry, *entry.also):
        if each.selection is not None:
            yield from _made(each, each.selection)
    for cost in shown.of(entry):
        yield f"{cost.of.capitalize()} (`experiment={cost.choice}`): {escaped(str(cost))}."
    if entry.paper.one_scale:
        yield f"{PAPERS_SCALE.capitalize()}: none. {escaped(entry.paper.one_scale)}"


def _made(entry: Entry, selection: Selection) -> Iterator[str]:
    """Yield by which command and with which versions runs were made, and where their summary is."""
    sweep = selection.sweep or {}
    states = Counter(run.state for run in selection.runs)
    ended = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    words = [word for word in sweep.get("command", []) if not word.startswith("runs_dir=")]
    yield f"`{command({'command': words}).replace('`', '')}`: {ended}."
    made: Mapping[str, str] = sweep.get("about", {})
    if versions := [f"{name} {made[name]}" for name in ("genbench", "git", "python", "torch") if name in made]:
        yield f"Made with {escaped(', '.join(versions))}."
    summary = entry.experiment.summary
    if summary.is_file():
        file = "/".join(summary.parts[-3:])
        yield f"A line a run, from which this page is made: `{file}`."
