"""Rankings of measures: of anybody's CSV file, and of a folder of runs."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import genbench.measures
from genbench import report
from genbench.analysis import rank
from genbench.measures.base import names_of
from genbench.report import ranking
from genbench.report.ranking.text import caption
from tests.helpers import factory
from tests.helpers.browser import assert_fits, needs_chromium
from tests.helpers.commands import typed

GROUPS = ("norm", "path", "spectral", "margin", "flat", "sharp")


def somebody_elses(seeds=2):
    """Runs in the layout of another project: seventeen measures, its own names, an id, an empty cell, test accuracy."""
    draw = np.random.default_rng(0)
    rows = []
    for depth in (2, 4, 8):
        for batch in (32, 64, 128):
            for optimizer in ("SGD", "Adam"):
                for repeat in range(seeds):
                    gap = 0.1 + 0.03 * math.log2(depth) + 0.1 * (optimizer == "Adam") + draw.normal(0, 0.02)
                    row = {"model_id": f"net-{len(rows)}", "Depth": depth, "Batch Size": batch, "Optimizer": optimizer}
                    row |= {"trial": repeat, "Generalization Gap": gap, "Test Accuracy": 1 - gap}
                    for number in range(17):
                        name = f"{GROUPS[number % 6]}_{number}"
                        row[name] = gap * number / 8 + draw.normal(0, 0.1) if number else depth * batch + draw.normal()
                    rows.append(row)
    rows[3]["flat_4"] = ""
    return pd.DataFrame(rows)


@pytest.fixture
def work(tmp_path):
    somebody_elses().to_csv(tmp_path / "theirs.csv", index=False)
    return tmp_path


def test_columns_of_somebody_else_are_found_and_said(work):
    found = ranking.of_file(report.read_csv(work / "theirs.csv"))
    assert found.gap == "Generalization Gap"
    assert found.hyperparameters == ["Depth", "Batch Size", "Optimizer"]
    assert found.measures == [f"{GROUPS[number % 6]}_{number}" for number in range(17)]
    assert found.said[0] == "The gap is Generalization Gap."
    assert found.said[1] == "Seeds are trial."
    assert found.said[2] == "Hyperparameters are Depth, Batch Size and Optimizer."
    assert found.said[4:] == [
        "Not taken for measures, as numbers of the test set hold the answer: Test Accuracy.",
        "Not used: model_id.",
    ]


def test_a_csv_file_is_ranked_without_code(work):
    status, out, err = typed(work, "genbench-table", "theirs.csv", "--rank", "--test-size", "10000", columns=150)
    assert (status, err) == (0, "")
    assert "Which measure predicts Generalization Gap" in out
    assert "(hyperparameters alone)" in out
    assert "flat_4 has no value in 1 of 36 runs" in " ".join(out.split())
    assert [path.name for path in work.iterdir()] == ["theirs.csv"]

    (work / "here").mkdir()
    status, out, err = typed(work, "genbench-table", "theirs.csv", "--rank", "--test-size", "10000", "--output", "here")
    assert (status, err) == (0, "")
    names = ["figures", "ranking.csv", "ranking.html", "ranking.md", "ranking.tex"]
    assert sorted(path.name for path in (work / "here").iterdir()) == names
    drawn = [f"ranking_{name}.{kind}" for name in ("gap", "granulated", "sign_errors") for kind in ("png", "svg")]
    assert sorted(path.name for path in (work / "here" / "figures").iterdir()) == drawn
    rows = list(csv.DictReader(io.StringIO((work / "here" / "ranking.csv").read_text())))
    assert len(rows) == 17 + 4
    (first,) = (row for row in rows if row["measure"] == "sharp_5")
    frame = somebody_elses()
    expected = rank(
        frame,
        gap="Generalization Gap",
        measures=["sharp_5", "norm_0"],
        hyperparameters=["Depth", "Batch Size", "Optimizer"],
    ).table.set_index("measure")
    assert float(first["tau"]) == pytest.approx(expected.loc["sharp_5", "tau"], abs=1e-12)


def test_the_caption_says_whether_seeds_are_shared():
    frame = somebody_elses()
    settings = {"gap": "Generalization Gap", "measures": ["norm_0"], "hyperparameters": ["Depth", "Optimizer"]}
    said = ["p by exchanging whole seeds", "unseen configurations, beyond the shared seeds. reliability"]
    for seeds, shared in ((frame["Batch Size"] + frame["trial"], True), (range(len(frame)), False)):
        ranking = rank(frame.assign(trial=seeds), seeds="trial", permutations=9, **settings)
        assert [words in " ".join(caption(ranking)) for words in said] == [shared] * 2


def test_directions_of_a_file_are_learned_unless_they_are_named(work):
    frame = somebody_elses()
    frame["margin_15"] *= -1
    frame.to_csv(work / "theirs.csv", index=False)
    tau, lines = {}, {}
    for falls in (None, "", "margin_15,flat_16"):
        chosen = () if falls is None else ("--falls", falls)
        status, out, err = typed(work, "genbench-table", "theirs.csv", "--rank", "--format", "csv", *chosen)
        assert (status, err) == (0, "")
        rows = {row["measure"]: row for row in csv.DictReader(io.StringIO(out))}
        tau[falls] = {name: float(rows[name]["tau"]) for name in ("margin_15", "flat_16")}
        lines[falls] = out
    assert tau[""]["margin_15"] < -0.3 < 0.3 < tau[""]["flat_16"]
    assert tau[None] == {"margin_15": -tau[""]["margin_15"], "flat_16": tau[""]["flat_16"]}
    assert tau["margin_15,flat_16"] == {"margin_15": -tau[""]["margin_15"], "flat_16": -tau[""]["flat_16"]}
    assert "Directions are learned" in lines[None]
    assert not any("Directions are learned" in lines[named] for named in ("", "margin_15,flat_16"))


@pytest.mark.parametrize("name", ["ranking.csv", "ranking.md", "ranking.tex", "ranking.html", "figures"])
def test_nothing_but_a_ranking_is_overwritten(work, name):
    (work / "here").mkdir()
    (work / "here" / name).write_bytes((work / "theirs.csv").read_bytes())
    for source in ("theirs.csv", f"here/{name}"):
        before = {path: path.read_bytes() for path in (work / "here").iterdir()}
        status, out, err = typed(work, "genbench-table", source, "--rank", "--output", "here")
        assert (status, out) == (1, "")
        assert err.startswith(f"genbench-table: here/{name} is ")
        assert {path: path.read_bytes() for path in (work / "here").iterdir()} == before


def test_a_layout_of_another_kind_is_read():
    """Seeds under a path, decimal commas, words among numbers, row numbers, and test numbers under other names."""
    theirs = somebody_elses().rename(columns={"trial": "config.seed", "Test Accuracy": "finalTestAcc"})
    theirs["flat_10"] = theirs["flat_10"].map("{:.6f}".format).str.replace(".", ",")
    theirs["path_7"] = ["diverged", "-", *theirs["path_7"].astype(str)[2:]]
    theirs.insert(0, "", range(len(theirs)))
    theirs["_timestamp"] = range(len(theirs))
    found = ranking.of_file(theirs.astype(str))
    assert found.seeds == "config.seed"
    assert found.hyperparameters == ["Depth", "Batch Size", "Optimizer"]
    assert found.measures == [f"{GROUPS[number % 6]}_{number}" for number in range(17)]
    assert found.answers == ["finalTestAcc"]
    assert found.frame["path_7"].isna().sum() == 2
    assert found.frame["flat_10"].to_numpy() == pytest.approx(somebody_elses()["flat_10"], abs=1e-6)
    assert "No numbers, and taken for missing: -, diverged in path_7." in found.said
    assert "The commas of flat_10 are read as points." in found.said
    assert found.said[-1] == "Not used: a column without a name, model_id and _timestamp."


def test_percents_are_read_as_hundredths():
    theirs = somebody_elses()
    theirs["Generalization Gap"] = theirs["Generalization Gap"].map("{:.3%}".format)
    found = ranking.of_file(theirs.astype(str))
    assert found.frame["Generalization Gap"].to_numpy() == pytest.approx(
        somebody_elses()["Generalization Gap"], abs=1e-5
    )
    assert "The percents of Generalization Gap are read as hundredths." in found.said


def test_commas_of_thousands_are_no_decimal_commas():
    theirs = somebody_elses()
    theirs["flat_10"] = [f"{400 + 331 * number:,}" for number in range(len(theirs))]
    assert theirs["flat_10"].str.contains(",").any()
    assert not theirs["flat_10"].str.contains(",").all()
    found = ranking.of_file(theirs.astype(str))
    assert found.frame["flat_10"].tolist() == [400 + 331 * number for number in range(len(theirs))]
    assert "The commas of flat_10 are read as those of thousands." in found.said


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv"])
def test_the_formats_hold_every_row(work, kind):
    status, out, err = typed(work, "genbench-table", "theirs.csv", "--rank", "--format", kind)
    assert (status, err) == (0, "")
    for name in ("path_1", "margin_15"):
        escaped = {"markdown": name.replace("_", r"\_"), "latex": name.replace("_", r"\_"), "csv": name}[kind]
        assert escaped in out
    assert "noisy oracle" in out
    assert "Seeds are trial." in out


def test_a_folder_of_runs_is_ranked(ablation, tmp_path):
    status, out, err = typed(tmp_path, "genbench-table", str(ablation), "--rank", "--format", "csv")
    assert (status, err) == (0, "")
    rows = {row["measure"]: row for row in csv.DictReader(io.StringIO(out))}
    assert {"weights/norm/l2", "train/flatness/adaptive_sharpness", "hyperparameters alone"} <= rows.keys()
    assert not [name for name in rows if name.startswith("test/")]
    assert "data.label_noise" in next(iter(rows.values()))["notes"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rank --gap gapp", "there is no column 'gapp'; accepted: "),
        ("--rank --falls norm0", "--falls names 'norm0'; did you mean 'norm_0'?"),
        ("--gap gap", "--gap is of --rank"),
        ("--rank --rows Depth", "--rank takes no --rows"),
        ("--rank --format html", "--rank takes no --format html"),
        ("--rank --output nowhere", "--output is nowhere; accepted: a folder"),
        ("--within norm_0=0:1", "--within is of --rank"),
        ("--rank --within norm_0", "--within is 'norm_0'; accepted: NAME=LOW:HIGH, such as train/performance/loss=0.0"),
        ("--rank --within norm_0=2:1", "--within is 'norm_0=2:1'; accepted: NAME=LOW:HIGH"),
        ("--rank --within norm=0:1", "there is no column 'norm'; did you mean 'norm_"),
        ("--rank --within norm_6=9:", "no run lies within: 36 of 36 runs are left out, as they do not have norm_6 in"),
        ("--rank --measures Optimizer", "column Optimizer holds 'SGD'; accepted: numbers"),
        (
            "--rank --hyperparameters model_id,trial --baseline x",
            "baseline is 'x'; accepted: Depth, Batch Size, norm_0",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(work, words, message):
    status, out, err = typed(work, "genbench-table", "theirs.csv", *words.split())
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("genbench-table: ")
    assert message in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="Generalization Gap"), "no column is called gap; name one with --gap, of "),
        (lambda frame: frame.assign(gap=1), "Generalization Gap and gap are called gap; name one with --gap"),
        (lambda frame: frame[["Generalization Gap", "Depth"]], "no column looks like a measure; name some with --meas"),
        (lambda frame: frame[["Generalization Gap", "norm_0"]], "no column looks like a hyperparameter; name some"),
        (lambda frame: frame.set_axis(["norm_0", *frame.columns[1:]], axis=1), "the column 'norm_0' appears twice"),
    ],
)
def test_what_cannot_be_found_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        ranking.of_file(change(somebody_elses().astype(str)))


def test_runs_outside_a_window_are_left_out_and_said_once(work):
    frame = somebody_elses().assign(**{"train loss": [0.01] * 33 + [0.02, 0.05, math.nan]})
    frame.to_csv(work / "theirs.csv", index=False)
    (work / "here").mkdir()
    words = ["theirs.csv", "--rank", "--within", "train loss=0.009:0.011", "--output", "here"]
    status, out, err = typed(work, "genbench-table", *words, columns=150)
    assert (status, err) == (0, "")
    said = "3 of 36 runs are left out, as they do not have train loss in [0.009, 0.011]. Left out: Depth 0 % of 2"
    texts = [out, *((work / "here" / f"ranking.{kind}").read_text() for kind in ("md", "html"))]
    for text in texts:
        assert " ".join(text.replace("\\", "").split()).count(said) == 1
        assert "τ with those left out" in text
        assert "(train loss)" in text
    assert "33 runs of 17 configurations" in " ".join(out.split())
    page = (work / "here" / "ranking.html").read_text()
    assert (
        len(
            json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])["columns"][
                "train loss"
            ]
        )
        == 33
    )
    plain = typed(work, "genbench-table", "theirs.csv", "--rank", "--measures", "norm_0", "--hyperparameters", "Depth")[
        1
    ]
    assert "left out" not in plain.replace("are left out.", "")


def test_a_diverged_run_of_a_folder_does_not_lie_within(ablation):
    selection = report.load(ablation)
    loss = "train/performance/cross_entropy"
    runs = [run for run in selection.runs if run.record is not None]
    gone = replace(runs[0], record={**runs[0].record, "status": "diverged"})
    selection = replace(selection, runs=[gone, *runs[1:]])
    columns = ranking.of_selection(selection, within=[loss])
    assert len(columns.frame) == len(runs)
    assert loss not in columns.measures
    found = ranking.ranked(columns, within={loss: (0, math.inf)}, permutations=9)
    assert found.runs == len(runs) - 1
    assert f"1 of {len(runs)} runs are left out, as they do not have {loss} in [0, inf]." in found.notes
    assert len(ranking.of_selection(selection).frame) == len(runs) - 1


@pytest.mark.parametrize("values", [(0.9, 0.9), (0.5, 0.9)])
def test_a_setting_of_one_choice_names_it_only_where_it_varies(tmp_path, values):
    def change(item):
        if item["seed"] < 2:
            item["choices"]["optimizer"] = "momentum"
            item["config"]["optimizer"]["momentum"] = values[item["seed"]]
        return item

    columns = ranking.of_selection(report.load(factory.ablation(tmp_path / "ablation", change=change)))
    assert set(columns.frame["optimizer"]) == (
        {"adam", "momentum"} if len(set(values)) == 1 else {"adam", "momentum momentum=0.5", "momentum momentum=0.9"}
    )


FALL = {
    *(f"margin/{kind}margin" for kind in ("", "input_", "normalized_", "augmented_")),
    *(f"margin/margin_q{quantile}" for quantile in (10, 25, 50, 75, 90)),
    "margin/normalized_margin_q50", "margin/margin_over_spectral", "margin/margin_over_frobenius",
    "robustness/pal_score_augmentation", "robustness/mixup_accuracy",
}  # fmt: skip
RISE = {
    "margin/inverse_margin", "margin/negative_entropy", "norm/path_norm_over_margin",
    *(f"norm/log_{kind}_over_margin" for kind in ("prod_of_fro", "sum_of_fro", "prod_of_spec", "sum_of_spec")),
    *(f"norm/log_{kind}_of_spec_over_margin_fft" for kind in ("prod", "sum")),
    *(f"bound/spectral_{kind}" for kind in ("over_margin", "margin_bound", "init_over_margin", "init_margin_bound")),
    "bound/path_norm_over_margin_over_examples", "robustness/gi_score_augmentation", "robustness/mixup_cross_entropy",
}  # fmt: skip


def test_margins_fall_and_what_is_divided_by_them_rises(tmp_path):
    def change(item):
        draw = np.random.default_rng(item["seed"])
        item["metrics"] |= {f"train/{name}": float(draw.random()) for name in FALL | RISE}
        return item

    columns = ranking.of_selection(report.load(factory.ablation(tmp_path / "ablation", change=change)))
    assert {f"train/{name}" for name in FALL | RISE} <= set(columns.measures)
    assert columns.directions == {f"train/{name}": -1 for name in FALL}


def test_every_metric_with_a_margin_in_its_name_is_known_to_fall_or_to_rise():
    """A new one is to be looked at."""
    own = [getattr(genbench.measures, name) for name in genbench.measures.__all__]
    names = {f"{of.family}/{name}" for of in own if hasattr(of, "family") for name in names_of(of.__name__, of)}
    found = {name.replace("*", "50") for name in names if re.search("margin(?!al)", name)}
    assert found == {name for name in FALL | RISE if "margin" in name} - {"bound/path_norm_over_margin_over_examples"}


def test_steps_and_train_size_are_controls_of_a_folder_where_they_vary(ablation, tmp_path):
    def change(item):
        item["config"]["data"]["train_size"] = 500 if item["seed"] == 1 else 1000
        item["metrics"]["train/optimization/steps"] = 100.0 * item["seed"]
        return item

    columns = ranking.of_selection(report.load(factory.ablation(tmp_path / "ablation", change=change)))
    assert columns.beside == ["train/optimization/steps", "train size"]
    assert set(columns.frame["train size"]) == {500, 1000}
    found = ranking.ranked(columns, permutations=9).table.set_index("measure")
    assert found.loc[columns.beside, "control"].all()
    assert ranking.of_selection(report.load(ablation)).beside == []


def test_the_page_holds_the_runs_and_sorts(work):
    frame = report.read_csv(work / "theirs.csv")
    columns = ranking.of_file(frame)
    found = rank(columns.frame, gap=columns.gap, measures=columns.measures, hyperparameters=columns.hyperparameters)
    html = ranking.page(found, columns)
    assert len(html) < 15e6
    data = json.loads(re.search(r'<script id="runs" type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert data["gaps"] == ["Generalization Gap", "Test Accuracy"]
    assert data["columns"]["flat_4"][3] is None
    assert data["columns"]["path_1"][0] == pytest.approx(float(frame["path_1"].iloc[0]), rel=1e-5)
    assert data["columns"]["Optimizer"][:2] == ["SGD", "SGD"]


def test_each_column_of_the_page_sorts_by_its_own_number():
    draw = np.random.default_rng(0)
    grid = pd.DataFrame([(net, width) for net in ("cnn", "mlp") for width in range(12)], columns=["net", "width"])
    frame = grid.assign(gap=draw.random(24), one=draw.random(24), two=draw.random(24))
    columns = ranking.of_file(frame, gap="gap", measures=["one", "two"], hyperparameters=["net", "width"])
    found = ranking.ranked(columns, permutations=9)
    html = ranking.page(found, columns)
    for row in found.rows:
        if row["measure"] in columns.measures:
            assert row["parts"] == 2
            assert f'data-key="{row["lowest"]}"' in html
            assert f'data-key="{row["difference"]}"' in html


@needs_chromium
@pytest.mark.parametrize("width", [1400, 800])
def test_the_page_works_in_a_browser(work, width):
    columns = ranking.of_file(report.read_csv(work / "theirs.csv"))
    found = rank(columns.frame, gap=columns.gap, measures=columns.measures, hyperparameters=columns.hyperparameters)
    path = work / "ranking.html"
    html = ranking.page(found, columns)
    # what a reader does, and what they then see, for the probe of the console to report
    acts = """<script>
    const points = () => at("plot").data.reduce((sum, each) => sum + each.x.length, 0);
    const say = (condition, words) => condition || console.error(words);
    const change = (id, value) => { at(id).value = value; at(id).dispatchEvent(new Event("change")); };
    say(points() === 36, `points: ${points()}`);
    change("setting", "Depth"); change("value", "4");
    say(points() === 12 && at("said").textContent === "12 of 36 runs", `filtered: ${points()}`);
    change("setting", "");
    change("measure", "flat_4");
    say(points() === 35 && at("said").textContent.endsWith("1 have no value"), at("said").textContent);
    change("colour", "path_1"); say(at("plot").data.length === 1, "a colour of many values is a scale");
    change("colour", "Optimizer"); say(at("plot").data.length === 2, "a colour of two values is two");
    change("gap", "Test Accuracy"); say(at("plot").layout.yaxis.title.text === "Test Accuracy", "the gap is another");
    const values = () => [...body.rows].map((row) => Number(row.cells[2].dataset.key));
    const head = document.querySelector('th[data-column="2"]'); head.click();
    say(values().every((value, i) => !i || values()[i - 1] >= value), "τ falls");
    head.click(); say(values().every((value, i) => !i || values()[i - 1] <= value), "τ rises");
    document.querySelector("tr.control").click(); say(at("measure").value === "flat_4", "a control is no column");
    [...body.rows].find((row) => row.dataset.measure === "norm_0").click();
    say(at("measure").value === "norm_0", "a row picks its measure");
    </script>"""
    path.write_text(html.replace("</body>", acts + "</body>"))
    assert_fits(path, width)
