"""Synthetic people of cameras, as an indexer would hand them to a gallery's writer: any number, in bounded memory.

People come back: visits by person have a long tail, some people look alike. A visit is 5 to 40 rows of one source.
Embeddings spread as those of the shipped checkpoint do on drawn people (`psarm.benchmarks.gallery_spread`); scores, by
which they are weighted, are 0.5 to 1.

n rows, D embedding dimensions, K principal axes. Everything follows from the seed: what a source shows in a stretch of
time does not depend on what was drawn before, so that filling can go on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.gallery_spread import Spread
from psarm.runtime.detections import Detections
from psarm.runtime.gallery.records import IndexedPeople, Source

Floats = NDArray[np.float32]
RATE = 2
"""Frames a second that are indexed."""
FRAME = 1_000_000 // RATE
"""From one frame's id to the next: microseconds."""
STRETCH = 500
"""Frames drawn at a time; visits end with them."""
LANES = 5
"""People there may be at a time."""
VISIT_ROWS = (5, 40)
GAP = 11
"""A lane is empty for fewer frames than this between two visits: on average four of five lanes are taken."""
ROWS_PER_FRAME = 3.9
"""What comes of it at least, as counted; in long sources 4.05."""
VISITS_PER_PERSON = 4
ALIKE = 0.1
"""Share of the people who look like another: they differ no more than visits of one person do."""
NOISE = 1 << 22
"""Bytes that pictures are cut from."""
DAYS = 3
FIRST_DAY = datetime(2026, 3, 2, 6, tzinfo=UTC)

# Of the checkpoint in release/, 360 drawn frames with seed 7: benchmarks/results/gallery_spread.json.
SPREAD = Spread(
    mean=0.6399,
    people=(
        0.09364,
        0.09013,
        0.05876,
        0.04441,
        0.03045,
        0.02896,
        0.02629,
        0.01973,
        0.01651,
        0.00578,
        0.00542,
        0.00602,
        0.00218,
        0.00160,
        0.00183,
        0.00061,
        0.00039,
        0.00055,
        0.00025,
        0.00014,
        0.00020,
        0.00026,
        0.00018,
        0.00003,
    ),
    visits=(
        0.00562,
        0.00390,
        0.00684,
        0.00406,
        0.00606,
        0.00499,
        0.00644,
        0.00466,
        0.00403,
        0.00429,
        0.00358,
        0.00166,
        0.00145,
        0.00233,
        0.00123,
        0.00113,
        0.00099,
        0.00074,
        0.00065,
        0.00053,
        0.00045,
        0.00032,
        0.00020,
        0.00022,
    ),
    rows=(
        0.00625,
        0.00699,
        0.00602,
        0.00578,
        0.00696,
        0.00725,
        0.00546,
        0.00605,
        0.00514,
        0.00524,
        0.00535,
        0.00324,
        0.00485,
        0.00289,
        0.00277,
        0.00223,
        0.00150,
        0.00142,
        0.00086,
        0.00099,
        0.00069,
        0.00047,
        0.00038,
        0.00029,
    ),
)


@dataclass(frozen=True)
class Scenery:
    """What a gallery is filled with; the same settings give the same rows."""

    rows: int
    """So many, or a little more."""
    cameras: int = 8
    embedding_dim: int = 256
    seed: int = 0
    thumbnail_bytes: int = 2500

    @property
    def frames(self) -> int:
        """Of each source."""
        return math.ceil(self.rows / ROWS_PER_FRAME / self.cameras / DAYS)

    @property
    def sources(self) -> list[list[Source]]:
        """For each day the video of every camera."""
        return [
            [
                Source(
                    name=f"/video/camera-{camera}/day-{day}.mkv",
                    camera=f"camera-{camera}",
                    kind="video",
                    signature=f"{self.seed}-{camera}-{day}",
                    settings={"fps": RATE},
                    start=FIRST_DAY + timedelta(days=day),
                    rate=25.0,
                    planned=self.frames,
                )
                for camera in range(self.cameras)
            ]
            for day in range(DAYS)
        ]


class Crowd:
    """Everyone who can be seen, and how an embedding comes of a person, a visit and a moment."""

    def __init__(self, scenery: Scenery, spread: Spread = SPREAD) -> None:
        """Draw the people."""
        rng = np.random.default_rng([scenery.seed, 0])
        self.spread = spread
        self.count = max(8, round(scenery.rows / np.mean(VISIT_ROWS) / VISITS_PER_PERSON))
        axes = len(spread.people)
        drawn = np.linalg.qr(rng.standard_normal((scenery.embedding_dim, axes + 1)))[0].T
        self._mean, self._axes = (spread.mean * drawn[0]).astype(np.float32), drawn[1:].astype(np.float32)  # [D], [K,D]
        self.people = self._around(rng, self.count, spread.people)  # [count,K]
        alike = rng.choice(self.count - 1, int(ALIKE * self.count), replace=False)
        self.people[alike] = self.people[alike + 1] + self._around(rng, len(alike), spread.visits)

    def visits_of(self, rng: np.random.Generator, people: NDArray[np.int64]) -> Floats:
        """A visit of each of `people`: [n,K]."""
        return self.people[people] + self._around(rng, len(people), self.spread.visits)

    def embeddings(self, rng: np.random.Generator, visits: Floats) -> Floats:
        """A moment in each of `visits` [n,K]: [n,D], of unit length."""
        moments: Floats = (visits + self._around(rng, len(visits), self.spread.rows)) @ self._axes + self._mean
        moments /= np.linalg.norm(moments, axis=1, keepdims=True)
        return moments

    def someone(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Who comes, `count` times: some people often, most of them seldom."""
        # The square makes the density fall with the root of a person's rank: the first come a hundred times and more.
        return (self.count * rng.random(count) ** 2).astype(np.int64)

    def _around(self, rng: np.random.Generator, count: int, variances: tuple[float, ...]) -> Floats:
        deviations = np.sqrt(np.asarray(variances, np.float32))
        values: Floats = rng.standard_normal((count, len(variances)), np.float32) * deviations
        return values


@dataclass(frozen=True, eq=False)
class Stretch:
    """The people of `STRETCH` frames of a source, n of them by frame."""

    frames: NDArray[np.int64]  # [n], number of the frame in the source
    visits: NDArray[np.int64]  # [n], number within the source
    scores: Floats  # [n]
    boxes: Floats  # [n,4]
    embeddings: Floats  # [n,D], weighted
    better: NDArray[np.bool_]  # [n], whether the score is the best of the visit up to here


class Footage:
    """What the sources show."""

    def __init__(self, scenery: Scenery) -> None:
        """Draw the crowd; the rest is drawn when it is asked for."""
        self.scenery = scenery
        self.crowd = Crowd(scenery)
        self._noise = np.random.default_rng([scenery.seed, 2]).bytes(NOISE + scenery.thumbnail_bytes)
        self._kept: dict[int, tuple[tuple[int, int], Stretch]] = {}

    def stretch(self, day: int, camera: int, number: int) -> Stretch:
        """Frames `number` * STRETCH … of a source."""
        rng = np.random.default_rng([self.scenery.seed, 1, day, camera, number])
        first, length = self._visits(rng, min(STRETCH, self.scenery.frames - number * STRETCH))
        visit = np.repeat(np.arange(len(first)), length)
        # Rows of a visit are consecutive frames.
        frame = first[visit] + np.arange(len(visit)) - np.repeat(np.cumsum(length) - length, length)
        scores = (0.5 + 0.5 * rng.beta(6, 1, len(visit))).astype(np.float32)
        # Scores are at most 1, so that the maximum begins anew with every visit.
        best = np.maximum.accumulate(scores + 2.0 * visit) == scores + 2.0 * visit
        order = np.lexsort((visit, frame))
        frame, visit, scores, best = frame[order], visit[order], scores[order], best[order]
        latents = self.crowd.visits_of(rng, self.crowd.someone(rng, len(first)))
        corner = rng.uniform(0, [1700, 700], (len(first), 2))[visit] + rng.normal(0, 4, (len(visit), 2))
        size = rng.uniform([40, 100], [150, 380], (len(first), 2))[visit]
        return Stretch(
            frame + number * STRETCH,
            # Numbers of visits rise from stretch to stretch and leave gaps.
            visit + number * STRETCH * LANES,
            scores,
            np.concatenate([corner, corner + size], axis=1).astype(np.float32),
            self.crowd.embeddings(rng, latents[visit]) * scores[:, None],
            best,
        )

    def _visits(self, rng: np.random.Generator, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First frame and length of each visit, by first frame."""
        most = frames // VISIT_ROWS[0] + 1
        lengths = rng.integers(VISIT_ROWS[0], VISIT_ROWS[1] + 1, (LANES, most))
        gaps = rng.integers(0, GAP, (LANES, most))
        starts = np.cumsum(lengths + gaps, axis=1) - lengths
        first, length = starts.ravel(), np.minimum(lengths, frames - starts).ravel()
        order = np.argsort(first, kind="stable")
        order = order[length[order] > 0]
        return first[order], length[order]

    def people(self, day: int, camera: int, begin: int, end: int) -> Iterator[IndexedPeople]:
        """Frames `begin` … `end` - 1 of a source, in one stretch."""
        stretch = self._drawn(day, camera, begin // STRETCH)
        start = FIRST_DAY + timedelta(days=day)
        edges = np.searchsorted(stretch.frames, np.arange(begin, end + 1))
        for frame, low, high in zip(range(begin, end), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            yield IndexedPeople(
                frame * FRAME,
                start + timedelta(microseconds=frame * FRAME),
                stretch.boxes[low:high],
                stretch.scores[low:high],
                stretch.embeddings[low:high],
                stretch.visits[low:high],
                tuple(self._thumbnail(camera, begin, row) if stretch.better[row] else None for row in range(low, high)),
            )

    def _thumbnail(self, *of: int) -> bytes:
        """Bytes that are hardly ever the same: what repeats is kept once."""
        at = hash(of) % NOISE
        return self._noise[at : at + self.scenery.thumbnail_bytes]

    def queries(self, count: int) -> list[Detections]:
        """People seen once more, each with three others in the picture: the one searched for is the first."""
        rng = np.random.default_rng([self.scenery.seed, 3])
        visits = self.crowd.visits_of(rng, self.crowd.someone(rng, 4 * count))
        together = self.crowd.embeddings(rng, visits).reshape(count, 4, -1)
        boxes = np.tile(np.array([100, 100, 200, 400], np.float32), (4, 1))
        return [Detections(boxes, np.ones(4, np.float32), embeddings) for embeddings in together]

    def _drawn(self, day: int, camera: int, number: int) -> Stretch:
        """A stretch, kept until another of the same camera is asked for."""
        kept = self._kept.get(camera)
        if kept is None or kept[0] != (day, number):
            kept = (day, number), self.stretch(day, camera, number)
            self._kept[camera] = kept
        return kept[1]
