"""An approximate nearest-neighbour index of a gallery, and how much of the exact search it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from psarm.runtime.gallery.search import Tables

IndexKind = Literal["IVF_PQ", "IVF_SQ", "IVF_HNSW_SQ"]


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


def build_index(tables: Tables, kind: IndexKind = "IVF_PQ", k: int = 10, queries: int = 100) -> list[IndexReport]:
    """Index the people and the visits; a report a table."""
    raise NotImplementedError
