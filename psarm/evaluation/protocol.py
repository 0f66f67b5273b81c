"""The PRW search protocol as arrays: who is where in the gallery, and who is searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from psarm.errors import DataError


class FrameLike(Protocol):
    """An annotated gallery image (`psarm.data.types.Frame`)."""

    @property
    def name(self) -> str:
        """File name."""

    @property
    def camera(self) -> int:
        """Camera number."""

    @property
    def boxes(self) -> NDArray[Any]:
        """[n,4] xyxy pixels."""

    @property
    def identities(self) -> NDArray[Any]:
        """[n], negative = a person without identity."""


class QueryLike(Protocol):
    """A person to search for (`psarm.data.types.Query`)."""

    @property
    def name(self) -> str:
        """File name of the image."""

    @property
    def camera(self) -> int:
        """Camera number."""

    @property
    def box(self) -> NDArray[Any]:
        """[4] xyxy pixels."""

    @property
    def identity(self) -> int:
        """The data set's number of the person."""


class DatasetLike(Protocol):
    """A data set to evaluate on (`psarm.data.types.PersonSearchDataset`)."""

    @property
    def gallery(self) -> Sequence[FrameLike]:
        """Images searched in."""

    @property
    def queries(self) -> Sequence[QueryLike]:
        """People searched for."""


@dataclass(frozen=True, eq=False)
class SearchProtocol:
    """Gallery images with their ground truth, one image after the other, and the queries.

    Legend: G gallery images, T ground-truth boxes of all of them, Q queries.
    """

    gallery_names: list[str]  # [G]
    gallery_cameras: NDArray[np.int64]  # [G]
    gt_images: NDArray[np.int64]  # [T] index of the gallery image, rising
    gt_boxes: NDArray[np.float64]  # [T,4] xyxy pixels
    gt_identities: NDArray[np.int64]  # [T] negative = a person without identity
    query_names: list[str]  # [Q]
    query_cameras: NDArray[np.int64]  # [Q]
    query_boxes: NDArray[np.float64]  # [Q,4] xyxy pixels
    query_identities: NDArray[np.int64]  # [Q]

    @classmethod
    def from_dataset(cls, dataset: DatasetLike) -> SearchProtocol:
        """The protocol of a data set: every query is searched in every gallery image but its own.

        Raises:
            DataError: there is no query, or no person in the gallery, so there is nothing to measure.
        """
        gallery, queries = dataset.gallery, dataset.queries
        if not queries or not any(len(frame.identities) for frame in gallery):
            raise DataError(
                f"the data set has {len(queries)} queries and {len(gallery)} gallery images; "
                "measuring search needs at least one query and one annotated person in the gallery."
            )
        counts = [len(frame.identities) for frame in gallery]
        return cls(
            gallery_names=[frame.name for frame in gallery],
            gallery_cameras=np.array([frame.camera for frame in gallery], np.int64),
            gt_images=np.repeat(np.arange(len(gallery)), counts),
            gt_boxes=np.concatenate([frame.boxes for frame in gallery]).astype(np.float64),
            gt_identities=np.concatenate([frame.identities for frame in gallery]).astype(np.int64),
            query_names=[query.name for query in queries],
            query_cameras=np.array([query.camera for query in queries], np.int64),
            query_boxes=np.stack([query.box for query in queries]).astype(np.float64),
            query_identities=np.array([query.identity for query in queries], np.int64),
        )
