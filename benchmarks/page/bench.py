"""The page of `psarm bench --html`: the table, accuracy against speed, growing cost, and how it was measured."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from psarm.benchmarks.facts import DatasetFacts
from psarm.benchmarks.growth_curves import GrowthCurve
from psarm.benchmarks.notation import DASH, percent, speed
from psarm.benchmarks.page.charts import Growth, Point, growth_chart, speed_chart
from psarm.benchmarks.page.parts import facts_list, plots, table, whole_page
from psarm.benchmarks.paper.published import PAPER, SPEEDS, not_comparable, title_of, untimed
from psarm.benchmarks.report import BenchReport, Row
from psarm.benchmarks.table import STAGE_TITLES, fact_lines, row_title, search_name, threads_of, unsettled_lines

GROWTH_TITLES = {
    "people": ("People in a frame", "people in a frame", "ms an image"),
    "size": ("Size of the frame", "pixels of the frame", "ms an image"),
    "batch": ("Frames in a batch", "frames in a batch", "ms an image"),
    "gallery": ("People in the gallery", "people in the gallery", "ms a query"),
}
"""Of the figure and of its axes."""
Column = tuple[str, Callable[[Row], str]]
"""Its title, and what it says of a row."""


def bench_page(report: BenchReport) -> str:
    """The page as text."""
    data = report.facts.dataset
    sections = [("rows", "What was measured", _rows_section(report)), ("accuracy", "Accuracy", _accuracy(report))]
    points = _points(report)
    if points:
        sections.append(("speed", "Accuracy against speed", _speed_section(report, points)))
    if report.growth:
        sections.append(("growth", "How the cost grows", _growth_section(report.growth)))
    sections.append(("how", "How it was measured", _how(report)))
    engines = list(dict.fromkeys(f"{row.name} {row.precision}".strip() for row in report.rows if row.ok))
    name = title_of(data.name)
    title = f"psarm bench on {f'drawn data in the format of {name}' if data.drawn else name}: {', '.join(engines)}"
    subtitle = (
        f"{data.gallery_frames:,} gallery frames of {' and '.join(data.image_sizes)}, {data.queries:,} queries; "
        f"{report.facts.machine.cpu}, {threads_of(report)}."
    )
    warning = _not_comparable(data)
    return whole_page(title, subtitle, warning, sections, report.facts.date, published=bool(points) and not warning)


def _not_comparable(data: DatasetFacts) -> str:
    """Why no published figures stand on the page; empty where they do."""
    if data.drawn:
        return f"These frames were drawn by psarm data synth: the figures say nothing of {title_of(data.name)}."
    return not_comparable(data.name, data.gallery_frames, data.queries)


def _rows_section(report: BenchReport) -> str:
    """Accuracy and speed, where the time goes, and what it takes; what was not measured has no column."""
    notes = [*unsettled_lines(report), *(f"{row_title(row)}: {row.failure}" for row in report.rows if not row.ok)]
    listed = "".join(f"<li>{html.escape(note)}</li>\n" for note in [*notes, *report.notes])
    explanation = (
        "<p>Times are medians, of each stage by itself; p95 and p99 are of a call, which is a whole batch. Cold start: "
        "from opening the engine to its first result, in a process of its own; memory is the most that process had "
        "resident. Of the roofline: the least time this machine needs for the multiply-adds and bytes of the graphs, "
        "by what they took.</p>"
    )
    tables = table("Rows", *_cells(report.rows, _main_columns(report)))
    tables += f"<ul>\n{listed}</ul>" if listed else ""
    timed = [row for row in report.rows if row.timing]
    further = [("Where the time goes, ms an image", STAGE_COLUMNS), ("Start, memory and size", COST_COLUMNS)]
    for title, columns in further:
        head, body = _cells(timed, columns)
        if len(head[0]) > 1:
            tables += f"<h3>{title}</h3>\n{table(title, head, body)}"
    return tables + explanation


def _main_columns(report: BenchReport) -> list[Column]:
    return [
        ("", lambda row: "✓" if row.ok else "✗"),
        ("mAP, %", lambda row: percent(row.metric("search", "mAP"))),
        ("top-1, %", lambda row: percent(row.metric("search", "top1"))),
        ("ms an image", lambda row: f"{row.timing.total_ms:.1f}" if row.timing else DASH),
        ("images/s", lambda row: speed(row.timing.fps) if row.timing else DASH),
        ("times PyTorch", lambda row: f"×{found:.2f}" if (found := report.speed_up(row)) else DASH),
        ("call p95, ms", lambda row: f"{row.timing.p95_ms:.1f}" if row.timing else DASH),
        ("call p99, ms", lambda row: f"{row.timing.p99_ms:.1f}" if row.timing else DASH),
        ("people", lambda row: f"{row.timing.people:g}" if row.timing else DASH),
    ]


def _cells(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[list[list[str]], list[tuple[str, list[str]]]]:
    """Head and body of a table, without the columns in which nothing was measured."""
    measured = [row for row in rows if row.ok]
    columns = [one for one in columns if not one[0] or any(one[1](row) != DASH for row in measured)]
    body = [(row_title(row), [cell(row) if row.ok or not title else DASH for title, cell in columns]) for row in rows]
    return [["engine", *(title for title, _ in columns)]], body


def _accuracy(report: BenchReport) -> str:
    names = ("mAP", "top1", "top5", "top10")
    rows: dict[str, list[str]] = {}
    for row in report.rows:
        for group in row.metrics:
            if group.startswith("search"):
                name = f"{row.name} {row.precision}".strip() + f": {search_name(group)}"
                rows[name] = [percent(row.metric(group, one)) for one in names]
    detected = {
        f"{row.name} {row.precision}".strip(): [percent(row.metric("detection", one)) for one in ("ap", "recall")]
        for row in report.rows
        if "detection" in row.metrics
    }
    head = [["search", "mAP, %", "top-1, %", "top-5, %", "top-10, %"]]
    searched = table("Search", head, list(rows.items()))
    return searched + table("Detection", [["detection", "AP, %", "recall, %"]], list(detected.items()))


def _points(report: BenchReport) -> list[Point]:
    """Of every row whose people are those found: a row that embeds others has no accuracy."""
    group = _group(report)
    return [
        Point(row_title(row), row.timing.fps, 100 * value)
        for row in report.rows
        if row.timing is not None and row.workload.people is None and (value := row.metric(group, "mAP")) is not None
    ]


def _group(report: BenchReport) -> str:
    return "search_cbgm" if report.settings.cbgm else "search"


def _speed_section(report: BenchReport, points: list[Point]) -> str:
    """The plot; published figures stand in it where they are of the same test set."""
    accuracy = "mAP with CBGM, %" if report.settings.cbgm else "mAP, %"
    data = report.facts.dataset
    comparable = not _not_comparable(data)
    published, levels = (SPEEDS.get(data.name, []), untimed(data.name)) if comparable else ([], {})
    spoken = "; ".join(f"{point.name} {point.y:.1f} % at {speed(point.x)} FPS" for point in points)
    caption = "Frames a second are of finding the people of an image, without a search."
    if published:
        quoted = "; ".join(f"{p.title} {p.mAP} % at {p.fps} FPS on a {p.gpu}, from {p.source}" for p in published)
        caption += f" Hollow: published, {quoted}, with CBGM. Speeds on other machines do not compare."
    caption += "".join(f" Dotted: {name} {value} %, published without a speed." for name, value in levels.items())
    if comparable:
        caption += f" Fig. 1 of {PAPER} gives other speeds as a plot only; they are not quoted."
    rows = [(p.name, [f"{p.y:.1f}", speed(p.x), f"{1000 / p.x:.1f}"]) for p in points]
    rows += [
        (f"{p.title} (published, {p.gpu})", [f"{p.mAP:.1f}", speed(p.fps), f"{1000 / p.fps:.1f}"]) for p in published
    ]
    rows += [(f"{name} (published)", [f"{value:.1f}", DASH, DASH]) for name, value in levels.items()]
    numbers = table("Accuracy and speed", [["engine", accuracy, "FPS", "ms an image"]], rows)
    alt = f"Accuracy against speed. {spoken}."
    return plots([(speed_chart(points, published, levels, alt, accuracy), caption)], numbers)


def _growth_section(curves: Sequence[GrowthCurve]) -> str:
    kinds = dict.fromkeys(curve.kind for curve in curves)
    lead = (
        "<p>Solid: measured. Dashed: predicted by the multiply-add and byte model, which takes one point as it was "
        "measured and adds what the further work takes on this machine at the share of its roofline reached there "
        "(the gallery's: bytes by the rate of a copy, nothing measured).</p>"
    )
    figures = [_growth_figure(kind, [curve for curve in curves if curve.kind == kind]) for kind in kinds]
    rows = [
        (
            f"{curve.name}: {GROWTH_TITLES[curve.kind][1]} {point.label}",
            [_ms(point.measured_ms), _ms(point.predicted_ms), point.failure],
        )
        for curve in curves
        for point in curve.points
    ]
    return lead + plots(figures, table("Growth", [["point", "measured, ms", "predicted, ms", ""]], rows))


def _growth_figure(kind: str, curves: Sequence[GrowthCurve]) -> tuple[str, str]:
    """The plot of one kind and its caption."""
    title, axis, unit = GROWTH_TITLES[kind]
    drawn = []
    for curve in curves:
        points = [(p.x, p.measured_ms, p.predicted_ms) for p in curve.points if p.measured_ms is not None]
        predicted = [math.nan if p is None else p for _, _, p in points]
        if points:
            drawn.append(Growth(curve.name, [x for x, _, _ in points], [y for _, y, _ in points], predicted))
    left_out = [
        f"{curve.name}: {', '.join(point.label for point in failed)} ({failed[0].failure.rstrip('.')})."
        for curve in curves
        if (failed := [point for point in curve.points if point.failure])
    ]
    why = "; ".join(dict.fromkeys(curve.explanation for curve in curves))
    sentences = [f"{title}. The model: {why}."]
    if ratios := [p.measured_ms / p.predicted_ms for c in curves for p in c.points if p.measured_ms and p.predicted_ms]:
        sentences.append(f"Measured is {min(ratios):.2f} to {max(ratios):.2f} times the prediction.")
    if left_out:
        sentences.append(f"Left out: {' '.join(left_out)}")
    ticks = {p.x: p.label for curve in curves for p in curve.points if any(p.x in one.x for one in drawn)}
    spoken = "; ".join(f"{c.name} from {_ms(c.measured[0])} to {_ms(c.measured[-1])} ms" for c in drawn)
    chart = growth_chart(kind, drawn, (axis, unit), ticks, f"Time over {axis}. {spoken}.") if drawn else ""
    return chart, " ".join(sentences)


def _how(report: BenchReport) -> str:
    entries = dict(line.split(": ", 1) for line in fact_lines(report))
    for row in report.rows:
        if row.roofline:
            ceiling = row.roofline.ceiling
            entries[f"Ceiling, {row.name} {row.precision}"] = (
                f"{ceiling.gmacs_per_s:.0f} GMACs a second in {ceiling.how}; a copy moves "
                f"{ceiling.copy_gb_per_s:.1f} GB a second, read and written ones counted"
            )
    return facts_list(entries) + f"<p>Again: <code>{html.escape(report.settings.command())}</code></p>"


def _stage(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row.timing.stages_ms[name]:.1f}" if row.timing and row.timing.stages_ms else DASH


def _megabytes(size: int | None) -> str:
    return DASH if size is None else f"{size / 1e6:.0f}"


def _ms(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}"


STAGE_COLUMNS: list[Column] = [
    *((title, _stage(name)) for name, title in STAGE_TITLES.items()),
    ("GMACs", lambda row: f"{row.roofline.gmacs:.1f}" if row.roofline else DASH),
    ("of the roofline", lambda row: f"{row.roofline.share:.0%}" if row.roofline else DASH),
]
COST_COLUMNS: list[Column] = [
    ("cold start, ms", lambda row: f"{row.fresh.cold_start_ms:.0f}" if row.fresh else DASH),
    ("memory, MB", lambda row: _megabytes(row.fresh.memory_bytes if row.fresh else None)),
    ("GPU memory, MB", lambda row: _megabytes(row.fresh.gpu_memory_bytes if row.fresh else None)),
    ("file, MB", lambda row: _megabytes(row.size_bytes)),
]
