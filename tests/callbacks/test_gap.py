import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from genbench.callbacks import Gap, Measures
from genbench.measures.performance import mean_loss
from tests.helpers.lightning_projects import (
    Plain,
    data,
    fit,
)


def test_gap_is_that_of_the_final_weights():
    gap = Gap()
    module = Plain()
    ours = fit(module, [gap])
    module.eval()
    for split, dataset in (("train", data(64, 0)), ("val", data(30, 1)), ("test", data(50, 2))):
        x, y = dataset.tensors
        p = module(x).detach().double().softmax(1)
        found = {
            name: gap.results[f"{split}/performance/{name}"].value
            for name in ("accuracy", "cross_entropy", "soft_error")
        }
        assert found["accuracy"] == pytest.approx(float((p.argmax(1) == y).double().mean()))
        assert found["cross_entropy"] == pytest.approx(float(F.nll_loss(p.log(), y)), rel=1e-5)
        assert found["soft_error"] == pytest.approx(float(1 - p[torch.arange(len(y)), y].mean()), rel=1e-5)
        assert 0 <= gap.results[f"{split}/performance/calibration_error"].value <= 1
        if split == "train":
            train = found
        else:
            signs = {"accuracy": -1, "cross_entropy": 1, "soft_error": 1}
            for name, sign in signs.items():
                expected = sign * (found[name] - train[name])
                assert gap.results[f"{split}/gap/{name}"].value == pytest.approx(expected)
    assert "train/gap/accuracy" not in gap.results
    for key, estimate in gap.results.items():
        assert float(ours.callback_metrics[key]) == pytest.approx(estimate.value, rel=1e-6)
    assert gap.seconds > 0


class Padded(Plain):
    """Sequences of three tokens, of which the label 0 is padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.repeat(3, 1)).unflatten(0, (3, -1)).movedim(0, 1)  # [N, T, K]

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return padded_loss(self(batch[0]), batch[1])

    def train_dataloader(self) -> DataLoader:
        x, y = data(20, 0).tensors
        return DataLoader(TensorDataset(x, torch.stack([y, y.roll(1), y.roll(2)], 1)), batch_size=6)

    val_dataloader = train_dataloader
    test_dataloader = train_dataloader


def padded_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, 1), target.flatten(), ignore_index=0)


def test_padding_counts_neither_in_the_accuracy_nor_in_the_loss():
    def count(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (target != 0).sum()

    gap, module = Gap(loss=padded_loss, count=count), Padded()
    measures = Measures(measures={"loss": mean_loss}, loss=padded_loss, count=count, examples=None)
    fit(module, [gap, measures])
    module.eval()
    x, y = (torch.cat(parts) for parts in zip(*module.train_dataloader(), strict=True))
    output = module(x).detach()
    right = (output.argmax(2) == y)[y != 0]
    accuracy = gap.results["train/performance/accuracy"]
    assert accuracy.value == pytest.approx(float(right.double().mean()))
    assert accuracy.value != pytest.approx(float((output.argmax(2) == y).double().mean()), rel=1e-3)
    assert accuracy.note == "without the labels that the loss ignores (0)"
    exact = float(padded_loss(output, y))
    assert gap.results["train/performance/cross_entropy"].value == pytest.approx(exact, rel=1e-5)
    assert gap.results["val/gap/accuracy"].value == pytest.approx(0, abs=1e-9)
    found = measures.results["train/performance/loss"]
    assert (found.value, found.note) == (pytest.approx(exact, rel=1e-5), None)


def test_how_examples_are_batched_is_found_out_at_the_first_epoch_and_at_the_end():
    passes: list[bool] = []
    counts: list[int] = []

    class Counting(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            passes.append(self.training)
            return super().forward(x)

    class Watched(Gap):
        def measure(self, trainer, pl_module):
            before = passes.count(False)
            found = super().measure(trainer, pl_module)
            counts.append(passes.count(False) - before)
            return found

    class Anew(Gap):
        def measure(self, trainer, pl_module):
            self._findings.clear()
            return super().measure(trainer, pl_module)

    known, anew = (kind(every_n_epochs="powers_of_two") for kind in (Watched, Anew))
    for gap in (known, anew):
        torch.manual_seed(1)
        fit(Counting(), [gap], max_epochs=5)
    batches = sum(-(-n // 10) for n in (64, 30, 50))
    assert counts[1] == counts[2] == batches < counts[3] < counts[0]  # after the epochs 1, 2, 4 and 5
    assert known.history == anew.history
    assert [(e.value, e.stderr, e.note) for e in known.results.values()] == [
        (e.value, e.stderr, e.note) for e in anew.results.values()
    ]
