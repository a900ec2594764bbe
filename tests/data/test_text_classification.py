"""Texts, tokens and classes of CSV files, of the hub and of what is always there."""

import csv
import re
import sys
from collections import Counter
from pydoc_data.topics import topics
from types import SimpleNamespace

import pytest
import torch

from genbench import hub
from genbench.data.text import encoded, split, vocabulary
from genbench.data.text_classification import TextClassification, _parted, _topics
from genbench.rng import StepRandom

ROWS = [(f"Film number {i}, said she: {('good', 'bad')[i % 2]}!", ("pos", "neg")[i % 2]) for i in range(100)]


def written(path, rows, columns=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "films.csv", ROWS)


def test_words_and_characters():
    assert split("Don't go, Zoë!", "word") == ["don", "'", "t", "go", ",", "zoë", "!"]
    assert split("Aé!", "character") == ["A", "é", "!"]


def test_the_vocabulary_is_by_frequency_and_then_by_name():
    texts = [["b", "a", "c"], ["c", "b", "d"], ["c"]]
    assert vocabulary(texts) == {"c": 2, "b": 3, "a": 4, "d": 5}
    assert vocabulary(texts, 4) == {"c": 2, "b": 3}
    rows = encoded([["c", "d", "b", "b"], ["b"]], vocabulary(texts, 4), 3)
    assert rows.tolist() == [[2, 1, 3], [3, 0, 0]]


@pytest.mark.parametrize("unit", ["word", "character"])
def test_every_row_of_a_csv_is_there_with_its_class(path, unit):
    data = TextClassification(path=path, unit=unit, length=20, test_fraction=0.2, batch_size=1)
    raw, _ = data.content()
    assert (len(raw["y"]), len(raw["y_test"]), data.classes, data.input_shape) == (80, 20, 2, (20,))
    rows = torch.cat([raw["x"], raw["x_test"]])
    labels = torch.cat([raw["y"], raw["y_test"]])
    found = {(tuple(row), ("neg", "pos")[label]) for row, label in zip(rows.tolist(), labels.tolist(), strict=True)}
    # the vocabulary by hand, of what is trained on
    train = sorted(StepRandom(0, 0).permutation("data.test", 100)[20:].tolist())
    cut = (lambda text: re.findall(r"\w+|[^\w\s]", text.lower())) if unit == "word" else list
    counts = Counter(u for i in train for u in cut(ROWS[i][0]))
    known = {u: k for k, (u, _) in enumerate(sorted(counts.items(), key=lambda item: (-item[1], item[0])), 2)}
    assert data.vocabulary == len(known) + 2
    by_hand = {(tuple(([known.get(u, 1) for u in cut(text)] + [0] * 20)[:20]), label) for text, label in ROWS}
    assert found == by_hand
    assert len({row for row, _ in found}) > 50
    if unit == "word":
        assert (raw["x_test"] == 1).any()  # the number of a film that is not trained on
        assert not (raw["x"] == 1).any()


def test_numbers_are_classes_by_value_and_the_test_split_is_the_same_for_every_seed(tmp_path):
    rows = [(f"text {i}", str(i % 12)) for i in range(240)]
    one, other = (TextClassification(path=written(tmp_path / "n.csv", rows), seed=seed) for seed in (0, 1))
    assert one.classes == 12
    raw, _ = one.content()
    assert torch.equal(raw["x_test"], other.content()[0]["x_test"])
    assert not torch.equal(one.tensors("train")[0], other.tensors("train")[0])
    assert raw["y"].max() == 11
    assert raw["y"].tolist().count(10) <= 20


def test_copies_of_a_text_are_on_one_side(tmp_path):
    """A third of the texts stand there several times, in other letters and with other labels too."""
    rows = [(f"film {i if i < 200 else i % 50}", "ab"[i % 2 if i < 200 else i % 3 % 2]) for i in range(300)]
    rows = [(text.upper() if i % 7 == 0 else text, label) for i, (text, label) in enumerate(rows)]
    data = TextClassification(path=written(tmp_path / "copies.csv", rows), batch_size=1)
    assert 60 <= len(data.tensors("test")[1]) < 68
    held = TextClassification(path=str(tmp_path / "copies.csv"), batch_size=1, val_fraction=0.3)
    assert 0.3 <= len(held.tensors("val")[1]) / len(data.tensors("train")[1]) < 0.33
    seen = [{tuple(row) for row in held.tensors(split)[0].tolist()} for split in ("train", "val")]
    assert (seen[0] - {(2, 1, *[0] * 62)}).isdisjoint(seen[1])  # but for words that are new to the vocabulary
    assert len(data.tensors("train")[1]) + len(data.tensors("test")[1]) == 300
    (train, _), (test, _) = _parted(tuple(zip(*rows, strict=True)), 0.2, [text.lower() for text, _ in rows])
    assert len(test) == len(data.tensors("test")[1])
    assert not {text.lower() for text in train} & {text.lower() for text in test}
    with pytest.raises(ValueError, match=r"data.test_fraction is 0.2; accepted: what leaves a text to train on, all"):
        TextClassification(path=written(tmp_path / "same.csv", [("one", "a")] * 10))


def test_validation_and_training_have_the_same_long_tail(tmp_path):
    rows = [(f"text {i}", "abcd"[i % 4]) for i in range(600)]
    path = written(tmp_path / "classes.csv", rows)
    data = TextClassification(path=path, batch_size=1, val_fraction=0.25, train_size=160, imbalance=8)
    counts = {split: data.tensors(split)[1].bincount().tolist() for split in ("train", "val")}
    assert sum(counts["train"]) == 120
    assert sum(counts["val"]) == 40
    shares = torch.tensor([8.0, 4.0, 2.0, 1.0]) / 15
    for found in counts.values():
        assert ((torch.tensor(found) - sum(found) * shares).abs() < 1).all()


def test_without_copies_the_test_split_is_the_beginning_of_one_random_order(path):
    texts, labels = zip(*ROWS, strict=True)
    (train, _), (test, classes) = _parted((texts, labels), 0.2)
    rows = sorted(StepRandom(0, 0).permutation("data.test", 100)[:20].tolist())
    assert test == [texts[i] for i in rows]
    assert classes == [labels[i] for i in rows]
    assert sorted([*train, *test]) == sorted(texts)


def test_what_is_always_there_has_ten_topics():
    texts, labels = _topics()
    assert len(set(texts)) == len(texts) > 800
    whole = {name: " ".join(text.split()) for name, text in topics.items()}
    for text, label in zip(texts, labels, strict=True):
        if len(text) > 80:  # a short one may be part of another paragraph
            assert [name for name in whole if text in whole[name]] == [label]
    data = TextClassification()
    assert data.classes == 10
    assert len(data.tensors("train")[1]) > 500
    assert data.tensors("test")[1].unique().tolist() == list(range(10))


def test_a_set_of_the_hub_has_its_own_splits(monkeypatch):
    """A library that answers as ``datasets`` does, for a name that it knows."""
    parts = {"train": ["good film", "bad film"] * 5, "test": ["bad", "splendid"]}

    def load_dataset(name, split):
        if name != "films":
            raise ConnectionError("Couldn't reach the hub\nat all")
        labels = [int("good" in text or "splendid" in text) for text in parts[split]]
        return {"text": parts[split], "label": labels}

    monkeypatch.setattr(hub, "go_offline", lambda: None)  # the network is not asked, nor the library's settings changed
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    data = TextClassification(hub="films", length=2, batch_size=1)
    raw, _ = data.content()
    assert data.vocabulary == 5  # padding, unknown, film, bad, good
    assert raw["x_test"].tolist() == [[3, 0], [1, 0]]
    assert raw["y_test"].tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"^data.hub='other' cannot be read, for which a network is needed once .Could.*"
    ) as e:
        TextClassification(hub="other")
    assert "\n" not in str(e.value)
    assert "data.path=FILE" in str(e.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"^data.hub='third' needs: pip install"):
        TextClassification(hub="third")


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (ROWS, ("sentence", "label"), r"with the columns sentence, label; accepted: text and label"),
        ([*ROWS, ("no class", "")], ("text", "label"), r"whose example 101 has no label"),
        ([*ROWS[:1]], ("text", "label"), r"data.test_fraction is 0.2; accepted: what leaves some of 1 texts on each"),
        (
            [(text, str(i)) for i, (text, _) in enumerate(ROWS)],
            ("text", "label"),
            r"the class '\d+' has no training",
        ),
        ([(1, 2), (1, 2, 3, 4)], ("text", "label"), r"which is no CSV: "),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, rows, columns, message):
    with pytest.raises(ValueError, match=message) as error:
        TextClassification(path=written(tmp_path / "bad.csv", rows, columns))
    assert "\n" not in str(error.value)


def test_bad_settings_are_refused_in_one_line(tmp_path, path):
    with pytest.raises(ValueError, match=r"data.unit is 'letter'; accepted: character, word"):
        TextClassification(unit="letter")
    with pytest.raises(ValueError, match=r"data.path is '.*' and data.hub 'x'; accepted: one of them, or neither"):
        TextClassification(path=path, hub="x")
    with pytest.raises(ValueError, match="which cannot be read: No such file"):
        TextClassification(path=str(tmp_path / "absent.csv"))
