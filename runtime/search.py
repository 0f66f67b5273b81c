"""Rank the people of many frames by their similarity to a query.

M people of all frames together, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.evaluation.cbgm import PRW_K1, PRW_K2, rerank
from psarm.runtime.detections import Detections


@dataclass(frozen=True, eq=False)
class Hit:
    """One person found: `frames[frame][index]` of what was searched."""

    frame: int
    index: int
    similarity: float
    """Dot product of the query with the person's weighted embedding, -1…1 (with CBGM: of the best matched pair)."""
    score: float
    box: NDArray[np.float32]  # [4] xyxy in pixels of the frame


def rank(
    query: NDArray[np.float32],
    frames: Sequence[Detections],
    top_k: int | None = None,
    context: Detections | None = None,
    k1: int = PRW_K1,
    k2: int = PRW_K2,
) -> list[Hit]:
    """People of all `frames` (from `PersonSearch.detect`), most similar first; of equals the earlier.

    Args:
        query: unit-length embedding [D], from `PersonSearch.embed`.
        frames: people of each frame searched.
        top_k: how many to return; None for all.
        context: people of the query's own frame from `PersonSearch.detect_around`; given, similarities go through
            context bipartite graph matching (CBGM) in the frames of the `k1` best, with `k2` people of the context.

    Raises:
        UsageError: the embeddings are of different sizes.
    """
    query = np.asarray(query, np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(people) for people in frames], dtype=np.int64)])
    if offsets[-1] == 0:
        return []
    embeddings = np.concatenate([people.embeddings for people in frames if len(people)])  # [M,D]
    if query.shape != embeddings.shape[1:]:
        raise UsageError(f"The query must be [{embeddings.shape[1]}], as the people searched, got {list(query.shape)}.")
    similarities = embeddings @ query
    if context is not None:
        similarities = rerank(similarities, offsets, embeddings, context.embeddings, k1, k2)
    order = np.argsort(-similarities, kind="stable")[:top_k]
    where = np.searchsorted(offsets, order, side="right") - 1
    hits = []
    for row, frame in zip(order.tolist(), where.tolist(), strict=True):
        index = int(row - offsets[frame])
        person = frames[frame][index]
        hits.append(Hit(frame, index, float(similarities[row]), person.score, person.box))
    return hits
