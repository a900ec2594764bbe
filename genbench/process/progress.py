"""Progress: a training run notes it in its folder, a command shows it."""

import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.privacy import clean

if TYPE_CHECKING:
    from rich.console import Console

FILE = "progress.json"
NOTED = 1.0  # seconds between two notes
SHOWN = 0.5  # seconds between two looks at them
LINES = 30.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True)
class Note:
    """The progress of a run: its activity, step, number of steps, training loss and steps a second."""

    doing: str
    step: int = 0
    steps: int = 0
    loss: float | None = None
    rate: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds of training that are left."""
        return (self.steps - self.step) / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        if not self.steps or self.doing != "training":
            return self.doing
        parts = [f"step {self.step:,} of {self.steps:,}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3g}")
        if self.left is not None:
            parts += [f"{self.rate:.3g} steps/s", f"about {duration(self.left)} left"]
        return ", ".join(parts)


class Pace:
    """Writes a note about once a second to a file in the folder of a run.

    Between two notes a step only reads the clock; the loss is read once a note, as a GPU has to wait for it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.whose = ""  # in a pack, the run that the note is about
        self._due = 0.0
        self._seen: deque[tuple[float, int]] = deque(maxlen=10)  # when which step was done
        self._last = Note("starting")
        self._write()

    def look(self, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Note a finished step of ``steps``; ``loss`` computes the training loss when a note is due."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + NOTED
        self._seen.append((now, step))
        (then, before), value = self._seen[0], loss()
        rate = (step - before) / (now - then) if now > then else 0.0
        self._last = Note("training", step, steps, value if abs(value) < float("inf") else None, rate)
        self._write()

    def say(self, doing: str) -> None:
        """Note the present activity, in training or afterwards."""
        self._last = Note(f"{self.whose}{doing}", self._last.step, self._last.steps)
        self._due = 0.0
        self._write()

    def end(self) -> None:
        """Remove the note: the run has ended or was interrupted."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        # not synced, as it is worth nothing afterwards; never through a link
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
            with os.fdopen(file, "w") as out:
                out.write(json.dumps(asdict(self._last)))


def read(folder: Path, *, since: float = 0.0) -> Note | None:
    """Return the last note of a run; None if it is older than ``since`` (``time.time``), as of a killed run."""
    path = folder / FILE
    try:
        if path.is_symlink() or path.stat().st_mtime < since - 1 or path.stat().st_size > 4096:
            return None
        note = Note(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    numbers = (note.step, note.steps, note.rate, note.loss or 0)
    return note if isinstance(note.doing, str) and all(isinstance(each, int | float) for each in numbers) else None


def console() -> "Console":
    """Return a console on standard error; if its reader leaves, no run ends."""
    from rich.console import Console

    class Errors(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Errors(file=sys.stderr)


@contextlib.contextmanager
def shown(folder: Path) -> Iterator[None]:
    """Show the progress of the run in a folder: a bar on a terminal, removed at the end; else a line now and then."""
    out, ended = console(), threading.Event()
    follow = _bar_of if out.is_terminal else _lines_of
    thread = threading.Thread(target=follow, args=(folder, out, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)


@contextlib.contextmanager
def saying() -> Iterator[Callable[..., None]]:
    """Yield a function that shows a message: on a terminal one line that is removed at the end, else a line now and
    then; ``urgent`` messages are shown at once."""
    out = console()
    if out.is_terminal:
        with out.status("") as status:
            yield lambda line, urgent=False: status.update(clean(line))
        return
    last = time.monotonic()

    def say(line: str, urgent: bool = False) -> None:
        nonlocal last
        if urgent or time.monotonic() > last + LINES:
            last = time.monotonic()
            out.print(clean(line), highlight=False, markup=False, soft_wrap=True)

    yield say


def _bar_of(folder: Path, out: "Console", ended: threading.Event) -> None:
    from rich.progress import BarColumn, Progress, TextColumn

    since = time.time()
    bar = Progress(BarColumn(bar_width=20), TextColumn("{task.description}"), console=out, transient=True)
    task = bar.add_task("starting", total=None)
    with bar:
        while not ended.wait(SHOWN):
            if note := read(folder, since=since):
                bar.update(task, total=note.steps or None, completed=note.step, description=clean(note))


def _lines_of(folder: Path, out: "Console", ended: threading.Event) -> None:
    since = time.time()
    while not ended.wait(LINES):
        if note := read(folder, since=since):
            out.print(clean(note), highlight=False, markup=False, soft_wrap=True)


class Sweep:
    """Shows the progress of a sweep: one bar over its runs and a line for each finished run; without a terminal a line
    now and then instead of the bar.

    Args:
        total, done: number of runs, and of those that existed before.
        each: whether every finished run has a line; else those that failed.
    """

    def __init__(self, *, total: int, done: int, each: bool = True) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("runs"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console(),
        )
        self._task = self._bar.add_task("runs", total=total, completed=done, state="")
        self._total, self._already, self._failed, self._diverged = total, done, 0, 0
        self._each = each
        self._running, self._due = 0, False
        self._started = self._line = time.monotonic()

    def __enter__(self) -> "Sweep":
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def update(self, running: Sequence[tuple[int, Note | None]], *, waiting: int) -> None:
        """Show the running units, each as its number of runs and its note; ``waiting`` units have not begun."""
        self._running = sum(runs for runs, _ in running)
        notes = [(runs, note) for runs, note in running if note is not None]
        done = self._bar.tasks[0].completed
        partly = sum(runs * note.step / note.steps for runs, note in notes if note.steps)
        left = None
        if done > self._already:
            pace = (done - self._already + partly) / (time.monotonic() - self._started)
            left = (self._total - done - partly) / pace
        elif not waiting and notes:
            left = max((note.left for _, note in notes if note.left is not None), default=None)
        diverged = f", {self._diverged} diverged" if self._diverged else ""
        state = [f"{self._running} running, {self._failed} failed{diverged}"]
        if notes:
            state.append(str(notes[0][1]).partition(", about")[0] if left else str(notes[0][1]))
        if left:
            state.append(f"about {duration(left)} left")
        self._bar.update(self._task, state=clean(" · ".join(state)))
        self._due |= time.monotonic() > self._line + LINES
        if self._due and not self._bar.console.is_terminal:
            self._due = False
            self.say(f"{done:.0f} of {self._total} runs done, {' · '.join(state)}", style=None)

    def say(self, line: str, *, style: str | None = "yellow") -> None:
        """Print a line above the bar."""
        self._print(clean(line), style)

    def _print(self, line: str, style: str | None) -> None:
        self._line = time.monotonic()
        self._bar.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    def finished(self, label: str, *, status: str, result: str, seconds: float | None) -> None:
        """Count a finished run, and print its line."""
        self._failed += status not in ("completed", "diverged")
        self._diverged += status == "diverged"
        self._bar.advance(self._task)
        took = f"  {seconds:.1f} s" if seconds is not None else ""
        if self._each or status != "completed":
            self._print(f"{clean(label)}  {clean(result)}{took}", None if status == "completed" else "red")
        self._due |= self._bar.tasks[0].completed == self._already + 1  # of the first, for an early estimate


def duration(seconds: float) -> str:
    """Format seconds for people."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
