"""The figures of one network: its loss surface, the spectra of its Hessian and its weights, its margins, its layers.

Each function takes results of measures and returns ``None`` if there is nothing to draw. Spectra have logarithmic axes
and show the fitted law; values that could not be measured leave a gap, which the caption explains.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.report.figures.style import COLOURS, GREY, INK, Drawing, blank, plain, saved, styled
from genbench.report.html import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genbench.measures import Estimate, Plane, Slice
    from genbench.measures.spectra import Spectrum
    from genbench.measures.spectral_density import Density

_PANELS = 12


def picture(drawing: Drawing) -> Picture:
    """Return a figure as a page shows it."""
    return Picture(drawing.name, drawing.title, drawing.caption, saved(drawing, "svg"))


@styled
def lines(
    slices: "Mapping[str, Slice]", *, name: str = "loss_lines", title: str = "Loss along lines"
) -> Drawing | None:
    """Draw loss, and accuracy if there is one, along labelled lines: one column per kind of axis."""
    if not slices:
        return None
    axes_of: dict[str, list[str]] = {}
    for label, line in slices.items():
        axes_of.setdefault(line.axis, []).append(label)
    classified = any(line.accuracy is not None for line in slices.values())
    rows, columns = 1 + classified, len(axes_of)
    figure, axes = blank(
        max(4.6, 2.9 * columns), 0.5 + 2.1 * rows, rows, columns, sharex="col", sharey="row",
        height_ratios=(3, 2) if classified else None,
    )  # fmt: skip
    for column, (text, labels) in enumerate(axes_of.items()):
        for index, label in enumerate(labels):
            line, look = slices[label], {"color": COLOURS[index % len(COLOURS)], "label": plain(label)}
            axes[0, column].plot(line.coordinates, line.loss, **look)
            if line.accuracy is not None:
                axes[1, column].plot(line.coordinates, 100 * line.accuracy, **look)
        first = slices[labels[0]].coordinates
        for axis in axes[:, column]:
            axis.set_xlim(first[0] - 0.02 * np.ptp(first), first[-1] + 0.02 * np.ptp(first))
            for line in (slices[label] for label in labels):
                _gaps(axis, line)
            if first[0] < 0:
                axis.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        axes[-1, column].set_xlabel(plain(text))
        if len(labels) > 1:
            axes[0, column].legend(fontsize=7)
    losses = np.concatenate([line.loss[np.isfinite(line.loss)] for line in slices.values()])
    logarithmic = len(losses) > 0 and losses.min() > 0 and losses.max() > 50 * losses.min()
    if logarithmic:
        axes[0, 0].set_yscale("log")
        for axis in axes[0]:
            axis.minorticks_off()
    axes[0, 0].set_ylabel("loss")
    if classified:
        axes[1, 0].set_ylabel("accuracy (%)")
    notes = [f"{label}: {line.note} (grey)" for label, line in slices.items() if line.note]
    caption = ["Zero is the network itself."] if any(s.coordinates[0] < 0 for s in slices.values()) else []
    caption += ["Logarithmic loss."] if logarithmic else []
    return Drawing(name, title, " ".join([*caption, *(f"{note[0].upper()}{note[1:]}." for note in notes)]), figure)


@styled
def plane(
    surface: "Plane", *, name: str = "loss_plane", title: str = "Loss on a plane through the network"
) -> Drawing | None:
    """Draw contours of the loss, evenly spaced in its logarithm if it is positive and spans a factor of three."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FuncFormatter, NullLocator

    values = np.ma.masked_invalid(surface.loss)
    low, high = values.min(), values.max()
    if values.count() == 0 or low == high:
        return None
    figure, axes = blank(5.2, 4.1)
    figure.set_layout_engine("compressed")  # the colour bar gets the height of the square
    axis = axes[0, 0]
    logarithmic = low > 0 and high > 3 * low
    levels = np.geomspace(low, high, 13) if logarithmic else np.linspace(low, high, 13)
    levels[0], levels[-1] = low, high
    norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
    axis.set_facecolor("#d1d5db")
    axis.grid(visible=False)
    filled = axis.contourf(surface.x, surface.y, values, levels=levels, norm=norm, cmap="viridis")
    filled.set_edgecolor("face")  # no hairlines between the bands
    axis.contour(
        surface.x, surface.y, values, levels=levels[1:-1], colors="white", linewidths=0.5, alpha=0.7, linestyles="solid"
    )
    bar = figure.colorbar(
        filled, ax=axis, label="loss", ticks=levels[::2], format=FuncFormatter(lambda v, _: _short(v))
    )
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)
    row, column = np.unravel_index(int(values.argmin()), values.shape)
    mark: dict[str, Any] = {"linestyle": "none", "markeredgecolor": INK, "clip_on": False, "zorder": 4}
    x, y = surface.x[column], surface.y[row]
    if x or y:
        axis.plot(0, 0, "o", markersize=6, markerfacecolor="white", label="the network", **mark)
    lowest = f"lowest point, {_short(low)}" if x or y else f"the network, lowest point ({_short(low)})"
    axis.plot(x, y, "*", markersize=9, markerfacecolor=COLOURS[1], label=lowest, **mark)
    axis.set_aspect("equal")
    axis.set_xlabel(plain(surface.axes[0]))
    axis.set_ylabel(plain(surface.axes[1]))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2, fontsize=7.5, handletextpad=0.2)
    spacing = "evenly spaced in the logarithm of the loss" if logarithmic else "evenly spaced"
    note = f" Grey: {surface.note}." if surface.note else ""
    size = f"{len(surface.x)} × {len(surface.y)}"
    return Drawing(name, title, f"Contours over a grid of {size} points, {spacing}.{note}", figure)


@styled
def density(
    spectrum: "Density",
    *,
    top: Sequence[float] = (),
    name: str = "hessian_density",
    title: str = "Spectral density of the Hessian",
) -> Drawing:
    """Draw the density of eigenvalues on a logarithmic axis, with ticks at the largest ones (``top``)."""
    grid, curve, error = spectrum.curve()
    one = 1 / (spectrum.size * spectrum.width * math.sqrt(2 * math.pi))  # the peak of a single eigenvalue
    floor = min(one / 20, float(curve.max()) / 10)
    figure, axes = blank(6.4, 2.9)
    axis = axes[0, 0]
    axis.fill_between(grid, floor, np.maximum(curve, floor), color=COLOURS[0], alpha=0.15, linewidth=0)
    axis.plot(grid, np.where(curve > floor, curve, np.nan), color=COLOURS[0], linewidth=1.1)
    lower, upper = np.maximum(curve - error, floor), np.maximum(curve + error, floor)
    axis.fill_between(grid, lower, upper, color=COLOURS[0], alpha=0.3, linewidth=0)
    axis.set_yscale("log")
    axis.set_ylim(floor, 2.5 * float(curve.max()))
    axis.margins(x=0.01)
    axis.set_xlabel("eigenvalue λ")
    axis.set_ylabel("density (per unit of λ)")
    if len(top):
        axis.plot(top, np.full(len(top), 0.03), "|", color=COLOURS[1], markersize=9, markeredgewidth=1.4,
                  transform=axis.get_xaxis_transform(), label=f"{len(top)} largest eigenvalues" if len(top) > 1
                  else "largest eigenvalue", zorder=4)  # fmt: skip
        axis.legend(loc="upper right", fontsize=7.5, handletextpad=0.2)
    runs = len(spectrum.nodes)
    return Drawing(
        name,
        title,
        f"Stochastic Lanczos quadrature, {runs} runs of {max(map(len, spectrum.nodes))} steps; an eigenvalue is "
        f"drawn as a Gaussian of standard deviation {_short(spectrum.width)}, band: one standard error over the runs. "
        f"The axis ends at a twentieth of the height of one of the {spectrum.size:,} eigenvalues.",
        figure,
    )


@styled
def spectra(weights: "Mapping[str, Spectrum]", *, name: str = "weight_spectra") -> Drawing | None:
    """Draw the spectrum of each weight with the power law of its tail, one panel per weight."""
    from matplotlib.ticker import LogLocator

    drawn = {key: s for key, s in weights.items() if np.count_nonzero(_positive(s)) > 1}
    shown = dict(list(drawn.items())[:_PANELS])
    if not shown:
        return None
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = blank(max(4.2, 2.3 * columns), 0.35 + 1.95 * rows, rows, columns)
    for axis, (key, spectrum) in zip(axes.flat, shown.items(), strict=False):
        values, law = _positive(spectrum), spectrum.power_law
        bins = np.geomspace(values[0] * (1 - 1e-9), values[-1] * (1 + 1e-9), max(8, min(40, len(values) // 4)) + 1)
        heights, _ = np.histogram(values, bins)
        heights = heights / (np.diff(bins) * len(values))
        axis.stairs(heights, bins, fill=True, color=COLOURS[0], alpha=0.35)
        axis.set_xscale("log")
        axis.set_yscale("log")
        head = "no power law"
        seen = [heights[heights > 0].min(), heights.max()]
        if law is not None:
            x = np.geomspace(law.xmin, values[-1], 50)
            fitted = law.tail / len(values) * (law.alpha - 1) / law.xmin * (x / law.xmin) ** -law.alpha
            axis.plot(x, fitted, color=COLOURS[1], linewidth=1.4)
            axis.axvline(law.xmin, color=COLOURS[1], linewidth=0.9, linestyle=(0, (3, 2)))
            head = f"α = {law.alpha:.2f} ± {law.stderr:.2f}"
            seen += [fitted[-1], fitted[0]]
        axis.set_ylim(min(seen) / 2, max(seen) * 2)
        axis.set_title(f"{_shortened(key)}\n{head}", fontsize=7.5, linespacing=1.3)
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(LogLocator(numticks=4))
        axis.minorticks_off()
        axis.tick_params(labelsize=7)
    for axis in list(axes.flat)[len(shown) :]:
        axis.axis("off")
    figure.supxlabel("eigenvalue of WᵀW", fontsize=8)
    figure.supylabel("density", fontsize=8)
    caption = (
        "Logarithmic axes and bins. Line: the power law λ^−α fitted to the tail, which begins at x_min (dashed), with "
        "the standard error of α for that x_min."
    )
    if len(drawn) > len(shown):
        caption += f" The first {len(shown)} of {len(drawn)} weights."
    return Drawing(name, "Spectra of the weights", caption, figure)


@styled
def margins(values: Any, gamma: float, *, percentile: float = 10, name: str = "margins") -> Drawing | None:
    """Draw the distribution of the margins [N] and their percentile γ."""
    m = np.asarray(values, dtype=np.float64)
    if len(m) == 0:
        return None
    figure, axes = blank(6.4, 2.7)
    axis = axes[0, 0]
    edges = np.histogram_bin_edges(m, bins=min(80, max(10, round(math.sqrt(len(m))))))
    if edges[0] < 0 < edges[-1]:  # no bin may contain both signs
        edges = edges - edges[np.abs(edges).argmin()]
        step = edges[1] - edges[0]
        edges = np.concatenate([[edges[0] - step], edges, [edges[-1] + step]])
    counts, _ = np.histogram(m, edges)
    for some, colour, label in ((edges[:-1] >= 0, COLOURS[0], "right"), (edges[:-1] < 0, COLOURS[1], "wrong")):
        if counts[some].any():
            share = float(((m > 0) if label == "right" else (m <= 0)).mean())
            axis.bar(edges[:-1][some], counts[some], np.diff(edges)[some], align="edge", color=colour, alpha=0.5,
                     linewidth=0, label=f"{label} ({_percent(share)})")  # fmt: skip
    axis.axvline(0, color=GREY, linewidth=0.9)
    axis.axvline(gamma, color=INK, linewidth=1.2, linestyle=(0, (3, 2)), label=f"γ = {_short(gamma)}")
    axis.margins(x=0.01)
    axis.set_xlabel("margin: correct logit − best other logit")
    axis.set_ylabel("examples")
    axis.legend(fontsize=7.5)
    caption = f"{len(m):,} examples; γ is the {percentile:g}th percentile of the margins, sign kept."
    return Drawing(name, "Margins", caption, figure)


@styled
def layers(results: "Mapping[str, Estimate]", *, name: str = "layers", title: str = "Layer by layer") -> Drawing | None:
    """Draw the values of single layers, ``name.<layer>``, one panel per measure; layers run from top to bottom."""
    found: dict[str, dict[str, Estimate]] = {}
    for key, estimate in results.items():
        head, _, layer = key.partition(".")
        if layer and estimate.value is not None:
            found.setdefault(head, {})[layer] = estimate
    found = {head: of for head, of in found.items() if len(of) > 1}
    shown = dict(list(found.items())[:_PANELS])
    if not shown:
        return None
    # a measure of all layers has them in order; a measure of some may not
    order = list(dict.fromkeys(layer for of in sorted(shown.values(), key=len, reverse=True) for layer in of))
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    height = 0.75 + 0.16 * len(order)
    figure, axes = blank(1.2 + 1.75 * columns, 0.2 + height * rows, rows, columns, sharey=True)
    for axis, (head, of) in zip(axes.flat, shown.items(), strict=False):
        y = [order.index(layer) for layer in of]
        values = [e.value for e in of.values() if e.value is not None]
        errors = [e.stderr or 0.0 for e in of.values()]
        spread = min(values) > 0 and max(values) > 30 * min(values)
        axis.set_xscale("log" if spread else "linear")
        axis.errorbar(values, y, xerr=errors, fmt="o", color=COLOURS[0], markersize=4, elinewidth=1.1)
        if not spread and min(values) >= 0:
            axis.set_xlim(0, 1.1 * max(v + e for v, e in zip(values, errors, strict=True)) or 1)
        _few_ticks(axis, spread)
        axis.set_title(_shortened(head), fontsize=7.5)
        axis.tick_params(labelsize=7)
        axis.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(order)), [_shortened(layer, 36) for layer in order])
    axes[0, 0].set_ylim(len(order) - 0.4, -0.6)
    for axis in list(axes.flat)[len(shown) :]:
        axis.axis("off")
    caption = "Layers in the order of the network; bars are standard errors, where a value is an estimate."
    if len(found) > len(shown):
        caption += f" The first {len(shown)} of {len(found)} measures."
    return Drawing(name, title, caption, figure)


def _gaps(axis: "Axes", line: "Slice") -> None:
    """Mark in grey where the loss is not finite."""
    half = (line.coordinates[1] - line.coordinates[0]) / 2
    for t in line.coordinates[np.isnan(line.loss)]:
        axis.axvspan(t - half, t + half, color="#d1d5db", linewidth=0, zorder=0)


def _few_ticks(axis: "Axes", logarithmic: bool) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    axis.xaxis.set_major_locator(LogLocator(numticks=4) if logarithmic else MaxNLocator(4))
    axis.minorticks_off()


def _positive(spectrum: "Spectrum") -> np.ndarray:
    """Return the eigenvalues above rounding error."""
    values = spectrum.eigenvalues
    return values[values > values[-1] * 1e-12] if len(values) else values


def _shortened(name: str, length: int = 24) -> str:
    """Shorten a name, keeping its beginning and end, which distinguish layers."""
    cut = (length - 1) // 2
    return plain(name if len(name) <= length else f"{name[:cut]}…{name[-cut:]}")


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
