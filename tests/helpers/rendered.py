"""What a page or a figure shows its reader."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

NASTY = r"<b>|x_%$#&{}~^\*`" + "λ中é"
"""Holds the markup of every format."""
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def assert_typesets(folder: Path, source: str) -> None:
    """Tables compile in LaTeX, within the page, with all of their characters."""
    (folder / "table.tex").write_text(source)
    (folder / "page.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{textcomp}\usepackage{booktabs,graphicx}"
        r"\begin{document}\input{table.tex}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    result = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    log = result.stdout.decode(errors="replace")
    assert result.returncode == 0, log[-2000:]
    assert not re.findall("Overfull.*|Float too large.*|Missing character.*", log), log


class Outline(HTMLParser):
    """Parses a page: checks that tags are balanced, and collects the addresses it would fetch and its text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.fetched, self.tags, self.text = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "img", "wbr", "br"):
            self.open.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def touching(figure):
    """Return pairs of drawn tick labels that overlap, at the resolution of the PNG."""
    figure.set_dpi(200)
    figure.draw_without_rendering()
    boxes = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            ticks = axis._update_ticks()  # those within the limits
            labels = [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]
            boxes += [(label.get_window_extent(), label.get_text()) for label in labels]
    return [
        (first, second)
        for index, (box, first) in enumerate(boxes)
        for other, second in boxes[index + 1 :]
        if min(box.x1, other.x1) - max(box.x0, other.x0) > 0 and min(box.y1, other.y1) - max(box.y0, other.y0) > 0
    ]
