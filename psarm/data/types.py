"""What every data set reader returns.

Boxes are float32 [n,4] xyxy in pixels of the image; identities are the data set's own numbers, `UNLABELLED` for a
person without one. Identity numbering never assumes 1…N: `PersonSearchDataset.train_labels` maps to 0…C-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Frame:
    """One annotated scene image."""

    name: str
    """File name as the data set lists it, with its extension: `c1s1_000151.jpg`."""
    path: Path
    camera: int
    boxes: NDArray[np.float32]  # [n,4] xyxy
    identities: NDArray[np.int64]  # [n], UNLABELLED = a person without identity


@dataclass(frozen=True, eq=False)
class Query:
    """One person to search for: a box in a frame."""

    name: str
    path: Path
    camera: int
    box: NDArray[np.float32]  # [4] xyxy
    identity: int


@dataclass(frozen=True, eq=False)
class Located:
    """Where a gallery says that its query's person is."""

    items: NDArray[np.int64]  # [f] rising, which items of the gallery show the person
    boxes: NDArray[np.float32]  # [f,4] xyxy, where in them


@dataclass(frozen=True, eq=False)
class PersonSearchDataset:
    """Training frames, gallery (test) frames and queries of one data set."""

    name: str
    root: Path
    train: list[Frame]
    gallery: list[Frame]
    queries: list[Query]
    galleries: Mapping[str, Sequence[NDArray[np.int64]]] = field(default_factory=dict)
    """Name (`100`, `visits`) → for every query, the indices into `gallery` of the frames it is searched in."""
    located: Mapping[str, Sequence[Located]] = field(default_factory=dict)
    """Name of a gallery → for every query, where that gallery says the person is. Of a gallery that is not in it, the
    frames' identities say so, and a query's own frame is never searched."""
    default_gallery: str | None = None
    """The one of `galleries` that figures are quoted for; None: every gallery frame but the query's own."""
    cbgm: tuple[int, int] = (30, 4)
    """k1 and k2 of context matching on this data set."""

    @cached_property
    def train_labels(self) -> dict[int, int]:
        """Training identity → row of OIM's lookup table, 0…C-1 by rising identity."""
        found = {int(i) for frame in self.train for i in frame.identities if i != UNLABELLED}
        return {identity: row for row, identity in enumerate(sorted(found))}
