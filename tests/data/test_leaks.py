"""No split of any data set shows the examples of another: none is the same, and none overlaps with one."""

import os

import numpy as np
import pytest

from genbench.runs.build import build_data
from tests.helpers.choices import DATA, choices

# of few bits or tokens: any half of an example is half of many others, which is the task
TABLES = ("boolean_functions", "information_plane", "modular_arithmetic", "sparse_parity")


def rows(x):
    """A number for each row [n], of equal rows the same."""
    return fingerprints(bits(x).reshape(len(x), 1, -1))[:, 0]


def halves(x):
    """The same for every stretch of half a row along the last axis [n, stretches]; 0 for one whose first or last value,
    padding or background, fills more than half of it."""
    x = bits(x)
    stretches = np.lib.stride_tricks.sliding_window_view(x, x.shape[-1] // 2, axis=-1)
    stretches = np.moveaxis(stretches, -2, 1).reshape(len(x), stretches.shape[-2], -1)
    filled = [(stretches == stretches[..., [end]]).mean(2) for end in (0, -1)]
    return np.where(np.maximum(*filled) > 0.5, 0, fingerprints(stretches))


def bits(x):
    x = np.ascontiguousarray(np.asarray(x[:]))
    return x.view(f"u{x.itemsize}").astype("u8")


def fingerprints(x):
    return x @ np.random.default_rng(0).integers(2**64, size=x.shape[-1], dtype="u8")  # modulo 2^64


def seen(held, train):
    """The shares of held-out examples that are training examples, and that share half with one."""
    parts = halves(held)
    shared = np.isin(parts, np.setdiff1d(halves(train), [0]))
    return np.isin(rows(held), rows(train)).mean(), shared.any(1).mean()


@pytest.mark.parametrize("name", [name for name in choices("data") if "GENBENCH_TINY" not in str(DATA.get(name))])
def test_nothing_that_is_held_out_is_trained_on(configure, name):
    data = build_data(configure(f"data={name}", "data.val_fraction=0.2", small=False))
    train = data.tensors("train")[0]
    for split in ("val", "test"):
        same, half = seen(data.tensors(split)[0][:1000], train)
        if name == "char_lm":  # 16 characters of English, 0.23 to 0.27; of windows that overlap, all
            assert same < 0.005
            assert half < 0.4
        elif name == "text_classification":  # 32 words of tables, 0.06 to 0.09
            assert same == 0
            assert half < 0.15
        else:
            assert same == 0
            assert half == 0 or name in TABLES


def test_the_check_sees_a_copy_a_neighbouring_window_and_an_image_moved():
    draw = np.random.default_rng(0)
    series, images = draw.normal(size=(50, 1, 40)), draw.normal(size=(50, 3, 8, 8))
    for x in (series, images):
        assert seen(draw.normal(size=x.shape), x) == (0, 0)
        assert seen(np.concatenate([x[:5], draw.normal(size=x.shape)[:5]]), x) == (0.5, 0.5)
        moved = np.concatenate([x[..., 2:], draw.normal(size=x.shape)[..., :2]], -1)
        assert seen(moved, x) == (0, 1)


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_no_real_image_is_in_two_splits(configure, name):
    if "GENBENCH_DATA" not in os.environ:
        pytest.skip("GENBENCH_DATA names no folder with the real data sets")
    path = os.path.join(os.environ["GENBENCH_DATA"], name)
    data = build_data(configure(f"data={name}", f"data.path={path}", "data.val_fraction=0.2", small=False))
    train = rows(data.tensors("train")[0])
    assert len(np.unique(train)) == len(train)
    for split in ("val", "test"):
        assert not np.isin(rows(data.tensors(split)[0]), train).any()
