"""Person search mAP and top-k on the PRW protocol, with and without CBGM.

For each query the gallery is every test image except the query's own (with `cross_camera`: only those of other
cameras). Similarity is the dot product of the query's embedding with the (weighted) embeddings of the detections.

- In an image that holds the person, the most similar detection among those with IoU ≥ min(0.5, w·h/((w+10)(h+10))) of
  the ground truth w × h is the image's one true positive; every other detection is a negative. If an image lists the
  identity twice, its first box counts.
- AP = scikit-learn's `average_precision_score` over all detections × share of the images with the person that got a
  true positive; 0 when none did, or when no image of the gallery holds the person.
- top-k: one of the k most similar detections is a true positive.

Ties: AP takes equal similarities together. Everywhere else the earlier detection comes first: by the gallery's order of
images, then the order within the image.

Legend: Q queries, M gallery detections, T ground-truth boxes, E entries (an identity in an image), D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.evaluation.cbgm import PRW_K1, PRW_K2, rerank
from psarm.evaluation.pairs import first_best, paired_iou, same_image_pairs
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.types import DetectionSet, Floating, QueryRanks, SearchMetrics

SCORE_THRESHOLD = 0.5
# Queries whose similarities are computed in one matrix product: 256 x 40k float32 is 40 MB.
_CHUNK = 256


def evaluate_search(
    protocol: SearchProtocol,
    detections: DetectionSet,
    query_embeddings: Floating,
    *,
    context: DetectionSet | None = None,
    k1: int = PRW_K1,
    k2: int = PRW_K2,
    cross_camera: bool = False,
) -> SearchMetrics:
    """mAP and top-1, 5, 10 over all queries; the arguments are those of `rank_queries`."""
    ranks = rank_queries(
        protocol, detections, query_embeddings, context=context, k1=k1, k2=k2, cross_camera=cross_camera
    )
    return ranks.metrics()


def rank_queries(
    protocol: SearchProtocol,
    detections: DetectionSet,
    query_embeddings: Floating,
    *,
    context: DetectionSet | None = None,
    k1: int = PRW_K1,
    k2: int = PRW_K2,
    cross_camera: bool = False,
) -> QueryRanks:
    """AP and rank of the best true positive of every query.

    Args:
        protocol: gallery, ground truth and queries.
        detections: detections of every gallery image, in the protocol's order; scores below 0.5 are ignored.
        query_embeddings: [Q,D], in the protocol's order.
        context: people in each query's image, the query first, not weighted; given, similarities go through CBGM.
        k1: CBGM matches the images of the k1 most similar detections.
        k2: CBGM uses the first k2 people of the context.
        cross_camera: search only images of other cameras than the query's.

    Raises:
        UsageError: the arrays do not belong to this protocol (numbers of images or queries, embedding size).
    """
    _check(protocol, detections, query_embeddings, context)
    gallery = detections.at_least(SCORE_THRESHOLD)
    truth = _truth(protocol, gallery)
    hidden = _hidden_images(protocol, cross_camera)
    aps = np.zeros(len(query_embeddings))
    ranks = np.full(len(query_embeddings), -1, np.int64)
    for start in range(0, len(query_embeddings), _CHUNK):
        block = query_embeddings[start : start + _CHUNK] @ gallery.embeddings.T  # [chunk,M]
        for query, row in enumerate(block, start):
            row[hidden[query][gallery.images]] = -np.inf
            if context is not None:
                people = context.of_image(query).embeddings
                row = rerank(row, gallery.offsets, gallery.embeddings, people, k1, k2)
            person = truth.of_identity(int(protocol.query_identities[query]))
            aps[query], ranks[query] = _score(row, person, ~hidden[query][person.entry_images])
    return QueryRanks(aps, ranks)


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
class _Truth:
    """Where identities appear, sorted by identity, then image; and the detections that overlap each entry enough."""

    identities: NDArray[np.int64]  # [E]
    entry_images: NDArray[np.int64]  # [E]
    candidate_offsets: NDArray[np.int64]  # [E+1] candidates of entry e are offsets[e] to offsets[e + 1]
    candidate_entries: NDArray[np.int64]  # [C]
    candidates: NDArray[np.int64]  # [C] detections

    def of_identity(self, identity: int) -> _Truth:
        """The part of one identity (empty when the gallery does not hold it)."""
        first, last = np.searchsorted(self.identities, [identity, identity + 1])
        rows = slice(self.candidate_offsets[first], self.candidate_offsets[last])
        return _Truth(
            self.identities[first:last],
            self.entry_images[first:last],
            self.candidate_offsets[first : last + 1] - self.candidate_offsets[first],
            self.candidate_entries[rows] - first,
            self.candidates[rows],
        )


def _truth(protocol: SearchProtocol, gallery: DetectionSet) -> _Truth:
    labelled = np.flatnonzero(protocol.gt_identities >= 0)
    keys = np.stack([protocol.gt_identities[labelled], protocol.gt_images[labelled]])
    (identities, images), first = np.unique(keys, axis=1, return_index=True)
    boxes = protocol.gt_boxes[labelled[first]]
    entries, found = same_image_pairs(images, gallery.counts)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    thresholds = np.minimum(0.5, width * height / ((width + 10) * (height + 10)))
    enough = paired_iou(boxes[entries], gallery.boxes[found]) >= thresholds[entries]
    entries, found = entries[enough], found[enough]
    offsets = np.searchsorted(entries, np.arange(len(images) + 1))
    return _Truth(identities, images, offsets, entries, found)


def _hidden_images(protocol: SearchProtocol, cross_camera: bool) -> NDArray[np.bool_]:
    """bool [Q,G]: which images are not in a query's gallery."""
    place = {name: index for index, name in enumerate(protocol.gallery_names)}
    hidden = np.zeros((len(protocol.query_names), len(place)), bool)
    if cross_camera:
        hidden |= protocol.query_cameras[:, None] == protocol.gallery_cameras
    for query, name in enumerate(protocol.query_names):
        if name in place:
            hidden[query, place[name]] = True
    return hidden


def _score(row: Floating, person: _Truth, visible: NDArray[np.bool_]) -> tuple[float, int]:
    """AP scaled by recall and best rank (-1: none) of one query.

    Args:
        row: [M] similarities, -inf outside the query's gallery.
        person: the query's identity in the gallery.
        visible: bool [E], which of its entries lie in the query's gallery.
    """
    best = first_best(person.candidate_entries, row[person.candidates])
    best = best[visible[person.candidate_entries[best]]]
    if len(best) == 0:
        return 0.0, -1
    positives = person.candidates[best]
    similarity = row[positives]
    ranking = np.sort(row)
    not_worse = len(row) - np.searchsorted(ranking, similarity, side="left")
    true_not_worse = len(positives) - np.searchsorted(np.sort(similarity), similarity, side="left")
    # Each true positive adds 1/positives of recall at the precision of its similarity; times positives/visible images.
    ap = float(np.sum(true_not_worse / not_worse) / np.count_nonzero(visible))
    top = similarity.max()
    first = positives[similarity == top].min()
    better = len(row) - np.searchsorted(ranking, top, side="right")
    return ap, int(better + np.count_nonzero(row[:first] == top))
