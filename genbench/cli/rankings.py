"""``genbench-table --rank``: which measure predicts the gap, of a folder of runs or of a CSV file."""

import math
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genbench.checks import nearest


def add_arguments(parser: ArgumentParser, names: Callable[[str], list[str]]) -> None:
    """Add the options; ``names`` splits a list of them."""
    parser.add_argument(
        "--rank", action="store_true", help="which measure predicts the gap; also of a CSV file of anybody's runs"
    )
    ranked = parser.add_argument_group("with --rank (found, and said, where they are not given)")
    ranked.add_argument("--gap", metavar="NAME", help="the column, or metric, to predict")
    ranked.add_argument("--measures", type=names, metavar="NAME,…", help="columns, or metrics, on trial")
    falls = "those of them that are to fall with the gap (found in a file by its runs; '' for none)"
    ranked.add_argument("--falls", type=names, metavar="NAME,…", help=falls)
    ranked.add_argument("--hyperparameters", type=names, metavar="NAME,…", help="columns, or settings")
    ranked.add_argument("--test-size", type=int, metavar="N", help="test examples of the gap, for sign errors")
    ranked.add_argument("--score", choices=("tau", "psi"), help="what orders the rows (default: tau)")
    ranked.add_argument(
        "--within", action="append", metavar="NAME=LOW:HIGH", help="leave out runs without such a number; repeatable"
    )
    ranked.add_argument("--pgdl", action="store_true", help="information by the rule of the contest of 2020")


def checked(arguments: Any, files: Sequence[Path]) -> bool:
    """Whether a ranking is asked for; refuse options that it does not go with, and its own without it."""
    of_rank = ("gap", "measures", "falls", "hyperparameters", "test_size", "score", "within", "pgdl")
    given = [name for name in of_rank if getattr(arguments, name) not in (None, False)]
    if given and not arguments.rank:
        raise ValueError(f"--{given[0].replace('_', '-')} is of --rank")
    if not arguments.rank:
        return False
    reports = ("status", "claims", "summary", "dashboard", "strategies", "power", "trust", "rows", "columns")
    others = [name for name in reports if getattr(arguments, name)]
    if others or arguments.format == "html":
        raise ValueError(f"--rank takes no {'--format html' if not others else f'--{others[0]}'}")
    if files and arguments.all:
        raise ValueError(f"--all is of a folder of runs; {files[0]} is a file")
    if arguments.seed is not None and len(files) < len(arguments.folders):
        raise ValueError("--seed is of CSV files: the runs of a folder know theirs")
    if arguments.output is not None and (len(arguments.folders) > 1 or not arguments.output.is_dir()):
        raise ValueError(f"--output is {arguments.output}; accepted: a folder that there is, of one table")
    return True


def show(path: Path, arguments: Any) -> None:
    """Print the ranking of the measures of a folder's runs or of a CSV file's."""
    from rich.console import Console
    from rich.text import Text

    from genbench import report
    from genbench.report import ranking

    folder = arguments.output or (None if path.is_file() else path)
    if folder is not None and arguments.format == "terminal":
        ranking.check_output(folder, path)
    named = {name: getattr(arguments, name) for name in ("gap", "measures", "hyperparameters", "test_size")}
    within = dict(map(_window, arguments.within or ()))
    named["within"] = [*within]
    if path.is_file():
        columns = ranking.of_file(report.read_csv(path), **named, seed=arguments.seed)
    else:
        columns = ranking.of_selection(report.load(path, everything=arguments.all), **named)
    for name in arguments.falls or ():
        if name not in columns.measures:
            raise ValueError(f"--falls names {name!r}; {nearest(name, columns.measures)}")
    chosen = {name: value for name in ("score", "baseline") if (value := getattr(arguments, name)) is not None}
    found = ranking.ranked(columns, falls=arguments.falls, contest=arguments.pgdl, within=within, **chosen)
    if arguments.format != "terminal":
        sys.stdout.write(ranking.text(found, arguments.format))
        return
    console = Console()
    console.print(ranking.renderable(found, console.width))
    if folder is not None:
        written, missing = ranking.write(found, columns, folder)
        for line in (f"written: {', '.join(map(str, written))}", missing):
            console.print(Text(line, style="dim"), soft_wrap=True)


def _window(text: str) -> tuple[str, tuple[float, float]]:
    """The metric of ``--within`` and its ends; one that is left empty is infinite.

    >>> _window("train/performance/loss=0.009:0.011"), _window("accuracy=0.99:")
    (('train/performance/loss', (0.009, 0.011)), ('accuracy', (0.99, inf)))
    """
    name, _, ends = text.rpartition("=")
    parts = ends.split(":")
    try:
        low, high = float(parts[0] or "-inf"), float(parts[1] or "inf")
    except (ValueError, IndexError):
        low, high = math.nan, math.nan
    if not name or len(parts) != 2 or not low <= high:
        raise ValueError(f"--within is {text!r}; accepted: NAME=LOW:HIGH, such as train/performance/loss=0.009:0.011")
    return name, (low, high)
