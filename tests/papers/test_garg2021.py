"""garg2021: numbers that violate a claim do not replicate it; five steps of each row train at both scales."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained

BOUND, ERROR, CLEAN = "test/bound/ratt_bound", "test/performance/error", "test/bound/clean_error"
EXCESS, RANDOM = "test/bound/ratt_excess", "test/bound/random_error"
LEAST, BEST, AT_BEST = (f"test/trajectory/{name}" for name in ("least_excess", "best_bound", "excess_at_best"))
EARLY, LATE = "test/trajectory/excess_at_500", "test/trajectory/excess_at_8000"
AXES = dict(node("garg2021")["claims"]["rules"]["C5a"]["over"])
SIZE, STEPS, PENALTY = AXES
MLP, CNN = "mlp", "cnn"


def numbers(
    run, *, least=0.02, of="", best=0.3, at_best=0.04, early=0.03, late=0.12, few=0.0, ranks=1.0, along=1.0,
    clean=-1.0, noise_of_bound=0.005,
):  # fmt: skip
    """The numbers of a run if every claim held. ``least``, ``best``, ``at_best``: the smallest excess and the smallest
    bound along training and the excess there, of the runs that ``of`` names: a network with ten classes, a train size
    with two, or all. ``early``, ``late``: the excess after 500 steps and at the end. ``few``: added to the bound of
    5,000 examples. ``ranks``, ``along``: how the bound follows the error over train sizes, and over steps and
    penalties; ``clean``: how the error on clean labels does."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    ten = run["data"] == "mnist1d_frozen"
    is_one = of in ("", run["model"] if ten else run[SIZE])
    level = {key: AXES[key].index(run[key]) for key in AXES}
    size, fit = 2 - level[SIZE], level[STEPS] + 0.5 * (2 - level[PENALTY])
    error = 0.1 + 0.06 * size + 0.02 * fit
    labels = noise(0, 0.01)  # drawn once for all checkpoints
    return {
        ERROR: error + noise(0, 0.002),
        BOUND: 0.3 + ranks * (0.15 * size + along * 0.04 * fit) + few * (size == 2) + noise(0, noise_of_bound),
        CLEAN: 0.3 + clean * error + noise(0, 0.002),
        LEAST: (least if is_one else 0.02) + noise(0, 0.002),
        BEST: (best if is_one else 0.3) + noise(0, 0.01),
        AT_BEST: (at_best if is_one else 0.04) + noise(0, 0.01),
        EARLY: early + labels + noise(0, 0.003),
        LATE: late + labels + noise(0, 0.003),
    }


WRONG = {
    **{f"C1a the bound fails with {of:,} examples": ("C1a", {"least": -0.02, "of": of}) for of in (5000, 15000, 50000)},
    **{f"C1b it fails for the {of}": ("C1b", {"least": -0.02, "of": of}) for of in (MLP, CNN)},
    "C2 it guesses": ("C2", {"best": 0.5, "of": 50000}),
    **{f"C2 it guesses, {of} with ten classes": ("C2", {"best": 0.9, "of": of}) for of in (MLP, CNN)},
    "C3a far above": ("C3a", {"at_best": 0.15, "of": 50000}),
    "C3a far below": ("C3a", {"at_best": -0.15, "of": 50000}),
    "C3b far above": ("C3b", {"at_best": 0.15, "of": MLP}),
    "C3c far above": ("C3c", {"at_best": 0.15, "of": CNN}),
    "C4a far from the start": ("C4a", {"early": 0.08}),
    "C4a it stays close": ("C4a", {"late": 0.03}),
    "C4a it comes closer": ("C4a", {"late": 0.01}),
    "C4b not vacuous": ("C4b", {"few": -0.4}),
    "C5a it falls with the error": ("C5a", {"ranks": -1.0}),
    "C5a it tells nothing": ("C5a", {"ranks": 0.0}),
    "C5b it follows the train size alone": ("C5b", {"along": -1.0}),
    "C5c the clean error ranks better": ("C5c", {"clean": 1.0, "noise_of_bound": 0.1}),
    "C5c the clean error ranks as well": ("C5c", {"clean": 1.0}),
}


def test_the_claims_are_the_same_at_the_papers_scale():
    steps = {1000: 500, 5000: 2000, 50000: 8000}
    penalties = dict(zip((0.0, 2.5e-4, 1.0e-3), AXES[PENALTY], strict=True))

    def at_scale(run):
        kind = {"grouped_images": ("mnist1d_parity", MLP), "mnist": ("mnist1d_frozen", MLP)}
        data, model = kind.get(run["data"], ("mnist1d_frozen", CNN))
        laptop = {"data": data, "model": model, STEPS: steps[run[STEPS]], PENALTY: penalties[run[PENALTY]]}
        found = numbers({**run, **laptop})
        return {**found, "test/trajectory/excess_at_50000": found[LATE]}

    found = judged("garg2021_paper", at_scale)
    assert [*found] == [*node("garg2021")["claims"]["rules"]]
    assert {verdict.status for verdict in found.values()} == {"replicated"}, [each.words for each in found.values()]


def short(row, *, size):
    """Return the overrides of a row that trains for five steps, measured after two and five if along training."""
    words = ("trainer.max_steps", "data.train_size", "model.width", "data.hub")
    chosen = [word for word in row if not word.startswith(words)]
    if "callbacks.trajectory=null" not in chosen:
        chosen.append("callbacks.random_labels.every_n_steps=[2,5]")
    few = (f"data.train_size={size}", "data.batch_size=10", "trainer.max_steps=5", "trainer.accelerator=cpu")
    return [*chosen, *few]


def check(found, row):
    assert found[EXCESS] == pytest.approx(found[BOUND] - found[ERROR])
    assert 0 < found[RANDOM] <= 1
    if "callbacks.trajectory=null" in row:
        assert LEAST not in found
        return
    assert found[LEAST] <= found[EXCESS]
    assert found[BEST] <= found[BOUND]
    assert found["test/trajectory/bound_at_5"] == found[BOUND]
    assert found[AT_BEST] in (found[EXCESS], found["test/trajectory/excess_at_2"])


@pytest.mark.parametrize("row", rows("garg2021"), ids=str)
def test_five_steps_of_each_row_on_the_laptop(row, tmp_path):
    check(trained(tmp_path, "experiment=garg2021", *short(row, size=100), "data.test_size=50"), row)


@pytest.mark.parametrize("row", rows("garg2021_paper"), ids=str)
def test_five_steps_at_the_papers_scale(row, small, tmp_path):
    width = "[8,8,4]" if "model=mlp" in row else 4
    given = (f"data.path={small}", f"model.width={width}")
    check(trained(tmp_path, "experiment=garg2021_paper", *short(row, size=40), *given), row)
