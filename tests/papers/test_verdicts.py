"""The claims of every paper: what their made-up records say that hold, that violate one, or that are too few.

The file of a paper makes up the ``numbers`` of a run, and changes of them for each claim, ``WRONG``: name -> the claim
and the arguments of ``numbers`` that violate it, or leave none of its effect. ``SEEDS`` has the number of seeds of what
eight cannot decide.
"""

import importlib
from pathlib import Path

import pytest

from genbench.claims import registration
from tests.helpers.experiments import judged, node

_FILES = sorted(Path(__file__).parent.glob("test_*.py"))
MODULES = {path.stem.removeprefix("test_"): importlib.import_module(f"tests.papers.{path.stem}") for path in _FILES
           if path != Path(__file__)}  # fmt: skip
PAPERS = {name: module for name, module in MODULES.items() if hasattr(module, "WRONG")}
CASES = [(name, case) for name, module in PAPERS.items() for case in module.WRONG]


@pytest.mark.parametrize("paper", PAPERS)
def test_numbers_like_the_paper_s_replicate_every_claim(paper):
    found = judged(paper, PAPERS[paper].numbers)
    assert {name: verdict.status for name, verdict in found.items()} == {
        name: "holds" if rule.get("theorem") else "replicated" for name, rule in node(paper)["claims"]["rules"].items()
    }, [verdict.words for verdict in found.values()]


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_is_violated_by_some_numbers(paper):
    assert {claim for claim, _ in PAPERS[paper].WRONG.values()} == set(node(paper)["claims"]["rules"])


@pytest.mark.parametrize(("paper", "case"), CASES, ids=lambda part: part)
def test_numbers_that_violate_a_claim_do_not_replicate_it(paper, case):
    module = PAPERS[paper]
    claim, changes = module.WRONG[case]
    seeds = getattr(module, "SEEDS", {}).get(case, 8)
    verdict = judged(paper, lambda run: module.numbers(run, **changes), seeds=seeds)[claim]
    theorem = node(paper)["claims"]["rules"][claim].get("theorem")
    assert verdict.status == ("violated" if theorem else "not replicated"), verdict.words


@pytest.mark.parametrize("paper", PAPERS)
def test_fewer_seeds_than_the_first_look_decide_nothing(paper):
    """But for exact claims, which one run can refute."""
    looks = registration.read(node(paper)["claims"]).looks
    found = judged(paper, PAPERS[paper].numbers, seeds=looks[0] - 1).values()
    assert {verdict.status for verdict in found if not verdict.evidence.exact} == {"undecided"}
