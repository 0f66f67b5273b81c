"""CUHK-SYSU's protocols (TestG50.mat … TestG4000.mat) as arrays.

A protocol lists queries, and for each a gallery: images of the pool, and in those that show the person, its box.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.console import track
from psarm.data.cuhk_files import Appearances, finite_box, identity_number
from psarm.data.mat_stream import Struct, stream_struct
from psarm.errors import DataError

_FIELDS = ("Query", "Gallery")


@dataclass(frozen=True, eq=False)
class Protocol:
    """A TestG file: Q queries with a gallery each."""

    queries: Appearances
    counts: NDArray[np.int64]  # [Q], images in each gallery
    members: NDArray[np.unsignedinteger]  # [sum of counts], the galleries one after the other, as indices into the pool
    found: Appearances  # the people in the galleries, query by query
    found_items: NDArray[np.int64]  # [people], which items of their query's gallery they are in
    found_counts: NDArray[np.int64]  # [Q], how many of `found` are of each query

    def galleries(self) -> list[NDArray[np.int64]]:
        """Of every query, the images it is searched in, as indices into the pool."""
        return cut(self.members.astype(np.int64), self.counts)

    def appearances(self) -> Appearances:
        """Everywhere the people are: query by query, its own box, then those in its gallery."""
        rows = np.arange(len(self.counts))
        order = np.argsort(np.concatenate([rows, np.repeat(rows, self.found_counts)]), kind="stable")
        images = self.queries.images + self.found.images
        return Appearances(
            [images[i] for i in order],
            np.concatenate([self.queries.boxes, self.found.boxes])[order],
            np.concatenate([self.queries.identities, self.found.identities])[order],
        )


def cut(values: NDArray[Any], counts: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Values that lie one after the other, in pieces of `counts`."""
    ends = np.cumsum(counts)
    return [values[start:end] for start, end in zip((ends - counts).tolist(), ends.tolist(), strict=True)]


@dataclass(frozen=True, eq=False)
class _Search:
    """One query as a TestG file has it; images are indices into the pool."""

    identity: int
    image: int
    box: NDArray[np.float64]  # [4]
    members: NDArray[np.unsignedinteger]
    found: NDArray[np.int64]  # [f], which of the members show the person
    found_boxes: list[NDArray[np.float64]]  # f of [4]


def read_protocol(path: Path, pool: list[str]) -> Protocol:
    """Read a TestG file.

    Args:
        path: the file; its variable has the same name.
        pool: names of the gallery's images.

    Raises:
        DataError: the file is missing, damaged or holds something else, or names an image that is not in the pool; the
            sentence names the file and the query.
    """
    lookup = _Pool(pool)
    searches = []
    with stream_struct(path, path.stem) as (count, elements):
        for row, element in enumerate(track(elements, f"Reading {path.name}", total=count)):
            try:
                searches.append(_read_search(element, lookup))
            except DataError as error:
                raise DataError(f"query {row}: {error}") from error
    identities = np.array([search.identity for search in searches], np.int64)
    found_counts = np.array([len(search.found) for search in searches], np.int64)
    return Protocol(
        queries=Appearances(
            [pool[search.image] for search in searches],
            np.array([search.box for search in searches], np.float64).reshape(-1, 4),
            identities,
        ),
        counts=np.array([len(search.members) for search in searches], np.int64),
        members=np.concatenate([np.zeros(0, lookup.dtype), *(search.members for search in searches)]),
        found=Appearances(
            [pool[image] for search in searches for image in search.members[search.found]],
            np.array([box for search in searches for box in search.found_boxes], np.float64).reshape(-1, 4),
            np.repeat(identities, found_counts),
        ),
        found_items=np.concatenate([np.zeros(0, np.int64), *(search.found for search in searches)]),
        found_counts=found_counts,
    )


class _Pool:
    """Finds images by name."""

    def __init__(self, names: list[str]) -> None:
        encoded = np.array([name.encode() for name in names])
        self._order = np.argsort(encoded)
        self._sorted = encoded[self._order]
        self.dtype = np.min_scalar_type(len(names))  # the smallest: TestG4000 has 11.6 million entries

    def indices(self, images: Struct) -> NDArray[np.unsignedinteger]:
        """Where in the pool the images of a struct array are; raises `DataError` for one that is not there."""
        names = images.texts("imname")
        at = np.minimum(np.searchsorted(self._sorted, names), len(self._sorted) - 1)
        missing = self._sorted[at] != names
        if missing.any():
            raise DataError(f"its image {names[np.argmax(missing)].decode('latin-1')} is not in pool.mat.")
        return self._order[at].astype(self.dtype)


def _read_search(element: dict[str, bytes], pool: _Pool) -> _Search:
    if not set(_FIELDS) <= element.keys():
        raise DataError(f"expected the fields {' and '.join(_FIELDS)} (found: {', '.join(element)}).")
    query, gallery = (Struct.parse(element[name]) for name in _FIELDS)
    if len(query.tags) != 1:
        raise DataError(f"there should be one person to search for, but there are {len(query.tags)}.")
    name = query.texts("idname")[0].decode("latin-1")
    members = pool.indices(gallery)
    with_person = np.flatnonzero(~gallery.is_empty("idlocate"))
    return _Search(
        identity=identity_number(name),
        image=int(pool.indices(query)[0]),
        box=finite_box(query.numbers("idlocate", 0), name),
        members=members,
        found=with_person,
        found_boxes=[finite_box(gallery.numbers("idlocate", i), name) for i in with_person.tolist()],
    )
