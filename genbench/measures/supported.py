"""Refuse weights that cannot be measured: sharded, quantized or without data."""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def check_weights(model: nn.Module) -> None:
    """Refuse weights that are sharded, quantized or without data: a norm or a gradient of them is not the network's.

    Sharded: parameters of FSDP (flat, or ``DTensor``) and of DeepSpeed's third stage. Quantized: tensor subclasses with
    a layout of their own (torchao), one-byte parameters (bitsandbytes, HQQ, float8), integer tensors that are named a
    weight (GPTQ, AWQ), and modules of torch.ao that keep packed weights outside their parameters. Without data:
    parameters on the meta device, as of weights offloaded to disk.

    Raises:
        ValueError: one line, with the name of the first such weight.
    """
    reason = next(_unmeasurable(model), None)
    if reason:
        raise ValueError(f"{reason}; accepted: whole weights in floating point, in memory")


def _unmeasurable(model: nn.Module) -> Iterator[str]:
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)  # never imported here
    for name, module in model.named_modules():
        if fsdp is not None and isinstance(module, fsdp):
            yield f"the weights of {name or 'the model'!r} are sharded (FullyShardedDataParallel)"
        packed = any(isinstance(value, torch.ScriptObject) for value in vars(module).values())
        if packed and ".quantized." in type(module).__module__:
            yield f"the weights of {name.removesuffix('._packed_params')!r} are quantized (torch.ao, packed)"
    for name, p in model.named_parameters():
        if type(p).__module__.startswith("torch.distributed.") or hasattr(p, "ds_id"):
            yield f"weights {name!r} are sharded ({'DeepSpeed' if hasattr(p, 'ds_id') else type(p).__name__})"
        if p.device.type == "meta":
            yield f"weights {name!r} have no data (meta device)"
        if p.is_complex():
            yield f"weights {name!r} are complex"
        if p.dtype.itemsize == 1 and p.dtype != torch.bool:
            yield f"weights {name!r} are quantized ({_name(p)})"
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        whole = tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
        if not whole and name.endswith("weight"):
            yield f"weights {name!r} are quantized ({_name(tensor)})"
        if hasattr(tensor, "__tensor_flatten__"):
            yield f"weights {name!r} are quantized or packed ({type(tensor).__name__})"


def shared_memory_note(model: nn.Module) -> str | None:
    """The note of every estimate if two parameters share memory, as views of one tensor do; else None."""
    storages: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, p in model.named_parameters():
        if p.layout == torch.strided and p.numel():
            storages.setdefault(p.untyped_storage().data_ptr(), []).append((name, p))
    for held in storages.values():
        held.sort(key=lambda each: each[1].storage_offset())
        near: list[tuple[str, nn.Parameter]] = []
        for second, b in held:
            near = [(first, a) for first, a in near if _range(a)[1] > b.storage_offset()]
            for first, a in near:
                if _overlap(a, b):
                    return (
                        f"weights {first!r} and {second!r} have memory in common, and count as two that move apart; "
                        "one parameter that is registered in both places counts once"
                    )
            near.append((second, b))
    return None


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one storage, whose ranges overlap, have elements in common."""
    (start, end), (other, last) = _range(a), _range(b)
    first = min(start, other)
    seen = torch.zeros(max(end, last) - first, dtype=torch.bool)
    seen.as_strided(a.shape, a.stride(), start - first).fill_(True)
    return bool(seen.as_strided(b.shape, b.stride(), other - first).any())


def _range(tensor: Tensor) -> tuple[int, int]:
    """The first element of its storage that a tensor uses, and the one after the last."""
    start = int(tensor.storage_offset())
    return start, start + 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def _name(tensor: Tensor) -> str:
    kind = type(tensor).__name__
    return str(tensor.dtype).removeprefix("torch.") if kind in ("Tensor", "Parameter") else kind
