"""Callbacks in ordinary projects of other people report what a plain computation gives."""

import logging
import math
from dataclasses import dataclass

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from genbench.callbacks import Gap, Measures, Optimization, Stop
from genbench.measures import (
    distance_from_init,
    gradient_norm,
    hessian_eigenvalues,
    hessian_trace,
    l2_norm,
    parameter_norms,
    sam_sharpness,
)
from tests.helpers.lightning_projects import Odd, Plain, data, fit, trainer, understand

NORM = {"gradient_norm": gradient_norm}


def slope(loss: Tensor, module: nn.Module) -> float:
    """Return ‖∇L‖ by one plain backward pass."""
    weights = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return float(torch.cat([g.reshape(-1) for g in found]).double().norm())


def not_measured(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("genbench")]


# -- which part


class Backbone(Plain):
    """``network`` returns features; a separate head returns the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)
        del self.layers

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.network(x))


def test_what_forward_gives_is_measured_whatever_the_parts_are_called():
    gap, measures, module = Gap(), Measures(measures={**NORM, "size": parameter_norms}), Backbone()
    fit(module, [gap, measures])
    x, y = data(64, 0).tensors
    module.eval()
    output = module(x)
    assert gap.results["train/performance/accuracy"].value == pytest.approx(
        float((output.argmax(1) == y).float().mean())
    )
    expected = slope(F.cross_entropy(output, y), module)
    assert measures.results["train/optimization/gradient_norm"].value == pytest.approx(expected, rel=1e-4)
    assert measures.results["weights/norm/params"].value == sum(p.numel() for p in module.parameters())


def test_a_part_is_measured_where_it_is_named():
    class Deep(Backbone):
        def __init__(self) -> None:
            super().__init__()
            self.whole = nn.ModuleDict({"student": nn.Linear(4, 3)})

    module = Deep()
    named = Measures(measures={"l2": l2_norm}, network="whole.student")
    fit(module, [named])
    flat = torch.cat([p.detach().reshape(-1) for p in module.whole["student"].parameters()])
    assert named.results["weights/norm/l2"].value == pytest.approx(float(flat.norm()), rel=1e-6)
    for wrong in (Gap(network="netwrok"), Stop(train_loss=1, network="netwrok")):
        with pytest.raises(
            ValueError, match=r"^network='netwrok' is not a part of Deep; accepted: network, head, whole$"
        ):
            fit(Deep(), [wrong])  # before it trains


class Formless(Plain):
    """Has no forward: the step calls the parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        del self.layers

    forward = pl.LightningModule.forward

    def logits(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())

    def training_step(self, batch):
        return F.cross_entropy(self.logits(batch[0]), batch[1])

    val_dataloader = test_dataloader = None


def test_a_module_without_forward_gets_one_line_that_names_the_mend(caplog):
    gap, measures = Gap(every_n_epochs=1), Measures(measures={**NORM, "l2": l2_norm}, every_n_epochs=1)
    with caplog.at_level(logging.WARNING):
        fit(Formless(), [gap, measures])
    reason = (
        "Formless has no forward: pass forward=(model, batch) -> (output, target), or network= with the part that has"
    )
    assert gap.results["train/performance/accuracy"].note == reason
    assert measures.results["train/optimization/gradient_norm"].note == reason
    assert measures.results["weights/norm/l2"].value > 0  # which needs none
    assert not_measured(caplog) == [
        f"not measured: train/performance/accuracy and 3 more: {reason}"
    ]  # of two callbacks

    def forward(model, batch):
        return model.logits(batch[0]), batch[1]

    module = Formless()
    mended = Measures(measures=NORM, forward=forward)
    fit(module, [mended])
    x, y = data(64, 0).tensors
    expected = slope(F.cross_entropy(module.logits(x), y), module)
    assert mended.results["train/optimization/gradient_norm"].value == pytest.approx(expected, rel=1e-4)


def test_without_forward_a_network_that_holds_all_weights_is_measured():
    class Old(Formless):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(4, 3)
            del self.first, self.second

        def logits(self, x):
            return self.network(x)

    module, gap = Old(), Gap()
    fit(module, [gap])
    x, y = data(64, 0).tensors
    assert gap.results["train/performance/cross_entropy"].value == pytest.approx(
        float(F.cross_entropy(module.network(x), y)), rel=1e-5
    )


# -- reasons


def test_each_reason_is_said_once_a_training(caplog):
    """Two callbacks fail on other batches, Stop checks in vain, and a second training logs again."""
    callbacks = [Gap(every_n_epochs=1), Measures(measures=NORM, every_n_steps=3), Stop(train_loss=0.1), Optimization()]
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            fit(Odd(), callbacks)
        (line,) = not_measured(caplog)
        assert "with forward=(model, batch) -> (output, target)" in line
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        callback = Optimization(forward=understand)
        fit(Odd(), [callback])
    assert callback.results["train/optimization/steps_to_1e-1"].note.startswith("not reached")
    assert not_measured(caplog) == []  # not reached is not a failure to measure


def test_a_reason_with_other_numbers_is_the_same(caplog):
    def varies(snapshot):
        raise ValueError(f"undefined: the margin is {-snapshot.mean_loss:.3g}, not positive")

    with caplog.at_level(logging.WARNING):
        fit(Plain(), [Measures(measures={"a": varies}, every_n_steps=2)])
    assert len(not_measured(caplog)) == 1


def test_a_new_reason_is_said_when_it_first_happens(caplog):
    class Explodes(Plain):
        def on_train_epoch_end(self):
            if self.current_epoch == 1:
                with torch.no_grad():
                    self.layers[0].weight.fill_(math.nan)

    with caplog.at_level(logging.WARNING):
        fit(Explodes(), [Gap(every_n_epochs=1), Measures(measures={"l2": l2_norm}, every_n_epochs=1)])
    assert not_measured(caplog) == [
        "not measured: train/performance/accuracy and 17 more: weights 'layers.0.weight' are not finite "
        "(NaN or infinite)"
    ]


# -- regression


class Autoencoder(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x).tanh())

    def training_step(self, batch):
        return F.mse_loss(self(batch[0]), batch[0])

    def validation_step(self, batch):
        self.log("val_loss", F.mse_loss(self(batch[0]), batch[0]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.02)

    def train_dataloader(self):
        return DataLoader(TensorDataset(data(64, 0).tensors[0]), batch_size=10, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(data(30, 1).tensors[0]), batch_size=10)


def reconstruct(model, batch):
    return model(batch[0]), batch[0]


def test_the_gap_of_an_autoencoder_is_that_of_the_loss():
    gap, module = Gap(loss=F.mse_loss, forward=reconstruct, every_n_epochs=1), Autoencoder()
    fit(module, [gap])
    each = {}
    for split, n, seed in (("train", 64, 0), ("val", 30, 1)):
        x = data(n, seed).tensors[0]
        each[split] = (module(x) - x).detach().double().square().mean(1)
    train, val = each["train"], each["val"]
    assert set(gap.results) == {"train/performance/loss", "val/performance/loss", "val/gap/loss"}
    assert gap.results["train/performance/loss"].value == pytest.approx(float(train.mean()), rel=1e-5)
    assert gap.results["val/performance/loss"].value == pytest.approx(float(val.mean()), rel=1e-5)
    assert gap.results["val/gap/loss"].value == pytest.approx(float(val.mean() - train.mean()), rel=1e-4)
    error = float(val.std()) / math.sqrt(30)
    assert gap.results["val/performance/loss"].stderr == pytest.approx(error, rel=1e-5)
    assert gap.results["val/gap/loss"].stderr == pytest.approx(error, rel=1e-5)
    assert "val/gap/loss" in gap.history[0]


@pytest.mark.parametrize("columns", [1, 4])
def test_cross_entropy_of_what_is_no_classifier_is_refused_with_the_mend(columns, caplog):
    """With one column cross-entropy would be 0, with more columns arbitrary."""

    class Regression(Plain):
        def __init__(self):
            super().__init__()
            self.layers = nn.Linear(4, columns)

        def training_step(self, batch):
            return F.mse_loss(self(batch[0]), batch[1])

        def train_dataloader(self):
            x = data(64, 0).tensors[0]
            return DataLoader(TensorDataset(x, x[:, :columns] * 2), batch_size=16)

        val_dataloader = test_dataloader = None

    gap, measures = Gap(), Measures(measures={**NORM, "trace": hessian_trace})
    with caplog.at_level(logging.WARNING):
        fit(Regression(), [gap, measures])
    for estimate in (*gap.results.values(), *measures.results.values()):
        assert estimate.value is None
        assert "pass loss=(output, target) -> mean over the batch" in estimate.note
    assert len(not_measured(caplog)) == 1
    mended = Gap(loss=F.mse_loss)
    fit(Regression(), [mended])
    assert mended.results["train/performance/loss"].value > 0


def test_labels_that_are_probabilities_are_measured_by_cross_entropy():
    class Soft(Plain):
        def train_dataloader(self):
            x, y = data(64, 0).tensors
            soft = 0.9 * F.one_hot(y, 3) + 0.1 / 3
            return DataLoader(TensorDataset(x, soft), batch_size=16)

        val_dataloader = test_dataloader = None

    measures, gap, module = Measures(measures=NORM), Gap(), Soft()
    fit(module, [measures, gap])
    x, y = data(64, 0).tensors
    module.eval()
    loss = F.cross_entropy(module(x), 0.9 * F.one_hot(y, 3) + 0.1 / 3)
    assert measures.results["train/optimization/gradient_norm"].value == pytest.approx(slope(loss, module), rel=1e-4)
    assert gap.results["train/performance/loss"].value == pytest.approx(float(loss), rel=1e-5)


# -- other ways to train


class Adversarial(pl.LightningModule):
    """Two networks, two optimizers, manual steps, and no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4))
        self.discriminator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def judged(self, x: Tensor, real: float) -> Tensor:
        logit = self.discriminator(x)
        return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, real))

    def training_step(self, batch):
        first, second = self.optimizers()
        fake = self.generator(torch.randn(len(batch[0]), 2))
        for optimizer, loss in (
            (first, self.judged(fake, 1.0)),
            (second, self.judged(batch[0], 1.0) + self.judged(fake.detach(), 0.0)),
        ):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), 0.01) for part in (self.generator, self.discriminator)]

    def train_dataloader(self):
        return DataLoader(data(64, 0), batch_size=16, shuffle=True)


def test_a_gan_with_two_optimizers(caplog):
    def forward(model, batch):
        logit = model(batch[0])
        return logit, torch.ones_like(logit)

    binary = F.binary_cross_entropy_with_logits
    named = Measures(measures=NORM, network="discriminator", forward=forward, loss=binary, every_n_steps=4)
    whole, path = Gap(), Optimization(network="generator", forward=forward, loss=binary)
    states = []
    for callbacks in ([], [named, whole, path]):
        torch.manual_seed(0)
        module = Adversarial()
        with caplog.at_level(logging.WARNING):
            fit(module, callbacks)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    logit = module.discriminator(data(64, 0).tensors[0])
    expected = slope(binary(logit, torch.ones_like(logit)), module.discriminator)
    assert named.results["train/optimization/gradient_norm"].value == pytest.approx(expected, rel=1e-4)
    assert [row["step"] for row in named.history] == [4, 8, 12, 16, 20, 24]  # both optimizers' steps
    assert path.results["weights/optimization/path_length"].value > 0
    assert any("Adversarial has no forward: pass forward=" in line for line in not_measured(caplog))


@dataclass
class Outputs:
    logits: Tensor
    loss: Tensor | None = None


class Transformers(pl.LightningModule):
    """A model that takes keywords and returns a dataclass, of batches that are dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Outputs:
        mask = attention_mask[..., None]
        logits = self.head((self.embedding(input_ids) * mask).sum(1) / mask.sum(1))
        return Outputs(logits, None if labels is None else F.cross_entropy(logits, labels))

    def training_step(self, batch):
        return self(**batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(11, (40, 5), generator=generator)
        mask = (torch.arange(5) < torch.randint(1, 6, (40, 1), generator=generator)).long()
        rows = [{"input_ids": i, "attention_mask": m, "labels": i.sum() % 3} for i, m in zip(ids, mask, strict=True)]
        return DataLoader(rows, batch_size=8)


def test_a_model_that_takes_dictionaries_and_returns_a_dataclass(caplog):
    with caplog.at_level(logging.WARNING):
        fit(Transformers(), [Measures(measures=NORM)])
    assert "forward=(model, batch) -> (output, target)" in not_measured(caplog)[0]

    def forward(model, batch):
        return model(batch["input_ids"], batch["attention_mask"]), batch["labels"]

    def loss(output, target):
        return F.cross_entropy(output.logits, target)

    measures, gap, module = Measures(measures=NORM, forward=forward, loss=loss), Gap(forward=forward, loss=loss), None
    module = Transformers()
    fit(module, [measures, gap])
    batches = list(module.train_dataloader())
    whole = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    output = module(**whole)
    expected = slope(output.loss, module)
    assert measures.results["train/optimization/gradient_norm"].value == pytest.approx(expected, rel=1e-4)
    right = float((output.logits.argmax(1) == whole["labels"]).float().mean())
    assert gap.results["train/performance/accuracy"].value == pytest.approx(right)
    assert gap.results["train/performance/cross_entropy"].value == pytest.approx(float(output.loss), rel=1e-5)


def test_accumulated_gradients_and_several_validation_loaders():
    class Two(Plain):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch)

        def val_dataloader(self):
            return {"near": DataLoader(data(30, 1), 10), "far": DataLoader(data(50, 2), 10)}

    gap, module = Gap(every_n_epochs=1), Two()
    fit(module, [gap], accumulate_grad_batches=3)
    x, y = (torch.cat(parts) for parts in zip(data(30, 1).tensors, data(50, 2).tensors, strict=True))
    module.eval()
    loss = F.cross_entropy(module(x), y)
    assert gap.results["val/performance/cross_entropy"].value == pytest.approx(float(loss), rel=1e-5)
    assert [row["step"] for row in gap.history] == [3, 6, 9]


# -- wrapped networks

CURVED = {**NORM, "lambda_1": hessian_eigenvalues, "distance": distance_from_init, "sam": sam_sharpness}


class Wrapped(Plain):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.wrap = wrap

    def setup(self, stage):
        self.layers = self.wrap(self.layers)


@pytest.fixture(scope="module")
def alone() -> dict[str, float]:
    return _measured(Plain())


def _measured(module: pl.LightningModule, wrap=lambda module: module, part: Measures | None = None) -> dict[str, float]:
    """Return all numbers except those of ``part`` after two steps from the same weights."""
    callbacks = [Gap(), Measures(measures=CURVED)]
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape) / 4)
    torch.manual_seed(0)
    trainer([*callbacks, *([part] if part else [])], max_epochs=1, max_steps=2).fit(wrap(module))
    found = {key: e.value for callback in callbacks for key, e in callback.results.items()}
    assert None not in found.values()
    return found


def assert_part(part: Measures, alone: dict[str, float]) -> None:
    """Metric keys name the layers of the network inside the wrapper."""
    for key, name in (("train/flatness/lambda_1", "lambda_1"), ("weights/norm/distance.layers.0.weight", "distance")):
        found = part.results[key.replace("layers.", "")].value
        assert found == pytest.approx(alone[key], rel=1e-4), name


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="aot_eager")


def test_a_compiled_module_and_a_compiled_part_are_measured_as_the_plain_one(alone):
    assert _measured(Plain(), compiled) == pytest.approx(alone, rel=1e-4, abs=1e-9)
    part = Measures(measures=CURVED, network="layers")
    found = _measured(Wrapped(compiled), part=part)  # whose parts have names of their own
    assert {key.replace("._orig_mod.", "."): v for key, v in found.items()} == pytest.approx(alone, rel=1e-4, abs=1e-9)
    assert_part(part, alone)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(
            nn.DataParallel,
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU it takes no other device"),
        ),
        nn.parallel.DistributedDataParallel,
    ],
)
def test_parts_in_data_parallel_wrappers_are_measured_as_the_plain_ones(wrap, alone, process_group):
    part = Measures(measures=CURVED, network="layers")
    found = _measured(Wrapped(wrap), part=part)
    assert {key.replace(".module.", "."): v for key, v in found.items()} == pytest.approx(alone, rel=1e-4, abs=1e-9)
    assert_part(part, alone)
