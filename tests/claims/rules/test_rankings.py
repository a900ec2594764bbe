"""Rules about how measures rank the runs of a grid, whose unit is the configuration."""

import itertools
import math
import re

import numpy as np
import pytest
from scipy import stats

from genbench.claims import registration
from genbench.claims.family import verdicts
from genbench.claims.rules import All, Any, Ranks, RanksDiffer, RanksWrongly
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import assert_level_is_kept, record

LEVELS = [0, 1, 2]
AXES = {"data.a": LEVELS, "data.b": LEVELS, "data.c": LEVELS}
GRID = {"gap": "g", "over": AXES, "of": {}}
POINTS = [*itertools.product(LEVELS, repeat=3)]
N = 10_000  # test examples
SIZES = list(range(24))
LINE = {"gap": "g", "over": {"data.a": SIZES}, "of": {}}


def on_grid(make, *, seeds=1, seed=0, names="abc"):
    """The records of a run a point and seed, with the metrics that ``make(a, b, c, random)`` gives."""
    random, found = np.random.default_rng(seed), []
    for point in itertools.product(LEVELS, repeat=len(names)):
        for s in range(seeds):
            metrics = {name: float(value) for name, value in make(*point, random).items()}
            found.append(record(s, metrics, **dict(zip(names, point, strict=True))))
    return found


def on_line(**metrics):
    """The records of a run a size."""
    return [record(0, {name: float(of[a]) for name, of in metrics.items()}, a=a) for a in SIZES]


def noisy(a, b, c, random):
    m = a + random.normal()
    return {"m": m, "n": b + random.normal(), "g": 0.05 * (m - b) + 0.1 * random.normal(), "loss": 0.01}


def tau(x, g):
    """Kendall's τ by a double loop."""
    pairs = list(itertools.permutations(range(len(x)), 2))
    return sum(np.sign(x[i] - x[j]) * np.sign(g[i] - g[j]) for i, j in pairs) / len(pairs)


def jackknife(score, configurations):
    """The standard error of a score of runs by leaving out one configuration at a time."""
    names = sorted(set(configurations))
    parts = np.array([score([i for i, own in enumerate(configurations) if own != name]) for name in names])
    return math.sqrt((len(names) - 1) * parts.var()), len(names)


def columns(records, *names):
    return [np.array([run["metrics"][name] for run in records]) for name in names]


def points(records):
    return [tuple(run["config"]["data"][name] for name in "abc") for run in records]


@pytest.mark.parametrize("seeds", [1, 2])
def test_tau_is_tested_by_fishers_arctanh_over_configurations(seeds):
    records = on_grid(noisy, seeds=seeds)
    m, g = columns(records, "m", "g")
    value = tau(m, g)
    error, count = jackknife(lambda keep: tau(m[keep], g[keep]), points(records))
    found = Ranks(metric="m", margin=0.2, interest=0.9, **GRID).evidence(ClaimRuns(records))
    assert found.statistic == pytest.approx(value, abs=1e-12)
    error /= 1 - value**2
    assert found.supports == pytest.approx(stats.t.sf((math.atanh(value) - math.atanh(0.2)) / error, count - 1))
    assert found.contradicts == pytest.approx(stats.t.cdf((math.atanh(value) - math.atanh(0.9)) / error, count - 1))
    half = stats.t.ppf(0.975, count - 1) * error
    assert found.interval == pytest.approx((math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)))
    assert (found.n, found.unit, found.interest) == (27, "configuration", True)
    assert found.words.endswith(f"n = 27 configurations, {27 * seeds} runs")


def test_a_difference_of_two_taus_is_one_of_the_same_runs():
    records = on_grid(noisy)
    m, n, g = columns(records, "m", "n", "g")
    value = tau(m, g) + tau(n, g)
    error, count = jackknife(lambda keep: tau(m[keep], g[keep]) + tau(n[keep], g[keep]), points(records))
    rule = Ranks(metric="m", than_metric="n", than_direction=-1, margin=0.1, **GRID)
    found = rule.evidence(ClaimRuns(records))
    assert found.statistic == pytest.approx(value)
    assert found.supports == pytest.approx(stats.t.sf((value - 0.1) / error, count - 1))
    assert "exceeds that of minus n by more than 0.1" in rule.words


def test_one_swap_among_twenty_four_worked_by_hand():
    """x and g order 24 sizes alike but for the first two: τ = 1 - 2/276 · 1; without one of those two it is 1."""
    g = np.array([1, 0, *range(2, 24)])
    found = Ranks(metric="m", **LINE).evidence(ClaimRuns(on_line(m=range(24), g=g)))
    assert found.statistic == pytest.approx(1 - 2 / 276)
    reverse = Ranks(metric="m", direction=-1, sign=-1, **LINE).evidence(ClaimRuns(on_line(m=range(24), g=g)))
    assert (reverse.statistic, reverse.supports) == (pytest.approx(2 / 276 - 1), pytest.approx(found.supports))
    parts = np.array([1, 1] + [1 - 2 / 253] * 22)
    error = math.sqrt(23 * parts.var()) / (1 - (1 - 2 / 276) ** 2)
    assert found.supports == pytest.approx(stats.t.sf(math.atanh(1 - 2 / 276) / error, 23))


def test_a_perfect_order_is_bounded_by_disjoint_pairs():
    found = Ranks(metric="m", margin=0.5, **LINE).evidence(ClaimRuns(on_line(m=range(24), g=range(24))))
    assert (found.statistic, found.interval) == (1, None)
    assert found.supports == pytest.approx(0.75**12)  # (1 + margin) / 2, of 12 disjoint pairs
    assert found.contradicts == 1


def along(records, metric):
    """Ψ by loops: the mean over axes of the mean over contexts of τ over pairs that differ in the axis."""
    data, whole = points(records), []
    for axis in range(3):
        contexts = {}
        for i, j in itertools.combinations(range(len(records)), 2):
            rest = [k for k in range(3) if k != axis]
            if data[i][axis] != data[j][axis] and all(data[i][k] == data[j][k] for k in rest):
                one, other = records[i]["metrics"], records[j]["metrics"]
                sign = np.sign(one[metric] - other[metric]) * np.sign(one["g"] - other["g"])
                contexts.setdefault(tuple(data[i][k] for k in rest), []).append(sign)
        whole.append(np.mean([np.mean(signs) for signs in contexts.values()]))
    return float(np.mean(whole))


def test_psi_is_that_of_the_granulated_table_and_its_t_test_has_nine_contexts():
    import pandas as pd

    from genbench.analysis import granulated

    records = on_grid(noisy, seeds=2)
    frame = pd.DataFrame([{**run["config"]["data"], **run["metrics"]} for run in records])
    table = granulated(frame, gap="g", measures=["m"], hyperparameters=["a", "b", "c"])
    row = table[table["axis"] == "mean"].iloc[0]
    found = Ranks(metric="m", score="psi", margin=0.1, **GRID).evidence(ClaimRuns(records))
    assert found.statistic == pytest.approx(along(records, "m"))
    assert found.interval == pytest.approx((row["low"], row["high"]))
    error = (row["high"] - row["value"]) / stats.t.ppf(0.975, 8)
    assert found.supports == pytest.approx(stats.t.sf((row["value"] - 0.1) / error, 8))
    both = Ranks(metric="m", score="psi", than_metric="n", **GRID).evidence(ClaimRuns(records))
    assert both.statistic == pytest.approx(along(records, "m") - along(records, "n"))
    alone = Ranks(metric="m", score="psi", axes=["data.a"], **GRID).evidence(ClaimRuns(records))
    assert alone.statistic == pytest.approx(table[table["axis"] == "a"].iloc[0]["value"])


def test_a_measure_that_is_right_along_one_axis_and_wrong_along_another_worked_by_hand():
    """m = a - b - c orders the gap a + b + c along a alone: ψ is 1, -1, -1 and has no spread: by Markov over nine
    contexts, (1 - (2/3) / 2)⁹ for Ψ below 1/3."""
    records = on_grid(lambda a, b, c, _: {"m": a - b - c, "g": 0.1 * (a + b + c)}, seeds=2)
    found = Ranks(metric="m", score="psi", sign=-1, margin=-1 / 3, **GRID).evidence(ClaimRuns(records))
    assert found.statistic == pytest.approx(-1 / 3)
    assert found.supports == pytest.approx((2 / 3) ** 9)
    errors = Ranks(metric="m", score="sign_error", margin=0.5, test_size=N, **GRID).evidence(ClaimRuns(records))
    assert errors.statistic == pytest.approx(2 / 3)
    assert errors.supports == pytest.approx((5 / 6) ** 9)
    every = RanksWrongly(metrics=["m"], test_size=N, **GRID).evidence(ClaimRuns(records))
    assert every.statistic == 1
    assert every.supports == pytest.approx(9 * 0.5**9)  # nine environments of nine contexts, all alike in each


def test_sign_errors_are_those_of_the_table():
    import pandas as pd

    from genbench.analysis import sign_errors

    records = on_grid(noisy, seeds=2)
    frame = pd.DataFrame([{**run["config"]["data"], **run["metrics"]} for run in records])
    table = sign_errors(frame, gap="g", measures=["m", "n"], hyperparameters=["a", "b", "c"], test_size=1000)
    mean = table[table["axis"] == "mean"].set_index("measure")
    rule = {"metric": "m", "score": "sign_error", "test_size": 1000, **GRID}
    found = Ranks(margin=0.4, **rule).evidence(ClaimRuns(records))
    assert found.statistic == pytest.approx(mean["value"]["m"])
    assert found.interval == pytest.approx((mean["low"]["m"], mean["high"]["m"]))
    both = Ranks(than_metric="n", **rule).evidence(ClaimRuns(records))
    assert both.statistic == pytest.approx(mean["value"]["m"] - mean["value"]["n"])
    every = RanksWrongly(metrics=["m", "n"], test_size=1000, **GRID).evidence(ClaimRuns(records))
    rows = table[table["axis"] != "mean"]
    smallest = rows.groupby("measure")["p"].agg(lambda ps: min(1, len(ps) * ps.min()))
    assert every.supports == pytest.approx(smallest.max())
    assert every.statistic == pytest.approx(rows.groupby("measure")["value"].max().min())


def test_a_setting_may_be_what_a_measure_follows():
    records = on_grid(lambda a, b, c, random: {"m": a + 0.1 * random.normal(), "g": b + random.normal()})
    rule = Ranks(metric="m", gap="data.a", than_metric="m", than_gap="g", over=AXES, of={})
    found = rule.evidence(ClaimRuns(records))
    m, g = columns(records, "m", "g")
    assert found.statistic == pytest.approx(tau(m, [point[0] for point in points(records)]) - tau(m, g))
    assert found.supports < 0.05
    assert "of m with data.a exceeds that of m with g by more than 0, " in rule.words


def disagree(a, b, c, random):
    """Measures 1 to 3 rank along a in the order of their names, along b in the opposite one."""
    right = {f"m{i}": {"a": (i + 1) / 4, "b": (4 - i) / 4} for i in range(4)}
    signs = {name: {k: 1 if of[k] > 0.5 else -1 for k in "ab"} for name, of in right.items()}
    return {**{m: s["a"] * a + s["b"] * b for m, s in signs.items()}, "g": 0.1 * (a + b) + 0.001 * random.normal()}


def test_measures_that_are_right_along_one_axis_and_wrong_along_another_differ():
    """m2 and m3 are right along a and wrong along b, m0 and m1 the other way round: 4 of 6 pairs differ surely."""
    metrics = ["m0", "m1", "m2", "m3"]
    rule = RanksDiffer(metrics=metrics, test_size=N, axes=["data.a", "data.b"], **GRID)
    found = rule.evidence(ClaimRuns(on_grid(disagree, seeds=2)))
    assert found.statistic == pytest.approx(-4 / 6)
    assert found.supports < 0.01
    assert "of 6 pairs of measures 4 are shown to be in another order, 0 in the same" in found.words
    same = RanksDiffer(metrics=metrics, test_size=N, axes=["data.a", "data.b"], margin=-0.9, **GRID)
    assert (
        same.evidence(ClaimRuns(on_grid(disagree, seeds=2))).supports == 1
    )  # two pairs tie: it would take 95 % of them


VIOLATED = {
    "τ": (Ranks(metric="m", interest=0.3, **GRID), lambda a, b, c, r: {"m": r.normal() - a, "g": a + r.normal()}),
    "Ψ": (
        Ranks(metric="m", score="psi", interest=0.5, **GRID),
        lambda a, b, c, r: {"m": a - (g := b + r.normal()), "g": g},
    ),
    "difference": (
        Ranks(metric="m", than_metric="n", **GRID),
        lambda a, b, c, r: {"m": r.normal(), "n": (g := a + r.normal()) + 0.1 * r.normal(), "g": g},
    ),
    "sign error": (
        Ranks(metric="m", score="sign_error", sign=-1, margin=-0.2, test_size=N, **GRID),
        lambda a, b, c, r: {"m": r.normal(), "g": 0.1 * r.normal()},
    ),
    "wrongly": (
        RanksWrongly(metrics=["m", "n"], test_size=N, **GRID),
        lambda a, b, c, r: {"m": (g := 0.1 * r.normal()), "n": -g, "g": g},
    ),
    "differ": (
        RanksDiffer(metrics=["m", "n", "o"], axes=["data.a", "data.b"], test_size=N, **GRID),
        lambda a, b, c, r: {"m": (g := 0.1 * (a + b) + 0.01 * r.normal()), "n": r.normal(), "o": -g, "g": g},
    ),
    "any": (
        Any(parts=[All(parts=[Ranks(metric="m", **GRID), Ranks(metric="m", score="psi", sign=-1, **GRID)])]),
        lambda a, b, c, r: {"m": (g := 0.1 * r.normal()) + 0.02 * r.normal(), "g": g},
    ),
}


@pytest.mark.parametrize("name", VIOLATED)
def test_what_violates_a_claim_is_not_replicated(name):
    rule, make = VIOLATED[name]
    (found,) = verdicts({name: rule}, ClaimRuns(on_grid(make, seeds=3)), family=1, looks=[3])
    assert found.status == "not replicated", found.words


def test_opposite_signs_of_tau_and_psi_are_found_by_any():
    """m falls along the axis that makes most of the gap, and follows the three others."""

    def make(a, b, c, d, random):
        return {"m": b + c + d - 9 * a, "g": 0.05 * (b + c + d + 9 * a), "n": random.normal()}

    grid = {"gap": "g", "over": {**AXES, "data.d": LEVELS}, "of": {}}
    parts = [
        All(parts=[Ranks(metric=name, sign=s, **grid), Ranks(metric=name, sign=-s, score="psi", **grid)])
        for name in ("n", "m")
        for s in (1, -1)
    ]
    runs = ClaimRuns(on_grid(make, names="abcd"))
    (found,) = verdicts({"C3": Any(parts=parts)}, runs, family=1, looks=[1])
    assert found.status == "replicated", found.words
    assert (found.evidence.n, found.evidence.unit) == (81, "configuration")


NULLS = {
    "τ": (Ranks(metric="m", **GRID), 1),
    "Ψ": (Ranks(metric="m", score="psi", **GRID), 1),
    "Ψ of two seeds": (Ranks(metric="m", score="psi", **GRID), 2),
    "difference of τ": (Ranks(metric="m", than_metric="n", **GRID), 1),
    "difference of Ψ": (Ranks(metric="m", than_metric="n", score="psi", **GRID), 1),
    "sign error": (Ranks(metric="m", score="sign_error", margin=0.5, test_size=N, **GRID), 2),
    "wrongly": (RanksWrongly(metrics=["m"], test_size=N, **GRID), 2),
    # three measures whose order no pair shows: the limit of equal orders
    "differ": (RanksDiffer(metrics=["m", "n", "o"], axes=["data.a", "data.b"], test_size=N, margin=0.9, **GRID), 2),
}


@pytest.mark.parametrize("name", NULLS)
def test_the_level_is_kept_without_any_effect(name):
    rule, seeds = NULLS[name]

    def make(a, b, c, random):
        return {key: random.normal() * (0.1 if key == "g" else 1) for key in "mnog"}

    found = [rule.evidence(ClaimRuns(on_grid(make, seeds=seeds, seed=draw))) for draw in range(200)]
    assert sum(each.supports is not None for each in found) > 190
    for side in ("supports", "contradicts") if name not in ("wrongly", "differ") else ("supports",):
        assert_level_is_kept([getattr(each, side) for each in found])


def test_diverged_runs_and_those_outside_the_window_decide_nothing():
    def make(a, b, c, random):
        g = 0.1 * (a + b + c) + 0.01 * random.normal()
        return {"m": g + 0.05 * random.normal(), "g": g, "loss": 0.01}

    records = on_grid(make, seeds=2)
    within = {"loss": [0.009, 0.011]}
    records[0]["metrics"]["loss"] = records[2]["metrics"]["loss"] = 0.02
    records[1] = {**records[1], "status": "diverged", "metrics": {}}
    rules = [
        Ranks(metric="m", within=within, **GRID),
        Ranks(metric="m", score="psi", within=within, **GRID),
        Ranks(metric="m", score="sign_error", sign=-1, margin=-0.5, test_size=N, within=within, **GRID),
    ]
    for rule in rules:
        left_out, worst = (rule.evidence(ClaimRuns(records), worst=worst) for worst in (False, True))
        assert left_out.words.endswith(
            "26 configurations, 51 of 54 runs (left out: 2 outside the window, 1 without a number)"
        )
        assert left_out.unknown == (
            "seed 0 of data.a=0, data.b=0, data.c=0: loss is 0.02, outside [0.009, 0.011]",
            "seed 1 of data.a=0, data.b=0, data.c=0: diverged",
            "seed 0 of data.a=0, data.b=0, data.c=1: loss is 0.02, outside [0.009, 0.011]",
        )
        assert worst.supports > left_out.supports
    m, g = columns([records[i] for i in range(3, 54)], "m", "g")
    sure, lost = tau(m, g) * 51 * 50, 54 * 53 - 51 * 50  # ordered pairs of runs
    for side, bound in (("supports", sure - lost), ("contradicts", sure + lost)):
        rule = Ranks(metric="m", within=within, margin=bound / (54 * 53), **GRID)
        assert getattr(rule.evidence(ClaimRuns(records), worst=True), side) == pytest.approx(0.5)


def test_a_selection_cannot_decide_a_claim():
    """Of unrelated numbers only runs in which the measure happens to follow the gap reach the loss."""

    def make(a, b, c, d, random):
        m, g = random.normal(size=2)
        return {"m": m, "g": 0.1 * g, "loss": 0.01 if m * g > 0 else 0.02}

    over, records = {**AXES, "data.d": LEVELS}, on_grid(make, names="abcd", seeds=2)
    for score in ("tau", "psi", "sign_error"):
        kind = {"test_size": N, "sign": -1, "margin": -0.5} if score == "sign_error" else {}
        settings = {"metric": "m", "gap": "g", "over": over, "of": {}, "score": score, **kind}
        naive = Ranks(within={"loss": [0, 0.015]}, **settings)
        assert naive.evidence(ClaimRuns(records)).supports < 0.025
        (found,) = verdicts({"C": naive}, ClaimRuns(records), family=1, looks=[2])
        assert found.status == "undecided", found.words
    wrong = RanksWrongly(metrics=["m"], gap="g", over=over, of={}, test_size=N, within={"loss": [0.015, 1]})
    assert wrong.evidence(ClaimRuns(records)).supports < 0.025
    assert verdicts({"C": wrong}, ClaimRuns(records), family=1, looks=[2])[0].status == "undecided"


def test_unknown_runs_are_taken_off_every_difference_of_orders():
    records = on_grid(disagree, seeds=2)
    rule = RanksDiffer(metrics=["m0", "m1", "m2", "m3"], test_size=N, axes=["data.a", "data.b"], **GRID)
    records[0] = {**records[0], "status": "diverged", "metrics": {}}
    assert rule.evidence(ClaimRuns(records), worst=True).supports < 0.025
    for i in range(1, 18):
        records[i] = {**records[i], "status": "diverged", "metrics": {}}
    few = rule.evidence(ClaimRuns(records))
    assert (few.n, few.supports, few.contradicts) == (18, None, None)
    assert few.words.endswith(
        "36 of 54 runs (left out: 18 without a number); a verdict needs 20 configurations with a number"
    )


def test_missing_runs_leave_it_undecided():
    records = on_grid(noisy)[1:]
    records[0] = {**records[0], "status": "failed", "metrics": {}}
    for rule in (
        Ranks(metric="m", **GRID),
        RanksWrongly(metrics=["m", "n"], test_size=N, **GRID),
        RanksDiffer(metrics=["m", "n", "loss"], axes=["data.a", "data.b"], test_size=N, **GRID),
    ):
        (found,) = verdicts({"C": rule}, ClaimRuns(records, [0]), family=1, looks=[1])
        assert found.status == "undecided"
        assert found.words == (
            "2 runs are missing (seed 0 of data.a=0, data.b=0, data.c=0; "
            "seed 0 of data.a=0, data.b=0, data.c=1 (failed))"
        )


def test_a_constant_measure_has_no_score_and_an_infinite_one_is_the_largest():
    found = Ranks(metric="loss", **GRID).evidence(ClaimRuns(on_grid(noisy)))
    assert (found.supports, found.contradicts, found.statistic) == (None, None, None)
    assert found.words.startswith("a measure or the gap is constant: no score")
    huge = np.array([*range(23), 1e300])
    assert Ranks(metric="m", **LINE).evidence(ClaimRuns(on_line(m=huge, g=range(24)))).statistic == 1


def test_one_seed_of_a_grid_is_enough_to_register():
    node = {"statement": "S.", "_target_": "genbench.claims.rules.Ranks", "metric": "m", **GRID}
    parts = {"statement": "S.", "_target_": "genbench.claims.rules.Any", "parts": [{**node}]}
    parts["parts"][0].pop("statement")
    claims = registration.read({"seeds": 0, "looks": [1], "rules": {"C1": node, "C2": parts}})
    assert (claims.seeds, claims.looks, claims.family) == ((0,), (1,), 2)
    records = [{**run, "provenance": {"claims": claims.digest}} for run in on_grid(lambda a, b, c, r: {"m": a, "g": a})]
    assert [each.status for each in registration.judged(claims, records)] == ["replicated", "replicated"]
    assert registration.conditions(claims, records) == ["this grid of settings, for ranks"]
    seeds = {**node, "_target_": "genbench.claims.rules.Difference", "of": {"data.a": 1}, "than": {"data.a": 0}}
    del seeds["gap"], seeds["over"]
    with pytest.raises(ValueError, match=r"^claims.looks is \[1\]; accepted: numbers of at least 5 seeds"):
        registration.read({"seeds": 0, "looks": [1], "rules": {"C1": node, "C2": seeds}})


def test_a_metric_that_no_planned_run_will_have_is_refused():
    node = {"statement": "S.", "_target_": "genbench.claims.rules.Ranks", "metric": "m", **GRID}
    block = {"seeds": 0, "looks": [1], "rules": {"C1": node}}
    plans = [(block, run["config"], run["choices"]) for run in on_grid(noisy)]
    registration.check(plans, metrics=[frozenset({"m", "g"})] * 27)
    with pytest.raises(ValueError, match=r"^claims.rules.C1: a claim names the metric 'g', which no run of data.a=0"):
        registration.check(plans, metrics=[frozenset({"m", "h"})] * 27)
    with pytest.raises(ValueError, match=r"^claims.rules.C1: a claim names data.c=2, which no run has"):
        registration.check([plan for plan in plans if plan[1]["data"]["c"] < 2])


def test_a_list_of_settings_may_be_the_grid():
    records = on_grid(noisy)
    listed = [dict(zip(AXES, point, strict=True)) for point in POINTS]
    for score in ("tau", "psi"):
        one, two = (Ranks(metric="m", gap="g", over=over, of={}, score=score) for over in (AXES, listed))
        assert one.evidence(ClaimRuns(records)).supports == two.evidence(ClaimRuns(records)).supports


RANKS = {"metric": "m", **GRID}
SEVERAL = {"metrics": ["m", "n", "o"], "test_size": N, **GRID}


@pytest.mark.parametrize(
    ("rule", "change", "said"),
    [
        (Ranks, {"over": {"data.a": LEVELS}}, "over is {'data.a': [0, 1, 2]}; accepted: settings and lists of their "),
        (Ranks, {"score": "rho"}, "score is 'rho'; accepted: tau, psi, sign_error"),
        (Ranks, {"direction": 0}, "direction is 0; accepted: 1, -1"),
        (Ranks, {"sign": True}, "sign is True; accepted: 1, -1"),
        (Ranks, {"margin": 1}, "margin is 1; accepted: a number in (-1.0, 1.0)"),
        (Ranks, {"interest": 0}, "interest is 0; accepted: a number in (0.0, inf) (beyond the margin, or null)"),
        (Ranks, {"axes": ["data.a"]}, "axes is ['data.a']; accepted with score tau: null, as it is of all pairs"),
        (
            Ranks,
            {"axes": ["a"], "score": "psi"},
            "axes is ['a']; accepted: different settings of over (data.a, data.b, data.c)",
        ),
        (Ranks, {"than_gap": "h"}, "than_metric is null; accepted: another measure, with than_gap or than_direction"),
        (Ranks, {"than_metric": "m"}, "than_metric is 'm', as metric is; accepted: another, or than_gap"),
        (Ranks, {"score": "sign_error"}, "test_size is None; accepted: an integer of at least 1 (the test examples"),
        (Ranks, {"test_size": 9}, "test_size is 9; accepted with another score than sign_error: null"),
        (Ranks, {"within": {"m": 3}}, "within.m is 3; accepted: the least and the largest number"),
        (Ranks, {"within": {"m": [2, 1]}}, "within.m is [2, 1]; accepted: the least number first"),
        (Ranks, {"within": {}}, "within is {}; accepted: metrics and their least and largest number, or null"),
        (Ranks, {"gap": ""}, "gap is ''; accepted: the name of a metric"),
        (RanksWrongly, {"metrics": ["m", "m"]}, "metrics is ['m', 'm']; accepted: different metrics, at least 1"),
        (RanksWrongly, {"falls": ["p"]}, "falls names 'p', which is none of metrics; accepted: m, n, o"),
        (RanksDiffer, {"metrics": ["m", "n"]}, "metrics is ['m', 'n']; accepted: different metrics, at least 3"),
        (RanksDiffer, {"axes": ["data.a"]}, "axes is ['data.a']; accepted: different settings of over, 2 of them"),
        (RanksDiffer, {"margin": -1}, "margin is -1; accepted: a number in (-1, 1)"),
    ],
)
def test_settings_are_checked(rule, change, said):
    settings = {**(RANKS if rule is Ranks else SEVERAL), **change}
    if rule is RanksDiffer:
        settings = {"axes": ["data.a", "data.b"], **settings}
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        rule(**settings)


def test_gaps_in_percent_and_settings_without_numbers_are_refused():
    rule = Ranks(metric="m", score="sign_error", test_size=N, **GRID)
    with pytest.raises(ValueError, match=r"^the gap is 60 in a run; accepted: numbers in \[-1, 1\], no percent$"):
        rule.evidence(ClaimRuns(on_grid(lambda a, b, c, _: {"m": a, "g": 60})))
    over = {"data.a": LEVELS, "data.b": LEVELS, "data.c": LEVELS, "model": ["mlp"]}
    with pytest.raises(ValueError, match=r"^gap model is 'mlp'; accepted: a number in"):
        Ranks(metric="m", gap="model", over=over, of={}).evidence(ClaimRuns(on_grid(noisy)))


def test_the_words_name_the_side_the_window_and_the_axes():
    rule = Ranks(
        metric="m", direction=-1, score="sign_error", sign=-1, margin=-0.2, interest=-0.1, test_size=N,
        axes=["data.a"], within={"loss": [0.009, 0.011]}, **GRID,
    )  # fmt: skip
    assert rule.words == (
        "the mean sign error along data.a of minus m with g lies below 0.2 (of interest from 0.1), over data.a = 0, 1, "
        "2 and data.b = 0, 1, 2 and data.c = 0, 1, 2 of the runs, runs with loss in [0.009, 0.011], configurations as "
        "units, conditional on this grid"
    )
    assert Ranks(metric="m", sign=-1, **GRID).words.startswith("Kendall's τ of m with g lies below 0, over data.a")
