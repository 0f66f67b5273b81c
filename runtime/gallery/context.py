"""Context bipartite graph matching (CBGM) in a gallery: `psarm.evaluation.rerank` over the table of people.

The k1 most similar people that the filters let through choose the frames. All people of those frames take part in the
matching, also those of too low a score to be found themselves: who walks along is no less there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from psarm.evaluation.cbgm import match_query
from psarm.runtime.gallery.filters import is_in
from psarm.runtime.gallery.nearest import embedding_matrix, most_similar, similarity, with_similarity

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

ORDER = ("source", "frame", "person")
"""Which of two people is the earlier."""


def match_frames(
    people: Table,
    best: pa.Table,
    query: NDArray[np.float32],
    context: NDArray[np.float32],
    columns: Sequence[str],
    lowest: float | None,
) -> pa.Table:
    """Everybody in the frames of `best`, with their similarities after the matching.

    Args:
        people: the table.
        best: the k1 most similar people, at least one; columns of `ORDER` at least.
        query: [D].
        context: [k,D], people of the query's image, the query first.
        columns: those of the result beside `embedding` and `similarity`; `ORDER` and `score` among them.
        lowest: people of lower scores take part and are then left out; None: nobody is.
    """
    rows = _people_of(people, _frames(best), columns)
    embeddings = embedding_matrix(rows)
    values = similarity(query, embeddings)
    edges = similarity(context, embeddings)  # [k,m of all frames]
    keys = np.stack([np.asarray(rows["source"]), np.asarray(rows["frame"])], axis=1)
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        match = match_query(edges[:, start:stop])
        if match is not None:
            values[start + match[0]] = match[1]
    rows = with_similarity(rows, values)
    return rows if lowest is None else rows.filter(np.asarray(rows["score"]) >= np.float32(lowest))


def replace_frames(rows: pa.Table, matched: pa.Table, best: pa.Table) -> pa.Table:
    """`rows` with those of the frames of `best` replaced by `matched`; most similar first."""
    import pyarrow as pa

    frames = set(_frames(best))
    kept = [frame not in frames for frame in zip(*_source_and_frame(rows), strict=True)]
    others = rows.filter(pa.array(kept, pa.bool_()))
    return most_similar(pa.concat_tables([others, matched.select(others.schema.names)]), ORDER)


def _frames(rows: pa.Table) -> list[tuple[int, int]]:
    """(source, frame) of `rows`, each once, rising."""
    return sorted(set(zip(*_source_and_frame(rows), strict=True)))


def _source_and_frame(rows: pa.Table) -> tuple[list[int], list[int]]:
    return rows["source"].to_pylist(), rows["frame"].to_pylist()


def _people_of(people: Table, frames: list[tuple[int, int]], columns: Sequence[str]) -> pa.Table:
    """All people of `frames`, by source, frame and person."""
    by_source: dict[int, list[int]] = {}
    for source, frame in frames:
        by_source.setdefault(source, []).append(frame)
    predicate = " OR ".join(f"(source = {source} AND {is_in('frame', some)})" for source, some in by_source.items())
    rows = people.search().where(predicate).select([*columns, "embedding"]).to_arrow()
    return rows.sort_by([(name, "ascending") for name in ORDER])
