"""Small float64 networks, their data, and dense oracles."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacfwd, jacrev

from genbench.data import Digits

K = 3


class Counts(nn.Module):
    """A layer that fades in over its first calls, which it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(5, 3).double(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x) * min(1.0, self.calls / 5)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 4, batch_first=True)
        self.head = nn.Linear(4, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1])


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 5, batch_first=True)
        self.head = nn.Linear(4, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, K))


def network(seed: int = 0, norm: bool = False) -> nn.Module:
    """A classifier of five numbers into three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(8)] if norm else []
        net = nn.Sequential(nn.Linear(5, 8), *middle, nn.Tanh(), nn.Linear(8, 3)).double()
    net.classes = 3
    return net


def frozen() -> nn.Module:
    net = mlp()
    net[2].requires_grad_(False)
    return net


def conv() -> nn.Module:
    net = nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=1, bias=False),
        nn.BatchNorm1d(3),
        nn.ReLU(),
        nn.Conv1d(3, 4, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8, K),
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (4,)),
    "frozen": (frozen, (4,)),
    "tied": (Tied, (4,)),
    "conv": (conv, (2, 6)),
    "gru": (Recurrent, (5, 2)),
    "attention": (Attentive, (3, 4)),
}


def build(name: str, *, n: int = 24, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A network and its data, float64."""
    torch.manual_seed(seed)
    make, shape = NETS[name]
    return make().double(), torch.randn(n, *shape, dtype=torch.float64), torch.randint(K, (n,))


def dense_hessian(net: nn.Module, x: Tensor, y: Tensor, loss=F.cross_entropy) -> Tensor:
    """∇²L [ω, ω] of the trainable weights, all columns at once by torch.func, forward over reverse."""
    net.eval()
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    shapes = [dict(net.named_parameters())[name].shape for name in names]
    w = torch.cat([dict(net.named_parameters())[name].detach().reshape(-1) for name in names])

    def value(w: Tensor) -> Tensor:
        pieces = w.split([s.numel() for s in shapes])
        parameters = {name: p.reshape(s) for name, p, s in zip(names, pieces, shapes, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return loss(functional_call(net, parameters, (x,)), y)

    if any(isinstance(m, nn.LayerNorm) for m in net.modules()):
        h = torch.autograd.functional.hessian(
            value, w
        )  # under vmap, torch 2.13 has wrong second derivatives of LayerNorm
    else:
        h = jacfwd(jacrev(value))(w).detach()
    torch.testing.assert_close(h, h.T)
    return h


def dense_gauss_newton(net: nn.Module, x: Tensor, y: Tensor, loss=F.cross_entropy) -> Tensor:
    """mean Jᵀ(∇²ℓ)J [ω, ω], from the whole Jacobian and the Hessian of the loss by the outputs."""
    net.eval()
    parameters = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        output = functional_call(net, parameters, (x,)).detach()
        rows = []
        for i in range(output.numel()):  # a row at a time: no vmap
            p = {name: t.clone().requires_grad_() for name, t in parameters.items()}
            value = functional_call(net, p, (x,)).reshape(-1)[i]
            rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, tuple(p.values()))]))
    j = torch.stack(rows)
    inner = torch.autograd.functional.hessian(lambda f: loss(f.reshape(output.shape), y), output.reshape(-1))
    return j.T @ inner @ j


class Vector(nn.Module):
    """The weights are the output: L(w) is any function of a vector."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), -1)


def quadratic(hessian: Tensor, w: Tensor | None = None):
    """(model, loss, batches) of L(w) = ½ wᵀHw, at w or at the minimum."""
    w = torch.zeros(len(hessian), dtype=hessian.dtype) if w is None else w
    batches = [(torch.zeros(2, 1, dtype=hessian.dtype), torch.zeros(2))]
    return Vector(w.clone()), lambda out, _: 0.5 * ((out @ hessian) * out).sum(1).mean(), batches


def taught(net):
    """The network after 300 steps of Adam on the digits."""
    x, y = Digits().tensors("train")
    optimizer = torch.optim.Adam(net.parameters(), 0.005)
    for rows in torch.randint(len(y), (300, 100)):
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net
