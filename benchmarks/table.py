"""The report as a person reads it: tables that fit 80 columns, and the facts below; JSON and HTML have the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from psarm.benchmarks.growth_curves import GrowthCurve
from psarm.benchmarks.notation import DASH, percent, speed
from psarm.benchmarks.report import BenchReport, Metrics, Row
from psarm.benchmarks.workloads import row_name, size_name
from psarm.console import print_whole

SEARCH = "search"
WAYS = {"cross_camera": "in other cameras", "gt_boxes": "among ground-truth boxes"}
STAGE_TITLES = {"preprocess": "prep", "detect": "detect", "nms": "NMS", "reid": "re-id", "post": "post"}
VERSIONS = ("psarm", "python", "torch", "onnxruntime", "openvino", "numpy", "opencv")


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Row], str]


def print_report(report: BenchReport, console: Console) -> None:
    """Print accuracy and speed, where the time goes, other ways of searching, what failed, and the facts."""
    console.print("Accuracy in %", style="italic")
    print_whole(_table(_accuracy_columns(report), _engines(report)), console)
    console.print("Speed, ms an image", style="italic")
    print_whole(_table(_speed_columns(report), {row_title(row): row for row in report.rows}), console)
    timed = {row_title(row): row for row in report.rows if row.timing is not None}
    if timed:
        console.print("Where the time goes, ms an image", style="italic")
        print_whole(_table(_time_columns(report), timed), console)
    searches = _searches(report)
    if searches.row_count:
        print_whole(searches, console)
    for curve in report.growth:
        print_whole(_growth(curve), console)
    for line in [*unsettled_lines(report), *_failures(report), *report.notes, *fact_lines(report)]:
        console.print(line, markup=False, soft_wrap=True)


def print_metrics(metrics: Metrics, console: Console) -> None:
    """Print what `score_detections` gave: a row for every way of searching."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("accuracy in %", no_wrap=True)
    for title in ("mAP", "top-1", "top-5", "top-10"):
        table.add_column(title, justify="right")
    for group, values in metrics.items():
        if group.startswith(SEARCH):
            table.add_row(search_name(group), *(percent(values[key]) for key in ("mAP", "top1", "top5", "top10")))
    console.print(table)
    detection = metrics["detection"]
    console.print(f"Detection: AP {percent(detection['ap'])} %, recall {percent(detection['recall'])} %")


def search_name(group: str) -> str:
    """What a group of metrics is, in words: `search_100_cbgm` → search in gallery 100 with CBGM."""
    words = [SEARCH]
    gallery = group.removeprefix(SEARCH).removesuffix("_cbgm").removeprefix("_")
    if gallery:
        words.append(WAYS.get(gallery) or f"in gallery {gallery}")
    return " ".join([*words, "with CBGM"] if group.endswith("_cbgm") else words)


def row_title(row: Row) -> str:
    """Engine, precision and workload in words: `openvino int8, batch 4, 20 people, 1920x1080`."""
    work = row.workload
    return row_name(row.name, row.precision, work.batch, work.people, size_name(work.size))


def _engines(report: BenchReport) -> dict[str, Row]:
    """What accuracy is measured once of, by name: a row that runs where there is one."""
    engines: dict[str, Row] = {}
    for row in report.rows:
        name = f"{row.name} {row.precision}".strip()
        if name not in engines or (row.ok and not engines[name].ok):
            engines[name] = row
    return engines


def _table(columns: list[_Column], rows: Mapping[str, Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("engine", overflow="fold")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for title, row in rows.items():
        cells = [column.cell(row) if row.ok else DASH for column in columns]
        table.add_row(Text(title), "✅" if row.ok else "❌", *cells)
    return table


def _accuracy_columns(report: BenchReport) -> list[_Column]:
    columns = [
        _Column("mAP", lambda row: percent(row.metric(SEARCH, "mAP"))),
        _Column("top-1", lambda row: percent(row.metric(SEARCH, "top1"))),
        _Column("AP", lambda row: percent(row.metric("detection", "ap"))),
    ]
    if report.reference is not None:
        columns.append(_Column("ΔmAP", lambda row: _signed(report.map_difference(row))))
    return columns


def _speed_columns(report: BenchReport) -> list[_Column]:
    columns = [
        _Column("ms", lambda row: _number(row.timing.total_ms if row.timing else None)),
        _Column("p95", lambda row: _number(row.timing.p95_ms if row.timing else None)),
        _Column("FPS", lambda row: speed(row.timing.fps) if row.timing else DASH),
    ]
    if report.reference is not None:
        columns.append(_Column("speed", lambda row: _times(report.speed_up(row))))
    if any(row.fresh for row in report.rows):
        columns.append(_Column("RSS MB", lambda row: _megabytes(row.fresh.memory_bytes if row.fresh else None)))
    return columns


def _time_columns(report: BenchReport) -> list[_Column]:
    columns = [_stage(name) for name in STAGE_TITLES]
    if any(row.fresh for row in report.rows):
        columns.append(_Column("cold", lambda row: _whole(row.fresh.cold_start_ms if row.fresh else None)))
    if any(row.roofline for row in report.rows):
        columns.append(_Column("roof", lambda row: f"{row.roofline.share:.0%}" if row.roofline else DASH))
    return columns


def _other_searches(metrics: Metrics) -> list[str]:
    return [group for group in metrics if group.startswith(SEARCH) and group != SEARCH]


def _searches(report: BenchReport) -> Table:
    """Other ways of searching, each once for every engine; in other cameras only where that was asked for."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("engine", overflow="fold")
    table.add_column("", overflow="fold")
    for title in ("mAP", "top-1", "top-5", "top-10"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in _engines(report).items():
        for group in _other_searches(row.metrics):
            if group == "search_cross_camera" and not report.settings.cross_camera:
                continue
            cells = [percent(row.metric(group, key)) for key in ("mAP", "top1", "top5", "top10")]
            table.add_row(Text(name), search_name(group), *cells)
    return table


def _growth(curve: GrowthCurve) -> Table:
    """A curve's points; what could not be measured says why."""
    title = f"Growing {curve.kind}: {curve.name}, ms"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title), title_justify="left")
    table.add_column(curve.kind, justify="right", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("predicted", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for point in curve.points:
        table.add_row(point.label, _number(point.measured_ms), _number(point.predicted_ms), Text(point.failure))
    return table


def _stage(name: str) -> _Column:
    def cell(row: Row) -> str:
        stages = row.timing.stages_ms if row.timing else None
        return _number(stages[name] if stages else None)

    return _Column(STAGE_TITLES[name], cell)


def _signed(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:+.2f}"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _whole(value: float | None) -> str:
    return DASH if value is None else f"{value:.0f}"


def _megabytes(size: int | None) -> str:
    return DASH if size is None else f"{size / 1e6:.0f}"


def _times(value: float | None) -> str:
    return DASH if value is None else f"×{value:.2f}"


def _failures(report: BenchReport) -> list[str]:
    return [f"❌ {row_title(row)}: {row.failure}" for row in report.rows if not row.ok]


def unsettled_lines(report: BenchReport) -> list[str]:
    """Which rows' times would come out otherwise in another run, and why; nothing where there are none."""
    found = [f"{row_title(row)} ({why})" for row in report.rows if row.timing and (why := row.timing.unsettled)]
    return [f"⚠ Unsettled, run again on an idle machine or with more --frames: {'; '.join(found)}."] if found else []


def threads_of(report: BenchReport) -> str:
    """`2 CPU threads`."""
    return f"{report.facts.threads} CPU thread{'s' if report.facts.threads > 1 else ''}"


def fact_lines(report: BenchReport) -> list[str]:
    """`Data: …`, `Time: …` and so on: what was measured how, on what."""
    facts = report.facts
    machine, data = facts.machine, facts.dataset
    versions = [f"{name} {facts.versions[name]}" for name in VERSIONS if facts.versions.get(name)]
    commit = f", commit {facts.commit}" if facts.commit else ""
    return [
        f"Data: {data.name}{' (drawn by psarm data synth)' if data.drawn else ''} at {data.root}: "
        f"{data.gallery_frames} gallery frames of {' and '.join(data.image_sizes)}, {data.people_per_frame:g} "
        f"people in a frame (median), {data.queries} queries, default gallery {data.default_gallery}",
        f"Time: medians over {min(report.settings.frames, data.gallery_frames)} gallery frames, of each stage by "
        "itself, engines interleaved after warm-up, one image at a time unless a batch is named, "
        f"{threads_of(report)} each; decoding the file is not in it; p95: of a call; cold: ms from opening to the "
        "first result; roof: share of the roofline",
        f"Machine: {machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.1f} GiB, {machine.system}"
        + "".join(f", {gpu}" for gpu in machine.gpus),
        f"Versions: {', '.join(versions)}; {facts.date}{commit}",
    ]
