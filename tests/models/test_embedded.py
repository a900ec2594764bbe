"""Tokens through an embedding: what every network makes of them, alone and packed."""

import pytest
import torch
from torch import nn

from genbench import config
from genbench.checks import ConfigError
from genbench.models.embedded import Embedded
from genbench.models.mlp import MLP
from genbench.rng import StepRandom
from genbench.runs import build, execute, plan
from genbench.training import Lane, Pack
from tests.helpers.choices import MODEL, choices

TOKENS = ("data=modular_arithmetic", "data.p=17", "data.train_size=100", "data.val_fraction=0.1", "data.channels=8")
# networks of images do not take sequences
MODELS = [name for name in choices("model") if not any(o.startswith("data=") for o in MODEL.get(name, []))]


def test_it_is_the_network_on_the_rows_of_the_embedding():
    inner = MLP(input_shape=(5, 3), classes=4)
    net = Embedded(inner, vocabulary=7, channels=5)
    x = torch.tensor([[0, 6, 2], [1, 1, 1]])
    by_hand = torch.stack([torch.stack([net.embedding.weight[t] for t in row], 1) for row in x.tolist()])
    assert torch.equal(net(x), inner(by_hand))
    assert torch.equal(net.head(net.features(x)), net(x))
    assert net.head is inner.head
    assert net.classes == 4
    assert not hasattr(Embedded(nn.Flatten(), vocabulary=7, channels=5), "head")


@pytest.mark.parametrize("model", MODELS)
def test_every_network_learns_tokens_packed_as_alone(configure, model):
    """Eight steps in float64, the weights to 1e-10 in norm: rounding grows from step to step. Of SGD: the bias before a
    batch norm has no gradient but rounding, which Adam makes as large as any, on some processors more than that."""
    settings = [f"model={model}", *MODEL.get(model, []), *TOKENS, "optimizer=momentum"]
    configs = [configure(*settings, f"seed={seed}", f"data.label_noise={noise}") for seed, noise in ((0, 0), (1, 0.3))]
    built = []
    for each in configs + configs:
        data = build.build_data(each)
        built.append((data, build.build_module(each, data).double()))
    assert isinstance(built[0][1].network, Embedded)
    loaders = [data.train_dataloader() for data, _ in built]
    (a, b), alone = (built[i][1] for i in (0, 1)), [module for _, module in built[2:]]
    pack = Pack([a.lanes[0], b.lanes[0]], optimizer=[a.make_optimizer, b.make_optimizer], own_batches=True)
    optimizer = pack.prepare(total_steps=8)
    optimizers = [module.make_optimizer([{"params": module.lanes[0].trained}]) for module in alone]
    before = [p.detach().clone() for p in a.lanes[0].trained]
    for epoch in range(2):
        for loader in loaders:
            loader.set_epoch(epoch)
        for step, parts in enumerate(zip(*loaders, strict=True), 4 * epoch):
            pack.gradient_step(*(torch.cat(t) for t in zip(*parts[:2], strict=True)), step=step)
            optimizer.step()
            for module, own, (x, y) in zip(alone, optimizers, parts[2:], strict=True):
                lane = module.lanes[0]
                draw = StepRandom(lane.seed, step)
                lane.gradient_step(x[0], y[0], draw=draw, lr=0, backward=lambda loss: loss.backward())
                own.step()
    for joint, module in zip((a, b), alone, strict=True):
        ours, theirs = (torch.cat([p.detach().flatten() for p in each.lanes[0].trained]) for each in (joint, module))
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-10
    moved = [not torch.equal(p, q) for p, q in zip(before, a.lanes[0].trained, strict=True) if p.ndim > 1]
    assert all(moved), "a bias before a batch norm may stay, as its gradient is rounding"


def test_runs_of_tokens_pack_through_the_command(configure, tmp_path):
    configs = [configure(*TOKENS, "~measures.trace", f"seed={seed}") for seed in (0, 1)]
    found = execute.run_packed(configs, choices=[{}] * 2, overrides=[()] * 2)
    for each, record in zip(configs, found, strict=True):
        assert record["provenance"]["lanes"] == 2
        alone = execute.run({**each, "runs_dir": str(tmp_path / "alone")})
        assert alone["status"] == "completed"
        for key, value in alone["metrics"].items():
            assert record["metrics"][key] == (None if value is None else pytest.approx(value, rel=1e-3, abs=1e-5)), key


class OwnEmbedding(nn.Module):
    """A network that does not ask for the shape of an input."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.EmbeddingBag(19, classes)

    def forward(self, x):
        return self.embedding(x)


def test_a_network_that_asks_for_no_shape_is_given_the_tokens(configure):
    each = configure(*TOKENS)
    each["model"] = {"_target_": f"{__name__}.OwnEmbedding"}
    config.bind(each)
    network = build.build_network(each["model"], build.build_data(each))
    assert isinstance(network, OwnEmbedding)


@pytest.mark.parametrize("method", ["mixup", "augmentation"])
def test_methods_that_move_inputs_refuse_tokens_in_one_line(configure, method):
    with pytest.raises(ConfigError, match=f"the first training step fails: ValueError: regularization (?i:{method}):"):
        plan.check(configure(*TOKENS, f"regularization={method}"))


def test_a_method_that_makes_numbers_of_tokens_is_refused():
    from genbench.regularization.base import Method

    class Noise(Method):
        def transform(self, net, x, y, draw):
            return x + 0.1, y

    lane = Lane(Embedded(MLP(input_shape=(5, 3), classes=4), vocabulary=7, channels=5), [Noise()], seed=0)
    with pytest.raises(ValueError, match="regularization Noise: moves inputs by numbers, which tokens cannot be"):
        lane.transformed(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2).long(), StepRandom(0, 0))
