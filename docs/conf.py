"""Sphinx builds the site from these pages: ``make docs``. It needs no network."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what the notebook trains stays in the folder of the build
os.environ["GENBENCH_CACHE"] = str(HERE / "_build" / "cache")
os.environ["GENBENCH_CONFIG"] = str(HERE / "_build" / "config")

import generate  # noqa: E402

generate.write(HERE / "generated")

project = "genbench"
author = "The genbench authors"
copyright = "2026, the genbench authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "measured"]
html_theme = "furo"
html_title = "genbench"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["tables.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "force"
nb_execution_timeout = 600  # the site may be built beside the tests
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # Lightning's are not ours
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def _escape(app, what, name, obj, options, lines):
    """A docstring's text is plain: |w| and a trailing _ are no markup, ``code`` and :role:`names` are."""
    for i, line in enumerate(lines):
        parts = re.split(r"(``.*?``|:\w+:`.*?`)", line)
        parts[::2] = [re.sub(r"([|*\\])|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", _escape, priority=400)  # before napoleon, which writes markup
