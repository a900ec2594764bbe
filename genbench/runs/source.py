"""Find the code that makes a run, the modules of its targets and their imports, without importing any."""

import ast
import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genbench.records import digest, file_digest

NAMED_BY = (
    "get_class",
    "get_method",
    "get_object",
    "get_static_method",
)  # of hydra.utils, with a ``path``
_INIT = "__init__"
_SUFFIXES = (  # in Python's search order
    *importlib.machinery.EXTENSION_SUFFIXES,
    *importlib.machinery.SOURCE_SUFFIXES,
    *importlib.machinery.BYTECODE_SUFFIXES,
)
_SETTLED = 2.0  # seconds: a younger file may change again without a new time
_SILENT = ("ctx", "kind", "type_comment")  # fields of a syntax tree without meaning for the code


@dataclass(frozen=True)
class Source:
    """The user's own code.

    Attributes:
        digest: of all of it; None if everything belongs to genbench or a library.
        modules: name -> digest of each module's code, without comments, docstrings and layout.
        notes: the parts that cannot be followed, a line each.
    """

    digest: str | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Module:
    """The place of a module: its file (None for a namespace or a built-in) and the folders of its submodules."""

    file: str | None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Code:
    """The content of a file: the digest of its code, its imports as (level, module, names), and its ``__all__``."""

    digest: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...] = ()
    public: tuple[str, ...] = ()


# modules that this process has imported: their code at that time counts, whatever their files hold now
_imported: dict[str, tuple[Any, str, tuple[str, ...]]] = {}  # name -> spec, digest, the user's modules it imports


def targets(node: Any) -> Iterator[str]:
    """Yield the dotted names of everything that a configuration builds or looks up, at any depth."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str):
            yield target
            if target.rpartition(".")[2] in NAMED_BY and isinstance(node.get("path"), str):
                yield node["path"]
        node = node.values()
    elif not isinstance(node, list | tuple):
        return
    for value in node:
        yield from targets(value)


def of(names: Iterable[str]) -> Source:
    """Return the user's code behind dotted names: their modules and the modules that these import, in functions too,
    outside the standard library, site-packages and genbench.

    A module counts by its name and the content of its file, wherever the file lies. If this process has imported it
    already, the imported code counts: after an edit the process still runs that. Imports by computed names are not
    found.
    """
    walk = _Walk()
    for name in sorted(set(names)):
        walk.add(name)
    walk.store()
    if not walk.digests:
        return Source(None, {}, tuple(walk.notes))
    modules = dict(sorted(walk.digests.items()))
    return Source(digest(modules)[:16], modules, tuple(walk.notes))


@functools.cache
def of_file(path: str) -> str:
    """Return the digest of the code in a file, as of the first call: its comments and docstrings do not count."""
    return _parse(path).digest


@functools.cache
def of_genbench() -> str:
    """Return the digest of genbench's own files, as of the first call in this process."""
    package = Path(__file__).parents[1]
    return digest({path.relative_to(package).as_posix(): file_digest(path) for path in package.rglob("*.py")})[:16]


class _Walk:
    """Follows names to modules and modules to their imports."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.notes: list[str] = []
        self._found: dict[str, _Module | None] = {}
        self._listed: dict[str, frozenset[str]] = {}
        self._code = _Store()

    def store(self) -> None:
        self._code.write()

    def add(self, name: str) -> None:
        """Follow the dotted name of an object."""
        parts = name.split(".")
        if parts[0] == "__main__":
            self._add_main(name)
            return
        known = [prefix for n in range(1, len(parts) + 1) if self._find(prefix := ".".join(parts[:n])) is not None]
        if not known:
            if parts[0] in sys.modules:
                self.notes.append(f"the code of {name} is in no file: changes of it are not noticed")
            return
        self._visit(known[-1])

    def _add_main(self, name: str) -> None:
        file = getattr(sys.modules.get("__main__"), "__file__", None)
        if file is None or not os.path.isfile(file):
            self.notes.append(f"the code of {name} is in no file (a notebook's, say): changes of it are not noticed")
            return
        code = self._code.code(os.path.realpath(file), os.path.dirname(os.path.realpath(file)))
        self.digests["__main__"] = code.digest
        self.notes.append(f"the code of {name} is that of the program itself: other processes cannot import it")
        for module in self._imports("__main__", _Module(file), code):
            self._visit(module)

    def _visit(self, name: str) -> None:
        """Follow a module, its parents and its imports."""
        todo = [name]
        while todo:
            parts = todo.pop().split(".")
            for prefix in (".".join(parts[:n]) for n in range(len(parts), 0, -1)):
                if prefix not in self.digests:
                    todo += self._read(prefix)

    def _read(self, name: str) -> tuple[str, ...]:
        """Note the digest of one of the user's modules and return those that it imports."""
        spec = getattr(sys.modules.get(name), "__spec__", None)
        seen = _imported.get(name)
        if seen is None or spec is None or seen[0] is not spec:
            module = self._find(name)
            if module is None or module.file is None or not _is_users_file(module.file):
                return ()
            code = self._code.code(os.path.realpath(module.file), self._root(name))
            seen = (spec, code.digest, tuple(self._imports(name, module, code)))
            if spec is not None:
                _imported[name] = seen
        _, self.digests[name], imports = seen
        return imports

    def _root(self, name: str) -> str:
        """Return the folder of a module's package, which is cached as one."""
        top = self._find(name.partition(".")[0])
        assert top is not None
        return os.path.dirname(top.folders[0] if top.folders else top.file or "")

    def _imports(self, name: str, module: _Module, code: _Code) -> list[str]:
        found: dict[str, None] = {}
        for level, imported, names in code.imports:
            if level:
                package = name.split(".") if module.folders else name.split(".")[:-1]
                base = package[: len(package) - level + 1]
                if not base or len(base) > len(package):  # beyond the top package: Python cannot import it either
                    continue
                imported = ".".join([*base, imported] if imported else base)
            else:
                parts = imported.split(".")
                while parts and self._find(".".join(parts)) is None:  # import a.b, where a makes b itself
                    parts.pop()
                imported = ".".join(parts)
            place = self._find(imported) if imported else None
            if place is None or (place.file is not None and not _is_users_file(place.file)):
                continue
            found[imported] = None
            if "*" in names and place.file is not None:
                names = (*names, *self._code.code(os.path.realpath(place.file), self._root(imported)).public)
            for each in names:
                if place.folders and self._find(f"{imported}.{each}") is not None:
                    found[f"{imported}.{each}"] = None
        return list(found)

    def _find(self, name: str) -> _Module | None:
        if name not in self._found:
            parent, _, last = name.rpartition(".")
            self._found[name] = self._below(parent, last) if parent else _top(name)
        return self._found[name]

    def _below(self, parent: str, name: str) -> _Module | None:
        place = self._find(parent)
        spaces = []
        for folder in place.folders if place else ():
            listed = self._list(folder)
            inside = os.path.join(folder, name)
            if name in listed and os.path.isdir(inside):
                within = self._list(inside)
                if init := next((_INIT + end for end in _SUFFIXES if _INIT + end in within), None):
                    return _Module(os.path.join(inside, init), (inside,))
            else:
                inside = ""
            if file := next((name + end for end in _SUFFIXES if name + end in listed), None):
                return _Module(os.path.join(folder, file))
            if inside:
                spaces.append(inside)
        if spaces:
            return _Module(None, tuple(spaces))
        # an importer of its own
        module = sys.modules.get(f"{parent}.{name}")
        return _of_spec(getattr(module, "__spec__", None)) if module is not None else None

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]


def _top(name: str) -> _Module | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # a module without a spec
        spec = importlib.machinery.PathFinder.find_spec(name)
    return _of_spec(spec)


def _of_spec(spec: importlib.machinery.ModuleSpec | None) -> _Module | None:
    if spec is None:
        return None
    file = spec.origin if spec.has_location and spec.origin and os.path.isfile(spec.origin) else None
    folders = spec.submodule_search_locations
    if file is None and folders is None and spec.origin not in ("built-in", "frozen"):
        return None
    return _Module(file, tuple(folders or ()))


@functools.cache
def _is_users_file(file: str) -> bool:
    path = os.path.realpath(file)
    if {"site-packages", "dist-packages"} & set(path.split(os.sep)):
        return False
    return not any(path.startswith(folder + os.sep) for folder in _libraries())


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Return the folders of the standard library, of installed packages and of genbench."""
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parents[1])]
    return tuple({os.path.realpath(folder) for folder in folders})


class _Store:
    """Caches the content of files on disk, keyed by their size and times."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()

    def code(self, path: str, root: str) -> _Code:
        """Return the content of a file; ``root`` names the cache that holds it."""
        known = self._files.get(root)
        if known is None:
            known = self._files[root] = _load(root)
        try:
            found = os.stat(path)
        except OSError:  # removed since it was found
            return _Code("missing")
        state = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        entry = known.get(path)
        if entry is not None and entry[0] == state:
            return _Code(entry[1], tuple((level, name, tuple(names)) for level, name, names in entry[2]), (*entry[3],))
        code = _parse(path)
        if time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED:
            known[path] = [state, code.digest, code.imports, code.public]
            self._changed.add(root)
        return code

    def write(self) -> None:
        for root in self._changed:
            kept = {path: entry for path, entry in self._files[root].items() if os.path.exists(path)}
            path = _place(root)
            from genbench import records

            with contextlib.suppress(OSError, RuntimeError):  # the cache only saves time
                path.parent.mkdir(parents=True, exist_ok=True)
                records.write_atomic(path, json.dumps({"python": sys.version, "files": kept}))


def _place(root: str) -> Path:
    from genbench.data import cache

    return cache.folder() / "source" / f"{hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]}.json"


def _load(root: str) -> dict[str, Any]:
    try:
        held = json.loads(_place(root).read_bytes())
        return held["files"] if held["python"] == sys.version else {}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return {}


def _parse(path: str) -> _Code:
    try:
        content = Path(path).read_bytes()
    except OSError:
        return _Code("unreadable")
    plain = hashlib.sha256(content).hexdigest()[:16]
    if not path.endswith(tuple(importlib.machinery.SOURCE_SUFFIXES)):
        return _Code(plain)
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _Code(plain)
    return _Code(hashlib.sha256(_normal(tree)).hexdigest()[:16], tuple(_imports_of(tree)), tuple(_public(tree)))


def _normal(tree: ast.AST) -> bytes:
    """Return a syntax tree as text without docstrings and empty fields, in which Python versions differ."""
    text: list[str] = []
    stack: list[Any] = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            text.append(item)
        elif isinstance(item, list):
            text.append("[")
            stack.append("]")
            stack.extend(each if isinstance(each, ast.AST) else repr(each) for each in reversed(item))
        else:
            text.append(f"{type(item).__name__}(")
            stack.append(")")
            for name in reversed(item._fields):
                value: Any = getattr(item, name, None)
                if name == "body" and _documented(item):
                    value = value[1:]
                if value is None or value == [] or name in _SILENT:
                    continue
                stack.append(value if isinstance(value, ast.AST | list) else repr(value))
                stack.append(f"{name}=")
    return " ".join(text).encode("utf-8", "surrogatepass")


def _documented(node: ast.AST) -> bool:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _imports_of(tree: ast.AST) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str) and name.strip("."):
                level = len(name) - len(name.lstrip("."))
                yield level, name.lstrip("."), ()


def _public(tree: ast.Module) -> Iterator[str]:
    """Yield the names in ``__all__``; ``import *`` imports those that are modules."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            with contextlib.suppress(ValueError):
                yield from (name for name in ast.literal_eval(node.value) if isinstance(name, str))
