"""Tables of a gallery filled with random people, in memory, and what is in them as arrays.

M people of all frames, D embedding dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np

from psarm.runtime.detections import Detections
from psarm.runtime.gallery.schema import PEOPLE, SOURCES, VISITS, schemas, visit_id

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = 1_000_000


@dataclass(eq=False)
class Rows:
    """People in the order of source, frame and person."""

    frames: list[tuple[int, int]] = field(default_factory=list)
    """(source, frame id), also those with nobody in them."""
    people: list[Detections] = field(default_factory=list)
    """Of each frame."""
    visits: list[list[int | None]] = field(default_factory=list)
    """Ids, of each frame's people."""

    @property
    def keys(self) -> list[tuple[int, int, int]]:
        """(source, frame, person) [M]."""
        return [(*frame, n) for frame, people in zip(self.frames, self.people, strict=True) for n in range(len(people))]

    @property
    def offsets(self) -> np.ndarray:
        """int64 [G+1]."""
        return np.concatenate([[0], np.cumsum([len(people) for people in self.people], dtype=np.int64)])

    @property
    def embeddings(self) -> np.ndarray:
        """[M,D]."""
        return np.concatenate([people.embeddings for people in self.people])

    @property
    def scores(self) -> np.ndarray:
        """[M]."""
        return np.concatenate([people.scores for people in self.people])

    @property
    def visit_ids(self) -> list[int | None]:
        """[M]."""
        return [visit for visits in self.visits for visit in visits]


def camera(source: int) -> str:
    """Two sources a camera, and names that SQL would trip over."""
    return f"door's {source // 2}"


def name(source: int) -> str:
    """The source's name."""
    return f'/videos/it\'s "{source}".mp4'


def time(source: int, frame: int) -> datetime | None:
    """When a frame was taken; nobody knows of every third source."""
    return None if source % 3 == 2 else NOON + timedelta(hours=source, microseconds=frame)


def weighted(rng: np.random.Generator, count: int, size: int, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n] and embeddings [n,D]; `coarse`: of few values, so that many are equal and sums are exact."""
    if coarse:
        return np.full(count, 0.75, np.float32), rng.integers(-1, 2, (count, size)).astype(np.float32) / 4
    scores = rng.uniform(0.5, 1, count).astype(np.float32)
    embeddings = rng.normal(size=(count, size))
    embeddings *= scores[:, None] / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return scores, embeddings.astype(np.float32)


def random_rows(seed: int, frames: int, most: int = 5, sources: int = 3, size: int = 8, coarse: bool = False) -> Rows:
    """Up to `most` people in each of `frames` frames of `sources` sources; one of four in no visit."""
    rng = np.random.default_rng(seed)
    rows = Rows()
    for source in range(sources):
        for number in range(frames // sources):
            count = int(rng.integers(0, most + 1))
            scores, embeddings = weighted(rng, count, size, coarse)
            boxes = np.sort(rng.uniform(0, 100, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
            rows.frames.append((source, number * SECOND))
            rows.people.append(Detections(boxes, scores, embeddings))
            chosen = rng.permutation(8)[:count]
            rows.visits.append([None if visit >= 6 else visit_id(source, int(visit)) for visit in chosen])
    return rows


def tables(rows: Rows, size: int = 8, people: bool = True, kind: str = "video") -> Any:
    """Opened tables with `rows` in them, and the visits that they make; written in an order that is not theirs."""
    import lancedb

    database = lancedb.connect("memory://")
    schema = schemas(size)
    made = {table: database.create_table(table, schema=schema[table]) for table in (SOURCES, PEOPLE, VISITS)}
    numbers = sorted({source for source, _ in rows.frames})
    if numbers:
        made[SOURCES].add([source_row(number, kind) for number in numbers])
    made_people = people_rows(rows)
    if made_people:
        made[PEOPLE].add(made_people[::-1])
        visits = visit_rows(made_people)
        if visits:
            made[VISITS].add(visits[::-1])
    return SimpleNamespace(
        database=database,
        sources=made[SOURCES],
        people=made[PEOPLE],
        visits=made[VISITS],
        facts=SimpleNamespace(people=people, embedding_dim=size),
    )


def source_row(number: int, kind: str = "video") -> dict[str, Any]:
    """A row of the table of sources."""
    empty = {"signature": "", "settings": "{}", "start": None, "rate": None, "planned": None, "added": NOON}
    return {"source": number, "name": name(number), "camera": camera(number), "kind": kind, **empty}


def people_rows(rows: Rows) -> list[dict[str, Any]]:
    """Rows of the table of people."""
    made = []
    for (source, frame), people, visits in zip(rows.frames, rows.people, rows.visits, strict=True):
        for number, (person, visit) in enumerate(zip(people, visits, strict=True)):
            made.append(
                {
                    "source": source,
                    "frame": frame,
                    "person": number,
                    "camera": camera(source),
                    "time": time(source, frame),
                    "visit": visit,
                    "score": person.score,
                    "box": person.box,
                    "embedding": person.embedding,
                }
            )
    return made


def visit_rows(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table of visits, of their people's rows."""
    made = []
    for visit in sorted({row["visit"] for row in people if row["visit"] is not None}):
        rows = [row for row in people if row["visit"] == visit]
        best = max(rows, key=lambda row: row["score"])
        total = np.sum([row["embedding"] for row in rows], axis=0)
        length = float(np.linalg.norm(total))
        made.append(
            {
                "visit": visit,
                "source": best["source"],
                "camera": best["camera"],
                "first_frame": rows[0]["frame"],
                "last_frame": rows[-1]["frame"],
                "start": rows[0]["time"],
                "end": rows[-1]["time"],
                "frames": len(rows),
                "embedding": (total / max(length, 1e-12) * best["score"]).astype(np.float32),
                "total": length,
                "score": best["score"],
                "best_frame": best["frame"],
                "box": best["box"],
                "thumbnail": b"jpeg of %d" % visit,
            }
        )
    return made
