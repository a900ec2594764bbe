"""Measures that were added to a finished run: written whole, read strictly, merged so that the record wins."""

import json
import math

import pytest

from genbench import records
from genbench.records import Estimate, added
from genbench.records.added import Part
from tests.helpers import factory

WHOLE = Estimate(
    0.1 + 0.2, stderr=1e-3, converged=False, residual=0.5, interval=(0.25, 0.5), seconds=1.5, note="in part"
)
NEW, OLD = "train/flatness/new", "train/flatness/lambda_1"


def make(**changes):
    parts = {part: {} for part in ("stderr", "converged", "residual", "interval")}
    metrics, notes = {"test/performance/accuracy": 0.1 + 0.2, OLD: None}, {OLD: "not twice differentiable"}
    own = {"metrics": metrics, "notes": notes, "measure_seconds": {OLD: 0.25}, "history": None}
    return factory.record(**{**parts, **own, **changes})


@pytest.fixture
def run(tmp_path):
    """The folder of a run whose record has one number and one null."""
    item = factory.leave(tmp_path / "toy", make())
    return tmp_path / "toy" / item["run_id"]


def part(folder, estimates, **changes):
    weights = records.read(folder)["files"]["weights.pt"]
    settings = {"of": {"settings": {"k": 1}, "weights": weights, "code": "c"}, "made": {"torch": "2.13.0"}}
    return Part(**{**settings, "estimates": estimates, **changes})


def load(folder):
    loaded = records.load(folder.parent)
    return loaded.records[0], loaded.problems


def test_round_trip_is_exact(run):
    parts = {"train/flatness/new": part(run, {NEW: WHOLE, f"{NEW}_2": Estimate(None, note="undefined: it is")})}
    added.write(run, parts)
    assert added.read(run).parts == parts
    assert added.read(run.parent / "other") == added.Added()
    assert sorted(path.name for path in run.iterdir()) == [added.FILE, "record.json", "weights.pt"]


def test_a_number_that_is_not_finite_is_null_with_the_reason(run):
    added.write(run, {"a": part(run, {NEW: Estimate(math.inf, stderr=math.nan, interval=(0.0, math.inf))})})
    assert added.read(run).parts["a"].estimates == {NEW: Estimate(None, note="the value is inf")}


def test_a_record_is_loaded_with_what_was_added(run):
    before = (run / "record.json").read_bytes()
    plain, _ = load(run)
    added.write(run, {"a": part(run, {NEW: WHOLE}), "b": part(run, {"weights/norm/x": Estimate(2, seconds=0.5)})})
    record, problems = load(run)
    assert (run / "record.json").read_bytes() == before
    assert problems == []
    assert record["metrics"] == {**plain["metrics"], NEW: 0.1 + 0.2, "weights/norm/x": 2}
    assert records.estimates(record)[NEW] == WHOLE
    assert record["notes"] == {**plain["notes"], NEW: "in part"}
    assert record["measure_seconds"] == {**plain["measure_seconds"], NEW: 1.5, "weights/norm/x": 0.5}
    assert record["digest"] == plain["digest"]
    assert records.is_own(record)
    assert "added" not in plain
    assert record["added"] == added.read(run).digest
    assert record["added_metrics"] == [NEW, "weights/norm/x"]
    assert records.load(run.parent).frame()[NEW].tolist() == [0.1 + 0.2]
    assert records.read(run) == records.verify(run) == plain


@pytest.mark.parametrize(
    ("key", "estimate", "said"),
    [
        ("test/performance/accuracy", Estimate(0.1 + 0.2), None),
        ("test/performance/accuracy", Estimate(0.5), added.OTHERWISE),
        ("test/performance/accuracy", Estimate(None, note="undefined"), added.OTHERWISE),
        (OLD, Estimate(None, note="undefined"), "not twice differentiable"),
        (OLD, Estimate(3.0), f"not twice differentiable; {added.OTHERWISE}"),
    ],
)
def test_of_a_key_in_both_the_record_s_value_stays_and_a_note_says_so(run, key, estimate, said):
    plain, _ = load(run)
    added.write(run, {"a": part(run, {key: estimate})})
    record, _ = load(run)
    assert record["metrics"] == plain["metrics"]
    assert record["notes"].get(key) == said


def test_a_run_that_could_not_be_measured_again_has_measured_nothing_otherwise(run):
    added.write(run, {"a": part(run, {OLD: Estimate(None, note="no"), NEW: Estimate(None, note="no")}, failed=True)})
    record, _ = load(run)
    assert record["notes"] == {OLD: "not twice differentiable", NEW: "no"}
    assert record["metrics"][NEW] is None


def test_measures_that_give_one_key_and_different_values(run):
    added.write(run, {"a": part(run, {NEW: Estimate(1.0)}), "b": part(run, {NEW: Estimate(1.0)})})
    assert load(run)[0]["metrics"][NEW] == 1.0
    added.write(run, {"a": part(run, {NEW: Estimate(1.0)}), "b": part(run, {NEW: Estimate(2.0)})})
    record, _ = load(run)
    assert (record["metrics"][NEW], record["notes"][NEW]) == (None, added.SEVERAL)


def test_values_of_other_weights_are_left_out_and_named(run):
    other = {"settings": {}, "weights": "0" * 64, "code": None}
    added.write(run, {"a": part(run, {NEW: WHOLE}), "b": part(run, {f"{NEW}_2": WHOLE}, of=other)})
    record, problems = load(run)
    assert NEW in record["metrics"]
    assert f"{NEW}_2" not in record["metrics"]
    assert problems == [(f"{run.name}/{added.FILE}", "b: not of the weights of the record")]


def test_a_run_that_did_not_complete_has_nothing_added(run):
    added.write(run, {"a": part(run, {NEW: WHOLE})})
    (run / "weights.pt").unlink()
    records.write(run, make(status="diverged", error="the loss is nan"))
    record, problems = load(run)
    assert NEW not in record["metrics"]
    assert len(problems) == 1


def altered(content, **changes):
    content = {**content, **changes}
    return {**content, "digest": records.digest({k: v for k, v in content.items() if k != "digest"})}


def with_estimate(content, node):
    (name,) = content["measures"]
    return altered(content, measures={name: {**content["measures"][name], "estimates": {NEW: node}}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: {**content, "run_id": "x"}, "digest does not match: the content was altered"),
        (lambda content: altered(content, run_id="x"), "belongs to run x, not to this folder"),
        (lambda content: altered(content, schema=9), "has schema 9, this version reads 1"),
        (lambda content: altered(content, measures=[1]), "is malformed"),
        (lambda content: altered(content, measures={"a": {}}), "is malformed"),
        (lambda content: with_estimate(content, {"value": "3"}), f"{NEW}: value is '3'"),
        (lambda content: with_estimate(content, {"value": True}), f"{NEW}: value is True"),
        (lambda content: with_estimate(content, {"value": 10**400}), f"{NEW}: value is 1000"),
        (lambda content: with_estimate(content, {"value": 1, "interval": [0]}), f"{NEW}: interval is"),
        (lambda content: with_estimate(content, {"value": 1, "more": 0}), f"{NEW}: more is 0"),
        (lambda content: with_estimate(content, [1]), "is malformed"),
        (lambda content: [], "is not a JSON object"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_not_read(run, change, message):
    added.write(run, {"a": part(run, {NEW: WHOLE})})
    path = run / added.FILE
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    record, problems = load(run)
    assert NEW not in record["metrics"]
    ((name, reason),) = problems
    assert name == f"{run.name}/{added.FILE}"
    assert message in reason
    assert "\n" not in reason


def test_it_holds_nothing_that_must_not_be_shared(run):
    secret = {"settings": {"api_key": "s3cret0123456", "file": "/srv/somebody/x.csv"}, "weights": None, "code": None}
    added.write(run, {"a": part(run, {NEW: Estimate(None, note="cannot read /srv/somebody/x.csv")}, of=secret)})
    text = (run / added.FILE).read_text()
    assert "s3cret" not in text
    assert "/srv" not in text
