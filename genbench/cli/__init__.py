"""The console commands."""

import contextlib
import gc
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_TRAIN = """\
genbench trains networks under competing regularizations and says what made them generalize.

Examples
  genbench regularization=dropout model=cnn
  genbench -m 'regularization=none,l2,[l2,mixup]' 'seed=range(5)'
  genbench experiment=ablation 'logger=[csv,wandb]'
  genbench-table runs/ablation        the table of a finished or running sweep
  genbench-measure checkpoint=runs/ablation/RUN_ID measures=full

Settings are key=value: a choice of a group below, or any key that --cfg job prints.
  genbench regularization=sam --help: the settings of a choice
  -m: a sweep, values separated by commas    --dry-run: list the runs, train none    --cfg job: the configuration
  --config-dir DIR: your own files    --version    --hydra-help: all flags, shell completion among them"""

_MEASURE = """\
genbench-measure measures a trained network: a table here, measures.{json,csv,html} beside its checkpoint.

Examples
  genbench-measure checkpoint=runs/ablation/RUN_ID                    a run: model and data are its own
  genbench-measure checkpoint=runs/ablation/RUN_ID measures=full split=test
  genbench-measure checkpoint=weights.pt model=mlp data=mnist1d       a state dict, or a checkpoint of Lightning's
  genbench-measure checkpoint=net.ckpt model._target_=my_package.Net model.width=64 data=digits

Settings are key=value: a choice of a group below, or any key that --cfg job prints (split, examples, loss, output, …).
  genbench-measure measures=full --help: the settings of a choice
  --cfg job: the configuration    --config-dir DIR: your own files    --version"""


COMMAND = "GENBENCH_COMMAND"  # in the environment, for processes of the command: its key, its own process, its words


def train() -> None:
    """``genbench``: train one run, or with ``-m`` or an experiment a sweep, and print its table."""
    with _to_reader():
        _say_about(_TRAIN)
        os.environ[COMMAND] = json.dumps([secrets.token_hex(8), os.getpid(), sys.argv[1:]])
        if "--dry-run" in sys.argv:
            sys.argv[:] = [word for word in sys.argv if word != "--dry-run"] + ["++hydra.launcher.dry_run=true"]
        status = _hydra("train", _task)
        sys.exit(max(status, _show_sweep()))


def measure() -> None:
    """``genbench-measure``: measure a network that is trained already, and print its table."""
    with _to_reader():
        _say_about(_MEASURE, shown=("data", "model", "measures"))
        # a network of one's own has settings that no YAML lists; a misspelt one is refused when it is bound
        own = ("data.", "model.")
        sys.argv[1:] = [f"++{word}" if word.startswith(own) and "=" in word else word for word in sys.argv[1:]]
        sys.exit(_hydra("measure", _measure_task))


@contextlib.contextmanager
def _to_reader() -> Iterator[None]:
    """For what is printed to a reader that may leave, as head does when it has seen enough, or lack some signs."""
    from genbench.process.streams import lenient

    lenient()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _say_about(introduction: str, shown: tuple[str, ...] | None = None) -> None:
    """Answer --help and --version, and end."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        from genbench.cli import catalog

        print(_report_errors(lambda: catalog.page(introduction, arguments, shown)))
        sys.exit(0)
    if "--version" in arguments:
        print(_version())
        sys.exit(0)


def _version() -> str:
    from importlib.metadata import version

    return f"genbench {version('genbench')}"


def _hydra(name: str, task: Callable[[Any], Any]) -> int:
    """Compose the configuration ``name`` from the arguments and call the task; the exit status."""
    import hydra
    from hydra._internal import utils

    from genbench import config
    from genbench.cli import catalog

    _report_errors(lambda: catalog.check_files(sys.argv[1:]))
    parser = utils.get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]  # its own prints the usage, which is Hydra's
    parser.parse_args()
    # Hydra's own prints tracebacks
    utils.run_and_report = lambda function: _note_folders(_report_errors(function))  # type: ignore[assignment]
    try:
        hydra.main(config_path=str(config.folder()), config_name=name, version_base="1.3")(task)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _note_folders(result: Any) -> Any:
    """Remember the experiment folders of a sweep whose jobs other processes have run, to show their tables."""
    from hydra.core.utils import JobReturn
    from omegaconf import OmegaConf

    jobs = [job for batch in result for job in batch] if isinstance(result, list) else []
    for job in jobs:
        if isinstance(job, JobReturn) and job.cfg is not None and "runs_dir" in job.cfg:
            from genbench.runs import sweep

            folder = Path(job.cfg.runs_dir) / job.cfg.name
            if sweep.planned_with(folder, json.loads(os.environ[COMMAND])[0]):
                logger: Any = OmegaConf.to_container(job.cfg.logger, resolve=True)
                sweep.SWEPT[folder] = logger
    return result


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """For imports, which make a million objects that stay: to look for garbage among them, over and over, takes a
    tenth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _measure_task(cfg: Any) -> None:
    from rich.console import Console

    from genbench import config

    plain = _report_errors(lambda: config.resolve(cfg))  # before what takes long to import
    with _without_collecting():
        from genbench.process import progress
        from genbench.report import estimates
        from genbench.runs import measure_checkpoint

    def task() -> None:
        with progress.saying() as say:
            measured = measure_checkpoint.run(plain, say=say)
        console = Console()
        console.print(estimates.terminal(measured.title, measured.estimates))
        for path in measured.files:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)

    _report_errors(task)


def _task(cfg: Any) -> float | None:
    """One run in this process: what Hydra calls without a sweep, and launchers other than ours for each job; its
    accuracy on the validation split."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from genbench import config

    # errors are reported here: Hydra would print a traceback before it passes them on
    plain = _report_errors(lambda: config.resolve(cfg))
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0:
        runtime, methods = HydraConfig.get().runtime.choices, " + ".join(plain["regularization"]) or "none"
        what = f"{runtime['model']} on {runtime['data']}, regularization {methods}, seed {plain['seed']}"
        print(f"genbench: {what}", file=sys.stderr, flush=True)
    with _without_collecting():
        from genbench.process import progress
        from genbench.runs import execute, sweep

    chosen = sweep.choices(HydraConfig.get().runtime.choices)
    typed = list(HydraConfig.get().overrides.task)
    if HydraConfig.get().launcher.get("dry_run"):
        _report_errors(lambda: _preview(plain, chosen))
        return None
    record = _report_errors(lambda: execute.run(plain, choices=chosen, typed=typed, watch=progress.shown))
    if record is None:  # the first of the processes that torchrun has started shows it
        return None
    folder = Path(plain["runs_dir"]) / plain["name"]
    alone = HydraConfig.get().mode == RunMode.RUN
    if not alone or plain["name"] == "default":  # unnamed runs are one command's; named ones stand together
        run, (key, pid, words) = sweep.planned_run(record, typed), json.loads(os.environ[COMMAND])
        key = None if pid == os.getpid() else key
        _report_errors(lambda: sweep.write_plan(folder, plain, command=words, runs=[run], key=key))
    if alone:
        _show_run(record, folder / record["run_id"])
        if record["status"] != "completed":
            raise SystemExit(1)
    else:
        sweep.SWEPT[folder] = plain["logger"]
    return sweep.validation(record)


def _preview(plain: dict[str, Any], chosen: dict[str, Any]) -> None:
    """Say what a run would be, without it."""
    from genbench.runs import plan
    from genbench.runs.run import final_record

    planned = plan.plan(plain, choices=chosen)
    there = final_record(planned.folder) is not None
    plan.check(plain)
    print("there" if there else "train", planned.run_id, sep="  ")
    print("1 of 1 runs there already" if there else "1 run: 1 to train")


def _show_run(record: dict[str, Any], folder: Path) -> None:
    from rich.console import Console

    from genbench import records
    from genbench.report import estimates

    console = Console()
    methods = " + ".join(record["choices"]["regularization"]) or "none"
    title = f"{methods}, seed {record['seed']}: {record['status']}"
    console.print(estimates.terminal(title, records.estimates(record)))
    if record["error"]:
        console.print(record["error"], style="red", markup=False, highlight=False)
    console.print(f"record: {folder / 'record.json'}", markup=False, highlight=False)


def _show_sweep() -> int:
    """Write and print the tables of the experiments that this command swept; 1 if a run of theirs has failed."""
    from genbench.runs import sweep

    if not sweep.SWEPT:
        return 0
    from rich.console import Console

    from genbench import records, report

    failed = False
    for folder, chosen in sweep.SWEPT.items():
        if not any(folder.glob(f"*/{records.RECORD}")):  # interrupted before the first run ended
            continue
        try:
            found = report.Report(folder)
            if not any(run.record for run in found.selection.runs):  # no run of this command was begun
                failed = True
                continue
            found.write()  # before it is printed, which may fail or be interrupted
            found.show(Console())
            if "wandb" in chosen:
                from hydra.utils import instantiate

                from genbench import loggers

                parts = {key: instantiate(node) for key, node in chosen.items()}
                loggers.log_report(parts, folder=folder, experiment=folder.name)
        except (ValueError, OSError, records.RecordError) as error:
            print(f"genbench: {_explain(error)}", file=sys.stderr)
            failed = True
            continue
        failed |= any(run.state != "completed" for run in found.selection.runs)
    return int(failed)


def _refuse(message: str) -> NoReturn:
    print(f"{_command()}: {message}; see {_command()} --help", file=sys.stderr)
    sys.exit(1)


def _report_errors(function: Callable[[], Any]) -> Any:
    """Run what Hydra runs; an error becomes one line on standard error, unless HYDRA_FULL_ERROR=1."""
    from genbench.privacy import learn, shorten
    from genbench.process.termination import terminable

    learn(sys.argv[1:])
    try:
        with terminable():
            return function()
    except KeyboardInterrupt:
        print(f"{_command()}: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"{_command()}: {shorten(_explain(error))}", file=sys.stderr)
        sys.exit(1)


def _explain(error: Exception) -> str:
    from genbench.cli.explain import explain

    return explain(error, sys.argv[1:], root=_root())


def _command() -> str:
    return {"train": "genbench", "measure": "genbench-measure"}[_root()]


def _root() -> str:
    """The configuration of this command."""
    return "measure" if "measure" in Path(sys.argv[0]).stem else "train"


def table() -> None:
    """``genbench-table``: print the table of a folder of runs, and write the files of its report."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
            sys.exit(1)

    parser = Parser(
        prog="genbench-table",
        description="Print the table of an experiment; write table.{md,tex,csv} and report.html beside its runs. "
        "A CSV file of one line a run has a table as well.",
        epilog="examples: genbench-table runs/ablation --status; "
        "genbench-table results.csv --rows method --columns accuracy --baseline none",
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="folder", help="an experiment's: runs/ablation, say; or a CSV file"
    )
    parser.add_argument(
        "--all", action="store_true", help="all runs of the folder, not those of the last command alone"
    )
    parser.add_argument("--status", action="store_true", help="how many runs are done, running, failed, missing")
    parser.add_argument("--dashboard", action="store_true", help="create or update the W&B workspace")
    parser.add_argument("--json", action="store_true", help="with --dashboard: print it instead; needs no W&B account")
    parser.add_argument(
        "--strategies", action="store_true", help="a page (Markdown): what each is and did in the folders"
    )
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
    arguments = parser.parse_args()
    if arguments.json and not arguments.dashboard:
        parser.error("--json is of --dashboard")
    try:
        with _to_reader():
            _check_other(arguments)
            for folder in arguments.folders:
                if not folder.is_file():
                    _check_folder(folder)
            if arguments.strategies:
                _strategies(arguments.folders)
            for folder in [] if arguments.strategies else arguments.folders:
                if folder.is_file() or _is_other(arguments):
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
    """Whether another table than the experiment's own is asked for."""
    return any(getattr(arguments, name) is not None for name in ("rows", "columns", "baseline", "seed", "output"))


def _check_other(arguments: Any) -> None:
    """Refuse options that do not go together, before anything is written."""
    from genbench import records
    from genbench.report import render

    files = [path for path in arguments.folders if path.is_file()]
    reports = [name for name in ("all", "status", "dashboard", "strategies") if getattr(arguments, name)]
    if files and reports:
        raise ValueError(f"--{reports[0]} is of a folder of runs; {files[0]} is a file")
    if _is_other(arguments) and (reports := [name for name in reports if name != "all"]):
        raise ValueError(f"--{reports[0]} takes none of --rows, --columns, --baseline, --seed, --output")
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
    """The table of a CSV file, or another one of a folder's runs than its own."""
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
    written = report.write_table(table, arguments.output) if arguments.output is not None else []
    if arguments.format != "terminal":
        sys.stdout.write(report.table_text(table, arguments.format))
        return
    console = Console()
    console.print(terminal.renderable(table, console.width))
    if written:
        console.print(Text(f"written: {', '.join(map(str, written))}", style="dim"), soft_wrap=True)


def _check_folder(folder: Path) -> None:
    """Refuse what holds no runs."""
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
            sys.stdout.write(dashboard.text(folder))
        else:
            print(dashboard.build(folder))
    elif arguments.status:
        for line in report.status_lines(folder, everything=arguments.all):
            console.print(Text(line), soft_wrap=True)
    elif arguments.format != "terminal":
        sys.stdout.write(report.Report(folder, everything=arguments.all).text(arguments.format))
    else:
        found = report.Report(folder, everything=arguments.all)
        try:
            names = ", ".join(path.name for path in found.write() if path.parent == folder)
            said = Text(f"written beside the runs: {names}, figures/", style="dim")
        except OSError as error:  # somebody else's runs, a full disk: the table is shown
            said = None
            print(f"genbench-table: the report was not written: {error.strerror}", file=sys.stderr)
        found.show(console)
        if said is not None:
            console.print(said, soft_wrap=True)
