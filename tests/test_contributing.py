"""The examples of CONTRIBUTING.md are complete: as they stand on the page they train, measure, sweep and pass lint."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from genbench import config, records, report
from genbench.runs import execute

ROOT = Path(__file__).parents[1]
FILES = {
    Path(name): text
    for name, text in re.findall(
        r"^`([\w/]+\.\w+)`\n\n```\w+\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M | re.S
    )
}
EXPERIMENT = "gradient_noise"


@pytest.fixture(scope="module", autouse=True)
def page(tmp_path_factory):
    """The files of the page in a folder of their own, importable as parts of genbench."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        for path, text in FILES.items():
            assert not (ROOT / path).exists(), f"{path} is there already: show another"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
            if path.parts[0] == "genbench":
                package = importlib.import_module(".".join(path.parent.parts))
                patch.setattr(package, "__path__", [*package.__path__, str(folder / path.parent)])
        yield folder


@pytest.fixture
def run(page, configure):
    """Train one short run of the page's experiment."""

    def run(*overrides):
        plain = configure(f"hydra.searchpath=[file://{page / 'conf'}]", f"experiment={EXPERIMENT}", *overrides)
        record = execute.run(plain)
        assert record["status"] == "completed", record["error"]
        return record, Path(plain["runs_dir"]) / plain["name"], plain["table"]

    return run


def test_the_page_shows_one_file_of_each_kind_and_its_yaml_and_test():
    assert [path.parent.as_posix() for path in FILES] == [
        *("genbench/regularization", "conf/regularization", "tests/regularization"),
        *("genbench/measures", "conf/measures", "tests/measures"),
        "conf/experiment",
    ]


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "tests"], ids=str)
def test_the_tests_of_the_page_pass(page, path):
    tests = [value for name, value in runpy.run_path(str(page / path)).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_the_code_of_the_page_passes_lint(page, arguments):
    ruff = Path(sys.executable).with_name("ruff")
    command = [ruff, *arguments, "--no-cache", "--config", ROOT / "pyproject.toml"]
    command += ["--config", "lint.isort.known-first-party = ['genbench']", page]  # as in a checkout
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_method_trains_and_changes_the_weights(run):
    weights = []
    for method in ("none", "gradient_noise"):
        record, folder, _ = run(f"regularization={method}")
        assert record["choices"]["regularization"] == ([] if method == "none" else [method])
        weights.append(torch.load(folder / record["run_id"] / "weights.pt", weights_only=True))
    assert not torch.equal(weights[0]["head.weight"], weights[1]["head.weight"])


def test_a_record_has_the_measure(run):
    record, _, _ = run("regularization=none")
    curvature, top = (record["metrics"][f"train/flatness/{name}"] for name in ("gradient_curvature", "lambda_1"))
    assert curvature <= top
    assert record["measure_seconds"]["train/flatness/gradient_curvature"] > 0


def test_the_experiment_sweeps_and_has_its_table(run):
    text = next(text for path, text in FILES.items() if path.parts[1] == "experiment")
    params = OmegaConf.create(text).hydra.sweeper.params
    sweep = [f"{key}={value}" for key, value in params.items()]
    grid = [override.sweep_string_iterator() for override in OverridesParser.create().parse_overrides(sweep)]
    assert [len(list(values)) for values in grid] == [5, 2]

    done = [run(f"regularization={method}", f"seed={seed}") for seed in range(2) for method in ("none", EXPERIMENT)]
    record, folder, table = done[0]
    assert {column["metric"] for column in table["columns"]} <= record["metrics"].keys()
    runs = [{"run_id": each["run_id"], "overrides": []} for each, _, _ in done]
    records.write_sweep(folder, {"experiment": EXPERIMENT, "command": [], "table": table, "runs": runs})
    markdown = report.Report(folder).text("markdown")
    assert "missing" not in markdown
    for shown in ("| none |", r"| gradient\_noise |", *(column["label"] for column in table["columns"])):
        assert shown in markdown


def test_settings_of_the_page_are_all_listed(page):
    """What is not in the YAML cannot be swept."""
    for path in (path for path in FILES if path.suffix == ".yaml" and path.parts[1] != "experiment"):
        for name, node in OmegaConf.load(page / path).items():
            if name != "defaults":
                plain = OmegaConf.to_container(node)
                assert config._bind(plain, (path.parts[1], name)) == plain
