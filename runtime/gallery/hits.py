"""Rows of a gallery's tables as hits.

Rows of a source that is not among those known are left out: another process added it while the tables were opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from psarm.runtime.gallery.filters import NamedSource, is_in
from psarm.runtime.gallery.nearest import SIMILARITY
from psarm.runtime.gallery.records import FrameHit, VisitHit

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

    from psarm.runtime.gallery.calibration import Calibration

Row = Mapping[str, Any]

PERSON_COLUMNS = ("source", "frame", "person", "time", "visit", "score", "box")
VISIT_COLUMNS = (
    *("visit", "source", "first_frame", "last_frame", "start", "end", "frames"),
    *("score", "best_frame", "box", "thumbnail"),
)

VISIT_ORDER = ("source", "first_frame", "visit")
"""Which of two visits is the earlier."""


def frame_hits(rows: pa.Table, sources: Mapping[int, NamedSource]) -> list[FrameHit]:
    """Hits of people, in the order of `rows`: `PERSON_COLUMNS` and the similarity."""
    return [_frame_hit(row, sources[row["source"]]) for row in _known(rows, sources)]


def visit_hits(
    visits: pa.Table, alone: pa.Table, sources: Mapping[int, NamedSource], calibration: Calibration | None
) -> list[VisitHit]:
    """Hits of visits and of people in none, most similar first; of equals the earlier by source and first frame.

    Args:
        visits: `VISIT_COLUMNS` and the similarity.
        alone: `PERSON_COLUMNS` and the similarity.
        sources: by id.
        calibration: gives the false-match rate.
    """
    found = [(row, row["first_frame"], row["visit"]) for row in _known(visits, sources)]
    found += [({**row, **_stay(row)}, row["frame"], -1) for row in _known(alone, sources)]
    found.sort(key=lambda item: (-item[0][SIMILARITY], item[0]["source"], item[1], item[2]))
    return [_visit_hit(row, sources[row["source"]], row[SIMILARITY], calibration) for row, _, _ in found]


def visit_hits_of_rows(rows: pa.Table, visits: Table, sources: Mapping[int, NamedSource]) -> list[VisitHit]:
    """Hits of the visits that people belong to, in the order of `rows`, with the similarities of `rows`.

    A person in no visit, or in one that its writer has not yet written, is a hit of its own.
    """
    numbers = [visit for visit in rows["visit"].to_pylist() if visit is not None]
    written = visits.search().where(is_in("visit", numbers)).select(list(VISIT_COLUMNS)).to_list()
    by_number = {visit["visit"]: visit for visit in written}
    found = []
    for row in _known(rows, sources):
        visit = by_number.get(row["visit"]) or {**row, **_stay(row)}
        found.append(_visit_hit(visit, sources[row["source"]], row[SIMILARITY], None))
    return found


def _stay(row: Row) -> Row:
    """A person in one frame, as the columns that a visit has beside those of a person."""
    frame, time = row["frame"], row["time"]
    return {
        **{"first_frame": frame, "last_frame": frame, "best_frame": frame, "frames": 1},
        **{"start": time, "end": time, "thumbnail": None},
    }


def _frame_hit(row: Row, source: NamedSource) -> FrameHit:
    return FrameHit(
        source=source.name,
        camera=source.camera,
        frame=row["frame"],
        person=row["person"],
        offset_s=_offset(row["frame"], source),
        time=row["time"],
        visit=row["visit"],
        similarity=row[SIMILARITY],
        score=row["score"],
        box=np.asarray(row["box"], np.float32),
    )


def _visit_hit(row: Row, source: NamedSource, similarity: float, calibration: Calibration | None) -> VisitHit:
    return VisitHit(
        visit=row["visit"],
        source=source.name,
        camera=source.camera,
        start=row["start"],
        end=row["end"],
        first_frame=row["first_frame"],
        last_frame=row["last_frame"],
        start_s=_offset(row["first_frame"], source),
        end_s=_offset(row["last_frame"], source),
        frames=row["frames"],
        similarity=similarity,
        score=row["score"],
        best_frame=row["best_frame"],
        box=np.asarray(row["box"], np.float32),
        thumbnail=row["thumbnail"],
        false_match_rate=None if calibration is None else calibration.false_match_rate(similarity),
    )


def _offset(frame: int, source: NamedSource) -> float | None:
    """Seconds into a video file, whose frames' ids are microseconds."""
    return frame / 1e6 if source.kind == "video" else None


def _known(rows: pa.Table, sources: Mapping[int, NamedSource]) -> list[dict[str, Any]]:
    return [row for row in rows.drop_columns(["embedding"]).to_pylist() if row["source"] in sources]
