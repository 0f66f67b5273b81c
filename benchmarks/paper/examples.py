"""Queries to look at (Fig. 6 and 7): those first on which the checkpoints disagree, in an order drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.data.types import PersonSearchDataset
from psarm.evaluation import QueryHits
from psarm.runtime.drawing import crop, encode_jpeg, shrink
from psarm.runtime.images import read_image

CROP_SIDE, QUALITY = 200, 80  # longest side in pixels; JPEG


@dataclass(frozen=True, eq=False)
class Shown:
    """One person in the page."""

    frame: str
    box: list[float]  # xyxy pixels
    jpeg: bytes


@dataclass(frozen=True, eq=False)
class ShownHit:
    """One hit of one checkpoint."""

    person: Shown
    similarity: float
    right: bool


@dataclass(frozen=True, eq=False)
class Example:
    """One query with every checkpoint's best hits."""

    query: int
    identity: int
    disagreed: bool
    """Whether some checkpoints are right at rank 1 and others are not."""
    person: Shown
    hits: list[list[ShownHit]]
    """Of every checkpoint, best first; fewer than two where its gallery holds no more."""

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values without the pictures."""
        return {
            "query": self.query,
            "frame": self.person.frame,
            "box": self.person.box,
            "identity": self.identity,
            "disagreed": self.disagreed,
            "hits": {name: [_hit(hit) for hit in hits] for name, hits in zip(names, self.hits, strict=True)},
        }


def choose(right: NDArray[np.bool_], count: int, seed: int) -> list[int]:
    """Which queries to show.

    Args:
        right: [n,Q], whether each of n checkpoints is right at rank 1.
        count: how many, at most.
        seed: draws the order among those that disagree, and among the others.
    """
    order = np.random.default_rng(seed).permutation(right.shape[1])
    disagreed = right.any(axis=0) != right.all(axis=0)
    chosen: list[int] = order[np.argsort(~disagreed[order], kind="stable")][:count].tolist()
    return chosen


def make_examples(dataset: PersonSearchDataset, hits: Sequence[QueryHits], count: int, seed: int) -> list[Example]:
    """Cut out the people of the chosen queries; `hits` are those of every checkpoint. Raises `ImageError`."""
    right = np.stack([found.right[:, 0] for found in hits])
    examples = []
    for number in choose(right, count, seed):
        query = dataset.queries[number]
        examples.append(
            Example(
                query=number,
                identity=query.identity,
                disagreed=bool(right[:, number].any() != right[:, number].all()),
                person=_shown(query.name, query.path, query.box),
                hits=[_hits(dataset, found, number) for found in hits],
            )
        )
    return examples


def _hits(dataset: PersonSearchDataset, found: QueryHits, query: int) -> list[ShownHit]:
    shown = []
    for rank, image in enumerate(found.images[query].tolist()):
        if image >= 0:
            frame = dataset.gallery[image]
            person = _shown(frame.name, frame.path, found.boxes[query, rank])
            shown.append(ShownHit(person, float(found.similarities[query, rank]), bool(found.right[query, rank])))
    return shown


def _shown(name: str, path: Path, box: NDArray[Any]) -> Shown:
    picture, _ = shrink(crop(read_image(path), box), CROP_SIDE)
    return Shown(name, [round(float(value), 1) for value in box], encode_jpeg(picture, QUALITY))


def _hit(hit: ShownHit) -> dict[str, Any]:
    return {"frame": hit.person.frame, "box": hit.person.box, "similarity": hit.similarity, "right": hit.right}
