import math
from collections import Counter
from itertools import chain, combinations, product

import numpy as np
import pandas as pd
import pytest

from genbench.analysis import conditional_mutual_information
from tests.helpers.grids import AXES, MEASURES, table

SETTINGS = {"gap": "gap", "hyperparameters": [*AXES]}


def score(frame, measures=("m",), **settings):
    names = [name for name in frame.columns if name not in ("gap", *measures)]
    return conditional_mutual_information(
        frame, gap="gap", measures=[*measures], **{"hyperparameters": names, "permutations": 0, **settings}
    )


def entropies(joint):
    """I and H(V_g) in nats of {(V_g, V_μ): count}."""
    total, information, entropy = sum(joint.values()), 0.0, 0.0
    for (a, b), count in joint.items():
        of_gap, of_measure = (sum(joint[pair] for pair in joint if pair[k] == key) for k, key in ((0, a), (1, b)))
        information += count / total * math.log(count * total / of_gap / of_measure)
        entropy -= count / total * math.log(of_gap / total)
    return information, entropy


def plain(frame, name, chosen, contest=False):
    """I / H given a set of hyperparameters by a double loop over the runs, and how many ordered pairs were counted."""
    rows = [row for row in frame.to_dict("records") if not math.isnan(row[name])]
    tables = {}
    for one, other in product(rows, rows):
        along, moved = np.sign(one["gap"] - other["gap"]), np.sign(one[name] - other[name])
        if contest or (along and moved):
            u = tuple((one[axis], other[axis]) for axis in chosen)
            tables.setdefault(u, Counter())[bool(along > 0), bool(moved > 0)] += 1
    used = sum(joint.total() for joint in tables.values())
    weights = {u: 1 if contest else joint.total() for u, joint in tables.items()}
    parts = {u: entropies(joint) for u, joint in tables.items()}
    information, entropy = (sum(weights[u] * parts[u][k] for u in parts) for k in (0, 1))
    return information / entropy if entropy else math.nan, used


@pytest.mark.parametrize("seed", range(20))
def test_against_a_double_loop_over_the_runs(seed):
    frame, given = table(seed), seed % 4
    found = conditional_mutual_information(frame, measures=MEASURES, given=given, permutations=1, **SETTINGS)
    assert found["measure"].tolist() == MEASURES
    for row in found.to_dict("records"):
        sets = chain.from_iterable(combinations(AXES, size) for size in range(given + 1))
        expected = {chosen: plain(frame, row["measure"], chosen) for chosen in sets}
        runs, used = frame[row["measure"]].notna().sum(), expected[()][1] // 2
        assert (row["pairs"], row["missing"]) == (used, len(frame) - runs)
        assert row["ties"] == pytest.approx(1 - used / (runs * (runs - 1) / 2), abs=1e-12)
        if row["measure"] == "constant":
            assert math.isnan(row["value"])
            assert math.isnan(row["p"])
        else:
            assert row["value"] == pytest.approx(min(value for value, _ in expected.values()), abs=1e-12)
            assert expected[row["given"]][0] == pytest.approx(row["value"], abs=1e-12)
            assert row["stderr"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_contest_s_rule_against_a_double_loop(seed):
    frame = table(seed)
    found = score(frame, MEASURES, hyperparameters=[*AXES], contest=True).set_index("measure")
    for name in ("norm", "flat"):
        value = min(plain(frame, name, chosen, contest=True)[0] for chosen in combinations(AXES, 2))
        assert found["value"][name] == pytest.approx(value, abs=1e-12)
        assert len(found["given"][name]) == 2
        assert found["pairs"][name] == frame[name].notna().sum() ** 2
    assert found["value"]["constant"] == pytest.approx(0, abs=1e-12)


def test_by_hand():
    """Of runs 1, 2, 3 and gaps 1, 2, 3 the measure 2, 1, 3 orders two pairs of three rightly: 1 + log₂ of powers."""
    frame = pd.DataFrame({"x": [0, 0, 1], "gap": [1.0, 2.0, 3.0], "m": [2.0, 1.0, 3.0]})
    (row,) = score(frame, given=0).to_dict("records")
    assert row["value"] == pytest.approx(1 + (2 * math.log2(2 / 3) + math.log2(1 / 3)) / 3, abs=1e-12)
    assert (row["given"], row["pairs"], row["ties"]) == ((), 3, 0)
    # given x, only the pair with x = 0 has a gap whose order is open, and the measure settles it
    assert score(frame, given=1)["value"].tolist() == [row["value"]]


def test_only_the_order_of_values_counts():
    draw = np.random.default_rng(0)
    grid = pd.MultiIndex.from_product([range(3)] * 3, names=["x", "y", "z"]).to_frame(index=False)
    frame = grid.assign(gap=draw.normal(size=27), m=draw.normal(size=27))
    frame = frame.assign(same=frame["gap"], exp=np.exp(frame["m"]), fallen=-frame["m"])
    frame["far"] = frame["m"].where(frame["m"] < frame["m"].max(), math.inf)
    found = score(frame, ("same", "m", "exp", "fallen", "far"), permutations=19)
    assert found["value"][0] == pytest.approx(1, abs=1e-12)
    for column in ("value", "bias", "p"):
        assert found[column][2:].tolist() == pytest.approx([found[column][1]] * 3, abs=1e-12)
    shuffled = frame.sample(frac=1, random_state=0).assign(gap=lambda f: f["gap"] ** 3)
    assert score(shuffled)["value"][0] == pytest.approx(found["value"][1], abs=1e-12)


def grid(sizes, seeds=1):
    names = "abcd"[: len(sizes)]
    runs = pd.MultiIndex.from_product([range(size) for size in sizes], names=[*names]).to_frame(index=False)
    return pd.concat([runs] * seeds, ignore_index=True)


def independent(draw):
    runs = grid((3, 3, 2))
    return runs.assign(gap=draw.normal(size=18), m=draw.normal(size=18))


def tied(draw):
    return grid((3, 3, 2)).assign(gap=draw.integers(3, size=18), m=draw.integers(2, size=18))


def confounded(draw):
    """Both follow the same table of two hyperparameters."""
    runs = grid((3, 3, 2))
    shared = 3 * draw.normal(size=(3, 3))[runs["a"], runs["b"]]
    return runs.assign(gap=shared + draw.normal(size=18), m=shared + draw.normal(size=18))


def clustered(draw):
    """Three seeds a configuration, which differ less than configurations do; and the same confounding."""
    runs = grid((3, 3, 2), seeds=3)
    shared = draw.normal(size=(3, 3))[runs["a"], runs["b"]]
    own = {name: np.tile(draw.normal(size=18), 3) + 0.3 * draw.normal(size=54) for name in ("gap", "m")}
    return runs.assign(**{name: values + shared for name, values in own.items()})


def heavy(draw):
    return grid((3, 3, 2)).assign(gap=draw.standard_cauchy(18), m=draw.standard_cauchy(18))


def few(draw):
    """Ten configurations, and those with a large gap lose their measure."""
    runs = grid((3, 2, 2)).iloc[draw.permutation(12)[:10]]
    runs = runs.assign(gap=draw.normal(size=10), m=draw.normal(size=10))
    return runs.assign(m=runs["m"].where(runs["gap"] + draw.normal(size=10) < 1.5))


def rejected(make, count):
    frames = [make(np.random.default_rng(seed)) for seed in range(count)]
    return sum((score(frame, permutations=19, seed=seed)["p"] <= 0.05).sum() for seed, frame in enumerate(frames))


@pytest.mark.parametrize("make", [independent, tied, confounded, clustered, heavy, few])
def test_nulls_hold_their_level(make):
    """At 5 % at most 18 of 150 (the binomial bound of 1 in 1,000)."""
    assert rejected(make, 150) <= 18


def test_an_association_is_found():
    def make(draw):
        shared = draw.normal(size=81)
        runs = grid((3, 3, 3, 3))
        return runs.assign(gap=shared + draw.normal(size=81), m=shared + draw.normal(size=81))

    assert rejected(make, 10) == 10


def test_without_runs_to_permute_there_is_no_p():
    draw = np.random.default_rng(0)
    frame = grid((4, 4)).assign(gap=draw.normal(size=16), m=draw.normal(size=16))
    (row,) = score(frame, permutations=19).to_dict("records")
    assert math.isnan(row["p"])
    assert row["value"] == pytest.approx(min(plain(frame, "m", each)[0] for each in ((), ("a",), ("b",))), abs=1e-12)
    assert not math.isnan(row["bias"])
    assert score(frame, permutations=19, given=1)["p"].notna().all()
    assert score(frame.assign(m=math.nan))["value"].isna().all()
    assert score(frame, given=1)["p"].isna().all()  # without permutations


def test_a_sample_of_pairs_says_its_error():
    draw = np.random.default_rng(0)
    frame = grid((3, 3, 3), seeds=4).assign(gap=draw.normal(size=108))
    frame["m"] = frame["gap"] + draw.normal(size=108)
    (exact,) = score(frame)["value"]
    samples = pd.concat([score(frame, pairs=2000, seed=seed) for seed in range(30)])
    assert samples["value"].std() == pytest.approx(samples["stderr"].mean(), rel=0.4)  # 30 samples: 13 % each
    assert (samples["pairs"] == 2000).all()
    assert abs(samples["value"].mean() - exact) < samples["stderr"].mean()
    assert score(frame, pairs=2000, contest=True)["stderr"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hyperparameters": []}, r"hyperparameters is \[\]; accepted"),
        ({"hyperparameters": ["lr"], "contest": True}, r"hyperparameters is \['lr'\]; accepted: at least 2"),
        ({"measures": ["nrm"]}, r"column is 'nrm'; did you mean 'norm'\?"),
        ({"given": -1}, "given is -1"),
        ({"permutations": -1}, "permutations is -1"),
        ({"pairs": 0}, "pairs is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"gap": "far"}, "far is .*inf.*; accepted: finite numbers"),
        ({"hyperparameters": ["place", "lr"]}, "place and lr have .* cells; accepted: at most 300"),
    ],
)
def test_what_is_refused(change, message):
    frame = table(0, seeds=60, drop=0).assign(far=math.inf, place=lambda f: np.arange(len(f)) // 2)
    with pytest.raises(ValueError, match=message):
        conditional_mutual_information(frame, **{"measures": ["norm"], **SETTINGS, **change})
