"""The figures of one network, read back from the figures."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.contour import ContourSet

from genbench.measures import Estimate, Plane, Slice
from genbench.measures.spectra import PowerLaw, Spectrum
from genbench.measures.spectral_density import Density
from genbench.report.figures import network
from genbench.report.figures.style import saved

T = np.linspace(-1, 1, 21)


def slice_of(values, axis="a random direction", accuracy=None, t=T):
    return Slice(t, np.asarray(values, dtype=float), accuracy, axis)


def plane_of(values, points=11):
    t = np.linspace(-1, 1, points)
    return Plane(t, t, np.asarray(values(t[None], t[:, None]), dtype=float), None, ("along", "across"))


def panels(drawing):
    return [axis for axis in drawing.figure.axes if axis.axison]


# -- lines


def test_lines_show_loss_and_accuracy_a_column_for_each_kind_of_axis():
    one, two = slice_of(1 + T**2, accuracy=1 - T**2 / 4), slice_of(1 + 2 * T**2, accuracy=1 - T**2 / 2)
    path = slice_of(2 + T, "to the other network", accuracy=0.5 + T / 4, t=np.linspace(0, 1, 21))
    found = network.lines({"first": one, "second": two, "path": path})
    loss, loss_path, accuracy, accuracy_path = panels(found)
    assert [line.get_label() for line in loss.lines][:2] == ["first", "second"]
    assert (loss.lines[1].get_xdata() == T).all()
    assert (loss.lines[1].get_ydata() == two.loss).all()
    assert (accuracy.lines[0].get_ydata() == 100 * one.accuracy).all()
    assert (loss_path.lines[0].get_ydata() == path.loss).all()
    assert accuracy.get_xlabel() == "a random direction"
    assert accuracy_path.get_xlabel() == "to the other network"
    assert loss.get_yscale() == "linear"
    # the network itself is marked on the lines through it, not on the way to another
    assert len(loss.lines) == 3
    assert len(loss_path.lines) == 1


def test_lines_over_many_decades_are_logarithmic():
    assert panels(network.lines({"l": slice_of(1e-3 + T**2)}))[0].get_yscale() == "log"
    assert panels(network.lines({"l": slice_of(T**2)}))[0].get_yscale() == "linear"  # zero has no logarithm
    assert "Logarithmic" in network.lines({"l": slice_of(1e-3 + T**2)}).caption


def test_a_loss_that_is_not_finite_is_a_gap_and_named():
    values = 1 + T**2
    values[[0, 1, 20]] = math.nan
    found = network.lines({"direction 1": slice_of(values)})
    axis = panels(found)[0]
    assert np.isnan(axis.lines[0].get_ydata()).sum() == 3
    assert len(axis.patches) == 3
    assert axis.get_xlim()[0] < -1 < 1 < axis.get_xlim()[1]
    assert "Direction 1: the loss is not finite at 3 of 21 points (grey)." in found.caption
    assert network.lines({"none": slice_of(np.full(21, math.nan))}) is not None
    assert network.lines({}) is None


# -- planes


def contours(axis):
    return [c for c in axis.get_children() if isinstance(c, ContourSet)]


def test_a_positive_plane_has_levels_evenly_spaced_in_the_logarithm():
    found = network.plane(plane_of(lambda x, y: 0.01 + x**2 + y**2))
    axis = found.figure.axes[0]
    filled = contours(axis)[0]
    assert isinstance(filled.norm, LogNorm)
    steps = np.diff(np.log(filled.levels))
    assert steps == pytest.approx(np.full(12, steps[0]))
    assert (filled.levels[0], filled.levels[-1]) == (0.01, 2.01)
    assert "logarithm" in found.caption
    assert axis.get_xlabel() == "along"
    assert axis.get_ylabel() == "across"


def test_a_plane_that_is_not_positive_has_even_levels():
    filled = contours(network.plane(plane_of(lambda x, y: x**2 + y**2 - 1)).figure.axes[0])[0]
    assert not isinstance(filled.norm, LogNorm)
    assert np.diff(filled.levels) == pytest.approx(np.full(12, 2 / 12))


def test_the_lowest_point_is_marked_where_it_is():
    found = network.plane(plane_of(lambda x, y: 1 + (x - 0.4) ** 2 + (y + 0.8) ** 2))
    own, lowest = found.figure.axes[0].lines
    assert (own.get_xdata()[0], own.get_ydata()[0]) == (0, 0)
    assert (lowest.get_xdata()[0], lowest.get_ydata()[0]) == pytest.approx((0.4, -0.8))
    assert lowest.get_label() == "lowest point, 1"
    (both,) = network.plane(plane_of(lambda x, y: 1 + x**2 + y**2)).figure.axes[0].lines
    assert both.get_label() == "the network, lowest point (1)"


def test_holes_of_a_plane_are_named_and_a_flat_one_is_not_drawn():
    values = plane_of(lambda x, y: 1 + x**2 + y**2)
    values.loss[:2, :3] = math.nan
    assert "Grey: the loss is not finite at 6 of 121 points." in network.plane(values).caption
    assert network.plane(plane_of(lambda x, y: 1 + 0 * (x + y))) is None
    assert network.plane(plane_of(lambda x, y: math.nan * (x + y))) is None


# -- spectra


def density_of():
    rng = np.random.default_rng(0)
    nodes = [np.array([5.0, 1.0, 0.01, -0.2]) + rng.normal(size=4) * 1e-3 for _ in range(3)]
    return Density(100, tuple(nodes), tuple(np.array([0.01, 0.04, 0.94, 0.01]) for _ in range(3)))


def test_the_density_is_logarithmic_and_a_single_eigenvalue_is_in_sight():
    spectrum = density_of()
    found = network.density(spectrum, top=[5.0, 1.0])
    axis = panels(found)[0]
    assert axis.get_yscale() == "log"
    curve = axis.lines[0]
    grid, expected, _ = spectrum.curve()
    shown = np.isfinite(curve.get_ydata())
    assert (curve.get_xdata() == grid).all()
    assert (curve.get_ydata()[shown] == expected[shown]).all()
    assert (expected[~shown] <= axis.get_ylim()[0]).all()
    # one of the hundred eigenvalues, at 5, stands twenty times above the end of the axis
    at = np.abs(grid - 5) < 0.05
    assert curve.get_ydata()[at].max() > 10 * axis.get_ylim()[0]
    assert list(axis.lines[1].get_xdata()) == [5.0, 1.0]
    assert axis.lines[1].get_label() == "2 largest eigenvalues"
    assert "3 runs of 4 steps" in found.caption
    assert len(panels(network.density(spectrum))[0].lines) == 1


def spectrum_of(n=400, alpha=2.5, seed=0):
    values = np.sort((1 - np.random.default_rng(seed).random(n)) ** (-1 / (alpha - 1)))
    return Spectrum(values, n, n, 1, PowerLaw(alpha, 0.1, 1.0, 0.02, n))


def test_a_spectrum_is_a_density_and_its_power_law_lies_on_it():
    (axis,) = panels(network.spectra({"0.weight": spectrum_of(4000)}))
    assert axis.get_title(loc="left") == "0.weight\nα = 2.50 ± 0.10"
    heights, edges, _ = axis.patches[0].get_data()
    assert (heights * np.diff(edges)).sum() == pytest.approx(1)
    law, xmin = axis.lines
    x, y = law.get_data()
    assert y == pytest.approx(1.5 * x**-2.5)
    assert set(xmin.get_xdata()) == {1.0}
    # the histogram follows it where bins are full
    for height, low, high in list(zip(heights, edges, edges[1:], strict=False))[:5]:
        assert height == pytest.approx((low**-1.5 - high**-1.5) / (high - low), rel=0.15)


def test_spectra_without_a_law_or_with_zeros_and_too_many_of_them():
    few = Spectrum(np.array([0.0, 1e-20, 1.0, 2.0]), 4, 4, 1, None)
    (axis,) = panels(network.spectra({"a": few}))
    assert axis.get_title(loc="left") == "a\nno power law"
    assert axis.patches[0].get_data().edges[0] == pytest.approx(1.0)
    zero = Spectrum(np.zeros(4), 4, 4, 1, None)
    assert network.spectra({"a": zero}) is None
    assert network.spectra({}) is None
    many = network.spectra({f"layer{i}": spectrum_of(seed=i) for i in range(15)})
    assert len(panels(many)) == 12
    assert "The first 12 of 15 weights." in many.caption


# -- margins and layers


def test_margins_on_both_sides_of_zero_share_no_bar():
    m = np.random.default_rng(0).normal(1, 2, 500)
    axis = panels(network.margins(m, -1.5))[0]
    right, wrong = axis.containers
    assert min(bar.get_x() for bar in right) == 0
    assert max(bar.get_x() + bar.get_width() for bar in wrong) == pytest.approx(0, abs=1e-12)
    assert sum(bar.get_height() for bar in right) == (m > 0).sum()
    assert sum(bar.get_height() for bar in wrong) == (m <= 0).sum()
    assert right.get_label() == f"right ({100 * (m > 0).mean():.3g} %)"
    assert [line.get_xdata()[0] for line in axis.lines] == [0, -1.5]
    assert axis.lines[1].get_label() == "γ = −1.5"
    assert len(panels(network.margins(np.abs(m), 0.3))[0].containers) == 1
    assert network.margins([], 0.0) is None


def test_layers_have_a_panel_a_measure_in_the_order_of_the_network():
    results = {
        "lambda_1": Estimate(9.0),
        "lambda_1.0.weight": Estimate(3.0),
        "lambda_1.2.weight": Estimate(1.0),
        "trace.0.weight": Estimate(5.0, stderr=0.5),
        "trace.0.bias": Estimate(0.01, stderr=0.001),
        "trace.2.weight": Estimate(2.0, stderr=0.1),
        "lone.0.weight": Estimate(1.0),
        "gone.0.weight": Estimate(None, note="undefined"),
        "gone.2.weight": Estimate(None, note="undefined"),
    }
    largest, trace = panels(network.layers(results))
    assert [label.get_text() for label in largest.get_yticklabels()] == ["0.weight", "0.bias", "2.weight"]
    assert [axis.get_title(loc="left") for axis in (largest, trace)] == ["lambda_1", "trace"]
    assert list(largest.lines[0].get_data()[0]) == [3.0, 1.0]
    assert list(largest.lines[0].get_data()[1]) == [0, 2]
    assert largest.get_xlim()[0] == 0
    assert trace.get_xscale() == "log"
    assert largest.get_ylim()[0] > largest.get_ylim()[1]  # from top to bottom
    assert network.layers({"lambda_1": Estimate(9.0)}) is None


def drawings():
    yield network.lines({"a $x_1$": slice_of(1 + T**2), "b": slice_of(2 + T**2)})
    yield network.plane(plane_of(lambda x, y: 1 + x**2 + y**2))
    yield network.density(density_of(), top=[5.0])
    yield network.spectra({"$x_0$.weight": spectrum_of(), "<b>": spectrum_of(seed=1)})
    yield network.margins(np.linspace(-1, 3, 50), -0.6)
    yield network.layers({f"norm.layer{i}.$w_{i}$": Estimate(1.0 + i) for i in range(3)})


def test_every_figure_is_valid_svg_and_the_same_each_time():
    for first, second in zip(drawings(), drawings(), strict=True):
        shown = network.picture(first)
        root = ElementTree.fromstring(shown.svg)
        assert root.tag.endswith("svg")
        assert shown.svg == network.picture(second).svg
        assert saved(first, "png").startswith(b"\x89PNG")
        assert shown.title
        assert b"<dc:date>" not in shown.svg


def inside(figure):
    """Assert that all text lies within the figure, and that tick labels, titles and axis labels do not overlap."""
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    boxes = []
    for axis in figure.axes:
        if not axis.axison:
            continue
        texts = [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label]
        for side in (axis.xaxis, axis.yaxis):
            low, high = sorted(side.get_view_interval())
            for tick in side.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    texts += [label for label in (tick.label1, tick.label2) if label.get_visible()]
        boxes += [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text() and t.get_visible()]
    for text, box in boxes:
        assert page.x0 - 1 <= box.x0, text
        assert box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0, text
        assert box.y1 <= page.y1 + 1, text
    for i, (text, box) in enumerate(boxes):
        for other, second in boxes[i + 1 :]:
            assert not box.padded(-0.5).overlaps(second.padded(-0.5)), (text, other)


def crowded():
    yield from drawings()
    long = {f"{m}.encoder.layers.{i}.attention.in_proj_weight": Estimate(float(np.exp(i % 7)))
            for m in ("lambda_1", "a_rather_long_name_of_a_measure", "c", "d", "e") for i in range(20)}  # fmt: skip
    yield network.layers(long)
    yield network.spectra({f"encoder.layers.{i}.attention.in_proj_weight": spectrum_of(seed=i) for i in range(12)})
    kinds = ("filter-normalized random direction", "eigenvector of λ₁ = 14.36 (not converged)")
    yield network.lines({k: slice_of(1e-4 + np.exp(T**2 * 9), k, accuracy=np.cos(T) ** 2) for k in kinds})
    yield network.plane(plane_of(lambda x, y: 1e-6 + 1e4 * (x**2 + y**2)))


def test_no_text_overlaps_or_leaves_the_figure():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for drawing in crowded():
        FigureCanvasAgg(drawing.figure).draw()
        inside(drawing.figure)
