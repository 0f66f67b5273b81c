"""The steps of the gallery's scale benchmark, each in a process of its own, so that its peak memory is its own.

    python -m psarm.benchmarks.gallery_steps search '{"folder": "work/10000", …}'

prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from psarm.benchmarks.fresh_process import run_python
from psarm.benchmarks.gallery_rows import DAYS, FIRST_DAY, FRAME, RATE, STRETCH, Footage, Scenery
from psarm.benchmarks.memory import peak_memory
from psarm.errors import PsarmError
from psarm.runtime.gallery.records import FrameHit, SourceBatch, VisitHit, Where

COMMIT = 250
"""Frames of every source in a commit: a part of a stretch."""
LIVE = 10
"""Frames of every source in each of the last commits: 5 seconds of cameras."""
LIVE_COMMITS = 20
NOTE_EVERY = 50
"""Commits from one line of the filling's notes to the next."""
TOP_K = 10
WARM_UP = 2
"""Queries before those that are timed."""
GALLERY, NOTES = "gallery", "filling.jsonl"
"""In a size's folder: the gallery, and a line for every `NOTE_EVERY` commits."""
Figures = dict[str, Any]


def in_fresh_process(step: str, **arguments: Any) -> Figures:
    """Run a step in a process of its own; raises `PsarmError` with the reason where it fails."""
    words = ["-m", "psarm.benchmarks.gallery_steps", step, json.dumps(arguments)]
    figures: Figures = run_python(words, f"The step {step!r}")
    return figures


def fill(folder: str, scenery: Figures) -> Figures:
    """Fill a gallery through its writer, from where it stopped."""
    from psarm.runtime.gallery.gallery import Gallery

    wanted, where = Scenery(**scenery), Path(folder, GALLERY)
    footage = Footage(wanted)
    if not where.exists():
        Gallery.create(where, f"synthetic-{wanted.seed}", wanted.embedding_dim, "synthetic").close()
    with Gallery.open(where) as gallery, gallery.writer() as writer, Notes(Path(folder, NOTES), where) as notes:
        for day, sources in enumerate(wanted.sources):
            progress = [writer.add_source(source) for source in sources]
            done = min(one.last_frame for one in progress) // FRAME + 1
            for begin, end in spans(wanted.frames, done, day == DAYS - 1):
                start = time.perf_counter()
                batches = [
                    SourceBatch(
                        one.source, tuple(footage.people(day, camera, begin, end)), finished=end == wanted.frames
                    )
                    for camera, one in enumerate(progress)
                ]
                drawn = time.perf_counter()
                writer.commit(batches)
                committed = time.perf_counter()
                rows = sum(len(frame.scores) for batch in batches for frame in batch.frames)
                notes.add(rows, drawn - start, committed - drawn, end - begin == LIVE)
    return {"filled": True}


def spans(frames: int, done: int, tail: bool) -> Iterator[tuple[int, int]]:
    """First and last frame + 1 of the commits left; with a `tail`, the last are small."""
    small = frames - min(LIVE * LIVE_COMMITS, frames // 2 // LIVE * LIVE) if tail else frames
    while done < frames:
        step = COMMIT if done < small else LIVE
        edges = [done + step - done % step if done < small else done + step, STRETCH * (done // STRETCH + 1), frames]
        end = min([*edges, small] if done < small else edges)
        yield done, end
        done = end


class Notes:
    """What filling took, written down as it goes: a filling that is broken off and gone on with loses none of it."""

    def __init__(self, path: Path, gallery: Path) -> None:
        """Lines go to `path`."""
        self._path, self._gallery = path, gallery
        self._rows, self._commits, self._drawing, self._committing = 0, 0, 0.0, 0.0
        self._live: list[float] = []

    def __enter__(self) -> Notes:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, rows: int, drawing: float, committing: float, live: bool) -> None:
        """A commit and its seconds; `live`: it is one of the small ones."""
        self._rows += rows
        self._commits += 1
        self._drawing += drawing
        self._committing += committing
        if live:
            self._live.append(round(1000 * committing, 2))
        if self._commits == NOTE_EVERY:
            self._write()

    def _write(self) -> None:
        if not self._commits:
            return
        line = {
            "rows": self._rows,
            "commits": self._commits,
            "drawing_s": round(self._drawing, 3),
            "committing_s": round(self._committing, 3),
            "peak_memory_bytes": peak_memory(),
            "disk_bytes": size_of(self._gallery),
            "live_ms": self._live,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._rows, self._commits, self._drawing, self._committing, self._live = 0, 0, 0.0, 0.0, []


def compact(folder: str) -> Figures:
    """Compact a gallery, as `psarm gallery compact`, and then let go of the versions that readers may hold.

    `bytes` and `files` are those before, after, and without these versions: as a compaction an hour later leaves them.
    """
    from psarm.runtime.gallery.gallery import Gallery

    where = Path(folder, GALLERY)
    there = [(size_of(where), count_of(where))]
    with Gallery.open(where) as gallery:
        start = time.perf_counter()
        gallery.compact()
        seconds = time.perf_counter() - start
        there.append((size_of(where), count_of(where)))
        store = gallery.store
        for table in (store.sources, store.people, store.visits, store.segments):
            table.optimize(cleanup_older_than=timedelta(milliseconds=1))
        there.append((size_of(where), count_of(where)))
    return {
        "seconds": round(seconds, 3),
        "bytes": [size for size, _ in there],
        "files": [files for _, files in there],
        "peak_memory_bytes": peak_memory(),
    }


def index(folder: str, kind: str) -> Figures:
    """Build the index for approximate searches; `bytes` are without what it replaced, which is kept for an hour."""
    from psarm.runtime.gallery.gallery import Gallery

    where = Path(folder, GALLERY)
    with Gallery.open(where) as gallery:
        start = time.perf_counter()
        reports = gallery.build_index(kind)  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
        sizes = {
            name: sum(one.size_bytes or 0 for one in table.list_indices() if "embedding" in one.columns)
            for name, table in (("people", gallery.store.people), ("visits", gallery.store.visits))
        }
    return {
        "kind": kind,
        "seconds": round(seconds, 3),
        "tables": [asdict(report) for report in reports],
        "bytes": {name: size for name, size in sizes.items() if size},
        "peak_memory_bytes": peak_memory(),
    }


def search(folder: str, scenery: Figures, way: Figures, queries: int, budget_s: float) -> Figures:
    """Search, first as a program that has just started; `way` is of `gallery_scale.Way`."""
    start = time.perf_counter()
    import lancedb  # noqa: F401 - which opening a gallery does otherwise

    from psarm.runtime.gallery.gallery import Gallery
    from psarm.runtime.gallery.search import Approximate

    imported = time.perf_counter()
    gallery = Gallery.open(Path(folder, GALLERY))
    opened = time.perf_counter()
    # The people searched for are drawn from as many people as the gallery has; that is not timed.
    wanted = Scenery(**scenery)
    asked = Footage(wanted).queries(queries + WARM_UP)
    options: Figures = {"top_k": TOP_K, "approximate": Approximate() if way["approximate"] else None}
    if way["filtered"]:
        options["where"] = one_hour(wanted)
    find: Callable[..., list[Any]] = gallery.search if way["level"] == "visits" else gallery.search_frames
    milliseconds, found = [], []
    begin = time.perf_counter()
    for person in asked:
        around = {"context": person} if way["cbgm"] else {}
        asking = time.perf_counter()
        hits = find(person.embeddings[0], **options, **around)
        milliseconds.append(1000 * (time.perf_counter() - asking))
        found.append([key_of(hit) for hit in hits])
        if time.perf_counter() - begin > budget_s and len(found) > WARM_UP:
            break
    gallery.close()
    return {
        "import_ms": 1000 * (imported - start),
        "open_ms": 1000 * (opened - imported),
        "first_ms": milliseconds[0],
        "warm_ms": milliseconds[WARM_UP:],
        "found": found,
        "peak_memory_bytes": peak_memory(),
    }


def one_hour(scenery: Scenery) -> Where:
    """One camera, the hour in the middle of the last day's footage (the whole of it where it is shorter)."""
    length = timedelta(seconds=scenery.frames / RATE)
    start = FIRST_DAY + timedelta(days=DAYS - 1) + max(timedelta(), (length - timedelta(hours=1)) / 2)
    return Where(cameras=(f"camera-{scenery.cameras - 1}",), start=start, end=start + timedelta(hours=1))


def key_of(hit: VisitHit | FrameHit) -> list[Any]:
    """What is found, to be compared between ways to search."""
    return [hit.visit] if isinstance(hit, VisitHit) else [hit.source, hit.frame, hit.person]


def count(folder: str) -> Figures:
    """What is in a gallery, and the bytes of each table's files."""
    from psarm.runtime.gallery.gallery import Gallery

    where = Path(folder, GALLERY)
    with Gallery.open(where) as gallery:
        start = time.perf_counter()
        info = gallery.info()
        seconds = time.perf_counter() - start
    tables = {table.name.removesuffix(".lance"): size_of(table) for table in sorted(where.glob("*.lance"))}
    return {"people": info.people, "visits": info.visits, "bytes": tables, "info_ms": round(1000 * seconds, 1)}


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; those that go meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).stat().st_size
            except FileNotFoundError:  # compaction runs meanwhile
                continue
    return total


def count_of(folder: Path) -> int:
    """Files in a folder."""
    return sum(len(names) for _, _, names in os.walk(folder))


def evict(folder: Path) -> bool:
    """Let go of what the system keeps of the files in memory; False where it takes no such advice."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    return True


STEPS: dict[str, Callable[..., Figures]] = {step.__name__: step for step in (fill, compact, index, search, count)}


def _main() -> None:
    try:
        found = STEPS[sys.argv[1]](**json.loads(sys.argv[2]))
    except PsarmError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
