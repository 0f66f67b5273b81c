"""The tables of a gallery, as Arrow schemas.

Embeddings are float32 [D], as matched: weighted by the score. Boxes are float32 [4] xyxy in frame pixels. Times are
UTC, null where nobody knows when a frame was taken.

A frame's id is an int64 that its source gives it and that rises within the source: microseconds since the start of a
video file, microseconds since 1970 (UTC) when a camera's frame arrived, the number from 0 of a picture in a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1

FACTS, SOURCES, PEOPLE, VISITS, SEGMENTS = "facts", "sources", "people", "visits", "segments"
"""Names of the tables."""

CALIBRATION = "calibration"
"""Name of a table that only a calibrated gallery has: one row, `json` of `calibration.Calibration`."""

VISIT_BITS = 32
"""A visit's id is its source's, shifted by so many bits, plus its number within the source, from 0."""


def visit_id(source: int, number: int) -> int:
    """The id of visit `number` of a source."""
    return (source << VISIT_BITS) + number


def visit_name(visit: int) -> str:
    """A visit's id for people: `3-17`, its source's number and its own."""
    return f"{visit >> VISIT_BITS}-{visit & ((1 << VISIT_BITS) - 1)}"


def schemas(embedding_dim: int) -> dict[str, pa.Schema]:
    """Name of a table → its columns, for embeddings of D = `embedding_dim`."""
    import pyarrow as pa

    return {
        # One row: what the gallery is. JSON, of `records.GalleryFacts`.
        FACTS: pa.schema([("json", pa.string())]),
        SOURCES: _sources(),
        PEOPLE: _people(embedding_dim),
        VISITS: _visits(embedding_dim),
        SEGMENTS: _segments(),
    }


def _sources() -> pa.Schema:
    """A row a source."""
    import pyarrow as pa

    return pa.schema(
        [
            ("source", pa.int32()),
            ("name", pa.string()),
            ("camera", pa.string()),
            ("kind", pa.string()),  # video, pictures, live
            ("signature", pa.string()),  # of the content, so that another file of the same name is noticed
            ("settings", pa.string()),  # JSON: which frames are taken (fps, every, keyframes), start
            ("start", _time()),
            ("rate", pa.float64()),  # nominal frames a second; null for pictures and where unknown
            ("planned", pa.int64()),  # frames to be indexed; null where nobody knows (a camera)
            ("added", _time()),
        ]
    )


def _people(embedding_dim: int) -> pa.Schema:
    """A row a person in a frame, in the order of the detector; written before the segment that commits it."""
    import pyarrow as pa

    return pa.schema(
        [
            ("source", pa.int32()),
            ("frame", pa.int64()),
            ("person", pa.int16()),
            ("camera", pa.string()),
            ("time", _time()),
            ("visit", pa.int64()),  # null where the tracker gave it to none
            ("score", pa.float32()),
            ("box", _vector(4)),
            ("embedding", _vector(embedding_dim)),
            ("width", pa.int32()),  # of the frame, pixels; null where unknown
            ("height", pa.int32()),
        ]
    )


def _visits(embedding_dim: int) -> pa.Schema:
    """A row a visit: one person, one source, one stay. `embedding` is the representative."""
    import pyarrow as pa

    return pa.schema(
        [
            ("visit", pa.int64()),
            ("source", pa.int32()),
            ("camera", pa.string()),
            ("first_frame", pa.int64()),
            ("last_frame", pa.int64()),
            ("start", _time()),
            ("end", _time()),
            ("frames", pa.int32()),  # how many rows it joins
            ("embedding", _vector(embedding_dim)),  # mean of its rows' unit embeddings by score, of length `score`
            ("total", pa.float64()),  # length of the sum of its rows' embeddings: with `embedding`, the sum
            ("score", pa.float32()),  # the best of its rows
            ("best_frame", pa.int64()),
            ("box", _vector(4)),  # in the best frame
            ("thumbnail", pa.large_binary()),  # JPEG of the best row's box; null without thumbnails
        ]
    )


def _segments() -> pa.Schema:
    """A row a commit of a source: the frames after the segment before, up to and with `last_frame`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("source", pa.int32()),
            ("number", pa.int32()),  # from 0
            ("last_frame", pa.int64()),  # -1 where no frame came yet
            ("frames", pa.int64()),  # indexed
            ("skipped", pa.int64()),
            ("reasons", pa.string()),  # JSON: reason → frames skipped
            ("people", pa.int64()),
            ("next_visit", pa.int64()),  # number of the next new visit
            ("finished", pa.bool_()),  # nothing of the source is left to do
            ("committed", _time()),
        ]
    )


def _vector(size: int) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.float32(), size)


def _time() -> pa.DataType:
    import pyarrow as pa

    return pa.timestamp("us", tz="UTC")
