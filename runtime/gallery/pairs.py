"""Pairs of a gallery's visits that are different people, and how similar they are.

V visits, P pairs, D embedding dimensions. A pair is two places in `Visits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from psarm.runtime.gallery.nearest import embedding_matrix

if TYPE_CHECKING:
    from lancedb.table import Table

Pairs = NDArray[np.int64]  # [P,2]

_AT_ONCE = 20_000
"""Pairs whose embeddings are in memory at a time."""


@dataclass(frozen=True, eq=False)
class Visits:
    """Every visit, by source and first frame."""

    rows: NDArray[np.uint64]  # [V] LanceDB's row ids
    ids: NDArray[np.int64]  # [V]
    sources: NDArray[np.int32]  # [V]
    first: NDArray[np.int64]  # [V] frame
    last: NDArray[np.int64]  # [V] frame


def read_visits(table: Table) -> Visits:
    """All visits of the table, without their embeddings."""
    names = ["visit", "source", "first_frame", "last_frame"]
    found = table.search().select(names).with_row_id(True).to_arrow()
    ids, sources, first, last = (np.asarray(found[name]) for name in names)
    order = np.lexsort((first, sources))
    return Visits(np.asarray(found["_rowid"])[order], ids[order], sources[order], first[order], last[order])


def simultaneous_pairs(visits: Visits, limit: int, rng: np.random.Generator) -> Pairs:
    """Two visits of one source that are there at the same time; `limit` of them where there are more."""
    ends = np.zeros(len(visits.rows), np.int64)  # [V] end of those that begin no later than the visit ends
    for source in np.unique(visits.sources):
        start, stop = np.searchsorted(visits.sources, [source, source + 1])
        ends[start:stop] = start + np.searchsorted(visits.first[start:stop], visits.last[start:stop], side="right")
    before = np.concatenate([[0], np.cumsum(ends - np.arange(len(ends)) - 1)])  # [V+1] pairs of the visits before
    total = int(before[-1])
    chosen = np.arange(total) if total <= limit else rng.choice(total, limit, replace=False, shuffle=False)
    one = np.searchsorted(before, chosen, side="right") - 1
    return np.stack([one, one + 1 + chosen - before[one]], axis=1)


def without(pairs: Pairs, visits: Visits, others: NDArray[np.int64]) -> Pairs:
    """Those of `pairs` whose visits are not one of the pairs of ids `others` [n,2], the smaller id first."""
    if not len(pairs) or not len(others):
        return pairs
    both = np.concatenate([np.sort(visits.ids[pairs], axis=1), others])
    _, places = np.unique(both, axis=0, return_inverse=True)
    places = places.reshape(-1)
    return pairs[~np.isin(places[: len(pairs)], places[len(pairs) :])]


def random_pairs(count: int, limit: int, rng: np.random.Generator) -> Pairs:
    """Two of `count` visits; all such pairs, or `limit` drawn with replacement where there are more."""
    if count * (count - 1) // 2 <= limit:
        return np.stack(np.triu_indices(count, 1), axis=1)
    one = rng.integers(0, count, limit)
    return np.stack([one, (one + rng.integers(1, count, limit)) % count], axis=1)


def pair_similarities(table: Table, visits: Visits, pairs: Pairs) -> NDArray[np.float32]:
    """[P]: dot products of the first's direction with the second's embedding."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]  # neighbours share visits
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        rows, places = np.unique(visits.rows[some], return_inverse=True)
        found = table.take_row_ids(rows.tolist()).select(["embedding"]).with_row_id().to_arrow()
        embeddings = embedding_matrix(found)[np.argsort(np.asarray(found["_rowid"]))]
        one, other = (embeddings[places.reshape(some.shape)[:, side]] for side in (0, 1))
        lengths = np.linalg.norm(one, axis=1)
        products = np.einsum("pd,pd->p", one, other)
        parts.append(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))
    return np.concatenate(parts)
