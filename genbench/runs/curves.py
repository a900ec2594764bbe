"""The curves and surfaces that the pictures of a measured network show."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from genbench.checks import check_integer
from genbench.measures import Snapshot
from genbench.measures.base import reason

LEAST = {"plane_points": 3, "density_runs": 2, "density_steps": 1}  # the settings, and the least value of each
WRITTEN = ("loss_lines", "loss_plane", "spectral_density", "weight_spectra")  # those that measures.json holds


def check_settings(settings: Mapping[str, Any] | None) -> None:
    """Refuse settings of ``pictures`` that are not integers, or too small."""
    for name, least in LEAST.items():
        if settings is not None:
            check_integer(f"pictures.{name}", settings[name], least=least)


def compute(snapshot: Snapshot, settings: Mapping[str, Any], *, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute the loss along lines and on a plane, the spectra of Hessian and weights, and the margins.

    Args:
        snapshot: the network on its data.
        settings: ``plane_points``, ``density_runs`` and ``density_steps``.
        seed: of random directions and probes.

    Returns:
        ``loss_lines``: label -> slice; ``loss_plane``; ``spectral_density`` and ``top_eigenvalues`` of the Hessian;
        ``weight_spectra``: layer -> spectrum; ``margins``: those of the examples, and their percentile, a pair.
        Second, for each that could not be computed, the reason.
    """
    from genbench.measures.curvature import hessian_eigenvectors
    from genbench.measures.margins import example_margins, margin_percentile
    from genbench.measures.spectra import weight_spectrum
    from genbench.measures.spectral_density import spectral_density
    from genbench.measures.surface import interpolation, loss_line, loss_plane

    def lines() -> dict[str, Any]:
        found = {
            "random direction": loss_line(snapshot, direction="random", seed=seed),
            "largest Hessian eigenvector": loss_line(snapshot, direction="hessian", seed=seed),
        }
        if snapshot.initial is not None:
            found["from the initial weights"] = interpolation(snapshot)
        return found

    def plane() -> Any:
        return loss_plane(snapshot, points=settings["plane_points"], seed=seed)

    def density() -> Any:
        top, _ = hessian_eigenvectors(snapshot, k=min(5, snapshot.size), seed=seed)
        found["top_eigenvalues"] = [estimate.value for estimate in top.values() if estimate.value is not None]
        runs, steps = settings["density_runs"], settings["density_steps"]
        return spectral_density(snapshot, runs=runs, steps=steps, seed=seed)

    def margins() -> tuple[Any, float]:
        values, gamma = example_margins(snapshot), margin_percentile(snapshot)
        if isinstance(values, str) or isinstance(gamma, str):
            raise ValueError(f"there are no margins: {values}")
        return values.cpu(), gamma

    parts = {
        "loss_lines": lines,
        "loss_plane": plane,
        "spectral_density": density,
        "weight_spectra": lambda: weight_spectrum(snapshot),
        "margins": margins,
    }
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    with snapshot.measuring():
        for name, part in parts.items():
            try:
                found[name] = part()
            except Exception as error:  # one picture less does not cost the others
                left_out[name] = reason(error)
    return found, left_out


def plain(value: Any) -> Any:
    """Arrays and dataclasses as JSON holds them; a number that is not finite becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
