"""What a month of many cameras costs, on paper: from the figures of the largest gallery that was measured.

Disk grows with the rows. An exact search looks at all of them: where there are more than were measured, its time is on
the line through the smallest and the largest gallery measured, and marked as such. What no longer fits into memory is
slower still. An index for so many rows would be built with other settings: nothing is said on approximate searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CAMERAS = 100
DAYS = 30
RATE = 2.0
"""Frames a second that are indexed."""
Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """How busy the cameras are, and what is kept."""

    name: str
    people: float
    """In a frame, on average over day and night."""
    frames: bool
    """Whether every frame's people are kept; without, only visits are."""


CASES = tuple(Case(name, people, frames) for name, people in (("busy", 4.0), ("calm", 0.4)) for frames in (True, False))


def month_costs(sizes: Sequence[Figures]) -> Figures:
    """Assumptions, and for each of `CASES` rows, disk, how much faster writing is than the cameras, and search.

    `sizes` are those of `gallery_scale`, at least one.
    """
    smallest, largest = (pick(sizes, key=lambda size: float(size["people"])) for pick in (min, max))
    return {
        "cameras": CAMERAS,
        "days": DAYS,
        "frames_per_second": RATE,
        "rows_per_visit": round(largest["people"] / largest["visits"], 1),
        "bytes_per_row": {table: round(_bytes_a_row(largest, table)) for table in ("people", "visits")},
        "measured_rows": largest["people"],
        "cases": [asdict(case) | _cost(case, smallest, largest) for case in CASES],
    }


def _cost(case: Case, smallest: Figures, measured: Figures) -> Figures:
    per_second = CAMERAS * RATE * case.people
    people = round(per_second * 86400 * DAYS)
    growth = people / measured["people"]
    tables = {"visits": round(growth * measured["visits"])} | ({"people": people} if case.frames else {})
    # Of visits alone there are no frames to search in, and no people walking along for CBGM.
    searches = [
        _search(small, found, smallest["people"] / measured["people"], growth)
        for small, found in zip(smallest["searches"], measured["searches"], strict=True)
        if not found["approximate"] and (case.frames or (found["level"] == "visits" and not found["cbgm"]))
    ]
    return {
        "rows": tables,
        "disk_bytes": round(sum(rows * _bytes_a_row(measured, table) for table, rows in tables.items())),
        "rows_per_second": per_second,
        "ingest_headroom": round(measured["filling"]["rows_per_second"] / per_second, 1),
        "searches": searches,
    }


def _search(small: Figures, large: Figures, start: float, growth: float) -> Figures:
    """Milliseconds of a warm exact search in `growth` times the rows of `large`; `small` has `start` of them."""
    # Of one gallery alone the time goes through 0.
    slope = (large["p50_ms"] - small["p50_ms"]) / (1 - start) if start < 1 else large["p50_ms"]
    return {
        "level": large["level"],
        "name": large["name"],
        "p50_ms": round(large["p50_ms"] + max(0.0, slope) * max(0.0, growth - 1), 1),
        "extrapolated": growth > 1,
        "times_the_rows_measured": round(growth, 2),
    }


def _bytes_a_row(measured: Figures, table: str) -> float:
    return float(measured["data_bytes"][table] / measured[table])
