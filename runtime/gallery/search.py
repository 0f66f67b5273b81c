"""Search in the tables of a gallery: visits, and the people of single frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.evaluation.cbgm import PRW_K1, PRW_K2
from psarm.runtime.detections import Detections
from psarm.runtime.gallery import hits
from psarm.runtime.gallery.context import ORDER, match_frames, replace_frames
from psarm.runtime.gallery.filters import both, is_in, lowest_score, named_sources, people_predicate, visits_predicate
from psarm.runtime.gallery.nearest import Approximate, nearest
from psarm.runtime.gallery.records import FrameHit, GalleryFacts, VisitHit, Where

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

    from psarm.runtime.gallery.calibration import Calibration

MOST = 10**8
"""Hits that may be asked for: LanceDB counts in 32 bits."""

_LENGTHS = (1e-3, 1e3)
"""A query's length, at least and at most: beyond, rounding decides who is more similar, or everybody is as similar."""

__all__ = ["Approximate", "SearchRequest", "Tables", "search_frames", "search_visits"]


class Tables(Protocol):
    """The opened tables of a gallery that a search reads."""

    @property
    def facts(self) -> GalleryFacts:
        """What the gallery is."""

    @property
    def people(self) -> Table:
        """`schema.PEOPLE`."""

    @property
    def visits(self) -> Table:
        """`schema.VISITS`."""

    @property
    def sources(self) -> Table:
        """`schema.SOURCES`."""


@dataclass(frozen=True, eq=False)
class SearchRequest:
    """What is searched for."""

    query: NDArray[np.float32]  # [D] of unit length, or [q,D]: several pictures of one person
    top_k: int = 10
    where: Where = field(default_factory=Where)
    context: Detections | None = None
    """People of the query's own picture from `PersonSearch.detect_around`; given, similarities go through CBGM. With
    several pictures, it is that of the first, and they together stand for the query in it."""
    k1: int = PRW_K1
    k2: int = PRW_K2
    approximate: Approximate | None = None
    """None: exact."""


def search_visits(tables: Tables, request: SearchRequest, calibration: Calibration | None = None) -> list[VisitHit]:
    """Visits, most similar first; of equals the earlier by source and first frame (with a context: by source and the
    frame of the most similar person).

    A visit's similarity is its representative embedding's; with a context, that of its most similar person after CBGM.
    Its score, box and thumbnail are always those of its best frame. People whom the tracker gave to no visit are hits
    of their own, with `visit` None; a gallery that keeps visits only has none.

    Args:
        tables: of the gallery.
        request: see there.
        calibration: gives the hits their false-match rate. It holds for similarities as they are, so that hits of a
            search with context have none.

    Raises:
        UsageError: the query, `top_k` or the filters cannot work, or name what the gallery does not have.
    """
    query = _query(tables, request)
    sources = named_sources(tables.sources)
    if request.context is not None:
        rows = _rows_by_visit(tables.people, request, query, people_predicate(request.where, sources))
        return hits.visit_hits_of_rows(rows, tables.visits, sources)
    visits = nearest(
        tables.visits,
        query,
        request.top_k,
        hits.VISIT_COLUMNS,
        hits.VISIT_ORDER,
        visits_predicate(request.where, sources),
        request.approximate,
    )
    in_none = both(people_predicate(request.where, sources), "visit IS NULL" if tables.facts.people else "false")
    alone = _nearest_people(tables.people, request, query, request.top_k, in_none)
    return hits.visit_hits(visits, alone, sources, calibration)[: request.top_k]


def search_frames(tables: Tables, request: SearchRequest) -> list[FrameHit]:
    """People of single frames, most similar first; of equals the earlier by source, frame and person.

    Without filters these are the hits of `psarm.runtime.rank` for the same frames.

    Raises:
        UsageError: as `search_visits`.
    """
    query = _query(tables, request)
    sources = named_sources(tables.sources)
    predicate = people_predicate(request.where, sources)
    limit = request.top_k if request.context is None else max(request.top_k, request.k1)
    rows = _nearest_people(tables.people, request, query, limit, predicate)
    if request.context is not None:
        rows = _matched(tables.people, request, query, rows, rows.slice(0, request.k1))
    return hits.frame_hits(rows.slice(0, request.top_k), sources)


def _nearest_people(
    people: Table, request: SearchRequest, query: NDArray[np.float32], limit: int, predicate: str | None
) -> pa.Table:
    return nearest(people, query, limit, hits.PERSON_COLUMNS, ORDER, predicate, request.approximate)


def _matched(
    people: Table, request: SearchRequest, query: NDArray[np.float32], rows: pa.Table, best: pa.Table
) -> pa.Table:
    """`rows` after the matching in the frames of `best`, with everybody in them."""
    if request.context is None or not len(best):
        return rows
    context = request.context.embeddings[: request.k2]
    if request.query.ndim == 2 and len(context):
        context = np.concatenate([query[None], context[1:]])
    lowest = None if request.where.min_score is None else lowest_score(request.where.min_score)
    return replace_frames(rows, match_frames(people, best, query, context, hits.PERSON_COLUMNS, lowest), best)


def _rows_by_visit(
    people: Table, request: SearchRequest, query: NDArray[np.float32], predicate: str | None
) -> pa.Table:
    """After CBGM the most similar row of each of the `top_k` most similar visits, or a row without a visit.

    A similarity never falls by the matching: the `top_k` visits are among those whose rows are best before it and
    those in matched frames. The former are searched for in rounds, each without the visits of the rounds before, so
    that one long visit does not fill the memory with its rows.
    """
    import pyarrow as pa

    limit = max(request.k1, 16 * request.top_k)
    best: pa.Table | None = None
    rounds: list[pa.Table] = []
    seen: list[int] = []
    found = 0
    while True:
        without = f"visit IS NULL OR NOT ({is_in('visit', seen)})" if seen else None
        rows = _nearest_people(people, request, query, limit, both(predicate, without))
        best = rows.slice(0, request.k1) if best is None else best
        first = _first_of_each(rows)
        rounds.append(first)
        found += len(first)
        seen += [visit for visit in first["visit"].to_pylist() if visit is not None]
        if len(rows) < limit or found >= request.top_k:
            break
    rows = _matched(people, request, query, pa.concat_tables(rounds), best)
    return _first_of_each(rows).slice(0, request.top_k)


def _first_of_each(rows: pa.Table) -> pa.Table:
    """The first row of every visit, and all rows without one."""
    seen: set[int] = set()
    chosen = []
    for index, visit in enumerate(rows["visit"].to_pylist()):
        if visit is None or visit not in seen:
            chosen.append(index)
        if visit is not None:
            seen.add(visit)
    return rows.take(np.asarray(chosen, np.int64))


def _query(tables: Tables, request: SearchRequest) -> NDArray[np.float32]:
    """[D] to search for; of several pictures the normalised mean."""
    size = tables.visits.schema.field("embedding").type.list_size
    query = np.asarray(request.query, np.float32)
    if query.ndim not in (1, 2) or query.shape[-1] != size or not len(query):
        raise UsageError(f"The query must be [{size}], or [q,{size}] of q pictures, got {list(query.shape)}.")
    if request.context is not None and request.context.embeddings.shape[1:] != (size,):
        raise UsageError(f"The context must be [k,{size}], got {list(request.context.embeddings.shape)}.")
    if not (1 <= request.top_k <= MOST and 1 <= request.k1 <= MOST):
        raise UsageError(f"top_k and k1 must be at least 1 and at most {MOST}, got {request.top_k} and {request.k1}.")
    if query.ndim == 2:
        query = _unit(np.mean([_unit(picture) for picture in query], axis=0))
    if not np.isfinite(query).all():
        raise UsageError("The query has values that are not numbers, or its pictures cancel one another out.")
    length = float(np.linalg.norm(query.astype(np.float64)))
    if not _LENGTHS[0] <= length <= _LENGTHS[1]:
        raise UsageError(f"The query must be an embedding of unit length, got one of length {length:g}.")
    return query


def _unit(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(embedding))
    return embedding / np.float32(length) if length > 0 else np.full_like(embedding, np.nan)
