"""The gallery benchmark's figures as a person reads them; the JSON has the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from psarm.benchmarks.notation import DASH, percent
from psarm.console import out, print_whole

Figures = dict[str, Any]


def print_report(report: Figures) -> None:
    """Print what was measured, and what follows for a month of cameras."""
    print_whole(_galleries(report["sizes"]), out)
    print_whole(_searches(report["sizes"]), out)
    costs = report["costs"]
    out.print(
        f"A month ({costs['days']} days) of {costs['cameras']} cameras, {costs['frames_per_second']:g} frames a "
        f"second, {costs['rows_per_visit']} rows a visit; ≈: beyond the {costs['measured_rows']:,} rows measured",
        style="italic",
        soft_wrap=True,
    )
    print_whole(_costs(costs["cases"]), out)


def size(count: float | None) -> str:
    """Bytes in MB or GB (powers of ten)."""
    if count is None:
        return DASH
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count / 1e6:.1f} MB"


def duration(milliseconds: float | None) -> str:
    """Milliseconds as ms, s or minutes."""
    if milliseconds is None:
        return DASH
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds / 1000:.2f} s" if milliseconds < 120_000 else f"{milliseconds / 60_000:.1f} min"


def _table(*titles: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _galleries(sizes: Iterable[Figures]) -> Table:
    table = _table(
        "rows", "visits", "ingest, rows/s", "5 s of cameras", "writer's memory", "people", "visits",
        "compaction", "frees", "index", "built in",
    )  # fmt: skip
    for one in sizes:
        filling, compaction, index = one["filling"], one["compaction"], one["index"]
        live = filling["live_commit_ms"]
        table.add_row(
            f"{one['people']:,}",
            f"{one['visits']:,}",
            f"{filling['rows_per_second']:,.0f}",
            DASH if live is None else duration(live[0]),
            size(filling["peak_memory_bytes"]),
            size(one["data_bytes"]["people"]),
            size(one["data_bytes"]["visits"]),
            duration(1000 * compaction["seconds"]),
            size(compaction["bytes"][0] - compaction["bytes"][-1]),
            size(sum(index["bytes"].values()) or None),
            duration(1000 * sum(table["build_s"] for table in index["tables"])) if index["bytes"] else DASH,
        )
    return table


def _searches(sizes: Iterable[Figures]) -> Table:
    table = _table("search", "rows", "p50", "p99", "queries", "cold", "recall@10, %", "memory")
    for one in sizes:
        for found in one["searches"]:
            cold = sorted(found["cold_ms"])
            table.add_row(
                f"{found['level']}, {found['name']}",
                f"{one['people']:,}",
                duration(found["p50_ms"]),
                duration(found["p99_ms"]),
                str(found["queries"]),
                duration(cold[len(cold) // 2] if cold else None),
                percent(found.get("recall")),
                size(found["peak_memory_bytes"]),
            )
    return table


def _costs(cases: Iterable[Figures]) -> Table:
    table = _table("cameras", "people a frame", "kept", "rows", "disk", "ingest headroom", *_SEARCHES)
    for case in cases:
        times = {(found["level"], found["name"]): found for found in case["searches"]}
        table.add_row(
            case["name"],
            f"{case['people']:g}",
            "frames and visits" if case["frames"] else "visits",
            f"{sum(case['rows'].values()):,}",
            size(case["disk_bytes"]),
            f"{case['ingest_headroom']:g} x",
            *(_scaled(times.get(key)) for key in _SEARCHES.values()),
        )
    return table


_SEARCHES = {
    "visits": ("visits", "exact"),
    "visits, an hour": ("visits", "exact, an hour of a camera"),
    "frames": ("frames", "exact"),
    "frames, an hour": ("frames", "exact, an hour of a camera"),
}


def _scaled(found: Figures | None) -> str:
    if found is None:
        return DASH
    return ("≈ " if found["extrapolated"] else "") + duration(found["p50_ms"])
