"""Replace a network's tensors or modes for a while, and put its own back."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn


class ModuleTensors:
    """The parameters and buffers of a network, each once by its first name, and every attribute that holds it.

    A module that is registered twice and a tied weight are one tensor with several names. There are two ways to
    compute with other values:

    - :meth:`replace_data` gives the live tensors other data. They stay the leaves of autograd, so that everything that
      refers to them (a loss with a penalty, a hook, a parametrization, checkpointing, an optimizer) sees the values,
      forward and backward, while the context is open.
    - :meth:`replace_tensors` puts other tensors into the modules, as ``torch.vmap`` needs: its tensors have no data to
      give. Code that keeps a reference to a live tensor does not see them.

    Args:
        module: any network.

    Attributes:
        parameters: name -> live parameter.
        buffers: name -> live buffer.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.restored = False  # set by a caller that has put everything back itself
        self._modules = list(module.modules())
        self.parameters: dict[str, Tensor] = dict(module.named_parameters())
        self.buffers: dict[str, Tensor] = dict(module.named_buffers())
        self.tensors = self.parameters | self.buffers
        names = {id(tensor): name for name, tensor in self.tensors.items()}
        self._holders: dict[str, list[tuple[dict[str, Any], str]]] = {name: [] for name in self.tensors}
        for owner in self._modules:
            if isinstance(owner, torch.jit.ScriptModule):  # its tensors are out of Python's reach
                continue
            for held in (owner._parameters, owner._buffers):
                for key, tensor in held.items():
                    if tensor is not None:
                        self._holders[names[id(tensor)]].append((held, key))

    @contextmanager
    def replace_data(self, values: Mapping[str, Tensor], *, leaves: Collection[str]) -> Iterator[None]:
        """Give the live tensors these values within the context; only those in ``leaves`` are differentiable.

        Nothing is copied: a live tensor takes the storage of its value, and then its old storage back, as a view if it
        was one.
        """
        before: list[tuple[Tensor, Tensor, bool]] = []
        try:
            for name, value in values.items():
                live = self.tensors[name]
                before.append((live, live.data, live.requires_grad))
                live.data = value
                if live.requires_grad != (name in leaves):
                    live.requires_grad_(name in leaves)
            yield
        finally:
            if not self.restored:
                restore_fully(lambda: _give_back(before))

    @contextmanager
    def replace_tensors(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Put these tensors into the modules in place of their own within the context."""
        kept: list[tuple[dict[str, Any], str, Any]] = []
        attributes = attributes_of(self._modules)
        for m in self._modules:
            if isinstance(m, nn.RNNBase):  # on a GPU it would read where they lie, and under vmap they lie nowhere
                vars(m)["flatten_parameters"] = _nothing
        try:
            for name, tensor in tensors.items():
                if not self._holders[name]:
                    raise ValueError(f"tensor {name!r} lies in a compiled script, where no other can be put")
                for held, key in self._holders[name]:
                    kept.append((held, key, held[key]))
                    held[key] = tensor
            yield
        finally:

            def put_back() -> None:
                for held, key, tensor in reversed(kept):
                    held[key] = tensor
                restore_attributes(attributes)

            if not self.restored:
                restore_fully(put_back)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode within the context, then the mode that each module had. ``eval`` and ``train`` are not
    called: an override may keep some modules in another mode, return nothing or raise."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the network inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module) and isinstance(
            module, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def renamed(state: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """Return a state under the module's own names. Either may be wrapped, whole or in part, by torch.compile,
    DataParallel or DistributedDataParallel."""
    own = {name.replace("_orig_mod.", ""): name for name in module.state_dict(keep_vars=True)}
    found = {name: name.replace("_orig_mod.", "") for name in state}
    return {own.get(name, own.get(name.removeprefix("module."), old)): state[old] for old, name in found.items()}


def attributes_of(modules: list[nn.Module]) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Copy the plain attributes of modules. They hold tensors too: the old ``weight_norm`` its last weight, a recurrent
    layer the list of its last weights, other modules a state or a cache."""
    return [(m, vars(m).copy()) for m in _python(modules)]


def restore_attributes(attributes: list[tuple[nn.Module, dict[str, Any]]]) -> None:
    """Put back what :func:`attributes_of` has copied."""
    for m, before in attributes:
        own = vars(m)
        if not same_entries(own, before):
            for key in own.keys() - before.keys():
                del own[key]
            own.update(before)


def same_entries(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    """Whether two dicts have equal keys in the same order and the same objects."""
    return len(a) == len(b) and all(map(is_, a.values(), b.values())) and list(a) == list(b)


def _python(modules: list[nn.Module]) -> list[nn.Module]:
    return [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]


def restore_fully(restore: Any) -> None:
    """Call ``restore``, and once more if a signal interrupted it."""
    try:
        restore()
    except BaseException:
        restore()
        raise


def _nothing() -> None:
    pass


def _give_back(before: list[tuple[Tensor, Tensor, bool]]) -> None:
    for live, data, requires_grad in reversed(before):
        live.data = data
        if live.requires_grad != requires_grad:
            live.requires_grad_(requires_grad)
