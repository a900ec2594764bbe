"""What the columns of runs are: the gap, the hyperparameters, the seed, the measures."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genbench.analysis.directions import LEARNED
from genbench.checks import nearest
from genbench.privacy import clean
from genbench.records.settings import ABSENT
from genbench.report.format import listed
from genbench.report.lookup import differences
from genbench.report.selection import SelectedRun, Selection

if TYPE_CHECKING:
    import pandas as pd

GAP = "test/gap/accuracy"
STEPS, SIZE, SIZE_ALONE = "train/optimization/steps", "data.train_size", "train size"
SEED = "seed"
_GAPS = re.compile(r"(generali[sz]ation|train.?test|test|gen)?[\W_]*gap([\W_]*(accuracy|acc|error))?", re.IGNORECASE)
_SEEDS = re.compile(r"(.*[\W_])?(seed|trial|repeat|replicate|repetition)", re.IGNORECASE)
_ANSWERS = {
    "test",
    "val",
    "valid",
    "validation",
    "eval",
    "holdout",
    "heldout",
    "gap",
    "generalization",
    "generalisation",
}
# what numbers the rows of a file or says when and how long they ran
_CLERKS = re.compile(r"|_.*|unnamed: \d+|index|id|run_?id|runtime|created|(.*_)?timestamp", re.IGNORECASE)
_FALLING = re.compile(r".*/margin/(?!inverse_)(.*_)?margin(_.*)?|.*/robustness/(pal_score_.*|mixup_accuracy)")
"""Metrics that are to fall with the gap: those of which more is said to be better. A norm over a margin rises."""
_FEW = 20
"""A column of numbers with more values than these is not taken for a hyperparameter."""


@dataclass(frozen=True)
class Columns:
    """Runs as a frame, the names of its columns, and sentences that say what was taken for what.

    ``seeds`` is the column of the seed, if there is one, ``test_size`` the number of test examples, if it is known and
    one; ``answers`` are other numbers of the test set, and ``directions`` those of measures, as
    :func:`genbench.analysis.rank` takes them: those of a file are learned. ``beside`` are columns that are
    no measures but controls.
    """

    frame: "pd.DataFrame"
    gap: str
    measures: Sequence[str]
    hyperparameters: Sequence[str]
    test_size: int | None
    seeds: str | None
    said: Sequence[str]
    answers: Sequence[str] = ()
    directions: Mapping[str, int] = field(default_factory=dict)
    beside: Sequence[str] = ()


def of_file(
    frame: "pd.DataFrame",
    *,
    gap: str | None = None,
    measures: Sequence[str] | None = None,
    hyperparameters: Sequence[str] | None = None,
    seed: str | None = None,
    test_size: int | None = None,
    within: Sequence[str] = (),
) -> Columns:
    """Find the columns of somebody else's runs, one a row; those that are named are taken as named.

    The gap is the column that is called so. Those of ``within`` select runs, and are no measures. Of the others, text
    and numbers of few values that repeat are hyperparameters, numbers of many values measures. A column that has one
    text a run is its name, and numbers of the test set are no measures: they hold the answer.

    Raises:
        ValueError: a column that is not there, or nothing that can be the gap, a hyperparameter or a measure; one line.
    """
    frame = frame.set_axis([clean(str(name)) for name in frame.columns], axis=1).reset_index(drop=True)
    names = [*frame.columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the column {twice[0]!r} appears twice")
    for name in [*filter(None, (gap, seed)), *within, *(measures or ()), *(hyperparameters or ())]:
        if name not in names:
            raise ValueError(f"there is no column {name!r}; {nearest(name, names)}")
    said = []
    for name in names:
        if _percents(frame[name]):
            frame[name] = _numbers(frame[name].astype(str).str.replace("%", "").str.replace(",", ".")) / 100
            said.append(f"The percents of {name} are read as hundredths.")
        elif _thousands(frame[name]):
            frame[name] = frame[name].astype(str).str.replace(",", "")
            said.append(f"The commas of {name} are read as those of thousands.")
        elif _commas(frame[name]):
            frame[name] = frame[name].str.replace(",", ".")
            said.append(f"The commas of {name} are read as points.")
        if _numeric(frame[name]) and name not in (hyperparameters or ()):
            numbers = _numbers(frame[name])
            if words := sorted({str(cell) for cell in frame[name][numbers.isna() & ~_empty(frame[name])]}):
                said.append(f"No numbers, and taken for missing: {', '.join(words[:3])} in {name}.")
            frame[name] = numbers
    if gap is None:
        called = [name for name in names if _GAPS.fullmatch(name.strip())]
        if len(called) != 1:
            found = f"{listed(called)} are called gap" if called else "no column is called gap"
            raise ValueError(f"{found}; name one with --gap, of {', '.join(names)}")
        (gap,) = called
        said.append(f"The gap is {gap}.")
    if seed is None:
        named = (gap, *within, *(measures or ()), *(hyperparameters or ()))
        seeds = [name for name in names if _SEEDS.fullmatch(name.strip()) and name not in named]
        if len(seeds) == 1:
            (seed,) = seeds
            said.append(f"Seeds are {seed}.")
    known = (gap, seed, *within, *(measures or ()), *(hyperparameters or ()))
    rest = [name for name in names if name not in known]
    unique = [name for name in rest if _is_name(frame[name]) or _CLERKS.fullmatch(name.strip())]
    answers = [name for name in rest if name not in unique and _is_answer(name)]
    free = [name for name in rest if name not in (*unique, *answers)]
    few = [name for name in free if not _numeric(frame[name]) or _repeats(frame[name])]
    if hyperparameters is None:
        hyperparameters = _some(few, "hyperparameter", names)
        said.append(f"Hyperparameters are {listed(hyperparameters)}.")
    if measures is None:
        measures = _some([n for n in free if n not in hyperparameters and _numeric(frame[n])], "measure", names)
        said.append(f"Measures are {listed(measures)}.")
    if answers:
        said.append(f"Not taken for measures, as numbers of the test set hold the answer: {listed(answers)}.")
    unused = [name or "a column without a name" for name in rest if name not in (*answers, *measures, *hyperparameters)]
    if unused:
        said.append(f"Not used: {listed(unused)}.")
    shown = [name for name in answers if _numeric(frame[name])]
    directions = dict.fromkeys(measures, LEARNED)
    return Columns(frame, gap, measures, hyperparameters, test_size, seed, said, shown, directions)


def of_selection(
    selection: Selection,
    *,
    gap: str | None = None,
    measures: Sequence[str] | None = None,
    hyperparameters: Sequence[str] | None = None,
    test_size: int | None = None,
    within: Sequence[str] = (),
) -> Columns:
    """The runs of an experiment: hyperparameters are the settings in which they differ, measures all metrics but those
    of the test set and of single layers. The steps taken and the train size, where they vary, are controls. With
    metrics that select runs, ``within``, diverged ones are among them, as they do not lie within.

    Raises:
        ValueError: no run that completed, or a name that no run has; one line.
    """
    import pandas as pd

    ended = {"completed", "diverged"} if within else {"completed"}
    runs = [run for run in selection.runs if run.record is not None and run.record["status"] in ended]
    if not any(run.record["status"] == "completed" for run in runs if run.record):
        raise ValueError(f"{selection.name} has no completed run; accepted: a folder with some")
    said = []
    if left := len(selection.runs) - len(runs):
        said.append(f"{left} of {len(selection.runs)} runs are left out: they did not complete.")
    known = list(dict.fromkeys(key for run in runs if run.record for key in run.record["metrics"]))
    whole = [key for key in known if "." not in key]  # of no single layer
    gap = gap or GAP
    for name in (gap, *within, *(measures or ())):
        if name not in known:
            raise ValueError(f"no run has the metric {name!r}; {nearest(name, whole)}")
    settings = _axes(runs)
    beside = []
    for name in hyperparameters or ():
        if name not in settings:
            raise ValueError(f"the runs do not differ in {name!r}; {nearest(name, [*settings])}")
    if not settings:
        raise ValueError(f"the runs of {selection.name} differ in their seeds alone; accepted: several configurations")
    chosen = [*(hyperparameters or settings)]
    taken = (gap, *within, *(measures or ()))
    if STEPS in whole and STEPS not in taken and len({run.measured(STEPS) for run in runs}) > 1:
        beside.append(STEPS)
    if measures is None:
        measures = [key for key in whole if key not in (gap, *within, *beside) and not _is_answer(key)]
        said.append("Measures are all metrics but those of the test set and of single layers.")
    said.append(f"Hyperparameters are {listed(chosen)}.")
    columns: dict[str, list[Any]] = {name: settings[name] for name in chosen}
    answers = [key for key in whole if key.startswith("test/") and key not in (gap, *within)]
    for name in (gap, *within, *measures, *beside, *answers):
        columns[name] = [math.nan if (value := run.measured(name)) is None else value for run in runs]
    if SIZE in chosen:
        columns[SIZE_ALONE] = [value if isinstance(value, int | float) else math.nan for value in settings[SIZE]]
        beside.append(SIZE_ALONE)
    columns[SEED] = [run.record["seed"] for run in runs if run.record]
    if test_size is None:
        sizes = {run.value("data.test_size") for run in runs}
        size = sizes.pop() if len(sizes) == 1 else None
        test_size = size if isinstance(size, int) and not isinstance(size, bool) else None
    directions = {name: -1 for name in measures if _FALLING.fullmatch(name)}
    return Columns(pd.DataFrame(columns), gap, measures, chosen, test_size, SEED, said, answers, directions, beside)


def _some(chosen: list[str], kind: str, names: Sequence[str]) -> list[str]:
    if not chosen:
        raise ValueError(f"no column looks like a {kind}; name some with --{kind}s, of {', '.join(names)}")
    return chosen


def _axes(runs: Sequence[SelectedRun]) -> dict[str, list[Any]]:
    """The settings in which runs differ, each with a value a run: a number, or text as shown.

    What only some choices of a group have, such as the strength of one method among several, is no hyperparameter of
    all runs: it is part of the choice, and the group is one.
    """
    found: dict[str, list[Any]] = {}
    partial: dict[str, list[str]] = {}
    for key in differences(runs):
        group = key.partition(".")[0]
        if key.endswith("._target_") or any(run.text(key) is None for run in runs):
            partial.setdefault(group, []).append(key)
            found.setdefault(group, [])
        else:
            found[key] = [_setting(run, key) for run in runs]
    for group, keys in partial.items():
        own = [key for key in keys if not key.endswith("._target_") and _varies(runs, key, within=group)]
        for run in runs:
            parts = [f"{key.rpartition('.')[2]}={text}" for key in own if (text := run.text(key)) is not None]
            found[group].append(" ".join([run.text(group) or ABSENT, *parts]))
    return found


def _varies(runs: Sequence[SelectedRun], key: str, *, within: str) -> bool:
    """Whether a setting has several values among the runs of one choice of its group."""
    values: dict[str | None, set[str]] = {}
    for run in runs:
        if (text := run.text(key)) is not None:
            values.setdefault(run.text(within), set()).add(text)
    return any(len(texts) > 1 for texts in values.values())


def _setting(run: SelectedRun, name: str) -> Any:
    value = run.value(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return run.text(name) or ABSENT


def _is_answer(name: str) -> bool:
    """Whether a name says that it is of the test set.

    >>> [_is_answer(name) for name in ("test/loss", "acc_test", "finalTestAcc", "contest", "train/gap_free")]
    [True, True, True, False, True]
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return bool(_ANSWERS & set(re.split(r"[^a-z0-9]+", words)))


def _commas(column: "pd.Series") -> bool:
    """Whether most cells are numbers with a decimal comma."""
    cells = column[~_empty(column)].astype(str)
    return len(cells) > 0 and 2 * int(cells.str.fullmatch(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*").sum()) > len(cells)


def _percents(column: "pd.Series") -> bool:
    """Whether all cells are numbers with a percent sign."""
    cells = column[~_empty(column)].astype(str)
    return len(cells) > 0 and bool(cells.str.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*%\s*").all())


def _thousands(column: "pd.Series") -> bool:
    """Whether cells have commas, and all that have are integers of groups of three digits."""
    cells = column[~_empty(column)].astype(str).str.strip()
    own = cells[cells.str.contains(",", regex=False)]
    return len(own) > 0 and bool(own.str.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+").all())


def _numeric(column: "pd.Series") -> bool:
    """Whether most cells that are not empty are numbers."""
    held = int((~_empty(column)).sum())
    return 2 * int(_numbers(column).notna().sum()) > held


def _numbers(column: "pd.Series") -> "pd.Series":
    import pandas as pd

    return pd.to_numeric(column.where(~_empty(column)), errors="coerce")


def _empty(column: "pd.Series") -> "pd.Series":
    words = column.astype(str).str.strip().str.lower()
    return column.isna() | words.isin(["", "nan", "na", "n/a", "none", "null"])


def _repeats(column: "pd.Series") -> bool:
    values = column.nunique(dropna=False)
    return values <= _FEW and 2 * values <= len(column)


def _is_name(column: "pd.Series") -> bool:
    """Whether a column of text names runs: no value repeats."""
    return not _numeric(column) and len(column) > 1 and column.nunique() == len(column)
