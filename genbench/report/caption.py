"""The sentences below a table: what its numbers are, and what may not be compared."""

from collections.abc import Sequence

from genbench.privacy import clean
from genbench.report.format import listed
from genbench.report.model import SIGNIFICANCE, Cell, Column, Row
from genbench.report.selection import Selection
from genbench.report.spec import RAW_MEASURES

# where the data lie, and which machine computes: no other scale
_PLACES = ("data.path", "threads", *(f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy")))
# overrides that change no number of a table
_SILENT = ("experiment", "hydra", "name", "runs_dir", "logger", "table", "claims", "paper", "checkpoint_seconds")


def caption_of(
    columns: Sequence[Column],
    rows: Sequence[Row],
    grid: Sequence[Sequence[Cell]],
    baseline: int | None,
    altered: Sequence[str | None],
    common: int,
) -> list[str]:
    cells = [cell for line in grid for cell in line]
    caption = []
    if common > 1:
        unless = " unless a cell says otherwise" if any(cell.status for cell in cells) else ""
        caption.append(f"Mean ± half-width of the Student-t 95 % interval over n = {common} seeds{unless}.")
    elif common == 1:
        caption.append("One seed: no intervals, no tests.")
    if baseline is not None and common > 1 and len(rows) > 1:
        families = [sum(line[i].p is not None for line in grid) for i in range(len(columns))]
        caption.append(
            f"* differs from {rows[baseline].label}: paired by seed, t test, p < {SIGNIFICANCE} after Holm's "
            f"correction within the column ({_comparisons(columns, families)}); no mark: undecided, not equal."
        )
    directions = {column.best for column in columns if column.best}
    if directions and len(rows) > 1:
        sense = (
            "highest (↑) or lowest (↓)"
            if len(directions) == 2
            else "highest (↑)"
            if directions == {"max"}
            else "lowest (↓)"
        )
        caption.append(f"Bold: {sense} mean of its column, which alone is no evidence of a difference.")
    raw = [column for column in columns if column.metric in RAW_MEASURES]
    if raw:
        names = list(dict.fromkeys(column.label for column in raw))
        caption.append(
            f"{listed(names)} change when weights are rescaled, although the function does not: compare them only "
            "between rows of similar weight norm; otherwise compare adaptive sharpness."
        )
    reasons: dict[str, list[str]] = {}
    for row, line, reason in zip(rows, grid, altered, strict=True):
        if reason and not all(cell.comparable for cell in line):
            reasons.setdefault(reason, []).append(row.label)
    if reasons:
        because = "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in reasons.items())
        caption.append(f"† not comparable with the other rows, so neither tested nor set in bold ({because}).")
    return caption


def published_caption(
    columns: Sequence[Column], rows: Sequence[Row], grid: Sequence[Sequence[Cell]], scaled: Sequence[str]
) -> list[str]:
    """Say where the published values come from, and whether ours are of their scale; ``scaled`` says in what not."""
    cited: dict[str, dict[int, list[str]]] = {}
    for row, line in zip(rows, grid, strict=True):
        for index, cell in enumerate(line):
            if cell.published is not None:
                cited.setdefault(cell.published.cited, {}).setdefault(index, []).append(row.label)
    counts = [sum(line[index].published is not None for line in grid) for index in range(len(columns))]
    caption = []
    for source, places in cited.items():
        named = [
            columns[index].title + ("" if len(labels) == counts[index] else f" ({listed(labels)})")
            for index, labels in places.items()
        ]
        of = "" if len(cited) == 1 and len(named) > 1 else f" of {listed(named)}"
        caption.append(f"Published values{of}, in brackets: {source}.")
    beside = [column for column, count in zip(columns, counts, strict=True) if count and column.metric]
    same = [column.title for column in beside if column.same_scale]
    other = [column.title for column in beside if not column.same_scale]
    if same:
        caption.append(f"Δ{f' of {listed(same)}' if other else ''}: ours minus the published value, at its scale.")
    if other:
        of = f" of {listed(other)}" if same else ""
        caption.append(f"No published value{of} is subtracted from ours: they are not of one scale.")
        if scaled:
            caption.append(" ".join(["Scaled down:", *scaled]))
    return caption


def scaled_down(selection: Selection) -> list[str]:
    """Return what the experiment's ``paper`` says of its scale."""
    texts = ((selection.sweep or {}).get("paper") or {}).get("scaled_down")
    found = [clean(text) for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
    return [f"{text.removesuffix('.')}." for text in found]


def _comparisons(columns: Sequence[Column], families: Sequence[int]) -> str:
    """State the number of comparisons that the correction is for, then the columns with another number."""
    tested = [family for family in families if family]
    usual = max(set(tested), key=tested.count, default=0)
    text = f"{usual} comparison{'s' * (usual != 1)}"
    labels = [column.label for column in columns]
    others: dict[int, list[str]] = {}
    for column, family in zip(columns, families, strict=True):
        if family not in (0, usual):
            others.setdefault(family, []).append(column.label if labels.count(column.label) == 1 else column.title)
    return "; ".join([text, *(f"{family} of {listed(names)}" for family, names in others.items())])


def changes(selection: Selection, keys: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Return the overrides of the command that may change numbers and that no row or column shows."""
    shown = {"seed", *keys, *(key for column in columns for key in column.where)}
    changed = []
    for word in map(str, (selection.sweep or {}).get("command", [])):
        key = word.lstrip("+~").partition("=")[0].partition("@")[0]
        if (
            ("=" in word or word.startswith("~"))
            and not word.startswith("-")
            and key not in shown
            and key.partition(".")[0].partition("/")[0] not in _SILENT
        ):
            changed.append(clean(word))
    return changed


def of_another_scale(changed: Sequence[str]) -> bool:
    """Whether overrides say more than where the data lie and which machine computes."""
    return any(not word.lstrip("+").startswith(tuple(f"{key}=" for key in _PLACES)) for word in changed)
