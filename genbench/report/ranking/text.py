"""A ranking of measures for the terminal and as Markdown, LaTeX and CSV."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genbench.report.format import wrapped
from genbench.report.latex import BEGIN, END, escape
from genbench.report.render import escaped
from genbench.report.terminal import FRAME

if TYPE_CHECKING:
    from rich.console import Group

    from genbench.analysis.ranking import Ranking

Row = Mapping[str, Any]
_SCORES = {"tau": "τ", "psi": "Ψ"}


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _number(value: Any, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if _known(value) else "–"


def _with_interval(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if not _known(row[name]):
            return "–"
        if not _known(row[f"{name}_low"]):
            return _number(row[name])
        return f"{_number(row[name])} [{_number(row[f'{name}_low'])}, {_number(row[f'{name}_high'])}]"

    return text


def _rank(row: Row) -> str:
    if not _known(row["rank"]):
        return "–"
    return f"{row['rank']:.0f} [{row['rank_low']:.0f}, {row['rank_high']:.0f}]"


def _with_p(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        p = f" (p {_p(row[f'{name}_p'])})" if _known(row[f"{name}_p"]) else ""
        return _number(row[name], 3 if name == "information" else 2) + p

    return text


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}".replace("e-0", "e-")


def _errors(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        return f"{_with_interval(name)(row)}, {_number(row[f'{name}_90'])}" if _known(row[name]) else "–"

    return text


def _wrong(row: Row) -> str:
    return f"{row['wrong']} of {row['tested']}" if row["tested"] else "–"


def _lowest(row: Row) -> str:
    return f"{_with_interval('lowest')(row)} ({row['lowest_in']})" if row["parts"] else "–"


def _turned(row: Row) -> str:
    return f"{row['turned']} of {row['parts']}" if row["parts"] else "–"


def _bounds(row: Row) -> str:
    return f"{_number(row['tau_worst'])} to {_number(row['tau_best'])}" if _known(row["tau_worst"]) else "–"


def _name(row: Row) -> str:
    return f"({row['measure']})" if row["control"] else str(row["measure"])


def tables(ranking: "Ranking") -> list[tuple[str, dict[str, Callable[[Row], str]]]]:
    """Return the titles of the two tables, and their columns: a name, and how a row is shown."""
    score = _SCORES[ranking.score]
    first: dict[str, Callable[[Row], str]] = {
        "measure": _name,
        "rank": _rank,
        "τ": _with_interval("tau"),
        f"{score} − baseline's": _with_interval("difference"),
        "Ψ": _with_interval("psi"),
        "τ-b": lambda row: _number(row["tau_b"]),
        "ρ": lambda row: _number(row["rho"]),
        "n": lambda row: str(row["runs"]),
    }
    if ranking.within:
        first["τ with those left out"] = _bounds
    second: dict[str, Callable[[Row], str]] = {
        "measure": _name,
        "sign error: mean, 90 %": _errors("sign_error"),
        "wrong in": _wrong,
        "of configurations": _errors("pair_sign_error"),
        "lowest τ in a part": _lowest,
        "below 0 in": _turned,
        "information": _with_p("information"),
        "τ within": _with_p("within"),
        "ΔR²": _with_interval("increment"),
        "reliability": lambda row: _number(row["reliability"]),
    }
    absent: list[str] = []
    if not len(ranking.sign_errors):
        absent += ["sign error: mean, 90 %", "wrong in"]
    if not ranking.table["pair_environments"].any():
        absent.append("of configurations")
    if not len(ranking.stability):
        absent += ["lowest τ in a part", "below 0 in"]
    second = {name: of for name, of in second.items() if name not in absent}
    return [
        (f"Which measure predicts {ranking.gap}", first),
        ("Where each fails, and what it says beyond the hyperparameters", second),
    ]


def caption(ranking: "Ranking") -> list[str]:
    """Return what the tables' columns mean, and what was left out, as sentences."""
    score = _SCORES[ranking.score]
    said = [
        f"{ranking.runs} runs of {ranking.configurations} configurations; intervals are of 95 %, whole "
        "configurations being the unit, and conditional on this grid. Measures are to rise with the gap unless "
        "they are named as falling.",
        f"rank: by {score}, with the interval of its place. τ: Kendall's, ties count 0; τ-b and ρ (Spearman) beside "
        f"it. {score} − baseline's: from the row ({ranking.baseline}), intervals that hold together. Ψ: the mean of τ "
        "along one hyperparameter at a time.",
    ]
    if ranking.within:
        said.append(
            "τ with those left out: what it could be of all runs, each pair with one outside the window counting −1, "
            "or 1; only what holds from end to end does not depend on the selection."
        )
    if len(ranking.sign_errors):
        said.append(
            "sign error: the share of pairs of runs, apart in one hyperparameter, that a measure orders against their "
            "gap (½ is chance), as a mean over environments and their 90th percentile; wrong in: environments in which "
            "it is shown to exceed ½ (Holm), of those with five contexts or more."
        )
    if number := int(ranking.table["pair_environments"].max()):
        said.append(
            f"of configurations: the same where an environment is two configurations with four runs or more of each, "
            f"{number} of them."
        )
    if len(ranking.stability):
        said.append(
            "lowest τ in a part: among the runs with one value of one hyperparameter; below 0 in: parts in which τ is "
            "shown to be below 0 (Holm)."
        )
    said.append(
        "information: mutual information with the order of gaps, normalized, given those two hyperparameters or fewer "
        "that leave least. τ within: over pairs of runs that differ in their seed alone"
        + (", p by exchanging whole seeds, which may have something in common" if ranking.seeds else "")
        + ". ΔR²: what the measure adds to the hyperparameters' prediction of unseen configurations"
        + (", beyond the shared seeds" if ranking.seeds else "")
        + ". reliability: the share of its ranks' variance that is not of seeds. In brackets: rows whose worth is "
        "known. –: not defined."
    )
    return [*said, *ranking.notes]


def markdown(ranking: "Ranking") -> str:
    """Return GitHub-flavoured Markdown."""
    lines = []
    for title, columns in tables(ranking):
        lines += [f"#### {escaped(title)}", "", "| " + " | ".join(map(escaped, columns)) + " |"]
        lines.append("|:--" + "|--:" * (len(columns) - 1) + "|")
        for row in ranking.rows:
            lines.append("| " + " | ".join(escaped(of(row)) for of in columns.values()) + " |")
        lines.append("")
    return "\n".join([*lines, escaped(" ".join(caption(ranking)))]) + "\n"


def latex_text(ranking: "Ranking") -> str:
    """Return two booktabs ``table`` environments for ``\\input``; the caption stands below the second."""
    lines = ["% needs \\usepackage{booktabs,graphicx} and, for pdflatex, \\usepackage[T1]{fontenc}"]
    parts = tables(ranking)
    for number, (title, columns) in enumerate(parts):
        lines += [r"\begin{table}[tbp]", r"\centering\small", f"\\caption{{{escape(title)}}}"]
        lines += [BEGIN, f"\\begin{{tabular}}{{@{{}}l{'r' * (len(columns) - 1)}@{{}}}}", r"\toprule"]
        lines += [" & ".join(map(escape, columns)) + r" \\", r"\midrule"]
        for row in ranking.rows:
            lines.append(" & ".join(escape(of(row)) for of in columns.values()) + r" \\")
        lines += END
        if number == len(parts) - 1:
            words = escape(" ".join(caption(ranking)))
            lines += ["", r"\smallskip", f"\\parbox{{\\linewidth}}{{\\footnotesize\\sloppy {words}}}"]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def comma_separated(ranking: "Ranking") -> str:
    """Return a CSV file in full precision, a line a row; the first line holds the notes too."""
    notes = [" ".join(caption(ranking)), *[""] * (len(ranking.table) - 1)]
    return str(ranking.table.assign(notes=notes).to_csv(index=False, lineterminator="\n"))


def renderable(ranking: "Ranking", width: int, said: Sequence[str] = ()) -> "Group":
    """Return both tables for a terminal, with what was ``said`` of the columns."""
    from rich.box import Box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    frame = Box(FRAME)
    rows = ranking.rows
    found: list[Any] = []
    for title, columns in tables(ranking):
        texts = {name: [of(row) for row in rows] for name, of in columns.items()}
        names = texts.pop("measure")
        first = min(max(map(len, names)), max(16, width // 3))
        found.append(Text(title, style="bold"))
        for some in _stacked(texts, width - first):
            rich = Table(box=frame, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
            rich.add_column("measure", no_wrap=True, width=first)
            for name in some:
                rich.add_column(name, justify="right", no_wrap=True)
            for number, row in enumerate(rows):
                cells = ["\n".join(wrapped(names[number], first)), *(texts[name][number] for name in some)]
                rich.add_row(*map(Text, cells), style="dim" if row["control"] else "")
            found += [rich, Text("")]
    for sentence in (*said, *caption(ranking)):
        found += [Text(line, style="dim") for line in textwrap.wrap(sentence, min(width, 110))]
    return Group(*found)


def _stacked(columns: Mapping[str, Sequence[str]], available: int) -> list[list[str]]:
    """The names of columns, in as many tables as the width needs."""
    found: list[list[str]] = [[]]
    left = available
    for name, texts in columns.items():
        width = max(len(name), *map(len, texts)) + 2
        if width > left and found[-1]:
            found.append([])
            left = available
        found[-1].append(name)
        left -= width
    return found
