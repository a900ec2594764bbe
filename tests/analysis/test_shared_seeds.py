import numpy as np
import pandas as pd
import pytest

from genbench.analysis.shared_seeds import SeedEffects, seed_codes

EVERY = [(configuration, seed) for configuration in range(6) for seed in range(3)]


def effects(pairs, known=None):
    configuration, seeds = np.array(pairs).T
    return SeedEffects(seeds, configuration, np.ones(len(pairs), dtype=bool) if known is None else known)


def test_where_each_configuration_has_each_seed_effects_are_means():
    values = np.random.default_rng(0).normal(size=18)
    means = values.reshape(6, 3).mean(0)
    assert effects(EVERY).less(values) == pytest.approx(values - np.tile(means - means.mean(), 6), abs=1e-12)


def test_where_some_are_missing_effects_are_those_of_least_squares():
    draw = np.random.default_rng(0)
    pairs = [pair for pair in EVERY if pair not in ((0, 2), (1, 2), (2, 0), (5, 1), (5, 2))]
    configuration, seeds = np.array(pairs).T
    values = draw.normal(size=len(pairs))
    rest = values - effects(pairs).less(values)
    known = np.arange(len(pairs)) > 2  # without the runs of one configuration
    part = values - effects(pairs, known).less(values)
    for found, rows in ((rest, np.ones(len(pairs), dtype=bool)), (part, known)):
        design = np.column_stack([seeds == 1, seeds == 2, configuration[:, None] == np.arange(6)]).astype(float)
        one, two = np.linalg.lstsq(design[rows], values[rows], rcond=None)[0][:2]
        assert [found[seeds == at][0] - found[0] for at in (1, 2)] == pytest.approx([one, two], abs=1e-12)
        assert sum(found[seeds == at][0] for at in range(3)) == pytest.approx(0, abs=1e-12)


def test_seeds_that_no_configuration_compares_keep_their_part():
    """Of two halves with seeds of their own, what tells the halves apart is no seed's."""
    draw = np.random.default_rng(0)
    pairs = [(configuration, seed + 3 * (configuration > 2)) for configuration, seed in EVERY]
    half = np.repeat([0.0, 7.0], 9)
    values = draw.normal(size=18)
    found = effects(pairs)
    assert found.told().all()
    assert found.less(values + half) == pytest.approx(found.less(values) + half, abs=1e-12)
    for apart in (
        [(configuration, run) for run, (configuration, _) in enumerate(EVERY)],  # a seed a run
        [(configuration, configuration % 2) for configuration in range(6)],  # a seed a configuration
        [(configuration, 0) for configuration in range(6)],
        [],
    ):
        values = np.arange(float(len(apart)))
        found = effects(np.array(apart, dtype=int).reshape(-1, 2))
        assert (found.less(values) == values).all()
        assert not found.told().any()


def test_what_is_the_seed_alone_is_one_number():
    values = np.array([0.1, 0.2, 0.3])[np.array(EVERY)[:, 1]] * 3
    assert np.ptp(effects(EVERY).less(values)) == 0
    kept = [pair for pair in EVERY if pair not in ((0, 2), (1, 2), (4, 0))]
    assert np.ptp(effects(kept).less(1e6 + np.array([0.1, 0.2, 0.3])[np.array(kept)[:, 1]])) == 0


def test_seeds_are_coded_and_checked():
    frame = pd.DataFrame({"x": [1, 1, 2, 2], "s": ["a", None, "a", None]})
    assert seed_codes(frame, "s", ["x"]).tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"column is 'sed'; accepted: x, s"):
        seed_codes(frame, "sed", ["x"])
    with pytest.raises(ValueError, match="s is 'a' in two runs of a configuration; accepted: one run a seed"):
        seed_codes(frame.assign(x=1), "s", ["x"])
