"""The search protocol as arrays: who is where in the gallery, who is searched for, and in which images.

A data set may list, under a name, the gallery images each query is searched in, and with them where the person is
(CUHK-SYSU: `100`, a hundred images a query); there, annotated identities say nothing, and the query's own image counts
if it is listed. Without such boxes the query's own image is never searched. "full" is on every data set: all gallery
images but the query's own, PRW's only gallery. It begins with the items of the first gallery that is listed, if these
come with boxes, and holds the person only where they say so.

This is `eval_search_cuhk` of the released SeqNet and PS-ARM, but for the full set: of the images listed already, these
rank every detection a second time, as a negative, and leave the others out of CBGM. Here each image is ranked once, as
the older `evaluate_search` (OIM, NAE) does, and CBGM sees them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from psarm.errors import DataError, UsageError
from psarm.evaluation.cbgm import PRW_K1, PRW_K2

FULL = ("full", "-1")
"""Names of the gallery of every image but the query's own; -1 is what the released code calls it."""


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


class LocatedLike(Protocol):
    """Where a gallery says that a query's person is (`psarm.data.types.Located`)."""

    @property
    def items(self) -> NDArray[np.int64]:
        """[f] rising, which items of the query's gallery show the person."""

    @property
    def boxes(self) -> NDArray[Any]:
        """[f,4] xyxy pixels, where in them."""


class DatasetLike(Protocol):
    """A data set to evaluate on (`psarm.data.types.PersonSearchDataset`)."""

    @property
    def gallery(self) -> Sequence[FrameLike]:
        """Images searched in."""

    @property
    def queries(self) -> Sequence[QueryLike]:
        """People searched for."""

    @property
    def galleries(self) -> Mapping[str, Sequence[NDArray[Any]]]:
        """Name → for every query, the indices into `gallery` of the images it is searched in."""

    @property
    def located(self) -> Mapping[str, Sequence[LocatedLike]]:
        """Name of a gallery → for every query, where that gallery says the person is; may lack galleries."""

    @property
    def default_gallery(self) -> str | None:
        """The one of `galleries` that figures are quoted for; None: every gallery image but the query's own."""

    @property
    def cbgm(self) -> tuple[int, int]:
        """k1 and k2 of context matching."""


@dataclass(frozen=True, eq=False)
class SearchProtocol:
    """Gallery images with their ground truth, one image after the other, the queries, and where each is searched.

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
    galleries: Mapping[str, Sequence[NDArray[np.int64]]] = field(default_factory=dict)
    """Name → for each of the Q queries, int64 indices of gallery images, in any order."""
    located: Mapping[str, Sequence[LocatedLike]] = field(default_factory=dict)
    """Name → for each of the Q queries, where the person is; galleries that are not in it go by the identities."""
    default_gallery: str | None = None
    """The one of `galleries` that is searched where none is named; None = "full"."""
    cbgm: tuple[int, int] = (PRW_K1, PRW_K2)
    """k1 and k2 of context matching."""

    @classmethod
    def from_dataset(cls, dataset: DatasetLike) -> SearchProtocol:
        """The protocol of a data set.

        Raises:
            DataError: there is no query, or no person in the gallery, so there is nothing to measure; or the galleries
                of the queries do not fit the data set.
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
            galleries=_checked_galleries(dataset),
            located=_checked_located(dataset),
            default_gallery=dataset.default_gallery,
            cbgm=dataset.cbgm,
        )

    @property
    def cross_camera(self) -> bool:
        """Whether searching only other cameras' images means something: with several cameras, and on PRW always."""
        return not self.galleries or len(np.unique(self.gallery_cameras)) > 1

    def check_cross_camera(self) -> None:
        """Raise `UsageError` unless the gallery has several cameras, so that there are others than the query's."""
        if len(np.unique(self.gallery_cameras)) < 2:
            raise UsageError("--cross-camera: the gallery of this data set has one camera only; leave the option out.")

    def check_gallery(self, name: str) -> None:
        """Raise `UsageError` unless `name` is a gallery of this protocol ("full" and "-1" always are)."""
        if name not in FULL and name not in self.galleries:
            known = ", ".join([*self.galleries, FULL[0]])
            raise UsageError(f"--gallery-size {name}: this data set has no such gallery; it has {known}.")

    def listing(self, gallery: str | None = None) -> str | None:
        """Which of `located` says where people are in a gallery (as `searched` takes it); None: the identities do."""
        name = self.default_gallery if gallery is None else gallery
        if name is None or name in FULL:
            name = next(iter(self.galleries), None)
        return name if name in self.located else None

    def searched(self, query: int, gallery: str | None = None, cross_camera: bool = False) -> NDArray[np.bool_]:
        """Which images one query is searched in; bool [G], a new array.

        Args:
            query: index of the query.
            gallery: a name of `galleries` or of `FULL`; None = the default.
            cross_camera: leave out the images of the query's camera.
        """
        name = self.default_gallery if gallery is None else gallery
        listing = self.listing(gallery)
        if name is None or name in FULL:
            images = np.ones(len(self.gallery_names), bool)
        else:
            images = np.zeros(len(self.gallery_names), bool)
            images[self.galleries[name][query]] = True
        own = self._own_images[query]
        if own >= 0 and (listing is None or name != listing):  # a list that says where people are counts as it stands
            images[own] = listing is not None and own in self.galleries[listing][query]
        if cross_camera:
            images &= self.gallery_cameras != self.query_cameras[query]
        return images

    @cached_property
    def _own_images(self) -> NDArray[np.int64]:
        """int64 [Q]: the gallery image a query was cut from, -1 where the gallery does not hold it."""
        place = {name: index for index, name in enumerate(self.gallery_names)}
        return np.array([place.get(name, -1) for name in self.query_names], np.int64)


def _checked_galleries(dataset: DatasetLike) -> dict[str, list[NDArray[np.int64]]]:
    queries, images = len(dataset.queries), len(dataset.gallery)
    for name, listed in dataset.galleries.items():
        if len(listed) != queries:
            raise DataError(f"gallery {name} lists images for {len(listed)} queries, but the data set has {queries}.")
        for query, indices in enumerate(listed):
            if len(indices) and not 0 <= indices.min() <= indices.max() < images:
                raise DataError(f"gallery {name} of query {query} lists an image outside 0…{images - 1}.")
    if dataset.default_gallery is not None and dataset.default_gallery not in dataset.galleries:
        known = ", ".join(dataset.galleries) or "none"
        raise DataError(f"the default gallery {dataset.default_gallery} is not one of the data set's ({known}).")
    return {name: [np.asarray(i, np.int64) for i in listed] for name, listed in dataset.galleries.items()}


def _checked_located(dataset: DatasetLike) -> dict[str, Sequence[LocatedLike]]:
    for name, located in dataset.located.items():
        lists = dataset.galleries.get(name)
        if lists is None or len(located) != len(lists):
            raise DataError(f"gallery {name} says where {len(located)} people are, but lists no images for so many.")
        for query, (person, images) in enumerate(zip(located, lists, strict=True)):
            items = person.items
            if person.boxes.shape != (len(items), 4) or (
                len(items) and not (items[0] >= 0 and items[-1] < len(images) and (np.diff(items) > 0).all())
            ):
                raise DataError(
                    f"gallery {name} of query {query} locates the person in items {items.tolist()} by boxes of shape "
                    f"{list(person.boxes.shape)}; expected one box each, items rising and below {len(images)}."
                )
    return dict(dataset.located)
