"""Which measure predicts generalization: measures on trial, beside rows whose worth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.analysis import selection, simultaneous
from genbench.analysis.controls import HYPERPARAMETERS, SEEDS, controls, reliability
from genbench.analysis.correlations import correlated, dense_ranks
from genbench.analysis.directions import LEARNED, WORDS, learned
from genbench.analysis.granulated import along
from genbench.analysis.mutual_information import conditional_mutual_information
from genbench.analysis.pairs import MEAN, checked, configurations
from genbench.analysis.partial import partial_association
from genbench.analysis.prediction import FOLDS, out_of_sample
from genbench.analysis.shared_seeds import SeedEffects, seed_codes
from genbench.analysis.sign_errors import COLUMNS, pair_sign_errors, sign_errors
from genbench.analysis.simultaneous import Score
from genbench.analysis.stability import stability, summary
from genbench.analysis.statistics import LEVEL, holm
from genbench.records.settings import show

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("tau", "psi")
_SHARED = 0.2
"""A larger share of the gap's variance that is of seeds is said."""
_MANY = 12
"""Hyperparameters, beyond which pairs of them are too many to condition on."""


@dataclass(frozen=True)
class Ranking:
    """Measures by their worth.

    Attributes:
        table: a row a measure and control, best first; see :func:`rank`.
        granulated: ψ along each hyperparameter, as :func:`genbench.analysis.granulated` gives it.
        sign_errors: of each environment, as :func:`genbench.analysis.sign_errors` gives them; empty without
            ``test_size``.
        stability: τ in each part of the runs, as :func:`genbench.analysis.stability` gives it.
        predictions: out of sample, as :func:`genbench.analysis.out_of_sample` gives them.
        falls: the measures that are to fall with the gap; all scores are of their negative.
        score: by what the rows are ordered, ``tau`` or ``psi``.
        baseline: the row with which the others are compared.
        seeds: the column whose values are the unit within configurations; None if runs are.
        runs: how many have part, and how many ``configurations`` they are.
        notes: what was left out or taken for what, sentences.
        within: the windows of metrics that runs had to lie in.
        left_out: how many runs of each value of each hyperparameter did not, as
            :func:`genbench.analysis.selection.left_out` gives them; empty without a window.
    """

    table: "pd.DataFrame"
    granulated: "pd.DataFrame"
    sign_errors: "pd.DataFrame"
    stability: "pd.DataFrame"
    predictions: "pd.DataFrame"
    falls: Sequence[str]
    score: str
    baseline: str
    gap: str
    hyperparameters: Sequence[str]
    seeds: str | None
    runs: int
    configurations: int
    notes: Sequence[str]
    within: selection.Within
    left_out: "pd.DataFrame"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, by column."""
        return _rows(self.table)


def rank(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    seeds: str | None = None,
    directions: Mapping[str, int] | None = None,
    test_size: int | None = None,
    score: str = "tau",
    baseline: str = HYPERPARAMETERS,
    permutations: int = 99,
    contest: bool = False,
    within: selection.Within | None = None,
    beside: Sequence[str] = (),
    seed: int = 0,
) -> Ranking:
    """Put measures on trial: how well does each predict the gap, and does it say more than the hyperparameters do?

    Rows of :func:`genbench.analysis.controls.controls` stand among them. Scores see nothing of a measure but the order
    of its values, so that an infinite one is the largest or smallest.

    Args:
        frame: a row a run.
        gap: the column to predict, numbers; runs without one are left out.
        measures: columns of numbers; of a run without a value, nothing is known of that measure alone.
        hyperparameters: columns, of numbers or text, whose values name a configuration. Those that never vary are left
            out.
        seeds: the column of the seed, if one seed means the same data or weights in several configurations: what is
            found within configurations then counts seeds, and not runs, and what is predicted out of sample is beyond
            them. Seeds that recur in too few configurations to be compared are left alone, which a note says.
        directions: 1 of a measure that is to rise with the gap, the default, −1 of one that is to fall, 0 of one whose
            direction the runs are to tell (:mod:`genbench.analysis.directions`).
        test_size: the number of test examples of the gap, if it is one of the 0–1 error; without, no sign errors.
        score: what orders the rows: ``tau`` or ``psi``.
        baseline: the row from which the differences are taken, a measure or a control.
        permutations: of the null of the mutual information.
        contest: take the mutual information by the rule of the contest on predicting generalization.
        within: metrics and the least and the largest number of each, such as the train loss at which training was to
            stop: other runs are left out. Each of these metrics is a control. A selection can make a measure look good,
            so that τ is bounded by what it could be with all runs, whatever the others are.
        beside: further columns of numbers that are controls, such as the steps taken or the train size: none of them is
            a hyperparameter by that name.
        seed: of whatever is drawn.

    Returns:
        a :class:`Ranking`, whose ``table`` has the columns ``measure``; ``control``; ``rank`` with the interval
        ``rank_low``, ``rank_high``; ``difference``, ``difference_low``, ``difference_high`` of the score from the
        baseline's, intervals that hold together; ``tau``, ``tau_b``, ``rho`` and ``psi``, each with ``…_low`` and
        ``…_high``; ``constant``, the contexts of ψ with nothing but ties; ``sign_error`` (the mean over environments)
        with ``…_low``, ``…_high``, ``sign_error_90`` (their 90th percentile), the number of ``environments``, of those
        that are ``tested`` as they have five contexts, and of those whose error is shown to exceed ½, ``wrong`` (Holm
        within the measure), and ``worst``, one in words; ``pair_sign_error`` with ``…_low``, ``…_high`` and
        ``pair_sign_error_90``, the same of the ``pair_environments``, pairs of configurations with four runs or more of
        each (:func:`genbench.analysis.pair_sign_errors`); ``lowest`` with ``…_low``, ``…_high`` and ``lowest_in``, the
        lowest τ among the runs with one value of a hyperparameter and that part in words, the number of ``parts``, and
        of those ``turned``, in which τ is shown to be below 0 (Holm within the measure);
        ``information``, ``information_bias`` and ``information_p``, given at most two hyperparameters; ``within`` with
        ``…_low``, ``…_high``, ``within_p``, given all of them; ``increment`` with ``…_low``, ``…_high``,
        ``increment_p`` of R² out of sample; ``reliability`` over seeds; ``runs``, and ``infinite`` of them; with
        ``within``, ``tau_worst`` and ``tau_best``, of all runs, each pair with one that is left out counting −1, or 1.

    Raises:
        ValueError: a column that is not there or holds no numbers; no hyperparameter that varies; fewer than three
            configurations; another score or baseline.
    """
    import pandas as pd

    if score not in SCORES:
        raise ValueError(f"score is {score!r}; accepted: {', '.join(SCORES)}")
    if not measures:
        raise ValueError("measures is []; accepted: columns, at least one")
    within = within or {}
    measures, hyperparameters = [*dict.fromkeys(measures)], [*dict.fromkeys(hyperparameters)]
    known = [*dict.fromkeys([*within, *beside])]
    if not (measures := [name for name in measures if name not in known]):
        raise ValueError("measures are controls alone; accepted: others beside them")
    signs = {name: sign or 1 for name, sign in (directions or {}).items()}  # for now, of those that are to be learned
    signs = checked(frame, gap, [*measures, *beside, *([] if seeds is None else [seeds])], hyperparameters, signs)
    roles = [gap, *measures, *known, *hyperparameters, *([] if seeds is None else [seeds])]
    if twice := [name for name in roles if roles.count(name) > 1]:
        raise ValueError(
            f"{twice[0]!r} has two roles; accepted: a gap, measures, hyperparameters and seeds that differ"
        )
    kept = selection.inside(frame, within)
    lost = selection.left_out(frame, kept, hyperparameters if within else [])
    told = selection.words(lost, within, kept) if within else []
    if not kept.any():
        raise ValueError(f"no run lies within: {told[0]}")
    frame, measures, hyperparameters, notes = _usable(frame[kept], gap, [*measures, *known], hyperparameters, seeds)
    known = [name for name in known if name in measures]
    measures, notes = [name for name in measures if name not in known], [*told, *notes]
    configuration = configurations(frame, hyperparameters)
    count = int(configuration.max(initial=-1)) + 1
    if count < 3:
        raise ValueError(f"{count} configurations of {', '.join(hyperparameters)} have a {gap}; accepted: at least 3")
    if seeds is not None and frame.duplicated([*hyperparameters, seeds]).any():
        notes.append(f"Runs of one configuration share their {seeds}: τ within takes all runs for independent.")
        seeds = None
    if seeds is not None and (share := reliability(frame[gap].to_numpy(), configurations(frame, [seeds]))) > _SHARED:
        notes.append(
            f"{100 * share:.0f} % of the variance of {gap} is that of {seeds}, which configurations share: intervals "
            "take configurations for independent, and are too narrow."
        )
    if seeds is not None:
        codes = seed_codes(frame, seeds, hyperparameters)
        told_apart = SeedEffects(codes, configuration, np.ones(len(frame), dtype=bool)).told()
        if unknown := int((~told_apart).sum()):
            independent = 2 * unknown > len(frame)
            if frame[seeds].nunique(dropna=False) > 1:
                notes.append(
                    f"{unknown} of {len(frame)} runs have a {seeds} that no two configurations compare with another: "
                    f"{'all runs are taken for independent' if independent else 'what it does stays in ΔR²'}."
                )
            seeds = None if independent else seeds
    infinite = {name: int(np.isinf(frame[name].to_numpy(dtype=float)).sum()) for name in measures}
    notes += [f"{name} is infinite in {n} runs: the largest or smallest of all." for name, n in infinite.items() if n]
    further = {name: frame[name].to_numpy(dtype=float) for name in known}
    added = controls(frame, gap=gap, hyperparameters=hyperparameters, seeds=seeds, seed=seed)
    if taken := [name for name in added if name in frame]:
        raise ValueError(f"a column is {taken[0]!r}, as a control is; accepted: another name")
    added |= further
    names = [*measures, *added]
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; accepted: {', '.join(names)}")
    if not np.ptp(added[HYPERPARAMETERS]):
        notes.append(
            f"The hyperparameters predict no unseen configuration: {HYPERPARAMETERS} are one number, with τ = 0."
        )
    unsaid = [name for name in measures if (directions or {}).get(name) == LEARNED]
    told_signs = learned(frame, gap=gap, measures=unsaid, hyperparameters=hyperparameters, seed=seed)
    signs |= {name: sign for name, sign in told_signs.items() if sign}
    falls = [name for name in measures if signs[name] < 0]
    if falls:
        notes.append(f"To fall with the gap, and turned: {', '.join(falls)}.")
    if unsaid:
        notes.append(WORDS)
    if untold := [name for name in unsaid if not told_signs[name]]:
        notes.append(f"The folds do not agree on these, which are taken to rise: {', '.join(untold)}.")
    turned = {name: dense_ranks(signs[name] * frame[name].to_numpy(dtype=float)) for name in measures}
    others = [name for name in (gap, *hyperparameters, seeds) if name is not None]
    frame = pd.concat([frame[others], pd.DataFrame({**turned, **added})], axis=1)  # all are to rise from here on

    settings: dict[str, Any] = {"gap": gap, "measures": names, "hyperparameters": hyperparameters}
    found = correlated(frame, gap, names, hyperparameters, None)
    granulated, psi = along(frame, gap, names, hyperparameters, None)
    if not np.ptp(added[HYPERPARAMETERS]):  # ties count 0
        found[HYPERPARAMETERS]["tau"] = replace(found[HYPERPARAMETERS]["tau"], value=0.0)
    varied = {name for name in names if not np.isnan(found[name]["tau"].value)}
    sizes = {name: found[name]["tau"].configurations for name in names if name in varied}
    fewest = min(sizes, key=lambda name: sizes[name], default="")
    if sizes and 2 * sizes[fewest] < max(sizes.values()):
        notes.append(
            f"{fewest} has values in {sizes[fewest]} of {count} configurations, and all differences and ranks have "
            "intervals as wide as that makes them."
        )
    primary = {n: (found[n]["tau"] if score == "tau" else psi.get(n)) if n in varied else None for n in names}
    given = 2 if len(hyperparameters) <= _MANY else 1
    if given == 1:
        notes.append(f"Of {len(hyperparameters)} hyperparameters, information is given one or none.")
    parts: dict[str, dict[str, dict[str, Any]]] = {
        "information": _by(
            conditional_mutual_information(
                frame, **settings, given=given, contest=contest, permutations=permutations, seed=seed
            )
        ),
        "within": _by(partial_association(frame, **settings, seeds=seeds, seed=seed)),
    }
    predictions = out_of_sample(frame, **settings, seeds=seeds, seed=seed)
    parts["increment"] = _by(predictions[predictions["split"] == FOLDS])
    parts["psi"] = _by(granulated[granulated["axis"] == MEAN])
    errors, pairs = pd.DataFrame(columns=[*COLUMNS]), pd.DataFrame(columns=["axis", "measure"])
    if test_size is None:
        notes.append("Sign errors need the number of test examples of the gap, and are left out.")
    else:
        errors = sign_errors(frame, **settings, test_size=test_size)
        pairs = pair_sign_errors(frame, **settings, test_size=test_size)
        if not len(errors):
            notes.append("No two values of a hyperparameter have gaps that differ surely in 12 pairs: no sign errors.")
    parts["sign_error"] = _by(errors[errors["axis"] == MEAN])
    parts["pair_sign_error"] = _by(pairs[pairs["axis"] == MEAN])
    stable = stability(frame, **settings)
    rows = []
    for name in (HYPERPARAMETERS, SEEDS):  # made of the gaps of other runs, which what is held against them has too
        for kind in ("information", "within", "increment"):
            parts[kind].pop(name, None)
    for name in set(names) - varied:  # a constant
        for kind in parts:
            parts[kind].pop(name, None)
    for name in names:
        row: dict[str, Any] = {"measure": name, "control": name in added}
        for kind, one in found[name].items():
            low, high = one.correlation_interval()
            row |= {kind: one.value, f"{kind}_low": low, f"{kind}_high": high}
        for kind in ("psi", "within", "increment", "sign_error", "pair_sign_error"):
            own = parts[kind].get(name, {})
            value = own.get("increment" if kind == "increment" else "value")
            row |= {kind: value, **{f"{kind}_{end}": own.get(end) for end in ("low", "high")}}
        own = parts["pair_sign_error"].get(name, {})
        row |= {"pair_sign_error_90": own.get("sign_error_90"), "pair_environments": own.get("environments", 0)}
        row |= _environments(errors[(errors["axis"] != MEAN) & (errors["measure"] == name)])
        row |= summary(stable[stable["measure"] == name])
        row |= {f"{kind}_p": parts[kind].get(name, {}).get("p") for kind in ("information", "within", "increment")}
        information = parts["information"].get(name, {})
        row |= {"information": information.get("value"), "information_bias": information.get("bias")}
        row["constant"] = parts["psi"].get(name, {}).get("constant")
        row["reliability"] = reliability(frame[name].to_numpy(dtype=float), configuration)
        row |= {"runs": found[name]["tau"].runs, "infinite": infinite.get(name, 0)}
        if within:
            ends = selection.bounds(found[name]["tau"].value, row["runs"], int((~kept).sum()))
            row |= dict(zip(("tau_worst", "tau_best"), ends, strict=True))
        rows.append(row)
    table = _ranked(rows, primary, names.index(baseline), seed)
    return Ranking(
        table,
        granulated,
        errors,
        stable,
        predictions,
        falls,
        score,
        baseline,
        gap,
        hyperparameters,
        seeds,
        len(frame),
        count,
        notes,
        within,
        lost,
    )


def _usable(
    frame: "pd.DataFrame", gap: str, measures: Sequence[str], hyperparameters: Sequence[str], seeds: str | None
) -> tuple["pd.DataFrame", list[str], list[str], list[str]]:
    """The runs with a gap, the measures and hyperparameters that say something of them, and what is said of others."""
    import pandas as pd

    numbers = {}
    for name in (gap, *measures):
        try:
            numbers[name] = pd.to_numeric(frame[name]).astype(float)
        except (ValueError, TypeError):
            text = frame[name][pd.to_numeric(frame[name], errors="coerce").isna() & frame[name].notna()].iloc[0]
            raise ValueError(f"column {name} holds {text!r}; accepted: numbers") from None
    others = frame[[*hyperparameters, *([] if seeds is None else [seeds])]]
    whole = pd.concat([others, pd.DataFrame(numbers)], axis=1).reset_index(drop=True)
    notes = []
    known = np.isfinite(whole[gap].to_numpy(dtype=float))
    if not known.any():
        raise ValueError(f"no run has a finite {gap}; accepted: at least 3 configurations with one")
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(whole)} runs have no finite {gap} and are left out.")
    if repeated := int(frame.reset_index(drop=True)[known].astype(str).duplicated().sum()):
        notes.append(f"{repeated} rows repeat another one in every column; they count as runs.")
    whole = whole[known].reset_index(drop=True)
    if not np.ptp(whole[gap]):
        raise ValueError(f"{gap} is {whole[gap].iloc[0]:g} in every run; accepted: one that varies")
    fixed = [name for name in hyperparameters if whole[name].nunique(dropna=False) < 2]
    if fixed:
        notes.append(f"Never varies, and is left out: {', '.join(fixed)}.")
    varied = [name for name in hyperparameters if name not in fixed]
    if not varied:
        raise ValueError(f"of {', '.join(hyperparameters)} none varies; accepted: hyperparameters that do")
    alike: dict[bytes, list[str]] = {}
    for name in varied:
        alike.setdefault(pd.factorize(whole[name], use_na_sentinel=False)[0].tobytes(), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            notes.append(f"{' and '.join(group)} vary together: nothing tells them apart; {group[0]} stands for all.")
    chosen = [group[0] for group in alike.values()]
    determined = [name for name in chosen if len(chosen) > 1 and not _differs_alone(whole, name, chosen)]
    if determined:
        notes.append(f"No two runs differ in it alone, so that no ψ is of it: {', '.join(determined)}.")
    tried = []
    for name in measures:
        missing = int(np.isnan(whole[name].to_numpy(dtype=float)).sum())
        if missing == len(whole):
            notes.append(f"{name} has no value in any run, and is left out.")
            continue
        tried.append(name)
        if missing:
            notes.append(f"{name} has no value in {missing} of {len(whole)} runs: their pairs are left out of it.")
    if not tried:
        raise ValueError(f"no run has a value of {', '.join(measures)}; accepted: measures that some have")
    return whole, tried, chosen, notes


def _differs_alone(frame: "pd.DataFrame", name: str, hyperparameters: Sequence[str]) -> bool:
    others = [each for each in hyperparameters if each != name]
    return bool((frame.groupby(others, dropna=False)[name].nunique(dropna=False) > 1).any())


def _rows(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _by(table: "pd.DataFrame") -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in _rows(table)}


def _environments(own: "pd.DataFrame") -> dict[str, Any]:
    """What the sign errors of a measure's environments come to."""
    if not len(own):
        return {"sign_error_90": None, "environments": 0, "tested": 0, "wrong": 0, "worst": ""}
    adjusted = holm([None if np.isnan(p) else float(p) for p in own["p"]])
    worst = own.sort_values("value", kind="stable").iloc[-1]
    return {
        "sign_error_90": float(np.quantile(own["value"], 0.9)),
        "environments": len(own),
        "tested": sum(p is not None for p in adjusted),
        "wrong": sum(p is not None and p <= 1 - LEVEL for p in adjusted),
        "worst": f"{worst['axis']}: {show(worst['a'])} and {show(worst['b'])}, {worst['value']:.2f}",
    }


def _ranked(
    rows: list[dict[str, Any]], primary: Mapping[str, Score | None], baseline: int, seed: int
) -> "pd.DataFrame":
    """The rows, best first, with ranks and differences from the baseline; those without a score last."""
    import pandas as pd

    table = pd.DataFrame(rows)
    for name in ("rank", "rank_low", "rank_high", "difference", "difference_low", "difference_high"):
        table[name] = np.nan
    of = {index: one for index, row in enumerate(rows) if (one := primary[row["measure"]]) and not np.isnan(one.value)}
    scores, scored = [*of.values()], [*of]
    if scores:
        for name, found in zip(("rank", "rank_low", "rank_high"), simultaneous.ranks(scores, seed=seed), strict=True):
            table.loc[scored, name] = found
    if baseline in of:
        place = scored.index(baseline)
        low, high = simultaneous.differences(scores, place, seed=seed)
        table.loc[scored, "difference"] = [one.value - of[baseline].value for one in scores]
        table.loc[scored, "difference_low"], table.loc[scored, "difference_high"] = low, high
    return table.sort_values("rank", kind="stable", na_position="last", ignore_index=True)
