"""The report as tables, and whether the goals are reached."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from psarm.benchmarks.gpu.journal import Row, is_right
from psarm.console import print_whole

DASH = "–"
GOALS = {
    "network, batch 1": ("ms", 2.2),
    "best batch": ("frames/s", 450.0),
    "frame in host memory to Detections": ("ms", 4.0),
    "times as fast as the literal model, eager FP16": ("×", 4.0),
}
"""On an H200, 16 bits, a frame of 1080x1920: at most so many ms, at least so many of the others."""


def goals(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each goal with what was reached; `reached` is None where nothing was measured, or a tiny model."""
    rows = [row for row in report["rows"] if is_right(row) and row["precision"] in ("fp16", "bf16")]
    network = [row for row in rows if row["name"].startswith("rewrites")]
    people = report.get("subject", {}).get("people")
    single = [row for row in network if row["batch"] == 1 and row["people"] == people]
    literal = [row for row in rows if row["group"] == "batch 1" and row["name"].startswith("literal")]
    engines = [row for row in rows if row["group"] == "end to end" and row["name"].startswith("engine")]
    fastest = min((row["ms"] for row in single), default=None)
    slowest = min((row["ms"] for row in literal), default=None)
    found = (
        fastest,
        max((row["frames_per_second"] for row in network), default=None),
        min((row["ms"] for row in engines if row["batch"] == 1), default=None),
        slowest / fastest if slowest and fastest else None,
    )
    judged = []
    for (name, (unit, limit)), value in zip(GOALS.items(), found, strict=True):
        reached = None
        if value is not None and not report["tiny"]:
            reached = value <= limit if unit == "ms" else value >= limit
        judged.append({"goal": name, "unit": unit, "limit": limit, "value": value, "reached": reached})
    return judged


def print_report(report: dict[str, Any], console: Console) -> None:
    """All tables."""
    console.print(f"{report['device']}, {report['date']}, commit {report['commit']}", soft_wrap=True)
    print_whole(_rows_table(report["rows"]), console)
    for name, stages in report.items():
        if name.startswith("stages"):
            print_whole(_stages_table(name, stages), console)
    if "profile" in report:
        print_whole(_kernels_table(report["profile"]), console)
    print_whole(_goals_table(report["goals"]), console)
    for left in report["skipped"]:
        console.print(
            f"skipped: {left['what']} (takes {left['needs_seconds']:.0f} s, {left['left_seconds']} s were left)"
        )


def _rows_table(rows: list[Row]) -> Table:
    table = _table("", "group", "name", "precision")
    for heading in ("batch", "people", "ms", "frames/s", "of GEMM", "features dB", "embeddings dB", "peak MB"):
        table.add_column(heading, justify="right")
    table.add_column("stages, accuracy or reason")
    for row in rows:
        table.add_row(
            "❌" if "failure" in row or ("ms" in row and not is_right(row)) else "✅",
            row["group"],
            row["name"],
            row.get("precision", DASH),
            *(_whole(row.get(key)) for key in ("batch", "people")),
            _number(row.get("ms"), 3),
            _number(row.get("frames_per_second"), 1),
            _share(row.get("share_of_gemm")),
            *(_number(row.get(key), 0) for key in ("features_db", "embeddings_db")),
            _whole(row.get("peak_mb")),
            _remark(row),
        )
    return table


def _remark(row: Row) -> str:
    if "failure" in row:
        return str(row["failure"])
    if "metrics" in row:
        search = row["metrics"]["search"]
        text = f"mAP {100 * search['mAP']:.2f} top-1 {100 * search['top1']:.2f}"
        matched = row.get("matched")
        return text + (f", matched {100 * matched['share']:.1f} %" if matched else "")
    parts = [f"{name} {ms:.2f}" for name, ms in row.get("stages_ms", {}).items()]
    parts += [] if row.get("exact", True) else ["proposals not exact"]
    return ", ".join([*parts, *row.get("warnings", [])])


def _stages_table(title: str, stages: dict[str, Any]) -> Table:
    table = _table("part", title=f"{title}: {stages['name']}")
    for heading in ("ms", "GMAC", "of GEMM"):
        table.add_column(heading, justify="right")
    for name, part in stages["parts"].items():
        table.add_row(name, _number(part["ms"], 3), _number(part["gmacs"], 2), _share(part.get("share_of_gemm")))
    return table


def _kernels_table(profile: dict[str, Any]) -> Table:
    table = _table("kernel", title=f"where the time goes: {profile['name']}")
    for heading in ("µs", "calls", "share"):
        table.add_column(heading, justify="right")
    for row in profile["kernels"]:
        table.add_row(row["kernel"][:100], _number(row["us"], 1), _number(row["calls"], 0), _share(row["share"]))
    return table


def _goals_table(judged: list[dict[str, Any]]) -> Table:
    table = _table("", "goal", title="goals on an H200")
    table.add_column("reached", justify="right")
    table.add_column("wanted", justify="right")
    for goal in judged:
        sign = {True: "✅", False: "❌", None: DASH}[goal["reached"]]
        wanted = f"{'≤' if goal['unit'] == 'ms' else '≥'} {goal['limit']:g} {goal['unit']}"
        table.add_row(sign, goal["goal"], _number(goal["value"], 2), wanted)
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD, title=title, title_justify="left")
    return table


def _number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _whole(value: int | None) -> str:
    return DASH if value is None else str(value)


def _share(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"
