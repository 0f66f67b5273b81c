"""Reader of PRW as it lies on disk (PRW-v16.04.20).

::

    ROOT/frames/c1s1_000151.jpg            scene images; the camera is the number after the first `c`
    ROOT/annotations/c1s1_000151.jpg.mat   one matrix [n,5]: identity, x, y, w, h
    ROOT/frame_train.mat, frame_test.mat   cell arrays of frame names without `.jpg`
    ROOT/query_info.txt                    a line a query: `identity x y w h frame`, frame without `.jpg`

Boxes become float32 xyxy of whole numbers, as the reader of the published figures makes them: of an annotation x, y, w
and h are clipped at 0, w and h are added to x and y, and all are truncated; of a query the corners are truncated, then
clipped. Boxes without area are skipped (`psarm data check` names them).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.console import track
from psarm.data.cache import Arrays, cached_arrays
from psarm.data.matlab import load_mat, variable_names
from psarm.data.types import UNLABELLED, Frame, PersonSearchDataset, Query
from psarm.errors import DataError

FRAMES = "frames"
ANNOTATIONS = "annotations"
QUERIES = "query_info.txt"
# Split → (file, variable) of its list of frames.
FRAME_LISTS = {"train": ("frame_train.mat", "img_index_train"), "test": ("frame_test.mat", "img_index_test")}
# PRW's annotation files name their matrix in one of three ways; the first one present counts.
BOX_VARIABLES = ("box_new", "anno_file", "anno_previous")
NO_IDENTITY = -2

MAX_IDENTITY = int(np.iinfo(np.int64).max)

# To be raised when `_read_annotations` returns something else for the same files.
_CACHE_VERSION = 2

_FRAME_NAME = re.compile(r"c(\d+)s[\w-]+")


def read_prw(root: str | Path) -> PersonSearchDataset:
    """Read the PRW data set under `root`; images are not opened, only checked for presence.

    Annotations come from the cache where they have not changed (`psarm.data.cache`).

    Raises:
        DataError: `root` is not a PRW data set, or a file in it is missing, corrupt or malformed; the sentence names
            the file and what was expected.
    """
    root = Path(root)
    check_layout(root)
    images = image_names(root)
    sources = [Path(name) for name in (ANNOTATIONS, *(file for file, _ in FRAME_LISTS.values()))]
    arrays = cached_arrays("prw", _CACHE_VERSION, root, sources, lambda: _read_annotations(root, images))
    frames = {frame.name: frame for frame in _frames(root, arrays, images)}
    return PersonSearchDataset(
        name="prw",
        root=root,
        train=[frames[name] for name in arrays["train"].tolist()],
        gallery=[frames[name] for name in arrays["test"].tolist()],
        queries=_read_queries(root, images),
    )


def check_layout(root: Path) -> None:
    """Raise DataError unless `root` holds the directories and files that make a PRW data set."""
    if not root.is_dir():
        raise DataError(f"{root} is not a directory; pass the folder that holds PRW's frames/ and annotations/.")
    missing = [f"{name}/" for name in (FRAMES, ANNOTATIONS) if not (root / name).is_dir()]
    files = [name for name, _ in FRAME_LISTS.values()] + [QUERIES]
    missing += [name for name in files if not (root / name).is_file()]
    if missing:
        raise DataError(
            f"{root} is not a PRW data set: {', '.join(missing)} not found in it; pass the folder that holds them, "
            "or make a synthetic one with `psarm data synth`."
        )


def image_names(root: Path) -> set[str]:
    """Names of all files in ROOT/frames (one directory scan instead of one look-up a frame)."""
    return {path.name for path in (root / FRAMES).iterdir()}


def annotation_path(root: Path, name: str) -> Path:
    """Where the annotation of the frame `name` (with `.jpg`) lies."""
    return root / ANNOTATIONS / f"{name}.mat"


def camera_of(name: str) -> int:
    """Camera number of a frame name such as `c1s1_000151` or `c1s1_000151.jpg`."""
    match = _FRAME_NAME.fullmatch(name.removesuffix(".jpg"))
    if match is None:
        raise DataError(f"frame name {name!r} holds no camera; PRW names look like c1s1_000151.")
    return int(match[1])


def read_frame_list(root: Path, split: str) -> list[str]:
    """Frame names, with `.jpg`, of the split `train` or `test`.

    Raises:
        DataError: the .mat file is unreadable, lacks its variable, or lists something that is not a frame name.
    """
    file_name, variable = FRAME_LISTS[split]
    path = root / file_name
    content = load_mat(path)
    if variable not in content:
        found = variable_names(content)
        raise DataError(f"{path} has no variable {variable} (found: {found}); it should list frame names.")
    names: list[str] = []
    for cell in np.ravel(content[variable]):
        text = np.ravel(cell)
        if text.size != 1 or not isinstance(text[0], str):
            row = len(names)
            raise DataError(f"{path}: {variable} should be a cell array of frame names, but entry {row} is not text.")
        name = text[0].strip().removesuffix(".jpg")
        try:
            camera_of(name)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        names.append(f"{name}.jpg")
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"{path} lists {twice} more than once; every frame should be listed once.")
    return names


def read_annotation(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Boxes and identities as one annotation file has them.

    Returns:
        boxes: float64 [n,4] x, y, w, h, not clipped, possibly without area or not finite.
        identities: int64 [n], PRW's own numbers, `UNLABELLED` for a person without one.

    Raises:
        DataError: the file is missing or unreadable, or its matrix is not [n,5] numbers with whole identities that
            its type holds exactly (floating point: below 2^53, of single precision 2^24) and int64 holds.
    """
    content = load_mat(path)
    variable = next((name for name in BOX_VARIABLES if name in content), None)
    if variable is None:
        expected = ", ".join(BOX_VARIABLES)
        raise DataError(f"{path} has none of the variables {expected} (found: {variable_names(content)}).")
    matrix = np.asarray(content[variable])
    if matrix.size == 0:
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    if matrix.ndim != 2 or matrix.shape[1] != 5 or matrix.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: {variable} should be numbers of shape [n,5] (identity, x, y, w, h), "
            f"but it is {matrix.dtype} of shape {list(matrix.shape)}."
        )
    identities = matrix[:, 0]
    bad = ~_are_identities(identities)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{path}: row {row} has identity {identities[row].item()}; expected a whole number from 0 up that "
            f"{matrix.dtype} and int64 hold exactly, or {NO_IDENTITY} for a person without identity."
        )
    identities = identities.astype(np.int64)
    return matrix[:, 1:].astype(np.float64), np.where(identities == NO_IDENTITY, UNLABELLED, identities)


def _are_identities(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which numbers [n] are identities, or `NO_IDENTITY`, that become int64 as they are; bool [n]."""
    if values.dtype.kind == "u":
        return np.asarray(values <= np.uint64(MAX_IDENTITY))
    allowed: NDArray[np.bool_] = (values >= 0) | (values == NO_IDENTITY)
    if values.dtype.kind == "f":
        # From here on, different whole numbers are the same in floating point; not a number fails this, too.
        exact = values < 2.0 ** (np.finfo(values.dtype).nmant + 1)
        allowed &= exact & (values == np.trunc(values))
    return allowed


def annotated_boxes(boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """Annotated x, y, w, h [n,4] as the protocol reads them: float32 [n,4] xyxy, whole numbers, or infinite."""
    positive: NDArray[np.float64] = np.maximum(boxes, 0)
    with np.errstate(over="ignore"):
        corners = np.concatenate([positive[:, :2], positive[:, :2] + positive[:, 2:]], axis=1)
        whole: NDArray[np.float64] = np.trunc(corners)
        return whole.astype(np.float32)


def query_box(box: NDArray[np.float64]) -> NDArray[np.float32]:
    """The corners [4] of a query's line as the protocol reads them: float32 [4] xyxy, whole numbers, or infinite."""
    corners: NDArray[np.float64] = np.maximum(np.trunc(box), 0)
    with np.errstate(over="ignore"):
        return corners.astype(np.float32)


def parse_query(line: str) -> tuple[int, NDArray[np.float64], str]:
    """Identity, box float64 [4] xyxy (not clipped) and frame name (with `.jpg`) of one line of query_info.txt.

    Raises:
        DataError: the line is not `identity x y w h frame`, its identity is none that int64 holds from 0 up, or its box
            has no area.
    """
    fields = line.split()
    if len(fields) != 6:
        raise DataError(f"expected `identity x y w h frame`, got {line.strip()!r}.")
    try:
        identity = int(fields[0])
        x, y, w, h = (float(field) for field in fields[1:5])
    except ValueError:
        raise DataError(f"expected a whole identity and four numbers before the frame, got {line.strip()!r}.") from None
    if not 0 <= identity <= MAX_IDENTITY:
        raise DataError(f"identity {fields[0]} is out of range; expected a whole number from 0 to 2^63 - 1.")
    box = np.array([x, y, x + w, y + h])
    if not has_area(query_box(box)[None]).all():
        raise DataError(f"the box {x:g} {y:g} {w:g} {h:g} has no area in whole pixels inside the image.")
    name = fields[5].removesuffix(".jpg")
    camera_of(name)
    return identity, box, f"{name}.jpg"


def query_lines(root: Path) -> list[tuple[int, str]]:
    """Line number (from 1) and text of every line of query_info.txt that is not blank."""
    path = root / QUERIES
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); expected lines `identity x y w h frame`.") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def has_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which boxes [n,4] xyxy are finite and have a positive width and height; bool [n]."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(boxes), axis=1)
    return finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _read_annotations(root: Path, images: set[str]) -> Arrays:
    """Frame names by split, and of all frames: names, how many boxes each has, boxes as annotated, identities."""
    lists = {split: read_frame_list(root, split) for split in FRAME_LISTS}
    names = list(dict.fromkeys(name for listed in lists.values() for name in listed))
    boxes, identities = [np.zeros((0, 4))], [np.zeros(0, np.int64)]
    for name in track(names, "Reading annotations"):
        if name not in images:
            raise _missing_image(root, name)
        found = read_annotation(annotation_path(root, name))
        if not np.isfinite(found[0]).all():
            raise DataError(f"{annotation_path(root, name)} holds a box that is not finite; expected numbers.")
        boxes.append(found[0])
        identities.append(found[1])
    return {
        **{split: np.array(listed, np.str_) for split, listed in lists.items()},
        "names": np.array(names, np.str_),
        "counts": np.array([len(found) for found in identities[1:]], np.int64),
        "boxes": np.concatenate(boxes),
        "identities": np.concatenate(identities),
    }


def _frames(root: Path, arrays: Arrays, images: set[str]) -> Iterator[Frame]:
    boxes = annotated_boxes(arrays["boxes"])
    keep = has_area(boxes)
    ends = np.cumsum(arrays["counts"])
    folder = root / FRAMES
    for name, start, end in zip(arrays["names"].tolist(), ends - arrays["counts"], ends, strict=True):
        if name not in images:
            raise _missing_image(root, name)
        rows = np.flatnonzero(keep[start:end]) + start
        yield Frame(name, folder / name, camera_of(name), boxes[rows], arrays["identities"][rows])


def _missing_image(root: Path, name: str) -> DataError:
    return DataError(
        f"{root / FRAMES / name} is listed but missing; `psarm data check {root}` names every broken file."
    )


def _read_queries(root: Path, images: set[str]) -> list[Query]:
    queries = []
    for number, line in query_lines(root):
        try:
            identity, box, name = parse_query(line)
        except DataError as error:
            raise DataError(f"{root / QUERIES} line {number}: {error}") from None
        path = root / FRAMES / name
        if name not in images:
            raise DataError(f"{root / QUERIES} line {number}: the frame {path} is missing.")
        queries.append(Query(name, path, camera_of(name), query_box(box), identity))
    return queries
