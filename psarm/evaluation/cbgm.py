"""Context bipartite graph matching (CBGM, SeqNet section 3.4): who walks along helps to tell who it is.

The people around the query in its own image (the context, the query first) are matched one to one to the people of a
gallery image, by the assignment with the largest sum of dot products. If the query is matched, that detection's
similarity becomes the largest dot product among all matched pairs. Only the images of the k1 most similar detections
are matched, with the first k2 people of the context: k1, k2 are 30, 4 on PRW and 10, 3 on CUHK-SYSU.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psarm.evaluation.types import Floating

PRW_K1, PRW_K2 = 30, 4


def match_query(edges: Floating) -> tuple[int, float] | None:
    """Which gallery detection the query is matched to, and its new similarity.

    Args:
        edges: [k,m] dot products of k context people (the query first) with the m detections of one gallery image.

    Returns:
        Index of the detection and the largest matched dot product; None when the query is left over (the context has
        more people than the image) or there is nothing to match.
    """
    import scipy.optimize  # most of what `import psarm.runtime` would take, were it above

    context, detections = scipy.optimize.linear_sum_assignment(edges, maximize=True)
    if len(context) == 0 or context[0] != 0:  # rows come back in rising order
        return None
    return int(detections[0]), float(edges[context, detections].max())


def cbgm_similarity(context_embeddings: Floating, gallery_embeddings: Floating) -> Floating:
    """Similarity of the query to every detection of one gallery image, after matching.

    Args:
        context_embeddings: [k,D], the query first, not weighted.
        gallery_embeddings: [m,D], weighted by score.

    Returns:
        [m]: dot products with the query, that of the matched detection replaced.
    """
    edges = context_embeddings @ gallery_embeddings.T  # [k,m]
    similarities: Floating = edges[0].copy()
    match = match_query(edges)
    if match is not None:
        similarities[match[0]] = match[1]
    return similarities


def rerank(
    similarities: Floating,
    offsets: NDArray[np.int64],
    gallery_embeddings: Floating,
    context_embeddings: Floating,
    k1: int = PRW_K1,
    k2: int = PRW_K2,
) -> Floating:
    """Apply CBGM to one query's similarities with a whole gallery.

    Args:
        similarities: [M], the query with every gallery detection; -inf = not in this query's gallery.
        offsets: int64 [G+1], the detections of image i are rows `offsets[i]` to `offsets[i + 1]`.
        gallery_embeddings: [M,D], weighted by score.
        context_embeddings: [k,D], people of the query's image, the query first; those after the first k2 are ignored.
        k1: how many of the most similar detections choose the images to match (of equals the earlier).
        k2: how many people of the context are matched.

    Returns:
        [M], a copy with the similarities of the matched detections replaced.
    """
    result = similarities.copy()
    best = _largest(similarities, k1)
    images = np.unique(np.searchsorted(offsets, best, side="right") - 1)
    starts, stops = offsets[images], offsets[images + 1]
    context = context_embeddings[:k2]
    members = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)] or [np.zeros(0, np.int64)])
    edges = context @ gallery_embeddings[members].T  # [k,m of all matched images]
    column = 0
    for start, stop in zip(starts, stops, strict=True):
        match = match_query(edges[:, column : column + stop - start])
        if match is not None:
            result[start + match[0]] = match[1]
        column += stop - start
    return result


def _largest(values: Floating, k: int) -> NDArray[np.int64]:
    """Indices of the k largest values above -inf; of equals at the edge the earlier."""
    k = min(k, len(values))
    if k == 0:
        return np.zeros(0, np.int64)
    edge = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > edge)
    equal = np.flatnonzero(values == edge)[: k - len(above)]
    chosen: NDArray[np.int64] = np.concatenate([above, equal])
    return chosen[values[chosen] > -np.inf]
