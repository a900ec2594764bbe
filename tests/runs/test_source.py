"""The user's own code behind a configuration, whatever the layout of a project."""

import importlib
import json
import os
import sys
import sysconfig
import textwrap
import time
import types

import pytest

from genbench.runs import source
from tests.helpers.forked import Forked


class Project:
    """Files of a project that can be imported, each test's its own."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self._monkeypatch = monkeypatch

    def write(self, **files):
        """``a__b=...`` is a/b.py."""
        for name, text in files.items():
            name = name.replace("____init__", "/INIT").replace("__", "/").replace("INIT", "__init__")
            path = self.root / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return self

    def on_path(self, *below):
        self._monkeypatch.syspath_prepend(str(self.root.joinpath(*below)))
        return self

    def modules(self, *names):
        return list(source.of(names).modules)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    before = set(sys.modules)
    yield Project(tmp_path / "project", monkeypatch)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    importlib.invalidate_caches()


def test_a_single_file(project):
    project.write(one_file="class Net: pass").on_path()
    found = source.of(["one_file.Net", "one_file.Net.method"])
    assert list(found.modules) == ["one_file"]
    assert found.digest is not None
    assert found.notes == ()
    assert "one_file" not in sys.modules  # nothing was imported


def test_libraries_and_genbench_are_not_the_users(project):
    project.write(one_file="import torch, json, genbench.models, os.path, numpy.random\nfrom torch import nn").on_path()
    assert project.modules("one_file.Net") == ["one_file"]
    nothing = source.of(["torch.optim.Adam", "genbench.models.MLP", "builtins.print", "json.loads", "sys.exit"])
    assert nothing == source.Source()


def test_a_package_with_relative_imports_and_its_parents(project):
    project.write(
        pack____init__="", pack__nets____init__="from .wide import Wide", pack__nets__wide="from ..parts import block",
        pack__parts="from . import tools as t", pack__tools="", pack__unused="",
    ).on_path()  # fmt: skip
    assert project.modules("pack.nets.Wide") == ["pack", "pack.nets", "pack.nets.wide", "pack.parts", "pack.tools"]


def test_a_namespace_package(project):
    project.write(space__inner__a="import space.inner.b", space__inner__b="from space import c", space__c="").on_path()
    assert project.modules("space.inner.a.Net") == ["space.c", "space.inner.a", "space.inner.b"]


def test_a_namespace_package_of_two_folders(project):
    project.write(first__space__a="import space.b", second__space__b="").on_path("first").on_path("second")
    assert project.modules("space.a.Net") == ["space.a", "space.b"]


def test_circular_imports(project):
    project.write(ring____init__="", ring__a="from ring import b", ring__b="import ring.a").on_path()
    assert project.modules("ring.a.Net") == ["ring", "ring.a", "ring.b"]


def test_imports_in_functions_conditions_and_calls(project):
    project.write(
        entry="""
            import importlib
            def f():
                import hidden_a
                if f: from hidden_b import x
                return importlib.import_module("hidden_c")
            class C:
                import hidden_d
            """,
        hidden_a="", hidden_b="x = 1", hidden_c="", hidden_d="",
    ).on_path()  # fmt: skip
    assert project.modules("entry.f") == ["entry", "hidden_a", "hidden_b", "hidden_c", "hidden_d"]


def test_a_missing_module_and_an_import_beyond_the_top(project):
    project.write(entry="try:\n    import not_there.at_all\nexcept ImportError: pass\nfrom .... import x").on_path()
    assert project.modules("entry.Net", "not_there.either.Net") == ["entry"]


def test_star_imports_of_modules_that_all_names(project):
    project.write(
        stars____init__="__all__ = ['a', 'function']", stars__a="", stars__b="", entry="from stars import *"
    ).on_path()
    assert project.modules("entry.f") == ["entry", "stars", "stars.a"]


def test_a_compiled_module_counts_with_its_bytes(project):
    project.write(entry="import fast").on_path()
    library = project.root / f"fast{sysconfig.get_config_var('EXT_SUFFIX')}"
    library.write_bytes(b"\x7fELF one")
    first = source.of(["entry.Net"])
    assert list(first.modules) == ["entry", "fast"]
    library.write_bytes(b"\x7fELF two")
    assert source.of(["entry.Net"]).digest != first.digest


def test_src_layout_installed_or_not(project):
    project.write(src__app____init__="", src__app__net="from app import tools", src__app__tools="").on_path("src")
    assert project.modules("app.net.Net") == ["app", "app.net", "app.tools"]


def test_a_symlinked_or_moved_project_is_the_same_code(project, monkeypatch):
    project.write(pack____init__="", pack__net="from . import tools", pack__tools="x = 1").on_path()
    here = source.of(["pack.net.Net"])
    monkeypatch.undo()
    link = project.root.with_name("link")
    link.symlink_to(project.root)
    monkeypatch.syspath_prepend(str(link))
    assert source.of(["pack.net.Net"]) == here
    monkeypatch.undo()
    link.unlink()
    project.root.rename(project.root.with_name("moved"))
    monkeypatch.syspath_prepend(str(project.root.with_name("moved")))
    assert source.of(["pack.net.Net"]) == here


def test_a_link_out_of_site_packages_is_the_users(project, tmp_path, monkeypatch):
    project.write(dev____init__="x = 1")
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "dev").symlink_to(project.root / "dev")
    (packages / "installed.py").write_text("")
    monkeypatch.syspath_prepend(str(packages))
    assert project.modules("dev.Net", "installed.Net") == ["dev"]


BEFORE = '''
"""A module."""
# a comment
class Net:
    """A network."""
    width = 1   # wide

    def forward(self, x):
        """Docstring."""
        return x * self.width
'''


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ('"""A module."""', '"""Another text."""', False),
        ("# a comment", "", False),
        ("   # wide", "", False),
        ('"""A network."""', "", False),
        ('        """Docstring."""\n', "", False),
        ("x * self.width", "(x *\n            self.width)", False),
        ("width = 1", "width = 2", True),
        ("width = 1", "width = '1'", True),
        ("width = 1", "width = 1.0", True),
        ("x * self.width", "x + self.width", True),
        ("width = 1", "width = 1\n    depth = None", True),
        ("return x * self.width", "return None", True),
        ("return x * self.width", "'text'", True),
        ("def forward(self, x)", "def forward(self, x, y=())", True),
    ],
)
def test_what_changes_nothing_is_left_out(project, old, new, changes):
    project.write(one_file=BEFORE).on_path()
    before = source.of(["one_file.Net"]).digest
    project.write(one_file=BEFORE.replace(old, new))
    assert (source.of(["one_file.Net"]).digest != before) is changes


def test_imported_code_is_what_was_imported_until_it_is_reloaded(project):
    """After an edit the process still runs the old code, and says so; a new process has the new one."""
    project.write(pinned="import pinned_part\nx = 1", pinned_part="y = 1").on_path()
    module = importlib.import_module("pinned")
    old = source.of(["pinned.Net"])
    project.write(pinned="import pinned_part\nx = 22")
    assert source.of(["pinned.Net"]) == old
    code = "from genbench.runs import source; print(source.of(['pinned.Net']).digest)"
    other, err = Forked(code, environment={**os.environ, "PYTHONPATH": str(project.root)}).communicate(60)
    importlib.reload(module)
    new = source.of(["pinned.Net"])
    assert (new.digest != old.digest, new.digest) == (True, other.strip()), err
    assert new.modules["pinned_part"] == old.modules["pinned_part"]


def test_code_in_no_file_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_here", types.ModuleType("made_here"))
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # as in a notebook
    assert source.of(["made_here.Net", "__main__.Net"]).notes == (
        "the code of __main__.Net is in no file (a notebook's, say): changes of it are not noticed",
        "the code of made_here.Net is in no file: changes of it are not noticed",
    )


def test_the_program_itself_counts_with_its_file(project, monkeypatch):
    project.write(script="import helper", helper="x = 1").on_path()
    main = types.ModuleType("__main__")
    main.__file__ = str(project.root / "script.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    first = source.of(["__main__.Net"])
    assert list(first.modules) == ["__main__", "helper"]
    assert first.notes == ("the code of __main__.Net is that of the program itself: other processes cannot import it",)
    project.write(script="import helper\nx = 2")
    assert source.of(["__main__.Net"]).digest != first.digest


def test_targets_are_found_however_nested():
    config = {
        "model": {"_target_": "a.Net", "parts": [{"_target_": "b.Part"}, {"x": {"_target_": "c.Part"}}]},
        "loss": {"_target_": "hydra.utils.get_method", "path": "d.loss"},
        "other": {"_target_": "e.f", "path": "not.code"},
    }
    found = ["a.Net", "b.Part", "c.Part", "hydra.utils.get_method", "d.loss", "e.f"]
    assert list(source.targets(config)) == found


def test_broken_and_deep_files_count_with_their_bytes(project):
    project.write(entry="import broken, deep", broken="def (:", deep="x = " + "(" * 150 + "1" + ")" * 150).on_path()
    first = source.of(["entry.Net"])
    assert list(first.modules) == ["broken", "deep", "entry"]
    project.write(broken="def ((:")
    assert source.of(["entry.Net"]).digest != first.digest


@pytest.fixture
def large(project):
    """300 modules in 30 packages, old enough to be remembered."""
    body = "\n".join(f"def f{n}(x):\n    return [x + {n} for _ in range(x)]" for n in range(30))
    for package in range(30):
        project.write(**{f"big__p{package}____init__": ""})
        for n in range(9):
            project.write(
                **{f"big__p{package}__m{n}": f"from big.p{(package + 1) % 30} import m{n}, m{(n + 1) % 9}\n" + body}
            )
    project.write(big____init__="", big__net="from big.p0 import m0").on_path()
    for path in project.root.rglob("*.py"):
        os.utime(path, (time.time() - 100,) * 2)
    return project


def test_the_second_look_is_quick(large, monkeypatch):
    """Files are read once: 302 modules within 50 ms of processor time (20 measured), whatever they hold."""
    monkeypatch.setattr(source, "_SETTLED", -1e9)
    first = source.of(["big.net.Net"])
    assert len(first.modules) == 302
    monkeypatch.setattr(source, "_parse", None)  # would raise
    start = time.process_time()
    assert source.of(["big.net.Net"]) == first
    assert time.process_time() - start < 0.05


def test_what_is_remembered_is_noticed_when_it_changes_or_is_damaged(large, monkeypatch):
    monkeypatch.setattr(source, "_SETTLED", -1e9)
    first = source.of(["big.net.Net"])
    path = large.root / "big/p7/m3.py"
    state = path.stat()
    path.write_text(path.read_text().replace("x + 7", "x - 7"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # of the same size and time
    second = source.of(["big.net.Net"])
    assert [name for name in first.modules if first.modules[name] != second.modules[name]] == ["big.p7.m3"]
    (remembered,) = (large.root.parent / "cache" / "source").glob("*.json")
    for damage in (b"", b"[]", json.dumps({"python": sys.version, "files": {}}).encode()):
        remembered.write_bytes(damage)
        assert source.of(["big.net.Net"]) == second


def test_genbench_itself_has_a_digest():
    assert source.of_genbench() == source.of_genbench()
    assert len(source.of_genbench()) == 16
