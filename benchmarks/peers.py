"""Ways to compute curvature: genbench's, and other libraries', each with settings from cheap to accurate."""

import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Library:
    """A way to compute curvature, with ladders of settings from cheap to accurate."""

    name: str
    module: str
    ladder: tuple[Any, ...]
    density: Callable[[int], Any] | None = None

    def __init__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        self.model, self.x, self.y = model, x, y

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        raise NotImplementedError

    def trace(self, products: int, seed: int) -> float:
        raise NotImplementedError


class Ours(Library):
    name, module, ladder = "genbench", "genbench", (1e-1, 3e-2, 1e-2, 1e-3)

    def _snapshot(self) -> Any:
        from genbench.measures import Snapshot

        return Snapshot(self.model, F.cross_entropy, [(self.x, self.y)])

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        from genbench.measures import hessian_eigenvalues

        found = hessian_eigenvalues(self._snapshot(), k=5, tolerance=setting, seed=seed)
        return [e.value for e in found.values()]

    def trace(self, products: int, seed: int) -> float:
        from genbench.measures import hessian_trace

        deflation = products // 2  # as by default
        return hessian_trace(self._snapshot(), deflation=deflation, probes=products - deflation, seed=seed).value

    def density(self, seed: int) -> Any:
        from genbench.measures.spectral_density import spectral_density

        return spectral_density(self._snapshot(), runs=10, steps=80, seed=seed).curve()


class PyHessian(Library):
    name, module = "PyHessian 0.1", "pyhessian"
    ladder = ((100, 1e-3),)  # its defaults: ten times as many iterations take minutes

    def _computer(self, seed: int) -> Any:
        from pyhessian import hessian

        torch.manual_seed(seed)
        self.model.zero_grad()
        return hessian(self.model, nn.CrossEntropyLoss(), data=(self.x, self.y), cuda=False)

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        return self._computer(seed).eigenvalues(maxIter=setting[0], tol=setting[1], top_n=5)[0]

    def trace(self, products: int, seed: int) -> float:
        return statistics.mean(self._computer(seed).trace(maxIter=products, tol=0.0))


class HessianEigenthings(Library):
    name, module = "hessian-eigenthings 1.0.0a5", "hessian_eigenthings"
    ladder = (10, 12, 15, 20, 25, 30, 35, 40, 50, 60, 80)

    def _operator(self) -> Any:
        from hessian_eigenthings import HessianOperator, supervised_loss

        return HessianOperator(self.model, [(self.x, self.y)], supervised_loss(F.cross_entropy))

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        from hessian_eigenthings import lanczos

        found = lanczos(self._operator(), k=5, max_iter=setting, which="LA", seed=seed, reorthogonalize=True)
        return sorted(map(float, found.eigenvalues), reverse=True)

    def trace(self, products: int, seed: int) -> float:
        from hessian_eigenthings import trace

        return float(trace(self._operator(), num_matvecs=products, seed=seed).estimate)

    def density(self, seed: int) -> Any:
        from hessian_eigenthings import spectral_density

        return spectral_density(self._operator(), num_runs=10, lanczos_steps=80, seed=seed)


class Curvlinops(Library):
    name, module = "curvlinops 3.0", "curvlinops"
    ladder = (1e-1, 1e-2, 1e-3, 1e-4)

    def _operator(self) -> Any:
        from curvlinops import HessianLinearOperator

        parameters = [p for p in self.model.parameters() if p.requires_grad]
        data = [(self.x, self.y)]
        return HessianLinearOperator(self.model, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)

    def eigenvalues(self, setting: Any, seed: int) -> list[float]:
        from scipy.sparse.linalg import eigsh

        operator = self._operator().to_scipy()
        start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(seed)).numpy()
        return sorted(map(float, eigsh(operator, k=5, which="LA", tol=setting, v0=start)[0]), reverse=True)

    def trace(self, products: int, seed: int) -> float:
        from curvlinops import xtrace

        torch.manual_seed(seed)
        return float(xtrace(self._operator(), products))

    def density(self, seed: int) -> Any:
        from curvlinops import lanczos_approximate_spectrum

        torch.manual_seed(seed)
        return lanczos_approximate_spectrum(self._operator(), ncv=80, num_repeats=10)
