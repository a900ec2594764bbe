"""The vectorized generator against the package's own, and what a stream of it gives."""

import numpy as np
import pytest
import torch
from mnist1d import data as package
from mnist1d.transform import transform

from genbench.data import MNIST1D, DriftingSignals, MNIST1DParity, MNIST1DStream, Signals
from genbench.data.stream import some
from genbench.rng import StepRandom
from genbench.runs import execute


def test_the_same_numbers_give_the_packages_signals(monkeypatch):
    """Its transform, fed the random numbers that ours was given."""
    rng, n = np.random.default_rng(0), 200
    y, padding, shift = (torch.from_numpy(rng.integers(0, high, n)) for high in (10, 25, 48))
    scale, shear = (torch.from_numpy(rng.uniform(-0.5, 0.5, n)) for _ in range(2))
    corr, iid = (torch.from_numpy(rng.standard_normal((n, 72))) for _ in range(2))
    ours = Signals().made(y, padding=padding, scale=scale, shift=shift, shear=shear, corr=corr, iid=iid)

    templates, arguments = package.get_templates(), package.get_dataset_args()
    for i in range(n):
        uniform = iter([(padding[i].item() + 0.5) / 25, scale[i].item() + 0.5, shear[i].item() + 0.5])
        normal = iter([corr[i].numpy(), iid[i].numpy()])
        monkeypatch.setattr(np.random, "rand", lambda uniform=uniform: next(uniform))
        monkeypatch.setattr(np.random, "randn", lambda *_, normal=normal: next(normal))
        monkeypatch.setattr(np.random, "choice", lambda _, i=i: shift[i].item())
        theirs, _ = transform(templates["x"][y[i]], templates["t"], arguments)
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=1e-12)


def test_the_distribution_is_that_of_the_frozen_set():
    """Means and second moments by class of 4000 frozen and 100,000 fresh signals; 10 · (40 + 820) of them, so that the
    largest deviation is compared with the tail of a normal distribution."""
    frozen_x, frozen_y = MNIST1D().tensors("train")
    x, y = Signals().sample(100_000, StepRandom(1, 0))
    assert torch.bincount(y).float().std() < 300  # √(10⁵ · 0.09) = 95
    assert x.dtype == torch.float32
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.std()) == pytest.approx(1, abs=0.02)
    worst = []
    for k in range(10):
        a, b = frozen_x[frozen_y == k].flatten(1).double(), x[y == k].flatten(1).double()
        i, j = torch.triu_indices(40, 40)
        for u, v in ((a, b), (a[:, i] * a[:, j], b[:, i] * b[:, j])):
            error = (u.var(0) / len(u) + v.var(0) / len(v)).sqrt()
            worst.append(((u.mean(0) - v.mean(0)) / error).abs().max())
    assert max(worst) < 5.5  # of 8600 standard normal numbers, beyond 5.5 with probability 3e-4


def test_a_classifier_of_the_one_classifies_the_other_as_well():
    """A network trained on fresh signals is as good on the frozen test set as on fresh ones."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(40, 100), torch.nn.ReLU(), torch.nn.Linear(100, 100), torch.nn.ReLU()
    ).append(torch.nn.Linear(100, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(400):
        x, y = Signals().sample(500, StepRandom(0, step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        x, y = Signals().sample(20_000, StepRandom(2, 0))
        fresh = float((net(x).argmax(1) == y).double().mean())
        data = MNIST1D()
        frozen_x, frozen_y = (
            torch.cat(parts) for parts in zip(data.tensors("train"), data.tensors("test"), strict=True)
        )
        frozen = float((net(frozen_x).argmax(1) == frozen_y).double().mean())
    assert fresh > 0.55  # it learnt something: chance is 0.1
    assert abs(fresh - frozen) < 4 * (0.25 / 5000 + 0.25 / 20_000) ** 0.5


def test_no_example_comes_twice_and_the_same_batch_comes_again():
    data = MNIST1DStream(train_size=400, test_size=100, batch_size=50)
    loader = data.train_dataloader()
    assert len(loader) == data.steps_per_epoch == 8
    seen = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        seen += list(loader)
    inputs = torch.cat([x for x, _ in seen]).flatten(1)
    assert len(inputs.unique(dim=0)) == 800
    again = data.train_dataloader()
    again.set_epoch(1)
    again.load_state_dict({"epoch": 1, "position": 3})  # as after a kill
    assert all(torch.equal(a, b) for a, b in zip(next(iter(again)), seen[8 + 3], strict=True))
    measured = data.tensors("train")[0].flatten(1)
    assert not (measured[:, None] == inputs[None]).all(2).any()


def test_a_smaller_frozen_set_is_the_beginning_of_a_larger_one():
    small, large = (some(Signals(), n, seed=3, site="train") for n in (1500, 2500))
    assert all(torch.equal(a, b[:1500]) for a, b in zip(small, large, strict=True))


def test_the_test_split_is_the_same_for_every_seed_and_may_be_shifted():
    one, other = (MNIST1DStream(train_size=100, test_size=500, seed=seed) for seed in (0, 1))
    assert torch.equal(one.tensors("test")[0], other.tensors("test")[0])
    assert not torch.equal(one.tensors("train")[0], other.tensors("train")[0])
    shifted = MNIST1DStream(train_size=100, test_size=500, test_signals=Signals(iid_noise=1.0))
    assert torch.equal(shifted.tensors("test")[1], one.tensors("test")[1])
    assert torch.equal(shifted.tensors("train")[0], one.tensors("train")[0])
    # 0.98 of the standard deviation of the raw signals (0.155) was added, but for the interpolation from 72 points
    assert shifted.tensors("test")[0].std() > 3 * one.tensors("test")[0].std()


def test_fresh_labels_are_noisy():
    clean, noisy = (MNIST1DStream(train_size=5000, batch_size=5000, label_noise=share) for share in (0.0, 0.4))
    (x, y), (same, wrong) = (next(iter(data.train_dataloader())) for data in (clean, noisy))
    assert torch.equal(x, same)
    assert float((y != wrong).double().mean()) == pytest.approx(0.4 * 0.9, abs=4 * (0.36 * 0.64 / 5000) ** 0.5)
    pairs = MNIST1DStream(train_size=5000, batch_size=5000, label_noise=0.4, noise_kind="asymmetric")
    _, other = next(iter(pairs.train_dataloader()))
    assert set(((other - y) % 10).tolist()) == {0, 1}
    assert float((y != other).double().mean()) == pytest.approx(0.4, abs=4 * (0.24 / 5000) ** 0.5)


FEW = ("data=mnist1d_stream", "data.test_size=100", "~measures.trace", "~measures.adaptive_sharpness")


@pytest.mark.parametrize("fresh", ["true", "false"])
def test_streams_train_packed_as_alone(configure, tmp_path, fresh):
    configs = [
        configure(
            *FEW, f"data.fresh={fresh}", f"seed={seed}", "regularization=ensemble", "regularization.ensemble.members=2"
        )
        for seed in (0, 1)
    ]
    found = execute.run_packed(configs, choices=[{}] * 2, overrides=[()] * 2)
    for config, record in zip(configs, found, strict=True):
        assert record["provenance"]["lanes"] == 4
        alone = execute.run({**config, "runs_dir": str(tmp_path / "alone")})
        for key, value in alone["metrics"].items():
            assert record["metrics"][key] == (None if value is None else pytest.approx(value, rel=1e-3, abs=1e-5)), key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_size": 0}, "data.test_size is 0; accepted: an integer of at least 1"),
        ({"fresh": 1}, "data.fresh is 1; accepted: true, false"),
        ({"duplicates": 0.5}, "data.duplicates is 0.5; accepted: 0 where data.fresh is true"),
        ({"inputs": "gaussian"}, "data.inputs is 'gaussian'; accepted: original where data.fresh is true"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MNIST1DStream(**settings)


def test_bad_constants_are_refused():
    with pytest.raises(ValueError, match=r"data\.translation is 100; accepted: an integer from 1 to 72"):
        Signals(translation=100)
    with pytest.raises(ValueError, match=r"data\.shear is -1; accepted"):
        Signals(shear=-1)


DRIFT = DriftingSignals(start=Signals(), end=Signals(shear=3.0, translation=8), first_epoch=2, last_epoch=6)


def test_a_drift_goes_from_start_to_end_in_equal_steps():
    assert DRIFT.at(0) == DRIFT.at(2) == Signals()
    assert DRIFT.at(3) == Signals(shear=0.75 + 2.25 / 4, translation=38)
    assert DRIFT.at(6) == DRIFT.at(99) == Signals(shear=3.0, translation=8)


def test_batches_of_an_epoch_are_from_its_distribution():
    """The same random numbers as without a drift, and the constants of the epoch."""
    drifting = MNIST1DStream(signals=DRIFT, train_size=200, batch_size=100).train_batches()
    for epoch in (0, 4, 8):
        steady = MNIST1DStream(signals=DRIFT.at(epoch), train_size=200, batch_size=100).train_batches()
        for loader in (drifting, steady):
            loader.set_epoch(epoch)
        for (x, y), (expected, labels) in zip(drifting, steady, strict=True):
            assert torch.equal(x, expected)
            assert torch.equal(y, labels)
    split = MNIST1DStream(signals=DRIFT, train_size=200).tensors("train")[0]
    assert torch.equal(split, MNIST1DStream(train_size=200).tensors("train")[0])


def test_what_cannot_drift_is_refused():
    with pytest.raises(ValueError, match=r"data\.fresh is False; accepted: true with signals that drift"):
        MNIST1DStream(signals=DRIFT, fresh=False)
    with pytest.raises(ValueError, match=r"data\.signals drift; accepted: signals that stay"):
        MNIST1DParity(signals=DRIFT)
    with pytest.raises(ValueError, match="last_epoch is 2; accepted: an integer of at least 3"):
        DriftingSignals(start=Signals(), end=Signals(), first_epoch=2, last_epoch=2)
