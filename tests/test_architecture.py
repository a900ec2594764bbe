"""The rooms of the package: what imports what, and how long a file may be. Imports inside functions count."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import genbench

PACKAGE = Path(genbench.__file__).parent
LONGEST = 450  # lines of a file
# what every room may import: the files beside them, and this; these import one another alone
FOUNDATION = {"process", *(path.stem for path in PACKAGE.glob("*.py"))}
# what else a room may import
ALLOWED = {
    "records": set(),
    "inputs": set(),
    "models": set(),
    "data": {"inputs", "records"},
    "measures": {"data", "inputs", "models", "records"},
    "analysis": {"records"},
    "claims": {"analysis", "records", "runs"},
    "report": {"analysis", "claims", "loggers", "measures", "records"},
    "regularization": {"data", "inputs", "models", "records"},
    "training": {"data", "models", "records", "regularization"},
    "callbacks": {"data", "measures", "models", "records", "training"},
    "loggers": {"records"},
    "runs": {"callbacks", "data", "loggers", "measures", "models", "records", "regularization", "training"},
    "cli": {"claims", "loggers", "records", "report", "runs"},
}


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; a package's is its ``__init__.py``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """The modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module is not None and (node.module + ".").startswith("genbench."):
                module = node.module.removeprefix("genbench").removeprefix(".")
                for name in (f"{module}.{alias.name}".removeprefix(".") for alias in node.names):
                    yield name if name in known else module
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("genbench.") for a in node.names if a.name.startswith("genbench."))


def arrows() -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    files = modules()
    return {name: set(imported(path, set(files))) - {name} for name, path in files.items()}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in the order of their imports; none where there is none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            if found := visit(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := visit(name, []))), [])


def test_the_page_of_the_architecture_says_what_each_room_may_import():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ?([^|]*) \|$", page, re.M)
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert {room: set(re.findall(r"`(\w+)`", said)) for room, said in rows} == {
        room: others & rooms for room, others in ALLOWED.items() if room in rooms
    }


def test_no_module_imports_itself_through_others():
    assert circle(arrows()) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_rooms_import_what_they_may():
    wrong = {}
    for name, others in arrows().items():
        room = name.partition(".")[0]
        if not room:  # the package itself
            assert not others
            continue
        allowed = FOUNDATION | {room} | (set() if room in FOUNDATION else ALLOWED[room])
        if strange := sorted(other for other in others if other.partition(".")[0] not in allowed):
            wrong[name] = strange
    assert wrong == {}


def test_a_file_is_read_in_one_sitting():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: n for name, n in lines.items() if n > LONGEST} == {}


def test_no_test_module_imports_another():
    """What several tests share stands in tests/helpers."""
    tests = Path(__file__).parent
    wrong = []
    for path in tests.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                last = node.module.rpartition(".")[2]
                if last == "conftest" or last.startswith("test_"):
                    wrong.append(f"{path.relative_to(tests)} imports {node.module}")
    assert wrong == []
