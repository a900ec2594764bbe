"""The blocks of code on the pages run as they stand there, in an empty folder, each page from its top to its end.

Commands are given small settings, and train in this process. What a page prints is compared with what the command
printed, numbers apart. A comment before a block says why it is not run: ``<!-- not run: needs a GPU -->``.
"""

import contextlib
import io
import itertools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from genbench import report
from tests.helpers.commands import importable, typed

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
SMALL = ["data.batch_size=20", "trainer.max_steps=6", "trainer.accelerator=cpu", "callbacks.weight_norms=null"]
ONE = ["data.train_size=1100"]  # so many that curvature is measured on a part of them, as the pages show it
QUICK = [f"measures.{name}_sharpness.{key}" for name in ("sam", "adaptive") for key in ("starts=1", "steps=2")]
SWEPT = ["data.train_size=60", "callbacks.measures.examples=20"]
COMMANDS = ("genbench", "genbench-measure", "genbench-table")
SAYS = {"--help", "--cfg", "--dry-run", "--version"}  # a command with one of these trains nothing


class Block(NamedTuple):
    """A block of code: its language, its text, the file that it shows, and why it is not run."""

    language: str
    text: str
    file: str
    reason: str


def without_directives(page):
    return re.sub(r"(?ms)^```\{.*?^```$", "", page.read_text())


def blocks(page):
    found = re.finditer(
        r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?(?:^`(?P<file>[\w/.]+)`\n\n)?"
        r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
        without_directives(page),
        re.M | re.S,
    )
    return [Block(b["language"], b["text"], b["file"] or "", b["reason"] or "") for b in found]


def commands(text):
    """The commands of a shell block as lists of words."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def smaller(words, *, shown):
    """The arguments of a command, with small settings where it trains; norms alone unless more is ``shown``."""
    name, *arguments = words
    if name == "genbench-measure":
        chosen = any(word.startswith("measures=") for word in arguments)
        return [*arguments, "examples=20", *([] if chosen else QUICK)]
    if name == "genbench-table" or SAYS & set(arguments):
        return arguments
    swept = "-m" in arguments or any(word.startswith("experiment=") for word in arguments)
    launched = any(word.startswith("hydra/launcher=") for word in arguments)
    here = ["hydra/launcher=basic"] if swept and not launched else []
    chosen = any(word.startswith("measures=") for word in arguments)
    norms = [] if chosen else QUICK if shown else ["measures=norms"]
    arguments = [re.sub(r"^seed=range\(\d+\)", "seed=range(2)", word) for word in arguments]
    return [*arguments, *SMALL, *(SWEPT if swept else ONE), *here, *norms]


def likened(line):
    """A line without its numbers, intervals, marks, rules and letters of notes."""
    line = re.sub(r"(?<=\d)\s+[a-z](?:, ?[a-z])*\s*$", "", line)
    line = re.sub(r"±\s*|[─━]+|\b[0-9a-f]{12}\b", " ", line)
    return " ".join(re.sub(r"[-+−]?[\d.,]*\d(?:e[-+−]?\d+)?[*†]?", "#", line).split())


class Reader:
    """Who types what a page says, in a folder."""

    def __init__(self, folder):
        self.folder, self.printed, self.names = folder, "", {"__name__": "__main__"}

    def take(self, block, *, shown=True):
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "bash":
            self.printed = "".join(self.typed(words, shown=shown) for words in commands(block.text))
        elif block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.chdir(self.folder):
                exec(compile(block.text, "page", "exec"), self.names)
            self.printed = printed.getvalue()
        elif block.language == "text" and self.printed:
            printed = {likened(line) for line in self.printed.splitlines()}
            for line in filter(None, map(likened, block.text.splitlines())):
                assert line in printed, f"{line!r} is not among what was printed:\n{self.printed}"

    def typed(self, words, *, shown):
        words = [word for word in words if word != "PYTHONPATH=."]
        assert words[0] in COMMANDS, f"{words[0]}: mark the block why it is not run"
        if "RUN_ID" in " ".join(words):
            run = next(path.parent.name for path in sorted(self.folder.glob("runs/*/*/record.json")))
            words = [word.replace("RUN_ID", run) for word in words]
        status, out, err = typed(self.folder, words[0], *smaller(words, shown=shown), columns=80)
        assert status == 0, f"{shlex.join(words)}: {out}{err}"
        return out + err


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_on_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_pictures", lambda *_, **__: [])  # half of a small sweep; they have tests of their own
    reader, code = Reader(tmp_path), blocks(page)
    with importable(tmp_path):
        for block, following in itertools.pairwise([*code, None]):
            if not block.reason:  # what is measured matters where it is printed, or read by Python
                reader.take(block, shown=following is not None and following.language in ("text", "python"))


def test_blocks_are_told_apart():
    """By what they show, and by whether they are run."""
    found = blocks(ROOT / "docs" / "quickstart.md")
    assert {block.language for block in found} == {"bash", "text", "python", "yaml"}
    files = [block.file for block in found if block.file]
    assert files == ["my_methods.py", "my_conf/regularization/gradient_noise.yaml"]
    assert "installs" in [block.reason for block in found]
    for page in PAGES:
        fences = re.findall(r"^```", without_directives(page), re.M)
        assert 2 * len(blocks(page)) == len(fences), page.name


def test_a_page_s_output_is_compared_numbers_apart():
    assert likened("none  64.5 ±1.9   96.0 ±3.4*  ──") == likened("none 1.0 ± 22  5 ±0.001")
    assert likened("record: runs/default/1ea98c14e70e/record.json") == likened(
        "record: runs/default/0123456789ab/record.json"
    )
    assert likened("accuracy 0.5") != likened("loss 0.5")
    reader = Reader(Path())
    reader.printed = "test accuracy 0.7\n"
    reader.take(Block("text", "test accuracy 0.123\n", "", ""))
    with pytest.raises(AssertionError, match="is not among what was printed"):
        reader.take(Block("text", "train accuracy 0.7\n", "", ""))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_path_and_link_of_a_page_is_there(page):
    text = page.read_text()
    own = {block.file for block in blocks(page)}
    rooms = "scripts|benchmarks|conf|docs|genbench|tests|hydra_plugins"
    named = re.findall(rf"(?<![\w/.-])((?:{rooms})/[\w/.-]+\.\w+)", text)
    for path in {path for path in named if "NAME" not in path} - own:
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if not link.startswith(("../generated/", "generated/")):  # written when the site is built
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_benchmark_is_on_its_page():
    from benchmarks.__main__ import NAMES

    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert [name for name in NAMES if f"`{name}`" not in text] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert "required" not in (ROOT / "README.md").read_text()
