"""The experiments that replicate papers, as their YAML files compose."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from genbench.claims import registration
from genbench.report.papers.paper import Paper, read

LAPTOP = "laptop"
PAPERS_SCALE = "paper's scale"
# by the end of an experiment's name: that of a laptop's minutes, of a night on real data, and of the paper itself
_SCALES = {"": LAPTOP, "_middle": "middle scale", "_paper": PAPERS_SCALE}
_HAS_PAPER = re.compile(r"^paper:(?![ \t]*(?:null|~)[ \t]*$)", re.MULTILINE)


@dataclass(frozen=True)
class Experiment:
    """An experiment as composed.

    Attributes:
        choice: ``experiment=<choice>`` trains it.
        file: its YAML file.
        runs: their number.
        nodes: ``name`` (the folder of its runs), ``table``, ``claims`` and ``paper``.
    """

    choice: str
    file: Path
    runs: int
    nodes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder of its runs."""
        return str(self.nodes["name"])

    @property
    def paper(self) -> Paper:
        """The paper that it replicates."""
        block = self.nodes["claims"] or {}
        return read(self.nodes["paper"] or {}, block.get("rules") or {})

    def check(self) -> None:
        """Read its paper and its claims.

        Raises:
            ValueError: what is wrong in which file; one line.
        """
        try:
            _ = self.paper, self.digest
        except ValueError as error:
            raise ValueError(f"{self.file.name}: {error}") from None

    @property
    def digest(self) -> str | None:
        """The digest of its claims, which the records of its runs keep."""
        block = self.nodes["claims"]
        return None if block is None else registration.read(block).digest

    @property
    def summary(self) -> Path:
        """The summary of its runs, beside its YAML file."""
        return self.file.with_suffix(".csv")


def choices(places: Sequence[Path]) -> dict[str, Path]:
    """Return the file of every experiment that has a ``paper``, by choice; those at another scale than the
    laptop's are left out.

    Args:
        places: folders of YAML files; of two files with one name the first counts.
    """
    found: dict[str, Path] = {}
    for place in places:
        for file in sorted((place / "experiment").glob("[!_]*.yaml")):
            if plain(file.stem) == file.stem and _HAS_PAPER.search(file.read_text()):
                found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def plain(choice: str) -> str:
    """Return the name of the laptop's experiment of an experiment at any scale.

    >>> plain("foret2021_middle"), plain("foret2021")
    ('foret2021', 'foret2021')
    """
    return next(choice.removesuffix(end) for end in reversed(_SCALES) if choice.endswith(end))


def at_scales(file: Path) -> dict[str, Path]:
    """Return the files of an experiment at every scale that it has, by what the scale is called; the laptop's first."""
    files = {scale: file.with_stem(file.stem + end) for end, scale in _SCALES.items()}
    return {scale: each for scale, each in files.items() if each.is_file()}


def composed(files: Sequence[Path], places: Sequence[Path]) -> list[Experiment]:
    """Return experiments as Hydra composes them; ``places`` are the folders of YAML files, genbench's own first.

    Raises:
        ValueError: one cannot be composed; one line.
    """
    from hydra import version
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.utils import setup_globals
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from genbench.config import resolve

    own, *others = (place.resolve() for place in places)
    quoted = [str(place).replace("\\", r"\\").replace("'", r"\'") for place in others]
    searched = "hydra.searchpath=[" + ",".join(f"'file://{place}'" for place in quoted) + "]"
    found = []
    setup_globals()
    version.setbase("1.3")
    # a loader of its own: hydra.compose would end what Hydra does in this process
    loader = ConfigLoaderImpl(create_config_search_path(str(own)))
    for file in files:
        words = [*([searched] if others else []), f"experiment={file.stem}"]
        try:
            config = loader.load_configuration("train", words, run_mode=RunMode.RUN, from_shell=False)
        except HydraException as error:
            raise ValueError(f"{file.name}: {str(error).partition(chr(10))[0]}") from None
        sweeper: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        plain = resolve(config)
        nodes = {key: plain[key] for key in ("name", "table", "claims", "paper")}
        found.append(Experiment(file.stem, file, len(jobs_of(sweeper, loader)), nodes))
    return found


def jobs_of(sweeper: Mapping[str, Any], loader: Any, chosen: Sequence[str] = ()) -> list[list[str]]:
    """Return the overrides of each job of a sweep, those that are ``chosen`` for all first.

    Args:
        sweeper: the settings of Hydra's sweeper.
        loader: Hydra's loader of configurations.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.utils import get_object

    settings = {key: value for key, value in sweeper.items() if not key.startswith("_")}
    grid = get_object(sweeper["_target_"])(**settings)
    grid.hydra_context = SimpleNamespace(config_loader=loader)
    words = [*chosen, *(f"{key}={value}" for key, value in (settings.get("params") or {}).items())]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
    (jobs,) = grid.split_arguments(parsed, None)
    return [list(job) for job in jobs]
