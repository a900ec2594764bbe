"""Pages that are written when the site is built: from the docstrings, the YAML files and what experiments printed.

By itself, ``python docs/generate.py`` writes the pages of papers, ``docs/papers/``, which are committed.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from genbench import measures
from genbench.cli import catalog
from genbench.config import folder
from genbench.report.papers import page, scoreboard
from genbench.report.render import escaped
from genbench.report.strategies import described

TESTS = Path(__file__).parents[1] / "tests"
PAPERS = Path(__file__).parent / "papers"  # a page for each paper that has a summary
RANKINGS = Path(__file__).parent / "rankings"  # a page each, with the tables that genbench-table --rank wrote
PREDICTS = Path(__file__).parent / "what-predicts.md"  # has their τ side by side, between two comments
MEASURED = Path(__file__).parent / "measured" / "strategies.md"  # as genbench-table FOLDER … --strategies wrote it
FAMILIES = {
    "performance": "How well the network does its task.",
    "gap": "The difference between the splits.",
    "memorization": "What is answered right only where it was trained on, by ensembles with data.left_out.",
    "norm": "The size of the weights.",
    "margin": "How clearly the network decides.",
    "flatness": "How the loss changes around the weights.",
    "optimization": "The gradient and its noise.",
    "information": "What layers keep of inputs and labels; code lengths; how complex and how probable the function is.",
    "representation": "The geometry of the features.",
    "bound": "Generalization bounds and the quantities in them.",
    "interpolation": "The training labels interpolated by a kernel, in closed form and without the network.",
    "sensitivity": "How outputs and loss change with the input.",
    "robustness": "How well it does on inputs that were changed.",
}


def write(target: Path) -> None:
    """Write every generated page; a page that has not changed keeps its time, so that Sphinx does not read it again."""
    target.mkdir(exist_ok=True)
    pages: dict[str, Callable[[], Iterator[str]]] = {
        "strategies": strategies,
        "measures": measures_page,
        "data": lambda: components("data", "Data", "data=NAME", DATA),
        "models": lambda: components("model", "Models", "model=NAME", MODELS),
        "optimizers": optimizers,
        "experiments": experiments,
        "papers": papers,
    }
    for name, lines in pages.items():
        text = "\n".join(lines()) + "\n"
        path = target / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


DATA = """\
Every data set takes the same settings for the role of data: the number of train examples, label noise (symmetric,
asymmetric or by a confusion matrix), class imbalance, duplicates, and inputs that are shuffled or random. With
`data.batch_size=null` a step sees all examples."""

MODELS = """\
Networks are plain `nn.Module`s and take the shape of their input and the number of classes from the data. Tokens reach
any of them through a learned embedding. Width, depth, the scale of the initial weights and the parametrization
(standard, NTK, maximal update) are settings. `measures=size` puts parameters and FLOPs into the record. Any other class
is a choice by `model._target_`: see [your own model](../how-to/own-model.md)."""


def strategies() -> Iterator[str]:
    """What each strategy is, and what it did."""
    found = MEASURED.read_text()
    captions = re.findall(r"^- (\*\*.*)$", found.partition("\n## ")[0], re.M)
    results = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", found))
    yield "# Strategies\n"
    yield "Choose one with `regularization=NAME`, or combine several: `'regularization=[l2,mixup,sam]'`. `none` is no"
    yield "regularization, the baseline of most tables."
    yield "Definitions and sources are the docstrings'. The numbers are measured: means over five seeds with Student-t"
    yield "95 % intervals, and differences from the baseline, paired by seed. *Better* and *worse* are differences with"
    yield "p < 0.05 in a t test, after Holm's correction within the column; *undecided* does not mean equal."
    yield "What was trained stands [at the end of the page](#the-experiments)."
    for name, path in choices("regularization"):
        node = yaml.safe_load(path.read_text())
        if not node:
            continue
        yield f"\n## {name}\n"
        yield f"{sentence(catalog.about(path))}\n"
        yield described(node[name]["_target_"]) + "\n"
        yield from settings_table("regularization", path)
        for line in re.findall(r"^\*\*.*$", results.get(name, ""), re.M):
            yield from measured_table(line)
    yield "\n## The experiments\n"
    for caption in captions:
        about, _, statistics = caption.partition(" Mean ± half-width")
        yield f"- {about} {re.search(r'[0-9]+ comparisons', statistics)[0]} in a column."


def measured_table(line: str) -> Iterator[str]:
    """The line of a strategy in an experiment as a table: a row a column of the experiment's table."""
    title, rest = re.fullmatch(r"\*\*(.+?)\*\*(.*)", line).groups()
    shown, _, rest = rest.partition(": *")
    numbers, _, verdicts = f"*{rest}".partition(" In parentheses the difference from ")
    against, _, verdicts = verdicts.partition(", paired by seed. After correction: ")
    verdict = {}
    for part in verdicts.rstrip(".").split("; "):
        word, _, columns = part.partition(": ")
        verdict |= dict.fromkeys(re.findall(r"\*(.+?)\*", columns), word)
    row = shown.strip().removeprefix("(").removesuffix(")")
    yield f"\n**{title}**{f', {row}' if row else ''}\n"
    yield f"| | mean | difference from {against or 'the baseline'} | after correction |\n|:--|--:|--:|:--|"
    for column, mean, _, difference in re.findall(r"\*(.+?)\* ([^;(]+?)( \(([^)]*)\))?(?:; |\.$|$)", numbers):
        word = verdict.get(column, "")
        yield f"| {column} | {mean} | {difference} | {f'**{word}**' if word in ('better', 'worse') else word} |"
    yield ""


def measures_page() -> Iterator[str]:
    """Every measure by family, with the sets of measures that hold it and the tests of its value."""
    sets = {name: targets(path) for name, path in choices("measures")}
    tested = oracles()
    yield "# Measures\n"
    yield "A measure is a function of a `Snapshot`. It works alone and in a callback. `measures=NAME` chooses a set:\n"
    yield "| set | measures |\n|:--|:--|"
    yield from (f"| `{name}` | {catalog.about(path)} |" for name, path in choices("measures"))
    yield ""
    yield "A value that is not defined for a network is `None`, with the reason as its note. A stochastic measure"
    yield "returns a standard error, an iterative one whether it converged. Its key in a record is `split/family/name`."
    yield "`callbacks=robustness` takes the measures of robustness on the test split. An oracle is a test of the value"
    yield "against a closed form, a case worked by hand, a dense float64 computation or another library."
    functions = {name: getattr(measures, name) for name in measures.__all__}
    for family, about in FAMILIES.items():
        yield f"\n## {family}\n\n{about}"
        for name, function in functions.items():
            if getattr(function, "family", None) == family:
                yield f"\n### {name}\n"
                yield described(f"genbench.measures.{name}") + "\n"
                having = [each for each, found in sets.items() if name in found]
                shown = inspect.signature(function).parameters.values()
                values = ", ".join(
                    f"`{p.name}`" if p.default is p.empty else f"`{p.name}={p.default!r}`"
                    for p in shown
                    if p.kind is p.KEYWORD_ONLY
                )
                yield f"Settings: {values}.\n" if values else ""
                yield f"In: {', '.join(f'`measures={each}`' for each in having)}.\n" if having else ""
                checked = [
                    f"{', '.join(f'`{test}`' for test in tests)} (`{path}`)"
                    for path, tests in tested.get(name, {}).items()
                ]
                yield f"Oracle: {'; '.join(checked)}.\n" if checked else ""


def oracles() -> dict[str, dict[str, list[str]]]:
    """Measure -> file -> the tests there that ``pytest.mark.oracle(measure, …)`` marks."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.oracle":
                    for name in map(ast.literal_eval, mark.args):
                        file = path.relative_to(TESTS.parent).as_posix()
                        found.setdefault(name, {}).setdefault(file, []).append(node.name)
    return found


def components(group: str, title: str, how: str, about: str) -> Iterator[str]:
    """A page of the choices of a group: what each is, its settings."""
    yield f"# {title}\n\nChoose one with `{how}`.\n"
    yield about
    yield from entries(group)


def optimizers() -> Iterator[str]:
    yield "# Optimizers and schedules\n"
    yield "Choose an optimizer with `optimizer=NAME` and a schedule of its learning rate with `scheduler=NAME`."
    yield "Any other is a choice by `optimizer._target_`: see [your own optimizer](../how-to/own-optimizer.md)."
    yield "\n## Optimizers"
    yield from entries("optimizer", level="###")
    yield "\n## Schedules"
    yield from entries("scheduler", level="###")


def entries(group: str, level: str = "##") -> Iterator[str]:
    for name, path in choices(group):
        node = yaml.safe_load(path.read_text()) or {}
        yield f"\n{level} {name}\n\n{sentence(catalog.about(path))}\n"
        target = str(node.get("_target_", ""))
        if target.startswith("genbench."):
            yield described(target) + "\n"
        elif target:
            yield f"`{target}`.\n"
        yield from settings_table(group, path)


def experiments() -> Iterator[str]:
    """Every experiment: its grid, its rows, its caption."""
    yield "# Experiments\n"
    yield "An experiment is a file of settings, a grid of runs and a table. `genbench experiment=NAME` trains it and"
    yield "prints the table; `--dry-run` lists its runs first. [Results](../results.md) has what they gave."
    for name, path in choices("experiment"):
        node = yaml.safe_load(path.read_text())
        sweeper = node.get("hydra", {}).get("sweeper", {})
        table = node.get("table", {})
        yield f"\n## {name}\n\n{sentence(catalog.about(path))}\n"
        yield f"`genbench experiment={name} hydra/launcher=packed`\n"
        if table.get("caption"):
            yield f"{' '.join(table['caption'].split())}\n"
        grids = [sweeper.get("params") or {}, *(sweeper.get("grids") or [])]
        if any(grids):
            yield "| swept | values |\n|:--|:--|"
        for grid in grids:
            for key, values in grid.items():
                yield f"| `{key}` | {cell(str(values))} |"
        rows = ", ".join(f"`{row}`" for row in (table.get("rows") or []))
        columns = ", ".join(dict.fromkeys(f"`{column['metric']}`" for column in (table.get("columns") or [])))
        yield f"\nRows: {rows}. Columns: {columns}.\n" if rows and columns else ""


def papers() -> Iterator[str]:
    """The scoreboard: a row a paper or a study, by the summaries of their runs, and a link to the page of each."""
    shown = scoreboard.board([folder()])
    yield "# Papers\n"
    yield "Each of these experiments reruns a published paper at the scale of a laptop, prints its table, and says of"
    yield "each claim whether it replicates there, by a rule that was fixed before the runs. `genbench experiment=NAME`"
    yield "trains one, `make papers` all, and `genbench-table --papers` prints this board for your own runs.\n"
    pages: list[str] = []
    studies = [entry for entry in shown.entries if entry.paper.link is None]
    yield from _board("paper", [entry for entry in shown.entries if entry not in studies], shown, pages)
    yield "\n## Studies of genbench's own\n"
    yield "They ask what no paper gives a number for, by the same rules.\n"
    yield from _board("study", studies, shown, pages)
    yield f"\n{escaped(scoreboard.ERRORS)}\n"
    if pages:
        listed = "\n".join(f"../papers/{name}" for name in pages)
        yield f"```{{toctree}}\n:maxdepth: 1\n:hidden:\n\n{listed}\n```"


def _board(head: str, entries: list[scoreboard.Entry], shown: scoreboard.Board, pages: list[str]) -> Iterator[str]:
    """A table of entries; the names of those that have a page are added to ``pages``."""
    yield f"| {head} | claims | cost |\n|:--|:--|:--|"
    for entry in entries:
        name = entry.experiment.choice
        if (PAPERS / f"{name}.md").exists():
            pages.append(name)
            linked = f"[{escaped(name)}](../papers/{name}.md)"
        else:
            linked = escaped(name)
        claims = "<br>".join(f"{escaped(row.claim)}: {row.status}" for row in entry.verdicts)
        cited = f" {escaped(entry.paper.citation)}." if entry.paper.link else ""
        about = f"{linked}<br>{escaped(entry.paper.title)}.{cited}"
        costs = "<br>".join(f"{cost.of}: {escaped(str(cost))}" for cost in shown.of(entry))
        yield f"| {about} | {claims} | {costs} |"


def what_predicts() -> str:
    """The page with τ of each measure that several rankings have."""
    pages = sorted(RANKINGS.glob("*.md"))
    found: dict[str, dict[str, str]] = {}
    for path in pages:
        tau, wrong = (dict(column(path.read_text(), name)) for name in ("τ", "wrong in"))
        for row, value in tau.items():
            name = shown(row.replace("\\_", "_"))
            about = f"; {wrong[row]}" if wrong.get(row, "–") != "–" else ""
            found.setdefault(name, {})[path.stem] = value + about
    rows = [(name, own) for name, own in found.items() if len(own) > 1]
    rows.sort(key=lambda row: -sum(map(first_number, row[1].values())) / len(row[1]))
    lines = ["| measure | " + " | ".join(f"[{path.stem}](rankings/{path.name})" for path in pages) + " |"]
    lines.append("|:--|" + "--:|" * len(pages))
    lines += [f"| {name} | " + " | ".join(own.get(path.stem, "–") for path in pages) + " |" for name, own in rows]
    before, rest = PREDICTS.read_text().split("<!-- side by side -->\n")
    after = rest.partition("<!-- end -->\n")[2]
    return before + "\n".join(["<!-- side by side -->", *lines, "<!-- end -->", after])


def shown(row: str) -> str:
    """The name of a row, the same in every ranking; controls stand in brackets.

    >>> shown("train/bound/path_norm_over_examples"), shown("(train/performance/accuracy)"), shown("(noisy oracle)")
    ('`path_norm`', '(train `accuracy`)', '(noisy oracle)')
    """
    if row.startswith("("):
        return f"({shown(row[1:-1])})"
    split, _, rest = row.partition("/")
    family, _, name = rest.partition("/")
    if not name:
        return row
    return f"{f'{split} ' if family == 'performance' else ''}`{name.removesuffix('_over_examples')}`"


def column(text: str, name: str) -> Iterator[tuple[str, str]]:
    """The cells of a column of a page's tables, with the first of each row."""
    tables = re.findall(r"(?m)^\|.*\n\|:--.*\n(?:\|.*\n)+", text)
    for header, _, *rows in (table.splitlines() for table in tables):
        names = [part.strip() for part in header.strip("|").split("|")]
        if name in names:
            for row in rows:
                cells = [part.strip() for part in row.strip("|").split("|")]
                yield cells[0], cells[names.index(name)]


def first_number(text: str) -> float:
    return float(text.split()[0].replace("−", "-")) if text[0] != "–" else 0.0


def choices(group: str) -> list[tuple[str, Path]]:
    paths = sorted((folder() / group).glob("[!_]*.yaml"))  # an underscore: what several of them include
    return [(path.stem, path) for path in paths]


def settings_table(group: str, path: Path) -> Iterator[str]:
    """What a choice can be set to: keys, values, comments, as ``genbench GROUP=NAME --help`` lists them."""
    if found := catalog.settings(group, path):
        yield "| setting | default | |\n|:--|:--|:--|"
        yield from (f"| `{each.key}` | `{each.value}` | {cell(each.about)} |" for each in found)
        yield ""


def targets(path: Path) -> set[str]:
    """The names of the functions that a set of measures holds, those of the sets it is made of included."""
    node: dict[str, Any] = yaml.safe_load(path.read_text())
    found = set()
    for key, value in node.items():
        if key == "defaults":
            for base in value:
                if isinstance(base, str) and base != "_self_":
                    found |= targets(path.with_name(f"{base}.yaml"))
        elif isinstance(value, dict) and "_target_" in value:
            found.add(value["_target_"].rpartition(".")[2])
    return found


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


if __name__ == "__main__":
    for written in page.write(scoreboard.board([folder()]), PAPERS):
        print(written.relative_to(PAPERS.parents[1]))
    PREDICTS.write_text(what_predicts())
