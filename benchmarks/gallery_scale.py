"""What a gallery takes as it grows: filling, disk, memory, compaction, exact and approximate search.

    python -m psarm.benchmarks.gallery_scale --rows 10000 --rows 1000000 --rows 10000000 --work DIR \
        --json benchmarks/results/gallery_scale.json

Galleries are filled through the writer with synthetic people (`psarm.benchmarks.gallery_rows`). Every step is a process
of its own. What was done stays in DIR: a filling that was broken off goes on, and a step that was measured is not
measured again.

Warm searches follow one another in a process. Cold ones are the first of a process that has just started, the
gallery's files not in memory before; they count from the opening of the gallery to the answer.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.gallery_costs import month_costs
from psarm.benchmarks.gallery_rows import SPREAD, Scenery
from psarm.benchmarks.gallery_steps import GALLERY, NOTES, Figures, evict, in_fresh_process, size_of
from psarm.benchmarks.gallery_tables import print_report
from psarm.benchmarks.script import run
from psarm.console import err
from psarm.errors import PsarmError, UsageError
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions
from psarm.runtime.gallery.ann import IndexKind

BYTES_A_ROW = 1400
"""Of a filled gallery, with visits and thumbnails."""
ROOM = 2.5
"""So many times a gallery's size is needed: a compaction keeps what it replaces for an hour."""
LEVELS = ("visits", "frames")
Step = Callable[..., Figures]


@dataclass(frozen=True)
class Way:
    """A way to search."""

    level: str
    approximate: bool = False
    filtered: bool = False
    cbgm: bool = False

    @property
    def name(self) -> str:
        """In words."""
        words = ["approximate" if self.approximate else "exact"]
        return ", ".join(
            [*words, *(["an hour of a camera"] if self.filtered else []), *(["CBGM"] if self.cbgm else [])]
        )


EXACT = [
    Way(level, False, filtered, cbgm)
    for level in LEVELS
    for filtered, cbgm in ((False, False), (True, False), (False, True))
]
APPROXIMATE = [Way(level, True) for level in LEVELS]
"""With a filter that leaves no more than `nearest.FEW` rows, as an hour of a camera, these are searched exactly."""


@dataclass(frozen=True)
class Settings:
    """How searches are measured."""

    queries: int = 100
    budget_s: float = 60.0
    """Of each way to search: no further queries after it, though at least one warm one."""
    cold: int = 3
    """Processes started for the cold searches."""
    index: IndexKind = "IVF_SQ"


class Size:
    """The measurements of a gallery of one size, kept in a folder."""

    def __init__(self, folder: Path, scenery: Scenery, settings: Settings, step: Step = in_fresh_process) -> None:
        """Raises `UsageError` where the folder holds other measurements."""
        self.folder, self.scenery, self.settings, self._step = folder, scenery, settings, step
        folder.mkdir(parents=True, exist_ok=True)
        asked = {"scenery": asdict(scenery), "spread": asdict(SPREAD)}
        path = folder / "scenery.json"
        if not path.exists():
            write_json(path, asked)
        elif json.loads(path.read_text()) != json.loads(json.dumps(asked)):
            raise UsageError(f"{folder} was filled with other settings; give another --work, or remove it.")

    def measure(self) -> Figures:
        """All steps; those that were measured are read."""
        self.check_room()
        arguments = {"folder": str(self.folder), "scenery": asdict(self.scenery)}
        self._kept("filled", lambda: self._step("fill", **arguments))
        compaction = self._kept("compaction", lambda: self._step("compact", folder=str(self.folder)))
        counted = self._kept("counted", lambda: self._step("count", folder=str(self.folder)))
        exact = {way: self._search(way) for way in EXACT}
        self._forget_other_index()
        index = self._kept("index", lambda: self._step("index", folder=str(self.folder), kind=self.settings.index))
        approximate = {way: self._search(way) for way in APPROXIMATE}
        compared = {way: found | recall_of(way, found, exact) for way, found in approximate.items()}
        return {
            "scenery": asdict(self.scenery),
            "people": counted["people"],
            "visits": counted["visits"],
            "filling": self._filling(),
            "data_bytes": counted["bytes"],
            "info_ms": counted["info_ms"],
            "compaction": compaction,
            "index": index,
            "searches": [
                asdict(way) | {"name": way.name} | {key: value for key, value in found.items() if key != "found"}
                for way, found in (exact | compared).items()
            ],
        }

    def check_room(self) -> None:
        """Raise `PsarmError` where the disk is too full for what is to be filled."""
        there = size_of(self.folder)
        needed = round(ROOM * BYTES_A_ROW * self.scenery.rows) - there
        free = shutil.disk_usage(self.folder).free
        if not (self.folder / "filled.json").exists() and needed > free:
            raise PsarmError(
                f"A gallery of {self.scenery.rows:,} rows needs {needed / 1e9:.1f} GB more in {self.folder}, and "
                f"{free / 1e9:.1f} GB are free; give a --work with more room, or fewer --rows."
            )

    def _kept(self, name: str, make: Callable[[], Figures]) -> Figures:
        """What is in a file; made and written where it is not."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            err.print(f"{self.scenery.rows:,} rows: {name.replace('_', ' ')} …")
            write_json(path, {**make(), "measured": datetime.now(UTC).isoformat(timespec="seconds")})
        found: Figures = json.loads(path.read_text())
        return found

    def _forget_other_index(self) -> None:
        """A gallery has one index: where another kind is asked for now, what was measured with the one before goes."""
        path = self.folder / "index.json"
        if path.exists() and json.loads(path.read_text())["kind"] != self.settings.index:
            for old in [*self.folder.glob("search_*_approximate*.json"), path]:
                old.unlink()

    def _search(self, way: Way) -> Figures:
        words = [way.level, "approximate" if way.approximate else "exact"]
        name = "_".join(["search", *words, *(["filtered"] if way.filtered else []), *(["cbgm"] if way.cbgm else [])])
        return self._kept(name, lambda: self._searched(way))

    def _searched(self, way: Way) -> Figures:
        gallery = self.folder / GALLERY
        asked = {"folder": str(self.folder), "scenery": asdict(self.scenery), "way": asdict(way)}
        cold: list[Figures] = []
        for _ in range(self.settings.cold):
            if not evict(gallery):
                break
            cold.append(self._step("search", **asked, queries=1, budget_s=0.0))
        warm = self._step("search", **asked, queries=self.settings.queries, budget_s=self.settings.budget_s)
        return {
            "cold_ms": [round(one["open_ms"] + one["first_ms"], 1) for one in cold],
            "import_ms": round(warm["import_ms"], 1),
            "open_ms": round(warm["open_ms"], 1),
            "queries": len(warm["warm_ms"]),
            "p50_ms": round(float(np.percentile(warm["warm_ms"], 50)), 2),
            "p99_ms": round(float(np.percentile(warm["warm_ms"], 99)), 2),
            "peak_memory_bytes": warm["peak_memory_bytes"],
            "found": warm["found"],
        }

    def _filling(self) -> Figures:
        """Rates of what is in the notes."""
        notes = [json.loads(line) for line in (self.folder / NOTES).read_text().splitlines()]
        seconds, rows = sum(note["committing_s"] for note in notes), sum(note["rows"] for note in notes)
        live = [one for note in notes for one in note["live_ms"]]
        row_bytes = 4 * self.scenery.embedding_dim
        return {
            "rows": rows,
            "commits": sum(note["commits"] for note in notes),
            "committing_s": round(seconds, 2),
            "drawing_s": round(sum(note["drawing_s"] for note in notes), 2),
            "rows_per_second": round(rows / seconds, 1),
            "embedding_megabytes_per_second": round(rows * row_bytes / seconds / 1e6, 2),
            # As the gallery grew, so many commits at a time.
            "rows_per_second_by_note": [round(note["rows"] / note["committing_s"], 1) for note in notes],
            "live_commits": len(live),
            "live_commit_ms": [round(float(value), 1) for value in np.percentile(live, [50, 100])] if live else None,
            "peak_memory_bytes": max((note["peak_memory_bytes"] or 0 for note in notes), default=0) or None,
            "peak_disk_bytes": max(note["disk_bytes"] for note in notes),
        }


def recall_of(way: Way, found: Figures, exact: dict[Way, Figures]) -> Figures:
    """Share of the exact search's hits that an approximate one has, over the queries that both did."""
    pairs = zip(found["found"], exact[Way(way.level, False, way.filtered)]["found"], strict=False)
    shares = [sum(hit in hits for hit in expected) / len(expected) for hits, expected in pairs if expected]
    return {"recall": round(float(np.mean(shares)), 4) if shares else None, "recall_queries": len(shares)}


def report_of(sizes: list[Figures], settings: Settings, load: list[float]) -> dict[str, Any]:
    """Everything measured, where and when, and what follows from it."""
    return {
        "command": shlex.join(["python", "-m", "psarm.benchmarks.gallery_scale", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
        "machine": asdict(describe_machine()),
        "versions": package_versions(),
        "load_average": load,
        "settings": asdict(settings),
        "sizes": sizes,
        "costs": month_costs(sizes),
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rows", "sizes", type=click.IntRange(100), multiple=True, default=(10_000,), show_default=True)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Galleries go here.")
@click.option("--queries", default=100, show_default=True, type=click.IntRange(1), help="Of each way to search.")
@click.option("--budget", default=60.0, show_default=True, help="Seconds after which a way to search is asked no more.")
@click.option("--cold", default=3, show_default=True, type=click.IntRange(0), help="Searches of a new process each.")
@click.option("--index", type=click.Choice(get_args(IndexKind)), default="IVF_SQ", show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(
    sizes: tuple[int, ...], work: Path, queries: int, budget: float, cold: int, index: IndexKind, json_path: Path | None
) -> None:
    """Measure galleries of several sizes, and what a month of 100 cameras costs by them."""
    settings = Settings(queries, budget, cold, index)
    load = [round(os.getloadavg()[0], 2)]
    measured = [Size(work / str(rows), Scenery(rows), settings).measure() for rows in sorted(set(sizes))]
    load.append(round(os.getloadavg()[0], 2))
    report = report_of(measured, settings, load)
    print_report(report)
    if json_path is not None:
        write_json(json_path, report)


if __name__ == "__main__":
    run(main)
