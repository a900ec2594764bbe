"""The console commands."""

import contextlib
import difflib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_TRAIN = """\
genbench trains networks under competing regularizations and says what made them generalize.

Examples
  genbench regularization=dropout model=cnn
  genbench -m regularization=none,l2,[l2,mixup] 'seed=range(5)'
  genbench experiment=ablation logger=[csv,wandb]
  genbench-table runs/ablation        the table of a finished or running sweep
  genbench-measure checkpoint=runs/ablation/RUN_ID measures=full

Settings are key=value: a choice of a group below, or any key that --cfg job prints.
  -m: a sweep, values separated by commas    --cfg job: the configuration    --config-dir DIR: your own files
  --hydra-help: all flags, shell completion among them"""

_MEASURE = """\
genbench-measure measures a trained network: a table here, measures.{json,csv,html} beside its checkpoint.

Examples
  genbench-measure checkpoint=runs/ablation/RUN_ID                    a run: model and data are its own
  genbench-measure checkpoint=runs/ablation/RUN_ID measures=full split=test
  genbench-measure checkpoint=weights.pt model=mlp data=mnist1d       a state dict, or a checkpoint of Lightning's
  genbench-measure checkpoint=net.ckpt model._target_=my_package.Net model.width=64 data=digits

Settings are key=value: a choice of a group below, or any key that --cfg job prints (split, examples, loss, output, …).
  --cfg job: the configuration    --config-dir DIR: your own files"""


def train() -> None:
    """``genbench``: train one run, or with ``-m`` or an experiment a sweep, and print its table."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(_help(_TRAIN, arguments))
        return
    status = _hydra("train", _task)
    sys.exit(max(status, _show_sweep()))


def measure() -> None:
    """``genbench-measure``: measure a network that is trained already, and print its table."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(_help(_MEASURE, arguments, shown=("data", "model", "measures")))
        return
    # a network of one's own has settings that no YAML lists; a misspelt one is refused when it is bound
    own = ("data.", "model.")
    sys.argv[1:] = [f"++{word}" if word.startswith(own) and "=" in word else word for word in arguments]
    sys.exit(_hydra("measure", _measure_task))


def _hydra(name: str, task: Callable[[Any], None]) -> int:
    """Compose the configuration ``name`` from the arguments and call the task; the exit status."""
    import hydra
    from hydra._internal import utils

    from genbench import config

    utils.run_and_report = _report_errors  # type: ignore[assignment]  # Hydra's own prints tracebacks
    try:
        hydra.main(config_path=str(config.folder()), config_name=name, version_base="1.3")(task)()
    except BrokenPipeError:  # the reader, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


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
    from omegaconf import OmegaConf
    from rich.console import Console

    with _without_collecting():
        from genbench import measuring
        from genbench.report import estimates

    def task() -> None:
        missing = OmegaConf.missing_keys(cfg)
        if "checkpoint" in missing:
            raise ValueError("checkpoint is not given; accepted: checkpoint=a run's folder, or a file of weights")
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        measured = measuring.run(plain)
        console = Console()
        console.print(estimates.terminal(measured.title, measured.estimates))
        for path in measured.files:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)

    _report_errors(task)


def _task(cfg: Any) -> None:
    """One run in this process: what Hydra calls without a sweep, and launchers other than ours for each job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    with _without_collecting():
        from genbench import experiment, sweep

    # errors are reported here: Hydra would print a traceback before it passes them on
    plain = _report_errors(lambda: OmegaConf.to_container(cfg, resolve=True))
    chosen = sweep.choices(HydraConfig.get().runtime.choices)
    typed = list(HydraConfig.get().overrides.task)
    record = _report_errors(lambda: experiment.run(plain, choices=chosen, typed=typed))
    if record is None:  # the first of the processes that torchrun has started shows it
        return
    folder = Path(plain["runs_dir"]) / plain["name"]
    alone = HydraConfig.get().mode == RunMode.RUN
    own = HydraConfig.get().runtime.choices["hydra/launcher"] == "basic"  # Hydra's, which stays in this process
    if plain["name"] == "default" if alone else own:  # unnamed runs are one command's; named ones stand together
        run = {"run_id": record["run_id"], "overrides": typed}
        _report_errors(lambda: sweep.write_plan(folder, plain, command=sys.argv[1:], runs=[run]))
    if alone:
        _show_run(record, folder / record["run_id"])
        if record["status"] != "completed":
            raise SystemExit(1)
    else:
        sweep.SWEPT[folder] = plain["logger"]


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
    from genbench import sweep

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


def _report_errors(function: Callable[[], Any]) -> Any:
    """Run what Hydra runs; an error becomes one line on standard error, unless HYDRA_FULL_ERROR=1."""
    from genbench.privacy import shorten

    command = {"train": "genbench", "measure": "genbench-measure"}[_root()]
    try:
        return function()
    except KeyboardInterrupt:
        print(f"{command}: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"{command}: {shorten(_explain(error))}", file=sys.stderr)
        sys.exit(1)


def _explain(error: Exception) -> str:
    """One line that names the value and what is accepted."""
    import re

    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from genbench.checks import nearest

    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, ValueError) and not isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(lines)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {Path(error.filename).name}' if error.filename else ''}"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return f"{type(error).__name__}: {' '.join(lines)[:300]} (HYDRA_FULL_ERROR=1 shows where)"
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = lines[
            1 + next((i for i, line in enumerate(lines) if line.startswith("Available options")), len(lines)) :
        ]
        options = [line for line in options if " " not in line]
        return f"{found[1]}={found[2]}: no such choice; {nearest(found[2], options)}" + (
            f" (accepted: {', '.join(options)})" if difflib.get_close_matches(found[2], options, 1) else ""
        )
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]} is not a setting; {nearest(found[1], _keys())}"
    if found := re.search(r"Key '([^']+)' (?:not in|is not in)", text):
        return f"{found[1]} is not a setting; {nearest(found[1], _keys())}"
    if (found := re.search(r"Error merging override (.+)", text)) and error.__cause__:
        return f"{found[1]}: {str(error.__cause__).splitlines()[0]}"
    if found := re.search(r"LexerNoViableAltException: (.+)", text):
        return f"{found[1]} cannot be read; put values with special characters in quotes: 'key=\"value\"'"
    if text.startswith("Config group override must be"):
        return f"{lines[0]}; accepted: a choice of the group, as genbench --help lists them"
    key = re.search(r"full_key: (\S+)", text)
    first = lines[0] if lines else type(error).__name__
    return f"{key[1]}: {first}" if key and key[1] not in first else first


def _keys() -> list[str]:
    """Every key that can be set, for "did you mean"."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from genbench.config import folder, leaves

    GlobalHydra.instance().clear()
    methods = sorted(path.stem for path in (folder() / "regularization").glob("*.yaml"))
    chosen = {"train": [f"regularization=[{','.join(methods)}]"], "measure": ["data=mnist1d", "model=mlp"]}
    with initialize_config_dir(str(folder()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose(_root(), chosen[_root()]))
    keys = [key for key, _ in leaves(plain)]
    groups = [path.name for path in folder().iterdir() if path.is_dir() and (_root() == "train" or path.name in plain)]
    if _root() == "train":
        launchers = [OmegaConf.load(path) for path in (folder() / "hydra" / "launcher").glob("*.yaml")]
        settings = {str(key) for launcher in launchers for key in launcher} - {"_target_", "defaults"}
        keys += [f"hydra.launcher.{key}" for key in settings]
    return sorted({*keys, *groups})


def _root() -> str:
    """The configuration of this command."""
    return "measure" if "measure" in Path(sys.argv[0]).stem else "train"


def _help(about: str, arguments: list[str], shown: tuple[str, ...] | None = None) -> str:
    """What a command does, its groups and choices; no heavy import, so that it answers at once."""
    from genbench.config import folder

    places = [folder()]
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, inline = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            places.append(Path(inline or value))
    lines = [about]
    groups: dict[str, dict[str, str]] = {}
    for place in places:
        for path in sorted(place.rglob("*.yaml")):
            group = path.parent.relative_to(place).as_posix()
            if group != "." and (shown is None or group in shown):
                groups.setdefault(group, {})[path.stem] = _first_comment(path)
    for group, choices in groups.items():
        lines += ["", group]
        width = max(len(name) for name in choices)
        lines += [f"  {name:<{width}}  {about}".rstrip() for name, about in choices.items()]
    return "\n".join(lines)


def _first_comment(path: Path) -> str:
    for line in path.read_text().splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
        if not line.startswith("#"):
            break
    return ""


def table() -> None:
    """``genbench-table``: print the table of a folder of runs, and write the files of its report."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
            sys.exit(1)

    parser = Parser(
        prog="genbench-table",
        description="Print the table of an experiment; write table.{md,tex,csv} and report.html beside its runs.",
        epilog="example: genbench-table runs/ablation --status",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="folder", help="an experiment's: runs/ablation, say")
    parser.add_argument(
        "--all", action="store_true", help="all runs of the folder, not those of the last command alone"
    )
    parser.add_argument("--status", action="store_true", help="how many runs are done, running, failed, missing")
    parser.add_argument("--dashboard", action="store_true", help="create or update the W&B workspace")
    parser.add_argument(
        "--strategies", action="store_true", help="a page (Markdown): what each is and did in the folders"
    )
    kinds = ("terminal", "markdown", "latex", "csv", "html")
    parser.add_argument("--format", choices=kinds, default="terminal", help="others than terminal write no files")
    arguments = parser.parse_args()
    try:
        for folder in arguments.folders:
            _check_folder(folder)
        if arguments.strategies:
            _strategies(arguments.folders)
        for folder in [] if arguments.strategies else arguments.folders:
            _table(folder, arguments)
    except BrokenPipeError:  # the reader, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        expected = isinstance(error, ValueError) or type(error).__name__ == "DashboardError"
        print(f"genbench-table: {text if expected else f'{type(error).__name__}: {text}'}", file=sys.stderr)
        sys.exit(1)


def _check_folder(folder: Path) -> None:
    """Refuse what holds no runs."""
    from genbench import records

    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; accepted: an experiment's folder, such as runs/ablation")
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
