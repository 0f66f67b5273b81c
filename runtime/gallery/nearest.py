"""The rows of a table that are most similar to a query, in an order that does not depend on rounding or storage.

LanceDB's own similarities are rounded as its kernels happen to, so that they choose candidates only: a few rows more
than asked for, whose similarities are computed again from their embeddings. Columns that are only shown, thumbnails
among them, are read of the rows found. D embedding dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psarm.runtime.gallery.columns import matrix

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

SIMILARITY = "similarity"
"""Column that `nearest` adds: float32."""

_MORE = 16
"""Rows asked for beyond those wanted, for what lies at the edge."""

FEW = 50_000
"""So many rows that a filter leaves are read and compared here: LanceDB's search reads every row's embedding first."""

_BATCH = 4096
"""Rows whose embeddings are in memory as doubles."""

_ALL = 2**31 - 1
"""Partitions: more than any index has."""

_ROW = "_rowid"
"""Column of LanceDB's row ids."""

_ROUNDING = 1e-5
"""What a similarity of LanceDB may be off, for embeddings of length 1 at most."""


@dataclass(frozen=True)
class Approximate:
    """How a search goes through an index of `build_index`.

    A table that has none is searched exactly, and so are the rows that a filter leaves where there are `FEW`.
    """

    nprobes: int = 64
    """Partitions looked at; all of them where these have too few rows that the filters leave."""
    refine: int = 10
    """So many times `top_k` rows are compared by their embeddings as they are."""


def embedding_matrix(rows: pa.Table) -> NDArray[np.float32]:
    """float32 [n,D], the column `embedding`."""
    return matrix(rows["embedding"])


def similarity(queries: NDArray[np.float32], embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dot products, float32 [n] of one query or [q,n] of several.

    Summed in double, so that equal embeddings have equal similarities wherever they lie.
    """
    doubles = queries.astype(np.float64)
    parts = [
        (doubles @ embeddings[start : start + _BATCH].T.astype(np.float64)).astype(np.float32)
        for start in range(0, max(len(embeddings), 1), _BATCH)
    ]
    return np.concatenate(parts, axis=-1)


def nearest(
    table: Table,
    query: NDArray[np.float32],
    limit: int,
    columns: Sequence[str],
    order: Sequence[str],
    predicate: str | None = None,
    approximate: Approximate | None = None,
) -> pa.Table:
    """The `limit` rows with the largest dot products, most similar first.

    Args:
        table: has a column `embedding`.
        query: [D].
        limit: how many rows, at least 1.
        columns: those of the result, beside `embedding` and `similarity`.
        order: columns that say which of equals is the earlier.
        predicate: SQL; rows for which it does not hold are as if not there.
        approximate: through the index, where there is one; None: exact.
    """
    if predicate is not None and table.count_rows(predicate) <= FEW:  # reads the columns of the predicate only
        return _filled(table, _nearest_of_few(table, query, limit, order, predicate), columns)
    asked = limit + _MORE
    slack = _ROUNDING * max(1.0, float(np.linalg.norm(query)))
    while True:
        found = _scan(table, query, asked, order, predicate, approximate)
        if approximate is not None and len(found) < asked:
            found = _scan(table, query, asked, order, predicate, dataclasses.replace(approximate, nprobes=_ALL))
        rows = most_similar(_with_similarity(found, query), order)
        if len(rows) < asked or approximate is not None:
            break
        edge = rows[SIMILARITY][limit - 1].as_py()
        if 1 - float(np.max(found["_distance"])) < edge - slack:
            break  # no row left out can be among the first
        asked *= 4
    return _filled(table, rows.slice(0, limit), columns)


def most_similar(rows: pa.Table, order: Sequence[str]) -> pa.Table:
    """`rows` sorted by similarity, most similar first; equals by the columns of `order`."""
    keys = [np.asarray(rows[name]) for name in reversed(order)]
    return rows.take(np.lexsort([*keys, -np.asarray(rows[SIMILARITY])]))


def with_similarity(rows: pa.Table, values: NDArray[np.float32]) -> pa.Table:
    """`rows` with `values` as their similarity."""
    import pyarrow as pa

    column = pa.array(values, pa.float32())
    if SIMILARITY in rows.schema.names:
        return rows.set_column(rows.schema.get_field_index(SIMILARITY), SIMILARITY, column)
    return rows.append_column(SIMILARITY, column)


def _with_similarity(rows: pa.Table, query: NDArray[np.float32]) -> pa.Table:
    """`rows` with their similarities in place of their embeddings."""
    return with_similarity(rows, similarity(query, embedding_matrix(rows))).drop_columns(["embedding"])


def _nearest_of_few(
    table: Table, query: NDArray[np.float32], limit: int, order: Sequence[str], predicate: str
) -> pa.Table:
    """Row ids, `order` and similarity of the `limit` best, of all rows for which `predicate` holds."""
    import pyarrow as pa

    columns = [*order, "embedding"]
    search: Any = table.search().where(predicate).select(columns).with_row_id(True)
    schema = pa.schema([*_fields(table, columns), pa.field(_ROW, pa.uint64())])
    best = _with_similarity(schema.empty_table(), query)
    for batch in search.to_batches(_BATCH):
        rows = _with_similarity(pa.Table.from_batches([batch]), query)
        best = most_similar(pa.concat_tables([best, rows.select(best.schema.names)]), order).slice(0, limit)
    return best


def _filled(table: Table, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """`columns`, embedding and similarity of `rows`, which have row ids, in their order."""
    import pyarrow as pa

    names = [*columns, "embedding"]
    if not len(rows):  # LanceDB reads the whole table to take no rows
        empty = pa.schema(_fields(table, names)).empty_table()
        return with_similarity(empty, np.asarray(rows[SIMILARITY]))
    found: pa.Table = table.take_row_ids(rows[_ROW].to_pylist()).select(names).with_row_id().to_arrow()
    ids = np.asarray(found[_ROW])
    rising = np.argsort(ids)
    found = found.take(rising[np.searchsorted(ids, np.asarray(rows[_ROW]), sorter=rising)])
    return with_similarity(found.drop_columns([_ROW]), np.asarray(rows[SIMILARITY]))


def _fields(table: Table, columns: Sequence[str]) -> list[pa.Field]:
    schema = table.schema
    return [schema.field(name) for name in columns]


def _scan(
    table: Table,
    query: NDArray[np.float32],
    limit: int,
    order: Sequence[str],
    predicate: str | None,
    approximate: Approximate | None,
) -> pa.Table:
    """Row ids, `order`, embedding and distance of LanceDB's `limit` nearest."""
    search: Any = table.search(query, vector_column_name="embedding")
    search = search.distance_type("dot").limit(limit).select([*order, "embedding", "_distance"]).with_row_id(True)
    if predicate is not None:
        search = search.where(predicate, prefilter=True)
    if approximate is None:
        search = search.bypass_vector_index()
    else:
        search = search.nprobes(approximate.nprobes).refine_factor(approximate.refine)
    return search.to_arrow()
