"""Writes to a gallery until it is killed; checks what a killed one left. Also a program::

    python writing_process.py write DIR        commits of random people to 3 sources, for ever
    python writing_process.py drill DIR ROUNDS  so many kill -9 at random moments, checked after each

What a frame holds is a function of source, frame and person, so that a gallery can be checked without knowing who
wrote it when.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import IndexedPeople, Source, SourceBatch
from psarm.runtime.gallery.schema import visit_id

DIM = 8
SOURCES = 3
FRAMES = 4  # of a commit and source
STEP = 40_000  # microseconds from frame to frame
START = datetime(2026, 3, 1, 8, tzinfo=UTC)


def frame_people(source: int, number: int) -> IndexedPeople:
    """Frame `number` of a source: 0 to 3 people, each in a visit of 10 frames or in none."""
    drawn = np.random.default_rng([source, number])
    n = int(drawn.integers(0, 4))
    scores = drawn.uniform(0.5, 1, n).astype(np.float32)
    directions = drawn.normal(size=(n, DIM))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    visits = number // 10 * 4 + np.arange(n)
    visits[drawn.random(n) < 0.2] = -1
    return IndexedPeople(
        frame=number * STEP,
        time=START + timedelta(microseconds=number * STEP),
        boxes=drawn.uniform(0, 100, (n, 4)).astype(np.float32),
        scores=scores,
        embeddings=(directions * scores[:, None]).astype(np.float32),
        visits=visits.astype(np.int64),
        thumbnails=tuple(b"jpeg %d %d" % (number, person) for person in range(n)),
    )


def source_of(number: int) -> Source:
    return Source(f"/videos/{number}.mp4", f"camera {number}", "video", "signature", {"fps": 25}, START, 25.0)


def write(where: Path, commits: int | None = None) -> None:
    """Go on with the gallery, and say `ready` when the first commit is next."""
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        writer.compact_every = 5
        done = {number: writer.add_source(source_of(number)).last_frame for number in range(SOURCES)}
        nexts = {number: 0 if last < 0 else last // STEP + 1 for number, last in done.items()}
        print("ready", flush=True)
        while commits is None or commits > 0:
            batches = []
            for source, first in nexts.items():
                frames = tuple(frame_people(source, number) for number in range(first, first + FRAMES))
                batches.append(SourceBatch(source, frames, {"corrupt": 1}))
                nexts[source] = first + FRAMES
            writer.commit(batches)
            commits = None if commits is None else commits - 1


def check(where: Path) -> int:
    """Every committed frame is there, once and as it was written, and no other; number of frames."""
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        for number in range(SOURCES):
            writer.add_source(source_of(number))  # puts in order what was broken off
        total = 0
        for progress in (info.progress for info in gallery.sources()):
            count = progress.last_frame // STEP + 1 if progress.last_frame >= 0 else 0
            assert progress.frames == count and count % FRAMES == 0, progress
            assert progress.skipped == progress.reasons.get("corrupt", 0) == count // FRAMES, progress
            frames = [frame_people(progress.source, number) for number in range(count)]
            assert progress.people == sum(len(people.scores) for people in frames)
            check_people(gallery, progress.source, frames)
            check_visits(gallery, progress.source, frames)
            total += count
        return total


def check_people(gallery: Gallery, source: int, frames: list[IndexedPeople], uncommitted: bool = False) -> None:
    """The rows are those of the frames, none twice; `uncommitted`: there may be more of later frames."""
    rows = gallery.store.people.search().where(f"source = {source}").to_arrow()
    if uncommitted and rows.num_rows:
        rows = rows.filter(pc.less(rows["frame"], len(frames) * STEP))
    rows = rows.sort_by([("frame", "ascending"), ("person", "ascending")])
    expected = [(people.frame, person) for people in frames for person in range(len(people.scores))]
    assert list(zip(rows["frame"].to_pylist(), rows["person"].to_pylist(), strict=True)) == expected
    scores = np.concatenate([np.zeros(0, np.float32), *(people.scores for people in frames)])
    np.testing.assert_array_equal(rows["score"].to_numpy(), scores)


def check_visits(gallery: Gallery, source: int, frames: list[IndexedPeople]) -> None:
    """Against the plain sum over all frames of a visit."""
    rows = gallery.store.visits.search().where(f"source = {source}").to_arrow()
    assert pc.count_distinct(rows["visit"]).as_py() == rows.num_rows
    members: dict[int, list[tuple[IndexedPeople, int]]] = {}
    for people in frames:
        for person, number in enumerate(people.visits.tolist()):
            if number >= 0:
                members.setdefault(visit_id(source, number), []).append((people, person))
    found = {row["visit"]: row for row in rows.to_pylist()}
    assert found.keys() == members.keys()
    for number, people_of in members.items():
        row = found[number]
        total = sum(people.embeddings[person].astype(np.float64) for people, person in people_of)
        best, person = max(people_of, key=lambda item: item[0].scores[item[1]])
        length = np.linalg.norm(total)
        np.testing.assert_allclose(row["total"], length, rtol=1e-4)
        np.testing.assert_allclose(row["embedding"], total / length * best.scores[person], atol=1e-4)
        times = [people.time for people, _ in people_of]
        assert (row["start"], row["end"], row["frames"]) == (min(times), max(times), len(people_of))
        assert (row["first_frame"], row["last_frame"]) == (people_of[0][0].frame, people_of[-1][0].frame)
        assert (row["best_frame"], row["score"]) == (best.frame, best.scores[person])
        np.testing.assert_array_equal(np.array(row["box"], np.float32), best.boxes[person])
        assert row["thumbnail"] is None or row["thumbnail"].startswith(b"jpeg ")


@contextmanager
def another_writer(where: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is about to commit for ever, killed at the end."""
    process = subprocess.Popen([sys.executable, __file__, "write", str(where)], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def drill(where: Path, rounds: int, seed: int = 0, longest: float = 0.5) -> list[int]:
    """Kill so many writers at random moments; frames in the gallery after each."""
    drawn = random.Random(seed)
    if not where.exists():
        Gallery.create(where, "fingerprint", DIM, "/bundle").close()
    frames = []
    for _ in range(rounds):
        with another_writer(where):
            time.sleep(drawn.uniform(0, longest))
        frames.append(check(where))
        assert frames == sorted(frames)
    return frames


if __name__ == "__main__":
    command, directory = sys.argv[1], Path(sys.argv[2])
    if command == "write":
        write(directory)
    else:
        print(drill(directory, int(sys.argv[3])))
