"""What one who waits for measures is told."""

from functools import partial

import torch.nn.functional as F

import genbench.measures.measure_progress as module
import genbench.measures.operators as operators
from genbench.measures import Snapshot, hessian_eigenvalues, hessian_trace, l2_norm
from genbench.measures.base import evaluate
from genbench.measures.measure_progress import progress_to
from tests.helpers.networks import build


def test_which_measure_runs_and_how_far(monkeypatch):
    net, x, y = build("mlp")
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    product = operators._summed

    def slow(*args):
        now[0] += 30
        return product(*args)

    monkeypatch.setattr(operators, "_summed", slow)
    lines = []
    measures = {
        "l2": l2_norm,
        "trace": partial(hessian_trace, deflation=3, probes=4),
        "lambda_1": hessian_eigenvalues,
    }
    with progress_to(lambda line, urgent=False: lines.append((line, urgent))):
        found = evaluate(measures, snapshot, split="train")
    assert found["train/flatness/trace"].value is not None
    assert lines[0] == ("measuring trace: 1 of at most 7 passes of about 30 s, at most 3 min left; then lambda_1", True)
    assert lines[3] == (
        "measuring trace: 4 of at most 7 passes of about 30 s, at most 2 min left; then lambda_1",
        False,
    )
    assert len([line for line, _ in lines if line.startswith("measuring trace")]) == 7
    assert lines[7][0].startswith("measuring lambda_1: 1 of at most 100 passes")
