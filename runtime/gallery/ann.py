"""An approximate nearest-neighbour index of a gallery, and how much of the exact search it finds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.runtime.gallery.context import ORDER
from psarm.runtime.gallery.nearest import SIMILARITY, Approximate, embedding_matrix, nearest
from psarm.runtime.gallery.schema import PEOPLE, VISITS

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.index import HnswSq, IvfPq, IvfSq
    from lancedb.table import Table

    from psarm.runtime.gallery.search import Tables

IndexKind = Literal["IVF_PQ", "IVF_SQ", "IVF_HNSW_SQ"]

SMALLEST = 10_000
"""Rows from which on an index is worth its while."""


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

    Raises:
        UsageError: `k` or `queries` is not positive.
    """
    if k < 1 or queries < 1:
        raise UsageError(f"Recall is measured with at least 1 query for at least 1 hit, got {queries} and {k}.")
    through = approximate or Approximate()
    return [
        _build(table, name, kind, order, k, queries, through, smallest)
        for table, name, order in ((tables.people, PEOPLE, ORDER), (tables.visits, VISITS, ("visit",)))
    ]


def _build(
    table: Table,
    name: str,
    kind: IndexKind,
    order: Sequence[str],
    k: int,
    queries: int,
    approximate: Approximate,
    smallest: int,
) -> IndexReport:
    rows = table.count_rows()
    if rows < smallest:
        for index in table.list_indices():
            if "embedding" in index.columns:
                table.drop_index(index.name)
        reason = f"the exact search of its {rows:,} rows needs none; one is built from {smallest:,} rows on"
        return IndexReport(name, rows, None, reason, None, k, 0, 0.0, None, None)
    start = time.perf_counter()
    table.create_index("embedding", config=_config(kind), replace=True)
    build_s = time.perf_counter() - start
    recall, exact_ms, approximate_ms = _measure(table, order, k, min(queries, rows), approximate)
    return IndexReport(name, rows, kind, "", recall, k, min(queries, rows), build_s, exact_ms, approximate_ms)


def _config(kind: IndexKind) -> IvfPq | IvfSq | HnswSq:
    from lancedb.index import HnswSq, IvfPq, IvfSq

    kinds: dict[IndexKind, type[IvfPq | IvfSq | HnswSq]] = {"IVF_PQ": IvfPq, "IVF_SQ": IvfSq, "IVF_HNSW_SQ": HnswSq}
    return kinds[kind](distance_type="dot")


def _measure(
    table: Table, order: Sequence[str], k: int, queries: int, approximate: Approximate
) -> tuple[float, float, float]:
    """Recall, and the median milliseconds of an exact and an approximate query."""
    places = np.random.default_rng(0).choice(table.count_rows(), queries, replace=False)
    drawn = table.take_offsets(places.tolist()).select([*order, "embedding"]).to_arrow()
    directions = embedding_matrix(drawn)
    directions = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    themselves = drawn.select(list(order)).to_pylist()
    nearest(table, directions[0], k, order, order, None, approximate)  # reads the index
    found, times = 0, {True: list[float](), False: list[float]()}
    wanted = 0
    for query, itself in zip(directions, themselves, strict=True):
        similarities = {}
        for exact in (True, False):
            start = time.perf_counter()
            rows = nearest(table, query, k + 1, order, order, None, None if exact else approximate)
            times[exact].append((time.perf_counter() - start) * 1e3)
            similarities[exact] = _others(rows, itself)[:k]
        wanted += len(similarities[True])
        found += int(np.sum(similarities[False] >= similarities[True][-1:]))  # of equals any will do
    recall = found / wanted if wanted else 1.0
    return recall, float(np.median(times[True])), float(np.median(times[False]))


def _others(rows: pa.Table, itself: dict[str, int]) -> NDArray[np.float32]:
    """Similarities of `rows` without the row drawn, falling."""
    keep = [row != itself for row in rows.select(list(itself)).to_pylist()]
    similarities: NDArray[np.float32] = np.asarray(rows[SIMILARITY])[np.array(keep, bool)]
    return similarities
