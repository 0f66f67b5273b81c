"""An approximate nearest-neighbour index of a gallery, and how much of the exact search it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.runtime.gallery.context import ORDER
from psarm.runtime.gallery.nearest import SIMILARITY, Approximate, embedding_matrix, nearest, similarity

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.index import HnswSq, IvfPq, IvfSq
    from lancedb.table import Table

    from psarm.runtime.gallery.search import Tables

IndexKind = Literal["IVF_PQ", "IVF_SQ", "IVF_HNSW_SQ"]

OnStep = Callable[[str], None]
"""Told in words what is begun: of millions of rows each step takes minutes."""

SMALLEST = 10_000
"""Rows from which on an index is worth its while."""

TIMED = 5
"""Exact queries that are timed: of millions of rows each takes seconds."""

ROWS_AT_ONCE = 4096
"""Whose similarities with all queries are in memory."""


@dataclass(frozen=True)
class IndexReport:
    """What `build_index` did to one table."""

    table: str
    rows: int
    kind: IndexKind | None
    """None: no index."""
    reason: str
    """Why there is none, '' where there is one."""
    recall: float | None
    """Share of the exact search's `k` best that the index found."""
    k: int
    queries: int
    build_s: float
    exact_ms: float | None
    """A query, median."""
    approximate_ms: float | None


def build_index(
    tables: Tables,
    kind: IndexKind = "IVF_SQ",
    k: int = 10,
    queries: int = 100,
    approximate: Approximate | None = None,
    smallest: int = SMALLEST,
    on_step: OnStep = lambda _: None,
) -> list[IndexReport]:
    """Index the people and the visits, in place of indexes before; a report a table.

    An index serves only searches that ask for it. Rows added later are found too: they are compared one by one.

    Args:
        tables: of the gallery.
        kind: of index.
        k: how many hits recall is measured for.
        queries: rows drawn at random that it is measured with; each is itself no hit.
        approximate: how it is searched then; None: as searches do unless told otherwise.
        smallest: a table of fewer rows gets none, and loses the one it has.
        on_step: told what is begun.

    Raises:
        UsageError: `k` or `queries` is not positive.
    """
    if k < 1 or queries < 1:
        raise UsageError(f"Recall is measured with at least 1 query for at least 1 hit, got {queries} and {k}.")
    through = approximate or Approximate()
    reports = []
    for table, order in ((tables.people, ORDER), (tables.visits, ("visit",))):
        rows = table.count_rows()
        if rows < smallest:
            reports.append(_no_index(table, rows, k, smallest))
            continue
        on_step(f"Building the index of {rows:,} {table.name}")
        start = time.perf_counter()
        table.create_index("embedding", config=_config(kind), replace=True)
        build_s = time.perf_counter() - start
        drawn = min(queries, rows)
        on_step(f"Measuring the index of {rows:,} {table.name} with {drawn} queries")
        recall, exact_ms, approximate_ms = _measure(table, order, k, drawn, through)
        reports.append(IndexReport(table.name, rows, kind, "", recall, k, drawn, build_s, exact_ms, approximate_ms))
    return reports


def _no_index(table: Table, rows: int, k: int, smallest: int) -> IndexReport:
    """Drop the one there is, and say why."""
    for index in table.list_indices():
        if "embedding" in index.columns:
            table.drop_index(index.name)
    reason = f"the exact search of its {rows:,} rows needs none; one is built from {smallest:,} rows on"
    return IndexReport(table.name, rows, None, reason, None, k, 0, 0.0, None, None)


def _config(kind: IndexKind) -> IvfPq | IvfSq | HnswSq:
    from lancedb.index import HnswSq, IvfPq, IvfSq

    kinds: dict[IndexKind, type[IvfPq | IvfSq | HnswSq]] = {"IVF_PQ": IvfPq, "IVF_SQ": IvfSq, "IVF_HNSW_SQ": HnswSq}
    return kinds[kind](distance_type="dot")


def _measure(
    table: Table, order: Sequence[str], k: int, queries: int, approximate: Approximate
) -> tuple[float, float, float]:
    """Recall, and the median milliseconds of an exact and an approximate query."""
    places = np.random.default_rng(0).choice(table.count_rows(), queries, replace=False)
    drawn = table.take_offsets(places.tolist()).select([*order, "embedding"]).with_row_id().to_arrow()
    directions = embedding_matrix(drawn)
    directions = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    exact = best_of_others(table, directions, np.asarray(drawn["_rowid"]), k)
    exact_ms = [_timed(table, query, k, order, None)[1] for query in directions[:TIMED]]
    nearest(table, directions[0], k, order, order, None, approximate)  # reads the index
    found, approximate_ms = 0, []
    for query, itself, best in zip(directions, drawn.select(list(order)).to_pylist(), exact, strict=True):
        rows, milliseconds = _timed(table, query, k, order, approximate)
        approximate_ms.append(milliseconds)
        found += int(np.sum(_others(rows, itself)[:k] >= best[-1:]))  # of equals any will do
    recall = found / exact.size if exact.size else 1.0
    return recall, float(np.median(exact_ms)), float(np.median(approximate_ms))


def best_of_others(
    table: Table, queries: NDArray[np.float32], themselves: NDArray[np.uint64], k: int
) -> NDArray[np.float32]:
    """The `k` largest similarities of each query with rows other than itself, falling, in one pass over the table.

    Args:
        table: of N rows, with a column `embedding`.
        queries: [q,D].
        themselves: [q] LanceDB's row ids that the queries were drawn from.
        k: at least 1.

    Returns:
        float32 [q, min(k, N - 1)].
    """
    import pyarrow as pa

    best = np.zeros((len(queries), 0), np.float32)
    search: Any = table.search().select(["embedding"]).with_row_id(True)
    for batch in search.to_batches(ROWS_AT_ONCE):
        rows = pa.Table.from_batches([batch])
        values = similarity(queries, embedding_matrix(rows))  # [q,n]
        values[themselves[:, None] == np.asarray(rows["_rowid"])] = -np.inf
        best = np.concatenate([best, values], axis=1)
        best = -np.partition(-best, min(k, best.shape[1]) - 1, axis=1)[:, :k]
    best = -np.sort(-best, axis=1)
    return best[:, : table.count_rows() - 1]


def _timed(
    table: Table, query: NDArray[np.float32], k: int, order: Sequence[str], approximate: Approximate | None
) -> tuple[pa.Table, float]:
    """The `k` nearest and one more, which may be the query itself, and how many milliseconds that took."""
    start = time.perf_counter()
    rows = nearest(table, query, k + 1, order, order, None, approximate)
    return rows, (time.perf_counter() - start) * 1e3


def _others(rows: pa.Table, itself: dict[str, int]) -> NDArray[np.float32]:
    """Similarities of `rows` without the row drawn, falling."""
    keep = [row != itself for row in rows.select(list(itself)).to_pylist()]
    similarities: NDArray[np.float32] = np.asarray(rows[SIMILARITY])[np.array(keep, bool)]
    return similarities
