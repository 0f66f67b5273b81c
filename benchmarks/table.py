"""The report as a person reads it: one table, a row for every engine, and the facts below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from psarm.benchmarks.facts import Facts
from psarm.benchmarks.notation import DASH
from psarm.benchmarks.report import BenchReport, Metrics, Row
from psarm.console import fits, print_whole
from psarm.runtime.timing import STAGES

SEARCH = "search"
WAYS = {"cross_camera": "in other cameras", "gt_boxes": "among ground-truth boxes"}
STAGE_TITLES = {"preprocess": "prep", "detect": "detect", "nms": "NMS", "reid": "re-id", "post": "post"}
VERSIONS = ("psarm", "python", "torch", "onnxruntime", "openvino", "numpy", "opencv")


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Row], str]


def print_report(report: BenchReport, console: Console) -> None:
    """Print the table, what failed, and the facts; several tables one below the other on a narrow terminal."""
    accuracy, speed = _accuracy_columns(report), _speed_columns(report)
    everything = _table(report, [*accuracy, *speed])
    console.print("Accuracy in %, time in ms an image", style="italic")
    if fits(everything, console):
        print_whole(everything, console)
    else:
        for table in [*_fitting(report, accuracy, console), *_fitting(report, speed, console)]:
            console.print(table)
    for line in [*_failures(report), *_fact_lines(report.facts, report.settings.frames)]:
        console.print(line, markup=False, soft_wrap=True)


def print_metrics(metrics: Metrics, console: Console) -> None:
    """Print what `score_detections` gave: a row for every way of searching."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("accuracy in %", no_wrap=True)
    for title in ("mAP", "top-1", "top-5", "top-10"):
        table.add_column(title, justify="right")
    for group, values in metrics.items():
        if group.startswith(SEARCH):
            table.add_row(_search_name(group), *(_percent(values[key]) for key in ("mAP", "top1", "top5", "top10")))
    console.print(table)
    detection = metrics["detection"]
    console.print(f"Detection: AP {_percent(detection['ap'])} %, recall {_percent(detection['recall'])} %")


def _search_name(group: str) -> str:
    """What a group of metrics is, in words: `search_100_cbgm` → search in gallery 100 with CBGM."""
    words = [SEARCH]
    gallery = group.removeprefix(SEARCH).removesuffix("_cbgm").removeprefix("_")
    if gallery:
        words.append(WAYS.get(gallery) or f"in gallery {gallery}")
    return " ".join([*words, "with CBGM"] if group.endswith("_cbgm") else words)


def _table(report: BenchReport, columns: list[_Column]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for title in ("engine", "", "device", "precision"):
        table.add_column(title, no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for row in report.rows:
        cells = [column.cell(row) if row.ok else DASH for column in columns]
        device = row.device.partition(",")[0]  # the threads are the same for all, and stand below
        table.add_row(Text(row.name), "✅" if row.ok else "❌", device or DASH, row.precision or DASH, *cells)
    return table


def _fitting(report: BenchReport, columns: list[_Column], console: Console) -> list[Table]:
    """As many tables as it takes to keep each within the console's width."""
    parts: list[list[_Column]] = [[]]
    for column in columns:
        if parts[-1] and not fits(_table(report, [*parts[-1], column]), console):
            parts.append([])
        parts[-1].append(column)
    return [_table(report, part) for part in parts]


def _accuracy_columns(report: BenchReport) -> list[_Column]:
    cbgm = report.settings.cbgm
    shown = [(SEARCH, "")]
    shown += [("search_cbgm", "\nCBGM")] if cbgm else []
    for size in dict.fromkeys(report.settings.gallery_sizes):
        shown += [(f"search_{size}", f"\ngallery {size}")]
        shown += [(f"search_{size}_cbgm", f"\ngallery {size}\nCBGM")] if cbgm else []
    shown += [("search_cross_camera", "\nother cam.")] if report.settings.cross_camera else []
    shown += [("search_gt_boxes", "\nGT boxes")] if report.settings.gt_boxes else []
    columns = [_Column("MB", lambda row: DASH if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f}")]
    for group, suffix in shown:
        columns += [_metric(f"mAP{suffix}", group, "mAP"), _metric(f"top-1{suffix}", group, "top1")]
    columns += [_metric("AP\ndetection", "detection", "ap"), _metric("recall", "detection", "recall")]
    if report.reference is not None:
        columns.append(_Column("ΔmAP", lambda row: _signed(report.map_difference(row))))
    return columns


def _speed_columns(report: BenchReport) -> list[_Column]:
    columns = [_stage(name) for name in STAGES]
    columns.append(_Column("total", lambda row: _number(row.timing.total_ms if row.timing else None)))
    columns.append(_Column("FPS", lambda row: _number(row.timing.fps if row.timing else None)))
    if report.reference is not None:
        columns.append(_Column("speed", lambda row: _times(report.speed_up(row))))
    return columns


def _metric(title: str, group: str, name: str) -> _Column:
    return _Column(title, lambda row: _percent(row.metric(group, name)))


def _stage(name: str) -> _Column:
    def cell(row: Row) -> str:
        stages = row.timing.stages_ms if row.timing else None
        return _number(stages[name] if stages else None)

    return _Column(STAGE_TITLES[name], cell)


def _percent(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.1f}"


def _signed(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:+.2f}"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _times(value: float | None) -> str:
    return DASH if value is None else f"×{value:.2f}"


def _failures(report: BenchReport) -> list[str]:
    return [f"❌ {row.name} {row.precision}".rstrip() + f": {row.failure}" for row in report.rows if not row.ok]


def _fact_lines(facts: Facts, frames: int) -> list[str]:
    machine, data = facts.machine, facts.dataset
    versions = [f"{name} {facts.versions[name]}" for name in VERSIONS if facts.versions.get(name)]
    threads = f"{facts.threads} CPU thread{'s' if facts.threads > 1 else ''} each"
    commit = f", commit {facts.commit}" if facts.commit else ""
    return [
        f"Data: {data.name} at {data.root}: {data.gallery_frames} gallery frames of {' and '.join(data.image_sizes)}, "
        f"{data.people_per_frame:g} people in a frame (median), {data.queries} queries, "
        f"default gallery {data.default_gallery}",
        f"Time: medians over {min(frames, data.gallery_frames)} gallery frames, engines interleaved after warm-up, "
        f"one image at a time, {threads}; decoding the file is not in it",
        f"Machine: {machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.1f} GiB, {machine.system}"
        + "".join(f", {gpu}" for gpu in machine.gpus),
        f"Versions: {', '.join(versions)}; {facts.date}{commit}",
    ]
