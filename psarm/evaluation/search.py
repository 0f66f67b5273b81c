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

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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
# Queries whose similarities are computed in one matrix product: 256 x 40k float32 is 40 MB, of which three are held.
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
        aps[query], ranks[query] = search.score()
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
        best = search.inside(np.argsort(-search.masked(), kind="stable")[:count])
        rows = best if search.row.detections is None else search.row.detections[best]
        filled = slice(0, len(best))
        hits.images[query, filled] = people.images[rows]
        hits.boxes[query, filled] = people.boxes[rows]
        hits.similarities[query, filled] = search.similarities[best]
        hits.right[query, filled] = np.isin(best, search.positives())
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
    """One query beside the detections of its gallery, or beside those of all images."""

    similarities: Floating  # [m]
    images: NDArray[np.int64]  # [m] that these lie in
    offsets: NDArray[np.int64]  # [g+1] of the images that the row holds, one after the other
    embeddings: Floating  # [m,D]
    detections: NDArray[np.int64] | None = None  # [m] rising, which ones these are; None = all

    def places(self, detections: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where detections of the gallery stand in the row."""
        return detections if self.detections is None else np.searchsorted(self.detections, detections)


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive queries, and their similarities where one product with all detections is to give them."""

    first: int
    queries: Floating  # [q,D]
    searched: list[NDArray[np.bool_]]  # [q] of bool [G]
    similarities: Future[Floating] | None  # [q,M]

    def rows(self, people: DetectionSet) -> Iterator[_Row]:
        """Similarities of each query with detections of the images it is searched in, maybe of others too."""
        if self.similarities is not None:
            for similarities in self.similarities.result():
                yield _Row(similarities, people.images, people.offsets, people.embeddings)
            return
        for query, images in zip(self.queries, self.searched, strict=True):
            listed = np.flatnonzero(images)
            rows = people.rows_of(listed)
            embeddings = people.embeddings[rows]
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(people.counts[listed])])
            yield _Row(embeddings @ query, people.images[rows], offsets, embeddings, rows)


def _blocks(
    people: DetectionSet, queries: Floating, searched: Callable[[int], NDArray[np.bool_]], pool: Executor
) -> Iterator[_Block]:
    """All queries; `pool` multiplies those of the next block while one is taken."""
    waiting: _Block | None = None
    for first in range(0, len(queries), _CHUNK):
        some = queries[first : first + _CHUNK]
        images = [searched(query) for query in range(first, first + len(some))]
        sparse = _SPARSE * sum(map(np.count_nonzero, images)) < len(some) * len(people.counts)
        block = _Block(first, some, images, None if sparse else pool.submit(np.matmul, some, people.embeddings.T))
        if waiting is not None:
            yield waiting
        waiting = block
    if waiting is not None:
        yield waiting


@dataclass(frozen=True, eq=False)
class _Search:
    """One query searched in its gallery."""

    row: _Row
    similarities: Floating  # [m] the row's, after CBGM where there is a context
    searched: NDArray[np.bool_]  # [G] images; what the row holds of others counts nowhere
    person: Person

    def inside(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those places of the row that lie in the images searched."""
        return places[self.searched[self.row.images[places]]]

    def masked(self) -> Floating:
        """[m] similarities, -inf outside the images searched."""
        return np.where(self.searched[self.row.images], self.similarities, -np.inf)

    def positives(self) -> NDArray[np.int64]:
        """Where the true positives stand in the row."""
        places = self.row.places(self.person.candidates)
        return places[first_best(self.person.candidate_entries, self.similarities[places])] if len(places) else places

    def score(self) -> tuple[float, int]:
        """AP scaled by recall, and best rank (-1: none)."""
        positives = self.positives()
        if len(positives) == 0:
            return 0.0, -1
        row, similarity = self.similarities, np.sort(self.similarities[positives])
        # Below all true positives nothing counts; few stand above, so only these are looked up and sorted.
        contenders = self.inside(np.flatnonzero(row >= similarity[0]))
        ranking = np.sort(row[contenders])
        not_worse = len(ranking) - ranking.searchsorted(similarity)
        true_not_worse = len(similarity) - similarity.searchsorted(similarity)
        # Each adds 1/positives of recall at the precision of its similarity; times positives/entries with it.
        ap = float((true_not_worse / not_worse).sum() / self.person.entries)
        top = similarity[-1]
        better = len(ranking) - ranking.searchsorted(top, side="right")
        equal = contenders[row[contenders] == top]  # rising, with at least one that is right
        first = positives[row[positives] == top].min()
        return ap, int(better + equal.searchsorted(first))


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

    def searched(query: int) -> NDArray[np.bool_]:
        return protocol.searched(query, gallery, cross_camera)

    with ThreadPoolExecutor(1) as pool:
        for block in _blocks(people, query_embeddings, searched, pool):
            for query, (row, images) in enumerate(zip(block.rows(people), block.searched, strict=True), block.first):
                search = _Search(row, row.similarities, images, truth.of_query(query, images))
                if context is not None:
                    around = context.of_image(query).embeddings
                    reranked = rerank(search.masked(), row.offsets, row.embeddings, around, k1, k2)
                    search = dataclasses.replace(search, similarities=reranked)
                yield search
