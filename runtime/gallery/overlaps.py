"""Visits that may be one person boxed twice: their boxes overlapped in a frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lancedb.table import Table

Pairs = NDArray[np.int64]  # [n,2]
Rows = NDArray[np.int64]  # [m,3]: source, frame and visit

OVERLAP = 0.25
"""Share of the smaller box from which on two people of a frame may be one."""

_BATCH = 100_000
_COLUMNS = ("source", "frame", "visit")


def overlapping_visits(people: Table) -> Pairs:
    """[n,2] ids of two visits, the smaller first, whose boxes overlapped in a frame; each pair once, rising."""
    found, pending, waiting = np.zeros((0, 2), np.int64), list[Pairs](), 0
    for rows, boxes in _whole_frames(people):
        pairs = _overlapping_pairs(rows, boxes)
        pending, waiting = [*pending, pairs], waiting + len(pairs)
        if waiting > _BATCH + len(found):  # as seldom as that, so that a long result is not sorted for every batch
            found, pending, waiting = np.unique(np.concatenate([found, *pending]), axis=0), [], 0
    return np.unique(np.concatenate([found, *pending]), axis=0)


def _overlapping_pairs(rows: Rows, boxes: NDArray[np.float32]) -> Pairs:
    """Those of `_whole_frames`; each once, rising."""
    found = [np.zeros((0, 2), np.int64)]
    for distance in range(1, len(rows)):
        one, other = rows[:-distance], rows[distance:]
        together = (one[:, :2] == other[:, :2]).all(axis=1)
        if not together.any():
            break
        same = _share_of_smaller(boxes[:-distance][together], boxes[distance:][together]) >= OVERLAP
        found.append(np.stack([one[together][same, 2], other[together][same, 2]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _whole_frames(people: Table) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
    """(source, frame, visit) int64 [m,3] and boxes [m,4] of some people at a time, all those of a frame together."""
    rows, boxes = np.zeros((0, 3), np.int64), np.zeros((0, 4), np.float32)
    search: Any = people.search().where("visit IS NOT NULL").select([*_COLUMNS, "box"])
    for batch in search.to_batches(_BATCH):
        more = np.stack([np.asarray(batch[name], np.int64) for name in _COLUMNS], axis=1)
        rows = np.concatenate([rows, more])
        boxes = np.concatenate([boxes, np.asarray(batch["box"].flatten(), np.float32).reshape(-1, 4)])
        whole = int(np.argmax((rows[:, :2] == rows[-1, :2]).all(axis=1))) if len(rows) else 0
        yield rows[:whole], boxes[:whole]
        rows, boxes = rows[whole:], boxes[whole:]
    yield rows, boxes


def _share_of_smaller(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """[m]: the intersection of boxes [m,4], as a share of the smaller one's area; 0 where that has none."""
    corner, end = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    common = (end - corner).clip(min=0).prod(axis=1)
    smaller = np.minimum(*((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)))
    share: NDArray[np.float32] = np.divide(common, smaller, out=np.zeros_like(common), where=smaller > 0)
    return share
