"""A traced training step, with operations replaced by faster ones that do the same."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.utils._pytree import tree_leaves, tree_unflatten

from genbench.process import blas

_aten = torch.ops.aten
_FEW = 64  # classes: over so many in the last dimension, torch's softmax is up to twenty times slower than over rows


def shortened(program: GraphModule) -> GraphModule:
    """Remove operations that return their input unchanged: vmap and autograd leave many, two operations in five."""
    same_shape = (_aten.view.default, _aten.expand.default)
    for node in program.graph.nodes:
        given = node.args[0] if node.args else None
        if node.op != "call_function" or not isinstance(given, Node):
            continue
        if (
            node.target is _aten.detach.default
            or (node.target in same_shape and node.meta["val"].shape == given.meta["val"].shape)
            or (node.target is _aten.permute.default and node.args[1] == [*range(given.meta["val"].ndim)])
        ):
            node.replace_all_uses_with(given)
            program.graph.erase_node(node)
    program.recompile()
    return program


def compiled(program: GraphModule, fixed: Sequence[Tensor]) -> Callable[..., Any]:
    """Return function(*args), which calls a program whose first arguments are ``fixed``: their views, and numbers as
    tensors, are made once."""
    graph = program.graph
    result: Any = program._out_spec
    given = [node for node in graph.nodes if node.op == "placeholder"]
    values: dict[Node, Any] = dict(zip(given, fixed, strict=False))
    behind = given[len(fixed) - 1].next if fixed else given[0]
    for node in list(graph.nodes):
        is_view = node.target in _VIEWS and node.args[0] in values
        is_number = node.target is _aten.scalar_tensor.default and not any(map(_is_shared, node.users))
        if is_view or is_number:
            first, *more = node.args
            value = node.target(values.get(first, first), *more, **node.kwargs)
            with graph.inserting_before(behind):
                new = graph.placeholder(node.name)
            new.meta = node.meta
            values[new] = value
            node.replace_all_uses_with(new)
            graph.erase_node(node)
    graph.set_codegen(CodeGen())
    program.recompile()
    forward, constants = program.forward, list(values.values())

    @torch.no_grad()
    @np.errstate(all="ignore")  # a lane that diverges says so itself
    def call(*args: Any) -> Any:
        return tree_unflatten(forward(*constants, *tree_leaves(args)), result)

    return call


def _is_shared(node: Node) -> bool:
    """Whether an operation may change an argument, or return a view of one, which another may change."""
    return not hasattr(node.target, "_schema") or any(a.alias_info for a in node.target._schema.arguments)


def quickened(program: GraphModule) -> GraphModule:
    """Replace operations on the CPU: softmax over few classes by softmax over rows, matrix products by NumPy's where
    these are faster, and an operation on a result that nothing else reads by that in place."""
    by_numpy = blas.serves_packs() and torch.get_num_threads() == 1
    own: set[Node] = set()  # results in memory that no other result lies in
    for node in program.graph.nodes:
        if node.op != "call_function" or node.kwargs or not _is_real_on_cpu(node.meta.get("val")):
            continue
        given = node.args[0]
        takes = given in own and len(given.users) == 1
        if node.target in _SOFTMAX:
            node.target = _SOFTMAX[node.target]
            own.add(node)
        elif node.target in _PRODUCTS:
            if by_numpy and all(map(_is_in_lines, node.args[-2:])):
                node.target = _PRODUCTS[node.target]
            own.add(node)
        elif node.target is _aten.relu.default:
            if takes and _alike(node, given):
                node.target = _aten.relu_.default
            own.add(node)
        elif node.target is _aten.threshold_backward.default:
            if _alike(node, node.args[1]):
                if not _alike(node, given):
                    node.target = _threshold_backward
                elif takes:
                    node.target = _threshold_backward_
            own.add(node)
        elif node.target in _VIEWS and takes:
            own.add(node)
    program.recompile()
    return program


def _alike(node: Node, other: Node) -> bool:
    """Whether two results lie in memory in the same order: operations after them may count on it."""
    return bool(node.meta["val"].stride() == other.meta["val"].stride())


def _is_real_on_cpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.dtype in (torch.float32, torch.float64)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """torch.bmm."""
    out = a.new_empty(len(a), a.shape[1], b.shape[2])
    np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    return out


def _product_and_bias(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """torch.baddbmm."""
    return _product(a, b).add_(bias)


def _is_in_lines(node: Node) -> bool:
    """Whether the matrices [..., n, m] have contiguous rows or columns: NumPy multiplies others number by number."""
    value = node.meta["val"]
    *_, row, column = value.stride()
    n, m = value.shape[-2:]
    return bool((column == 1 and row >= m) or (row == 1 and column >= n))


def _over_rows(softmax: Callable[..., Tensor], tensors: int) -> Callable[..., Tensor]:
    """A softmax, or its backward pass, whose first arguments are ``tensors``; over the last dimension, if it is small,
    computed as one over the last but one, up to twenty times faster."""

    def over_rows(*args: Any) -> Tensor:
        given, (dim, *more) = args[:tensors], args[tensors:]
        n = given[0].ndim
        if n < 2 or dim % n != n - 1 or given[0].shape[-1] > _FEW:
            return softmax(*args)
        return softmax(*(t.mT.contiguous() for t in given), n - 2, *more).mT.contiguous()

    return over_rows


def _threshold_backward(gradient: Tensor, output: Tensor, threshold: Any) -> Tensor:
    """Where the gradient lies in another order than the output: to read both costs four times the copy."""
    return _threshold_backward_(torch.empty_like(output).copy_(gradient), output, threshold)


def _threshold_backward_(gradient: Tensor, output: Tensor, threshold: Any) -> Tensor:
    return _aten.threshold_backward.grad_input(gradient, output, threshold, grad_input=gradient)


_SOFTMAX: dict[Any, Callable[..., Tensor]] = {
    _aten._softmax.default: _over_rows(_aten._softmax.default, 1),
    _aten._log_softmax.default: _over_rows(_aten._log_softmax.default, 1),
    _aten._softmax_backward_data.default: _over_rows(_aten._softmax_backward_data.default, 2),
    _aten._log_softmax_backward_data.default: _over_rows(_aten._log_softmax_backward_data.default, 2),
}
_PRODUCTS: dict[Any, Callable[..., Tensor]] = {_aten.bmm.default: _product, _aten.baddbmm.default: _product_and_bias}
_VIEWS = {_aten.view.default, _aten.permute.default, _aten.transpose.int, _aten.unsqueeze.default, _aten.squeeze.dim}
