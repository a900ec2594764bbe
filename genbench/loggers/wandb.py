"""Weights & Biases: one W&B run for each run, and one for the report of a sweep.

Failures of W&B or of the network never stop or delay a run. W&B's files name no machine, path or key.
"""

import csv
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from pytorch_lightning.loggers import Logger

from genbench.checks import ConfigError, check_choice, check_number
from genbench.loggers.base import Part, RunInfo, check
from genbench.privacy import clean, shared

if TYPE_CHECKING:
    import wandb

PROJECT = "genbench"

_log = logging.getLogger(__name__)
_unreachable: set[str] = set()  # servers that did not answer; this process asks each only once


class WandbLogger(Logger):
    """Logs to a W&B run in runs/<experiment>/wandb, grouped by experiment, with the record's metric keys.

    Its id is derived from ours, so that a resumed run continues it. Its configuration is the record's, with the
    ``provenance``: versions, the commits of genbench and of the user's repository, and the typed overrides. ``wandb
    sync runs/<experiment>/wandb`` uploads what was logged offline.
    """

    def __init__(
        self,
        *,
        run: RunInfo,
        project: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        timeout: float = 5,
    ) -> None:
        super().__init__()
        own = {
            "experiment": run.experiment,
            "run_id": run.run_id,
            "seed": run.seed,
            "choices": dict(run.choices),
            # W&B groups by plain values, so the key "regularization" holds the methods' names
            "methods": run.config.get("regularization", {}),
            "regularization": run.regularization,
            "strategy": run.strategy,
            "provenance": dict(run.provenance),
        }
        self._run = _Guarded(
            Path(run.folder).parent,
            {"project": project, "entity": entity, "mode": mode, "tags": tags, "notes": notes, "timeout": timeout},
            id=_identity(run.experiment, run.run_id),
            name=run.name,
            group=run.experiment,
            job_type="train",
            config={**run.config, **own},
        )

        def use_epochs(run: "wandb.Run") -> None:
            run.define_metric("epoch")
            run.define_metric("*", step_metric="epoch")

        self._run.do(use_epochs)

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self._run.id

    @property
    def save_dir(self) -> str:
        return str(self._run.folder)

    @property
    def experiment(self) -> "wandb.Run | None":
        """The W&B run; None once W&B has failed."""
        return self._run.wandb

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the W&B run has the configuration."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        def send(run: "wandb.Run") -> None:
            # W&B already has the first steps of a resumed run, with the same numbers
            if step is None or step >= run.step:
                run.log(dict(metrics), step=step)

        self._run.do(send)

    def finish(self, record: Mapping[str, Any] | None) -> None:
        """Copy the record's final metrics, status and seconds to the summary, and end the W&B run."""
        record = record or {"status": "failed"}

        def summarize(run: "wandb.Run") -> None:
            seconds = {f"seconds/{key}": value for key, value in record.get("seconds", {}).items()}
            run.log({}, commit=True)  # else the last row, still open, would overwrite the summary
            final = {**record.get("metrics", {}), **seconds, "status": record["status"]}
            run.summary.update({key: value for key, value in final.items() if value is not None})

        self._run.do(summarize)
        self._run.finish(failed=record["status"] == "failed")


def add(parts: Mapping[str, Part], folder: Path, *, experiment: str, metrics: Mapping[str, float]) -> None:
    """Add metrics to the summary of the W&B run that mirrors the run in ``folder``, if wandb is among the loggers and
    the run has such a mirror."""
    for part in parts.values():
        own = _identity(experiment, folder.name)
        if _is_wandb(part) and any((folder.parent / "wandb").glob(f"*run-*-{own}")):
            settings = {key: part.keywords.get(key) for key in ("project", "entity", "mode")}
            run = _Guarded(folder.parent, {**settings, "timeout": part.keywords.get("timeout", 5)}, id=own)
            try:
                run.do(lambda run: run.summary.update(dict(metrics)))
            finally:
                run.finish(failed=False)


def check_adds(parts: Mapping[str, Part]) -> None:
    """Raise ConfigError for a logger that does not take what is measured after a run's end."""
    check(parts)
    if strange := [name for name, part in parts.items() if not _is_wandb(part)]:
        raise ConfigError(f"logger={strange[0]} does not take measures of finished runs; accepted: wandb")


def _is_wandb(part: Part) -> TypeGuard["partial[WandbLogger]"]:
    return isinstance(part, partial) and part.func is WandbLogger


def _identity(experiment: str, run_id: str) -> str:
    return re.sub(r"[^\w.-]", "-", f"{experiment}-{run_id}")


def log_report(parts: Mapping[str, Part], folder: str | Path, *, experiment: str) -> None:
    """Log table.csv, claims.csv and figures/*.png of runs/<experiment> to their own W&B run, if wandb is among the
    loggers."""
    for part in parts.values():
        if _is_wandb(part):
            _log_report(Path(folder), experiment, part.keywords)


def _log_report(folder: Path, experiment: str, settings: Mapping[str, Any]) -> None:
    run = _Guarded(
        folder,
        settings,
        id=_identity(experiment, "report"),
        name=f"report of {experiment}",
        group=experiment,
        job_type="report",
        config={"experiment": experiment},
    )

    def send(run: "wandb.Run") -> None:
        import wandb

        media: dict[str, Any] = {
            f"report/{path.stem}": wandb.Image(str(path), caption=path.stem)
            for path in sorted(folder.glob("figures/*.png"))
        }
        for path in (path for path in (folder / "table.csv", folder / "claims.csv") if path.exists()):
            with open(path, newline="") as file:
                columns, *rows = csv.reader(file)
            key = f"report/{path.stem}"
            table = media[key] = wandb.Table(columns=list[str | int](columns), data=list[Any](rows))
            # bind the table first, so that it stays a file of this run; otherwise W&B also makes an artifact in the
            # user's home, which names that path and is missing when the run is synced from elsewhere
            table.bind_to_run(run, key, run.step)
        run.log(media)

    try:
        run.do(send)
    finally:
        run.finish(failed=False)


class _Guarded:
    """A W&B run that logs one warning and gives up instead of raising."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], **identity: Any) -> None:
        check(["wandb"])
        self.folder = folder.absolute()
        self.wandb: wandb.Run | None = None
        mode = settings.get("mode")
        if mode is not None:
            check_choice("logger.wandb.mode", mode, ("online", "offline", "disabled"))
        tags, notes = settings.get("tags") or (), settings.get("notes")
        if isinstance(tags, str) or not all(isinstance(tag, str) and 1 <= len(tag) <= 64 for tag in tags):
            raise ValueError(f"logger.wandb.tags is {tags!r}; accepted: a list of words of 1 to 64 characters")
        if notes is not None and not isinstance(notes, str):
            raise ValueError(f"logger.wandb.notes is {notes!r}; accepted: a text, null")
        identity |= {"tags": shared(list(tags)) or None, "notes": shared(notes)}
        timeout = check_number("logger.wandb.timeout", settings.get("timeout", 5), low=0.1, high=60)
        self.id = identity["id"]
        try:
            self.wandb = self._start(settings, mode, timeout, identity)
        except Exception as error:
            self._give_up(error)

    def _start(
        self, settings: Mapping[str, Any], chosen: str | None, timeout: float, identity: dict[str, Any]
    ) -> "wandb.Run":
        import wandb

        common = wandb.setup(wandb.Settings(silent=True)).settings
        server = common.base_url
        mode: Any = chosen or (common.mode if "mode" in common.model_fields_set else "online")
        if mode not in ("offline", "dryrun", "disabled") and (server in _unreachable or not logged_in(server)):
            mode = "offline"
        start = partial(
            wandb.init,
            dir=str(self.folder),
            project=settings.get("project") or common.project or PROJECT,
            entity=settings.get("entity") or common.entity,
            resume="allow",
            reinit="create_new",  # never continue a run that was left open
            settings=_settings(timeout),
            **identity,
        )
        before = set(self._folders())
        try:
            return self._private(start(mode=mode))
        except Exception as error:
            if mode in ("offline", "dryrun", "disabled"):
                raise
            _unreachable.add(server)
            later = f"wandb sync {os.path.relpath(self.folder / 'wandb')}"
            _log.warning("W&B at %s did not answer (%s); upload later: %s", clean(server), _line(error), later)
            wandb.teardown()  # its service still holds the id of the failed run
            for empty in set(self._folders()) - before:
                shutil.rmtree(empty, ignore_errors=True)
            wandb.setup(wandb.Settings(silent=True))
            return self._private(start(mode="offline"))

    def do(self, action: Callable[["wandb.Run"], None]) -> None:
        """Run the action, unless W&B has failed before."""
        if self.wandb is not None:
            try:
                action(self.wandb)
            except Exception as error:
                self._give_up(error)

    def finish(self, *, failed: bool) -> None:
        if self.wandb is not None:
            try:
                self.wandb.finish(exit_code=int(failed))
            except Exception as error:
                self._give_up(error)
            self.wandb = None

    def _give_up(self, error: Exception) -> None:
        later = f"wandb sync --include-online {os.path.relpath(self.folder / 'wandb')}/*run-*-{self.id}"
        _log.warning("W&B failed and is left out (%s); what is on disk can be uploaded: %s", _line(error), later)
        self.wandb = None
        if not isinstance(error, TimeoutError):  # the service is gone: let the next run start another
            with suppress(Exception):
                import wandb

                wandb.teardown()

    def _folders(self) -> list[Path]:
        return list((self.folder / "wandb").glob(f"*run-*-{self.id}"))

    def _private(self, run: "wandb.Run") -> "wandb.Run":
        """Unlink the run's debug logs, which name paths; W&B keeps its own in the user's cache."""
        if run.dir:
            shutil.rmtree(Path(run.dir).parent / "logs", ignore_errors=True)
        return run


def _settings(timeout: float) -> "wandb.Settings":
    import wandb

    return wandb.Settings(
        # log nothing about the machine, the program or its code
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        label_disable=True,
        console="off",
        host="",
        program="",
        x_executable="",
        symlink=False,
        silent=True,
        # never wait for a network
        init_timeout=timeout,
        finish_timeout=timeout,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=1,
    )


def logged_in(server: str) -> bool:
    """Whether there are credentials for the server, without asking the server or the user."""
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        auth = wbauth.authenticate_session(host=server, source="genbench", prompt=False, update_session=False)
    except AuthenticationError as error:
        _log.warning("W&B cannot use the credentials for %s (%s)", clean(server), _line(error))
        return False
    return auth is not None


def _line(error: Exception) -> str:
    return clean((str(error) or type(error).__name__).splitlines()[0])
