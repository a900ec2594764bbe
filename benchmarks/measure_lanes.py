"""Whether measures of many networks gain from being computed together, on one thread: a gradient of the mean loss, of
32 networks one by one, as one batch by ``torch.func.vmap`` and in a pack, as they train, and a Hessian-vector product
through the kept graph, one by one and as one batch, in turns; and of the MLP the matrix products alone that its
gradient consists of, which no arrangement does without.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.common import Result, in_turns, network, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--examples", type=int, nargs="+", default=[250, 1000])
    parser.add_argument("--turns", type=int, default=5)


def measure(args: argparse.Namespace) -> list[Result]:
    rows = []
    for name in ("mlp", "cnn"):
        for n in args.examples:
            ways = _ways(name, args.lanes, torch.randn(n, 1, 40), torch.arange(n) % 10)
            found = in_turns({way: partial(_ran, run) for way, run in ways.items()}, repeats=args.turns)
            seconds = {way: [each["seconds"] for each in results] for way, results in found.items()}
            ms = {way: 1e3 * statistics.median(each) / args.lanes for way, each in seconds.items()}
            for way in ("gradient together", "gradient packed", "product together"):
                kind = way.partition(" ")[0]
                ratios = sorted(b / a for a, b in zip(seconds[kind], seconds[way], strict=True))
                ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
                what = f"{way}, {args.lanes} {name.upper()}s, {n:,} examples: ms a network, and × one by one"
                rows.append(Result(what, f"{ms[way]:.2f}, {ratio}; one by one {ms[kind]:.2f}"))
            if name == "mlp":
                what = f"the matrix products of such a gradient, {n:,} examples: ms a network"
                rows.append(Result(what, f"{ms['matrices']:.2f}"))
    return rows


def _ways(name: str, lanes: int, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed, by name, of all networks."""
    from genbench.process.memory import keep_freed
    from genbench.training import Pack

    keep_freed()
    networks = []
    for seed in range(lanes):
        torch.manual_seed(seed)
        networks.append(network(name).eval())
    together = {key: p.detach().requires_grad_() for key, p in stack_module_state(networks)[0].items()}
    apart = [{key: p[lane].detach().requires_grad_() for key, p in together.items()} for lane in range(lanes)]

    def loss(p: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(networks[0], p, (x,)), y)

    pack = Pack([copy.deepcopy(net) for net in networks], optimizer=torch.optim.SGD, own_batches=True)
    pack.prepare(total_steps=1)
    own = x.expand(lanes, *x.shape).contiguous(), y.expand(lanes, *y.shape).contiguous()
    kept, kept_together = [_kept(loss(p), p) for p in apart], _kept(vmap(loss)(together).sum(), together)
    ways: dict[str, Callable[[], object]] = {
        "gradient": lambda: [torch.autograd.grad(loss(p), [*p.values()]) for p in apart],
        "gradient together": lambda: torch.autograd.grad(vmap(loss)(together).sum(), [*together.values()]),
        "gradient packed": lambda: pack.gradient_step(*own, step=0),
        "product": lambda: [_product(g, p) for g, p in zip(kept, apart, strict=True)],
        "product together": lambda: _product(kept_together, together),
    }
    return {**ways, "matrices": lambda: _matrices(apart, x)} if name == "mlp" else ways


def _ran(run: Callable[[], object], _: int) -> dict[str, object]:
    run()
    return {}


def _kept(loss: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, [*p.values()], create_graph=True)


def _product(gradients: tuple[Tensor, ...], p: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(gradients, [*p.values()], [torch.ones_like(g) for g in gradients], retain_graph=True)


def _matrices(apart: list[dict[str, Tensor]], x: Tensor) -> None:
    """Forward, and both products of each layer backward but for the input's of the first."""
    for p in apart:
        a = x.flatten(1)
        for place, weight in enumerate(w.detach() for w in p.values() if w.ndim == 2):
            out = a @ weight.T
            _ = out.T @ a
            if place:
                _ = out @ weight
            a = out


if __name__ == "__main__":
    report(measure, __doc__, options)
