"""``genbench`` and ``genbench-measure``, which Hydra configures."""

import contextlib
import importlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from genbench.checks import nearest
from genbench.process.imports import sparing, without_collecting

TRAIN_HELP = """\
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

MEASURE_HELP = """\
genbench-measure measures a trained network: a table here, measures.{json,csv,html} in a folder beside its checkpoint.

Examples
  genbench-measure checkpoint=runs/ablation/RUN_ID                    a run: model and data are its own
  genbench-measure checkpoint=runs/ablation/RUN_ID measures=full split=test
  genbench-measure checkpoint=runs/ablation measures=size             every run: values beside its record, for tables
  genbench-measure checkpoint=weights.pt model=mlp data=mnist1d       a state dict, or a checkpoint of Lightning's
  genbench-measure checkpoint=net.ckpt model._target_=my_package.Net model.width=64 data=digits

Settings are key=value: a choice of a group below, or any key that --cfg job prints (split, examples, loss, output, …).
  genbench-measure measures=full --help: the settings of a choice
  --cfg job: the configuration    --config-dir DIR: your own files    --version"""


COMMAND = "GENBENCH_COMMAND"  # in the environment of the command's processes: its key, its process id, its words


def train() -> None:
    """``genbench``: train one run, or with ``-m`` or an experiment a sweep, and print its table."""
    with to_reader():
        _say_about(TRAIN_HELP)
        os.environ[COMMAND] = json.dumps([secrets.token_hex(8), os.getpid(), sys.argv[1:]])
        if "--dry-run" in sys.argv:
            sys.argv[:] = [word for word in sys.argv if word != "--dry-run"] + ["++hydra.launcher.dry_run=true"]
        if _sweeps(sys.argv[1:]):
            from genbench.runs import executors

            executors.start_server()  # while this process composes the runs, without torch
        status = _hydra("train", _task)
        sys.exit(max(status, _show_sweep()))


def _sweeps(words: Sequence[str]) -> bool:
    """Whether the command needs workers, as far as its words tell."""
    answers = {"-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--hydra-help"}
    if any(word.partition("=")[0] in answers for word in words):
        return False
    many = {"-m", "--multirun"} & set(words) or any(word.startswith("experiment=") for word in words)
    return bool(many) and "hydra/launcher=basic" not in words


def measure() -> None:
    """``genbench-measure``: measure a network that is trained already, and print its table."""
    with to_reader():
        _say_about(MEASURE_HELP, shown=("data", "model", "measures", "logger"))
        # a user's network has settings that no YAML lists; binding refuses a misspelt one
        own = ("data.", "model.")
        sys.argv[1:] = [f"++{word}" if word.startswith(own) and "=" in word else word for word in sys.argv[1:]]
        sys.exit(_hydra("measure", _measure_task))


@contextlib.contextmanager
def to_reader() -> Iterator[None]:
    """Print to a reader that may leave early, as head does, or whose encoding lacks some characters."""
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
    """Answer --help and --version, then exit."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        from genbench.cli import catalog

        print(_report_errors(lambda: catalog.page(introduction, arguments, shown)))
        sys.exit(0)
    if "--version" in arguments:
        print(version_line())
        sys.exit(0)


def version_line() -> str:
    from importlib.metadata import version

    return f"genbench {version('genbench')}"


def _hydra(name: str, task: Callable[[Any], Any]) -> int:
    """Compose the configuration ``name`` from the arguments, call the task, and return the exit status."""
    import hydra
    from hydra._internal import utils

    from genbench import config
    from genbench.cli import catalog

    _report_errors(lambda: catalog.check_files(sys.argv[1:]))
    parser = utils.get_args_parser()
    parser.allow_abbrev = False
    flags = [*parser._option_string_actions, "--dry-run"]

    def refuse(message: str) -> NoReturn:
        print(f"{_command()}: {with_help(message, flags, _command())}", file=sys.stderr)
        sys.exit(1)

    parser.error = refuse  # type: ignore[method-assign]  # argparse would print Hydra's usage
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]  # flags between settings
    if (asked := parser.parse_args()).multirun and (asked.cfg or asked.info):
        refuse("--cfg and --info show one configuration: leave out -m and the settings of several runs")
    if own := catalog.shadowed(sys.argv[1:]):
        more = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
        said = "genbench has another file of that name, which comes first; rename yours"
        print(f"{_command()}: {own[0]} is not read{more}: {said}", file=sys.stderr)
    # Hydra's own version prints tracebacks
    utils.run_and_report = lambda function: _note_folders(_report_errors(function))  # type: ignore[assignment]
    importlib.import_module("hydra.main").get_args_parser = lambda: parser  # type: ignore[attr-defined]
    try:
        with catalog.refusing_empty_choices():
            hydra.main(config_path=str(config.folder()), config_name=name, version_base="1.3")(task)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _note_folders(result: Any) -> Any:
    """Remember the experiment folders of a sweep whose jobs ran in other processes, to show their tables."""
    from hydra.core.utils import JobReturn
    from omegaconf import OmegaConf

    jobs = [job for batch in result for job in batch] if isinstance(result, list) else []
    for job in jobs:
        if isinstance(job, JobReturn) and job.cfg is not None and "runs_dir" in job.cfg:
            from genbench.runs import sweep_plan

            folder = Path(job.cfg.runs_dir) / job.cfg.name
            if sweep_plan.planned_with(folder, json.loads(os.environ[COMMAND])[0]):
                logger: Any = OmegaConf.to_container(job.cfg.logger, resolve=True)
                sweep_plan.SWEPT[folder] = logger
    return result


def _measure_task(cfg: Any) -> None:
    from rich.console import Console

    from genbench import config, records

    plain = _report_errors(lambda: config.resolve(cfg))  # before the slow imports
    folder = Path(plain["checkpoint"])
    if several := folder.is_dir() and not (folder / records.RECORD).is_file():
        from genbench.runs import executors

        executors.start_server()  # while this process imports
    with without_collecting(), sparing():
        from genbench.process import progress
        from genbench.report import estimates, measures_page
        from genbench.runs import measure_checkpoint, measure_folder

    def task() -> None:
        if several:
            found = measure_folder.run(plain)
            print("\n".join(found.lines))
            if found.failed:
                raise SystemExit(1)
            return
        with progress.saying() as say:
            measured = measure_checkpoint.run(plain, say=say, page=measures_page.drawn_page)
        console = Console()
        console.print(estimates.terminal(measured.title, measured.estimates))
        for path in measured.files:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)

    _report_errors(task)


def _task(cfg: Any) -> float | None:
    """Execute one run in this process: Hydra calls it without a sweep, and other launchers than ours for each job.
    Returns the accuracy on the validation split."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from genbench import config

    # report errors here: Hydra would print a traceback first
    plain = _report_errors(lambda: registered(resolved := config.resolve(cfg), _changed(resolved)))
    alone = HydraConfig.get().mode == RunMode.RUN
    if alone and (changed := (plain.get("claims") or {}).get("changed")):
        from genbench.claims.registration import told

        print(f"genbench: no verdict counts this run: {told(changed)}", file=sys.stderr, flush=True)
        plain["claims"] = {key: value for key, value in plain["claims"].items() if key != "digest"}
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0:
        runtime, methods = HydraConfig.get().runtime.choices, " + ".join(plain["regularization"]) or "none"
        what = f"{runtime['model']} on {runtime['data']}, regularization {methods}, seed {plain['seed']}"
        print(f"genbench: {what}", file=sys.stderr, flush=True)
    with without_collecting(), sparing():
        from genbench.process import progress
        from genbench.runs import execute, sweep_plan

    chosen = sweep_plan.choices(HydraConfig.get().runtime.choices)
    typed = list(HydraConfig.get().overrides.task)
    if HydraConfig.get().launcher.get("dry_run"):
        _report_errors(lambda: _preview(plain, chosen))
        return None
    record = _report_errors(lambda: execute.run(plain, choices=chosen, typed=typed, watch=progress.shown))
    if record is None:  # the first of the processes that torchrun started shows it
        return None
    folder = Path(plain["runs_dir"]) / plain["name"]
    if not alone or plain["name"] == "default":  # unnamed runs belong to one command; named ones are collected
        run, (key, pid, words) = sweep_plan.planned_run(record, typed), json.loads(os.environ[COMMAND])
        key = None if pid == os.getpid() else key
        _report_errors(lambda: sweep_plan.write_plan(folder, plain, command=words, runs=[run], key=key))
    if alone:
        sweep_plan.SWEPT.pop(folder, None)  # its numbers are shown as a list: a table of one row says less
        _show_run(record, folder / record["run_id"])
        if record["status"] != "completed":
            raise SystemExit(1)
    else:
        sweep_plan.SWEPT[folder] = plain["logger"]
    return sweep_plan.validation(record)


def registered(plain: dict[str, Any], changed: Sequence[str] = ()) -> dict[str, Any]:
    """Return a configuration with its claims registered; see :func:`genbench.claims.registration.register`."""
    if plain.get("claims") is None:  # without the import
        return plain
    from genbench.claims import registration

    return registration.register(plain, changed)


def _changed(plain: dict[str, Any]) -> list[str]:
    """Return the settings of the run's experiment that this command changed; see :mod:`genbench.cli.stated`."""
    from hydra._internal import utils
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if plain.get("claims") is None:
        return []
    from genbench.cli import stated
    from genbench.runs import sweep_plan

    words = json.loads(os.environ[COMMAND])[2]  # those of a sweep name the job's own settings too
    typed = utils.get_args_parser().parse_known_intermixed_args(words)[0].overrides
    master = OmegaConf.create({"hydra": HydraConfig.get()})
    run = plain, sweep_plan.choices(HydraConfig.get().runtime.choices)
    return stated.changed(stated.stated(GlobalHydra.instance().config_loader(), master, typed, run=run), [run])


def _preview(plain: dict[str, Any], chosen: dict[str, Any]) -> None:
    """Print the run that the command would train."""
    from genbench.runs import plan
    from genbench.runs.results import final_record

    planned = plan.plan(plain, choices=chosen)
    there = final_record(planned.folder) is not None
    plan.check(plain, planned.datamodule)
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
    """Write and print the tables of the experiments that this command swept; return 1 if one of their runs failed."""
    from genbench.runs import sweep_plan

    if not sweep_plan.SWEPT:
        return 0
    from rich.console import Console

    from genbench import records, report

    failed = False
    for folder, chosen in sweep_plan.SWEPT.items():
        if not any(folder.glob(f"*/{records.RECORD}")):  # interrupted before the first run ended
            continue
        try:
            found = report.Report(folder, trust=True)  # this command has checked its claims with their rules
            if not any(run.record for run in found.selection.runs):  # this command began no run
                failed = True
                continue
            found.write()  # before printing, which may fail or be interrupted
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


def with_help(message: str, flags: Sequence[str], command: str) -> str:
    """An error of argparse with the flag that an unknown one resembles, or the command that lists the flags."""
    start, unrecognized, words = message.partition("unrecognized arguments: ")
    unknown = [word for word in words.split() if word.startswith("-")]  # argparse adds the settings behind them
    message = start + unrecognized + (" ".join(unknown) or words)
    hint = nearest(unknown[0].partition("=")[0], flags) if unknown else ""
    return f"{message}; {hint if hint.startswith('did') else f'see {command} --help'}"


def _report_errors(function: Callable[[], Any]) -> Any:
    """Call ``function``; print an error as one line on standard error, unless HYDRA_FULL_ERROR=1."""
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
    """Return the name of the configuration of this command."""
    return "measure" if "measure" in Path(sys.argv[0]).stem else "train"
