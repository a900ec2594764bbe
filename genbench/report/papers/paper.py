"""The node ``paper`` of an experiment: what the page of a paper says that no number can."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.checks import check_integer, nearest

_LINKS = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
_LINK = re.compile(r"(?:arXiv:(?:\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?|doi:10\.\d{4,9}/[!-~]+)")


OWN_STUDY = "A study of genbench's own"


@dataclass(frozen=True)
class Critique:
    """What a fair reader must know, and who said it first."""

    text: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A published paper that an experiment replicates, or a study of genbench's own, without authors, year and link.

    Attributes:
        title, authors, year: of the paper; ``authors`` as they are to be printed.
        link: ``arXiv:1611.03530`` or ``doi:10.1162/neco.1997.9.1.1``.
        claimed: what the paper claims, or what a study asks, a short paragraph.
        scaled_down: what this experiment does otherwise than the paper, one sentence each.
        critiques: of the paper's claims or of this replication.
        limits: what its numbers cannot say, one sentence each.
        tried: for claims that did not replicate, by id: what was tried.
        also: experiments whose tables stand on the page too, such as one on other data; no claim is judged by them.
        companions: other papers that some of the claims are of, by name: these claims.
        one_scale: why there is no experiment at the paper's own scale, where there is none.
    """

    title: str
    claimed: str
    authors: str | None = None
    year: int | None = None
    link: str | None = None
    scaled_down: tuple[str, ...] = ()
    critiques: tuple[Critique, ...] = ()
    limits: tuple[str, ...] = ()
    tried: Mapping[str, str] | None = None
    also: tuple[str, ...] = ()
    companions: Mapping[str, tuple[str, ...]] | None = None
    one_scale: str | None = None

    @property
    def url(self) -> str | None:
        """The address of the paper; None of a study of genbench's own."""
        kind, _, name = (self.link or "").partition(":")
        return _LINKS[kind] + name if name else None

    @property
    def citation(self) -> str:
        """Authors and year."""
        return OWN_STUDY if self.link is None else f"{self.authors} {self.year}"


def read(block: Mapping[str, Any], claims: Collection[str] | None = None) -> Paper:
    """Return the paper of the node ``paper`` of a configuration; ``claims`` are the ids of the experiment's claims.

    Raises:
        ValueError: what is not accepted, in one line.
    """
    fields = [*Paper.__dataclass_fields__]
    if unknown := [str(key) for key in block if key not in fields]:
        raise ValueError(f"paper.{unknown[0]} is not a setting; {nearest(unknown[0], fields)}")
    published = any(block.get(name) is not None for name in ("authors", "year", "link"))
    needed = ("title", "claimed", *(("authors", "link") if published else ()))
    texts = {name: _text(f"paper.{name}", block.get(name)) for name in needed}
    if published and not _LINK.fullmatch(texts["link"]):
        raise ValueError(f"paper.link is {texts['link']!r}; accepted: arXiv:1611.03530 or doi:10.1162/neco.1997.9.1.1")
    tried = block.get("tried") or {}
    if not isinstance(tried, Mapping):
        raise ValueError(f"paper.tried is {tried!r}; accepted: by the id of a claim what was tried, or null")
    if claims is not None and (strange := [str(name) for name in tried if name not in claims]):
        raise ValueError(f"paper.tried.{strange[0]} is no claim of the experiment; {nearest(strange[0], [*claims])}")
    return Paper(
        **texts,
        year=check_integer("paper.year", block.get("year"), least=1600, most=2100) if published else None,
        critiques=tuple(_critique(f"paper.critiques[{i}]", node) for i, node in enumerate(_list(block, "critiques"))),
        tried={str(name): _text(f"paper.tried.{name}", text) for name, text in tried.items()},
        scaled_down=_texts(block, "scaled_down"),
        limits=_texts(block, "limits"),
        also=_texts(block, "also"),
        companions=_companions(block, claims),
        one_scale=None if block.get("one_scale") is None else _text("paper.one_scale", block["one_scale"]),
    )


def _companions(block: Mapping[str, Any], claims: Collection[str] | None) -> dict[str, tuple[str, ...]]:
    nodes = block.get("companions") or {}
    if not isinstance(nodes, Mapping):
        raise ValueError(f"paper.companions is {nodes!r}; accepted: by the name of a paper its claims, or null")
    found = {_text("paper.companions", name): _texts(nodes, name, "companions.") for name in nodes}
    named = [claim for ids in found.values() for claim in ids]
    if strange := [claim for claim in named if claims is not None and claim not in claims]:
        raise ValueError(f"paper.companions names {strange[0]}, no claim; {nearest(strange[0], [*(claims or ())])}")
    if twice := [claim for claim in named if named.count(claim) > 1]:
        raise ValueError(f"paper.companions names {twice[0]} twice; accepted: a claim of one paper")
    return found


def _critique(name: str, node: object) -> Critique:
    accepted = "accepted: {text: a sentence, source: who said it}"
    if not isinstance(node, Mapping) or not {"text", "source"} <= set(node):
        raise ValueError(f"{name} is {node!r}; {accepted}")
    if unknown := [str(key) for key in node if key not in ("text", "source")]:
        raise ValueError(f"{name}.{unknown[0]} is not a setting; {nearest(unknown[0], ('text', 'source'))}")
    return Critique(_text(f"{name}.text", node["text"]), _text(f"{name}.source", node["source"]))


def _list(block: Mapping[str, Any], name: str, above: str = "") -> Sequence[Any]:
    value = block.get(name) or []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"paper.{above}{name} is {value!r}; accepted: a list, or null")
    return value


def _texts(block: Mapping[str, Any], name: str, above: str = "") -> tuple[str, ...]:
    return tuple(_text(f"paper.{above}{name}[{i}]", text) for i, text in enumerate(_list(block, name, above)))


def _text(name: str, value: object) -> str:
    """Return a text in one line; those of a YAML file may be folded over several."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text or not text.isprintable():
        raise ValueError(f"{name} is {value!r}; accepted: text")
    return text
