"""The detections file: what a model found in the gallery and its query embeddings, as one `.npz`.

::

    gallery_names      [G]    str, file names as the data set lists them (with .jpg)
    gallery_counts     [G]    int, detections of each image
    boxes              [M,4]  xyxy pixels, one image after the other
    scores             [M]    0…1
    embeddings         [M,D]  as matched, i.e. already weighted by score
    query_embeddings   [Q,D]  in the data set's query order

and, for CBGM, people in each query's own image, the query's box first, embeddings not weighted::

    context_counts [Q]   context_boxes [K,4]   context_scores [K]   context_embeddings [K,D]
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.errors import DataError
from psarm.evaluation.types import DetectionSet, Floating
from psarm.files import atomic_path

_GALLERY_KEYS = {"counts": "gallery_counts", "boxes": "boxes", "scores": "scores", "embeddings": "embeddings"}
_CONTEXT_KEYS = {key: f"context_{key}" for key in _GALLERY_KEYS}
_KINDS = {"text": "U", "whole numbers": "iu", "numbers": "iuf"}
_ZIP, _NPY = b"PK", b"\x93NUMPY"  # how archives (.npz) and single arrays (.npy) begin
_ROUNDING = 1e-5  # how far rounding may carry a score beyond 0 or 1

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class DetectionsFile:
    """The content of a detections file. G gallery images, Q queries, D embedding size."""

    gallery_names: list[str]  # [G]
    gallery: DetectionSet  # of the G images
    query_embeddings: Floating  # [Q,D]
    context: DetectionSet | None = None  # of the Q queries' images, the query first


def write_detections(path: str | Path, content: DetectionsFile) -> None:
    """Write a detections file; the old one stays until the new one is complete."""
    arrays: Arrays = {"gallery_names": np.array(content.gallery_names, dtype=np.str_)}
    arrays |= {key: getattr(content.gallery, part) for part, key in _GALLERY_KEYS.items()}
    arrays["query_embeddings"] = content.query_embeddings
    if content.context is not None:
        arrays |= {key: getattr(content.context, part) for part, key in _CONTEXT_KEYS.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs take the names for savez's own flag


def read_detections(path: str | Path) -> DetectionsFile:
    """Read and check a detections file; nothing in it is unpickled.

    Raises:
        DataError: the file is missing or damaged, an array is missing, has the wrong kind or shape or values that are
            not finite, or the arrays do not fit each other; the sentence names the file and the array.
    """
    path = Path(path)
    arrays = _load(path)
    try:
        names = _array(arrays, "gallery_names", "text", (None,))
        gallery = _detections(arrays, _GALLERY_KEYS)
        size = gallery.embeddings.shape[1]
        queries = _finite(arrays, "query_embeddings", (None, size))
        present = [key for key in _CONTEXT_KEYS.values() if key in arrays]
        context = _detections(arrays, _CONTEXT_KEYS, size) if present else None
        if context is not None:
            _check_context(context, len(queries))
        if len(names) != len(gallery.counts):
            raise DataError(f"gallery_names lists {len(names)} images, but gallery_counts {len(gallery.counts)}.")
        repeated = [name for name, count in Counter(names.tolist()).items() if count > 1]
        if repeated:
            raise DataError(f"gallery_names lists {repeated[0]} more than once.")
    except DataError as error:
        raise DataError(f"{path} is not a detections file psarm can score: {error}") from None
    return DetectionsFile(names.tolist(), gallery, queries, context)


def _load(path: Path) -> Arrays:
    if not path.is_file():
        raise DataError(f"{path} is not a file; pass a detections file (.npz).")
    try:
        with path.open("rb") as file:
            if not file.read(len(_NPY)).startswith((_ZIP, _NPY)):
                raise DataError(f"{path} is not an .npz file of detections; see docs/design.md.")
            file.seek(0)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise DataError(f"{path} holds a single array; a detections file is an .npz of named arrays.")
            with content:
                return {key: content[key] for key in content.files}
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever damaged bytes lead them into
        # Without numpy's own words, which advise to allow pickles.
        raise DataError(
            f"{path} is damaged or holds Python objects; write it again with numpy.savez, plain arrays only."
        ) from error


def _detections(arrays: Arrays, keys: dict[str, str], size: int | None = None) -> DetectionSet:
    counts = _array(arrays, keys["counts"], "whole numbers", (None,)).astype(np.int64)
    if len(counts) == 0 or counts.min() < 0:
        raise DataError(f"{keys['counts']} should hold at least one count, none below 0.")
    scores = _finite(arrays, keys["scores"], (None,))
    if counts.sum() != len(scores):
        raise DataError(f"{keys['counts']} adds up to {counts.sum()}, but {keys['scores']} has {len(scores)} rows.")
    if len(scores) and not (-_ROUNDING <= scores.min() <= scores.max() <= 1 + _ROUNDING):
        raise DataError(f"{keys['scores']} runs from {scores.min():g} to {scores.max():g}; it should stay in 0 to 1.")
    boxes = _finite(arrays, keys["boxes"], (len(scores), 4))
    reversed_corners = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if reversed_corners.any():
        row = int(np.argmax(reversed_corners))
        raise DataError(
            f"{keys['boxes']} row {row} is {boxes[row].tolist()}; boxes are x1, y1, x2, y2 with x2 ≥ x1, y2 ≥ y1."
        )
    return DetectionSet(counts, boxes, scores, _finite(arrays, keys["embeddings"], (len(scores), size)))


def _check_context(context: DetectionSet, queries: int) -> None:
    if len(context.counts) != queries:
        raise DataError(f"context_counts has {len(context.counts)} entries for {queries} query_embeddings.")
    if context.counts.min() < 1:
        query = int(np.argmin(context.counts))
        raise DataError(f"context_counts of query {query} is 0; its context holds at least the query's own box.")


def _finite(arrays: Arrays, key: str, shape: tuple[int | None, ...]) -> Floating:
    """The numbers under `key` as float32 (float64 if they are), all finite."""
    values = _array(arrays, key, "numbers", shape)
    if not np.isfinite(values).all():
        raise DataError(f"{key} holds values that are not finite.")
    return values if values.dtype == np.float64 else values.astype(np.float32)


def _array(arrays: Arrays, key: str, kind: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """The array under `key`; None in `shape` = any length."""
    if key not in arrays:
        raise DataError(f"the array {key} is missing (found: {', '.join(arrays) or 'none'}).")
    values = arrays[key]
    if values.dtype.kind not in _KINDS[kind]:
        raise DataError(f"{key} should hold {kind}, not {values.dtype}.")
    fits = values.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, values.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise DataError(f"{key} has shape {list(values.shape)}; [{wanted}] is needed.")
    return values
