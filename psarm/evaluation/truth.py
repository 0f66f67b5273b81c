"""Where each query's person is, and the detections that overlap it enough to be it.

Legend: E entries (a person in an image), C candidates (detections that overlap an entry enough), G gallery images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.evaluation.pairs import paired_iou, same_image_pairs
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.types import DetectionSet


@dataclass(frozen=True, eq=False)
class Person:
    """One query's person in the images it is searched in."""

    entries: int
    """How many times it is to be found."""
    candidate_entries: NDArray[np.int64]  # [C] rising: which entry each candidate belongs to
    candidates: NDArray[np.int64]  # [C] detections


@dataclass(frozen=True, eq=False)
class _Entries:
    """People in images, by rising key: the identity, or the query that a gallery lists them for."""

    keys: NDArray[np.int64]  # [E]
    images: NDArray[np.int64]  # [E]
    boxes: NDArray[np.float64]  # [E,4] xyxy
    can_be_found: NDArray[np.bool_]  # [E] False: counted, but no detection is ever it


@dataclass(frozen=True, eq=False)
class Truth:
    """The entries of every query, and the detections that overlap each enough."""

    ranges: NDArray[np.int64]  # [Q,2] each query's entries, from the first to below the last
    images: NDArray[np.int64]  # [E]
    candidate_offsets: NDArray[np.int64]  # [E+1] candidates of entry e are offsets[e] to offsets[e + 1]
    candidate_entries: NDArray[np.int64]  # [C]
    candidates: NDArray[np.int64]  # [C] detections

    @classmethod
    def in_gallery(cls, protocol: SearchProtocol, gallery: str | None, detections: DetectionSet) -> Truth:
        """The people of a gallery (None = the default) and what was detected of them."""
        listing = protocol.listing(gallery)
        if listing is None:
            query_keys, entries = protocol.query_identities, _annotated(protocol)
        else:
            query_keys, entries = np.arange(len(protocol.query_names)), _listed(protocol, listing)
        pairs, found = same_image_pairs(entries.images, detections.counts)
        width, height = np.maximum(entries.boxes[:, 2:] - entries.boxes[:, :2], 0).T
        thresholds = np.minimum(0.5, width * height / ((width + 10) * (height + 10)))
        enough = paired_iou(entries.boxes[pairs], detections.boxes[found]) >= thresholds[pairs]
        enough &= entries.can_be_found[pairs]
        pairs, found = pairs[enough], found[enough]
        offsets = np.searchsorted(pairs, np.arange(len(entries.images) + 1))
        ranges = np.stack([np.searchsorted(entries.keys, query_keys, side) for side in ("left", "right")], axis=1)
        return cls(ranges, entries.images, offsets, pairs, found)

    def of_query(self, query: int, searched: NDArray[np.bool_]) -> Person:
        """One query's person in the images searched, bool [G]."""
        first, last = self.ranges[query]
        rows = slice(self.candidate_offsets[first], self.candidate_offsets[last])
        seen = searched[self.images[first:last]]
        keep = seen[self.candidate_entries[rows] - first]
        return Person(int(np.count_nonzero(seen)), self.candidate_entries[rows][keep], self.candidates[rows][keep])


def _annotated(protocol: SearchProtocol) -> _Entries:
    """Every identity once in every image that is annotated with it: its first box."""
    labelled = np.flatnonzero(protocol.gt_identities >= 0)
    keys = np.stack([protocol.gt_identities[labelled], protocol.gt_images[labelled]])
    (identities, images), first = np.unique(keys, axis=1, return_index=True)
    return _Entries(identities, images, protocol.gt_boxes[labelled[first]], np.ones(len(images), bool))


def _listed(protocol: SearchProtocol, listing: str) -> _Entries:
    """What a gallery says of each query; of an image that it lists repeatedly, only the first item can be found."""
    located = protocol.located[listing]
    images, first = [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    first_item = np.zeros(len(protocol.gallery_names), np.int64)  # of each image of one list
    for members, person in zip(protocol.galleries[listing], located, strict=True):
        first_item[members[::-1]] = np.arange(len(members))[::-1]  # what is written last stays
        images.append(members[person.items])
        first.append(first_item[images[-1]] == person.items)
    boxes = np.concatenate([np.zeros((0, 4)), *(person.boxes for person in located)])
    keys = np.repeat(np.arange(len(located)), [len(person.items) for person in located])
    return _Entries(keys, np.concatenate(images), boxes, np.concatenate(first))
