"""The verdicts on the claims of an experiment, and their text in a terminal; see also render, latex and html."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genbench.claims.registration import Claim, Claims, conditions, judged, judging, otherwise, read, told
from genbench.claims.runs import named
from genbench.claims.verdict import Verdict
from genbench.privacy import clean
from genbench.report.format import listed
from genbench.report.model import VerdictRow, Verdicts
from genbench.report.render import VERDICT_HEAD, numbered, p_value, verdict_numbers
from genbench.report.selection import Selection

if TYPE_CHECKING:
    from rich.console import Group

COLORS = {"replicated": "green", "not replicated": "red", "settings changed": "yellow", "violated": "red"}
"""Of verdicts in a terminal; others have none."""


def of_records(block: Mapping[str, Any], records: Sequence[Mapping[str, Any]], *, trust: bool = False) -> Verdicts:
    """Judge claims by records.

    Args:
        block: the claims, as the plan of a sweep or an experiment's YAML holds them.
        records: of the runs.
        trust: import rules that the block names and that are not genbench's own.

    Raises:
        ValueError: the block or one of its rules is refused.
    """
    claims = read(block, trust=trust)
    found = judged(claims, records)
    rows = [_row(claim, verdict) for claim, verdict in zip(claims.claims, found, strict=True)]
    sets = [f"{clean(each.name)} stands for {clean(named(dict(each)))}." for each in claims.sets]
    return Verdicts(rows=rows, caption=[*sets, *_caption(claims, records)], sets=sets)


def of_selection(selection: Selection, *, trust: bool = False) -> Verdicts | None:
    """Judge the claims that the last command registered by the runs that are shown; None if there are none.

    Raises nothing: if the claims cannot be judged, the caption says why.
    """
    if (block := (selection.sweep or {}).get("claims")) is None:
        return None
    try:
        return of_records(block, selection.records, trust=trust)
    except Exception as error:  # a rule of the user's own may fail in any way; the table is shown all the same
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return Verdicts(rows=[], caption=[clean(f"The claims are not judged: {reason}.")])


def renderable(verdicts: Verdicts, *, numbers: bool = False) -> "Group":
    """Return the verdicts for a terminal: id, verdict, statement and finding, and with ``numbers`` both p."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text(""), Text("Claims", style="bold")]
    if verdicts.rows:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(overflow="fold", max_width=20)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for row in verdicts.rows:
            rule, finding = numbered(row)
            text = Text.assemble(row.statement, "\n", (finding, "dim"))
            if numbers and len(rule) > 1:
                text.append("".join(f"\n{part}" for part in rule), "dim")
            if numbers and row.supports is not None:
                text.append(f"\np for {p_value(row.supports)}, p against {p_value(row.contradicts)}", "dim")
            table.add_row(Text(row.claim), Text(row.status, style=COLORS.get(row.status, "")), text)
        parts += [table, Text("")]
    parts += [Text(sentence, style="dim" if verdicts.rows else "yellow") for sentence in verdicts.caption]
    return Group(*parts)


def lines(verdicts: Verdicts) -> list[str]:
    """Return a line for each claim, under a line of headings, for programs that read them."""
    rows = _cells(verdicts)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [*(line.rstrip() for line in padded), *verdicts.caption]


def _cells(verdicts: Verdicts) -> list[list[str]]:
    told = (f"{row.statement.removesuffix('.')}: {row.finding}" for row in verdicts.rows)
    return [
        [*VERDICT_HEAD, "statement: finding"],
        *([*verdict_numbers(row), text] for row, text in zip(verdicts.rows, told, strict=True)),
    ]


def _row(claim: Claim, verdict: Verdict) -> VerdictRow:
    evidence = verdict.evidence
    return VerdictRow(
        claim=claim.id,
        status=verdict.status,
        statement=clean(claim.statement),
        source=clean(claim.source or ""),
        rule=clean(claim.rule.words),
        finding=clean(verdict.words),
        n=evidence.n,
        supports=verdict.supports,
        contradicts=verdict.contradicts,
        statistic=evidence.statistic,
        interval=evidence.interval,
        missing=tuple(map(clean, evidence.missing)),
        unknown=tuple(map(clean, evidence.unknown)),
        measured=clean(evidence.words),
    )


def _caption(claims: Claims, records: Sequence[Mapping[str, Any]]) -> list[str]:
    changed = f"The command changed settings: {clean(told(claims.changed))}." if claims.changed else ""
    return [
        *([changed, "A verdict is about the experiment as its file states it."] if changed else []),
        *_test(claims, records),
        *([claims.choice.words] if claims.choice is not None else []),
        *(f"Conditional on {said}." for said in conditions(claims, records)),
    ]


def _test(claims: Claims, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what p values are, in sentences."""
    if not claims.family:
        return ["Exact claims: they hold in every run or they do not, so there is no p."]
    family = f"{claims.family} claim{'s' * (claims.family != 1)}"
    looks = listed([str(look) for look in claims.looks])
    said = [
        f"p: one-sided, after Holm's correction for {family}; looks at {looks} seeds, from seed {claims.seeds[0]}.",
        "Small p for: the effect exceeds its margin. Small p against: it stays short of the effect of interest.",
    ]
    if claims.changed:
        return said
    return [
        *said,
        f"The chance of at least one false verdict, of either kind, is at most 10 %{_registered(claims, records)}.",
    ]


def _registered(claims: Claims, records: Sequence[Mapping[str, Any]]) -> str:
    """Say whether the rules were registered before the runs, as the digests in their records tell."""
    runs = len(judging(claims, records))
    if not runs:
        return " if the rules are registered before the runs"
    if other := otherwise(claims, records):
        return f" for rules that were registered before the runs; {other}"
    which = "the run, which carries" if runs == 1 else f"all {runs:,} runs, each of which carries"
    return f": the rules were registered before {which} their digest"
