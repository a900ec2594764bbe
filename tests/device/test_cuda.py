"""On a GPU: every method, model and optimizer trains, packed as alone, and no step waits for the CPU."""

import traceback
import warnings
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from genbench.measures import Snapshot, hessian_eigenvalues, hessian_trace
from genbench.runs import execute
from tests.device.cases import CASES, overrides
from tests.helpers.choices import SEPARATE, needs
from tests.helpers.equality import apart
from tests.helpers.packs import LANES, separately, together

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

TRACED = 3  # steps after which a pack has traced its step, and optimizers have their states
STEPS = 8


class Waits:
    """The lines of genbench at which a step waited for the GPU."""

    def __init__(self):
        self.found = set()

    @contextmanager
    def around(self, step):
        if step < TRACED:
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._note
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def _note(self, message, *args, **kwargs):
        if "called a synchronizing CUDA operation" in str(message):
            own = [frame for frame in traceback.extract_stack() if "/genbench/" in frame.filename]
            self.found.add(f"{own[-1].filename}:{own[-1].lineno} {own[-1].line}" if own else str(message))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_trains_alone_and_packed_without_a_wait(configure, case):
    configs, waits = configure(*overrides(*case), each=LANES), Waits()
    settings = {"device": "cuda", "around": waits.around}
    alone = [lane for config in configs for lane in separately(config, torch.float64, STEPS, **settings)]
    if case[2] not in SEPARATE:
        assert max(map(apart, together(configs, torch.float64, STEPS, **settings), alone)) < 1e-9
    assert waits.found == set()


def test_a_run_and_its_measures_are_those_of_the_cpu(configure):
    found = {}
    for device in ("cpu", "gpu"):
        plain = configure("trainer.max_steps=27", f"trainer.accelerator={device}", "optimizer=momentum", "logger={}")
        found[device] = execute.run(plain)
        assert found[device]["status"] == "completed", found[device]["error"]
    for name, value in found["cpu"]["metrics"].items():
        if name.startswith("seconds."):
            continue
        assert found["gpu"]["metrics"][name] == pytest.approx(value, rel=0.02, abs=0.02), name


@pytest.mark.parametrize("model", ["mlp", "cnn", "gru"])
def test_curvature_is_that_of_the_cpu(configure, model):
    config = configure(f"model={model}", *needs(model, "none"))
    (lane,) = separately(config, torch.float32, STEPS)
    net, x = lane.network.eval(), torch.randn(64, 1, 40, generator=torch.Generator().manual_seed(0))
    y = torch.arange(64) % 10
    here = Snapshot(net, F.cross_entropy, [(x, y)])
    values = {name: each.value for name, each in hessian_eigenvalues(here, k=3).items()}
    trace = hessian_trace(here)
    there = Snapshot(net.cuda(), F.cross_entropy, [(x, y)])
    assert {k: v.value for k, v in hessian_eigenvalues(there, k=3).items()} == pytest.approx(values, rel=1e-3)
    other = hessian_trace(there)
    assert other.value == pytest.approx(trace.value, abs=4 * (trace.stderr + other.stderr))
