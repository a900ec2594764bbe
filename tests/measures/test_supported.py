"""Weights of which there is a part, a packed form, or nothing are refused in one line; ordinary ones pass."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from genbench.measures.supported import check_weights
from tests.helpers.networks import NETS, build


class Packed(torch.Tensor):
    """A floating-point tensor on the outside, integers within, as torchao's are."""

    def __tensor_flatten__(self):
        return [], None


class Params4bit(nn.Parameter):
    """bitsandbytes' parameter: two weights a byte."""


class Holder(nn.Module):
    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.base = nn.Module()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.base.register_parameter(name, tensor)
            else:
                self.base.register_buffer(name, tensor)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def refusal(model: nn.Module) -> str:
    with pytest.raises(ValueError, match=r"in floating point, in memory$") as error:
        check_weights(model)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NETS)
def test_ordinary_networks_pass(name: str) -> None:
    check_weights(build(name)[0])


def test_integers_that_are_no_weights_pass() -> None:
    mask = torch.ones(4, 4, dtype=torch.uint8).tril()
    positions = nn.Parameter(torch.arange(4), requires_grad=False)
    check_weights(Holder(mask=mask, index=torch.arange(4), positions=positions, gate=torch.ones(2, dtype=torch.bool)))
    check_weights(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 0)))
    check_weights(torch.ao.nn.quantized.FloatFunctional())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": Params4bit(torch.zeros(6, 1, dtype=torch.uint8), requires_grad=False)}, "quantized (Params4bit)"),
        ({"W_q": nn.Parameter(torch.zeros(6, 1, dtype=torch.uint8), requires_grad=False)}, "quantized (uint8)"),
        ({"weight": nn.Parameter(torch.zeros(3, 2).to(torch.float8_e4m3fn), False)}, "quantized (float8_e4m3fn)"),
        ({"qweight": torch.zeros(4, 4, dtype=torch.int32)}, "quantized (int32)"),
        ({"weight": torch.zeros(4, 4).as_subclass(Packed)}, "quantized or packed (Packed)"),
        ({"weight": nn.Parameter(torch.zeros(2, 2, device="meta"))}, "have no data (meta device)"),
    ],
)
def test_quantized_and_absent_weights_are_refused(tensors: dict, said: str) -> None:
    (name,) = tensors
    message = refusal(Holder(**tensors))
    assert f"weights 'base.{name}'" in message
    assert said in message


def test_packed_modules_are_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(net, {"2": torch.ao.quantization.default_dynamic_qconfig})
    assert quantized[0].weight.requires_grad  # else it would be refused as a network without parameters
    assert "the weights of '2' are quantized (torch.ao, packed)" in refusal(quantized)


def test_dtensors_are_refused(alone: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    net = nn.Linear(6, 4)
    net.weight = nn.Parameter(distribute_tensor(net.weight.detach(), init_device_mesh("cpu", (1,)), [Shard(0)]))
    assert "weights 'weight' are sharded (DTensor)" in refusal(net)


def test_flat_parameters_are_refused(alone: None) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    net = nn.Sequential(nn.Linear(6, 4), FullyShardedDataParallel(nn.Linear(4, 2), device_id=torch.device("cpu")))
    assert "the weights of '1' are sharded (FullyShardedDataParallel)" in refusal(net)


def test_placeholders_of_deepspeed_are_refused() -> None:
    net = nn.Linear(3, 2)
    net.weight.data = torch.empty(0)
    net.weight.ds_id = 0
    assert "weights 'weight' are sharded (DeepSpeed)" in refusal(net)
