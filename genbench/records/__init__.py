"""What a finished run leaves behind: atomic write, strict read, a directory of records."""

import errno
import hashlib
import io
import json
import math
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from filelock import FileLock, Timeout

from genbench.privacy import clean as clean
from genbench.privacy import shared
from genbench.process import leftovers
from genbench.records import ownership

if TYPE_CHECKING:
    import pandas as pd

    from genbench.records.estimate import Estimate

SCHEMA = 3
READABLE = (2, 3)
RECORD = "record.json"
SWEEP = "sweep.json"
LOCK = ".lock"
FILES = ("history.csv", "weights.pt", "initial.pt")
STATUSES = ("completed", "diverged", "failed")
LIMIT = 2**28
"""Bytes of a JSON or CSV file that is read; weights may have any size."""
SCALE_FREE = "normalization makes the loss indifferent to the scale of the weights"
"""The alteration (see ``altered`` of a record) after which norms of weights mean as little as raw curvature."""
SEARCH = "search: "
"""Begins the part of a note that tells how a search went: ``converged`` sums it up, so it is no footnote of a table."""

_NUMBER = (int, float)
_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "run_id": (str,),
    "experiment": (str,),
    "status": (str,),
    "error": (str, _NONE),
    "config": (dict,),
    "choices": (dict,),
    "altered": (dict,),
    "seed": (int,),
    "metrics": (dict,),
    "stderr": (dict,),
    "converged": (dict,),
    "residual": (dict,),
    "interval": (dict,),
    "notes": (dict,),
    "history": (str, _NONE),
    "provenance": (dict,),
    "seconds": (dict,),
    "measure_seconds": (dict,),
    "files": (dict,),
}
# what the values of the flat parts of a record may be
_VALUES: dict[str, tuple[type, ...]] = {
    "metrics": (*_NUMBER, _NONE),
    "stderr": (*_NUMBER, _NONE),
    "converged": (bool,),
    "residual": (*_NUMBER, _NONE),
    "altered": (str,),
    "notes": (str,),
    "seconds": (*_NUMBER, _NONE),
    "measure_seconds": _NUMBER,
    "files": (str,),
}
_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a number", bool: "true or false", _NONE: "null"}


class RecordError(Exception):
    """A record (or sweep plan) that cannot be trusted; the message is one line and says why."""


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """A regular file, or a link to one, open for reading: a pipe would be waited for, a device never end.

    Raises ``OSError``.
    """

    def check(about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))

    check(os.stat(path))  # beforehand, as to open a device may already do something
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        check(os.fstat(file.fileno()))  # that it is still the same
        yield file


def read_bytes(path: str | os.PathLike[str], *, limit: int = LIMIT) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; raises ``OSError``."""
    with opened(path) as file:
        # not limit + 1 at once: so much memory would be asked for, whatever the file's size
        content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit:,} bytes", os.fspath(path))
    return content


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that replaces ``path`` when the block ends well, and leaves no trace when it does not.

    Staged beside the target (another filesystem could not rename), synced, renamed, and the folder synced: after a
    kill or a power cut ``path`` holds either the old or the new content, whole; what is then left of the stage goes
    with :func:`tidy`. A link at ``path`` is replaced, and what it leads to stays as it is.
    """
    path = Path(path)
    with _stage(path) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _stage(path: Path) -> BinaryIO:
    """A new file beside ``path``, held while it is open."""
    while True:
        file = open(path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp", "xb")  # noqa: SIM115 - who asked closes it
        if leftovers.hold(file.fileno(), Path(file.name)):
            return file
        file.close()


def tidy(folder: str | os.PathLike[str], *, runs: bool) -> None:
    """Remove what killed processes were writing in ``folder``, with ``runs`` in the folders within it too."""
    folder = Path(folder)
    leftovers.remove(folder.glob(".*.tmp"))
    if runs:
        leftovers.remove(folder.glob("*/.*.tmp"))


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` through :func:`atomic`."""
    with atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value`` (sorted keys, no spaces), in hex.

    >>> digest({"b": 1, "a": 2.5}) == digest({"a": 2.5, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hex."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: str | os.PathLike[str], record: dict[str, Any]) -> dict[str, Any]:
    """Write ``record`` to ``folder/record.json`` and return it as written.

    What must not be shared is shortened (:func:`genbench.privacy.shared`). Adds ``files`` (digests of the history,
    final and initial weights that lie in ``folder``), ``digest`` and ``mark``, by which its owner knows it again
    (:mod:`genbench.records.ownership`).
    Raises ``ValueError`` naming the key when a value is not JSON, not finite, missing or of the wrong type.
    """
    folder = Path(folder)
    record = shared(_content(record))
    record["files"] = {name: file_digest(folder / name) for name in FILES if (folder / name).is_file()}
    _check_json(record, "")
    if reason := _fault(record):
        raise ValueError(f"record of {record.get('run_id', folder.name)}: {reason}")
    record["digest"] = digest(record)
    record["mark"] = ownership.of(record["digest"])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record in the file ``path`` (or in the run's folder ``path``).

    Raises ``RecordError`` (one line) when it is absent, truncated, foreign, of another schema, or altered.
    """
    path = Path(path)
    record = _parse(path / RECORD if path.is_dir() else path)
    if reason := _fault(record):
        raise RecordError(reason)
    _check_digest(record)
    return _held(record)


def is_own(record: Mapping[str, Any]) -> bool:
    """Whether this user has written a record that :func:`read` has read: it has the mark of the user's key."""
    return ownership.is_own(record["digest"], record.get("mark"))


def _content(value: Mapping[str, Any]) -> dict[str, Any]:
    """What the digest is of."""
    return {key: item for key, item in value.items() if key not in ("digest", "mark")}


def _check_digest(value: Mapping[str, Any]) -> None:
    found = value.get("digest")
    if not isinstance(found, str):
        raise RecordError("has no digest")
    try:
        expected = digest(_content(value))
    except ValueError:  # 1e999, which JSON allows
        raise RecordError("holds a number that is not finite") from None
    if found != expected:
        raise RecordError("digest does not match: the content was altered")


def _held(record: dict[str, Any]) -> dict[str, Any]:
    """The record without the integers that no float holds, 10⁴⁰⁰ say, which would end whatever computes with them."""
    for part in ("metrics", "stderr", "residual", "interval", "seconds", "measure_seconds"):
        for key, value in list(record[part].items()):
            if all(map(_is_held, value if isinstance(value, list) else [value])):
                continue
            if part in ("metrics", "seconds"):
                record[part][key] = None
                record["notes"][key if part == "metrics" else f"seconds.{key}"] = (
                    "the value is beyond what a float holds"
                )
            else:
                del record[part][key]
    return record


def _is_held(value: float | None) -> bool:
    return value is None or abs(value) <= sys.float_info.max


def verify(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The record of a run's folder, after checking that it belongs there and that the files beside it are intact.

    Raises ``RecordError`` (one line).
    """
    folder = Path(folder)
    record = _read_own(folder)
    for name, expected in record["files"].items():
        if not (folder / name).is_file():
            raise RecordError(f"{name} is missing")
        if file_digest(folder / name) != expected:
            raise RecordError(f"{name} is damaged: its digest does not match")
    return record


def history(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> "pd.DataFrame":
    """The epochs of a run (one row each) from ``folder/<history>``; raises ``RecordError`` when damaged or absent."""
    import pandas as pd

    name = record["history"]
    if name is None:
        raise RecordError("has no history")
    try:
        content = read_bytes(Path(folder) / Path(name).name)
    except FileNotFoundError:
        raise RecordError(f"{name} is missing") from None
    except OSError as error:
        raise RecordError(f"{name} cannot be read: {error.strerror}") from None
    if name in record["files"] and hashlib.sha256(content).hexdigest() != record["files"][name]:
        raise RecordError(f"{name} is damaged: its digest does not match")
    return pd.read_csv(io.BytesIO(content))


@dataclass(frozen=True)
class Records:
    """The records of one experiment's folder.

    ``records`` are the valid ones sorted by run_id, ``problems`` the others as (relative path, reason), ``sweep`` the
    plan of the last sweep command (``None`` without one).
    """

    folder: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    sweep: dict[str, Any] | None = None

    def frame(self) -> "pd.DataFrame":
        """One row a record: run_id, status, error, seed, ``choices.*``, ``config.*``, metric keys, ``seconds.*``."""
        import pandas as pd

        return pd.DataFrame([_flat(record) for record in self.records])


def estimates(record: Mapping[str, Any]) -> "dict[str, Estimate]":
    """The metrics of a record as estimates, by metric key."""
    from genbench.records.estimate import Estimate

    parts = {"stderr": "stderr", "converged": "converged", "residual": "residual", "notes": "note"}
    found = {}
    for key, value in record["metrics"].items():
        ends = record["interval"].get(key)
        found[key] = Estimate(
            value,
            interval=None if ends is None else (ends[0], ends[1]),
            seconds=record["measure_seconds"].get(key, 0.0),
            **{name: record[part].get(key) for part, name in parts.items()},
        )
    return found


def load(folder: str | os.PathLike[str]) -> Records:
    """All records of ``runs/<experiment>``; what cannot be trusted is listed in ``problems``."""
    folder = Path(folder)
    valid: list[dict[str, Any]] = []
    problems: list[tuple[str, str]] = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            valid.append(_read_own(path.parent))
        except RecordError as error:
            problems.append((f"{path.parent.name}/{RECORD}", str(error)))
    sweep = None
    if (folder / SWEEP).exists():
        try:
            sweep = read_sweep(folder)
        except RecordError as error:
            problems.append((SWEEP, str(error)))
    return Records(folder, sorted(valid, key=lambda record: record["run_id"]), problems, sweep)


def configuration(config: Mapping[str, Any]) -> str:
    """Digest of what runs of one cell of a table have in common: the configuration but the seeds in it.

    All of them: which are the run's own does not show, as a measure's is 0 whatever the run's."""

    def without(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {key: without(value) for key, value in node.items() if key != "seed"}
        return [without(value) for value in node] if isinstance(node, list | tuple) else node

    return digest(without(shared(config)))[:12]


def earlier_code(loaded: Records) -> set[str]:
    """The ids of records whose configuration was trained, or is planned, with later code of the user's own.

    Of several codes of a configuration the one counts that was planned or finished last; records of schema 2, which
    name none, are the earliest.
    """
    plan = loaded.sweep or {}
    codes = [record["provenance"].get("code") for record in loaded.records]
    planned = [(run.get("configuration"), run.get("code"), plan.get("planned")) for run in plan.get("runs", [])]
    if not any(codes) and not any(code for _, code, _ in planned):
        return set()
    keys = [configuration(record["config"]) for record in loaded.records]
    times = [record["provenance"].get("finished") for record in loaded.records]
    last: dict[Any, tuple[str, Any]] = {}
    for key, code, when in [*zip(keys, codes, times, strict=True), *planned]:
        if (when := str(when or "")) >= last.get(str(key), ("", None))[0]:
            last[str(key)] = when, code
    return {
        record["run_id"] for record, key, code in zip(loaded.records, keys, codes, strict=True) if last[key][1] != code
    }


def status(folder: str | os.PathLike[str]) -> dict[str, str]:
    """run_id → done, diverged, running, failed, missing (planned, no record) or damaged, in the sweep's order.

    A run is running while the lock ``<run_id>/.lock`` is held. Asking never waits and creates nothing, but holds the
    lock of an unfinished run for an instant: who wants to train it must allow for that when acquiring.
    """
    folder = Path(folder)
    try:
        planned = [run["run_id"] for run in read_sweep(folder)["runs"]]
    except RecordError:
        planned = []
    found = sorted(path.parent.name for name in (RECORD, LOCK) for path in folder.glob(f"*/{name}"))
    result = {}
    for run_id in dict.fromkeys([*planned, *found]):
        state = _state(folder / run_id)
        if state != "missing" or run_id in planned:
            result[run_id] = state
    return result


def read_sweep(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The plan of the last sweep command in ``runs/<experiment>``; raises ``RecordError`` when absent, malformed or
    altered."""
    sweep = _parse(Path(folder) / SWEEP)
    if sweep.get("schema") not in READABLE:
        accepted = " and ".join(map(str, READABLE))
        raise RecordError(f"has schema {sweep.get('schema')!r}, this version reads {accepted}")
    if sweep["schema"] < 3:
        sweep = shared(sweep)
    else:
        _check_digest(sweep)
    runs = sweep.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, dict) and _is_name(run.get("run_id")) for run in runs):
        raise RecordError("'runs' must be a list of objects with a run_id")
    if not isinstance(sweep.get("table"), dict | None):
        raise RecordError("'table' must be an object or null")
    if not isinstance(sweep.get("command"), list):
        raise RecordError("'command' must be a list of strings")
    return sweep


def write_sweep(folder: str | os.PathLike[str], sweep: dict[str, Any]) -> None:
    """Write the plan of a sweep to ``runs/<experiment>/sweep.json``, without what must not be shared, with a digest."""
    sweep = shared({**_content(sweep), "schema": SCHEMA})
    _check_json(sweep, "")
    sweep["digest"] = digest(sweep)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_atomic(Path(folder) / SWEEP, json.dumps(sweep, indent=1, allow_nan=False) + "\n")


def _state(folder: Path) -> str:
    state = "missing"
    if (folder / RECORD).exists():
        try:
            record = verify(folder)
        except RecordError:
            state = "damaged"
        else:
            state = {"completed": "done"}.get(record["status"], record["status"])
    return "running" if state in ("missing", "failed", "damaged") and running(folder) else state


def running(folder: str | os.PathLike[str]) -> bool:
    """Whether somebody trains the run in ``folder`` now, that is, holds its lock."""
    folder = Path(folder)
    if not (folder / LOCK).exists():  # acquiring would create it
        return False
    try:
        with FileLock(folder / LOCK, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that only its owner may lock
        return False


def _read_own(folder: Path) -> dict[str, Any]:
    record = read(folder / RECORD)
    if record["run_id"] != folder.resolve().name:
        raise RecordError(f"belongs to run {record['run_id']}, not to this folder")
    return record


def _parse(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    content = b""
    try:
        content = read_bytes(path)
        value = json.loads(content, parse_constant=refuse)
    except FileNotFoundError:
        raise RecordError("is missing") from None
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        reason = "empty" if not content else f"truncated or not JSON ({error})"
        raise RecordError(f"is {reason}") from None
    if not isinstance(value, dict):
        raise RecordError(f"is not a JSON object but {_name(value)}")
    return value


def _fault(record: dict[str, Any]) -> str | None:
    """What is wrong with the form of a record, in one line."""
    if "schema" not in record:
        return "has no schema: not a record of genbench"
    if record["schema"] not in READABLE:
        return f"has schema {record['schema']!r}, this version reads {' and '.join(map(str, READABLE))}"
    for key, types in _TYPES.items():
        if key not in record:
            return f"has no {key!r}"
        value = record[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            return f"{key!r} must be {' or '.join(_NAMES[t] for t in types)}, is {_name(value)}"
    if record["status"] not in STATUSES:
        return f"'status' must be one of {', '.join(STATUSES)}, is {record['status']!r}"
    if not _is_name(record["run_id"]):
        return f"'run_id' must be a folder's name, is {record['run_id']!r}"
    for part, types in _VALUES.items():
        for key, value in record[part].items():
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                accepted = " or ".join(dict.fromkeys(_name_of(t) for t in types))
                return f"{part}[{key!r}] must be {accepted}, is {_name(value)}"
    for key, ends in record["interval"].items():
        if not (isinstance(ends, list | tuple) and len(ends) == 2 and all(_is_number(end) for end in ends)):
            return f"interval[{key!r}] must be a list of two numbers, is {ends!r}"
        if ends[0] > ends[1]:
            return f"interval[{key!r}] must be [low, high], is {list(ends)!r}"
    for part in ("stderr", "converged", "residual", "interval", "measure_seconds"):
        if strange := sorted(record[part].keys() - record["metrics"].keys()):
            return f"{part}[{strange[0]!r}] belongs to no metric"
    if strange := [name for name in record["files"] if not _is_name(name)]:
        return f"'files' must name files of the run's folder, not {strange[0]!r}"
    return None


def _is_name(value: Any) -> bool:
    """Whether ``value`` is a plain file name, so that joining it to a folder stays inside the folder."""
    return isinstance(value, str) and value not in ("", ".", "..") and not any(c in value for c in "/\\\0")


def _check_json(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{key or 'record'}: keys must be strings, not {name!r}")
            _check_json(item, f"{key}[{name!r}]" if key else name)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{key}[{index}]")
    elif type(value) is float and not math.isfinite(value):
        raise ValueError(f"{key} is {value}: a record holds finite numbers, or null with a note that says why")
    elif type(value) not in (str, int, float, bool, _NONE):
        raise ValueError(f"{key} is a {type(value).__name__}: a record holds plain JSON values")


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool)


def _name(value: Any) -> str:
    return _name_of(type(value))


def _name_of(kind: type) -> str:
    return "a number" if kind is float else _NAMES.get(kind, kind.__name__)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    row = {key: record[key] for key in ("run_id", "experiment", "status", "error", "seed")}
    for part in ("choices", "config", "seconds"):
        row |= flatten(record[part], part)
    return row | record["metrics"]


def members(bound: Mapping[str, Any]) -> int:
    """The networks that a run of this configuration trains side by side."""
    return max([1, *(node.get("members", 1) for node in (bound.get("regularization") or {}).values())])


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level of dotted keys; lists become text joined by ``+``, empty ones "none".

    >>> flatten({"data": {"label_noise": 0.2}, "names": ["l2", "sam"]})
    {'data.label_noise': 0.2, 'names': 'l2+sam'}
    """
    flat: dict[str, Any] = {}
    _flatten(value, prefix, flat)
    return flat


def _flatten(value: Any, prefix: str, flat: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{prefix}.{key}" if prefix else key, flat)
    else:
        # one text for all of ten thousand records
        flat[sys.intern(prefix)] = ("+".join(map(str, value)) or "none") if isinstance(value, list | tuple) else value
