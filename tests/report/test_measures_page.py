"""The page of one network: numbers, order, escaping; it loads nothing and names no person."""

import re
from html.parser import HTMLParser

import pytest
import torch

from genbench.measures import Estimate
from genbench.report.html import Picture
from genbench.report.measures_page import drawn_page, page, texts
from tests.helpers.rendered import Outline

RESULTS = {
    "train/flatness/lambda_1": Estimate(14.35812, converged=True, residual=1e-4, seconds=0.5),
    "train/flatness/undefined_one": Estimate(None, note="undefined: no classifier"),
    "train/flatness/lambda_2": Estimate(13.918, converged=False, residual=0.032, seconds=0.5),
    "train/flatness/trace": Estimate(140.2, stderr=3.24, seconds=12.25),
    "train/flatness/lambda_1.0.weight": Estimate(3.5),
    "train/flatness/lambda_1.2.weight": Estimate(1.5, converged=False),
    "train/flatness/trace.0.weight": Estimate(50.0, stderr=2.0),
    "train/flatness/trace.0.bias": Estimate(None, note="undefined: it is zero"),
    "train/flatness/trace.2.weight": Estimate(20.0, stderr=1.0),
    "weights/norm/parameters": Estimate(15210.0, seconds=0.0001),
    "train/bound/sigma": Estimate(0.0127, interval=(0.0121, 0.0131), note="accuracy drop 0.1"),
    "test/performance/accuracy": Estimate(0.9749, stderr=0.0064),
    "train/odd/strange": Estimate(1.0),
}


def made(results=RESULTS, pictures=(), title="MLP · 15210 parameters", settings=None, provenance=None):
    return page(results, pictures, title=title, settings=settings or {}, provenance=provenance or {})


class Tables(HTMLParser):
    """Return the text of all cells: a list of rows for each table."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.tables[-1][-1][-1] += data


def test_measures_stand_by_family_and_the_undefined_ones_last():
    rows = Tables(made()).tables[0]
    assert rows == [
        ["measure", "value", "error", "of", "converged", "seconds", "note"],
        ["performance"],
        ["accuracy", "0.9749", "± 0.0064", "test", "", "< 0.001", ""],
        ["norm"],
        ["parameters", "15210", "", "weights", "", "< 0.001", ""],
        ["flatness"],
        ["lambda_1", "14.36", "", "train", "yes", "0.500", ""],
        ["lambda_2", "13.92", "", "train", "no", "0.500", "residual 3.2e−2"],
        ["trace", "140.2", "± 3.2", "train", "", "12.2", ""],
        ["undefined_one", "undefined", "", "train", "", "< 0.001", "no classifier"],
        ["bound"],
        ["sigma", "0.0127", "[0.0121, 0.0131]", "train", "", "< 0.001", "accuracy drop 0.1"],
        ["odd"],
        ["strange", "1", "", "train", "", "< 0.001", ""],
    ]


def test_layers_are_folded_and_their_order_is_the_network_s():
    text = made()
    assert Tables(text).tables[1] == [
        ["layer", "lambda_1", "trace"],
        ["0.weight", "3.500", "50.0± 2.0"],
        ["0.bias", "", "–a"],
        ["2.weight", "1.500b", "20.0± 1.0"],
    ]
    folded = text[text.index("<details>") : text.index("</details>")]
    assert "flatness, layer by layer (3 layers, 2 measures)" in folded
    assert re.search(r"<sup>a</sup> it is zero</li>.*<sup>b</sup> not converged</li>", folded)


def test_layers_measured_on_two_splits_say_which():
    results = {"train/margin/q.0": Estimate(1.0), "test/margin/q.0": Estimate(2.0), "weights/norm/l2.0": Estimate(3.0)}
    first, second = Tables(made(results)).tables[1:]
    assert first == [["layer", "q (train)", "q (test)"], ["0", "1", "2"]]
    assert second == [["layer", "l2"], ["0", "3"]]


def test_the_summary_counts():
    text = Outline(made()).text
    assert "13 values in 13.3 s · 2 undefined · 2 not converged" in text
    assert "1 value in 0.0 s\n" in Outline(made({"a/b/c": Estimate(1.0)})).text


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(0.0), ("0", "")),
        (Estimate(-3.0), ("−3", "")),
        (Estimate(1 / 3), ("0.3333", "")),
        (Estimate(-123.456), ("−123.5", "")),
        (Estimate(123456.7), ("123457", "")),
        (Estimate(1234567.8), ("1.235e6", "")),
        (Estimate(2.0**40), ("1.100e12", "")),
        (Estimate(1.2344e-7), ("1.234e−7", "")),
        (Estimate(1e300), ("1.000e300", "")),
        (Estimate(5e-324), ("4.941e−324", "")),
        (Estimate(14.35812, stderr=0.0213), ("14.358", "± 0.021")),
        (Estimate(14.35812, stderr=0.0), ("14.36", "± 0")),
        (Estimate(0.5, stderr=12.0), ("0.5", "± 12")),
        (Estimate(0.0, stderr=0.25), ("0.00", "± 0.25")),
        (Estimate(1234567.8, stderr=4321.0), ("1.2346e6", "± 4.3e3")),
        (Estimate(3.66e-5, stderr=3.7e-6), ("3.66e−5", "± 3.7e−6")),
        (Estimate(0.7, interval=(0.7, 0.7)), ("0.7000", "[0.7000, 0.7000]")),
        (Estimate(-1.0, interval=(-1.5, -0.5)), ("−1.0", "[−1.5, −0.5]")),
        (Estimate(None), (None, "")),
    ],
)
def test_numbers(estimate, expected):
    assert texts(estimate) == expected


def test_the_page_needs_no_network_and_is_well_formed():
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    outline = Outline(made(pictures=[Picture("a", "Loss along lines", "Zero is the network.", svg)]))
    assert outline.open == []
    assert "script" not in outline.tags
    assert [address.partition(",")[0] for address in outline.fetched] == ["data:image/svg+xml;base64"]
    assert "Loss along lines" in outline.text
    assert "Zero is the network." in outline.text
    text = made()
    assert "@import" not in text
    assert "url(" not in text
    assert "Figures" not in text


def test_a_picture_that_cannot_be_drawn_costs_no_other():
    values = torch.linspace(-1.0, 2.0, 50)
    curves = {"loss_plane": object(), "margins": (values, 0.1)}
    how = {"title": "MLP", "settings": {}, "provenance": {}}
    text, left_out = drawn_page(RESULTS, curves, **how)
    assert left_out.keys() == {"loss_plane"}
    assert left_out["loss_plane"].startswith("AttributeError: ")
    assert text.count("data:image/svg+xml;base64,") == 2  # margins, and layers, which are among the results
    assert drawn_page(RESULTS, None, **how) == (page(RESULTS, [], **how), {})


def test_all_text_is_escaped():
    evil = "<script>alert(1)</script>"
    results = {
        f"train/{evil}/x": Estimate(1.0, note=evil),
        f"{evil.replace('/', '')}/norm/l2{evil}": Estimate(None, note=f"undefined: {evil}"),
        f"train/norm/l2.{evil}": Estimate(None, note=evil),
        f"train/norm/{evil.replace('/', '')}.a": Estimate(1.0),
    }
    text = made(results, [Picture(evil, evil, evil, b"")], evil, {evil: {"k": evil}}, {evil: evil})
    assert "<script" not in text
    outline = Outline(text)
    assert outline.open == []
    assert outline.text.count("<script>") >= 12


def test_nothing_private_is_shown():
    text = made(
        {"train/norm/l2": Estimate(None, note="cannot read /home/ann/runs/weights.pt")},
        title="checkpoint /home/ann/runs/last.ckpt",
        settings={"data": {"root": "/home/ann/data"}},
        provenance={"hostname": "ann-laptop", "data": "/home/ann/set.npz", "torch": "2.13.0"},
    )
    assert "/home/" not in text
    assert "ann-laptop" not in text
    assert "2.13.0" in text
    assert "last.ckpt" in text
    assert "data.root" in text


def test_settings_are_flat():
    text = Outline(made(settings={"measures": {"trace": {"probes": 20, "flag": True}}, "examples": None})).text
    assert re.search(r"measures\.trace\.probes\s*20", text)
    assert re.search(r"measures\.trace\.flag\s*true", text)
    assert re.search(r"examples\s*none", text)
