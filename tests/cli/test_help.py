"""What commands say of themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from genbench.checks import ConfigError
from genbench.cli import catalog
from genbench.cli.commands import MEASURE_HELP, TRAIN_HELP
from genbench.config import folder

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]


def commands(text):
    """The commands of a page: lines of its blocks of code, and what stands in backquotes; without comments."""
    found = re.findall(r"(?m)^\s*(?:\$ )?((?:genbench|pip install|python)(?:-\w+)? [^#\n]*)", text)
    return found + re.findall(r"`((?:genbench(?:-\w+)?|pip install) [^`\n]*)`", text)


@pytest.mark.parametrize("text", [*(page.read_text() for page in PAGES), TRAIN_HELP, MEASURE_HELP])
def test_every_printed_command_can_be_pasted_into_zsh(text):
    """There brackets, stars and question marks are patterns, a tilde a home folder, unless they are quoted."""
    for command in commands(text):
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "Q", command.replace("…", ""))
        if "=" in bare:  # words about a command have none
            assert not re.search(r"[\[\]*?(){}]|(?<=\s)[~=]", bare.partition("    ")[0]), command


def test_the_help_of_a_choice_lists_its_settings_with_their_ranges():
    page = catalog.page("", ["regularization=[sam,l2]", "model=cnn"])
    assert "regularization=sam: sharpness-aware minimization" in page
    assert "  regularization.sam.rho=0.05  radius of the ℓ2 ball, ≥ 0" in page
    assert "  regularization.l2.strength=1e-2  multiplies Σw², ≥ 0" in page
    assert re.search(r"model\.width=25 +channels of each convolution, at least 1", page)
    launcher = catalog.page("", ["hydra/launcher=packed"])
    assert "hydra.launcher.n_jobs=2" in launcher  # of the file that it is made of
    assert "hydra.launcher.lanes=auto" in launcher
    assert catalog.page("", ["regularization=none"]).endswith("nothing to set")
    with pytest.raises(ConfigError, match="regularization=samm: no such choice; did you mean 'sam'"):
        catalog.page("", ["regularization=samm"])


def test_the_help_of_a_group_lists_its_choices():
    page = catalog.page("", ["scheduler"])
    assert page.splitlines()[0] == "scheduler"
    assert len(page.splitlines()) == 1 + len(list((folder() / "scheduler").glob("*.yaml")))


def test_every_setting_of_every_choice_is_found():
    owners = catalog.owners()
    assert owners["regularization.sam.rho"] == ["regularization=sam"]
    assert {"model=cnn", "model=mlp"} <= set(owners["model.width"])
    assert not any("_target_" in key or key.startswith("table") for key in owners)


def test_settings_of_included_files_are_in_the_help_and_the_files_are_no_choices():
    page = catalog.page("", ["data=modular_arithmetic,mnist1d_frozen,cifar100,images"])
    assert re.search(r"^  data\.p=97 +modulus, a prime up to 1000$", page, re.M)
    kind = r"symmetric: by a uniformly drawn class; asymmetric: by the next class; or a confusion matrix \(rows, .*\)"
    assert len(re.findall(rf"^  data\.noise_kind=symmetric +{kind}$", page, re.M)) == 4
    assert re.search(r"^  data\.inputs=original +original, shuffled_pixels \(one order", page, re.M)  # its own comment
    assert re.search(r"^  data\.label=fine_label +column of the labels", page, re.M)  # that of the file it extends
    assert re.search(r"^  data\.path=null +local folder instead of hub", page, re.M)
    for lines in (part.splitlines() for part in page.split("\n\n")):
        assert lines[-1].startswith("  data.seed=${seed} ")  # what is included is last
        assert all(re.search(r"=\S+ +\S", line) for line in lines[1:] if "data.hub" not in line), lines
    assert not any(name.startswith("_") for found in catalog.groups().values() for name in found)
    with pytest.raises(ConfigError, match="data=_shared: no such choice"):
        catalog.page("", ["data=_shared"])


def test_a_users_own_files_are_in_the_help(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# my own\n_target_: mine.Net\nwidth: 3  # units, ≥ 1\n")
    arguments = ["--config-dir", str(tmp_path)]
    assert re.search(r"^  mine +my own$", catalog.page("", arguments), re.M)
    assert "model.width=3  units, ≥ 1" in catalog.page("", [*arguments, "model=mine"])


@pytest.mark.parametrize("words", [["genbench", "--help"], ["genbench-measure"]], ids=" ".join)
def test_what_needs_no_torch_imports_none(words, tmp_path):
    """It takes seconds; these answer in a few tenths of one."""
    program = (
        f"import sys; sys.argv = {words!r}\nfrom genbench import cli\n"
        f"try: cli.{'measure' if 'measure' in words[0] else 'train'}()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_help_shows_the_file_that_hydra_composes(tmp_path):
    """A user's file under a name of ours is not found by Hydra, which looks into our folder first."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mlp.yaml").write_text("# mine\n_target_: mine.Net\n")
    (tmp_path / "model" / "own.yaml").write_text("# my network\n_target_: mine.Net\n")
    found = catalog.groups(("--config-dir", str(tmp_path)))["model"]
    assert found["mlp"] == folder() / "model" / "mlp.yaml"
    assert found["own"] == tmp_path / "model" / "own.yaml"
