"""Free memory, within the limits of a container, and the lanes that fit in it."""

import psutil
import pytest
import torch

from genbench.process import memory
from genbench.runs import packing

CPU = torch.device("cpu")


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A container that has read a file of 500 bytes and has room for 1000 more than it uses without it."""
    for name, text in (("max", "4000"), ("current", "3500"), ("stat", "anon 3000\ninactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    return tmp_path


def test_a_container_has_the_room_of_its_limit(container):
    assert memory.room(CPU) == 1000
    (container / "memory.current").write_text("5000")
    assert memory.room(CPU) == 0


@pytest.mark.parametrize("limit", ["max", None])
def test_without_a_limit_the_room_is_that_of_the_system(container, limit):
    (container / "memory.max").write_text(limit) if limit else (container / "memory.max").unlink()
    assert memory.room(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="lanes then lie in the GPU's memory")
def test_lanes_that_fit_are_those_of_the_container(configure, container):
    plain = configure("data.train_size=200", "data.batch_size=20")
    assert packing.lanes_that_fit(plain, processes=1) == 1
    (container / "memory.max").write_text(str(2**62))
    assert packing.lanes_that_fit(plain, processes=1) == packing.MOST_LANES_ON_CPU
