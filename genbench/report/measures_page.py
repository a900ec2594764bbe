"""``measures.html``: all measures of one network in one file, which opens without a network connection."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.privacy import clean
from genbench.records.settings import show
from genbench.report.format import letter, number
from genbench.report.html import Picture, environment, public, versions

if TYPE_CHECKING:
    from genbench.measures import Estimate

_FAMILIES = (
    *("performance", "gap", "memorization", "robustness", "sensitivity", "margin", "norm", "flatness"),
    *("optimization", "information", "representation", "bound"),
)


@dataclass(frozen=True)
class Line:
    """A measure as text; ``value`` is ``None`` if it is undefined, and ``note`` says why."""

    name: str
    split: str
    value: str | None
    error: str
    converged: str
    seconds: str
    note: str


@dataclass(frozen=True)
class Family:
    """The measures of the whole network in a family: first those with a value, then the undefined ones."""

    name: str
    lines: list[Line]


@dataclass(frozen=True)
class Cell:
    """The value of a measure in one layer, with the letter of its footnote."""

    value: str | None
    error: str
    mark: str


@dataclass(frozen=True)
class Grid:
    """The measures of single layers in a family: one row per layer, one column per measure."""

    name: str
    columns: list[str]
    rows: dict[str, list[Cell | None]]
    notes: list[str]


def page(
    results: "Mapping[str, Estimate]",
    pictures: Sequence[Picture],
    *,
    title: str,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """Return the page as HTML; the template escapes all text.

    Args:
        results: estimates by ``split/family/name``, or ``split/family/name.layer`` for one layer.
        pictures: the figures.
        title: what was measured.
        settings: nested settings of the measures, the network and the data.
        provenance: versions and device; keys that may name a person or a machine are left out.
    """
    keys = {key: _parts(key) for key in results}
    names = sorted({family for _, family, _ in keys.values()}, key=_rank)
    families, grids = [], []
    for name in names:
        own = {key: results[key] for key, (_, family, _) in keys.items() if family == name}
        whole = {key: e for key, e in own.items() if "." not in keys[key][2]}
        if whole:
            families.append(_family(name, whole))
        if len(whole) < len(own):
            grids.append(_grid(name, {key: e for key, e in own.items() if key not in whole}))
    templates = environment()
    templates.globals |= {"letter": letter}
    return templates.get_template("measures.html.j2").render(
        title=clean(title),
        summary=_summary(results),
        families=families,
        grids=grids,
        pictures=pictures,
        settings={key: show(value) for key, value in records.flatten(dict(settings)).items()},
        provenance=public([provenance]),
        versions=versions(),
    )


def drawn_page(
    results: "Mapping[str, Estimate]",
    curves: Mapping[str, Any] | None,
    *,
    title: str,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> tuple[str, dict[str, str]]:
    """Draw the pictures of a network and return the page; see :func:`page`.

    ``curves`` holds what the pictures show, by name (see ``genbench.runs.curves.compute``); without it there are none.
    Second, for each picture that could not be drawn, the reason.
    """
    pictures: list[Picture] = []
    left_out: dict[str, str] = {}
    if curves is not None:
        from genbench.measures.base import reason
        from genbench.report.figures import network

        draw: dict[str, Callable[[Any], Any]] = {
            "loss_lines": network.lines,
            "loss_plane": network.plane,
            "spectral_density": lambda found: network.density(found, top=curves["top_eigenvalues"]),
            "weight_spectra": network.spectra,
            "margins": lambda found: network.margins(*found),
            "layers": network.layers,
        }
        for name, found in {**curves, "layers": results}.items():
            if name in draw:
                try:
                    drawing = draw[name](found)
                except Exception as error:  # one picture less does not cost the others
                    left_out[name] = reason(error)
                else:
                    pictures += [] if drawing is None else [network.picture(drawing)]
    return page(results, pictures, title=title, settings=settings, provenance=provenance), left_out


def texts(estimate: "Estimate") -> tuple[str | None, str]:
    """Return value and error as text.

    The error has two significant digits, the value as many decimals; an exact value has four digits.

    >>> from genbench.measures import Estimate
    >>> texts(Estimate(14.35812, stderr=0.0213)), texts(Estimate(15210.0)), texts(Estimate(0.00001234567))
    (('14.358', '± 0.021'), ('15210', ''), ('1.235e−5', ''))
    >>> texts(Estimate(0.0127, interval=(0.0121, 0.0131))), texts(Estimate(None))
    (('0.0127', '[0.0121, 0.0131]'), (None, ''))
    """
    value, error = estimate.value, estimate.stderr
    if value is None:
        return None, ""
    if estimate.interval is not None and error is None:
        low, high = estimate.interval
        places = _places(value, high - low)
        return _number(value, places, value), f"[{_number(low, places, value)}, {_number(high, places, value)}]"
    if error is None:
        if value.is_integer() and abs(value) < 1e7:
            return f"{value:.0f}".replace("-", "−"), ""
        return _number(value, _places(value, None), value), ""
    if not error:
        return _number(value, _places(value, None), value), "± 0"
    places = _places(value, error)
    return _number(value, places, value), f"± {_number(error, places, value)}"


def _places(value: float, error: float | None) -> int:
    """Return the decimals that show two significant digits of the error, or else four of the value."""
    if error:
        return 1 - math.floor(math.log10(error))
    return 3 - (math.floor(math.log10(abs(value))) if value else 0)


def _number(value: float, places: int, scale: float) -> str:
    """Format with ``places`` decimals, or in scientific notation if numbers of size ``scale`` would be hard to read."""
    exponent = math.floor(math.log10(abs(scale))) if scale else 0
    if -4 <= exponent <= 5:
        return number(value, min(max(places, 0), 9))
    own = math.floor(math.log10(abs(value))) if value else 0
    mantissa, power = f"{value:.{min(max(own + places, 1), 6)}e}".split("e")
    return f"{mantissa}e{int(power)}".replace("-", "−")


def _parts(key: str) -> tuple[str, str, str]:
    split, family, name = key.split("/", 2)
    return split, family, name


def _rank(family: str) -> tuple[int, str]:
    return (_FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES), family)


def _family(name: str, results: "Mapping[str, Estimate]") -> Family:
    lines = []
    for key, estimate in results.items():
        split, _, measure = _parts(key)
        value, error = texts(estimate)
        converged = {None: "", True: "yes", False: "no"}[estimate.converged]
        lines.append(Line(measure, split, value, error, converged, _seconds(estimate.seconds), _note(estimate)))
    return Family(name, sorted(lines, key=lambda line: line.value is None))


def _grid(name: str, results: "Mapping[str, Estimate]") -> Grid:
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    for key, estimate in results.items():
        split, _, measure = _parts(key)
        head, _, layer = measure.partition(".")
        found.setdefault((split, head), {})[layer] = estimate
    splits = {split for split, _ in found}
    # a measure of all layers has them in order; a measure of some may not
    layers = list(dict.fromkeys(layer for of in sorted(found.values(), key=len, reverse=True) for layer in of))
    notes: list[str] = []

    def cell(estimate: "Estimate | None") -> Cell | None:
        if estimate is None:
            return None
        note = "; ".join(filter(None, ["not converged" if estimate.converged is False else "", _note(estimate)]))
        if note and note not in notes:
            notes.append(note)
        return Cell(*texts(estimate), letter(notes.index(note)) if note else "")

    return Grid(
        name,
        [head if len(splits) == 1 else f"{head} ({split})" for split, head in found],
        {layer: [cell(of.get(layer)) for of in found.values()] for layer in layers},
        notes,
    )


def _note(estimate: "Estimate") -> str:
    note = clean(estimate.note or "").removeprefix("undefined: ")
    if estimate.converged is False and estimate.residual is not None:
        residual = f"residual {_number(estimate.residual, 1, 1e-9)}"
        note = f"{note}; {residual}" if note else residual
    return note


def _seconds(seconds: float) -> str:
    return "< 0.001" if seconds < 5e-4 else number(seconds, 3 if seconds < 10 else 1)


def _summary(results: "Mapping[str, Estimate]") -> str:
    """Summarize: how many values, in how many seconds, how many undefined or not converged."""
    undefined = sum(e.value is None for e in results.values())
    unfinished = sum(e.converged is False for e in results.values())
    parts = [
        f"{len(results)} value{'' if len(results) == 1 else 's'} in {sum(e.seconds for e in results.values()):.1f} s"
    ]
    parts += [f"{undefined} undefined"] if undefined else []
    parts += [f"{unfinished} not converged"] if unfinished else []
    return " · ".join(parts)
