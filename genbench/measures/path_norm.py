"""The path norm of any network that sums over paths."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import resolve_name
from torch.utils._pytree import tree_leaves, tree_map

from genbench.measures.base import measure
from genbench.measures.norms import positive_margin
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("norm", names=("path_norm", "path_norm_over_margin"))
def path_norm(snapshot: Snapshot) -> dict[str, Estimate]:
    """``path_norm``, Σ over outputs of f_{w²}(1): the network with all its weights squared, frozen ones too, run on one
    input of ones (Jiang et al. 2020, arXiv 1912.02178, eq. 44); and ``path_norm_over_margin``, that over γ², γ the 10th
    percentile of the margins of these data (eq. 43), ``None`` if γ is not positive.

    In a ReLU network it is the sum, over all paths from an input or a bias to an output, of the product of the squared
    weights on the path. No root is taken: the path norm of Neyshabur et al. 2015 (arXiv 1503.00036, 1506.02617) is its
    square root. Neither permuting units nor rescaling a unit's inputs by c > 0 and its outputs by 1/c changes it.

    - A batch norm is its affine map in evaluation mode, x · s + t. Adjacent such maps and biases are one map, whose
      factor and shift are squared: a network with batch norms has the path norm of the network in which they are folded
      into the layers before.
    - Fixed factors and constants count as weights and are squared.
    - ReLU, leaky ReLU, sums, concatenation and reshaping pass paths on. Average and maximum pooling do to the squares
      what they do in f, as in the code of Dziugaite et al.; by the sum over paths an average of n would
      count 1/n² a path and not 1/n, a maximum every path (Gonon et al. 2024, arXiv 2310.01225).

    ``None``, with the name of the operation, for networks that do anything else: other activations, products of
    activations, attention, recurrent layers, layer or group normalization; and where the input is not real numbers.
    """
    value = _path_norm(snapshot)
    if isinstance(value, str):
        return {key: Estimate(None, note=value) for key in ("path_norm", "path_norm_over_margin")}
    margin = positive_margin(snapshot)
    over = Estimate(None, note=margin) if isinstance(margin, str) else Estimate(value / margin**2)
    return {"path_norm": Estimate(value), "path_norm_over_margin": over}


def _path_norm(snapshot: Snapshot) -> float | str:
    if any(isinstance(module, torch.jit.ScriptModule) for module in snapshot.model.modules()):
        return "undefined: a compiled script cannot be followed"
    given = snapshot.first_input
    if not any(_is_real(leaf) for leaf in tree_leaves(given)):
        return "undefined: the input is not real numbers"
    args, kwargs = tree_map(lambda leaf: _ones(leaf) if _is_real(leaf) else leaf, given)
    state = {name: t.double() if t.is_floating_point() else t for name, t in snapshot.state.items()}
    try:
        with torch.no_grad(), snapshot.holding(state):
            output = snapshot.model(*args, **kwargs)
            leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            ends = [leaf for leaf in leaves if isinstance(leaf, Paths)]
            if not ends or len(ends) < len(leaves):
                return "undefined: an output does not depend on the input"
            with torch._C.DisableTorchFunctionSubclass():
                return sum(float(end.total.sum()) for end in ends)
    except _Undefined as operation:
        return f"undefined: the network is no sum over paths, it applies {operation}"
    except (RuntimeError, TypeError) as error:
        return f"undefined: its paths cannot be followed, {str(error).partition(chr(10))[0]}"


class _Undefined(Exception):
    """Names what squared paths do not pass."""


class Paths(Tensor):
    """Activations as squared paths see them: the entries are the sums over the paths that end in each unit, ``shift``
    what was added since the last operation that is not affine unit by unit, not yet squared.

    Every function of torch that meets one asks :meth:`__torch_function__`, which knows what paths do there.
    """

    shift: Tensor

    @staticmethod
    def of(sums: Tensor, shift: Tensor | None = None) -> "Paths":
        """Both of one shape; float64."""
        paths = sums.as_subclass(Paths)
        paths.shift = torch.zeros_like(sums) if shift is None else shift
        return paths

    @property
    def sums(self) -> Tensor:
        return self.as_subclass(Tensor)

    @property
    def total(self) -> Tensor:
        return self.sums + self.shift.square()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = resolve_name(func) or func.__name__
        name = name.removesuffix(".__get__").rpartition(".")[2]
        rule = _RULES.get(name)
        if rule is None:
            raise _Undefined(name.strip("_"))
        with torch._C.DisableTorchFunctionSubclass():
            return rule(func, *args, **(kwargs or {}))


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _ones(leaf: Tensor) -> Paths:
    return Paths.of(torch.ones_like(leaf, dtype=torch.float64))


def _weight(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) else value


# -- what paths do, by operation: rule(function of torch, its arguments)

Rule = Callable[..., Any]


def _described(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Shapes and types, and constants of that shape."""
    return func(*tree_map(lambda a: a.sums if isinstance(a, Paths) else a, args), **kwargs)


def _kept(_func: Any, x: Paths, *_args: Any, **_kwargs: Any) -> Paths:
    return x


def _rearranged(func: Any, *args: Any, **kwargs: Any) -> Any:
    sums = func(*tree_map(lambda a: a.sums if isinstance(a, Paths) else a, args), **kwargs)
    shifts = func(*tree_map(lambda a: a.shift if isinstance(a, Paths) else a, args), **kwargs)
    if isinstance(sums, Tensor):
        return Paths.of(sums, shifts)
    return tuple(Paths.of(*pair) for pair in zip(sums, shifts, strict=True))


def _joined(func: Any, tensors: Any, *args: Any, **kwargs: Any) -> Paths:
    sums = [t.sums if isinstance(t, Paths) else torch.zeros_like(t, dtype=torch.float64) for t in tensors]
    shifts = [t.shift if isinstance(t, Paths) else t.double() for t in tensors]
    return Paths.of(func(sums, *args, **kwargs), func(shifts, *args, **kwargs))


def _padded(func: Any, input: Paths, pad: Any, mode: str = "constant", value: float | None = None) -> Paths:
    if mode == "constant" and value:
        raise _Undefined("pad with a value that is not 0")
    return _rearranged(func, input, pad, mode)


def _dropout(_func: Any, input: Paths, p: float = 0.5, training: bool = True, inplace: bool = False) -> Paths:
    if training:
        raise _Undefined("dropout in training mode")
    return input


def _activation(_func: Any, input: Paths, *args: Any, inplace: bool = False, **_kwargs: Any) -> Paths:
    """ReLU and its like, on sums that are not negative."""
    result = Paths.of(input.total)
    in_place = inplace or any(a is True for a in args)
    return _written(input, result) if in_place else result


def _pooled(func: Any, input: Paths, *args: Any, **kwargs: Any) -> Paths:
    result = func(input.total, *args, **kwargs)
    if not isinstance(result, Tensor):
        raise _Undefined(f"{func.__name__} with the indices of the maxima")
    return Paths.of(result)


def _linear(func: Any, input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Paths:
    if not isinstance(input, Paths) or isinstance(weight, Paths) or isinstance(bias, Paths):
        raise _Undefined("a product of activations")
    weight, total = weight.double(), input.total
    sums = func(total, weight.square(), None, *args, **kwargs)
    if bias is None:
        return Paths.of(sums)
    return Paths.of(sums, func(torch.zeros_like(total), weight, bias.double(), *args, **kwargs))


def _multilinear(func: Any, *args: Any, **kwargs: Any) -> Paths:
    operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Paths)]
    if len(operands) > 1:
        raise _Undefined("a product of activations")

    def squared(leaf: Any) -> Any:
        if isinstance(leaf, Paths):
            return leaf.total
        return leaf.double().square() if isinstance(leaf, Tensor) else leaf

    return Paths.of(func(*tree_map(squared, args), **tree_map(squared, kwargs)))


def _batch_norm(
    func: Any,
    input: Paths,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Paths:
    if training or any(isinstance(t, Paths) for t in (running_mean, running_var, weight, bias)):
        raise _Undefined("batch_norm with the statistics of the batch")
    mean, var, weight, bias = (_weight(t) for t in (running_mean, running_var, weight, bias))
    scale = func(torch.ones_like(input.shift), torch.zeros_like(mean), var, weight, None, False, momentum, eps)
    return Paths.of(input.sums * scale.square(), func(input.shift, mean, var, weight, bias, False, momentum, eps))


def _scaled(x: Paths, factor: Any) -> Paths:
    factor = _weight(factor)
    return Paths.of(x.sums * factor**2, x.shift * factor)


def _times(_func: Any, a: Any, b: Any) -> Paths:
    if isinstance(a, Paths) and isinstance(b, Paths):
        raise _Undefined("a product of activations")
    return _scaled(a, b) if isinstance(a, Paths) else _scaled(b, a)


def _over(_func: Any, a: Any, b: Any) -> Paths:
    if isinstance(b, Paths):
        return _over_paths(_func)
    return _scaled(a, 1 / _weight(b))


def _over_paths(_func: Any, *_args: Any, **_kwargs: Any) -> Paths:
    raise _Undefined("a quotient by activations")


def _negative(_func: Any, a: Paths) -> Paths:
    return _scaled(a, -1)


def _combined(a: Any, b: Any, of_a: float, of_b: float) -> Paths:
    """of_a · a + of_b · b"""
    if isinstance(a, Paths) and isinstance(b, Paths):
        return Paths.of(of_a**2 * a.total + of_b**2 * b.total)
    x, factor, constant = (a, of_a, of_b * _weight(b)) if isinstance(a, Paths) else (b, of_b, of_a * _weight(a))
    shift = factor * x.shift + constant
    return Paths.of((factor**2 * x.sums).expand_as(shift).clone(), shift)


def _plus(_func: Any, a: Any, b: Any, *, alpha: float = 1) -> Paths:
    return _combined(a, b, 1, alpha)


def _minus(_func: Any, a: Any, b: Any, *, alpha: float = 1) -> Paths:
    return _combined(a, b, 1, -alpha)


def _minus_from(_func: Any, a: Any, b: Any, *, alpha: float = 1) -> Paths:
    return _combined(a, b, -alpha, 1)


def _written(target: Any, result: Paths) -> Paths:
    """In place, for those too who hold a view of the target."""
    if not isinstance(target, Paths):
        raise _Undefined("an operation that writes activations into another tensor")
    target.sums.copy_(result.sums)
    target.shift.copy_(result.shift)
    return target


def _in_place(rule: Rule) -> Rule:
    return lambda func, target, *args, **kwargs: _written(target, rule(func, target, *args, **kwargs))


_ARITHMETIC: dict[str, Rule] = {
    "add": _plus,
    "div": _over,
    "mul": _times,
    "neg": _negative,
    "relu": _activation,
    "leaky_relu": _activation,
    "sub": _minus,
}
_BY_RULE: dict[Rule, str] = {
    _described: "__len__ device dim dtype element_size is_complex is_contiguous is_cpu is_cuda is_floating_point "
    "is_meta is_nested is_sparse layout ndim ndimension nelement new_ones new_zeros numel ones_like shape size "
    "stride zeros_like",
    _kept: "bfloat16 cpu cuda double float half to type type_as",
    _rearranged: "H T __getitem__ chunk clone contiguous detach expand expand_as flatten flip index_select mT movedim "
    "moveaxis narrow permute pixel_shuffle pixel_unshuffle ravel repeat reshape reshape_as roll select split "
    "squeeze swapaxes swapdims t tensor_split tile transpose unbind unflatten unfold unsqueeze view view_as",
    _joined: "cat concat concatenate hstack stack vstack",
    _padded: "pad",
    _dropout: "alpha_dropout dropout dropout1d dropout2d dropout3d feature_alpha_dropout",
    _activation: "prelu",
    _pooled: "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d amax avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d mean sum",
    _linear: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear",
    _multilinear: "bmm einsum matmul __matmul__ __rmatmul__ mm mv tensordot",
    _batch_norm: "batch_norm",
    _minus_from: "__rsub__ rsub",
    _times: "__rmul__ multiply",
    _over: "divide true_divide",
    _over_paths: "__rdiv__ __rtruediv__ reciprocal",
}
_RULES: dict[str, Rule] = {name: rule for rule, names in _BY_RULE.items() for name in names.split()}
_RULES |= _ARITHMETIC | {f"{name}_": _in_place(rule) for name, rule in _ARITHMETIC.items()}
