"""Which identity each of CUHK-SYSU's boxes has: what Train.mat and the protocols say of the boxes in Images.mat."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.data.cuhk_files import Appearances, Images
from psarm.data.types import UNLABELLED


@dataclass(frozen=True)
class Doubt:
    """A listed box that something is wrong with."""

    file: str
    message: str
    left_out: bool
    """Whether it gave no box an identity."""


def annotated_boxes(boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """Annotated x, y, w, h [n,4] as the protocol reads them: float32 [n,4] xyxy, whole numbers."""
    whole = np.trunc(boxes)
    corners = np.concatenate([whole[:, :2], whole[:, :2] + whole[:, 2:]], axis=1)
    return corners.astype(np.float32)


def has_area(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes [n,4] x, y, w, h have a width and a height in whole pixels; bool [n]."""
    width, height = np.trunc(boxes[:, 2:]).T
    area: NDArray[np.bool_] = (width > 0) & (height > 0)
    return area


def label_boxes(
    images: Images, pool: Collection[str], train: Mapping[str, Appearances], test: Mapping[str, Appearances]
) -> tuple[NDArray[np.int64], list[Doubt]]:
    """The identity of every box in Images.mat, UNLABELLED for most.

    Args:
        images: the boxes; of equal ones in an image the first gets the identity.
        pool: names of the gallery's images; boxes that training lists in them are left out.
        train: file → the training people it lists.
        test: file → the people it lists to be searched for and found; of contradicting files the last counts.

    Returns:
        int64 [boxes], and every listed box that has no place or contradicts an earlier one, by rising place.
    """
    index, tested = _BoxIndex(images), set(pool)
    identities = np.full(len(images.boxes), UNLABELLED, np.int64)
    doubts = []
    for file, listed in (*train.items(), *test.items()):
        for row, (box, identity) in enumerate(
            zip(index.find(listed).tolist(), listed.identities.tolist(), strict=True)
        ):
            problem, left_out = "", True
            if file in train and listed.images[row] in tested:
                problem = "is in an image of the gallery (pool.mat); it is left out"
            elif box < 0:
                problem = "is not among the boxes of Images.mat; it gives nobody an identity"
            else:
                left_out = False
                if identities[box] not in {UNLABELLED, identity}:
                    problem = f"is p{identities[box]}'s too; the last one counts"
                identities[box] = identity
            if problem:
                doubts.append(Doubt(file, f"{_describe(listed, row)} {problem}.", left_out))
    return identities, doubts


class _BoxIndex:
    """Finds the boxes of Images.mat by image and coordinates."""

    def __init__(self, images: Images) -> None:
        boxes = np.trunc(images.boxes)
        rows = np.flatnonzero(has_area(images.boxes))
        names = np.repeat(np.array(images.names, object), images.counts)
        self._rows: dict[tuple[str, ...], int] = {}
        for row, name, box in zip(rows.tolist(), names[rows].tolist(), boxes[rows].tolist(), strict=True):
            self._rows.setdefault((name, *box), row)

    def find(self, listed: Appearances) -> NDArray[np.int64]:
        """Rows in Images.mat of listed boxes, -1 where there is no such box; int64 [n]."""
        boxes = np.trunc(listed.boxes).tolist()
        keys = ((name, *box) for name, box in zip(listed.images, boxes, strict=True))
        return np.array([self._rows.get(key, -1) for key in keys], np.int64)


def _describe(listed: Appearances, row: int) -> str:
    """One box of a list, for a message."""
    x, y, w, h = listed.boxes[row]
    return f"p{listed.identities[row]}'s box x {x:g}, y {y:g}, w {w:g}, h {h:g} in {listed.images[row]}"
