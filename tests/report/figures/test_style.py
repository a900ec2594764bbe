import numpy as np
import pytest

from genbench.report.figures import style
from tests.helpers.rendered import touching

RANGES = {
    "linear": ("linear", (-3e5, 5e5)),
    "offset": ("linear", (0.2199, 0.22)),
    "decades": ("log", (1e-12, 1e12)),
    "one decade": ("log", (0.3, 4)),
    "within a decade": ("log", (0.11, 0.19)),
}


def crowded(ticks=None, scale="linear", limits=(0, 1)):
    """Two panels that are too small for their labels."""
    figure, axes = style.blank(2.4, 1.0, columns=2)
    for axis in axes[0]:
        axis.set(xscale=scale, yscale=scale, xlim=limits, ylim=limits)
        if ticks:
            axis.set_xticks(np.linspace(*limits, ticks), [f"{1000 * i}.5" for i in range(ticks)])
            axis.set_yticks(np.linspace(*limits, ticks), map(str, range(ticks)))
    return figure


def settled(figure):
    style.settle(style.Drawing("name", "title", "caption", figure))
    return figure


@pytest.mark.parametrize("ticks", [8, 30])
def test_crowded_ticks_touch_until_the_figure_is_settled(ticks):
    with style.context():
        assert touching(crowded(ticks))
        assert touching(settled(crowded(ticks))) == []


@pytest.mark.parametrize(("scale", "limits"), RANGES.values(), ids=RANGES)
def test_labels_of_any_range_stand_apart_and_some_remain(scale, limits):
    with style.context():
        figure = settled(crowded(scale=scale, limits=limits))
        assert touching(figure) == []
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                assert any(tick.label1.get_visible() and tick.label1.get_text() for tick in axis._update_ticks())


def test_major_labels_stay_before_minor_ones_and_what_fits_stays():
    with style.context():
        figure, axes = style.blank(2.0, 2.0)
        axes[0, 0].set(xscale="log", xlim=(0.3, 3), ylim=(0, 1), yticks=(0, 0.5, 1))
        settled(figure)
        shown = [label.get_text() for label in axes[0, 0].get_xticklabels(which="both") if label.get_visible()]
        assert any("10^{0}" in text for text in shown)
        assert [label.get_visible() for label in axes[0, 0].get_yticklabels()] == [True] * 3


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((0.005, 0.08), ["0.005", "0.01", "0.02", "0.05"]),
        ((3e-6, 6e-5), [r"5\times10^{-6}", "10^{-5}", r"2\times10^{-5}", r"5\times10^{-5}"]),
        ((3, 60), ["5", "10", "20", "50"]),
        ((22, 900), ["50", "100", "200", "500"]),
        ((0.5, 200), ["1", "10", "100"]),
        ((1e-5, 2e-2), ["10^{-5}", "10^{-4}", "10^{-3}", "10^{-2}"]),
    ],
)
def test_a_logarithmic_axis_has_several_labels(limits, labels):
    with style.context():
        figure, axes = style.blank(4.0, 2.0)
        axes[0, 0].set_xlim(limits)
        style.logarithmic(axes[0, 0])
        figure.draw_without_rendering()
        shown = [tick.label1.get_text() for tick in axes[0, 0].xaxis._update_ticks() if tick.label1.get_text()]
    assert [text.replace(r"$\mathdefault{", "").removesuffix("}$") for text in shown] == labels


def test_a_label_outside_the_limits_hides_none():
    """Locators also give ticks beyond the limits, which are not drawn."""
    with style.context():
        figure, axes = style.blank(1.5, 1.5)
        axes[0, 0].set(xlim=(0, 1), xticks=(-0.02, 0, 1), xticklabels=("outside", "in", "in"))
        axes[0, 0].set_xlim(0, 1)
        settled(figure)
        assert [label.get_visible() for label in axes[0, 0].get_xticklabels()][1:] == [True, True]
