"""Figures of a ranking of measures: sign errors, ψ along each hyperparameter, and the gap against each measure."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.analysis.pairs import MEAN
from genbench.report.figures.style import COLOURS, GREY, INK, Drawing, blank, logarithmic, plain, styled
from genbench.report.format import wrapped

if TYPE_CHECKING:
    import pandas as pd

    from genbench.analysis.ranking import Ranking

_PANELS = 24
"""Most measures against which the gap is drawn."""
_LINES = 40
"""A heat map of more has the names of its columns at both ends."""


def draw(ranking: "Ranking", frame: "pd.DataFrame") -> list[Drawing]:
    """Draw whatever of the three there is to show; ``frame`` has the runs."""
    drawn = [sign_errors(ranking), granulated(ranking), against(ranking, frame)]
    return [each for each in drawn if each is not None]


@styled
def sign_errors(ranking: "Ranking") -> Drawing | None:
    """Draw the distribution of each measure's sign errors over environments, and name its worst."""
    own = ranking.sign_errors[ranking.sign_errors["axis"] != MEAN]
    rows = [row for row in ranking.rows if (own["measure"] == row["measure"]).any()]
    if not rows:
        return None
    rows.sort(key=lambda row: row["sign_error"])
    label, worst = (max(len(row[name]) for row in rows) for name in ("measure", "worst"))
    sides = [3.0, 0.062 * worst]  # without the names of rows, which stand outside
    figure, axes = blank(
        0.4 + 0.062 * label + sum(sides), 0.9 + 0.24 * len(rows), 1, 2, width_ratios=sides, sharey=True
    )
    axis, beside = axes[0]
    places = np.arange(len(rows), 0, -1)
    parts = [own["value"][own["measure"] == row["measure"]].to_numpy(dtype=float) for row in rows]
    look: dict[str, Any] = {"widths": 0.6, "showfliers": False, "patch_artist": True, "orientation": "horizontal"}
    boxes = axis.boxplot(parts, positions=places, medianprops={"color": INK}, **look)
    for box, row in zip(boxes["boxes"], rows, strict=True):
        box.set(facecolor="#e5e7eb" if row["control"] else "#cfe3f1", edgecolor=GREY)
    random = np.random.default_rng(0)
    for place, values, row in zip(places, parts, rows, strict=True):
        spread = random.uniform(-0.2, 0.2, len(values))
        axis.plot(values, place + spread, ".", color=GREY, markersize=2.2, alpha=0.7, rasterized=True)
        axis.plot(row["sign_error"], place, "D", color=COLOURS[1], markersize=3.5)
    axis.axvline(0.5, color=COLOURS[1], linewidth=0.9, linestyle=(0, (3, 2)))
    axis.set_xlim(-0.02, 1.02)
    axis.set_yticks(places, [plain(_label(row)) for row in rows], fontsize=7)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("sign error")
    beside.axis("off")
    beside.set_title("worst environment", fontsize=6.5, color="#374151")
    for place, row in zip(places, rows, strict=True):
        beside.text(0, place, plain(row["worst"]), va="center", fontsize=6, color="#374151", in_layout=False)
    return Drawing(
        "ranking_sign_errors",
        "Sign errors over environments",
        "A dot is an environment: two values of a hyperparameter. The box holds the middle half of them, its line "
        "their median, the diamond their mean; ½ is chance. Rows in brackets are controls.",
        figure,
    )


@styled
def granulated(ranking: "Ranking") -> Drawing | None:
    """Draw ψ of each measure along each hyperparameter as a heat map."""
    table = ranking.granulated
    names = [name for name in ranking.table["measure"] if (table["measure"] == name).any()]
    axes_of = [*ranking.hyperparameters, MEAN]
    if not names:
        return None
    values = np.full((len(names), len(axes_of)), math.nan)
    sure = np.zeros(values.shape, dtype=bool)
    for row in table.to_dict("records"):
        place = names.index(row["measure"]), axes_of.index(row["axis"])
        values[place] = row["value"]
        sure[place] = row["low"] > 0 or row["high"] < 0
    shown = ["Ψ" if name == MEAN else plain("\n".join(wrapped(_last(name), 16))) for name in axes_of]
    across = 0.062 * max(max(map(len, text.split("\n"))) for text in shown) + 0.3
    figure, axes = blank(1.4 + 0.062 * max(map(len, names)) + across * len(axes_of), 1.1 + 0.21 * len(names))
    axis = axes[0, 0]
    image = axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (line, column), value in np.ndenumerate(values):
        if not math.isnan(value):
            ink = "white" if abs(value) > 0.6 else INK
            weight = "bold" if sure[line, column] else "normal"
            text = f"{value:.2f}".replace("-", "−")
            axis.text(column, line, text, ha="center", va="center", fontsize=6, color=ink, weight=weight)
    controls = dict(zip(ranking.table["measure"], ranking.table["control"], strict=True))
    axis.set_yticks(range(len(names)), [plain(f"({n})" if controls[n] else n) for n in names], fontsize=7)
    axis.set_xticks(range(len(axes_of)), shown, fontsize=7)
    axis.tick_params(labeltop=len(names) > _LINES)
    axis.grid(visible=False)
    axis.axvline(len(axes_of) - 1.5, color="white", linewidth=2)
    figure.colorbar(image, ax=axis, label="ψ", shrink=0.6, aspect=15)
    return Drawing(
        "ranking_granulated",
        "Rank correlation along one hyperparameter at a time",
        "ψ: the mean of Kendall's τ over contexts, along a hyperparameter; Ψ their mean. Bold: its 95 % interval, each "
        "by itself, leaves out 0. Rows in brackets are controls, white cells not defined.",
        figure,
    )


@styled
def against(ranking: "Ranking", frame: "pd.DataFrame") -> Drawing | None:
    """Draw the gap against each of the best measures, coloured by the hyperparameter along which it fails most."""
    rows = [row for row in ranking.rows if not row["control"]][:_PANELS]
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = blank(2.2 * columns + 0.2, 2.05 * lines + 0.2, lines, columns, sharey=True)
    for axis in axes.flat[len(rows) :]:
        axis.axis("off")
    for axis, row in zip(axes.flat, rows, strict=False):
        name = row["measure"]
        own = ranking.granulated[(ranking.granulated["measure"] == name) & (ranking.granulated["axis"] != MEAN)]
        by = own.sort_values("value", kind="stable")["axis"].iloc[0] if len(own) else ranking.hyperparameters[0]
        x = frame[name].to_numpy(dtype=float)
        levels = sorted(frame[by].unique(), key=lambda value: (isinstance(value, str), value))
        shades = np.linspace(0.1, 0.9, len(levels))
        for level, shade in zip(levels, shades, strict=True):
            inside = ((frame[by] == level) & np.isfinite(x)).to_numpy()
            look: dict[str, Any] = {
                "markersize": 2 if len(x) > 200 else 4,
                "alpha": 0.7,
                "markeredgewidth": 0,
                "rasterized": True,
            }
            axis.plot(x[inside], frame[ranking.gap][inside], ".", color=_shade(shade), **look)
        finite = x[np.isfinite(x)]
        if len(finite) and finite.min() > 0 and finite.max() > 8 * finite.min():
            logarithmic(axis)
        axis.set_title(plain(f"τ = {row['tau']:.2f}, by {_last(by)}".replace("-", "−")), fontsize=7)
        label = f"{name} (falls)" if name in ranking.falls else name
        axis.set_xlabel(plain("\n".join(wrapped(label, 32))), fontsize=7)
        axis.tick_params(labelsize=6)
    for axis in axes[:, 0]:
        axis.set_ylabel(plain(ranking.gap), fontsize=7)
    total = int((~ranking.table["control"]).sum())
    return Drawing(
        "ranking_gap",
        f"{ranking.gap} against each measure",
        "A dot is a run, dark to light by the values of the hyperparameter along which the measure's ψ is lowest."
        + (f" The first {len(rows)} of {total} measures." if total > len(rows) else ""),
        figure,
    )


def _shade(share: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](share)


def _last(name: str) -> str:
    """The last part of a setting's name, in words."""
    return name.rsplit(".", 1)[-1].replace("_", " ")


def _label(row: dict[str, Any]) -> str:
    return f"({row['measure']})" if row["control"] else str(row["measure"])
