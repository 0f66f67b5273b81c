"""What a gallery holds, and keeping it small, tidy and no longer than allowed."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery.columns import frames_of
from psarm.runtime.gallery.filters import is_in, sql_time
from psarm.runtime.gallery.ledger import empty_segment, read_segments, read_sources, summed_up
from psarm.runtime.gallery.lookup import index_columns
from psarm.runtime.gallery.records import GalleryInfo, Removed
from psarm.runtime.gallery.schema import CALIBRATION, visit_name
from psarm.runtime.gallery.store import Store
from psarm.runtime.gallery.visits import Visit, fold, read_visits, write_visits

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

KEPT = timedelta(hours=1)
"""How long readers may go on with a version."""

AT_ONCE = timedelta(milliseconds=1)


def info(store: Store) -> GalleryInfo:
    """What is in it."""
    sources = read_sources(store)
    spans = [*_times(store.visits, "start", "end"), *_times(store.people, "time", "time")]
    return GalleryInfo(
        facts=store.facts,
        people=store.people.count_rows() if store.facts.people else 0,  # without, those that trackers need are there
        visits=store.visits.count_rows(),
        sources=len(sources),
        cameras=tuple(sorted({info.source.camera for info in sources})),
        start=min((first for first, _ in spans), default=None),
        end=max((last for _, last in spans), default=None),
        bytes=disk_bytes(store),
        indexed=_indexed(store),
    )


def disk_bytes(store: Store) -> int | None:
    """Of its files; None on object storage."""
    if store.directory is None:
        return None
    total = 0
    for folder, _, names in os.walk(store.directory):
        for name in names:
            try:
                total += Path(folder, name).stat().st_size
            except FileNotFoundError:  # a writer removed it since
                continue
    return total


def has_index(table: Table) -> bool:
    """Whether there is an index of the embeddings."""
    return any("embedding" in index.columns for index in table.list_indices())


def compact(store: Store) -> None:
    """Join small files, sum segments up, and remove versions that readers do not need any more."""
    import pyarrow as pa

    segments = summed_up(read_segments(store).values())
    store.segments.add(pa.Table.from_pylist(segments, schema=store.segments.schema), mode="overwrite")
    for table in (store.sources, store.people, store.visits, store.segments):
        table.optimize(cleanup_older_than=KEPT)
    if CALIBRATION in store.database.list_tables().tables:
        store.database.open_table(CALIBRATION).optimize(cleanup_older_than=KEPT)
    index_columns(store)


def purge(store: Store, older_than: datetime) -> Removed:
    """Erase who was seen before a time; of unknown time, who is of a source added before it.

    A visit that goes on after it keeps the people after it; without people in the gallery it stays as it is.
    """
    people_gone, visits_gone = _seen_before(store, older_than)
    indexed = _indexed(store)
    # People first: a visit is never folded from people that are to go.
    people, visits = _delete(store.people, people_gone), _delete(store.visits, visits_gone)
    if store.facts.people:
        _begin_later(store, f"start < {sql_time(older_than)}")
    erase(store)
    return Removed(people, visits, _dropped(store, indexed))


def to_be_purged(store: Store, older_than: datetime) -> Removed:
    """What `purge` would erase."""
    people_gone, visits_gone = _seen_before(store, older_than)
    return Removed(store.people.count_rows(people_gone), store.visits.count_rows(visits_gone))


def is_purge_due(store: Store, older_than: datetime) -> bool:
    """Whether `purge` would erase somebody, or what one that was broken off has left."""
    removed = to_be_purged(store, older_than)
    if removed.people or removed.visits or not store.facts.people:
        return bool(removed.people or removed.visits)
    return _has_deleted_rows(store.people) or bool(store.visits.count_rows(f"start < {sql_time(older_than)}"))


def _seen_before(store: Store, older_than: datetime) -> tuple[str, str]:
    """SQL of the people and of the visits that `purge` erases; `UsageError` for a time that cannot be one."""
    moment = sql_time(older_than)
    old = is_in("source", [info.progress.source for info in read_sources(store) if info.added < older_than])
    return f"time < {moment} OR (time IS NULL AND {old})", f'"end" < {moment} OR ("end" IS NULL AND {old})'


def delete_source(store: Store, name: str) -> Removed:
    """Erase a source; what a crash leaves of it is erased by the same call, as its own row goes last.

    Its segments go first: without, a writer knows that what is left of it has to go too.
    """
    infos = read_sources(store)
    numbers = [info.progress.source for info in infos if info.source.name == name]
    if not numbers:
        raise GalleryError(f"{store.where} has no source {name}; psarm gallery sources lists them.")
    predicate = f"source = {numbers[0]}"
    indexed = _indexed(store)
    _delete(store.segments, predicate)
    people, visits = _delete(store.people, predicate), _delete(store.visits, predicate)
    erase(store)
    if numbers[0] == infos[-1].progress.source:
        _keep_number(store, numbers[0])
    _delete(store.sources, predicate)
    erase(store)
    return Removed(people, visits, _dropped(store, indexed))


def _keep_number(store: Store, source: int) -> None:
    """The next source gets a higher number: visits are known by it, in notes and in pages of hits too."""
    import pyarrow as pa

    store.segments.add(pa.Table.from_pylist([empty_segment(source)], schema=store.segments.schema))


def delete_visits(store: Store, ids: Collection[int]) -> Removed:
    """Erase visits with their people; people first: a visit is never folded from people that are to go."""
    there = _visits_there(store, ids)
    if not there:
        erase(store)  # what was deleted by a call that a crash broke off
    _check_visits(store, ids, there)
    predicate = is_in("visit", ids)
    indexed = _indexed(store)
    people, visits = _delete(store.people, predicate), _delete(store.visits, predicate)
    erase(store)
    return Removed(people, visits, _dropped(store, indexed))


def visits_to_be_deleted(store: Store, ids: Collection[int]) -> Removed:
    """What `delete_visits` would erase."""
    _check_visits(store, ids, _visits_there(store, ids))
    predicate = is_in("visit", ids)
    return Removed(store.people.count_rows(predicate), store.visits.count_rows(predicate))


def _visits_there(store: Store, ids: Collection[int]) -> set[int]:
    """Which visits somebody is of."""
    there: set[int] = set()
    for table in (store.visits, store.people):  # a broken-off deletion or commit leaves one without the other
        there.update(table.search().where(is_in("visit", ids)).select(["visit"]).to_arrow()["visit"].to_pylist())
    return there


def _check_visits(store: Store, ids: Collection[int], there: Collection[int]) -> None:
    """Raise `UsageError` for a visit that is not `there`."""
    if unknown := [visit_name(visit) for visit in ids if visit not in there]:
        raise UsageError(f"{store.where} has no visit {', '.join(unknown)}; psarm search --gallery says which it has.")


def erase(store: Store) -> None:
    """Remove deleted rows from the disk at once, with the versions that had them.

    A compaction leaves the deleted rows of a file that has few of them, so that such a table is written anew.
    """
    if not store.facts.people:  # people go with every commit, which leaves an index as it is
        _drop_indexes(store.people)
    alone = store.directory is not None  # holding the lock: files of no version are of no writer at work
    for table in (store.sources, store.segments, store.visits, store.people):
        _keep_newest(table, alone)
        if _has_deleted_rows(table):
            _drop_indexes(table)
            table.add(table.search().to_batches(), mode="overwrite")
            _keep_newest(table, alone)
    index_columns(store)


def _indexed(store: Store) -> tuple[str, ...]:
    """Names of the tables that have an index of their embeddings."""
    return tuple(table.name for table in (store.people, store.visits) if has_index(table))


def _dropped(store: Store, before: Collection[str]) -> tuple[str, ...]:
    """Which of the tables that had an index of their embeddings `before` have none any more."""
    now = _indexed(store)
    return tuple(name for name in before if name not in now)


def _drop_indexes(table: Table) -> None:
    """They keep quantised embeddings of deleted rows, also where a file goes as a whole and no row is marked."""
    for index in table.list_indices():
        table.drop_index(index.name)


def _keep_newest(table: Table, alone: bool) -> None:
    """Compact a table, and remove all versions but the newest: a compaction's own steps are versions too."""
    table.optimize()
    time.sleep(2 * AT_ONCE.total_seconds())
    table.optimize(cleanup_older_than=AT_ONCE, delete_unverified=alone)


def _has_deleted_rows(table: Table) -> bool:
    """Whether files of the newest version hold rows that were deleted from it."""
    newest = max(table.list_versions(), key=lambda version: version["version"])
    return int(newest["metadata"]["total_deletion_file_rows"]) > 0


def _begin_later(store: Store, predicate: str) -> None:
    """Fold visits anew from the people that are left of them, without those that a crash left uncommitted."""
    begun = read_visits(store.visits, predicate)
    if not begun:
        return
    _drop_indexes(store.visits)
    done = {info.progress.source: info.progress.last_frame for info in read_sources(store)}
    rows = store.people.search().where(is_in("visit", begun)).to_arrow()
    left: dict[int, Visit] = {}
    for source in sorted({visit.source for visit in begun.values()}):
        frames = [people for people in frames_of(_of_source(rows, source)) if people.frame <= done[source]]
        camera = next(visit.camera for visit in begun.values() if visit.source == source)
        fold(left, source, camera, frames)
    kept = [
        replace(visit, thumbnail=begun[number].thumbnail) if visit.best_frame == begun[number].best_frame else visit
        for number, visit in left.items()
    ]
    write_visits(store.visits, kept)


def _of_source(rows: pa.Table, source: int) -> pa.Table:
    import pyarrow.compute as pc

    return rows.filter(pc.equal(rows["source"], source))


def _delete(table: Table, predicate: str) -> int:
    """Delete rows, and count them; indexes go before, so that a crash leaves none that has rows that are gone."""
    count: int = table.count_rows(predicate)
    if count:
        _drop_indexes(table)
        table.delete(predicate)
    return count


def _times(table: Table, first: str, last: str) -> Iterator[tuple[datetime, datetime]]:
    """Earliest and latest of two columns, batch by batch."""
    import pyarrow.compute as pc

    for batch in table.search().select(list({first, last})).to_batches():
        earliest, latest = pc.min(batch[first]).as_py(), pc.max(batch[last]).as_py()
        if earliest is not None:
            yield earliest, latest
