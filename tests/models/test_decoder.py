"""A language model: the next character at every position."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.checks import ConfigError
from genbench.models import Decoder, Ensemble
from genbench.models.embedded import Embedded
from genbench.regularization import LabelSmoothing
from genbench.regularization.self_paced import SelfPaced
from genbench.regularization.shared.mixing import probabilities
from genbench.rng import StepRandom
from genbench.runs import build, execute, plan
from genbench.training.module import evaluate
from tests.helpers.choices import STRONG
from tests.helpers.equality import apart
from tests.helpers.packs import LANES, separately, together

ALL = ("data=char_lm", "data.targets=all", "data.window=8", "data.stride=8", "data.channels=4")
SMALL = ("model=decoder", "model.width=4", "model.heads=2", "optimizer.lr=0.001")


def decoder(*target_shape):
    torch.manual_seed(0)
    net = Decoder(input_shape=(5, 12), classes=7, target_shape=target_shape, width=8)
    return Embedded(net, vocabulary=9, channels=5).double().eval()


X = torch.randint(9, (3, 12), generator=torch.Generator().manual_seed(0))
Y = torch.randint(7, (3, 12), generator=torch.Generator().manual_seed(1))


def test_no_output_depends_on_a_later_character_and_each_on_its_own():
    net = decoder(12)
    output = net(X)
    assert output.shape == (3, 7, 12)
    for place in range(12):
        other = X.clone()
        other[:, place] = (X[:, place] + 1) % 9
        moved = (net(other) != output).any(1)
        assert not moved[:, :place].any()
        assert moved[:, place:].all()


def test_the_last_of_all_answers_is_the_only_one_of_the_same_network():
    everywhere, last = decoder(12), decoder()
    last.load_state_dict(everywhere.state_dict())
    torch.testing.assert_close(everywhere(X)[..., -1], last(X), rtol=1e-12, atol=1e-12)


def test_loss_and_accuracy_are_means_over_all_positions(configure):
    """A network that gives everything the same logits: its loss and accuracy follow from the counts of characters."""
    data = build.build_data(configure(*ALL, small=False))
    torch.manual_seed(0)
    logits = torch.randn(data.classes, dtype=torch.float64)

    class Constant(nn.Module):
        def forward(self, x):
            return logits[:, None].expand(len(x), -1, x.shape[1])

    batches = data.evaluation_batches("test")
    found = evaluate(Constant(), batches)
    counts = torch.cat([y for _, y in batches]).flatten().bincount(minlength=data.classes).double()
    assert found["cross_entropy"] == pytest.approx(float(-(counts / counts.sum()) @ logits.log_softmax(0)), rel=1e-12)
    assert found["accuracy"] == pytest.approx(float(counts[logits.argmax()] / counts.sum()), rel=1e-12)


def test_an_ensemble_averages_the_probabilities_at_every_position():
    members = [decoder(12) for _ in range(2)]
    nn.init.normal_(members[1].network.head.weight)
    p = torch.stack([member(X).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members)(X).exp(), p)


def test_methods_take_the_labels_of_all_positions():
    """Losses are those of the positions as examples; what is judged is the whole window."""
    net, output = decoder(12), decoder(12)(X)
    flat, labels = output.movedim(1, -1).flatten(0, 1), Y.flatten()
    smoothing = LabelSmoothing(smoothing=0.2)
    assert float(smoothing.loss(output, Y)) == pytest.approx(
        float(F.cross_entropy(flat, labels, label_smoothing=0.2)), rel=1e-12
    )
    soft = probabilities(net, Y, output)
    assert float(F.cross_entropy(output, soft)) == pytest.approx(float(F.cross_entropy(flat, labels)), rel=1e-12)
    _, chosen = SelfPaced(start=0.34, end=1.0).transform(net, X, Y, StepRandom(0, 0))
    easiest = F.cross_entropy(output, Y, reduction="none").mean(1).min()
    assert float(F.cross_entropy(output, chosen)) == pytest.approx(float(easiest), rel=1e-12)


METHODS = ["none", "label_smoothing", "bootstrapping", "self_paced", "focal", "generalized_cross_entropy"]
METHODS += ["entropy_penalty", "dropout", "stochastic_depth", "sam", "swa", "ensemble", "transfer"]


@pytest.mark.parametrize("method", METHODS)
def test_packed_runs_are_those_trained_alone(configure, method):
    settings = [*ALL, *SMALL, f"regularization={method}", *STRONG.get(method, [])]
    configs = configure(*settings, each=LANES)
    alone = [lane for each in configs for lane in separately(each, torch.float64, 12)]
    assert max(map(apart, together(configs, torch.float64, 12), alone)) < 1e-9


@pytest.mark.timeout(1200)  # every measure, which takes minutes beside other tests
def test_a_run_measures_positions_and_leaves_out_what_needs_one_label_an_example(configure):
    settings = (*ALL, *SMALL, "regularization=early_stopping", "measures=full", "~measures.trace")
    record = execute.run(configure(*settings))
    assert record["status"] == "completed", record["error"]
    one_label = "undefined: the targets are not one class an example"
    for name in ("representation/neural_collapse", "information/ty_binned", "information/ty_kde"):
        assert record["notes"][f"train/{name}"] == one_label
        assert record["metrics"][f"train/{name}"] is None
    assert record["metrics"]["test/performance/cross_entropy"] > 0
    assert record["metrics"]["train/margin/margin"] is not None  # of all positions


class Anticausal(nn.Module):
    """Answers everywhere, and sees one character more than it should."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, classes)

    def forward(self, x):
        return self.embedding(x.roll(-1, 1)).movedim(-1, 1)


class Bigram(nn.Module):
    """Answers everywhere by the character before; somebody's own causal network."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, classes)

    def forward(self, x):
        return self.embedding(x).movedim(-1, 1)


def test_only_causal_networks_with_an_answer_everywhere_are_accepted(configure):
    accepted = (
        "accepted where data.targets=all: model=decoder with model.patch=1 or another causal network with outputs "
    )
    for model, fault in (("mlp", "not one at each of 8 positions"), ("transformer", "not one at each of 8 positions")):
        with pytest.raises(ConfigError, match=f"^model Embedded gives outputs of .*, {fault}; {accepted}"):
            plan.check(configure(*ALL, f"model={model}"))
    with pytest.raises(ConfigError, match="not one at each of 8 positions"):
        plan.check(configure(*ALL, *SMALL, "model.patch=4"))
    each = configure(*ALL)
    each["model"] = {"_target_": f"{__name__}.Anticausal"}
    with pytest.raises(ConfigError, match=f"^model Anticausal sees the tokens that it is to predict; {accepted}"):
        plan.check(each)
    each["model"] = {"_target_": f"{__name__}.Bigram"}
    plan.check(each)


def test_it_beats_what_counts_of_characters_and_of_pairs_can_say(configure):
    """Three hundred steps on the text of Python's topics; both entropies are those of the test split itself, which no
    model of such counts can undercut."""
    each = configure(
        "data=char_lm", "data.targets=all", "data.batch_size=64", "model=decoder", "optimizer.lr=0.003", small=False
    )
    data = build.build_data(each)
    (lane,) = (module := build.build_module(each, data)).lanes
    optimizer = module.make_optimizer([{"params": lane.trained}])
    for step, (x, y) in zip(range(300), data.train_dataloader(), strict=False):
        lane.gradient_step(x[0], y[0], draw=StepRandom(lane.seed, step), lr=0, backward=lambda loss: loss.backward())
        optimizer.step()
    batches = data.evaluation_batches("test")
    x, y = (torch.cat(parts).flatten() for parts in zip(*batches, strict=True))
    pairs = torch.zeros(data.classes, data.classes, dtype=torch.float64)
    pairs.index_put_((x, y), torch.ones(len(x), dtype=torch.float64), accumulate=True)
    entropy = lambda counts: float(torch.special.entr(counts / counts.sum()).sum())  # noqa: E731
    unigram, bigram = entropy(pairs.sum(0)), entropy(pairs) - entropy(pairs.sum(1))
    assert evaluate(lane.network, batches)["cross_entropy"] < bigram < unigram
