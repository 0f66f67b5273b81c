"""Person search mAP and top-k, with and without CBGM.

Each query is searched in its own gallery (`SearchProtocol.searched`): on PRW every test image but its own, on CUHK-SYSU
those the protocol lists. What lies outside counts nowhere, neither as negative nor as ground truth nor in CBGM.
Similarity is the dot product of the query's embedding with the (weighted) embeddings of the detections.

- Where the person is, a gallery's items say, each with its own box (CUHK-SYSU), or else the annotated identities: an
  image is to hold the person once, at the first box of its identity.
- Of an image's detections, the most similar among those with IoU ≥ min(0.5, w·h/((w+10)(h+10))) of the ground truth
  w × h is its one true positive; every other detection is a negative. An image that a gallery lists repeatedly is
  ranked once and by its first item, but each of its boxes is one more to be found.
- AP = scikit-learn's `average_precision_score` over all detections × share of the boxes to be found that got a true
  positive; 0 when none did, or when no image of the gallery holds the person.
- top-k: one of the k most similar detections is a true positive.

Ties: AP takes equal similarities together, as scikit-learn does, so it does not depend on the order. Everywhere else
(an image's true positive, top-k, the k1 detections of CBGM) the earlier detection comes first: by the gallery's order
of images, then the order within the image. Of several best matchings CBGM takes the one that scipy's
`linear_sum_assignment` finds.

Legend: Q queries, G gallery images, M their detections, C candidates (detections that overlap the person enough), D
embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.evaluation.cbgm import rerank
from psarm.evaluation.pairs import first_best
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.truth import Person, Truth
from psarm.evaluation.types import DetectionSet, Floating, QueryHits, QueryRanks, SearchMetrics

SCORE_THRESHOLD = 0.5
# Queries whose similarities are computed in one matrix product: 256 x 40k float32 is 40 MB.
_CHUNK = 256
# One product with all detections is quicker than picking the gallery's, unless those are fewer than one in so many.
_SPARSE = 32


def evaluate_search(
    protocol: SearchProtocol,
    detections: DetectionSet,
    query_embeddings: Floating,
    *,
    gallery: str | None = None,
    context: DetectionSet | None = None,
    k1: int | None = None,
    k2: int | None = None,
    cross_camera: bool = False,
) -> SearchMetrics:
    """Mean over all queries of what `rank_queries`, which takes the same arguments, finds for each."""
    ranks = rank_queries(
        protocol,
        detections,
        query_embeddings,
        gallery=gallery,
        context=context,
        k1=k1,
        k2=k2,
        cross_camera=cross_camera,
    )
    return ranks.metrics()


def rank_queries(
    protocol: SearchProtocol,
    detections: DetectionSet,
    query_embeddings: Floating,
    *,
    gallery: str | None = None,
    context: DetectionSet | None = None,
    k1: int | None = None,
    k2: int | None = None,
    cross_camera: bool = False,
) -> QueryRanks:
    """AP and rank of the best true positive of every query.

    Args:
        protocol: gallery, ground truth and queries.
        detections: detections of every gallery image, in the protocol's order; scores below 0.5 are ignored.
        query_embeddings: [Q,D], in the protocol's order.
        gallery: a name of the protocol's galleries, or "full"; None = its default.
        context: people in each query's image, the query first, not weighted; given, similarities go through CBGM.
        k1: CBGM matches the images of the k1 most similar detections; None = as the protocol has it.
        k2: CBGM uses the first k2 people of the context; None = as the protocol has it.
        cross_camera: search only images of other cameras than the query's.

    Raises:
        UsageError: the arrays do not belong to this protocol (numbers of images or queries, embedding size), or it has
            no such gallery.
    """
    aps = np.zeros(len(query_embeddings))
    ranks = np.full(len(query_embeddings), -1, np.int64)
    searches = _searches(protocol, detections, query_embeddings, gallery, context, (k1, k2), cross_camera)
    for query, search in enumerate(searches):
        aps[query], ranks[query] = _score(search.similarities, search.person, search.places)
    return QueryRanks(aps, ranks)


def best_hits(
    protocol: SearchProtocol,
    detections: DetectionSet,
    query_embeddings: Floating,
    count: int,
    *,
    gallery: str | None = None,
    context: DetectionSet | None = None,
) -> QueryHits:
    """The `count` most similar detections of every query, and whether each is its true positive.

    Other arguments, the order and what is raised are as for `rank_queries`; k1 and k2 are the protocol's.
    """
    queries = len(query_embeddings)
    hits = QueryHits(
        images=np.full((queries, count), -1, np.int64),
        boxes=np.zeros((queries, count, 4)),
        similarities=np.zeros((queries, count)),
        right=np.zeros((queries, count), bool),
    )
    people = detections.at_least(SCORE_THRESHOLD)
    searches = _searches(protocol, detections, query_embeddings, gallery, context, (None, None), False)
    for query, search in enumerate(searches):
        best = np.argsort(-search.similarities, kind="stable")[:count]
        best = best[search.similarities[best] > -np.inf]
        rows = best if search.row.detections is None else search.row.detections[best]
        filled = slice(0, len(best))
        hits.images[query, filled] = people.images[rows]
        hits.boxes[query, filled] = people.boxes[rows]
        hits.similarities[query, filled] = search.similarities[best]
        hits.right[query, filled] = np.isin(best, search.positives)
    return hits


def ground_truth_detections(protocol: SearchProtocol, embeddings: Floating) -> DetectionSet:
    """GT-box mode: the ground-truth boxes as detections of score 1.

    Args:
        protocol: gallery and ground truth.
        embeddings: [T,D] of the ground-truth boxes, in the protocol's order.
    """
    if len(embeddings) != len(protocol.gt_boxes):
        raise UsageError(
            f"{len(embeddings)} embeddings for {len(protocol.gt_boxes)} ground-truth boxes; one each is needed."
        )
    counts = np.bincount(protocol.gt_images, minlength=len(protocol.gallery_names)).astype(np.int64)
    return DetectionSet(counts, protocol.gt_boxes, np.ones(len(embeddings)), embeddings)


def _check(
    protocol: SearchProtocol, detections: DetectionSet, query_embeddings: Floating, context: DetectionSet | None
) -> None:
    images, queries = len(protocol.gallery_names), len(protocol.query_names)
    if len(detections.counts) != images:
        raise UsageError(f"the detections are of {len(detections.counts)} images, but the gallery has {images}.")
    expected = (queries, detections.embeddings.shape[1])
    if query_embeddings.shape != expected:
        raise UsageError(f"query embeddings have shape {list(query_embeddings.shape)}; {list(expected)} is needed.")
    if context is not None and (len(context.counts) != queries or context.counts.min() < 1):
        raise UsageError(f"CBGM needs the context of each of the {queries} queries, with at least the query itself.")
    if context is not None and context.embeddings.shape[1] != expected[1]:
        raise UsageError(
            f"context embeddings have size {context.embeddings.shape[1]}, those of the gallery {expected[1]}."
        )


@dataclass(frozen=True, eq=False)
class _Row:
    """One query beside the detections of its gallery, or beside all, those outside its gallery at -inf."""

    similarities: Floating  # [m]
    offsets: NDArray[np.int64]  # [g+1] of the images these lie in
    embeddings: Floating  # [m,D]
    detections: NDArray[np.int64] | None = None  # [m] rising, which ones these are; None = all

    def places(self, detections: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where detections of the gallery stand in the row."""
        return detections if self.detections is None else np.searchsorted(self.detections, detections)


def _rows(people: DetectionSet, queries: Floating, searched: Sequence[NDArray[np.bool_]]) -> Iterator[_Row]:
    """Similarities of each of a block of queries [q,D] with the images it is searched in, bool [G] each."""
    if _SPARSE * sum(int(np.count_nonzero(images)) for images in searched) < len(searched) * len(people.counts):
        for query, images in zip(queries, searched, strict=True):
            listed = np.flatnonzero(images)
            rows = people.rows_of(listed)
            embeddings = people.embeddings[rows]
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(people.counts[listed])])
            yield _Row(embeddings @ query, offsets, embeddings, rows)
        return
    for similarities, images in zip(queries @ people.embeddings.T, searched, strict=True):
        np.copyto(similarities, -np.inf, where=np.repeat(~images, people.counts))
        yield _Row(similarities, people.offsets, people.embeddings)


@dataclass(frozen=True, eq=False)
class _Search:
    """One query searched in its gallery."""

    row: _Row
    similarities: Floating  # [m] the row's, after CBGM where there is a context
    person: Person

    @property
    def places(self) -> NDArray[np.int64]:
        """int64 [C], where the person's candidates stand in the row."""
        return self.row.places(self.person.candidates)

    @property
    def positives(self) -> NDArray[np.int64]:
        """Where the true positives stand in the row."""
        places = self.places
        return places[first_best(self.person.candidate_entries, self.similarities[places])] if len(places) else places


def _searches(
    protocol: SearchProtocol,
    detections: DetectionSet,
    query_embeddings: Floating,
    gallery: str | None,
    context: DetectionSet | None,
    k: tuple[int | None, int | None],
    cross_camera: bool,
) -> Iterator[_Search]:
    """Every query's search, in order; arguments and errors of `rank_queries`."""
    _check(protocol, detections, query_embeddings, context)
    if gallery is not None:
        protocol.check_gallery(gallery)
    k1, k2 = (ours if given is None else given for given, ours in zip(k, protocol.cbgm, strict=True))
    people = detections.at_least(SCORE_THRESHOLD)
    truth = Truth.in_gallery(protocol, gallery, people)
    for start in range(0, len(query_embeddings), _CHUNK):
        block = query_embeddings[start : start + _CHUNK]
        searched = [protocol.searched(query, gallery, cross_camera) for query in range(start, start + len(block))]
        for query, row in enumerate(_rows(people, block, searched), start):
            similarities = row.similarities
            if context is not None:
                around = context.of_image(query).embeddings
                similarities = rerank(similarities, row.offsets, row.embeddings, around, k1, k2)
            yield _Search(row, similarities, truth.of_query(query, searched[query - start]))


def _score(row: Floating, person: Person, places: NDArray[np.int64]) -> tuple[float, int]:
    """AP scaled by recall and best rank (-1: none) of one query.

    Args:
        row: [m] similarities, -inf outside the query's gallery.
        person: the query's person in the gallery.
        places: int64 [C], where its candidates stand in the row.
    """
    if len(places) == 0:
        return 0.0, -1
    positives = places[first_best(person.candidate_entries, row[places])]
    similarity = row[positives]
    ranking = np.sort(row[row >= similarity.min()])  # what is below all of them counts nowhere
    not_worse = len(ranking) - np.searchsorted(ranking, similarity, side="left")
    true_not_worse = len(positives) - np.searchsorted(np.sort(similarity), similarity, side="left")
    # Each true positive adds 1/positives of recall at the precision of its similarity; times positives/entries with it.
    ap = float(np.sum(true_not_worse / not_worse) / person.entries)
    top = similarity.max()
    first = positives[similarity == top].min()
    better = len(ranking) - np.searchsorted(ranking, top, side="right")
    return ap, int(better + np.count_nonzero(row[:first] == top))
