"""Starting from the weights of another network."""

import pickle

import pytest
import torch
from torch import nn

from genbench import experiment, measuring
from genbench.config import ConfigError
from genbench.models import MLP
from genbench.regularization import BatchNorm, Dropout
from genbench.regularization.transfer import Transfer

QUIET = ("callbacks.gap.every_n_epochs=null", "~callbacks.weight_norms", "~callbacks.measures")


def mlp(seed, classes=3, **settings):
    torch.manual_seed(seed)
    return MLP(input_shape=(1, 6), classes=classes, width=7, **settings)


def saved(path, net, **more):
    torch.save({"state_dict": net.state_dict(), **more} if more else net.state_dict(), path)
    return str(path)


def test_a_network_starts_from_the_source(tmp_path):
    source = mlp(0)
    net = Transfer(source=saved(tmp_path / "w.pt", source), tune="all").build(mlp(1))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), source.parameters(), strict=True))
    assert all(p.requires_grad for p in net.parameters())


def test_a_checkpoint_of_lightnings_is_read_under_the_wrappers_prefix(tmp_path):
    source = mlp(0)
    wrapped = nn.ModuleDict({"network": source})
    path = saved(tmp_path / "last.ckpt", wrapped, epoch=3)
    net = Transfer(source=path, tune="all").build(mlp(1))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), source.parameters(), strict=True))


def test_the_head_alone_may_be_trained_and_is_new_for_other_classes(tmp_path):
    source, own = mlp(0, classes=5), mlp(1)
    net = Transfer(source=saved(tmp_path / "w.pt", source), tune="head").build(mlp(1))
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    for name, p in net.named_parameters():
        assert torch.equal(p, (own if name.startswith("head.") else source).get_parameter(name)), name


def test_batch_statistics_come_along_and_rates_of_dropout_do_not(tmp_path):
    source = Dropout(rate=0.5).build(BatchNorm().build(mlp(0)))
    source.layers[0][1].running_mean.fill_(3)
    path = saved(tmp_path / "w.pt", source)
    net = Transfer(source=path, tune="all").build(Dropout(rate=0.1).build(BatchNorm().build(mlp(1))))
    assert (net.layers[0][1].running_mean == 3).all()
    assert float(net.layers[0][3].p) == 0.1


def test_names_that_do_not_fit_are_listed_in_one_line(tmp_path):
    path = saved(tmp_path / "w.pt", mlp(0, depth=3))
    with pytest.raises(ConfigError) as refused:
        Transfer(source=path, tune="all").build(BatchNorm().build(mlp(1)))
    message = str(refused.value)
    assert message.startswith("regularization transfer: source does not fit: layers.0.1.weight missing, here (7,); ")
    assert message.endswith(" more")
    assert "\n" not in message
    with pytest.raises(ConfigError, match=r"does not fit: layers.2.0.weight \(7, 7\), here missing; layers.2.0.bias"):
        Transfer(source=path, tune="all").build(mlp(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(print), "holds no weights that can be loaded safely"),
        (None, "source='w.pt' is not there; accepted: a run's folder, a file of weights"),
        (b"", "holds no weights"),
    ],
)
def test_what_cannot_be_read_safely_is_refused_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        Transfer(source=str(tmp_path / "w.pt"), tune="all").build(mlp(0))
    assert "\n" not in str(refused.value)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"head.weight": Harmful()}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="holds no weights that can be loaded safely"):
        Transfer(source=str(tmp_path / "w.pt"), tune="all").build(mlp(0))
    assert not (tmp_path / "written").exists()


def test_settings_and_networks_without_a_head_are_refused():
    with pytest.raises(ValueError, match="tune is 'body'; accepted: all, head"):
        Transfer(source=None, tune="body")
    with pytest.raises(ConfigError, match="Linear has no head"):
        Transfer(source=None, tune="all").build(nn.Linear(3, 2))


def test_a_run_from_a_run(configure, tmp_path):
    """Its identity is the content of the source, wherever that lies; its folder can be measured without it."""
    first = experiment.run(configure(*QUIET, "regularization=[]"))
    folder = tmp_path / "runs" / first["experiment"] / first["run_id"]
    chosen = (*QUIET, "regularization=transfer", "seed=1", "trainer.max_steps=9")
    of_one = experiment.plan(configure(*chosen, f"regularization.transfer.source={folder.parent}"))
    plain = configure(*chosen, f"regularization.transfer.source={folder}")
    record = experiment.run(plain)
    assert record["status"] == "completed", record["error"]
    assert record["run_id"] == of_one.run_id
    mine = tmp_path / "runs" / record["experiment"] / record["run_id"]
    start, source = (torch.load(path, weights_only=True) for path in (mine / "initial.pt", folder / "weights.pt"))
    assert all(torch.equal(start[name], source[name]) for name in source)
    assert record["config"]["regularization"]["transfer"]["source"] == f"sha256:{first['files']['weights.pt'][:12]}"

    several = configure(*chosen, f"regularization.transfer.source={folder.parent}")
    with pytest.raises(ConfigError, match="source='default' has 2 runs; accepted: one, or a folder of one"):
        experiment.plan(several)

    (tmp_path / "copy.pt").write_bytes((folder / "weights.pt").read_bytes())
    moved = configure(*chosen, f"regularization.transfer.source={tmp_path / 'copy.pt'}")
    assert experiment.plan(moved).run_id == record["run_id"]
    torch.save({name: t + 1 for name, t in source.items()}, tmp_path / "copy.pt")
    others = (moved, configure(*chosen), configure(*QUIET, "seed=1", "trainer.max_steps=9"))
    assert len({record["run_id"], *(experiment.plan(other).run_id for other in others)}) == 4

    (folder / "weights.pt").unlink()
    assert measuring._load({"checkpoint": str(mine), "data": {}, "model": {}, "initial": None, "device": "cpu"})
    with pytest.raises(ConfigError, match=r"source: the run \w+ cannot be read: its record weights.pt is missing"):
        experiment.plan(plain)
