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
    train = [frame for index, frame in enumerate(dataset.train) if index not in held]
    if not _places(train):
        raise DataError(
            f"data.validation is {share:g}: without the {len(held)} frames held out, nobody with an identity is left "
            f"among the {len(train)} training frames of {dataset.root}; give less, or 0."
        )
    unseen = {identity: frames for identity, frames in repeated.items() if held.issuperset(frames)}
    gallery = [dataset.train[index] for index in sorted(held)]
    queries = [_query(dataset.train[int(rng.choice(unseen[identity]))], identity) for identity in sorted(unseen)]
    everything = np.arange(len(gallery))
    validation = dataclasses.replace(
        dataset,
        train=[],
        gallery=gallery,
        queries=queries,
        galleries={GALLERY: [everything] * len(queries)},
        located={},
        default_gallery=GALLERY,
    )
    return dataclasses.replace(dataset, train=train), validation


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
    order = rng.permutation(sorted(places)).tolist()
    for identity in order:
        more = held.union(places[identity])
        if len(more) <= wanted:
            held = more
    nearest = min((held.union(places[identity]) for identity in order), key=lambda frames: abs(len(frames) - wanted))
    return nearest if abs(len(nearest) - wanted) < abs(len(held) - wanted) else held


def _query(frame: Frame, identity: int) -> Query:
    box = frame.boxes[int(np.argmax(frame.identities == identity))]
    return Query(frame.name, frame.path, frame.camera, box, identity)
