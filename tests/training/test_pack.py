"""A pack against its networks trained one by one: every model, optimizer and method of the configuration folder."""

import ctypes
from collections import OrderedDict
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import product
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from hydra.utils import get_class
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from genbench.config import folder
from genbench.data.batches import Batches, MergedBatches
from genbench.regularization import L2, SAM, Dropout, Mixup, WeightDecay
from genbench.regularization.base import Method
from genbench.rng import STEP, PackRandom, PredrawnRandom, StepRandom
from genbench.training import Lane, Pack, Unpackable
from genbench.training.stack import Lanewise, Stack
from tests.helpers.choices import DATA, SEPARATE, choices, needs
from tests.helpers.equality import apart
from tests.helpers.networks import Counts, network
from tests.helpers.packs import STEPS, compare, separately, spread, together
from tests.helpers.runs import descend, trainer

SLOW = (
    "alexnet",
    "gru",
    "inception",
    "lstm",
    "resnet18",
    "rnn",
    "transformer",
    "wide_resnet",
)  # a second in a few steps
FEW = 6
RECURRENT = ("gru", "lstm", "rnn")  # slow to trace; tests/models/test_embedded.py has each packed as alone


def acts(method):
    """Whether a choice has a method that acts on gradients or weights."""
    chosen = yaml.safe_load((folder() / "regularization" / f"{method}.yaml").read_text()) or {}
    classes = [get_class(settings["_target_"]) for settings in chosen.values()]
    return any(
        getattr(kind, hook) is not getattr(Method, hook)
        for kind in classes
        for hook in ("perturb", "gradient", "before_step", "after_step")
    )


MODELS, METHODS, SCHEDULERS = map(choices, ("model", "regularization", "scheduler"))
OPTIMIZERS = [name for name in choices("optimizer") if name not in SEPARATE]
TURNS = [(OPTIMIZERS[i % len(OPTIMIZERS)], SCHEDULERS[i % len(SCHEDULERS)]) for i in range(100)]
# every method with the MLP, every other network with two methods, those that are slow to trace with one, and what
# depends on the network with another; optimizers and schedules take turns (pytest -m matrix has the whole product)
PAIRS = [("mlp", method, *TURNS[i]) for i, method in enumerate(METHODS)]
PAIRS += [
    (model, method, *TURNS[i + j])
    for i, model in enumerate(MODELS)
    for j, method in enumerate(("dropout", METHODS[(7 * i) % len(METHODS)]))
    if j == 0 or model not in SLOW
]
PAIRS += [("cnn", method, *TURNS[i]) for i, method in enumerate(("batch_norm", "layer_norm", "manifold_mixup"))]
PAIRS += [
    ("gru", "batch_norm", *TURNS[3]),
    ("cnn", "adversarial_training", *TURNS[0]),
    ("resnet18", "stochastic_depth", *TURNS[1]),
    ("transformer", "manifold_mixup", *TURNS[2]),
]
PAIRS = [pair for pair in dict.fromkeys(PAIRS) if needs(*pair[:2]) is not None]
# what trains for long here: methods that act on gradients or weights, and a network; pytest -m matrix has all
LONG = {*(("mlp", method) for method in METHODS if acts(method)), ("cnn", "dropout")}


@pytest.mark.parametrize(
    ("model", "method", "optimizer", "scheduler"),
    [pytest.param(*pair, marks=pytest.mark.matrix if pair[0] in RECURRENT else ()) for pair in PAIRS],
)
def test_every_lane_is_its_own_training(configure, model, method, optimizer, scheduler):
    assert max(compare(configure, model, method, optimizer, scheduler, torch.float64)) < 1e-9


@pytest.mark.parametrize("data", choices("data"))
def test_every_lane_is_its_own_training_on_all_data(configure, data):
    chosen = [f"data={data}", *DATA.get(data, [])]
    assert max(compare(configure, "mlp", "dropout", "adam", "cosine", torch.float64, *chosen)) < 1e-9


def test_lanes_may_start_from_weights_of_another_scale(configure):
    configs = [configure("model.width=12", f"model.init_scale={scale}", "seed=3") for scale in (0.5, 1.0, 2.0)]
    alone = [lane for config in configs for lane in separately(config, torch.float64, STEPS)]
    packed = together(configs, torch.float64, STEPS)
    assert max(map(apart, packed, alone)) < 1e-9
    assert not torch.equal(packed[0].trained[0], packed[1].trained[0])


def test_every_method_and_every_optimizer_is_there_with_the_mlp_and_every_model_with_some():
    assert {pair[1] for pair in PAIRS if pair[0] == "mlp"} == set(METHODS)
    assert {pair[2] for pair in PAIRS if pair[0] == "mlp"} == set(OPTIMIZERS)
    assert {pair[0] for pair in PAIRS} == set(MODELS)
    assert all(len({pair[0] for pair in PAIRS if pair[2] == optimizer}) > 3 for optimizer in OPTIMIZERS)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        pytest.param(*pair, marks=() if pair in LONG else pytest.mark.matrix)
        for pair in [("mlp", m) for m in METHODS] + [(m, "dropout") for m in MODELS]
    ],
)
def test_after_two_hundred_steps_too(configure, model, method):
    assert max(compare(configure, model, method, "momentum", "cosine", torch.float64, steps=200)) < 1e-9


@pytest.mark.matrix
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_whole_matrix(configure, model, optimizer, method):
    """To 1e-9, or where training is chaotic as closely as the same separate run repeats itself when its initial weights
    are rounded otherwise: RMSprop makes long steps of the rounding of a gradient that is zero."""
    found = max(compare(configure, model, method, optimizer, "cosine", torch.float64))
    assert found < 1e-9 or found < 20 * spread(configure, model, method, optimizer, "cosine", torch.float64)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        pytest.param(model, method, marks=pytest.mark.matrix if model == "cnn" or (model, method) in LONG else ())
        for model, method in product(("mlp", "cnn"), METHODS)
        if method != "batch_norm"
    ],
)
def test_in_float32_to_its_rounding(configure, model, method):
    """Where rounding stays small: Adam makes steps of full length of the rounding errors of a gradient that is zero (a
    bias before batch normalization), batch normalization amplifies them, and a ReLU switches by them."""
    smooth = "model.activation=tanh"
    assert max(compare(configure, model, method, "momentum", "constant", torch.float32, smooth)) < 1e-5


@pytest.mark.parametrize("optimizer", SEPARATE)
def test_optimizers_that_do_not_treat_every_parameter_by_itself_are_refused(configure, optimizer):
    with pytest.raises(Unpackable, match=r"^optimizer \w+ cannot be packed; accepted: SGD, Adam, [\w, ]+$"):
        together([configure(f"optimizer={optimizer}")], torch.float64, 1)


# -- as a library


def data(n=48):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def fit(networks, epochs=3, **settings):
    pack = Pack(networks, **{"optimizer": partial(torch.optim.Adam, lr=0.05), **settings})
    trainer(epochs).fit(pack, DataLoader(data(), batch_size=12))
    return pack


def test_a_list_of_networks_with_an_ordinary_trainer():
    nets = [network(seed, norm=True) for seed in range(3)]
    pack = fit(nets, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    assert all(a is b for a, b in zip(pack.networks, nets, strict=True))
    for seed, net in enumerate(nets):
        plain = network(seed, norm=True)
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            for x, y in DataLoader(data(), batch_size=12):
                optimizer.zero_grad()
                F.cross_entropy(plain(x), y).backward()
                optimizer.step()
        for (name, a), b in zip(net.state_dict().items(), plain.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)
        assert not torch.equal(net[0].weight, network(seed, norm=True)[0].weight)
    assert pack.objectives.shape == (3,)


def test_another_loss_and_an_optimizer_a_network():
    nets = [nn.Linear(5, 1).double() for _ in range(2)]
    before = nets[1].weight.detach().clone()
    makers = [partial(torch.optim.SGD, lr=0.1), partial(torch.optim.SGD, lr=0.0)]
    fit(nets, optimizer=makers, loss=lambda out, y: (out[:, 0] - y).square().mean())
    assert torch.equal(nets[1].weight, before)
    assert float(nets[0].weight.detach()[0, :2].min()) > 0.2  # what the targets are made of


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e30])
def test_what_one_lane_does_changes_no_bit_of_the_others(wrong):
    healthy = fit([network(seed) for seed in range(4)]).networks
    ill = [network(seed) for seed in range(4)]
    with torch.no_grad():
        ill[2][0].weight.fill_(wrong)
    sick = fit(ill).networks
    for i in (0, 1, 3):
        assert all(torch.equal(a, b) for a, b in zip(sick[i].parameters(), healthy[i].parameters(), strict=True))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 3).double()

    def forward(self, x):
        out = self.inner(x)
        return out if out.sum() > 0 else -out


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()

    def forward(self, x):
        return self.used(x)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


@pytest.mark.parametrize(
    ("networks", "settings", "message"),
    [
        ([], {}, r"networks is empty; accepted: at least one"),
        ([nn.Linear(5, 3), nn.Linear(5, 4)], {}, r"network 1 cannot be stacked on network 0: network.*out_features=4"),
        ([nn.Linear(5, 3), nn.Linear(5, 3, bias=False)], {}, r"network 1 cannot be stacked on network 0"),
        ([nn.Sequential(nn.LeakyReLU(s), nn.Linear(5, 3)) for s in (0.1, 0.2)], {}, r"negative_slope=0.2"),
        ([nn.Linear(5, 3).double() for _ in "ab"], {"optimizer": [torch.optim.Adam]}, r"optimizer is a list of 1;"),
        ([nn.Linear(5, 3).double()], {"optimizer": torch.optim.LBFGS}, r"optimizer LBFGS cannot be packed; accepted"),
        ([Branching() for _ in "ab"], {}, r"the training step cannot be vectorized: .*data-dependent"),
        ([Idle() for _ in "ab"], {}, r"a parameter gets no gradient"),
        ([Noisy(5, 3).double() for _ in "ab"], {}, r"the training step cannot be vectorized: .*random"),
    ],
)
def test_what_cannot_be_packed_is_refused_in_one_line(networks, settings, message):
    with pytest.raises(ValueError, match=message) as found:
        fit(networks, **settings)
    assert "\n" not in str(found.value)


def test_a_setting_that_is_no_tensor_must_be_the_same():
    class Scaled(Method):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def loss(self, output, y):
            return self.factor * F.cross_entropy(output, y)

    lanes = [Lane(network(i), [Scaled(factor)], seed=i) for i, factor in enumerate((1.0, 2.0))]
    with pytest.raises(Unpackable, match=r"^Scaled\.factor is another in lane 1 than in lane 0"):
        fit(lanes)


# -- its parts


def test_draws_are_those_of_each_lane():
    draws = PackRandom([3, 5])
    for record, alpha in zip(draws.recorders, (0.3, 0.7), strict=True):
        record.uniform("a", 2, 4)
        record.normal("b", 3)
        record.permutation("c", 6)
        record.beta("d", torch.tensor(alpha, dtype=torch.float64))
        record.uniform("step", 3)
    made = draws.at(11)
    for lane, (seed, alpha) in enumerate(((3, 0.3), (5, 0.7))):
        own = StepRandom(seed, 11)
        assert torch.equal(made["a"][lane], own.uniform("a", 2, 4))
        assert torch.equal(made["b"][lane], own.normal("b", 3))
        assert torch.equal(made["c"][lane], own.permutation("c", 6))
        assert torch.equal(made["d"][lane], own.beta("d", alpha))
    drawn = PredrawnRandom(made)
    assert torch.equal(drawn.uniform("a", 2, 4), made["a"])
    assert drawn.step.tolist() == made[STEP].tolist() == [11, 11]


def test_of_merged_loaders_each_lane_sees_its_own_batches():
    x, y = torch.arange(20.0)[:, None], torch.arange(20)
    loaders = [
        Batches(x, y, batch_size=4, seed=0, seeds=(1, 2)),
        Batches(x[:15], y[:15], batch_size=4, seed=0, seeds=(3,)),
    ]
    with pytest.raises(ValueError, match="loaders differ in batch size or number of batches"):
        MergedBatches(loaders)
    loaders[1] = Batches(-x, y, batch_size=4, seed=0, seeds=(3,))
    merged = MergedBatches(loaders)
    for loader in (*loaders, merged):
        loader.set_epoch(2)
    for (a, b), (c, d), (e, f) in zip(*loaders, merged, strict=True):
        assert torch.equal(torch.cat([a, c]), e)
        assert torch.equal(torch.cat([b, d]), f)
    chosen = MergedBatches(loaders, [(1, 0), (0, 1)])
    chosen.set_epoch(2)
    for (a, _), (c, _), (e, _) in zip(*loaders, chosen, strict=True):
        assert torch.equal(torch.stack([c[0], a[1]]), e)


def test_a_stack_shares_the_storage_of_its_modules_until_one_is_released():
    nets = [network(seed, norm=True) for seed in range(3)]
    stack = Stack(nets)
    with torch.no_grad():
        nets[1][0].weight.fill_(7.0)
        assert (stack.weights[0][1] == 7).all()
        stack.flat.zero_()
        assert not nets[2][3].weight.any()
        stack.release(2)
        stack.flat.fill_(1.0)
        assert not nets[2][3].weight.any()
        assert nets[0][3].weight.all()


def test_the_optimizer_state_of_a_lane_can_be_taken_out_and_put_back():
    def trained(steps, state=None):
        lanes = [Lane(network(seed), [L2(strength=0.1)], seed=seed) for seed in range(2)]
        makers = [partial(torch.optim.Adam, lr=0.05), partial(torch.optim.SGD, lr=0.05, momentum=0.9)]
        pack = Pack(lanes, optimizer=makers, scheduler=lambda o, total_steps: torch.optim.lr_scheduler.StepLR(o, 2))
        optimizer = pack.prepare(total_steps=10)
        if state is not None:
            for i, lane in enumerate(lanes):
                lane.load_state_dict(state[0][i])
            optimizer.load_state_dict(state[1])
        x, y = data()[:12]
        for step in steps:
            pack.gradient_step(x.expand(2, *x.shape), y.expand(2, -1), step=step)
            optimizer.step()
            optimizer.schedule()
        return [lane.state_dict() for lane in lanes], optimizer.state_dict()

    whole = trained(range(6))
    half = trained(range(3))
    rest = trained(range(3, 6), half)
    for a, b in zip(whole[0], rest[0], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_gru_written_out_is_torchs(settings, batch_first):
    torch.manual_seed(0)
    gru = nn.GRU(3, 4, batch_first=batch_first, **settings).double()
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    with Lanewise():
        ours = gru(x)
    for a, b in zip(ours, gru(x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalization_written_out_is_torchs(training, affine):
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(3, affine=affine).double().train(training) for _ in range(2)]
    for x in torch.randn(4, 6, 3, 5, dtype=torch.float64) * 3 + 1:
        with Lanewise():
            ours = norms[0](x)
        torch.testing.assert_close(ours, norms[1](x))
    for a, b in zip(norms[0].buffers(), norms[1].buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_several_methods_at_once(configure):
    chosen = ("mlp", "[l2,weight_decay,sam,mixup,dropout,batch_norm,gradient_clipping,swa]", "adamw", "cosine")
    assert max(compare(configure, *chosen, torch.float64)) < 1e-9


def test_blocks_of_a_batch_may_have_perturbations_of_their_own(configure):
    chosen = ("mlp", "[dropout,sam]", "momentum", "constant")
    assert max(compare(configure, *chosen, torch.float64, "regularization.sam.m=5")) < 1e-9


class Annealed(Method):
    """Noise in the gradient that falls with the step."""

    def gradient(self, params, grads, draw):
        return [g + draw.normal(f"annealed.{i}", *g.shape) / (1 + draw.step) for i, g in enumerate(grads)]


def test_a_method_may_draw_for_the_gradient_and_count_steps():
    packed, alone = ([Lane(build(i), [Annealed()], seed=i) for i in range(2)] for _ in "ab")
    pack = Pack(packed, optimizer=partial(torch.optim.SGD, lr=0.1))
    optimizer = pack.prepare(total_steps=3)
    x, y = torch.randn(8, 1, 6), torch.arange(8) % 3
    for step in range(3):
        pack.gradient_step(x.expand(2, *x.shape), y.expand(2, -1), step=step)
        optimizer.step()
        for lane in alone:
            descend(lane, x, y, step)
    for a, b in zip(packed, alone, strict=True):
        assert apart(a, b) < 1e-6


def test_rates_of_zero_are_one_of_the_rates():
    lanes = [Lane(build(i), [Dropout(rate=rate)], seed=i) for i, rate in enumerate((0.0, 0.5))]
    alone = [Lane(build(i), [Dropout(rate=rate)], seed=i) for i, rate in enumerate((0.0, 0.5))]
    pack = Pack(lanes, optimizer=partial(torch.optim.SGD, lr=0.1))
    optimizer = pack.prepare(total_steps=3)
    x, y = torch.randn(8, 1, 6), torch.arange(8) % 3
    for step in range(3):
        pack.gradient_step(x.expand(2, *x.shape), y.expand(2, -1), step=step)
        optimizer.step()
        for lane in alone:
            descend(lane, x, y, step)
    for a, b in zip(lanes, alone, strict=True):
        assert apart(a, b) < 1e-6


def build(seed):
    from genbench.models import MLP

    torch.manual_seed(seed)
    return MLP(input_shape=(1, 6), classes=3, width=7)


def test_strengths_differ_by_lane():
    def lanes():
        return [
            Lane(build(0), [Mixup(alpha=a), SAM(rho=r), WeightDecay(strength=s)], seed=0)
            for a, r, s in ((0.2, 0.05, 0.1), (0.2, 0.5, 0.1), (0.2, 0.05, 3.0), (0.0, 0.05, 0.1))
        ]

    packed = lanes()
    pack = Pack(packed, optimizer=partial(torch.optim.SGD, lr=0.1))
    optimizer = pack.prepare(total_steps=3)
    x, y = torch.randn(8, 1, 6), torch.arange(8) % 3
    pack.gradient_step(x.expand(4, *x.shape), y.expand(4, -1), step=0)
    optimizer.step()
    for i, lane in enumerate(lanes()):
        descend(lane, x, y, 0)
        assert apart(packed[i], lane) < 1e-6
    for i in range(4):
        for j in range(i):
            assert apart(packed[i], packed[j]) > 1e-6


class Remembers(Method):
    """Decays noise by the progress that it remembers: in a plain attribute, or in a buffer."""

    def __init__(self, *, buffer: bool) -> None:
        super().__init__()
        self.seen, self.buffer = [0.0], buffer
        self.register_buffer("progress", torch.tensor(0.0))

    def gradient(self, params, grads, draw):
        left = 1 - (self.progress if self.buffer else self.seen[0])
        return [g + left * draw.normal(f"noise{i}", *g.shape) for i, g in enumerate(grads)]

    def after_step(self, params, progress):
        if self.buffer:
            self.progress.copy_(progress)
        else:
            self.seen[0] = progress


@pytest.mark.parametrize("buffer", [True, False])
def test_what_a_method_remembers_in_a_plain_attribute_cannot_be_packed(buffer):
    """A traced step would read the value of its first step for ever."""
    batches = [(torch.randn(12, 5, dtype=torch.float64), torch.randint(3, (12,))) for _ in range(3)]
    packed, alone = ([Lane(network(seed), [Remembers(buffer=buffer)], seed=seed) for seed in range(2)] for _ in "ab")
    sgd = partial(torch.optim.SGD, lr=0.1)
    pack = Pack(packed, optimizer=sgd, own_batches=True)
    optimizer = pack.prepare(total_steps=3)

    def train():
        for step, (x, y) in enumerate(batches):
            pack.gradient_step(torch.stack([x, x]), torch.stack([y, y]), step=step)
            optimizer.step()
            pack.after_step((step + 1) / 3)

    if not buffer:
        with pytest.raises(Unpackable, match=r"^Remembers\.seen changes in a step, .*accepted: self.register_buffer"):
            train()
        return
    train()
    for ours, lane in zip(packed, alone, strict=True):
        own = sgd(lane.trained)
        for step, (x, y) in enumerate(batches):
            draw = StepRandom(lane.seed, step)
            lane.gradient_step(x, y, draw=draw, lr=0.1, backward=lambda loss: loss.backward())
            own.step()
            lane.after_step(lane.trained, (step + 1) / 3)
        assert apart(ours, lane) < 1e-12


class Averages(nn.Module):
    """Subtracts a running mean of its inputs, which it assigns, or changes in place."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.inner, self.in_place = nn.Linear(5, 3).double(), in_place
        self.register_buffer("mean", torch.zeros(5, dtype=torch.float64))

    def forward(self, x):
        mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        if self.in_place:
            self.mean.copy_(mean)
        else:
            self.mean = mean
        return self.inner(x - mean)


class Holds(Method):
    """Counts in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Counts().requires_grad_(False)

    def penalty(self, net, x, y, output, draw):
        return self.part(x).square().mean()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda seed: Counts(), r"^Counts\.calls changes in a step, .*accepted: self\.register_buffer"),
        (lambda seed: Lane(network(seed), [Holds()], seed=seed), r"^Counts\.calls changes in a step"),
        (lambda seed: Averages(in_place=False), r"^network\.mean is another buffer .*accepted: changed in place"),
        (lambda seed: Averages(in_place=True), None),
    ],
    ids=["network", "part of a method", "assigned buffer", "buffer in place"],
)
def test_state_that_a_step_changes_is_a_buffer_that_changes_in_place(make, message):
    """A traced step would do the change of its first step alone."""
    lanes = [make(seed) for seed in range(2)]
    pack = Pack(lanes, optimizer=partial(torch.optim.SGD, lr=0.1), own_batches=True)
    pack.prepare(total_steps=3)
    x, y = torch.randn(2, 12, 5, dtype=torch.float64), torch.randint(3, (2, 12))
    if message is not None:
        with pytest.raises(Unpackable, match=message):
            pack.gradient_step(x, y, step=0)
        return
    for step in range(3):
        pack.gradient_step(x, y, step=step)
    for lane, inputs in zip(lanes, x, strict=True):
        torch.testing.assert_close(lane.mean, (1 - 0.9**3) * inputs.mean(0))


class Residual(nn.Module):
    """Changes what linear layers and a convolution return in place, and reads it again."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.tokens, self.conv = nn.Linear(4, width), nn.Conv1d(width, width, 3, padding=1)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, x):
        x = self.tokens(x.unflatten(1, (3, 4)))  # [B, 3, width]
        x += 1
        x = F.relu_(self.conv(x.mT)) + x.mT
        h = self.inner(x.mean(2))
        F.elu(h, inplace=True)
        return self.outer(h)


def trained_apart(make, batches):
    """How far networks end, at most, in a pack and alone, in float64, from batches of their own."""
    networks, alone = [[make(i).double() for i in range(3)] for _ in range(2)]
    pack = Pack(networks, optimizer=partial(torch.optim.SGD, lr=0.05), own_batches=True)
    optimizer = pack.prepare(total_steps=len(batches))
    for step, (x, y) in enumerate(batches):
        pack.gradient_step(x, y, step=step)
        optimizer.step()
    for i, net in enumerate(alone):
        descent = torch.optim.SGD(net.parameters(), lr=0.05)
        for x, y in batches:
            descent.zero_grad()
            F.cross_entropy(net(x[i]), y[i]).backward()
            descent.step()
    vectors = [nn.utils.parameters_to_vector(net.parameters()).detach() for net in networks + alone]
    return max(float((a - b).abs().max()) for a, b in zip(vectors[:3], vectors[3:], strict=True))


def seeded(make):
    def made(seed):
        torch.manual_seed(seed)
        return make()

    return made


@pytest.mark.parametrize("width", [4, 20])  # few outputs are computed in columns
def test_what_a_linear_layer_or_a_convolution_returns_may_be_changed_in_place(width):
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(3, 6, 12, generator=generator).double(), torch.randint(3, (3, 6), generator=generator))
        for _ in range(4)
    ]
    assert trained_apart(seeded(partial(Residual, width=width)), batches) < 1e-12


def test_later_batches_may_lie_in_memory_in_another_order():
    """As images with their channels last; a traced step holds operations for one order."""
    x, y = torch.randn(3, 6, 2, 4, 4).double(), torch.arange(6).remainder(3).expand(3, 6)
    last = x.movedim(2, -1).contiguous().movedim(-1, 2)
    make = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    assert trained_apart(make, [(x, y), (x, y), (last, y), (last, y), (x, y)]) < 1e-12


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("layers", [(5, 0, 3), (0, 4, 3)], ids=str)
def test_a_linear_layer_may_have_no_inputs_or_outputs(layers):
    inputs, hidden, outputs = layers
    batches = [(torch.randn(3, 6, inputs).double(), torch.arange(6).remainder(3).expand(3, 6))] * 3
    make = seeded(lambda: nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs)))
    assert trained_apart(make, batches) < 1e-12


class Recomputes(nn.Module):
    """Computes its hidden layer again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()

    def forward(self, x):
        return self.b(checkpoint(lambda x: self.a(x).relu(), x, use_reentrant=False))


def test_an_error_of_the_first_step_together_says_that_it_cannot_be_vectorized():
    x, y = torch.randn(2, 12, 5, dtype=torch.float64), torch.randint(3, (2, 12))
    F.cross_entropy(Recomputes()(x[0]), y[0]).backward()  # by itself it trains
    pack = Pack([Recomputes() for _ in "ab"], optimizer=partial(torch.optim.SGD, lr=0.1), own_batches=True)
    pack.prepare(total_steps=1)
    with pytest.raises(Unpackable, match=r"^the training step cannot be vectorized: [^\n]+$"):
        pack.gradient_step(x, y, step=0)


class Repeats(Method):
    """Keeps a count in a private attribute, which every lane of a pack would take from the first."""

    def __init__(self, *, k: int) -> None:
        super().__init__()
        self._k = k

    def penalty(self, net, x, y, output, draw):
        return sum(output.square().mean() for _ in range(self._k))


def test_lanes_that_count_otherwise_are_not_stacked():
    lanes = [Lane(network(seed), [Repeats(k=k)], seed=seed) for seed, k in enumerate((1, 4))]
    with pytest.raises(Unpackable, match=r"^Repeats\._k is another in lane 1 than in lane 0"):
        first_step(lanes)


def first_step(lanes):
    """Take the gradients of the first step of a pack."""
    pack = Pack(lanes, optimizer=partial(torch.optim.SGD, lr=0.1), own_batches=True)
    pack.prepare(total_steps=2)
    x, y = torch.randn(len(lanes), 12, 5, dtype=torch.float64), torch.randint(3, (len(lanes), 12))
    return pack.gradient_step(x, y, step=0)


class Differs(Method):
    """Keeps a number in Python, in a way of a test's own, and reads it in a step that it does not change."""

    def __init__(self, number, keep, *, reads: bool = True) -> None:
        super().__init__()
        self.keep, self.reads = keep(number), reads

    def penalty(self, net, x, y, output, draw):
        return 0.0 * output.sum() if self.reads and self.keep is not None else output.mean()


def _default(number):
    def value(k=number):
        return k

    return value


KEEPS = {
    "list": lambda k: [1, [k]],
    "closure": lambda k: lambda: k,
    "default": _default,
    "partial": lambda k: partial(max, k),
    "tensor": lambda k: torch.tensor([0.0, k]),
    "module": lambda k: [nn.Dropout(k / 10)],
    "weights": lambda k: (nn.init.constant_(nn.Linear(1, 1).weight, k),),
    "generator": lambda k: (k for _ in range(3)),
    "random": lambda k: torch.Generator().manual_seed(k),
    "object": lambda k: SimpleNamespace(inner={"k": k}),
    "method": lambda k: [k].count,
    "function": lambda k: [None, F.relu, F.gelu][k],
}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_lanes_that_differ_in_what_a_step_reads_are_refused(keep):
    """The number may act late, or too little to be seen in a step."""

    def step(*numbers, **settings):
        return first_step([Lane(network(i), [Differs(k, keep, **settings)], seed=i) for i, k in enumerate(numbers)])

    step(1, 1, 1)
    step(1, 1, 2, reads=False)
    with pytest.raises(Unpackable, match=r"^Differs\.keep.* is another in lane 2 than in lane 0; accepted: buffers"):
        step(1, 1, 2)


def test_lanes_of_different_losses_or_hooks_are_refused():
    def smoothed(amount):
        return lambda output, y: F.cross_entropy(output, y, label_smoothing=amount)

    with pytest.raises(Unpackable, match=r"^the loss\.amount is another in lane 1"):
        first_step([Lane(network(seed), seed=seed, loss=smoothed(seed / 10)) for seed in range(2)])
    networks = [nn.Sequential(nn.Linear(5, 3)).double() for _ in range(2)]
    networks[1][0].register_forward_hook(lambda *_: None)
    with pytest.raises(Unpackable, match=r"^Linear's hooks: forward_hooks\[0\] is another in lane 1"):
        first_step(networks)
    networks = [nn.Sequential(nn.Linear(5, 3)).double() for _ in range(2)]
    for net in networks:
        net[0].weight.register_hook(lambda grad: 2 * grad)
    with pytest.raises(Unpackable, match=r"^Linear\.weight has a hook, which a pack does not call"):
        first_step(networks)


@pytest.mark.parametrize("kept", [lambda p: p, lambda p: p.detach(), lambda p: p.data[1:]], ids=["it", "view", "part"])
def test_a_weight_that_a_step_reads_beside_the_network_is_refused(kept):
    """A pack computes with other tensors, which it would not see."""
    for reads in (False, True):
        lanes = [Lane(network(i), [Differs(0, lambda _: None, reads=reads)], seed=i) for i in range(2)]
        for lane in lanes:
            lane.methods[0].keep = {"first": [kept(lane.trained[0])]}
        if not reads:
            first_step(lanes)
    with pytest.raises(Unpackable, match=r"^Differs\.keep\['first'\]\[0\] keeps network\.\S+, which a pack replaces"):
        first_step(lanes)


class Features(nn.Module):
    """Keeps its features for whoever wants to look, and the number of its calls unless ``calls`` is None."""

    def __init__(self, *, calls: int | None = None) -> None:
        super().__init__()
        self.a, self.b, self.calls = nn.Linear(5, 4).double(), nn.Linear(4, 3).double(), calls

    def forward(self, x):
        self.h = self.a(x).tanh()
        if self.calls is not None:
            self.calls += 1
        return self.b(self.h)


def test_what_a_step_sets_before_it_reads_it_is_no_state():
    first_step([Features() for _ in range(2)])
    with pytest.raises(Unpackable, match=r"^Features\.calls changes in a step"):
        first_step([Features(calls=0) for _ in range(2)])


class Teaches(Method):
    """Pulls the outputs towards those of a copy of the first network, which is not frozen, or of a part of its own."""

    def __init__(self, *, learns: bool) -> None:
        super().__init__()
        self.learns = learns

    def build(self, net):
        self.teacher = deepcopy(net)
        return net

    def penalty(self, net, x, y, output, draw):
        with nullcontext() if self.learns else torch.no_grad():
            return (output - self.teacher(x)).square().mean()

    @torch.no_grad()
    def after_step(self, params, progress):
        for p, mean in zip(params, self.teacher.parameters(), strict=True):
            mean.lerp_(p, 0.1)


def test_a_part_of_a_method_is_not_trained_in_a_pack_either():
    def lanes():
        return [Lane(network(seed), [Teaches(learns=False)], seed=seed) for seed in range(3)]

    x, y = torch.randn(3, 12, 5, dtype=torch.float64), torch.randint(3, (3, 12))
    settings = {"optimizer": partial(torch.optim.SGD, lr=0.1), "own_batches": True}
    together = lanes()
    every = [(together, Pack(together, **settings)), *(([lane], Pack([lane], **settings)) for lane in lanes())]
    for own, pack in every:
        optimizer = pack.prepare(total_steps=4)
        for step in range(4):
            seeds = [lane.seed for lane in own]
            pack.gradient_step(x[seeds], y[seeds], step=step)
            optimizer.step()
            pack.after_step(step / 4)
    for lane, (other,) in zip(together, [own for own, _ in every[1:]], strict=True):
        torch.testing.assert_close(lane.state_dict(), other.state_dict())
    message = r"methods\.0\.teacher\.\S+ has a gradient, and the optimizer gets the weights of the network alone"
    with pytest.raises(ValueError, match=message):
        Lane(network(0), [Teaches(learns=True)], seed=0).gradient_step(x[0], y[0], draw=StepRandom(0, 0), lr=0.1)


class Halves(Method):
    """Halves its strength at the end of each epoch, or changes something else of a lane."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        if how == "attribute":
            self.strength = 1.0
        else:
            self.register_buffer("strength", torch.tensor(1.0, dtype=torch.float64))

    def penalty(self, net, x, y, output, draw):
        return self.strength * output.square().mean()

    def after_epoch(self, net, validate):
        if self.how == "unread":
            self.epochs = getattr(self, "epochs", 0) + 1
            self.remember("best", net.parameters())
        elif self.how == "slope":
            net.slope.negative_slope *= 2
        elif self.how == "weights":
            for p in net.parameters():
                p.data = p.data * 0.5
        elif self.how == "in place":
            self.strength.mul_(0.5)
        else:
            self.strength = self.strength * 0.5
        if self.how == "new buffer":
            self.strength = self.strength[None]
        return False


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("attribute", r"^Halves\.strength changes after an epoch, .*accepted: self\.register_buffer"),
        ("new buffer", r"^Halves\.strength is new after an epoch, .*accepted: self\.register_buffer"),
        ("slope", r"^LeakyReLU\.negative_slope changes after an epoch"),
        ("assigned", None),
        ("in place", None),
        ("unread", None),
        ("weights", None),
    ],
)
def test_what_an_epoch_changes_is_a_tensor(how, message):
    x, y = torch.randn(12, 5, dtype=torch.float64), torch.arange(12) % 3

    def lane(seed):
        net = nn.Sequential(OrderedDict(a=network(seed), slope=nn.LeakyReLU()))
        return Lane(net, [Halves(how)], seed=seed)

    class Epochs(Pack):
        def on_train_epoch_end(self):
            for lane in self.lanes:
                lane.after_epoch(lambda split: {})

    pack = Epochs([lane(seed) for seed in range(2)], optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = pl.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    with nullcontext() if message is None else pytest.raises(Unpackable, match=message):
        trainer.fit(pack, DataLoader([(x, y)], batch_size=None))
    for seed in range(2) if message is None else ():
        alone = lane(seed)
        optimizer = torch.optim.SGD(alone.trained, lr=0.1)
        for step in range(3):
            alone.gradient_step(x, y, draw=StepRandom(seed, step), lr=0.1)
            optimizer.step()
            alone.after_epoch(lambda split: {})
        torch.testing.assert_close(alone.network.state_dict(), pack.networks[seed].state_dict())


@pytest.mark.parametrize("padding", [0, -1])
def test_the_padding_of_an_embedding_is_not_trained_in_any_lane(padding):
    """torch's vmap trains it in all lanes but the first."""

    def networks():
        for seed in range(3):
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Embedding(7, 4, padding_idx=padding), nn.Flatten(), nn.Linear(20, 3)).double()
            nn.init.normal_(net[0].weight)  # the padding too
            yield net

    x, y = torch.arange(60).reshape(12, 5) % 7, torch.arange(12) % 3
    together, before = list(networks()), list(networks())
    pack = Pack(together, optimizer=partial(torch.optim.SGD, lr=0.1), own_batches=True)
    optimizer = pack.prepare(total_steps=1)
    pack.gradient_step(x.expand(3, 12, 5), y.expand(3, 12), step=0)
    optimizer.step()
    for net, old in zip(together, before, strict=True):
        F.cross_entropy(old(x), y).backward()
        for p, q in zip(net.parameters(), old.parameters(), strict=True):
            torch.testing.assert_close(p, q - 0.1 * q.grad)
        assert torch.equal(net[0].weight[padding], old[0].weight[padding])


class Hides(Method):
    """Keeps a count where nothing but a training step shows it: in memory that Python cannot look into."""

    def __init__(self, *, k: int, where: str) -> None:
        super().__init__()
        self.where = where
        self.count = ctypes.pointer(ctypes.c_int(k))

    def _in(self, where, value):
        return sum(value for _ in range(self.count.contents.value)) if where == self.where else value

    def penalty(self, net, x, y, output, draw):
        return self._in("penalty", 0.01 * output.square().mean())

    def gradient(self, params, grads, draw):
        return [self._in("gradient", g) for g in grads]

    @torch.no_grad()
    def before_step(self, params, lr, draw):
        for p in params:
            p.mul_(1 - 0.001 * self._in("before_step", 1))

    @torch.no_grad()
    def after_step(self, params, progress):
        for p in params:
            p.mul_(1 - 0.001 * self._in("after_step", 1))


@pytest.mark.parametrize(
    ("where", "what"),
    [("penalty", "objective"), ("gradient", "gradient"), ("before_step", "weights"), ("after_step", "weights")],
)
@pytest.mark.parametrize("counts", [(3, 3), (1, 3)])
def test_a_count_that_only_a_step_shows_is_found_in_the_first_step(where, what, counts):
    """All lanes would have taken that of the first."""
    lanes = [Lane(network(seed), [Hides(k=k, where=where)], seed=seed) for seed, k in enumerate(counts)]
    pack = Pack(lanes, optimizer=partial(torch.optim.SGD, lr=0.1), own_batches=True)
    optimizer = pack.prepare(total_steps=4)
    x, y = torch.randn(2, 12, 5, dtype=torch.float64), torch.randint(3, (2, 12))

    def step():
        pack.gradient_step(x, y, step=0)
        optimizer.step()
        pack.after_step(0.25)

    if counts == (3, 3):
        step()
        return
    with pytest.raises(Unpackable, match=rf"^lane 1 has another {what} by itself than in a pack, .*accepted: buffers"):
        step()


@pytest.mark.parametrize(
    ("differences", "refused"), [([(1, "gradient"), None], False), ([(1, "gradient"), (0, "objective")], True)]
)
def test_a_difference_counts_if_it_is_there_at_other_weights_too(monkeypatch, differences, refused):
    """In float32 a unit may switch on in one way of computing alone. The compared steps leave nothing behind."""
    seen, found = [], iter(differences)
    lanes = [Lane(network(seed), [Annealed()], seed=seed) for seed in range(2)]
    pack = Pack(lanes, optimizer=partial(torch.optim.SGD, lr=0.1))
    pack.prepare(total_steps=4)
    before = pack._stack.flat.clone()
    monkeypatch.setattr(
        "genbench.training.pack_checks._difference", lambda stack, *_: (seen.append(stack.flat.clone()), next(found))[1]
    )
    x, y = torch.randn(2, 12, 5, dtype=torch.float64), torch.randint(3, (2, 12))
    with pytest.raises(Unpackable, match=r"^lane 0 has another objective") if refused else nullcontext():
        pack.gradient_step(x, y, step=0)
    assert torch.equal(seen[0], before)
    assert not torch.equal(seen[1], before)
    assert torch.equal(pack._stack.flat, before)
    assert all(p.grad is None for lane in lanes for p in lane.parameters())


def test_lanes_of_genbenchs_own_code_are_not_compared(monkeypatch):
    monkeypatch.setattr("genbench.training.pack_checks._difference", lambda *_: pytest.fail("compared"))
    lanes = [Lane(build(i), [Dropout(rate=rate)], seed=i) for i, rate in enumerate((0.1, 0.5))]
    pack = Pack(lanes, optimizer=partial(torch.optim.SGD, lr=0.1))
    pack.prepare(total_steps=3)
    assert len(pack.gradient_step(torch.randn(2, 8, 1, 6), torch.zeros(2, 8).long(), step=0)) == 2
