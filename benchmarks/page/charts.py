"""The plots, as SVG to stand in a page: text stays text, and colours are the page's own, light or dark."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

if TYPE_CHECKING:
    from psarm.benchmarks.paper.published import PublishedSpeed

WIDTH, HEIGHT = 5.0, 3.7  # inches: at a phone's width, letters keep the size of the text around
# Drawn in these colours, which then become the page's variables of the same place in its style.
INK, SOFT, LINE, PUBLISHED = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0{number}0a0b" for number in range(8))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # one fewer than colours: both together repeat after 56
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", PUBLISHED: "--published"} | {
    colour: f"--series{number}" for number, colour in enumerate(SERIES)
}


@dataclass(frozen=True)
class Point:
    """A checkpoint or an engine in a plot."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Curve:
    """A checkpoint over several galleries."""

    name: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Growth:
    """Milliseconds of one engine over something that grows."""

    name: str
    x: list[float]
    measured: list[float]
    predicted: list[float]
    """As many; not a number where nothing predicts it."""


@dataclass(frozen=True)
class Pair:
    """A figure with the model's own boxes and with the annotated ones."""

    name: str
    detected: float
    annotated: float


def speed_chart(
    points: Sequence[Point],
    published: Sequence[PublishedSpeed],
    untimed: Mapping[str, float],
    alt: str,
    accuracy: str = "mAP with CBGM, %",
) -> str:
    """`accuracy`, in percent, over frames a second: what was measured is filled, published points are hollow.

    `untimed`: published accuracies without a speed, each a dotted line.
    """
    with _chart("speed", alt) as (axes, svg):
        for number, point in enumerate(points):
            axes.plot(point.x, point.y, **_mark(number), linestyle="none", markersize=9, label=_legend(point.name))
        for place, speed in enumerate(published):
            label = f"{speed.title} (published, {speed.gpu})"
            style: dict[str, Any] = {
                "marker": "*" if place == 0 else "p",
                "markerfacecolor": "none",
                "markeredgecolor": PUBLISHED,
            }
            axes.plot(speed.fps, speed.mAP, linestyle="none", markersize=12, label=label, **style)
        for title, value in untimed.items():
            label = f"{title} (published, without a speed)"
            axes.axhline(value, color=PUBLISHED, linewidth=1.4, linestyle=":", label=label)
        speeds = [point.x for point in points] + [speed.fps for speed in published]
        if max(speeds) > 8 * min(speeds):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        _label(axes, "frames a second", accuracy)
        axes.margins(0.15)
    return svg[0]


def gallery_chart(curves: Sequence[Curve], alt: str) -> str:
    """mAP with CBGM in percent over the number of frames a query is searched in."""
    with _chart("galleries", alt) as (axes, svg):
        for number, curve in enumerate(curves):
            axes.plot(curve.x, curve.y, **_mark(number), linewidth=1.6, markersize=6, label=_legend(curve.name))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(curves[0].x))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelrotation=45)
        _label(axes, "frames in the gallery", "mAP with CBGM, %")
    return svg[0]


def growth_chart(
    name: str, curves: Sequence[Growth], titles: tuple[str, str], ticks: Mapping[float, str], alt: str
) -> str:
    """Milliseconds over what grows: measured with marks, predicted dashed in the same colour.

    `titles`: of the axes; `ticks`: what stands at an x. An axis is logarithmic where its largest value is many times
    the smallest.
    """
    with _chart(f"growth-{name}", alt) as (axes, svg):
        for number, curve in enumerate(curves):
            axes.plot(curve.x, curve.measured, **_mark(number), linewidth=1.6, markersize=6, label=_legend(curve.name))
            axes.plot(curve.x, curve.predicted, color=SERIES[number % len(SERIES)], linewidth=1.2, linestyle="--")
        axes.plot([], [], color=SOFT, linewidth=1.2, linestyle="--", label="predicted")
        if min(ticks) > 0 and max(ticks) > 10 * min(ticks):
            axes.set_xscale("log")
        times = [value for curve in curves for value in (*curve.measured, *curve.predicted) if not math.isnan(value)]
        if max(times) > 30 * min(times) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(list(ticks), list(ticks.values()))
        if max(len(label) for label in ticks.values()) > 6:
            axes.tick_params(axis="x", labelrotation=45)
        axes.xaxis.set_minor_locator(NullLocator())
        _label(axes, *titles)
    return svg[0]


def boxes_chart(pairs: Sequence[Pair], measure: str, alt: str) -> str:
    """Two bars a checkpoint: with the boxes it detects, plain, and with the annotated boxes, hatched."""
    with _chart(f"boxes-{measure}", alt, legend=False) as (axes, svg):
        for number, pair in enumerate(pairs):
            colour = SERIES[number % len(SERIES)]
            bars = [(number - 0.2, pair.detected, colour, ""), (number + 0.2, pair.annotated, "none", "////")]
            for x, value, face, hatch in bars:
                axes.bar(x, value, 0.38, facecolor=face, edgecolor=colour, hatch=hatch, linewidth=1.2)
                axes.annotate(f"{value:.1f}", (x, value), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xticks(range(len(pairs)), [_wrapped(pair.name) for pair in pairs], fontsize=8)
        axes.set_xlim(-0.6, len(pairs) - 0.4)
        axes.margins(y=0.12)
        _label(axes, "", f"{measure} with CBGM, %")
    return svg[0]


@contextmanager
def _chart(name: str, alt: str, legend: bool = True) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; the list holds the finished SVG afterwards."""
    settings: dict[Any, Any] = dict(matplotlib.rcParamsDefault)  # the same plots whatever a user's own defaults are
    settings |= {"backend": "svg", "svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}
    settings |= dict.fromkeys(("xtick.color", "ytick.color", "axes.edgecolor"), SOFT) | {"grid.color": LINE}
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "legend.labelcolor"), INK)
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        finished: list[str] = []
        yield axes, finished
        if legend:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        finished.append(_svg(figure, name, alt))


def _svg(figure: Figure, name: str, alt: str) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        # Letters that matplotlib's font lacks: the browser writes them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    title = html.escape(alt)
    view = f"0 0 {WIDTH * 72:g} {HEIGHT * 72:g}"  # a unit is a point of 1/72 inch
    # matplotlib's own first tag has a fixed size, and namespaces that mean nothing inside a page.
    rest = text[text.index(">") + 1 :].strip()
    return f'<svg viewBox="{view}" role="img" aria-label="{title}"><title>{title}</title>{rest}'


def _mark(number: int) -> dict[str, Any]:
    return {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)]}


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _wrapped(name: str, length: int = 12) -> str:
    """A name on several lines, for the foot of a bar."""
    lines: list[str] = []
    for word in name.split():
        if lines and len(lines[-1]) + 1 + len(word) <= length:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def _legend(name: str) -> str:
    """A name for the legend, which leaves out those that begin with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name
