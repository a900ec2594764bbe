"""Pages in headless Chromium: what its console says, and what sticks out at a width."""

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
    "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr", "--dump-dom",
]  # fmt: skip
# opens all that folds, then writes into the page what a reader would have to scroll sideways for
_PROBE = """
<script id="probe">
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  const width = document.documentElement.clientWidth;
  const outside = [...document.querySelectorAll("body *")].filter((each) =>
    !each.closest(".scroll, script") && each.getBoundingClientRect().right > width + 0.5);
  const regions = [...document.querySelectorAll(".scroll")];
  const name = (each) =>
    `${each.localName}.${each.className}: ${each.textContent.trim().slice(0, 40)}`.replaceAll("<", "‹");
  document.getElementById("probe").textContent = JSON.stringify({
    width, content: document.documentElement.scrollWidth, outside: outside.map(name),
    scrolling: regions.filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.ariaLabel ?? "") });
});
</script>
"""


@dataclass(frozen=True)
class Opened:
    """A page as Chromium shows it, all of its ``details`` open.

    ``width`` is that of the view and ``content`` that of what is in it, in pixels; ``outside`` names the elements that
    stick out, but for those in regions that scroll by themselves, and ``scrolling`` the labels of those that must. In
    ``console`` are its messages.
    """

    width: int
    content: int
    outside: list[str]
    scrolling: list[str]
    console: list[str]


def opened(page: Path, width: int) -> Opened:
    """Open a copy of a page in a window of this width, in pixels."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / page.name
        html, end, rest = page.read_text(encoding="utf-8").rpartition("</body>")
        copy.write_text(html + _PROBE + end + rest, encoding="utf-8")
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width},1000", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<script id="probe">(\{.*?\})</script>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-500:] + done.stderr[-500:]
    console = [line for line in done.stderr.splitlines() if re.search(r"\bCONSOLE\b", line)]
    return Opened(**json.loads(found[1]), console=console)


def assert_fits(page: Path, width: int) -> Opened:
    """The page loads without a message in the console and fits a window of this width."""
    seen = opened(page, width)
    assert (seen.width, seen.console, seen.outside) == (width, [], []), seen
    assert seen.content <= width, seen
    return seen
