"""Which parts of a batch belong to one example each, whatever the lengths are."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.callbacks.splits import take
from genbench.measures import (
    Snapshot,
    cross_entropy,
    empirical_fisher_trace,
    fisher_trace,
    gradient_norm,
    hessian_trace,
    input_margin,
)

CE = F.cross_entropy


class Prototypes(nn.Module):
    """−‖f(x) − p_k‖² are the logits."""

    def __init__(self, width: int = 5):
        super().__init__()
        self.embed = nn.Linear(width, 4)

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        return -(torch.tanh(self.embed(x))[:, None] - prototypes).square().sum(2)


def episode(n: int, k: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, dtype=torch.float64, generator=generator)
    return x, torch.randn(k, 4, dtype=torch.float64, generator=generator), torch.randint(k, (n,), generator=generator)


def by_hand(net: nn.Module, x: Tensor, p: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean ‖∇ℓᵢ‖², and the 10th percentile of margin / ‖∇ₓ margin‖."""
    squares, distances = [], []
    for i in range(len(y)):
        one = x[i : i + 1].clone().requires_grad_()
        logits = net(one, p)
        slopes = torch.autograd.grad(CE(logits, y[i : i + 1]), list(net.parameters()), retain_graph=True)
        squares.append(sum(float(g.square().sum()) for g in slopes))
        margin = logits[0, y[i]] - logits[0].scatter(0, y[i], -torch.inf).max()
        distances.append(float(margin.detach() / torch.autograd.grad(margin, one)[0].norm()))
    return sum(squares) / len(squares), float(torch.tensor(distances, dtype=torch.float64).quantile(0.1))


@pytest.mark.parametrize("sizes", [(8, 8, 8), (12, 8), (8, 3), (8,)])
def test_a_shared_input_as_long_as_a_batch(sizes):
    torch.manual_seed(0)
    net, (x, p, y) = Prototypes().double(), episode(sum(sizes))
    batches = [{"x": a, "prototypes": p, "y": b} for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]
    snapshot = Snapshot(net, CE, batches, forward=lambda m, b: (m(b["x"], b["prototypes"]), b["y"]))
    exact = Snapshot(net, CE, [(x, y)], forward=lambda m, b: (m(b[0], p), b[1]))
    squares, margin = by_hand(net, x, p, y)
    assert exact.examples == snapshot.examples == len(y)
    assert empirical_fisher_trace(snapshot).value == pytest.approx(squares, rel=1e-9)
    assert input_margin(snapshot).value == pytest.approx(margin, rel=1e-9)
    for function in (hessian_trace, gradient_norm, fisher_trace, cross_entropy):
        assert function(snapshot).value == pytest.approx(function(exact).value, rel=1e-9)
        assert function(snapshot).note == function(exact).note
    rows = torch.tensor([0, 5, len(y) - 1])
    (part,) = snapshot.subsets([rows])
    assert part.mean_loss == pytest.approx(float(CE(net(x[rows], p), y[rows]).detach()), rel=1e-12)
    assert snapshot.note is None


def test_shared_inputs_of_batches_that_examples_are_taken_from():
    x, p, y = episode(28)
    batches = [{"x": a, "prototypes": p, "y": b} for a, b in zip(x.split((12, 8, 8)), y.split((12, 8, 8)), strict=True)]
    for source in (batches, (batch for batch in batches)):
        found = take([source], 17)
        assert sum(len(batch["y"]) for batch in found) == 17
        assert all(torch.equal(batch["prototypes"], p) for batch in found)
        assert all(len(batch["x"]) == len(batch["y"]) for batch in found)


def test_another_set_in_every_batch_makes_examples_depend_on_their_batch():
    torch.manual_seed(0)
    net, (x, p, y) = Prototypes().double(), episode(16)
    forward = lambda m, b: (m(b["x"], b["prototypes"]), b["y"])  # noqa: E731
    batches = [{"x": x[:8], "prototypes": p, "y": y[:8]}, {"x": x[8:], "prototypes": -p, "y": y[8:]}]
    assert "depends on the others of its batch" in hessian_trace(Snapshot(net, CE, batches, forward=forward)).note


def test_a_sequence_of_tokens_whose_length_is_that_of_the_batch():
    class Tagger(nn.Module):  # time first
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.GRU(4, 5), nn.Linear(8, 3)

        def forward(self, x, features):
            return self.out(torch.cat([self.rnn(x)[0][-1], features], 1))

    torch.manual_seed(0)
    net, x, extra = Tagger().double(), torch.randn(7, 3, 4).double(), torch.randn(3, 3).double()  # as many features
    y = torch.tensor([0, 1, 2])
    snapshot = Snapshot(net, CE, [((x, extra), y)], forward=lambda m, b: (m(*b[0]), b[1]))
    squares = 0.0
    for i in range(3):
        loss = CE(net(x[:, i : i + 1], extra[i : i + 1]), y[i : i + 1])
        squares += sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(net.parameters())))
    assert empirical_fisher_trace(snapshot).value == pytest.approx(squares / 3, rel=1e-9)


class Detector(nn.Module):
    """A box and a score for each cell of a grid."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 1))

    def forward(self, x):
        return self.net(torch.stack(list(x)) if isinstance(x, list | tuple) else x)


def of_image(output: Tensor, target: dict[str, Tensor]) -> Tensor:
    boxes = output[:4].flatten(1).T
    matched = torch.cdist(target["boxes"], boxes).min(1).values.sum()
    return matched + output[4].square().mean() + target["labels"].to(output).sum() * output[4].mean()


def detection_loss(output: Tensor, targets) -> Tensor:
    return torch.stack([of_image(o, t) for o, t in zip(output, targets, strict=True)]).mean()


def by_box(output: Tensor, targets) -> Tensor:
    return detection_loss(output, targets) * len(targets) / sum(len(t["boxes"]) for t in targets)


def scenes(boxes: list[int]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, 5, 5, dtype=torch.float64, generator=generator) for _ in boxes]
    return images, [
        {"boxes": torch.randn(m, 4, dtype=torch.float64, generator=generator), "labels": torch.ones(m).long()}
        for m in boxes
    ]


@pytest.mark.parametrize("boxes", [[3, 1, 2, 4, 1], [1, 1, 1, 1, 1], [3, 3, 3, 3, 3], [2, 0, 5, 1, 1]])
@pytest.mark.parametrize("kind", ["tensor", "list", "tuple"])
def test_targets_that_are_lists_of_what_each_example_has(boxes, kind):
    torch.manual_seed(0)
    net, (images, targets) = Detector().double(), scenes(boxes)
    made = {"tensor": torch.stack, "list": list, "tuple": tuple}[kind]
    batches = [(made(images[i:j]), (tuple if kind == "tuple" else list)(targets[i:j])) for i, j in ((0, 3), (3, 5))]
    snapshot = Snapshot(net, detection_loss, batches)
    output = net(images)
    g = torch.autograd.grad(detection_loss(output, targets), list(net.parameters()))
    assert snapshot.examples == 5
    assert snapshot.mean_loss == pytest.approx(float(detection_loss(output, targets).detach()), rel=1e-12)
    assert gradient_norm(snapshot).value == pytest.approx(float(sum(t.square().sum() for t in g)) ** 0.5, rel=1e-9)
    assert snapshot.note is None
    squares = 0.0
    for image, target in zip(images, targets, strict=True):
        slopes = torch.autograd.grad(detection_loss(net([image]), [target]), list(net.parameters()))
        squares += sum(float(t.square().sum()) for t in slopes)
    assert empirical_fisher_trace(snapshot).value == pytest.approx(squares / 5, rel=1e-9)
    (part,) = snapshot.subsets([torch.tensor([1, 4])])
    chosen = detection_loss(net([images[1], images[4]]), [targets[1], targets[4]])
    assert part.mean_loss == pytest.approx(float(chosen.detach()), rel=1e-12)


def test_a_mean_over_the_boxes_of_all_images_says_so():
    torch.manual_seed(0)
    net, (images, targets) = Detector().double(), scenes([3, 1, 2, 4, 1])
    batches = [(torch.stack(images[i:j]), targets[i:j]) for i, j in ((0, 3), (3, 5))]
    assert "the loss is no mean over the examples" in gradient_norm(Snapshot(net, by_box, batches)).note
    counted = Snapshot(net, by_box, batches, count=lambda output, target: sum(len(t["boxes"]) for t in target))
    assert counted.mean_loss == pytest.approx(float(by_box(net(images), targets).detach()), rel=1e-12)
    assert gradient_norm(counted).note is None


def test_lists_of_sequences_of_any_length():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, sequences):
            return torch.stack([self.layer(x).mean(0) for x in sequences])

    torch.manual_seed(0)
    lengths = [4, 2, 7, 1, 4, 3]
    net, x, y = Mean().double(), [torch.randn(t, 4).double() for t in lengths], torch.tensor([0, 1, 2, 1, 0, 2])
    snapshot = Snapshot(net, CE, [(x[:4], y[:4]), (x[4:], y[4:])])  # one is as long as its batch
    squares = 0.0
    for one, label in zip(x, y, strict=True):
        slopes = torch.autograd.grad(CE(net([one]), label[None]), list(net.parameters()))
        squares += sum(float(t.square().sum()) for t in slopes)
    assert empirical_fisher_trace(snapshot).value == pytest.approx(squares / 6, rel=1e-9)
    assert hessian_trace(snapshot).value == pytest.approx(hessian_trace(Snapshot(net, CE, [(x, y)])).value, rel=1e-9)
    assert snapshot.note is None


def padded(counts: list[int]) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, 5).double(), torch.randint(3, (6, 4))
    for row, count in zip(y, counts, strict=True):
        row[count:] = -100
    return nn.Linear(5, 3).double(), [(x[:3], y[:3]), (x[3:], y[3:])]


def token_loss(output: Tensor, target: Tensor) -> Tensor:
    return CE(output.flatten(0, 1), target.flatten())


def tokens(output: Tensor, target: Tensor) -> Tensor:
    return (target >= 0).sum()


def test_batches_that_count_nothing_are_left_out():
    net, batches = padded([4, 2, 1, 0, 0, 0])
    snapshot, exact = Snapshot(net, token_loss, batches, count=tokens), Snapshot(net, token_loss, batches[:1])
    assert snapshot.mean_loss == pytest.approx(exact.mean_loss, rel=1e-12)
    for function in (gradient_norm, hessian_trace):
        assert function(snapshot).value == pytest.approx(function(exact).value, rel=1e-9)
        assert function(snapshot).note is None


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (lambda output, target: 0, "count is 0 for every batch; accepted: "),
        (lambda output, target: -1, r"count is -1.0; accepted: "),
        (lambda output, target: float("nan"), r"count is nan; accepted: "),
    ],
)
def test_counts_that_are_none_are_one_line(count, message):
    net, batches = padded([4, 2, 1, 3, 2, 1])
    for function in (gradient_norm, hessian_trace):
        with pytest.raises(ValueError, match=message) as caught:
            function(Snapshot(net, token_loss, batches, count=count))
        assert "\n" not in str(caught.value)


def test_other_targets_count_as_the_loss_says():
    net, batches = padded([4, 2, 1, 3, 2, 1])
    others = padded([1, 2, 4, 4, 4, 1])[1]
    snapshot = Snapshot(net, token_loss, batches, count=tokens).with_targets([y for _, y in others])
    both = token_loss(net(torch.cat([x for x, _ in others])), torch.cat([y for _, y in others]))
    assert snapshot.mean_loss == pytest.approx(float(both.detach()), rel=1e-12)


def test_positions_of_no_example_are_one_line():
    net, batches = padded([4, 2, 1, 3, 2, 1])
    snapshot = Snapshot(net, token_loss, batches)
    for rows, low, high in (([0, 6], 0, 6), ([-1, 2], -1, 2)):
        with pytest.raises(ValueError, match=rf"positions lie in \[{low}, {high}\]; accepted: 0 to 5"):
            snapshot.subsets([torch.tensor(rows)])


class Graph:
    """A batch of a class of its own, as of graphs."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y, self.calls = x, y, []


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_batch_of_any_class_is_as_it_was_whatever_the_network_does_to_it(how):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, batch):
            batch.calls.append(1)
            if how == "in place":
                batch.x.mul_(0.5)
            else:
                batch.x = batch.x * 0.5
            return self.b(torch.tanh(self.a(batch.x)))

    torch.manual_seed(0)
    net, (x, _, y) = Net().double(), episode(9, 3)
    before, graph = x.clone(), Graph(x, y)
    snapshot = Snapshot(net, CE, [graph], forward=lambda m, b: (m(b), b.y))
    exact = CE(net(Graph(x.clone(), y)), y)
    slopes = torch.autograd.grad(exact, list(net.parameters()))
    for _ in range(2):
        assert snapshot.loss_at(snapshot.vector) == pytest.approx(float(exact.detach()), rel=1e-12)
    assert gradient_norm(snapshot).value == pytest.approx(float(sum(t.square().sum() for t in slopes)) ** 0.5, rel=1e-9)
    assert graph.x is x
    assert torch.equal(x, before)
    assert graph.calls == []


def test_a_number_of_each_batch_is_no_weight_of_its_examples():
    torch.manual_seed(0)
    net, (x, _, y) = nn.Linear(5, 8).double(), episode(24)
    others, shares = y.flip(0), (0.3, 0.7, 0.5)  # mixup

    def mixed(output, target):
        a, b, share = target
        return share * CE(output, a) + (1 - share) * CE(output, b)

    targets = list(zip(y.split(8), others.split(8), shares, strict=True))
    snapshot = Snapshot(net, mixed, list(zip(x.split(8), targets, strict=True)))
    parts = [mixed(net(part), target) for part, target in zip(x.split(8), targets, strict=True)]
    slopes = torch.autograd.grad(sum(parts) / 3, list(net.parameters()))
    found = gradient_norm(snapshot)
    assert found.value == pytest.approx(float(sum(t.square().sum() for t in slopes)) ** 0.5, rel=1e-9)
    assert found.note is None


@pytest.mark.parametrize("used", [False, True])
def test_names_of_the_examples(used):
    torch.manual_seed(0)
    net, (x, _, y) = nn.Linear(5, 8).double(), episode(24)
    names = [str(i) for i in range(24)]
    batches = [{"x": x[i : i + 8], "y": y[i : i + 8], "name": names[i : i + 8]} for i in (0, 8, 16)]

    def forward(model, batch):
        scale = torch.tensor([float(name) for name in batch["name"]], dtype=torch.float64)[:, None] if used else 1
        return model(batch["x"]) * scale, batch["y"]

    squares = 0.0
    for i in range(24):
        loss = CE(net(x[i : i + 1]) * (i if used else 1), y[i : i + 1])
        squares += sum(float(t.square().sum()) for t in torch.autograd.grad(loss, list(net.parameters())))
    snapshot = Snapshot(net, CE, batches, forward=forward)
    assert empirical_fisher_trace(snapshot).value == pytest.approx(squares / 24, rel=1e-9)


def test_lists_of_what_each_head_has_are_no_examples():
    class Heads(nn.Module):  # three heads of 2, 3 and 4 cells
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(5, 3 * cells) for cells in (2, 3, 4))

        def forward(self, x):
            return [head(x).reshape(-1, 3) for head in self.heads]

    def loss(outputs, targets):
        return sum(CE(output, target) for output, target in zip(outputs, targets, strict=True)) / 3

    torch.manual_seed(0)
    net, x = Heads().double(), episode(9)[0]
    y = [torch.randint(3, (9, cells)) for cells in (2, 3, 4)]
    batches = [(x[i:j], [each[i:j].flatten() for each in y]) for i, j in ((0, 5), (5, 7), (7, 9))]
    exact = loss(net(x), [each.flatten() for each in y])
    slopes = torch.autograd.grad(exact, list(net.parameters()))
    for forward in (None, lambda m, b: (m(b[0]), b[1])):
        snapshot = Snapshot(net, loss, batches, forward=forward)
        assert snapshot.mean_loss == pytest.approx(float(exact.detach()), rel=1e-12)
        assert gradient_norm(snapshot).value == pytest.approx(float(sum(t.square().sum() for t in slopes)) ** 0.5)


def test_the_examples_of_lists_are_counted_without_running_the_network():
    torch.manual_seed(0)
    net, (images, targets) = Detector().double(), scenes([1, 1, 1, 1, 1])
    snapshot = Snapshot(net, detection_loss, [(images[:3], targets[:3]), (images[3:], targets[3:])])
    assert snapshot.mean_loss > 0
    calls = []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    snapshot.gradient_at(snapshot.vector)
    assert len(calls) == 2


def test_a_loader_s_shared_memory_is_not_held():
    x, _, y = episode(24)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, num_workers=1)
    snapshot = Snapshot(nn.Linear(5, 8).double(), CE, loader)
    assert snapshot.examples == 24
    assert isinstance(snapshot.batches, list)  # kept
    assert not any(t.is_shared() for batch in snapshot.batches for t in batch)


@pytest.mark.parametrize("boxes", [[3, 1, 2, 4, 1], [1, 1, 1, 1, 1], [3, 3, 3, 3, 3]])
@pytest.mark.parametrize("kind", ["tensor", "list", "tuple"])
def test_examples_are_taken_of_lists_too(boxes, kind):
    images, targets = scenes(boxes)
    made = {"tensor": torch.stack, "list": list, "tuple": tuple}[kind]
    batches = [(made(images[i:j]), (tuple if kind == "tuple" else list)(targets[i:j])) for i, j in ((0, 3), (3, 5))]
    found = take([batches], 4)
    pairs = [(x, y) for batch in found for x, y in zip(*batch, strict=True)]
    places = [next(i for i, image in enumerate(images) if torch.equal(image, x)) for x, _ in pairs]
    assert len(set(places)) == 4
    assert all(torch.equal(y["boxes"], targets[i]["boxes"]) for i, (_, y) in zip(places, pairs, strict=True))
