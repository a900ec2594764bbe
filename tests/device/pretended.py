"""A device in name only: it computes on the CPU, refuses what a GPU refuses, and notes where the CPU would wait for it.

Each of its tensors holds an ordinary one, so values exist and measures run to their end, branches on values included,
at which ``FakeTensorMode`` stops. A wait is what ``torch.cuda.set_sync_debug_mode`` counts: a number that is read, a
copy from or to memory of the CPU that is not ``non_blocking``, and an operation whose result has a size of its own.
"""

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from weakref import WeakValueDictionary

import torch
import torch.utils.backend_registration
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from genbench.training.stack import _UNITS, Lanewise

NAME = "pretended"
POSSIBLE = hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
_LIBRARIES = (*(str(Path(each).parent) for each in (torch.__path__[0], linecache.__file__)), "<")
_aten = torch.ops.aten
_COPY = {_aten.copy_, _aten._foreach_copy_}
_INDEX = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}
# these take a number of the CPU as they do a Python number; so do pointwise and foreach operations
_NUMBER = {_aten.fill_, _aten.fill, _aten.masked_fill, _aten.masked_fill_}
# these look at their result, as for a decomposition that has failed, beside those that torch marks
_LOOK = {
    _aten._linalg_check_errors,
    _aten._linalg_eigh,
    _aten._linalg_eigvals,
    _aten._linalg_svd,
    _aten.linalg_eig,
    _aten.linalg_lstsq,
    _aten.linalg_matrix_exp,
    _aten.multinomial,
}
_MARKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Mismatch(RuntimeError):
    """An operation got tensors of two devices."""


class Wait(NamedTuple):
    """A place at which the CPU waits for the device.

    Attributes:
        place: file and function.
        line: number and text of the line.
        operation: what waits there.
    """

    place: str
    line: str
    operation: str


class Pretended(Tensor):
    """A tensor of the device; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        tensor = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=torch.device(NAME, 0)
        )
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of a rehearsal")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self.held!r} on {NAME}"

    # -- what torch does without an operation that a dispatch mode sees

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **settings: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **settings})

    def numpy(self, **settings: Any) -> Any:
        present = next(mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, Rehearsal))
        present.refuse("a tensor of the device has no memory of the CPU; Tensor.cpu() first")

    __array__ = numpy

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        assert self.is_leaf, "only leaves of a graph are copied"
        if id(self) not in memo:
            memo[id(self)] = copy = Pretended(self.held.detach().clone()).requires_grad_(self.requires_grad)
            vars(copy).update({key: value for key, value in vars(self).items() if key != "held"})
        return memo[id(self)]

    def as_subclass(self, cls: type) -> Any:
        other = self.view_as(self)
        other.__class__ = Pretended if cls is Tensor else _also(cls)
        return other


@cache
def _also(cls: type) -> type:
    return type(cls.__name__, (cls, Pretended), {})


class Rehearsal(TorchDispatchMode):
    """Within this context the device is there.

    Attributes:
        waits: those of the CPU for the device.
        mismatches: what was said of operations with tensors of two devices, whoever has caught the error.

    Raises:
        Mismatch: an operation gets tensors of two devices.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: set[Wait] = set()
        self.mismatches: list[str] = []

    def __enter__(self) -> "Rehearsal":
        _register()
        with ExitStack() as stack:
            stack.enter_context(_installed())
            stack.enter_context(_Functions())
            # in this thread, as the CPU's: the places of a backward pass are then known
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            super().__enter__()
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.close()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper that sees to it is slow

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """func(*args, **kwargs) of the tensors that are held."""
        kwargs = kwargs or {}
        there: dict[int, Pretended] = {}
        here: list[Tensor] = []

        def held(value: Any) -> Any:
            if isinstance(value, Pretended):
                there[id(value.held)] = value
                return value.held
            if isinstance(value, Tensor):
                here.append(value)
            return type(value)(map(held, value)) if isinstance(value, list | tuple) else value

        def wrapped(value: Any) -> Any:
            if isinstance(value, Tensor):
                return there[id(value)] if id(value) in there else Pretended(value)
            return type(value)(map(wrapped, value)) if isinstance(value, list | tuple) else value

        plain = [held(value) for value in args]
        named = {key: held(value) for key, value in kwargs.items()}
        if (device := kwargs.get("device")) is not None:
            named["device"] = CPU
        away = bool(there) if device is None else device.type == NAME
        if there or away:
            self._check(func, args, kwargs, bool(there), here, away)
        result = func(*plain, **named)
        if not away:
            return result
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():  # the shape of the tensor follows that of what it holds
                func(*args, **kwargs)
        if func._schema.is_mutable:
            moved = [t for t in there.values() if (t.shape, t.stride()) != (t.held.shape, t.held.stride())]
            assert not moved, f"{func} changes a shape in place, which {NAME} does not follow"
        return wrapped(result)

    def _check(self, func: Any, args: Any, kwargs: Any, there: bool, here: list[Tensor], away: bool) -> None:
        packet = func.overloadpacket
        generator = kwargs.get("generator")
        if generator is not None and away != (generator._cdata in _GENERATORS):
            self.refuse(f"{func} draws from a generator of another device")
        if packet is _aten._to_copy:
            if away != there and not kwargs.get("non_blocking"):
                self._note(f"a copy from {'CPU to device' if away else 'device to CPU'}")
        elif packet in _COPY:
            if here and not (kwargs.get("non_blocking") or (args[2:] and args[2])):
                self._note("a copy between CPU and device")
        elif packet in _INDEX:
            indices = [index for index in args[1] if index is not None]
            values = [t for t in here if not any(t is index for index in indices)]
            if any(t.ndim for t in values) or not isinstance(args[0], Pretended):
                self.refuse(_said(func, args, kwargs))
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self._note("an index that is a mask")
            elif here:
                self._note("an index or a number of the CPU")
        elif there:
            number = packet in _NUMBER or torch.Tag.pointwise in func.tags or func.__name__.startswith("_foreach_")
            if any(t.ndim or not number for t in here):
                self.refuse(_said(func, args, kwargs))
            if packet in _LOOK or not _MARKS.isdisjoint(func.tags):
                self._note(packet.__name__)

    def _note(self, operation: str) -> None:
        self.waits.add(Wait(*_here(), operation))

    def refuse(self, what: str) -> NoReturn:
        place, line = _here()
        self.mismatches.append(f"{place}, line {line}: {what}")
        raise Mismatch(self.mismatches[-1])


def _here() -> tuple[str, str]:
    """File and function, and number and text of the line, of the innermost code that is no library's."""
    at: Any = sys._getframe()
    while at.f_back is not None and (
        at.f_code.co_filename == __file__
        or at.f_code.co_filename.startswith(_LIBRARIES)
        or at.f_code.co_name == "__torch_function__"
    ):
        at = at.f_back
    path = Path(at.f_code.co_filename)
    file = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f"{file}: {at.f_code.co_qualname}", f"{at.f_lineno} {linecache.getline(str(path), at.f_lineno).strip()}"


def _said(func: Any, args: Any, kwargs: Any) -> str:
    def described(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{list(value.shape)} on {value.device.type}"
        return f"[{', '.join(map(described, value))}]" if isinstance(value, list | tuple) else str(value)

    return f"{func} got tensors of two devices: {', '.join(map(described, [*args, *kwargs.values()]))}"


class _Functions(TorchFunctionMode):
    """Changes functions of torch that know no such tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = _FUNCTIONS.get(func)
        found = NotImplemented if own is None else own(func, *args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found


def _set_data(func: Any, to: Tensor, source: Tensor) -> Any:
    if isinstance(to, Pretended) == isinstance(source, Pretended):
        if isinstance(to, Pretended):
            to.held = source.held
        return NotImplemented
    with torch.no_grad():
        made = source.detach().requires_grad_(to.requires_grad)
        if to.grad is not None:
            made.grad = to.grad.to(source.device)
    attributes = {key: value for key, value in vars(to).items() if key != "held"}
    if isinstance(source, Pretended):
        attributes |= {"held": source.held, "_is_param": isinstance(to, nn.Parameter)}
        to.__class__ = Pretended
    else:
        to.__class__ = nn.Parameter if attributes.pop("_is_param") else Tensor
    torch._C._swap_tensor_impl(to, made)
    vars(to).clear()
    vars(to).update(attributes)
    return None


def _made(func: Any, data: Any, *, device: Any = None, **settings: Any) -> Any:
    if torch.device(device or CPU).type != NAME:
        return NotImplemented
    return func(data, **settings).to(NAME)


def _recurrent(func: Any, *args: Any) -> Any:
    if not isinstance(args[0], Pretended):
        return NotImplemented
    with Lanewise():  # for other devices than the CPU torch has kernels of whole cells
        return func(*args)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    Tensor.data.__set__: _set_data,
    torch._has_compatible_shallow_copy_type: lambda *_: True,  # a parameter stays itself when its module moves
    torch.tensor: _made,
    torch.as_tensor: _made,
    **dict.fromkeys(_UNITS, _recurrent),
}


# -- what torch asks of a backend


class _AnyGenerator(type(torch.Generator)):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _TorchGenerator)


_TorchGenerator = torch.Generator


class _Generator(_TorchGenerator, metaclass=_AnyGenerator):
    """A generator of any device, which draws on the CPU."""

    def __new__(cls, device: Any = CPU) -> Any:
        generator = super().__new__(cls, CPU)
        if torch.device(device).type == NAME:
            _GENERATORS[generator._cdata] = generator
        return generator


_GENERATORS: WeakValueDictionary[int, _Generator] = WeakValueDictionary()  # those of the device, by address


class _Backend:
    """The module of the device, which is there within a rehearsal only: other tests must not see it."""

    present = False

    def is_available(self) -> bool:
        return self.present

    is_initialized = is_available

    def device_count(self) -> int:
        return int(self.present)

    def current_device(self) -> int:
        return 0

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def manual_seed_all(self, seed: int) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False


@contextmanager
def _installed() -> Iterator[None]:
    """The device is there, and torch's lists of plain types have its tensors, as they have a GPU's."""
    from torch.fx.experimental import proxy_tensor
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    lists = [optimizer._foreach_supported_types, _foreach_utils._foreach_supported_types]
    handled = proxy_tensor.HANDLED_TYPES
    for each in lists:
        each.append(Pretended)
    proxy_tensor.HANDLED_TYPES = (*handled, Pretended)
    torch.Generator = _Generator
    _Backend.present = True
    try:
        yield
    finally:
        _Backend.present = False
        torch.Generator = _TorchGenerator
        proxy_tensor.HANDLED_TYPES = handled
        for each in lists:
            each.remove(Pretended)


def _register() -> None:
    """Tell torch of the device, once in a process."""
    from torch.utils.backend_registration import _DummyPrivateUse1Hook, _setup_privateuseone_for_python_backend

    class Hook(_DummyPrivateUse1Hook):
        def is_available(self) -> bool:
            return _Backend.present

    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME, _Backend(), Hook())
