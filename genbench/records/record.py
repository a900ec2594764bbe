"""One record: written with its digest, read strictly."""

import csv
import functools
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.privacy import clean, shared
from genbench.records import ownership
from genbench.records.estimate import Estimate
from genbench.records.files import digest, file_digest, read_bytes, write_atomic

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 3
READABLE = (2, 3)
RECORD = "record.json"
FILES = ("history.csv", "weights.pt", "initial.pt")
STATUSES = ("completed", "diverged", "failed")
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
# types of the values in the flat parts of a record
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


def write(folder: str | os.PathLike[str], record: dict[str, Any]) -> dict[str, Any]:
    """Write ``record`` to ``folder/record.json`` and return it as written.

    It removes what must not be shared (:func:`genbench.privacy.shared`) and adds ``files`` (digests of the history and
    of the final and initial weights in ``folder``), ``digest``, and the owner's ``mark``
    (:mod:`genbench.records.ownership`).

    Raises ``ValueError`` naming the key when a value is not JSON, not finite, missing or of the wrong type.
    """
    folder = Path(folder)
    record = shared(content_of(record))
    record["files"] = {name: file_digest(folder / name) for name in FILES if (folder / name).is_file()}
    check_json(record, "")
    if reason := _fault(record):
        raise ValueError(f"record of {record.get('run_id', folder.name)}: {reason}")
    record["digest"] = digest(record)
    record["mark"] = ownership.of(record["digest"])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the record in the file ``path``, or in the run's folder ``path``.

    Raises ``RecordError`` (one line) if it is absent, truncated, foreign, of another schema, or altered.
    """
    path = Path(path)
    record = parse(path / RECORD if path.is_dir() else path)
    if reason := _fault(record):
        raise RecordError(reason)
    check_digest(record)
    return _held(record)


def is_own(record: Mapping[str, Any]) -> bool:
    """Tell whether this user wrote a record that :func:`read` returned: it carries the mark of the user's key."""
    return ownership.is_own(record["digest"], record.get("mark"))


def content_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a record or plan that its digest covers."""
    return {key: item for key, item in value.items() if key not in ("digest", "mark")}


def check_digest(value: Mapping[str, Any]) -> None:
    found = value.get("digest")
    if not isinstance(found, str):
        raise RecordError("has no digest")
    try:
        expected = digest(content_of(value))
    except ValueError:  # 1e999, which JSON allows
        raise RecordError("holds a number that is not finite") from None
    if found != expected:
        raise RecordError("digest does not match: the content was altered")


def _held(record: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers beyond the range of a float, such as 10⁴⁰⁰, by null with a note."""
    for part in ("metrics", "stderr", "residual", "interval", "seconds", "measure_seconds"):
        for key, value in list(record[part].items()):
            if type(value) is float or all(map(_is_held, value if isinstance(value, list) else [value])):
                continue  # a float is finite, as its digest was taken
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
    """Read the record of a run's folder, and check that it belongs there and that the files beside it are intact.

    Raises ``RecordError`` (one line).
    """
    folder = Path(folder)
    record = read_run(folder)
    for name, expected in record["files"].items():
        if not (folder / name).is_file():
            raise RecordError(f"{name} is missing")
        if file_digest(folder / name) != expected:
            raise RecordError(f"{name} is damaged: its digest does not match")
    return record


def history(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> "pd.DataFrame":
    """Return the history of a run, one row an epoch, from ``folder/<history>``; raises ``RecordError`` if damaged or
    absent."""
    import pandas as pd

    return pd.read_csv(io.BytesIO(_history(folder, record)))


def curves(
    folder: str | os.PathLike[str], record: Mapping[str, Any], names: Collection[str]
) -> dict[str, list[float | None]]:
    """Return the columns of a run's history that have one of the ``names``, None where nothing was measured.

    Raises ``RecordError`` (one line) if the history is damaged, absent or no table of numbers.
    """
    # not pandas, which converts all of a few hundred columns before it chooses among them
    try:
        header, *rows = csv.reader(_history(folder, record).decode().splitlines())
        places = {name: place for place, name in enumerate(header) if name in names}
        return {name: [float(row[place]) if row[place] else None for row in rows] for name, place in places.items()}
    except (ValueError, IndexError, csv.Error) as error:
        raise RecordError(f"{record['history']} is no table of numbers ({error})") from None


def _history(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> bytes:
    """Return the content of a run's history after its digest was compared."""
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
    return content


def estimates(record: Mapping[str, Any]) -> dict[str, Estimate]:
    """Return the metrics of a record as estimates, by metric key."""
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


def estimate_parts(estimates: Mapping[str, Estimate], unmeasured: str | None = None) -> dict[str, Any]:
    """The parts of a record that hold estimates: metrics, standard errors, notes and the like.

    ``unmeasured`` is the reason why none of them has a value, of a run that failed say.
    """
    metrics, notes, kept = {}, {}, {}
    for key, estimate in estimates.items():
        finite = estimate.value is not None and math.isfinite(estimate.value)
        metrics[key] = estimate.value if finite and unmeasured is None else None
        note = unmeasured or estimate.note or (None if finite else f"the value is {estimate.value}")
        if note:
            notes[key] = clean(note)
        if metrics[key] is not None:
            kept[key] = estimate

    def part(name: str) -> dict[str, Any]:
        values = {key: getattr(estimate, name) for key, estimate in kept.items()}
        return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}

    return {
        "metrics": metrics,
        "stderr": part("stderr"),
        "converged": part("converged"),
        "residual": part("residual"),
        "interval": {
            key: list(estimate.interval)
            for key, estimate in kept.items()
            if estimate.interval is not None and all(map(math.isfinite, estimate.interval))
        },
        "notes": notes,
        "measure_seconds": {key: estimate.seconds for key, estimate in estimates.items()},
    }


def read_run(folder: Path) -> dict[str, Any]:
    record = read(folder / RECORD)
    if record["run_id"] != folder.name and record["run_id"] != folder.resolve().name:  # the second takes time
        raise RecordError(f"belongs to run {record['run_id']}, not to this folder")
    return record


def parse(path: Path) -> dict[str, Any]:
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
    """Return the fault in the form of a record, in one line; None without one."""
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
    if not is_name(record["run_id"]):
        return f"'run_id' must be a folder's name, is {record['run_id']!r}"
    for part, types in _VALUES.items():
        if set(types).issuperset(map(type, record[part].values())):
            continue
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
    if strange := [name for name in record["files"] if not is_name(name)]:
        return f"'files' must name files of the run's folder, not {strange[0]!r}"
    return None


def is_name(value: Any) -> bool:
    """Tell whether ``value`` is a plain file name, so that joining it to a folder stays inside the folder."""
    return isinstance(value, str) and value not in ("", ".", "..") and not any(c in value for c in "/\\\0")


def check_json(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{key or 'record'}: keys must be strings, not {name!r}")
            check_json(item, f"{key}[{name!r}]" if key else name)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(item, f"{key}[{index}]")
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


def members(bound: Mapping[str, Any]) -> int:
    """Return the number of networks that a run of this configuration trains side by side."""
    return max([1, *(node.get("members", 1) for node in (bound.get("regularization") or {}).values())])


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested objects to one level of dotted keys; lists become text joined by ``+``, empty ones "none".

    >>> flatten({"data": {"label_noise": 0.2}, "names": ["l2", "sam"]})
    {'data.label_noise': 0.2, 'names': 'l2+sam'}
    """
    flat: dict[str, Any] = {}
    _flatten(value, prefix, flat)
    return flat


def _flatten(node: Mapping[str, Any], prefix: str, flat: dict[str, Any]) -> None:
    for key, value in node.items():
        name = _joined(prefix, key)
        if isinstance(value, dict):
            _flatten(value, name, flat)
        elif isinstance(value, (list, tuple)):  # not list | tuple, which is made anew at each value
            flat[name] = "+".join(map(str, value)) or "none"
        else:
            flat[name] = value


@functools.lru_cache(maxsize=2**16)
def _joined(prefix: str, key: str) -> str:
    """Return a dotted key: one string shared by all of ten thousand records."""
    return f"{prefix}.{key}" if prefix else key
