import csv
import io
import re

import pandas as pd
import pytest
from rich.console import Console

from genbench.report import render, table_of, terminal
from genbench.report.latex import latex
from genbench.report.selection import load
from genbench.report.table import build
from tests.helpers import factory
from tests.helpers.rendered import NASTY, assert_typesets, needs_latex


def nasty(folder):
    """A table whose names and errors contain the markup of every format."""

    def change(item):
        if item["choices"]["regularization"] == ["l1"]:
            item["choices"]["regularization"] = [NASTY]
            item["notes"] = {"test/performance/accuracy": f"why {NASTY}"}
        return item

    spec = {
        "title": f"T {NASTY}",
        "caption": f"C {NASTY}",
        "rows": ["regularization"],
        "baseline": ["none"],
        "columns": [{"group": f"G {NASTY}", "label": "λ₁ ‖w‖₂ ↑", "metric": "test/performance/accuracy", "best": "max",
                     "published": {"none": "70 ± 1 %"}, "source": f"S {NASTY}"}],
    }  # fmt: skip
    factory.ablation(folder, ["none", "l1"], (0.0,), spec=spec, change=change)
    (folder / "foreign").mkdir()
    (folder / "foreign" / "record.json").write_text("[]")
    return build(load(folder))


def printed(table, width):
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    console.print(terminal.renderable(table, width))
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (140, 2), (100, 3)])
def test_the_terminal_table_fits_and_is_complete(holes, width, tables):
    table = build(load(holes))
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("gradient_clipping") == tables
    assert "…" not in text.replace("…/x.pt", "")
    for line, cells in zip(render.texts(table), table.cells, strict=True):
        for item, cell in zip(line, cells, strict=True):
            assert (item.mean if cell.mean else item.status) in text


def test_the_terminal_table_is_narrow_when_it_must(ablation):
    text = printed(build(load(ablation)), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("gradient_clipping") > 3


def test_columns_of_the_terminal_align_at_the_decimal_point(ablation):
    lines = [line for line in printed(build(load(ablation)), 200).splitlines() if " ±" in line][:14]
    assert len(lines) == 14
    assert len({line.index("±") for line in lines}) == 1


def test_csv_holds_every_cell_in_full_precision(holes):
    table = build(load(holes))
    lines = list(csv.DictReader(io.StringIO(render.comma_separated(table))))
    assert len(lines) == len(table.rows) * len(table.columns)
    first = table.cells[0][0]
    assert float(lines[0]["mean"]) == first.mean.value
    assert float(lines[0]["low"]) == first.mean.low
    sam = next(line for line in lines if line["row"] == "sam" and line["column"] == "test acc. (%), noisy")
    assert (sam["mean"], sam["n"], sam["status"]) == ("", "0", "diverged")
    assert "step 12" in sam["notes"]
    assert not re.search(r"\b(nan|inf)\b", ",".join(line["mean"] + line["p"] for line in lines))


def test_csv_has_the_caption_and_what_was_left_out_as_data(holes):
    table = build(load(holes))
    frame = pd.read_csv(io.StringIO(render.comma_separated(table)))
    assert frame["caption"].notna().tolist() == [True] + [False] * (len(frame) - 1)
    caption = frame["caption"][0]
    assert caption.startswith(f"{table.title}. {table.caption[0]}")
    assert all(text in caption for text in (*table.caption, *table.problems))
    again = table_of(frame, rows=["row"], columns=["mean"], seed="column")
    means = {row.label: line[0].values for row, line in zip(again.rows, again.cells, strict=True)}
    assert means["none"][table.columns[0].title] == pytest.approx(table.cells[0][0].mean.value)


def test_markdown_is_a_table_with_escaped_text(tmp_path):
    lines = render.markdown(nasty(tmp_path)).splitlines()
    body = [line for line in lines if line.startswith("|")]
    unescaped = [len(re.findall(r"(?<!\\)\|", line)) for line in body]
    assert unescaped == [3] * len(body)
    assert "<b>" not in "".join(lines)
    assert any("[70 ± 1 %]" in line for line in body)
    assert any("foreign/record.json" in line for line in lines)


def test_best_and_marks_in_markdown(ablation):
    text = render.markdown(build(load(ablation)))
    best = next(line for line in text.splitlines() if line.startswith("| augmentation"))
    assert re.search(r"\*\*7\d\.\d ± \d\.\d\*\*", best)
    assert text.count("**") // 2 == sum(1 for column in factory.SPEC["columns"] if column["best"])


def test_latex_escapes_all_text(tmp_path):
    source = latex(nasty(tmp_path))
    assert r"\textless{}b\textgreater{}" in source
    assert r"\_\%\$\#\&\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}*" in source
    assert r"$\lambda$" in source
    assert "[U+4E2D]é" in source
    assert all(ord(char) < 0x180 for char in source)


LONG = "+".join(factory.STRATEGIES[1:])


def long(folder, rows=1):
    """A table with labels, headings and groups wider than a terminal, and more rows than a page has lines."""

    def change(item):
        if item["choices"]["regularization"]:
            item["choices"]["regularization"] = [f"{LONG}+{item['config']['trainer']['max_steps']}"]
        return item

    columns = [
        {"group": "a group of one narrow column", "label": "x", "metric": "test/performance/accuracy"},
        {"group": "G" * 40, "label": "label_" * 20, "metric": "test/gap/accuracy",
         "published": {"none/0": "p" * 90}, "source": "S"},
        *({"label": f"weights/norm/{i}", "metric": "weights/norm/l2"} for i in range(6)),
    ]  # fmt: skip
    spec = {"rows": ["regularization", "trainer.max_steps"], "baseline": ["none", 0], "columns": columns}
    for number in range(rows):
        for seed in range(2):
            item = factory.record("l1" if number else "none", 0.0, seed)
            item["config"]["trainer"]["max_steps"] = number
            factory.leave(folder, {**change(item), "run_id": factory.run_id(number, seed)})
    return build(load(folder), spec)


@pytest.mark.parametrize("width", [30, 80, 200])
def test_labels_wider_than_the_terminal_wrap(tmp_path, width):
    text = printed(long(tmp_path, 2), width)
    squeezed = re.sub(r"\s", "", text)
    assert max(map(len, text.splitlines())) <= width
    for word in (*re.split("[+_]", LONG), "group", "narrow", "G" * min(40, width // 3), "label_"):
        assert word in squeezed, word
    assert "…" not in text
    assert printed(long(tmp_path, 2), 1)  # whatever it looks like


def test_headers_are_not_cut_at_80_columns(tmp_path):
    text = printed(long(tmp_path, 2), 80)
    for words in ("a group of", "one narrow", "column"):
        assert words in text
    head = text[: text.index("Published")]
    assert head.count("G") == 40


def test_latex_has_a_label_and_as_many_floats_as_it_takes(tmp_path, ablation):
    source = latex(build(load(ablation)))
    assert source.count(r"\label{tab:regularization-on-mnist-1d}") == 1
    many = latex(long(tmp_path, 100))
    floats = many.split(r"\begin{table}")[1:]
    assert len(floats) == many.count(r"\end{table}") > 2
    assert all(part.count(r" \\") <= 44 for part in floats)
    assert many.count("(continued)") == len(floats) - 1


def test_csv_cells_are_no_formulas_and_numbers_stay_numbers(tmp_path):
    def change(item):
        if item["choices"]["regularization"]:
            item["choices"]["regularization"] = ["=HYPERLINK(1)"]
            item["notes"] = {"test/performance/accuracy": "+1 of 3"}
        return item

    spec = {"rows": ["regularization"], "columns": [{"label": "@a", "metric": "test/performance/accuracy", "scale": -1,
            "published": {"none": -0.7}, "source": "S"}]}  # fmt: skip
    folder = factory.ablation(tmp_path, ["none", "l1"], (0.0,), spec=spec, change=change)
    first, second = csv.DictReader(io.StringIO(render.comma_separated(build(load(folder)))))
    assert (second["row"], second["column"], second["notes"]) == ("'=HYPERLINK(1)", "'@a", "'+1 of 3")
    assert (float(first["mean"]) < 0, first["published"], first["row"]) == (True, "-0.7", "none")


@needs_latex
@pytest.mark.parametrize("case", ["nasty", "holes", "long"])
def test_latex_compiles(tmp_path, holes, case):
    tables = {"nasty": nasty, "long": lambda folder: long(folder, 100)}
    table = tables[case](tmp_path / "runs") if case in tables else build(load(holes))
    assert_typesets(tmp_path, latex(table))
