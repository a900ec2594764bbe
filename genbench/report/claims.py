"""The verdicts on the claims of an experiment, as text: one row each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench.claims.registration import Claim, judged, read
from genbench.claims.verdict import Verdict
from genbench.privacy import clean
from genbench.report.selection import load

_HEAD = ("claim", "verdict", "seeds", "p for", "p against", "95 % interval", "statement: finding")


Row = tuple[str, ...]


def verdict_rows(folder: str | Path, *, everything: bool = False, trust: bool = False) -> tuple[list[Row], list[str]]:
    """Return a row for each claim that the last command registered in ``folder``, under a row of headings, and notes.

    Both p values are one-sided and corrected for the number of claims: that the claim holds, and that it does not.

    Args:
        folder: an experiment's.
        everything: judge by all its runs, not by those of the last command alone.
        trust: import rules that the folder names and that are not genbench's own.

    Raises:
        ValueError: nothing is registered, or a rule is refused.
    """
    selection = load(folder, everything=everything)
    block = (selection.sweep or {}).get("claims")
    if block is None:
        raise ValueError(f"the last command in {folder} registered no claims; accepted: an experiment that has claims")
    claims = read(block, trust=trust)
    found = judged(claims, selection.records)
    rows = [_HEAD, *(_row(claim, verdict) for claim, verdict in zip(claims.claims, found, strict=True))]
    looks = ", ".join(map(str, claims.looks))
    note = (
        f"p: one-sided, by Holm's correction for {claims.family}; looks at {looks} seeds, from seed {claims.seeds[0]}"
    )
    return rows, [note, *selection.left_out]


def lines(rows: Sequence[Row]) -> list[str]:
    """Return a line for each row, for programs that read them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def renderable(rows: Sequence[Row]) -> Any:
    """Return the rows for a terminal, whose last column is wrapped between words."""
    from rich.table import Table
    from rich.text import Text

    head, *others = rows
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in head[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(head[-1])
    for row in others:
        table.add_row(*map(Text, row))
    return table


def _row(claim: Claim, verdict: Verdict) -> Row:
    evidence = verdict.evidence
    interval = "–" if evidence.interval is None else "[{:.4g}, {:.4g}]".format(*evidence.interval)
    ps = ("–" if p is None else f"{p:.2g}" for p in (verdict.supports, verdict.contradicts))
    statement = claim.statement.removesuffix(".")
    return claim.id, verdict.status, str(evidence.n), *ps, interval, clean(f"{statement}: {verdict.words}")
