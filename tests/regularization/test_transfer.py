"""Starting from the weights of another network."""

import io
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from genbench import records
from genbench.checks import ConfigError
from genbench.models import MLP
from genbench.models.embedded import Embedded
from genbench.regularization import BatchNorm, Dropout
from genbench.regularization.transfer import Transfer
from genbench.runs import execute, plan, subject
from tests.helpers.forked import Forked
from tests.helpers.hub_server import Server

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


def test_a_source_without_a_head_leaves_the_networks_own(tmp_path):
    """Under a wrapper's prefix, beside the head that it was trained with."""
    source, own = mlp(0), mlp(1)
    state = {f"model.{name}": p for name, p in source.state_dict().items() if not name.startswith("head.")}
    torch.save({**state, "cls.weight": torch.zeros(2)}, tmp_path / "w.pt")
    net = Transfer(source=str(tmp_path / "w.pt"), tune="all").build(mlp(1))
    for name, p in net.named_parameters():
        assert torch.equal(p, (own if name.startswith("head.") else source).get_parameter(name)), name


def test_a_head_is_taken_whole_or_not_at_all(tmp_path):
    source, own = mlp(0), mlp(1)
    torch.save({name: p for name, p in source.state_dict().items() if name != "head.bias"}, tmp_path / "w.pt")
    net = Transfer(source=str(tmp_path / "w.pt"), tune="all").build(mlp(1))
    assert torch.equal(net.head.weight, own.head.weight)


def test_the_head_behind_an_embedding_is_the_one_that_is_trained(tmp_path):
    source, net = (Embedded(mlp(seed), vocabulary=9, channels=1) for seed in (0, 1))
    Transfer(source=saved(tmp_path / "w.pt", source), tune="head").build(net)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {"network.head.weight", "network.head.bias"}
    assert torch.equal(net.embedding.weight, source.embedding.weight)


class OwnNetwork(nn.Module):
    """Somebody's network, known by ``_target_``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(40, 8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.body(x))


def test_a_network_by_target_starts_from_safetensors(configure, tmp_path):
    """Weights as the hub has them, saved from a network with another number of classes, in half precision."""
    source = OwnNetwork(classes=3).half()
    save_file({f"model.{name}": p for name, p in source.state_dict().items()}, tmp_path / "model.safetensors")
    config = configure(*QUIET, "regularization=transfer", f"regularization.transfer.source={tmp_path}")
    config["model"] = {"_target_": f"{__name__}.OwnNetwork"}
    record = execute.run(config)
    assert record["status"] == "completed", record["error"]
    folder = tmp_path / "runs" / record["experiment"] / record["run_id"]
    start, end = (torch.load(folder / name, weights_only=True) for name in ("initial.pt", "weights.pt"))
    for name in ("body.1.weight", "body.1.bias"):
        assert torch.equal(start[name], source.state_dict()[name].float())
        assert torch.equal(end[name], start[name])
    assert not torch.equal(end["head.weight"], start["head.weight"])


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
        (None, "source='w.pt' is not there; accepted: a run's folder, a file of weights, a folder with"),
        (b"", "holds no weights"),
    ],
)
def test_what_cannot_be_read_safely_is_refused_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        Transfer(source=str(tmp_path / "w.pt"), tune="all").build(mlp(0))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_the_hubs_layout_is_a_source(tmp_path, name):
    with pytest.raises(ConfigError, match=r"has no weights; accepted: .*a folder with model.safetensors, hf://owner/"):
        Transfer(source=str(tmp_path), tune="all").build(mlp(1))
    source = mlp(0)
    if name == "model.safetensors":
        save_file(source.state_dict(), tmp_path / name)
        torch.save(mlp(2).state_dict(), tmp_path / "pytorch_model.bin")  # the second choice
    else:
        torch.save(source.state_dict(), tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    net = Transfer(source=str(tmp_path), tune="all").build(mlp(1))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), source.parameters(), strict=True))
    identity = Transfer.identity({"source": str(tmp_path), "tune": "all"})
    assert identity["source"] == f"sha256:{records.file_digest(tmp_path / name)[:12]}"
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    with pytest.raises(ConfigError, match="holds no weights that can be loaded safely") as refused:
        Transfer(source=str(tmp_path), tune="all").build(mlp(1))
    assert "\n" not in str(refused.value)


IDENTIFY = """
import json, sys
from genbench.checks import ConfigError
from genbench.regularization.transfer import Transfer
for source in sys.argv[1:]:
    try:
        print(json.dumps(Transfer.identity({"source": source, "tune": "all"})["source"]))
    except ConfigError as error:
        print(json.dumps(str(error)))
"""


def identified(home, endpoint, *sources, **environment):
    """What a process says of sources; the hub's library reads its settings once, when it is imported."""
    env = {name: value for name, value in os.environ.items() if not name.lower().startswith(("hf_", "http"))}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*"}
    process = Forked(IDENTIFY, *sources, environment=env | environment)
    out, err = process.communicate(120)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_a_model_of_the_hub_is_fetched_once_and_then_needs_no_network(tmp_path):
    buffer = io.BytesIO()
    torch.save(mlp(1).state_dict(), buffer)
    files = {
        "me/new/resolve/main/model.safetensors": save(mlp(0).state_dict()),
        "me/new/resolve/v1/part/other.safetensors": save(mlp(2).state_dict()),
        "me/old/resolve/main/pytorch_model.bin": buffer.getvalue(),
    }
    sources = ["hf://me/new", "hf://me/new@v1/part/other.safetensors", "hf://me/old"]
    copies = [tmp_path / str(index) for index in range(3)]
    for copy, content in zip(copies, files.values(), strict=True):
        copy.write_bytes(content)
    contents = [f"sha256:{records.file_digest(copy)[:12]}" for copy in copies]
    server = Server(files)
    try:
        *found, empty, absent, nameless = identified(
            tmp_path / "home", server.url, *sources, "hf://me/new/absent.bin", "hf://me/absent", "hf://new"
        )
        assert found == contents
        assert empty.startswith("regularization transfer: source='hf://me/new/absent.bin' cannot be had: it has no abs")
        assert "'hf://me/absent' cannot be had: RepositoryNotFoundError: 404" in absent
        assert nameless.endswith("source='hf://new' names no model; accepted: hf://owner/name, hf://owner/name/file")
        assert [path for command, path in server.requests if command == "GET" and path in files] == list(files)
        server.requests.clear()
        assert identified(tmp_path / "home", server.url, *sources, *sources) == contents * 2
        assert [request for request in server.requests if request[1] in files] == [("HEAD", path) for path in files]
    finally:
        server.close()
    # no hub, then the library's own offline mode: without it, half a minute is spent to reach a hub for what is unknown
    assert identified(tmp_path / "home", server.url, *sources[:2]) == contents[:2]
    *found, absent = identified(tmp_path / "home", server.url, *sources, "hf://me/unknown", HF_HUB_OFFLINE="1")
    assert found == contents
    assert absent == (
        "regularization transfer: source='hf://me/unknown' cannot be had: it is not in the cache of the hub's "
        "library, and to fetch it a network is needed; accepted also: a folder or a file of it that was downloaded"
    )
    # a folder of the cache is one of the hub's layout
    (snapshot,) = (tmp_path / "home" / "hub" / "models--me--old" / "snapshots").iterdir()
    assert identified(tmp_path / "home", server.url, str(snapshot)) == contents[2:]


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
    first = execute.run(configure(*QUIET, "regularization=[]"))
    folder = tmp_path / "runs" / first["experiment"] / first["run_id"]
    chosen = (*QUIET, "regularization=transfer", "seed=1", "trainer.max_steps=9")
    of_one = plan.plan(configure(*chosen, f"regularization.transfer.source={folder.parent}"))
    plain = configure(*chosen, f"regularization.transfer.source={folder}")
    record = execute.run(plain)
    assert record["status"] == "completed", record["error"]
    assert record["run_id"] == of_one.run_id
    mine = tmp_path / "runs" / record["experiment"] / record["run_id"]
    start, source = (torch.load(path, weights_only=True) for path in (mine / "initial.pt", folder / "weights.pt"))
    assert all(torch.equal(start[name], source[name]) for name in source)
    assert record["config"]["regularization"]["transfer"]["source"] == f"sha256:{first['files']['weights.pt'][:12]}"

    several = configure(*chosen, f"regularization.transfer.source={folder.parent}")
    with pytest.raises(ConfigError, match="source='default' has 2 runs; accepted: one, or a folder of one"):
        plan.plan(several)

    (tmp_path / "copy.pt").write_bytes((folder / "weights.pt").read_bytes())
    moved = configure(*chosen, f"regularization.transfer.source={tmp_path / 'copy.pt'}")
    assert plan.plan(moved).run_id == record["run_id"]
    torch.save({name: t + 1 for name, t in source.items()}, tmp_path / "copy.pt")
    others = (moved, configure(*chosen), configure(*QUIET, "seed=1", "trainer.max_steps=9"))
    assert len({record["run_id"], *(plan.plan(other).run_id for other in others)}) == 4

    (folder / "weights.pt").unlink()
    assert subject.load(
        {
            "checkpoint": str(mine),
            "data": {},
            "model": {},
            "initial": None,
            "key": None,
            "device": "cpu",
            "trust": False,
        }
    )
    with pytest.raises(ConfigError, match=r"source: the run \w+ cannot be read: its record weights.pt is missing"):
        plan.plan(plain)
