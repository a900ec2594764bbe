"""Measures that were added to a finished run: a file beside its record, which itself never changes."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genbench.privacy import clean, shared
from genbench.records.estimate import Estimate
from genbench.records.files import digest, write_atomic
from genbench.records.record import RecordError, check_digest, check_json, estimate_parts, parse

FILE = "added_measures.json"
SCHEMA = 1
OTHERWISE = "measured again afterwards, and came out otherwise; this is the record's"
SEVERAL = "several measures give this key, and different values"
_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {  # of the fields of an estimate
    "value": (int, float, _NONE),
    "stderr": (int, float, _NONE),
    "converged": (bool, _NONE),
    "residual": (int, float, _NONE),
    "interval": (list, _NONE),
    "seconds": (int, float),
    "note": (str, _NONE),
}


@dataclass(frozen=True)
class Part:
    """The estimates of one measure.

    Attributes:
        of: what they depend on: the ``settings``, and digests of the ``weights`` and of the user's ``code``.
        made: versions, device and threads.
        estimates: by metric key.
        failed: whether the run could not be measured, so that no estimate has a value; the same command tries again.
    """

    of: Mapping[str, Any]
    made: Mapping[str, Any]
    estimates: Mapping[str, Estimate]
    failed: bool = False


@dataclass(frozen=True)
class Added:
    """What was added to a run: ``parts`` by name, and the digest of the file; None if there is none."""

    parts: Mapping[str, Part] = field(default_factory=dict)
    digest: str | None = None


def write(folder: Path, parts: Mapping[str, Part]) -> None:
    """Write all that was added to the run in ``folder``, without what must not be shared."""
    content = shared(
        {
            "schema": SCHEMA,
            "run_id": folder.resolve().name,
            "measures": {
                name: {
                    "of": dict(part.of),
                    "made": dict(part.made),
                    "failed": part.failed,
                    "estimates": {key: _plain(estimate) for key, estimate in part.estimates.items()},
                }
                for name, part in parts.items()
            },
        }
    )
    check_json(content, "")
    content["digest"] = digest(content)
    write_atomic(folder / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(folder: Path) -> Added:
    """Read what was added to the run in ``folder``; nothing, if there is no file.

    Raises ``RecordError`` (one line) if it is truncated, foreign, of another schema, or altered.
    """
    path = folder / FILE
    if not path.exists():
        return Added()
    content = parse(path)
    if content.get("schema") != SCHEMA:
        raise RecordError(f"has schema {content.get('schema')!r}, this version reads {SCHEMA}")
    check_digest(content)
    if content.get("run_id") != folder.resolve().name:
        raise RecordError(f"belongs to run {clean(content.get('run_id'))}, not to this folder")
    try:
        parts = {
            str(name): Part(
                of={**part["of"]},
                made={**part["made"]},
                estimates={str(key): _estimate(key, node) for key, node in part["estimates"].items()},
                failed=part["failed"] is True,
            )
            for name, part in content["measures"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"is malformed ({type(error).__name__}: {clean(error)})") from None
    return Added(parts, content["digest"])


def merged(record: dict[str, Any], added: Added) -> dict[str, Any]:
    """Return a record with what was added to its run.

    Of a key that both have, the record's value stays: it was measured with what was registered before the run. A note
    says so if the other value differs. Parts of other weights than the record's are left out. ``added`` is the digest
    of what was added, ``added_metrics`` are its keys that the record has not.
    """
    found: dict[str, Estimate] = {}
    again = {}
    for part in added.parts.values():
        if not of_weights(record, part):
            continue
        for key, estimate in part.estimates.items():
            if key in record["metrics"]:
                if not part.failed and estimate.value != record["metrics"][key]:
                    again[key] = "; ".join(filter(None, (record["notes"].get(key), OTHERWISE)))
            elif key in found and found[key].value != estimate.value:
                found[key] = Estimate(None, note=SEVERAL)
            else:
                found[key] = estimate
    whole = {name: {**record[name], **values} for name, values in estimate_parts(found).items()}
    notes = {**whole["notes"], **again}
    return {**record, **whole, "notes": notes, "added": added.digest, "added_metrics": sorted(found)}


def of_weights(record: Mapping[str, Any], part: Part) -> bool:
    """Tell whether a part was measured at the weights of the record."""
    weights = record["files"].get("weights.pt")
    return weights is not None and part.of.get("weights") == weights


def _plain(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON holds it, without fields that say nothing."""
    value = estimate.value
    fields = {key: each for key, each in asdict(estimate).items() if each is not None and _is_finite(each)}
    if value is not None and not _is_finite(value):
        fields.setdefault("note", f"the value is {value}")
    if "note" in fields:
        fields["note"] = clean(fields["note"])
    return {"value": None, **fields}


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _estimate(key: str, node: Mapping[str, Any]) -> Estimate:
    """Return the estimate that :func:`_plain` wrote."""
    for name, value in node.items():
        ends = value if name == "interval" and value is not None else []
        if not _is(name, value) or (ends and not (len(ends) == 2 and all(_is("seconds", end) for end in ends))):
            raise RecordError(f"{clean(key)}: {clean(name)} is {clean(repr(value))[:60]}")
    interval = node.get("interval")
    return Estimate(**{**node, "interval": None if interval is None else (interval[0], interval[1])})


def _is(name: str, value: Any) -> bool:
    """Tell whether a field of an estimate may have this value; numbers fit into a float."""
    types = _TYPES.get(name, ())
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        return False
    return isinstance(value, bool) or not isinstance(value, int | float) or abs(value) <= sys.float_info.max
