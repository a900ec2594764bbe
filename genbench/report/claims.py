"""The verdicts on the claims of an experiment, as text: one line each."""

from collections.abc import Sequence
from pathlib import Path

from genbench.claims.registration import Claim, judged, read
from genbench.claims.verdict import Verdict
from genbench.privacy import clean
from genbench.report.selection import load

_HEAD = ("claim", "verdict", "seeds", "p for", "p against", "95 % interval", "statement: finding")


def lines(folder: str | Path, *, everything: bool = False, trust: bool = False) -> list[str]:
    """Return one line for each claim that the last command registered in ``folder``, under a line of headings.

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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    looks = ", ".join(map(str, claims.looks))
    note = (
        f"p: one-sided, by Holm's correction for {claims.family}; looks at {looks} seeds, from seed {claims.seeds[0]}"
    )
    return [*table, note, *selection.left_out]


def _row(claim: Claim, verdict: Verdict) -> Sequence[str]:
    evidence = verdict.evidence
    interval = "–" if evidence.interval is None else "[{:.4g}, {:.4g}]".format(*evidence.interval)
    ps = ("–" if p is None else f"{p:.2g}" for p in (verdict.supports, verdict.contradicts))
    statement = claim.statement.removesuffix(".")
    return claim.id, verdict.status, str(evidence.n), *ps, interval, clean(f"{statement}: {verdict.words}")
