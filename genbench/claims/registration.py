"""The claims of an experiment: read from its configuration, registered before its runs, and judged by their records."""

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin

from genbench import records
from genbench.checks import check_flag, check_integer, nearest
from genbench.claims import rules
from genbench.claims import sets as named_sets
from genbench.claims.choice import Choice, choice_of
from genbench.claims.family import LOOKS, check_looks, verdicts
from genbench.claims.rules import Rule
from genbench.claims.runs import ANY_METRIC, ClaimRuns, NamedSet
from genbench.claims.verdict import (
    FEWEST,
    HOLDS,
    NOT_REPLICATED,
    REPLICATED,
    SEED,
    SETTINGS_CHANGED,
    UNDECIDED,
    VIOLATED,
    Evidence,
    ShareTest,
    Verdict,
    level,
)
from genbench.config import defaults_of
from genbench.privacy import shared

VERSION = 1
"""Of the rules: raised when one of them decides otherwise than before."""
_ROOM = "genbench.claims.rules"
_ACCEPTED = ("sets", "rules", "choose", "family", "seeds", "looks", "pilots")
_STAMP = ("version", "digest", "changed")  # added by ``register``
_MOST_SEEDS = 10_000  # at the last look
_LARGEST_FAMILY = 10_000
_DIGESTS: dict[str, str] = {}  # of the claims that this process registered: the runs of a sweep share theirs
_TOLD = ("statement", "source", "theorem")  # decide nothing, so that a misspelling can be mended
_OVER_GRIDS: dict[str, tuple[type, ...]] = {
    "correlations": (rules.Correlation, rules.CorrelationDifference),
    "ranks": (rules.Ranks, rules.RanksDiffer, rules.RanksWrongly),
}
_OF_THEOREMS = {REPLICATED: HOLDS, NOT_REPLICATED: VIOLATED}


@dataclass(frozen=True)
class Claim:
    """A claim: its id, what it states, in one sentence, where that was claimed first, and the rule that decides it.

    A ``theorem`` holds whatever the runs do, so that a violation is an error of the code, or what a bound's probability
    allows: it is a check, which is counted apart from claims.
    """

    id: str
    statement: str
    source: str | None
    rule: Rule
    theorem: bool = False


@dataclass(frozen=True)
class Claims:
    """The claims of an experiment.

    Attributes:
        claims: in the order of the file.
        family: the number of claims that Holm's correction counts.
        seeds: whose runs decide, in their order.
        looks: the numbers of seeds at which verdicts are given.
        pilots: seeds that settings were chosen on; no run of the experiment has one of them.
        digest: of all that could change a verdict, the version of the rules and the code of the user's own included.
        changed: the settings of the experiment that the command changed, in words.
        sets: the named sets of runs, in the order of the file.
        choice: of the settings that were tried for a set; None: it has one.
    """

    claims: tuple[Claim, ...]
    family: int
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    pilots: tuple[int, ...]
    digest: str
    changed: tuple[str, ...] = ()
    sets: tuple[NamedSet, ...] = ()
    choice: Choice | None = None


def read(block: Mapping[str, Any], *, trust: bool = True) -> Claims:
    """Return the claims of the node ``claims`` of a configuration.

    ``rules`` maps the id of each claim to its ``statement``, its ``source``, which may be left out, and the
    ``_target_`` and the settings of its rule; ``theorem: true`` marks a check. ``seeds`` is the first of consecutive
    seeds (0 by default), or all of them. For ``sets`` see :mod:`genbench.claims.sets`: a name stands for its settings,
    in the digest too; for ``choose``, :mod:`genbench.claims.choice`.

    Args:
        block: the node.
        trust: import rules that are not genbench's own. A block that is read from a folder may come from anybody.

    Raises:
        ValueError: what is not accepted, in one line.
    """
    changed = block.get("changed", [])
    if isinstance(changed, str) or not isinstance(changed, Sequence) or not all(isinstance(s, str) for s in changed):
        raise ValueError(f"claims.changed is {changed!r}; accepted: a list of settings in words")
    block = {key: value for key, value in block.items() if key not in _STAMP}
    if unknown := [key for key in block if key not in _ACCEPTED]:
        raise ValueError(f"claims.{unknown[0]} is not a setting; {nearest(str(unknown[0]), _ACCEPTED)}")
    nodes = block.get("rules")
    if not isinstance(nodes, Mapping) or not nodes:
        raise ValueError(f"claims.rules is {nodes!r}; accepted: the id of each claim, and its rule")
    sets, chosen = named_sets.read(block.get("sets")), choice_of(block.get("choose"))
    found = [_claim(name, node, sets, trust=trust) for name, node in nodes.items()]
    claims = tuple(claim for claim, _ in found)
    looks = _integers("claims.looks", block.get("looks", list(LOOKS)), least=1, most=_MOST_SEEDS)
    given = block.get("seeds", 0)
    if isinstance(given, Sequence) and not isinstance(given, str):
        seeds = _integers("claims.seeds", given, least=0)
    else:
        first = check_integer("claims.seeds", given, least=0, note="the first seed, or a list of seeds")
        seeds = list(range(first, first + max(looks, default=0)))
    try:
        check_looks(looks, seeds)
    except ValueError as error:
        raise ValueError(f"claims.{error}") from None
    pilots = _integers("claims.pilots", block.get("pilots") or [], least=0)
    if both := sorted(set(pilots) & set(seeds)):
        raise ValueError(f"claims.pilots holds {both[0]}, one of claims.seeds; accepted: other seeds than those")
    nothing = ClaimRuns([], seeds)
    evidence = {claim.id: _evidence(claim, nothing) for claim in claims}
    for claim in claims:
        if not evidence[claim.id].exact:
            _check_decidable(claim, evidence[claim.id], looks)
        if claim.theorem and not evidence[claim.id].exact:
            raise ValueError(
                f"claims.rules.{claim.id}.theorem is true; accepted with a rule that has a p: false, as a theorem "
                "holds in every run"
            )
    least = sum(not each.exact for each in evidence.values())
    family = least
    if block.get("family") is not None:
        family = check_integer("claims.family", block["family"], least=least, most=max(least, _LARGEST_FAMILY))
    numbers = {"family": family, "seeds": seeds, "looks": looks, "pilots": pilots}
    numbers |= {} if chosen is None else {"choose": [chosen.metric, chosen.best]}
    decisive = {claim.id: node for claim, node in found}
    digest = records.digest(shared({"version": VERSION, "rules": decisive, **numbers, **_code(decisive)}))
    return Claims(
        claims, family, tuple(seeds), tuple(looks), tuple(pilots), digest, tuple(changed), tuple(sets.values()), chosen
    )


def _check_decidable(claim: Claim, evidence: Evidence, looks: Sequence[int]) -> None:
    """Refuse looks at so few seeds that they decide nothing, or that a share of seeds is not shown by all of them.

    Args:
        evidence: without runs; its tests are known all the same.
    """
    if evidence.unit == SEED and looks[0] < FEWEST:
        raise ValueError(
            f"claims.looks is {list(looks)}; accepted: numbers of at least {FEWEST} seeds, as fewer decide no claim "
            "that has a p"
        )
    shares = {test.margin for test in evidence.tests if isinstance(test, ShareTest) and test.among == 1}
    for share in sorted(shares):
        if all(share**count > level(look) for look, count in enumerate(looks, 1)):
            raise ValueError(
                f"claims.looks is {list(looks)}; accepted with claims.rules.{claim.id}: more seeds, as a share above "
                f"{share:g} is not shown by {looks[-1]} of {looks[-1]} (p = {share ** looks[-1]:.2g}, level "
                f"{level(len(looks)):g})"
            )


def register(config: Mapping[str, Any], changed: Sequence[str] = ()) -> dict[str, Any]:
    """Return a configuration whose claims, if it has any, are checked and carry their digest, the version of the
    rules and the settings of the experiment that the command ``changed``.

    Raises:
        ValueError: what is not accepted, in one line.
    """
    if (block := config.get("claims")) is None:
        return dict(config)
    if (written := repr(block)) not in _DIGESTS:
        _DIGESTS[written] = read(block).digest
    stamp = {"version": VERSION, "digest": _DIGESTS[written], **({"changed": list(changed)} if changed else {})}
    return {**config, "claims": {**block, **stamp}}


def told(changed: Sequence[str]) -> str:
    """Return the first three settings that a command changed, and the number of the others.

    >>> told(["model=cnn where the experiment has mlp"])
    'model=cnn where the experiment has mlp'
    """
    return "; ".join([*changed[:3], *([f"and {len(changed) - 3} more"] if len(changed) > 3 else [])])


def check(
    runs: Iterable[tuple[Mapping[str, Any] | None, Mapping[str, Any], Mapping[str, Any]]],
    others: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
    *,
    metrics: Sequence[frozenset[str]] | None = None,
) -> None:
    """Check the claims of an experiment against the runs that are planned: these have the settings that the claims
    name, with the values that they name, and will have the metrics, those that a claim compares differ in nothing else,
    and no seed is a pilot's.

    Args:
        runs: the node ``claims``, the bound configuration and the choices of each.
        others: the bound configuration and the choices of runs that other commands may plan, as the experiment's file
            has them.
        metrics: the metric keys that each of ``runs`` can have, ``*`` in place of what is not known; None: unknown.

    Raises:
        ValueError: what is wrong, in one line.
    """
    runs = list(runs)
    block = runs[0][0] if runs else None
    if any(other != block for other, _, _ in runs):
        raise ValueError("claims differ between the runs; accepted: the same for all, as they are judged together")
    if block is None:
        return
    claims = read(block)
    keys = [ANY_METRIC] * len(runs) if metrics is None else metrics
    planned = [
        _planned(str(i), config, choices, known)
        for i, ((_, config, choices), known) in enumerate(zip(runs, keys, strict=True))
    ]
    if pilots := sorted({run["seed"] for run in planned} & set(claims.pilots)):
        raise ValueError(
            f"seed={pilots[0]} is one of claims.pilots; accepted: other seeds, or claims=null, which registers nothing"
        )
    known = ClaimRuns(planned, claims.seeds, choice=claims.choice)
    more = [_planned(str(len(runs) + i), config, choices, ANY_METRIC) for i, (config, choices) in enumerate(others)]
    complete = ClaimRuns([*planned, *more], claims.seeds[:1], complete=True, choice=claims.choice)
    for claim in claims.claims:
        _evidence(claim, complete)
        _evidence(claim, known)
    for each in claims.sets:  # one that no claim uses, too: it may be misspelt, or its use forgotten
        try:
            complete.check(each)
        except ValueError as error:
            raise ValueError(f"claims.sets.{each.name}: {error}") from None


def judged(claims: Claims, found: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Return the verdicts on the claims of an experiment by the records of its runs.

    A verdict says how many of the runs were trained under another rule: its rule was not fixed before these. A claim
    that cannot be judged is undecided, and says why. If the command changed settings of the experiment, no claim is
    replicated or not: the status says so, whatever the runs show.
    """
    runs = ClaimRuns(found, claims.seeds, choice=claims.choice)
    guarded = {claim.id: _Guarded(claim.rule) for claim in claims.claims}
    given = verdicts(guarded, runs, family=claims.family, seeds=claims.seeds, looks=claims.looks)
    by_id = {verdict.claim: verdict for verdict in given}
    for name, rule in guarded.items():
        if rule.fault:
            nothing = Evidence(supports=None, contradicts=None, n=0, words=rule.fault)
            by_id[name] = Verdict(name, UNDECIDED, rule.fault, None, None, nothing)
    if said := otherwise(claims, found):
        by_id = {name: replace(verdict, words=f"{said}; {verdict.words}") for name, verdict in by_id.items()}
    for claim in claims.claims:
        verdict = by_id[claim.id]
        named = _OF_THEOREMS.get(verdict.status, verdict.status) if claim.theorem else verdict.status
        by_id[claim.id] = replace(verdict, status=SETTINGS_CHANGED if claims.changed else named)
    return [by_id[claim.id] for claim in claims.claims]


def conditions(claims: Claims, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the verdicts are conditional on, in words: the data where no seed draws other ones, the settings over
    which correlations are computed and measures rank."""
    own = [record for record in found if record["seed"] in set(claims.seeds)]
    several = len({record["seed"] for record in own}) > 1
    said = ["one data set, which the seed does not redraw"] if several and all(map(_fixed, _data(own))) else []
    kinds = [kind for kind, of in _OVER_GRIDS.items() if any(_is_one(claim.rule, of) for claim in claims.claims)]
    return [*said, *([f"this grid of settings, for {' and '.join(kinds)}"] if kinds else [])]


def _data(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the settings of the data of each record, with ``drawn``: whether their seed differs between the runs."""
    nodes = [record["config"].get("data") or {} for record in found]
    drawn = len({node.get("seed") for node in nodes}) > 1 or any("seed" not in node for node in nodes)
    return [{**node, "drawn": drawn} for node in nodes]


def _fixed(data: Mapping[str, Any]) -> bool:
    """Tell whether no seed redraws the data: theirs is one number, or all examples of a source are trained on."""
    whole = "train_size" in data and data["train_size"] is None
    return not data["drawn"] or (whole and not data.get("val_fraction") and not data.get("label_noise"))


def _is_one(rule: Any, of: tuple[type, ...]) -> bool:
    """Tell whether a rule, or a part of it, is of one of the types."""
    return isinstance(rule, of) or any(_is_one(part, of) for part in getattr(rule, "parts", ()))


def judging(claims: Claims, found: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Return the digest of the claims in each record of a registered seed, None where it has none."""
    seeds = set(claims.seeds)
    return [record["provenance"].get("claims") for record in found if record["seed"] in seeds]


def otherwise(claims: Claims, found: Sequence[Mapping[str, Any]]) -> str:
    """Say how many runs were trained under another rule or without one; empty if none was."""
    digests = judging(claims, found)
    counts = {
        "under another rule": sum(digest not in (None, claims.digest) for digest in digests),
        "without a rule": sum(digest is None for digest in digests),
    }
    return " and ".join(
        f"{count} of {len(digests)} runs {'was' if count == 1 else 'were'} trained {how}"
        for how, count in counts.items()
        if count
    )


def _planned(name: str, config: Mapping[str, Any], choices: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    """Return a run that is planned as decision rules read it: without numbers, but with the keys of its metrics."""
    parts = {"config": config, "choices": choices, "seed": config["seed"]}
    return {"run_id": name, "status": "failed", "metrics": {}, "seconds": {}, "keys": keys, **parts}


def _claim(name: object, node: object, sets: Mapping[str, NamedSet], *, trust: bool) -> tuple[Claim, Mapping[str, Any]]:
    """Return a claim, and the node of its rule with settings in place of the names of sets."""
    path = f"claims.rules.{name}"
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"claims.rules has the id {name!r}; accepted: letters, digits, - and _, such as C1")
    if not isinstance(node, Mapping):
        raise ValueError(f"{path} is {node!r}; accepted: a statement and the _target_ and settings of a rule")
    statement, source = node.get("statement"), node.get("source")
    if not isinstance(statement, str) or not statement.strip() or not statement.isprintable():
        raise ValueError(f"{path}.statement is {statement!r}; accepted: one sentence")
    if source is not None and (not isinstance(source, str) or not source.isprintable()):
        raise ValueError(f"{path}.source is {source!r}; accepted: one line, or null")
    theorem = check_flag(f"{path}.theorem", node.get("theorem", False))
    rule, node = _built({key: value for key, value in node.items() if key not in _TOLD}, path, sets, trust=trust)
    return Claim(name, statement.strip(), source, rule, theorem), node


def _built(
    node: Mapping[str, Any], path: str, sets: Mapping[str, NamedSet], *, trust: bool
) -> tuple[Rule, Mapping[str, Any]]:
    """Return the rule of a node, with those inside it, and the node with settings in place of the names of sets."""
    if (target := node.get("_target_")) is None:
        raise ValueError(f"{path}._target_ is missing; accepted: a rule, such as {_ROOM}.Difference")
    rule = _found(target, f"{path}._target_", trust=trust)
    settings = {key: value for key, value in node.items() if key != "_target_"}
    defaults_of(str(target), settings, path)
    node = settings = named_sets.resolved(settings, sets, path, metric=_metric_of_others(rule))
    for key, value in settings.items():
        if isinstance(value, Sequence) and any(map(named_sets.is_rule, value)):
            both = [
                _built(each, f"{path}.{key}.{index}", sets, trust=trust) if named_sets.is_rule(each) else (each, each)
                for index, each in enumerate(value)
            ]
            settings = {**settings, key: [part for part, _ in both]}
            node = {**node, key: [part for _, part in both]}
    try:
        built: Rule = rule(**settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return built, {"_target_": target, **node}


class _Guarded:
    """A rule whose evidence is none once it fails: one of the user's own may fail in any way, at any look; the other
    claims are judged all the same. ``fault`` is the first reason."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self.words, self.fault = rule, rule.words, ""

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        try:
            return _of_rule(self._rule, runs, worst=worst)
        except Exception as error:
            self.fault = self.fault or _reason(error)
            # outside the family, whose rest counts with p = 1: as if this p were undefined
            return Evidence(supports=None, contradicts=None, n=0, words=self.fault, exact=True)


def _of_rule(rule: Rule, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
    found: object = rule.evidence(runs, worst=worst)
    if not isinstance(found, Evidence):
        raise ValueError(f"evidence is {found!r}; accepted: a genbench.claims.verdict.Evidence")
    return found


def _evidence(claim: Claim, runs: ClaimRuns) -> Evidence:
    """Return the evidence on a claim; an error names it."""
    try:
        return _of_rule(claim.rule, runs)
    except Exception as error:  # a rule of the user's own may fail in any way
        raise ValueError(f"claims.rules.{claim.id}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the message of an error in one line; of errors other than ValueError with their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _code(nodes: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of the code of the user's own rules as ``code``, if there are any."""
    from genbench.runs import source

    own = [name for name in source.targets(nodes) if not name.startswith("genbench.")]
    found = source.of(own).digest if own else None
    return {} if found is None else {"code": found}


def _metric_of_others(rule: Any) -> bool:
    """Tell whether the setting ``than`` of a rule may be the name of a metric: it is then no set of runs."""
    hint = getattr(rule, "__annotations__", {}).get("than", str)
    return isinstance(hint, str) or str in (get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint])


def _found(target: object, path: str, *, trust: bool) -> Any:
    """Return the class of a rule by its dotted name."""
    own = [f"{_ROOM}.{name}" for name in rules.__all__ if name != "Rule"]
    if target in own:
        return getattr(rules, str(target).rpartition(".")[2])
    if not isinstance(target, str) or target.count(".") == 0 or target.startswith("genbench."):
        last, names = str(target).rpartition(".")[2], [name.rpartition(".")[2] for name in own]
        hint = f"did you mean '{_ROOM}.{last}'?" if last in names else nearest(last, names)
        raise ValueError(f"{path} is {target!r}, which is no rule of {_ROOM}; {hint}")
    if not trust:
        raise ValueError(
            f"{path} is {target!r}, which is no rule of {_ROOM}; accepted: --trust, if you know who wrote it: it is "
            "then run as you"
        )
    module, _, name = target.rpartition(".")
    try:
        rule = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is {target!r}, which cannot be imported: {error}") from None
    if not callable(rule) or not hasattr(rule, "evidence"):
        raise ValueError(f"{path} is {target!r}, which is no rule; accepted: a class with words and evidence")
    return rule


def _integers(name: str, value: object, *, least: int, most: int | None = None) -> list[int]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; accepted: a list of integers")
    return [check_integer(f"{name}[{index}]", each, least=least, most=most) for index, each in enumerate(value)]
