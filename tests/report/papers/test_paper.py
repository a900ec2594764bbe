"""The node ``paper`` of an experiment."""

import re

import pytest
import yaml

from genbench.report.papers.paper import Critique, read
from tests.helpers.papers import EXPERIMENT

BLOCK = yaml.safe_load(EXPERIMENT)["paper"]


def test_a_paper_is_read():
    paper = read(BLOCK)
    assert paper.claimed == "A squared penalty shrinks the weights."
    assert paper.citation == "A. Nobody and B. Noone 2020"
    assert paper.url == "https://arxiv.org/abs/2001.00001"
    assert paper.critiques == (Critique("Norms say little about functions.", "Critic 2021"),)
    assert paper.tried == {"grows": "Nothing else was tried."}
    assert (paper.one_scale, paper.companions) == (None, {})
    assert read({**BLOCK, "companions": {"Other 2021": ["grows"]}}).companions == {"Other 2021": ("grows",)}
    assert read({**BLOCK, "one_scale": "Its settings are\nunknown."}).one_scale == "Its settings are unknown."
    assert read({**BLOCK, "link": "doi:10.1162/neco.1997.9.1.1"}).url == "https://doi.org/10.1162/neco.1997.9.1.1"


def test_a_study_of_genbenchs_own_has_no_authors_year_and_link():
    study = read({name: value for name, value in BLOCK.items() if name not in ("authors", "year", "link")})
    assert (study.citation, study.url) == ("A study of genbench's own", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "paper.titel is not a setting; did you mean 'title'?"),
        ({"title": None}, "paper.title is None; accepted: text"),
        ({"authors": None}, "paper.authors is None; accepted: text"),
        ({"link": None}, "paper.link is None; accepted: text"),
        ({"year": None}, "paper.year is None; accepted: an integer from 1600 to 2100"),
        ({"year": "2020"}, "paper.year is '2020'; accepted: an integer from 1600 to 2100"),
        # an arXiv id without quotes is a number
        ({"link": 1611.0353}, "paper.link is 1611.0353; accepted: text"),
        (
            {"link": "1611.03530"},
            "paper.link is '1611.03530'; accepted: arXiv:1611.03530 or doi:10.1162/neco.1997.9.1.1",
        ),
        ({"scaled_down": "small"}, "paper.scaled_down is 'small'; accepted: a list, or null"),
        ({"one_scale": 1}, "paper.one_scale is 1; accepted: text"),
        ({"limits": [3]}, "paper.limits[0] is 3; accepted: text"),
        (
            {"critiques": ["bad"]},
            "paper.critiques[0] is 'bad'; accepted: {text: a sentence, source: who said it}",
        ),
        (
            {"critiques": [{"text": "a", "source": "b", "sources": "c"}]},
            "paper.critiques[0].sources is not a setting; did you mean 'source'?",
        ),
        ({"tried": {"grow": "x"}}, "paper.tried.grow is no claim of the experiment; did you mean 'grows'?"),
        (
            {"companions": {"Other 2021": ["grow"]}},
            "paper.companions names grow, no claim; did you mean 'grows'?",
        ),
        (
            {"companions": {"Other 2021": ["grows"], "Third 2022": ["grows"]}},
            "paper.companions names grows twice; accepted: a claim of one paper",
        ),
        ({"companions": {"Other 2021": "grows"}}, "paper.companions.Other 2021 is 'grows'; accepted: a list, or null"),
        (
            {"companions": ["grows"]},
            "paper.companions is ['grows']; accepted: by the name of a paper its claims, or null",
        ),
        ({"claimed": "a \x1b[31m b"}, "paper.claimed is 'a \\x1b[31m b'; accepted: text"),
    ],
)
def test_what_is_not_accepted_is_named(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read({**BLOCK, **change}, ["shrinks", "grows", "positive"])
