"""Re-identification of given boxes in labelled footage, with no detection in it: as embeddings of crops are compared.

Every box of a person who has another visit is a query. It is ranked against the boxes of every other visit, its own
visit left out, so that the same walk is never a hit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.engines import Frame, load_frames
from psarm.data.types import UNLABELLED
from psarm.data.visits import VisitsRecords
from psarm.evaluation.types import Floating

Embed = Callable[[Frame, Floating], Floating]
"""Unit embeddings [n,D] of boxes [n,4] xyxy of a frame, uint8 [H,W,3] BGR."""


@dataclass(frozen=True, eq=False)
class Crops:
    """Boxes with an identity, n of them, in the order of the images."""

    embeddings: Floating  # [n,D], of unit length
    people: NDArray[np.int64]  # [n]
    visits: NDArray[np.int64]  # [n]
    later: NDArray[np.bool_]  # [n], whether the box is in a gallery frame, not in a training frame


def embed_crops(records: VisitsRecords, embed: Embed) -> Crops:
    """Embed every labelled box of a data set; raises `ImageError` where a picture cannot be read."""
    labelled = {
        image.id: [box for box in records.boxes[image.id] if box.identity != UNLABELLED] for image in records.images
    }
    images = [image for image in records.images if labelled[image.id]]
    boxes = [box for image in images for box in labelled[image.id]]
    embeddings = [
        embed(frame, np.stack([box.box for box in labelled[image.id]]))
        for image, frame in zip(images, load_frames([image.path for image in images]), strict=True)
    ]
    return Crops(
        np.concatenate(embeddings),
        np.array([box.identity for box in boxes], np.int64),
        np.array([box.visit for box in boxes], np.int64),
        np.array([box.image.split == "gallery" for box in boxes], np.bool_),
    )


def search_crops(crops: Crops, later_only: bool = False) -> dict[str, float | int | None]:
    """mAP and top-1 (fractions, None without queries) over the queries that have something to find, and their number.

    `later_only` searches in the boxes of gallery frames only; the queries are the same boxes as ever.
    """
    similarity = crops.embeddings @ crops.embeddings.T
    precisions, firsts = [], []
    for query, (person, visit) in enumerate(zip(crops.people, crops.visits, strict=True)):
        searched = crops.visits != visit
        if later_only:
            searched &= crops.later
        found = crops.people[searched] == person
        if not found.any():
            continue
        right = found[np.argsort(-similarity[query, searched], kind="stable")]
        ranks = np.flatnonzero(right) + 1
        precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
        firsts.append(bool(right[0]))
    if not precisions:
        return {"queries": 0, "mAP": None, "top1": None}
    return {"queries": len(precisions), "mAP": float(np.mean(precisions)), "top1": float(np.mean(firsts))}
