"""``genbench-table``: tables and reports of finished runs; it only reads folders and CSV files."""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from genbench.cli import rankings
from genbench.cli.commands import to_reader, version_line, with_help


def table() -> None:
    """``genbench-table``: print the table of a folder of runs, and write the files of its report."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            said = with_help(message, list(self._option_string_actions), self.prog)
            print(f"{self.prog}: {said}", file=sys.stderr)
            sys.exit(1)

    parser = Parser(
        prog="genbench-table",
        allow_abbrev=False,
        description="Print the table of an experiment; write table.{md,tex,csv} and report.html beside its runs. "
        "A CSV file of one line a run has a table as well.",
        epilog="examples: genbench-table runs/ablation --status; "
        "genbench-table results.csv --rows method --columns accuracy --baseline none; "
        "genbench-table results.csv --rank --gap gap",
    )
    parser.add_argument("--version", action="version", version=version_line())
    parser.add_argument(
        "folders", type=Path, nargs="*", metavar="folder", help="an experiment's: runs/ablation, say; or a CSV file"
    )
    parser.add_argument(
        "--all", action="store_true", help="all runs of the folder, not those of the last command alone"
    )
    parser.add_argument("--status", action="store_true", help="how many runs are done, running, failed, missing")
    parser.add_argument(
        "--claims", action="store_true", help="the verdict on each claim of the experiment, a line each"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run rules of claims that are your own, which the folder names, as you",
    )
    parser.add_argument(
        "--summary", action="store_true", help="a CSV file (a line a run) that makes table and verdicts"
    )
    parser.add_argument(
        "--papers",
        action="store_true",
        help="the verdicts on all papers, or those named, with runs in the folder (default: runs); writes papers.html",
    )
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="with --papers: your own experiments as well")
    parser.add_argument("--dashboard", action="store_true", help="create or update the W&B workspace")
    parser.add_argument("--json", action="store_true", help="with --dashboard: print it instead; needs no W&B account")
    parser.add_argument(
        "--strategies", action="store_true", help="a page (Markdown): what each is and did in the folders"
    )
    parser.add_argument(
        "--power", action="store_true", help="how many seeds would show the differences from the baseline"
    )
    parser.add_argument(
        "--effect", type=float, metavar="NUMBER", help="with --power: a difference, in the column's unit, to show"
    )
    rankings.add_arguments(parser, _names)
    kinds = ("terminal", "markdown", "latex", "csv", "html")
    parser.add_argument("--format", choices=kinds, default="terminal", help="others than terminal write no files")
    chosen = parser.add_argument_group("another table (written only where --output says)")
    chosen.add_argument(
        "--rows", type=_names, metavar="NAME,…", help="settings, or columns of a CSV file, whose values label the rows"
    )
    chosen.add_argument(
        "--columns", "--metric", type=_names, metavar="NAME,…", help="the table's own, by label, or any metrics"
    )
    chosen.add_argument("--baseline", metavar="LABEL", help="the row that the others are compared with")
    chosen.add_argument("--seed", metavar="NAME", help="of a CSV file: the column that pairs its runs (default: seed)")
    chosen.add_argument("--output", type=Path, metavar="FOLDER", help="write table.{md,tex,csv} there")
    arguments = parser.parse_intermixed_args()
    if arguments.json and not arguments.dashboard:
        parser.error("--json is of --dashboard")
    if arguments.effect is not None and not arguments.power:
        parser.error("--effect is of --power")
    if arguments.config_dir is not None and not arguments.papers:
        parser.error("--config-dir is of --papers")
    if not arguments.folders and not arguments.papers:
        parser.error("the following arguments are required: folder")
    try:
        with to_reader():
            if arguments.papers:
                _papers(arguments)
                return
            _check_other(arguments)
            for folder in arguments.folders:
                if not folder.is_file():
                    _check_folder(folder)
            if arguments.strategies:
                _strategies(arguments.folders)
            for folder in [] if arguments.strategies else arguments.folders:
                if arguments.rank:
                    rankings.show(folder, arguments)
                elif folder.is_file() or arguments.power or _is_other(arguments):
                    _other_table(folder, arguments)
                else:
                    _table(folder, arguments)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        expected = isinstance(error, ValueError) or type(error).__name__ == "DashboardError"
        print(f"genbench-table: {text if expected else f'{type(error).__name__}: {text}'}", file=sys.stderr)
        sys.exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _is_other(arguments: Any) -> bool:
    """Tell whether the arguments ask for another table than the experiment's own."""
    return any(getattr(arguments, name) is not None for name in ("rows", "columns", "baseline", "seed", "output"))


def _check_other(arguments: Any) -> None:
    """Refuse options that exclude each other, before anything is written."""
    from genbench import records
    from genbench.report import render

    files = [path for path in arguments.folders if path.is_file()]
    if rankings.checked(arguments, files):
        return
    reports = [
        name for name in ("all", "status", "claims", "summary", "dashboard", "strategies") if getattr(arguments, name)
    ]
    if files and reports:
        raise ValueError(f"--{reports[0]} is of a folder of runs; {files[0]} is a file")
    if _is_other(arguments) and (reports := [name for name in reports if name != "all"]):
        raise ValueError(f"--{reports[0]} takes none of --rows, --columns, --baseline, --seed, --output")
    if arguments.claims and (arguments.format != "terminal" or set(reports) - {"all", "claims"}):
        raise ValueError("--claims takes none of --format, --status, --dashboard, --strategies")
    if arguments.power and (arguments.format != "terminal" or arguments.output or set(reports) - {"all"}):
        raise ValueError("--power takes none of --format, --output, --status, --claims, --dashboard, --strategies")
    if arguments.summary and (arguments.format != "terminal" or len(reports) > 1 or len(arguments.folders) > 1):
        raise ValueError("--summary takes one folder and no other option")
    unjudged = files or arguments.power or _is_other(arguments) or {*reports} & {"status", "strategies", "summary"}
    if arguments.trust and unjudged:
        raise ValueError("--trust is of the claims of a folder of runs; accepted: with its own table, or --claims")
    if arguments.format == "html" and (files or _is_other(arguments)):
        raise ValueError("--format html is the report of an experiment; accepted here: terminal, markdown, latex, csv")
    if arguments.seed is not None and len(files) < len(arguments.folders):
        raise ValueError("--seed is of CSV files: the runs of a folder know theirs")
    if (output := arguments.output) is not None:
        if len(arguments.folders) > 1:
            raise ValueError("--output holds one table; give one folder or file")
        if not output.is_dir():
            raise ValueError(f"--output is {output}; accepted: a folder that there is")
        for name in ("table.md", "table.tex", "table.csv"):
            if files and (output / name).exists() and (output / name).samefile(files[0]):
                raise ValueError(f"--output {output} would overwrite {files[0]}; accepted: another folder")
        old = output / "table.csv"
        if old.exists() and not (old.is_file() and render.is_table(records.read_bytes(old))):
            raise ValueError(f"--output {output} holds a foreign table.csv; accepted: another folder")


def _other_table(path: Path, arguments: Any) -> None:
    """Print the table of a CSV file, or a table of a folder's runs that is not its own."""
    from rich.console import Console
    from rich.text import Text

    from genbench import report
    from genbench.report import spec, terminal

    chosen = {"rows": arguments.rows, "columns": arguments.columns, "baseline": arguments.baseline}
    if path.is_file():
        table = report.table_of(report.read_csv(path), **chosen, seed=arguments.seed, title=path.stem)
    else:
        selection = report.load(path, everything=arguments.all)
        metrics = {name for record in selection.records for name in record["metrics"]}
        metrics |= {f"seconds.{name}" for record in selection.records for name in record["seconds"]}
        table = report.build(selection, spec.changed((selection.sweep or {}).get("table") or {}, metrics, **chosen))
    if arguments.power:
        from genbench.report import power

        console = Console()
        console.print(power.renderable(table, power.power(table, arguments.effect), arguments.effect))
        return
    written = report.write_table(table, arguments.output) if arguments.output is not None else []
    if arguments.format != "terminal":
        sys.stdout.write(report.table_text(table, arguments.format))
        return
    console = Console()
    console.print(terminal.renderable(table, console.width))
    if written:
        console.print(Text(f"written: {', '.join(map(str, written))}", style="dim"), soft_wrap=True)


def _check_folder(folder: Path) -> None:
    """Refuse a folder without runs."""
    from genbench import records

    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}; accepted: an experiment's, such as runs/ablation, or a CSV file"
        )
    if not (folder / records.SWEEP).exists() and not any(folder.glob(f"*/{records.RECORD}")):
        inside = [path.parent.name for path in sorted(folder.glob(f"*/{records.SWEEP}"))]
        hint = (
            f"did you mean {folder / inside[0]}"
            if inside
            else "accepted: an experiment's folder, such as runs/ablation"
        )
        raise ValueError(f"{folder} holds no runs; {hint}")


def _papers(arguments: Any) -> None:
    """Print the scoreboard of papers, and write its page beside the folders of their runs."""
    from rich.console import Console
    from rich.text import Text

    from genbench import config, records
    from genbench.report.papers import scoreboard

    options = ("all", "status", "claims", "summary", "dashboard", "strategies", "power", "trust")
    if _is_other(arguments) or arguments.format != "terminal" or any(getattr(arguments, name) for name in options):
        raise ValueError("--papers takes no other option than --config-dir")
    if (own := arguments.config_dir) is not None and not (own / "experiment").is_dir():
        raise ValueError(f"--config-dir is {own}; accepted: a folder that holds experiment/*.yaml")
    folders = [path for path in arguments.folders if path.is_dir()]
    if len(folders) > 1:
        raise ValueError(f"--papers takes one folder of all runs; got {', '.join(map(str, folders))}")
    folder = folders[0] if folders else Path("runs")
    names = [*dict.fromkeys(str(path) for path in arguments.folders if not path.is_dir())]
    places = [config.folder(), *([own] if own is not None else [])]
    shown = scoreboard.board(places, folder, names)
    console = Console()
    if console.is_terminal:
        console.print(scoreboard.renderable(shown))
    else:
        for line in scoreboard.lines(shown):
            console.print(Text(line), soft_wrap=True)
    console.print(Text(scoreboard.ERRORS, style="dim"), soft_wrap=not console.is_terminal)
    if folder.is_dir():
        records.write_atomic(folder / scoreboard.PAGE, scoreboard.page(shown, folder=folder))
        console.print(Text(f"written: {folder / scoreboard.PAGE}", style="dim"), soft_wrap=True)


def _strategies(folders: list[Path]) -> None:
    from genbench import config
    from genbench.report import load, strategies

    sys.stdout.write(strategies.page(config.folder(), [load(folder) for folder in folders]))


def _table(folder: Path, arguments: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    from genbench import report

    console = Console()
    if arguments.dashboard:
        from genbench.report import dashboard

        if arguments.json:
            sys.stdout.write(dashboard.text(folder, trust=arguments.trust))
        else:
            print(dashboard.build(folder, trust=arguments.trust))
    elif arguments.summary:
        from genbench.report.papers import summary

        sys.stdout.write(summary.write(report.load(folder)))
    elif arguments.status:
        for line in report.status_lines(folder, everything=arguments.all):
            console.print(Text(line), soft_wrap=True)
    elif arguments.claims:
        from genbench.report import claims

        selection = report.load(folder, everything=arguments.all)
        if selection.sweep is None or selection.unregistered:
            raise ValueError(f"{folder}: {selection.unregistered}; accepted: an experiment that has claims")
        verdicts = claims.of_records(selection.sweep["claims"], selection.records, trust=arguments.trust)
        if console.is_terminal:
            console.print(claims.renderable(verdicts, numbers=True))
        for line in [*([] if console.is_terminal else claims.lines(verdicts)), *selection.left_out]:
            console.print(Text(line), soft_wrap=True)
    elif arguments.format != "terminal":
        found = report.Report(folder, everything=arguments.all, trust=arguments.trust)
        sys.stdout.write(found.text(arguments.format))
    else:
        found = report.Report(folder, everything=arguments.all, trust=arguments.trust)
        try:
            names = ", ".join(path.name for path in found.write() if path.parent == folder)
            said = Text(f"written beside the runs: {names}, figures/", style="dim")
        except OSError as error:  # another user's folder or a full disk: still show the table
            said = None
            print(f"genbench-table: the report was not written: {error.strerror}", file=sys.stderr)
        found.show(console)
        if said is not None:
            console.print(said, soft_wrap=True)
