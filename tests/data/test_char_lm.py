"""Windows of a text, read back."""

from pydoc_data.topics import topics

import pytest
import torch

from genbench.data.char_lm import CharLM, _topics

TEXT = "to be, or not to be: that is the question. " * 30 + "Whether 'tis nobler — in the mind — to suffer! " * 4


@pytest.fixture
def path(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return str(tmp_path / "text.txt")


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (8, 1), (8, 5)])
def test_windows_are_the_text_and_the_target_is_what_follows(path, window, stride):
    data = CharLM(path=path, window=window, stride=stride, test_fraction=0.2, batch_size=1)
    cut = len(TEXT) - round(0.2 * len(TEXT))
    names = ["\N{REPLACEMENT CHARACTER}", *sorted(set(TEXT[:cut]))]
    assert data.vocabulary == data.classes == len(names)
    raw, _ = data.content()
    for part, end in ((TEXT[:cut], ""), (TEXT[cut:], "_test")):
        shown = "".join(char if char in names else names[0] for char in part)
        found = [
            ("".join(names[token] for token in x), names[y])
            for x, y in zip(raw[f"x{end}"].tolist(), raw[f"y{end}"].tolist(), strict=True)
        ]
        starts = range(0, len(part) - window, stride)
        assert found == [(shown[i : i + window], shown[i + window]) for i in starts]


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (8, 5)])
def test_all_targets_are_the_text_one_further(path, window, stride):
    settings = {"path": path, "window": window, "stride": stride, "test_fraction": 0.2, "batch_size": 1}
    last, everywhere = CharLM(**settings), CharLM(**settings, targets="all")
    ours, theirs = everywhere.content()[0], last.content()[0]
    assert torch.equal(ours["x"], theirs["x"])
    assert torch.equal(ours["y"][:, -1], theirs["y"])
    for end in ("", "_test"):
        assert torch.equal(ours[f"y{end}"][:, :-1], ours[f"x{end}"][:, 1:])
    apart = CharLM(**settings | {"stride": max(stride, window)}).content()[0]  # what is tested on counts once
    assert torch.equal(ours["x_test"], apart["x_test"])
    assert torch.equal(ours["y_test"][:, -1], apart["y_test"])
    assert everywhere.digest != last.digest


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "matrix"])
def test_label_noise_replaces_all_labels_of_an_example(path, kind):
    classes = CharLM(path=path, batch_size=1).classes
    matrix = torch.eye(classes).roll(1, 1).tolist()  # always the next
    settings = {"path": path, "window": 8, "stride": 3, "targets": "all", "batch_size": 1}
    (x, clean), (same, y) = (
        CharLM(**settings, label_noise=noise, noise_kind=matrix if kind == "matrix" else kind).tensors("train")
        for noise in (0, 0.25)
    )
    assert torch.equal(x, same)
    noisy = (y != clean).any(1)
    assert int(noisy.sum()) == round(0.25 * len(y))
    if kind != "symmetric":
        assert torch.equal(y[noisy], (clean[noisy] + 1) % classes)
    else:
        assert (y[noisy] != clean[noisy]).double().mean() > 0.9  # each drawn by itself


def test_the_test_split_gives_no_character_to_the_vocabulary(path):
    data = CharLM(path=path, test_fraction=0.12, batch_size=1)
    assert "!" in TEXT[-round(0.12 * len(TEXT)) :]
    assert "!" not in TEXT[: -round(0.12 * len(TEXT))]
    assert (data.content()[0]["x_test"] == 0).any()
    assert not (data.content()[0]["x"] == 0).any()


@pytest.mark.parametrize("targets", ["last", "all"])
def test_validation_is_a_text_of_its_own_before_the_test_split(path, targets):
    settings = {"path": path, "window": 8, "stride": 3, "targets": targets, "test_fraction": 0.2, "batch_size": 1}
    data, whole = CharLM(**settings, val_fraction=0.25), CharLM(**settings)
    cut = len(TEXT) - round(0.2 * len(TEXT))
    end = next(place for place in range(0, cut, 3) if place >= cut - round(0.25 * cut))  # where a window starts
    names = ["", *sorted(set(TEXT[:cut]))]
    assert data.vocabulary == whole.vocabulary == len(names)

    def shown(split, of=data):
        x, y = of.tensors(split)
        rows = torch.cat([x, y.view(len(y), -1)[:, -1:]], 1).tolist()
        return sorted("".join(names[token] for token in row) for row in rows)

    apart = 8 if targets == "all" else 3
    assert shown("train") == sorted(TEXT[i : i + 9] for i in range(0, end - 8, 3))
    assert shown("val") == sorted(TEXT[end:cut][i : i + 9] for i in range(0, cut - end - 8, apart))
    assert torch.equal(data.tensors("test")[0], whole.tensors("test")[0])
    assert data.digest != whole.digest
    assert shown("val", CharLM(**settings, val_fraction=0.25, seed=3)) == shown("val")
    half = CharLM(**settings, val_fraction=0.25, train_size=100)
    share = len(shown("val")) / len(shown("train") + shown("val"))
    assert (len(shown("val", half)), len(shown("train", half))) == (round(100 * share), 100 - round(100 * share))
    assert set(shown("val", half)) <= set(shown("val"))
    assert set(shown("train", half)) <= set(shown("train"))


def test_without_a_file_it_is_the_lines_of_the_topics_each_once():
    data = CharLM()
    lines = [line for name in sorted(topics) for line in topics[name].split("\n")]
    text = _topics()
    found = [line.strip() for line in text.split("\n") if line.strip()]
    assert sorted(found) == sorted({line.strip() for line in lines} - {""})
    assert 300_000 < len(text) < 450_000
    cut = len(text) - round(0.1 * len(text))
    names = ["", *sorted(set(text[:cut]))]
    raw, _ = data.content()
    assert "".join(names[token] for token in raw["x"][::2].flatten()) == text[: 32 * len(raw["x"][::2])]
    assert data.input_shape == (32,)
    assert data.tensors("train")[0].dtype == torch.int64


def test_a_file_that_changes_is_read_again_and_where_it_lies_is_not_its_content(path, tmp_path):
    before = CharLM(path=path, batch_size=1)
    (tmp_path / "copy.txt").write_text(TEXT, encoding="utf-8")
    assert CharLM(path=str(tmp_path / "copy.txt"), batch_size=1).digest == before.digest
    (tmp_path / "text.txt").write_text(TEXT + "!", encoding="utf-8")
    assert CharLM(path=path, batch_size=1).digest != before.digest


def test_what_has_no_meaning_with_all_targets_is_refused(path):
    with pytest.raises(ValueError, match=r"data.targets is 'some'; accepted: last, all"):
        CharLM(path=path, targets="some")
    with pytest.raises(ValueError, match=r"data.inputs is 'shuffled_pixels' with data.targets=all; accepted: original"):
        CharLM(path=path, targets="all", inputs="shuffled_pixels")
    with pytest.raises(ValueError, match=r"data.imbalance is 2; accepted: 1, as an example has several labels"):
        CharLM(path=path, targets="all", batch_size=1, imbalance=2)


def test_bad_texts_are_refused_in_one_line(tmp_path, path):
    with pytest.raises(ValueError, match=r"^data.path is '.*absent', which cannot be read: No such file or directory$"):
        CharLM(path=str(tmp_path / "absent"))
    (tmp_path / "binary").write_bytes(b"text\xff\xfe")
    with pytest.raises(ValueError, match=r"^data.path is '.*binary'; accepted: text in UTF-8 \(byte 4 is none\)$"):
        CharLM(path=str(tmp_path / "binary"))
    with pytest.raises(ValueError, match=r"^data.window is 400; accepted: less than the \d+ characters of the test"):
        CharLM(path=path, window=400)
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match=r"less than the 0 characters of the training split"):
        CharLM(path=str(tmp_path / "empty"))
