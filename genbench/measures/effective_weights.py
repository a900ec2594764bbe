"""Effective weights: the tensors that layers multiply by, whatever parameters they are computed from.

In most layers they are the parameters. A parametrization of ``torch.nn.utils.parametrize`` (weight norm, spectral
norm, orthogonal, one's own) and the older hooks of ``torch.nn.utils`` (``weight_norm``, ``spectral_norm``, ``prune``)
compute a layer's ``weight`` from others, which are no weights of the function: multiplying the v of g v/‖v‖ by ten
changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain, permutations
from types import SimpleNamespace
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from genbench.measures.frozen_network import FrozenNetwork
from genbench.records.estimate import Estimate

N = TypeVar("N", bound=FrozenNetwork)
P = ParamSpec("P")
Norms = dict[str, Estimate]
Values = Mapping[str, Tensor]  # by the names of a state dict


@dataclass(frozen=True)
class EffectiveWeight:
    """A tensor that a module multiplies by, ``<module>.<attribute>``, and the state entries it is computed from."""

    name: str
    module: nn.Module
    sources: tuple[str, ...]
    compute: Callable[[tuple[Tensor, ...]], Tensor]

    @property
    def computed(self) -> bool:
        """Whether it is computed, and not a parameter itself."""
        return self.sources != (self.name,)

    def of(self, values: Values) -> Tensor:
        """The tensor at these parameters and buffers."""
        return self.compute(tuple(values[name] for name in self.sources))


def effective_weights(model: nn.Module) -> Iterator[EffectiveWeight]:
    """The effective weights of each module, in the order of the modules; shared tensors once for each module."""
    first: dict[int, str] = {}
    for name, tensor in chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    ):
        first.setdefault(id(tensor), name)
    inner = {id(part) for m in model.modules() if isinstance(m, ParametrizationList) for part in m.modules()}
    paths = {id(module): path for path, module in model.named_modules()}
    for _, module in model.named_modules(remove_duplicate=False):
        if id(module) in inner:
            continue
        prefix, used = f"{paths[id(module)]}.".removeprefix("."), set()
        for name, (tensors, compute) in _computed(module).items():
            used |= {id(tensor) for tensor in tensors}
            yield EffectiveWeight(f"{prefix}{name}", module, tuple(first[id(tensor)] for tensor in tensors), compute)
        for p in module._parameters.values():
            if p is not None and id(p) not in used:
                yield EffectiveWeight(first[id(p)], module, (first[id(p)],), _itself)


def weights(network: FrozenNetwork) -> dict[str, Tensor]:
    """The effective weights that depend on a trainable parameter, by name, shared ones once."""
    return network.shared("acting weights", lambda: _weights(network, network.state))


def initial_weights(network: FrozenNetwork) -> dict[str, Tensor] | str:
    """:func:`weights` at the initial state, on the network's device, or why there are none."""
    if network.initial is None:
        return "no initial weights given"
    own, stored = network.state, network.model.state_dict().keys()
    initial = {name: tensor for name, tensor in own.items() if name not in stored}  # buffers that no state dict holds
    initial |= {name: t.to(network.device) for name, t in network.initial.items() if isinstance(t, Tensor)}
    for each in _trainable(network):
        if each.computed and each.name in initial:
            continue  # the start of the same network without the parametrization
        for name in each.sources:
            if name not in initial or initial[name].shape != own[name].shape:
                return f"initial weights have no {name!r} of shape {tuple(own[name].shape)}"
    found = _weights(network, initial)
    for name, weight in weights(network).items():
        if found[name].shape != weight.shape:
            return f"initial weights have no {name!r} of shape {tuple(weight.shape)}"
    return found


def layers(network: FrozenNetwork) -> dict[str, nn.Module]:
    """The modules with an effective weight of two or more dimensions of their own, by name, in the model's order."""
    return network.shared("layers", lambda: _layers(network))


def noting_low_rank(norms: Callable[Concatenate[N, P], Norms]) -> Callable[Concatenate[N, P], Norms]:
    """Add :func:`low_rank_note` to the notes of norms."""

    @wraps(norms)
    def noted(snapshot: N, /, *args: P.args, **settings: P.kwargs) -> Norms:
        found, note = norms(snapshot, *args, **settings), low_rank_note(snapshot)
        if note is None:
            return found
        return {
            key: replace(e, note="; ".join(filter(None, (e.note, note)))) if e.value is not None else e
            for key, e in found.items()
        }

    return noted


def low_rank_note(network: FrozenNetwork) -> str | None:
    """The note on norms if trainable matrices are low-rank factors of a change of frozen ones (LoRA, Hu et al. 2022,
    arXiv 2106.09685): matrices named so, or A and B next to a frozen W of the shape of their product."""
    return network.shared("low rank", lambda: _low_rank_note(network))


def _low_rank_note(network: FrozenNetwork) -> str | None:
    acts = [name for name, w in weights(network).items() if w.ndim >= 2 and name in network.parameters]
    found = {name: None for name in acts if "lora" in name.lower()}
    for path, module in network.model.named_modules():
        named = "lora" in type(module).__name__.lower()
        near = dict(module.named_parameters(prefix=path, recurse=False))
        for name, child in module.named_children():
            near |= child.named_parameters(prefix=f"{path}.{name}" if path else name, recurse=False)
        own = [name for name in near if named or name.rpartition(".")[0] == path]
        trained = [name for name in own if near[name].ndim == 2 and name in acts]
        frozen = [p.shape for name, p in near.items() if p.ndim == 2 and name not in network.parameters]
        for a, b in permutations(trained, 2):
            for rows, columns in frozen:
                rank = next((r for r in near[a].shape if r in near[b].shape and r < min(rows, columns)), 0)
                if rank and {*near[a].shape} == {rank, columns} and {*near[b].shape} == {rank, rows}:
                    found |= dict.fromkeys((a, b))
    if not found:
        return None
    return f"of low-rank factors ({', '.join(list(found)[:2])}, …) of a change of frozen weights, not of what acts"


def _layers(network: FrozenNetwork) -> dict[str, nn.Module]:
    state = network.state
    with network.measuring(), torch.no_grad():
        owners = {id(each.module) for each in effective_weights(network.model) if each.of(state).ndim >= 2}
    return {name: module for name, module in network.model.named_modules() if id(module) in owners}


def _trainable(network: FrozenNetwork) -> list[EffectiveWeight]:
    def find() -> list[EffectiveWeight]:
        found: dict[str, EffectiveWeight] = {}
        for each in effective_weights(network.model):
            if any(name in network.parameters for name in each.sources):
                found.setdefault(each.name, each)
        return list(found.values())

    return network.shared("trainable weights", find)


def _weights(network: FrozenNetwork, values: Values) -> dict[str, Tensor]:
    with network.measuring(), torch.no_grad():
        return {
            each.name: values[each.name] if each.computed and each.name in values else each.of(values)
            for each in _trainable(network)
        }


def _itself(tensors: tuple[Tensor, ...]) -> Tensor:
    return tensors[0]


def _computed(module: nn.Module) -> dict[str, tuple[list[Tensor], Callable[[tuple[Tensor, ...]], Tensor]]]:
    """The attributes that a module computes at every pass: name -> (tensors it is computed from, function of them)."""
    found: dict[str, tuple[list[Tensor], Callable[[tuple[Tensor, ...]], Tensor]]] = {}
    lists = getattr(module, "parametrizations", None)
    if isinstance(lists, nn.ModuleDict):
        for name, each in lists.items():
            if isinstance(each, ParametrizationList):
                state = dict(chain(each.named_parameters(), each.named_buffers()))
                found[name] = list(state.values()), _of_list(each, tuple(state))
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod):
            name = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
            own = chain(module._parameters.items(), module._buffers.items())
            state = {key: t for key, t in own if t is not None and key.startswith(f"{name}_")}
            found[name] = list(state.values()), _of_hook(hook, tuple(state))
    return found


def _of_list(parametrizations: ParametrizationList, names: tuple[str, ...]) -> Callable[[tuple[Tensor, ...]], Tensor]:
    def compute(tensors: tuple[Tensor, ...]) -> Tensor:
        return torch.func.functional_call(parametrizations, dict(zip(names, tensors, strict=True)), ())

    return compute


def _of_hook(hook: Any, names: tuple[str, ...]) -> Callable[[tuple[Tensor, ...]], Tensor]:
    def compute(tensors: tuple[Tensor, ...]) -> Tensor:
        module: Any = SimpleNamespace(**dict(zip(names, tensors, strict=True)))  # hooks read its attributes
        if isinstance(hook, BasePruningMethod):
            return hook.apply_mask(module)
        if isinstance(hook, SpectralNorm):
            return hook.compute_weight(module, do_power_iteration=False)
        return hook.compute_weight(module)

    return compute
