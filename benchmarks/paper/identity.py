"""What a result depends on, in short: the content of a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psarm.data.types import PersonSearchDataset
from psarm.errors import DataError


def dataset_digest(dataset: PersonSearchDataset) -> str:
    """SHA-256 over the test split: its annotations, queries and galleries, and every picture's size and date.

    Where the data set lies does not count. Raises `DataError` naming a picture that is not there.
    """
    digest = hashlib.sha256(repr((dataset.name, dataset.default_gallery, dataset.cbgm)).encode())
    for frame in dataset.gallery:
        digest.update(repr((frame.name, frame.camera)).encode())
        _update(digest, frame.boxes, frame.identities)
    for query in dataset.queries:
        digest.update(repr((query.name, query.camera, query.identity)).encode())
        _update(digest, query.box)
    for name, listed in dataset.galleries.items():
        digest.update(name.encode())
        _update(digest, *listed)
    for name, located in dataset.located.items():
        digest.update(name.encode())
        for person in located:
            _update(digest, person.items, person.boxes)
    paths = [frame.path for frame in dataset.gallery] + [query.path for query in dataset.queries]
    for path in dict.fromkeys(paths):
        digest.update(repr(_state(path)).encode())
    return digest.hexdigest()


def _update(digest: hashlib._Hash, *arrays: NDArray[np.generic]) -> None:
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())


def _state(path: Path) -> tuple[str, int, int]:
    """File name, bytes and date of change: reading every pixel would take longer than a small model does."""
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path} of the data set cannot be read ({error.strerror}).") from error
    return path.name, state.st_size, state.st_mtime_ns
