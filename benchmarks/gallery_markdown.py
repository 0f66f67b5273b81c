"""The gallery benchmark's figures as tables of a Markdown file; `psarm.benchmarks.readme_table` puts them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from psarm.benchmarks.gallery_tables import duration, size
from psarm.benchmarks.notation import DASH, percent

Figures = dict[str, Any]


def growth_table(report: Figures) -> str:
    """A column a gallery; what it took to fill, and how long every way to search took."""
    sizes = report["sizes"]
    rows = [(title, [cell(one) for one in sizes]) for title, cell in _GROWTH.items()]
    for found in sizes[0]["searches"]:
        name = f"{found['level']}, {found['name'].replace('approximate', 'through the index')}"
        rows.append((name, [_search(one["searches"], found) for one in sizes]))
    return _lines("people", [f"{one['people']:,}" for one in sizes], rows)


def costs_table(report: Figures) -> str:
    """A column a way to keep a month of cameras; ≈ where it is more than was measured."""
    cases = report["costs"]["cases"]
    rows = [
        ("people in a frame", [f"{case['people']:g}" for case in cases]),
        ("rows", [f"{sum(case['rows'].values()):,}" for case in cases]),
        ("disk", [size(case["disk_bytes"]) for case in cases]),
        ("times as fast as they come", [f"{case['ingest_headroom']:g}" for case in cases]),
    ]
    named = {(found["level"], found["name"]): None for case in cases for found in case["searches"]}
    rows += [(", ".join(key), [_cost(case["searches"], key) for case in cases]) for key in named]
    titles = [f"{case['name']}, {'people and visits' if case['frames'] else 'visits only'}" for case in cases]
    return _lines("cameras, kept", titles, rows)


_GROWTH: dict[str, Callable[[Figures], str]] = {
    "visits": lambda one: f"{one['visits']:,}",
    "filling, people a second": lambda one: f"{one['filling']['rows_per_second']:,.0f}",
    "memory of the writer": lambda one: size(one["filling"]["peak_memory_bytes"]),
    "disk: people of frames": lambda one: size(one["data_bytes"]["people"]),
    "disk: visits, with pictures": lambda one: size(one["data_bytes"]["visits"]),
    "compaction": lambda one: duration(1000 * one["compaction"]["seconds"]),
    "index: disk": lambda one: size(sum(one["index"]["bytes"].values()) or None),
    "index: building": lambda one: _building(one["index"]),
    "index: hits found of people, of visits": lambda one: _recall(one["index"]),
}


def _building(index: Figures) -> str:
    return duration(1000 * sum(table["build_s"] for table in index["tables"])) if index["bytes"] else DASH


def _recall(index: Figures) -> str:
    """Which share of the exact hits it finds, table by table."""
    shares = [percent(table["recall"]) for table in index["tables"]]
    return ", ".join(share if share == DASH else f"{share} %" for share in shares)


def _search(searches: Iterable[Figures], wanted: Figures) -> str:
    found = next(one for one in searches if (one["level"], one["name"]) == (wanted["level"], wanted["name"]))
    return f"{duration(found['p50_ms'])} ({duration(found['p99_ms'])})"


def _cost(searches: Iterable[Figures], key: tuple[str, str]) -> str:
    found = next((one for one in searches if (one["level"], one["name"]) == key), None)
    if found is None:
        return DASH
    return ("≈ " if found["extrapolated"] else "") + duration(found["p50_ms"])


def _lines(corner: str, titles: list[str], rows: Iterable[tuple[str, list[str]]]) -> str:
    head = [f"| {corner} | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(titles)]
    return "\n".join([*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)]) + "\n"
