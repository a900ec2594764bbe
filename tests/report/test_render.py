import csv
import io
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from genbench.report import render
from genbench.report.selection import load
from genbench.report.table import build

from . import factory

NASTY = r"<b>|x_%$#&{}~^\*`" + "λ中é"


def nasty(folder):
    """Names and errors full of what each format takes for markup."""

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
    console.print(render.terminal(table, width))
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
    source = render.latex(nasty(tmp_path))
    assert r"\textless{}b\textgreater{}" in source
    assert r"\_\%\$\#\&\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}*" in source
    assert r"$\lambda$" in source
    assert "[U+4E2D]é" in source
    assert all(ord(char) < 0x180 for char in source)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("case", ["nasty", "holes"])
def test_latex_compiles(tmp_path, holes, case):
    table = nasty(tmp_path / "runs") if case == "nasty" else build(load(holes))
    (tmp_path / "table.tex").write_text(render.latex(table))
    (tmp_path / "page.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{textcomp}\usepackage{booktabs,graphicx}"
        r"\begin{document}\input{table.tex}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    log = result.stdout.decode(errors="replace")
    assert result.returncode == 0, log[-2000:]
    assert "Overfull" not in log
    assert "Missing character" not in log
