"""What a writer that was killed left is put in order; each step may have been done already."""

from __future__ import annotations

from collections.abc import Iterable

from psarm.runtime.gallery.columns import frames_of
from psarm.runtime.gallery.filters import is_in
from psarm.runtime.gallery.ledger import NOTHING_DONE, Segment, last_committed, read_segments, read_sources
from psarm.runtime.gallery.records import SourceInfo, SourceKind, SourceProgress
from psarm.runtime.gallery.store import Store
from psarm.runtime.gallery.visits import join_people

TRACK_MEMORY = 60.0
"""Seconds (of pictures: pictures) of a source's people kept for its tracker where a gallery keeps visits only."""

_TERMS = 200
"""Sources in one predicate."""


def repair(store: Store) -> dict[int, list[Segment]]:
    """Delete people that were not committed, and fold those of the last commit into their visits.

    Only the last commit can be half done, and only sources that are not finished can have people beyond it. Returns the
    segments of each source, also of deleted ones.
    """
    segments = read_segments(store)
    infos = {info.progress.source: info for info in read_sources(store, segments)}
    _delete_uncommitted(store, infos.values(), segments)
    last = {source: infos[source] for source in last_committed(store) if source in infos}
    frames = {}
    for source, info in last.items():
        of = segments[source]
        before = of[-2]["last_frame"] if len(of) > 1 else NOTHING_DONE
        between = f"source = {source} AND frame > {before} AND frame <= {info.progress.last_frame}"
        frames[source] = frames_of(store.people.search().where(between).to_arrow())
    cameras = {source: info.source.camera for source, info in last.items()}
    join_people(store.visits, frames, cameras, {source: info.progress.next_visit for source, info in last.items()})
    if not store.facts.people:
        forget(store, [(info.source.kind, info.progress) for info in last.values()])
    return segments


def _delete_uncommitted(store: Store, infos: Iterable[SourceInfo], segments: dict[int, list[Segment]]) -> None:
    """Delete people after the last segment; of a source without any, which may be half deleted, visits too."""
    open_ones = [info.progress for info in infos if not info.progress.finished]
    if nothing := [done.source for done in open_ones if done.source not in segments]:
        for table in (store.people, store.visits):
            if table.count_rows(is_in("source", nothing)):
                table.delete(is_in("source", nothing))
    beyond = [
        f"(source = {done.source} AND frame > {done.last_frame})" for done in open_ones if done.source in segments
    ]
    for start in range(0, len(beyond), _TERMS):
        predicate = " OR ".join(beyond[start : start + _TERMS])
        if store.people.count_rows(predicate):
            store.people.delete(predicate)


def forget(store: Store, sources: Iterable[tuple[SourceKind, SourceProgress]]) -> None:
    """Delete the people that the sources' trackers do not need any more."""
    parts = []
    for kind, done in sources:
        second = 1 if kind == "pictures" else 1_000_000
        oldest = done.last_frame + 1 if done.finished else done.last_frame - round(TRACK_MEMORY * second)
        parts.append(f"(source = {done.source} AND frame < {oldest})")
    predicate = " OR ".join(parts)
    if parts and store.people.count_rows(predicate):
        store.people.delete(predicate)
