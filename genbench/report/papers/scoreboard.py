"""The scoreboard of papers: which claims replicate, and what running them costs; in a terminal and as a page."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.checks import nearest
from genbench.claims.verdict import HOLDS, NOT_REPLICATED, REPLICATED, SETTINGS_CHANGED, UNDECIDED, VIOLATED
from genbench.privacy import clean
from genbench.process.progress import duration
from genbench.report import claims
from genbench.report.figures.custom import numbers
from genbench.report.model import VerdictRow, Verdicts
from genbench.report.papers import summary
from genbench.report.papers.experiments import LAPTOP, PAPERS_SCALE, Experiment, at_scales, choices, composed, plain
from genbench.report.papers.paper import Paper
from genbench.report.render import VERDICT_HEAD, paired, verdict_numbers
from genbench.report.selection import Selection, load
from genbench.report.spec import Curve, curves_of

if TYPE_CHECKING:
    from rich.console import Group

    from genbench.report.html import Picture

PAGE = "papers.html"
_ALSO = "further table"
ERRORS = (
    "At most 10 % is the chance that at least one verdict on a paper is false: 5 % that an effect called replicated "
    "does not exceed its margin, 5 % that one called not replicated reaches the effect of interest, over all claims "
    "and looks of the paper, if its rules were registered before the runs. Exact claims are no matter of chance."
)
_NOTHING = "no experiment has a paper"
NOT_RUN = "not run"
_STATUSES = (REPLICATED, NOT_REPLICATED, UNDECIDED, SETTINGS_CHANGED, NOT_RUN)


@dataclass(frozen=True)
class Entry:
    """A paper on the scoreboard: an experiment, its runs, and the verdicts on its claims.

    Attributes:
        experiment: at one of its scales.
        of: what the scale is called.
        folder: the folder of its runs; None without one.
        selection: the runs of ``folder``, or else those of the committed summary; None without both.
        also: experiments whose tables stand beside that of the paper.
        committed: the same with the committed summary, where ``folder`` is shown instead.
    """

    experiment: Experiment
    of: str
    folder: Path | None = None
    selection: Selection | None = None
    also: "tuple[Entry, ...]" = ()
    committed: "Entry | None" = None

    @property
    def paper(self) -> Paper:
        """The paper."""
        return self.experiment.paper

    @property
    def spec(self) -> Mapping[str, Any]:
        """The spec of its table."""
        return self.experiment.nodes["table"] or {}

    @cached_property
    def judged(self) -> Verdicts:
        """The verdicts on its claims; without runs their status is "not run"."""
        if (block := self.experiment.nodes["claims"]) is None:
            return Verdicts(rows=[], caption=[])
        if self.selection is not None:
            registered = (self.selection.sweep or {}).get("claims")
            changed = (registered or {}).get("changed", [])
            found = claims.of_records({**block, "changed": changed}, self.selection.records, trust=True)
            if registered is None:  # nobody compared the settings of that command with those of the file
                rows = [
                    replace(
                        row,
                        status=UNDECIDED,
                        finding=f"{self.selection.unregistered}, so that no verdict stands; {row.finding}",
                    )
                    for row in found.rows
                ]
                found = replace(found, rows=rows)
            return found
        found = claims.of_records(block, [], trust=True)
        return replace(found, rows=[replace(row, status=NOT_RUN) for row in found.rows])

    @property
    def verdicts(self) -> Sequence[VerdictRow]:
        """The verdicts, a claim each."""
        return self.judged.rows

    @property
    def counts(self) -> str:
        """The number of claims by verdict, in words; those of companions by their paper."""
        companions = self.paper.companions or {}
        others = {claim for claims in companions.values() for claim in claims}
        own = _by_status(row for row in self.verdicts if row.claim not in others)
        told = [
            f"{name}: {_by_status(row for row in self.verdicts if row.claim in companions[name])}"
            for name in companions
        ]
        return "; ".join([own, *told])

    @property
    def source(self) -> str:
        """Where the runs are from, in words."""
        if self.selection is None:
            return "not run here"
        return "the committed summary" if self.folder is None else f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def left_out(self) -> str:
        """What of its folder is not judged, and why, in words."""
        return "" if self.selection is None else clean("; ".join(self.selection.left_out))

    @property
    def curves(self) -> list[Curve]:
        """The figures that the experiment asks for."""
        return curves_of(self.spec.get("figures"))

    def curves_of(self, claim: str) -> list[Curve]:
        """Return the figures that show a metric which a claim reads; all figures if none does."""
        rules = (self.experiment.nodes["claims"] or {}).get("rules") or {}
        read = set(summary.strings(rules.get(claim)))
        shown = [curve for curve in self.curves if any(y in read or numbers(y, read) for y in summary.strings(curve.y))]
        return shown or self.curves


@dataclass(frozen=True)
class Cost:
    """What it costs to run an experiment: the number of ``runs``, and the ``seconds`` of one process that
    ``measured`` runs took, where they are known."""

    choice: str
    of: str
    runs: int
    seconds: float | None = None
    measured: int = 0
    where: str = ""

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{_counted(self.runs)}, not measured"
        which = "," if self.measured == self.runs else f"; {self.measured:,} were"
        took = duration(self.seconds)
        return f"{_counted(self.runs)}{which} trained and measured in {took} of one process ({self.where})"


@dataclass(frozen=True)
class Board:
    """Papers with their entries, those at other scales as well where these have runs, and what each scale costs."""

    entries: Sequence[Entry]
    costs: Mapping[str, Sequence[Cost]]  # by choice of the laptop's experiment

    def of(self, entry: Entry) -> Sequence[Cost]:
        """Return what each scale of an entry's paper costs."""
        return self.costs[plain(entry.experiment.choice)]


def board(places: Sequence[Path], folder: Path | None = None, names: Sequence[str] = ()) -> Board:
    """Return the scoreboard of papers.

    Args:
        places: folders of YAML files, genbench's own first.
        folder: holds a folder of runs for each experiment; the summaries count where there is none.
        names: the papers that are shown; none: all.

    Raises:
        ValueError: there is no such paper; one line.
    """
    known = choices(places)
    for name in names:
        if name not in known:
            raise ValueError(f"there is no paper {name!r}; {nearest(name, [*known])}")
    entries: list[Entry] = []
    costs = {}
    for name in names or known:
        files = at_scales(known[name])
        scaled = zip(files, composed([*files.values()], places), strict=True)
        found = [_entry(experiment, of, folder) for of, experiment in scaled]
        others = tuple(_entry(each, _ALSO, folder) for each in composed(_also(found[0]), places))
        found[0] = replace(found[0], also=others)
        entries += [each for each in found if each.of == LAPTOP or each.selection is not None]
        costs[name] = [_cost(each) for each in (*found, *others)]
    return Board(entries, costs)


def _also(entry: Entry) -> list[Path]:
    """Return the files of the further experiments of a paper."""
    file = entry.experiment.file
    files = [file.with_stem(name) for name in entry.paper.also]
    for each in files:
        if not each.is_file():
            known = [path.stem for path in file.parent.glob("*.yaml")]
            raise ValueError(f"{file.name}: paper.also names {each.stem!r}; {nearest(each.stem, known)}")
    return files


def _entry(experiment: Experiment, of: str, folder: Path | None) -> Entry:
    if of != _ALSO:
        experiment.check()
    own = None if folder is None else folder / experiment.name
    committed = None
    if experiment.summary.is_file():
        committed = Entry(experiment, of, None, summary.read(experiment.summary, experiment.nodes))
    if own is not None and ((own / records.SWEEP).exists() or any(own.glob(f"*/{records.RECORD}"))):
        return Entry(experiment, of, own, load(own), committed=committed)
    return committed or Entry(experiment, of)


def _cost(entry: Entry) -> Cost:
    """Return the cost of an experiment by its summary, or else by the folder of its runs if all of these have ended."""
    experiment, chosen = entry.experiment, (entry.committed or entry).selection
    if chosen is not None and experiment.summary.is_file():
        made = (chosen.sweep or {})["about"]
        seconds = made["seconds"]
    elif chosen is not None and len(chosen.records) == len(chosen.runs):
        made, seconds = chosen.records[0]["provenance"], summary.process_seconds(chosen.records)
    else:
        return Cost(experiment.choice, entry.of, experiment.runs)
    where = clean(f"{made.get('device', 'cpu')}, threads={made.get('threads', 1)}")
    return Cost(experiment.choice, entry.of, experiment.runs, seconds, len(chosen.runs), where)


def _counted(runs: int) -> str:
    return f"{runs:,} {'run' if runs == 1 else 'runs'}"


def counted(entries: Sequence[Entry]) -> str:
    """Return the number of claims by verdict, in words, and apart from them that of theorems.

    >>> counted([])
    'no claims'
    """
    return _by_status(row for entry in entries for row in entry.verdicts)


def _by_status(rows: Iterable[VerdictRow]) -> str:
    found = Counter(row.status for row in rows)
    claims = ", ".join(f"{found[name]} {name}" for name in _STATUSES if found[name])
    held, violated = found[HOLDS], found[VIOLATED]
    theorems = [f"{held} theorem{'s hold' if held > 1 else ' holds'}"] * bool(held)
    theorems += [f"{violated} theorem{'s' * (violated > 1)} violated"] * bool(violated)
    return ", and ".join(filter(None, [claims, ", ".join(theorems)])) or "no claims"


def lines(shown: Board) -> list[str]:
    """Return the scoreboard as lines, for programs that read them."""
    said = []
    for entry in shown.entries:
        said += [_head(entry), *_aligned(_costs(shown, entry)), f"  {_verdicts(entry)}", *_aligned(_claims(entry))]
    return said or [_NOTHING]


def renderable(shown: Board) -> "Group":
    """Return the scoreboard for a terminal: a block for each paper."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[Any] = []
    for entry in shown.entries:
        parts += [Text(_head(entry), style="bold"), _wrapped(_costs(shown, entry), style="dim")]
        parts += [Text(f"  {_verdicts(entry)}"), Padding(_wrapped(_claims(entry)), (0, 0, 1, 0))]
    return Group(*(parts or [_NOTHING]))


def _wrapped(rows: Sequence[Sequence[str]], style: str = "") -> Any:
    """Return rows whose last column is wrapped between words."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    for index in range(3):
        table.add_column(no_wrap=index < 2)
    for row in rows:
        table.add_row(*(Text(text, style=claims.COLORS.get(text, style)) for text in row))
    return table


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["".join(f"  {text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _head(entry: Entry) -> str:
    paper = entry.paper
    cited = ", ".join(filter(None, (paper.citation, paper.link)))
    return clean(f"{entry.experiment.choice}: {paper.title} ({cited})")


def _costs(shown: Board, entry: Entry) -> list[tuple[str, str, str]]:
    costs = [(cost.of, f"experiment={cost.choice}", str(cost)) for cost in shown.of(entry)]
    return [*costs, (PAPERS_SCALE, "none", entry.paper.one_scale)] if entry.paper.one_scale else costs


def _claims(entry: Entry) -> list[tuple[str, str, str]]:
    return [(row.claim, row.status, row.statement) for row in entry.verdicts]


def _verdicts(entry: Entry) -> str:
    if entry.selection is None:
        return entry.counts
    left_out = f"; left out: {entry.left_out}" if entry.left_out else ""
    also = "" if entry.committed is None else f"; {entry.committed.source}: {entry.committed.counts}"
    return f"{entry.counts} ({entry.source}{left_out}{also})"


def page(shown: Board, *, folder: Path | None = None) -> str:
    """Return ``papers.html``: a row a paper, a cell a claim. The template escapes all text; ``folder`` will hold it."""
    from genbench.report import html

    papers = []
    for index, entry in enumerate(shown.entries):
        key = f"paper-{index}"
        try:
            drawn, fault = pictures(entry), ""
        except ValueError as error:  # a folder that mixes configurations, say
            drawn, fault = [], clean(error)
        report = None if entry.folder is None or folder is None else folder / entry.folder.name / "report.html"
        papers.append(
            {
                "key": key,
                "entry": entry,
                "costs": [{"of": cost.of, "text": str(cost), "choice": cost.choice} for cost in shown.of(entry)],
                "verdicts": _verdicts(entry),
                "claims": [_claim(entry, row, key=key) for row in entry.verdicts],
                "pictures": drawn,
                "fault": fault,
                "report": None if report is None or not report.is_file() else f"{report.parent.name}/{report.name}",
            }
        )
    template = html.environment().get_template("papers.html.j2")
    return template.render(papers=papers, counts=counted(shown.entries), errors=ERRORS, versions=html.versions())


def pictures(entry: Entry) -> "list[Picture]":
    """Return the figures that an experiment asks for."""
    from genbench.report.figures import style
    from genbench.report.html import Picture

    return [Picture(each.name, each.title, each.caption, style.saved(each, "svg")) for each in drawings(entry)]


def drawings(entry: Entry) -> list[Any]:
    """Return the figures that an experiment asks for, as Matplotlib's; none without a completed run."""
    from genbench.report.figures import style, sweep
    from genbench.report.table import build, points

    chosen = entry.selection
    asked = entry.curves or entry.spec.get("effects")
    if chosen is None or not asked or all(run.state != "completed" for run in chosen.runs):
        return []
    with style.context():
        return list(sweep.asked(build(chosen, entry.spec), points(chosen, entry.spec)))


def _claim(entry: Entry, row: VerdictRow, *, key: str) -> dict[str, Any]:
    """Return what a cell shows when it opens."""
    parts, finding = paired(row)
    facts = {"source": row.source, "rule": "\n".join(parts)}
    drawn = {}
    if row.status != NOT_RUN:
        statistic = "" if row.statistic is None else f"{row.statistic:.4g}"
        facts |= {"finding": finding, "statistic": statistic}
        facts |= dict(zip(VERDICT_HEAD[2:], verdict_numbers(row)[2:], strict=True))
        drawn = {f"{key}-{curve.name}": clean(curve.title) for curve in entry.curves_of(row.claim)}
    facts["tried"] = clean((entry.paper.tried or {}).get(row.claim, ""))
    return {
        "row": row,
        "facts": {name: text for name, text in facts.items() if text not in ("", "–")},
        "figures": drawn,
    }
