"""The re-entries of a footage, searched for in a gallery of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.reentry_footage import Footage
from psarm.benchmarks.reentry_gallery import open_readers, video_name
from psarm.benchmarks.reentry_matching import Matches, Row, Shown
from psarm.benchmarks.reentry_ranking import Others, judge, remaining, summarise
from psarm.data.convert.split import Choice, WrittenFrame
from psarm.errors import DataError, GalleryError
from psarm.runtime import Detections, PersonSearch
from psarm.runtime.gallery.records import FrameHit, VisitHit
from psarm.runtime.indexing.reading import TakenFrame
from psarm.runtime.video import Frame

if TYPE_CHECKING:
    from psarm.runtime.gallery.calibration import Calibration
    from psarm.runtime.gallery.gallery import Gallery

EVERYTHING = 1_000_000
"""`top_k` that no gallery here comes near."""


@dataclass(frozen=True, eq=False)
class Query:
    """A person on a first visit, as the model sees it."""

    who: Shown
    embedding: NDArray[np.float32]  # [D]
    context: Detections
    """People of the query's frame, for CBGM."""
    others: Others


def read_queries(engine: PersonSearch, footage: Footage, due: Sequence[WrittenFrame]) -> list[Query]:
    """Embed the footage's queries; `due` are the frames that were indexed. People without another visit in them go."""
    readers = open_readers(footage, None)
    queries = []
    for choice in footage.queries():
        frame, person = footage.frames[choice.frame], choice.person
        who = Shown(person.identity, person.visit)
        others = _others(who, due)
        if others.visits:
            reader, wanted = readers[frame.source], footage.id_of(frame)
            picture = next(iter(reader.read(wanted - 1)), None)
            if not isinstance(picture, TakenFrame) or picture.frame != wanted:
                raise DataError(f"{reader.source.name} has no frame at {wanted} µs, which its labels speak of.")
            queries.append(_query(engine, picture.image, choice, who, others))
    return queries


def _query(engine: PersonSearch, image: Frame, choice: Choice, who: Shown, others: Others) -> Query:
    box = np.array(choice.person.box, np.float32)
    return Query(who, engine.embed(image, box[None])[0], engine.detect_around(image, box), others)


def _others(who: Shown, due: Sequence[WrittenFrame]) -> Others:
    visits = [
        person.visit
        for frame in due
        for person in frame.people
        if person.identity == who.identity and person.visit != who.visit
    ]
    return Others(len(set(visits)), len(visits))


@dataclass(frozen=True, eq=False)
class SearchedGallery:
    """A gallery, and whom it shows."""

    gallery: Gallery
    footage: Footage
    rows: Sequence[Row]
    matches: Matches

    def shown_by_visit(self, hit: VisitHit) -> Shown:
        """Whom most of a visit's rows show; whom the row shows for a person in no visit."""
        if hit.visit is not None:
            return self.matches.visits[hit.visit]
        video = video_name(self.footage, hit.source)
        same = (row for row in self.rows if (row.video, row.frame) == (video, hit.best_frame) and row.visit < 0)
        row = next(row for row in same if np.array_equal(row.box, hit.box))
        return self.matches.rows[row.video, row.frame, row.person]

    def shown_by_frame(self, hit: FrameHit) -> Shown:
        """Whom the row shows."""
        return self.matches.rows[video_name(self.footage, hit.source), hit.frame, hit.person]

    def search(self, queries: Sequence[Query], target: float) -> dict[str, Any]:
        """Figures of every way to search, and of the marks of a gallery calibrated to a false-match rate `target`."""
        found = {
            "visits": self._judge(queries, lambda query: self.visit_hits(query), True),
            "frames": self._judge(queries, lambda query: self.frame_hits(query), False),
            "visits, CBGM": self._judge(queries, lambda query: self.visit_hits(query, cbgm=True), True),
            "frames, CBGM": self._judge(queries, lambda query: self.frame_hits(query, cbgm=True), False),
        }
        return {"searches": found, "calibration": self._calibrated(queries, target) if queries else None}

    def visit_hits(self, query: Query, cbgm: bool = False) -> list[Shown]:
        """Whom the hits show, best first."""
        hits = self.gallery.search(query.embedding, EVERYTHING, context=query.context if cbgm else None)
        return [self.shown_by_visit(hit) for hit in hits]

    def frame_hits(self, query: Query, cbgm: bool = False) -> list[Shown]:
        """Whom the hits show, best first."""
        hits = self.gallery.search_frames(query.embedding, EVERYTHING, context=query.context if cbgm else None)
        return [self.shown_by_frame(hit) for hit in hits]

    def _judge(
        self, queries: Sequence[Query], search: Callable[[Query], list[Shown]], by_visit: bool
    ) -> dict[str, Any] | None:
        quality = summarise([judge(search(query), query.who, query.others, by_visit) for query in queries])
        return None if quality is None else asdict(quality)

    def _calibrated(self, queries: Sequence[Query], target: float) -> dict[str, Any]:
        """How right the mark "probably not a match" is: over all hits, and over the best of every query."""
        try:
            calibration = self.gallery.calibrate(target)
        except GalleryError as error:  # too few visits to tell
            return {"target": target, "failure": str(error)}
        marked: list[tuple[bool, bool]] = []
        best: list[tuple[bool, bool]] = []
        for query in queries:
            judged = self._marks(query, calibration)
            marked += judged
            best += judged[:1]
        return {
            "target": target,
            "threshold": calibration.threshold,
            "pairs": calibration.pairs,
            "certain": calibration.certain,
            "hits": mark_counts(marked),
            "best_hits": mark_counts(best),
        }

    def _marks(self, query: Query, calibration: Calibration) -> list[tuple[bool, bool]]:
        """Of every judged hit: whether it is the person, and whether it is marked as probably not."""
        hits = self.gallery.search(query.embedding, EVERYTHING)
        shown = [self.shown_by_visit(hit) for hit in hits]
        return [
            (shown[index].identity == query.who.identity, hits[index].similarity < calibration.threshold)
            for index in remaining(shown, query.who)
        ]


def mark_counts(marked: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """Counts of hits by what they are, and how many of them carry the mark."""
    right = [mark for is_right, mark in marked if is_right]
    wrong = [mark for is_right, mark in marked if not is_right]
    return {"right": len(right), "right_but_marked": sum(right), "wrong": len(wrong), "wrong_and_marked": sum(wrong)}
