"""Indexes of the columns by which searches, commits and erasing look rows up: visit, frame, time and source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psarm.runtime.gallery.schema import PEOPLE, VISITS

if TYPE_CHECKING:
    from lancedb.table import Table

    from psarm.runtime.gallery.store import Store

SMALLEST = 100_000
"""Rows from which on an index is worth its while."""

_SORTED = {PEOPLE: ("visit", "frame", "time"), VISITS: ("visit", "start")}
_FEW_VALUES = {PEOPLE: ("source",), VISITS: ("source",)}


def index_columns(store: Store) -> None:
    """Make the indexes that large tables lack; compaction keeps them up to date, and rows added since are read."""
    from lancedb.index import Bitmap, BTree

    for table in (store.people, store.visits):
        if table.count_rows() < SMALLEST:
            continue
        there = _indexed_columns(table)
        for columns, kind in ((_SORTED, BTree), (_FEW_VALUES, Bitmap)):
            for column in columns[table.name]:
                if column not in there:
                    table.create_index(column, config=kind())


def _indexed_columns(table: Table) -> set[str]:
    return {column for index in table.list_indices() for column in index.columns}
