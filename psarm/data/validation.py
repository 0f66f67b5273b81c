"""Frames held out of training, to tell epochs apart by what the model finds of people it has never seen."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from psarm.data.types import UNLABELLED, Frame, PersonSearchDataset, Query
from psarm.errors import DataError

GALLERY = "validation"
"""The only gallery of the validation set: all its frames but the query's own."""


def hold_out(dataset: PersonSearchDataset, share: float, seed: int) -> tuple[PersonSearchDataset, PersonSearchDataset]:
    """Split the training frames into a part to train on and a validation set.

    Identities with several frames are drawn, and every frame that shows one of them is held out, until these are about
    `share` of the training frames. Whoever is in no other frame, drawn or not, is searched for: one query for each that
    has several frames, at random one of these. As on PRW, near frames of the same camera are in the gallery too.

    Args:
        dataset: its test split is left alone.
        share: of the training frames to hold out, more than 0 and less than 1.
        seed: of what is drawn.

    Returns:
        `dataset` with the other training frames, and the validation set: gallery and queries, nothing to train on.

    Raises:
        DataError: the people cannot be divided so: nobody has few enough frames, or nobody would be left to train on.
    """
    rng = np.random.default_rng([seed, len(dataset.train)])
    places = _places(dataset.train)
    repeated = {identity: frames for identity, frames in places.items() if len(frames) > 1}
    held = _held_frames(dataset, repeated, share, rng)
    train = [frame for index, frame in enumerate(dataset.train) if index not in held]
    if not _places(train):
        raise DataError(
            f"data.validation is {share:g}: without the {len(held)} frames held out, nobody with an identity is left "
            f"among the {len(train)} training frames of {dataset.root}; give less, or 0."
        )
    unseen = {identity: frames for identity, frames in repeated.items() if held.issuperset(frames)}
    queries = [_query(dataset.train[int(rng.choice(unseen[identity]))], identity) for identity in sorted(unseen)]
    gallery = [dataset.train[index] for index in sorted(held)]
    return dataclasses.replace(dataset, train=train), _validation_set(dataset, gallery, queries)


def _held_frames(
    dataset: PersonSearchDataset, repeated: Mapping[int, Sequence[int]], share: float, rng: np.random.Generator
) -> set[int]:
    """Which training frames to hold out for people drawn of `repeated` (identity → frames); raises `DataError`."""
    if not repeated:
        raise DataError(
            f"data.validation is {share:g}, but nobody is in several of the {len(dataset.train)} training frames of "
            f"{dataset.root}, so that there is nobody to search for; set it to 0."
        )
    held = _draw(repeated, share * len(dataset.train), rng)
    if not held:
        least = min(map(len, repeated.values())) / len(dataset.train)
        raise DataError(
            f"data.validation is {share:g}, but every person of {dataset.root} who can be searched for is in "
            f"{least:.2f} of the training frames or more; give about that, or 0."
        )
    return held


def _validation_set(dataset: PersonSearchDataset, gallery: list[Frame], queries: list[Query]) -> PersonSearchDataset:
    """Like `dataset`, with nothing to train on, and every query searched for in the whole gallery."""
    everything = np.arange(len(gallery))
    return dataclasses.replace(
        dataset,
        train=[],
        gallery=gallery,
        queries=queries,
        galleries={GALLERY: [everything] * len(queries)},
        located={},
        default_gallery=GALLERY,
    )


def _places(frames: Sequence[Frame]) -> dict[int, list[int]]:
    """Identity → which frames show it."""
    places: dict[int, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        for identity in sorted({int(i) for i in frame.identities} - {UNLABELLED}):
            places[identity].append(index)
    return places


def _draw(places: Mapping[int, Sequence[int]], wanted: float, rng: np.random.Generator) -> set[int]:
    """The frames of people drawn at random, as many as `wanted` or as near as the people allow; maybe none."""
    held: set[int] = set()

    def count_with(identity: int) -> int:
        return len(held) + sum(frame not in held for frame in places[identity])

    order = rng.permutation(sorted(places)).tolist()
    for identity in order:
        if count_with(identity) <= wanted:
            held.update(places[identity])
    nearest = min(order, key=lambda identity: abs(count_with(identity) - wanted))
    if abs(count_with(nearest) - wanted) < abs(len(held) - wanted):
        held.update(places[nearest])
    return held


def _query(frame: Frame, identity: int) -> Query:
    box = frame.boxes[int(np.argmax(frame.identities == identity))]
    return Query(frame.name, frame.path, frame.camera, box, identity)
