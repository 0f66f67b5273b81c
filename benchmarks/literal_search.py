"""Person search query by query and image by image, in Python: how the released code goes about it.

The yardstick of `psarm.benchmarks.evaluation_speed`, and an oracle that knows nothing of `psarm.evaluation`'s arrays.
Equal similarities are ranked as there (the earlier first), which the released code leaves to its sorting. Matching is
scipy's, not the released one in Python, which takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.evaluation import DetectionSet, SearchProtocol
from psarm.evaluation.protocol import FULL

SCORE_THRESHOLD = 0.5
Box = NDArray[np.floating[Any]]
Similarities = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class _Image:
    """What was annotated and what was found."""

    name: str
    camera: int
    boxes: NDArray[np.float64]
    identities: NDArray[np.int64]
    found: Box  # [n,4]
    embeddings: NDArray[np.floating[Any]]  # [n,D]


class LiteralSearch:
    """A gallery with its detections, to be searched for one query after the other."""

    def __init__(self, protocol: SearchProtocol, detections: DetectionSet) -> None:
        self.protocol = protocol
        self.images: list[_Image] = []
        for index, name in enumerate(protocol.gallery_names):
            annotated = protocol.gt_images == index
            found = detections.of_image(index)
            certain = found.scores >= SCORE_THRESHOLD
            self.images.append(
                _Image(
                    name,
                    int(protocol.gallery_cameras[index]),
                    protocol.gt_boxes[annotated],
                    protocol.gt_identities[annotated],
                    found.boxes[certain],
                    found.embeddings[certain],
                )
            )

    def search(
        self,
        query: int,
        embedding: NDArray[np.floating[Any]],
        gallery: str | None = None,
        context: NDArray[np.floating[Any]] | None = None,
        cross_camera: bool = False,
    ) -> tuple[float, int]:
        """AP of a query and the rank from 0 of its best true positive, -1 where there is none.

        Args:
            query: its number in the protocol.
            embedding: [D].
            gallery: as of `psarm.evaluation.evaluate_search`.
            context: [k,D] of the people around, the query first; given, similarities go through CBGM.
            cross_camera: search only images of other cameras.
        """
        truth: dict[int, Box | None] = {}
        similar: dict[int, Similarities] = {}
        wanted = 0
        for index, box in self._items(query, gallery):
            image = self.images[index]
            if cross_camera and image.camera == self.protocol.query_cameras[query]:
                continue
            wanted += box is not None
            if index not in truth and len(image.found):
                truth[index] = box
                similar[index] = image.embeddings.dot(embedding)
        similar = {index: similar[index] for index in sorted(similar)}
        if context is not None:
            self._match(context, similar)
        labels: list[np.int64] = []
        values: list[np.floating[Any]] = []
        for index, row in similar.items():
            labels.extend(_label(row, self.images[index].found, truth[index]))
            values.extend(row)
        return _average_precision(np.asarray(labels), np.asarray(values), wanted)

    def _items(self, query: int, gallery: str | None) -> Iterator[tuple[int, Box | None]]:
        """Images searched, each with the person's box or None."""
        protocol = self.protocol
        name, listing = protocol.default_gallery if gallery is None else gallery, protocol.listing(gallery)
        own = protocol.query_names[query]
        listed: set[int] = set()
        if listing is not None:
            person = protocol.located[listing][query]
            boxes = dict(zip(person.items.tolist(), person.boxes, strict=True))
            for item, index in enumerate(protocol.galleries[listing][query].tolist()):
                listed.add(index)
                yield index, boxes.get(item)
            if name not in FULL:
                return
        full = name is None or name in FULL
        others: Sequence[int] = range(len(self.images)) if full else sorted(set(protocol.galleries[name or ""][query]))
        for index in others:
            image = self.images[index]
            if image.name != own and index not in listed:
                yield index, None if listing is not None else self._annotated(image, query)

    def _annotated(self, image: _Image, query: int) -> Box | None:
        """The first box of the query's identity."""
        for box, identity in zip(image.boxes, image.identities, strict=True):
            if identity == self.protocol.query_identities[query]:
                first: Box = box
                return first
        return None

    def _match(self, context: NDArray[np.floating[Any]], similar: dict[int, Similarities]) -> None:
        """CBGM: in the images of the k1 best, the matched detection gets the matching's largest similarity."""
        from scipy.optimize import linear_sum_assignment

        k1, k2 = self.protocol.cbgm
        everyone = [(value, index) for index, row in similar.items() for value in row]
        best = sorted(everyone, key=lambda pair: -pair[0])[:k1]
        for index in {index for _, index in best}:
            edges = context[:k2] @ self.images[index].embeddings.T
            people, matched = linear_sum_assignment(edges, maximize=True)
            for person, detection in zip(people, matched, strict=True):
                if person == 0:
                    similar[index][detection] = edges[people, matched].max()


def _label(similarities: Similarities, found: Box, box: Box | None) -> NDArray[np.int64]:
    """1 for the most similar detection that overlaps the person enough, 0 for the others."""
    labels = np.zeros(len(similarities), np.int64)
    if box is not None:
        width, height = float(box[2]) - float(box[0]), float(box[3]) - float(box[1])
        enough = min(0.5, width * height / ((width + 10) * (height + 10)))
        for place in np.argsort(-similarities, kind="stable"):
            if _iou(found[place], box) >= enough:
                labels[place] = 1
                break
    return labels


def _iou(first: Box, second: Box) -> float:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = map(float, first), map(float, second)
    intersection = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    return intersection / union if union > 0 else 0.0


def _average_precision(labels: NDArray[np.int64], similarities: Similarities, wanted: int) -> tuple[float, int]:
    from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]

    right = int(labels.sum())
    if right == 0:
        return 0.0, -1
    precision = float(average_precision_score(labels, similarities)) * right / wanted
    return precision, int(np.argmax(labels[np.argsort(-similarities, kind="stable")]))
