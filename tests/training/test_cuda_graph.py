"""The logic of CUDA graphs, on the CPU: a stand-in for a graph calls the function again and writes over its results."""

import warnings
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from torch.utils._pytree import tree_leaves

from genbench.models import MLP
from genbench.regularization import EMA, Dropout, Mixup
from genbench.training import Lane, Pack, cuda_graph
from genbench.training.cuda_graph import CudaGraphs

captures = []


class Again:
    """In place of a graph: replays a call on the tensors that it was captured with."""

    def __init__(self, call, results):
        self.call, self.results = call, results

    def replay(self):
        for result, new in zip(tree_leaves(self.results), tree_leaves(self.call()), strict=True):
            result.copy_(new)


def captured(call):
    captures.append(call)
    results = deepcopy(call())  # a capture itself computes nothing
    return Again(call, results), results


def refused(call):
    captures.append(call)
    try:
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
    finally:
        raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def with_graphs(monkeypatch):
    captures.clear()
    monkeypatch.setattr(cuda_graph, "_warmed_up", lambda call: (call(), call()))
    monkeypatch.setattr(cuda_graph, "_captured", captured)
    monkeypatch.setattr("genbench.training.pack.graphed", lambda device: True)


class Counter:
    """Adds what it is given to a tensor that stays where it is."""

    def __init__(self):
        self.total = torch.zeros(3)

    @contextmanager
    def preserved(self):
        kept = self.total.clone()
        yield
        self.total.copy_(kept)

    def add(self, x, more):
        self.total += x + more["by"][0]
        return self.total * 2, [x.sum(0)]


def test_only_cuda_has_graphs():
    assert cuda_graph.graphed(torch.device("cuda", 1))
    assert not cuda_graph.graphed(torch.device("cpu"))


@pytest.mark.usefixtures("with_graphs")
def test_a_function_is_captured_once_and_changes_tensors_once_a_call():
    ours, plain = Counter(), Counter()
    graphs, results = CudaGraphs(ours.preserved), []
    for i in range(4):
        given = torch.full((3,), float(i)), {"by": [torch.tensor(0.5)]}
        results.append((graphs.call(ours.add, *given), plain.add(*given)))
    for (found, (summed,)), (expected, (other,)) in results:  # earlier results are not written over
        assert torch.equal(found, expected)
        assert torch.equal(summed, other)
    assert torch.equal(ours.total, plain.total)
    assert len(captures) == 1


@pytest.mark.usefixtures("with_graphs")
def test_other_shapes_and_functions_are_captured_anew_and_kept():
    graphs = CudaGraphs(Counter().preserved)
    for _ in range(3):
        for function in (torch.neg, torch.exp):
            for n in (2, 5):
                x = torch.rand(n)
                assert torch.equal(graphs.call(function, x), function(x))
    assert len(captures) == 4


@pytest.mark.usefixtures("with_graphs")
def test_of_a_repeated_argument_one_is_kept():
    graphs, one = CudaGraphs(Counter().preserved), torch.rand(1, 4)
    for _ in range(2):
        x = torch.rand(1, 4).expand(1000, 4)
        assert torch.equal(graphs.call(torch.neg, x), -x)
    (call,) = captures
    assert call.args[0].shape == (1000, 4)
    assert call.args[0].untyped_storage().nbytes() == one.untyped_storage().nbytes()


@pytest.mark.usefixtures("with_graphs")
def test_what_cannot_be_captured_is_called_as_it_is_and_said_once(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_captured", refused)
    ours, plain = Counter(), Counter()
    graphs, more = CudaGraphs(ours.preserved), {"by": [torch.tensor(1.0)]}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for shape in ((3,), (2, 3), (3,)):
            x = torch.rand(shape)
            assert torch.equal(graphs.call(torch.neg, x), -x)
            graphs.call(ours.add, x.view(-1, 3)[0], more)
            plain.add(x.view(-1, 3)[0], more)
    reason = "operation not permitted when stream is capturing"
    assert [str(each.message) for each in said] == [
        f"a step goes without a CUDA graph, operation by operation: {reason}"
    ]
    assert len(captures) == 1
    assert torch.equal(ours.total, plain.total)


@pytest.mark.usefixtures("with_graphs")
def test_an_error_of_the_function_itself_is_raised():
    with pytest.raises(ZeroDivisionError):
        CudaGraphs(Counter().preserved).call(lambda x: 1 / 0, torch.rand(2))
    assert captures == []


def trained(**settings):
    """The objectives of some steps, batches of two sizes, and the lanes after them."""
    lanes = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = MLP(input_shape=(1, 8), classes=3, width=10, normalization="batch_norm")
        lanes.append(Lane(net, [Mixup(alpha=0.4), Dropout(rate=0.3), EMA(decay=0.9)], seed=seed))
    pack = Pack(lanes, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1), own_batches=True, **settings)
    update, objectives = pack.prepare(total_steps=6), []
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        n = 7 if step % 3 == 2 else 20
        x, y = torch.randn(3, n, 1, 8, generator=generator), torch.randint(3, (3, n), generator=generator)
        objectives.append(pack.gradient_step(x, y, step=step))
        update.step()
        pack.after_step((step + 1) / 6)
    return objectives, lanes


@pytest.mark.usefixtures("with_graphs")
def test_a_pack_trains_the_same_with_graphs():
    plain, others = trained(graphs=False)
    assert captures == []
    objectives, lanes = trained()
    assert len(captures) == 3  # batches of two sizes, and what follows a step
    assert torch.equal(torch.stack(objectives), torch.stack(plain))
    for ours, theirs in zip(lanes, others, strict=True):
        for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.usefixtures("with_graphs")
def test_a_pack_whose_step_cannot_be_captured_trains_the_same(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_captured", refused)
    plain, _ = trained(graphs=False)
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        objectives, _ = trained()
    assert torch.equal(torch.stack(objectives), torch.stack(plain))
