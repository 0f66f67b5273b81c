"""The sources of a gallery and how far each is, as its tables say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psarm.errors import GalleryError
from psarm.runtime.gallery.records import Source, SourceInfo, SourceProgress
from psarm.runtime.gallery.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Segment = dict[str, Any]
"""A row of the table of segments."""

NOTHING_DONE = -1
"""Last frame of a source without a segment."""

_BEFORE_FIRST: Segment = {"last_frame": NOTHING_DONE, "finished": False, "next_visit": 0}


def read_sources(store: Store, segments: Mapping[int, list[Segment]] | None = None) -> list[SourceInfo]:
    """In the order they were added; `segments`: what `read_segments` gave, where it was read."""
    if segments is None:
        segments = read_segments(store)
    rows = sorted(store.sources.search().to_list(), key=lambda row: row["source"])
    return [
        SourceInfo(
            source=Source(
                name=row["name"],
                camera=row["camera"],
                kind=row["kind"],
                signature=row["signature"],
                settings=json.loads(row["settings"]),
                start=row["start"],
                rate=row["rate"],
                planned=row["planned"],
            ),
            added=row["added"],
            progress=progress(row["source"], segments.get(row["source"], [])),
        )
        for row in rows
    ]


def source_rows(number: int, source: Source, schema: pa.Schema) -> pa.Table:
    """A new source as its row."""
    import pyarrow as pa

    row = {
        "source": number,
        "name": source.name,
        "camera": source.camera,
        "kind": source.kind,
        "signature": source.signature,
        "settings": canonical(source.settings),
        "start": source.start,
        "rate": source.rate,
        "planned": source.planned,
        "added": datetime.now(UTC),
    }
    return pa.Table.from_pylist([row], schema=schema)


def canonical(settings: Any) -> str:
    """JSON that is the same for the same settings."""
    return json.dumps(dict(settings), sort_keys=True)


def check_same(where: str, known: Source, source: Source) -> None:
    """Raise `GalleryError` where a source is in the gallery with other content, settings, camera or kind."""
    for what, old, new in (
        ("camera", known.camera, source.camera),
        ("kind", known.kind, source.kind),
        ("content", known.signature, source.signature),
    ):
        if old != new:
            raise GalleryError(
                f"{source.name} is in {where} with another {what} ({old}, now {new}); give the same, "
                "or run psarm gallery delete-source first."
            )
    if known.settings != source.settings:
        raise GalleryError(
            f"{source.name} is in {where} with {_options(known.settings, source.settings)}, now "
            f"{_options(source.settings, known.settings)}; give the same, or run psarm gallery delete-source first."
        )


def _options(settings: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Those that differ from the others, as `psarm index` is given them; `no --start` where only the others have it."""
    own = {name: value for name, value in settings.items() if others.get(name) != value}
    if not own:
        return " ".join(f"no --{name}" for name in others if name not in settings)
    return " ".join(f"--{name}" if value is True else f"--{name} {_number(value)}" for name, value in own.items())


def _number(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def read_segments(store: Store) -> dict[int, list[Segment]]:
    """Segments of each source, rising by number."""
    segments: dict[int, list[Segment]] = {}
    rows = store.segments.search().to_arrow().sort_by([("source", "ascending"), ("number", "ascending")])
    for row in rows.to_pylist():
        segments.setdefault(row["source"], []).append(row)
    return segments


def last_committed(store: Store) -> set[int]:
    """Sources of the last commit, whose segments were the last to be added and share their time."""
    rows = store.segments.search().with_row_id(True).select(["source", "committed"]).to_list()
    last = max(rows, key=lambda row: row["_rowid"], default=None)
    return {row["source"] for row in rows if last is not None and row["committed"] == last["committed"]}


def empty_segment(source: int) -> Segment:
    """Nothing of a source is done."""
    counts = {"number": 0, "frames": 0, "skipped": 0, "people": 0}
    return {**_BEFORE_FIRST, **counts, "source": source, "reasons": "{}", "committed": datetime.now(UTC)}


def progress(source: int, segments: list[Segment]) -> SourceProgress:
    """What a source's segments sum up to."""
    last = segments[-1] if segments else _BEFORE_FIRST
    reasons: dict[str, int] = {}
    for segment in segments:
        for reason, count in json.loads(segment["reasons"]).items():
            reasons[reason] = reasons.get(reason, 0) + count
    return SourceProgress(
        source=source,
        last_frame=last["last_frame"],
        frames=sum(segment["frames"] for segment in segments),
        skipped=sum(segment["skipped"] for segment in segments),
        people=sum(segment["people"] for segment in segments),
        reasons=reasons,
        finished=last["finished"],
        next_visit=last["next_visit"],
    )


def summed_up(segments: Iterable[list[Segment]]) -> list[Segment]:
    """All segments of each source but its last in one: the last is what a crash may have left to be folded."""
    result = []
    for of_source in segments:
        *done, last = of_source
        if done:
            sums = progress(last["source"], done)
            counts = {"frames": sums.frames, "skipped": sums.skipped, "people": sums.people}
            result.append({**done[-1], **counts, "reasons": json.dumps(sums.reasons)})
        result.append(last)
    return result
