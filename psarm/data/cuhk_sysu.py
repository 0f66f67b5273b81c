"""Reader of CUHK-SYSU as it lies on disk (the official `ssm` release).

::

    ROOT/Image/SSM/s1.jpg                           scene images
    ROOT/annotation/Images.mat                      `Img`: of every image, its name and its boxes
    ROOT/annotation/pool.mat                        `pool`: names of the gallery's images; all others are for training
    ROOT/annotation/test/train_test/Train.mat       `Train`: of every training identity, where it is
    ROOT/annotation/test/train_test/TestG100.mat    `TestG100`: of every query its gallery of 100 images, and where in
                                                    them the person is; likewise TestG50, 500, 1000, 2000 and 4000

Boxes become float32 xyxy of whole numbers, as the reader of the published figures makes them: x, y, w and h are
truncated, then w and h added to x and y; boxes without area are left out. A box has an identity where Train.mat (for
training images) or a protocol (for gallery images) lists exactly this box; where two do, the later one, and of equal
boxes in an image the first. A listed box that is not in Images.mat gives nobody an identity, but a query or an item of
a gallery stays what it is. Identities are the numbers in the lists' names: 1234 of `p1234`. CUHK-SYSU has no cameras:
every frame says 0. Person.mat repeats what the other files say and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psarm.console import err
from psarm.data.cache import Arrays, cached_arrays
from psarm.data.cuhk_files import Appearances, Images, read_images, read_pool, read_train
from psarm.data.cuhk_labels import Doubt, annotated_boxes, has_area, label_boxes
from psarm.data.cuhk_protocol import Protocol, cut, read_protocol
from psarm.data.types import Frame, Located, PersonSearchDataset, Query
from psarm.errors import DataError

PICTURES = "Image/SSM"
IMAGES = "annotation/Images.mat"
POOL = "annotation/pool.mat"
TRAIN = "annotation/test/train_test/Train.mat"
# Gallery size → file of its protocol.
PROTOCOLS = {str(size): f"annotation/test/train_test/TestG{size}.mat" for size in (50, 100, 500, 1000, 2000, 4000)}
DEFAULT_GALLERY = "100"
CBGM = (10, 3)
CAMERA = 0

# To be raised when `_read_annotations` returns something else for the same files.
_CACHE_VERSION = 2


def read_cuhk_sysu(root: str | Path) -> PersonSearchDataset:
    """Read the CUHK-SYSU data set under `root`; images are not opened, only checked for presence.

    `galleries` has an entry for every TestG file that is there. Annotations come from the cache where they have not
    changed (`psarm.data.cache`).

    Raises:
        DataError: `root` is not a CUHK-SYSU data set, or a file in it is missing, corrupt or malformed; the sentence
            names the file and what was expected.
    """
    root = Path(root)
    check_layout(root)
    sources = [Path(file) for file in (IMAGES, POOL, TRAIN, *PROTOCOLS.values())]
    arrays = cached_arrays("cuhk-sysu", _CACHE_VERSION, root, sources, lambda: _read_annotations(root))
    if left_out := int(arrays["left_out"]):
        why = "not in Images.mat, or for training in an image of the gallery"
        message = f"{root}: listed boxes left out: {left_out} ({why}); `psarm data check` names them."
        err.print(message, markup=False)
    frames = _frames(root, arrays)
    pool = arrays["pool"].tolist()
    in_pool = set(pool)
    return PersonSearchDataset(
        name="cuhk-sysu",
        root=root,
        train=[frame for row, frame in enumerate(frames) if row not in in_pool],
        gallery=[frames[row] for row in pool],
        queries=[
            Query(frames[row].name, frames[row].path, frames[row].camera, box, identity)
            for row, box, identity in zip(
                arrays["query_frames"].tolist(), arrays["query_boxes"], arrays["query_identities"].tolist(), strict=True
            )
        ],
        galleries={
            size: cut(arrays[f"members_{size}"].astype(np.int64), arrays[f"counts_{size}"])
            for size in PROTOCOLS
            if f"members_{size}" in arrays
        },
        located={size: _located(arrays, size) for size in PROTOCOLS if f"members_{size}" in arrays},
        default_gallery=DEFAULT_GALLERY,
        cbgm=CBGM,
    )


def check_layout(root: Path) -> None:
    """Raise DataError unless `root` holds the folders and files that make a CUHK-SYSU data set."""
    if not root.is_dir():
        raise DataError(f"{root} is not a directory; pass the folder that holds CUHK-SYSU's Image/ and annotation/.")
    missing = [] if (root / PICTURES).is_dir() else [f"{PICTURES}/"]
    missing += [file for file in (IMAGES, POOL, TRAIN, PROTOCOLS[DEFAULT_GALLERY]) if not (root / file).is_file()]
    if missing:
        raise DataError(
            f"{root} is not a CUHK-SYSU data set: {', '.join(missing)} not found in it; pass the folder that holds "
            "them, or make a synthetic one with `psarm data synth --format cuhk-sysu`."
        )


def image_names(root: Path) -> set[str]:
    """Names of all files in ROOT/Image/SSM (one directory scan instead of one look-up an image)."""
    return {path.name for path in (root / PICTURES).iterdir()}


def check_queries(path: Path, protocol: Protocol, default: Protocol) -> None:
    """Raise DataError unless a protocol has the same queries as the default one, in the same order."""
    expected = f"every TestG file should list the queries of TestG{DEFAULT_GALLERY}.mat in the same order"
    ours, theirs = protocol.queries, default.queries
    if len(ours.images) != len(theirs.images):
        raise DataError(f"{path} has {len(ours.images)} queries, not {len(theirs.images)}; {expected}.")
    same = (np.array(ours.images) == np.array(theirs.images)) & (ours.identities == theirs.identities)
    same &= (ours.boxes == theirs.boxes).all(axis=1)
    if not same.all():
        row = int(np.argmin(same))
        raise DataError(f"{path}: query {row} is p{ours.identities[row]} in {ours.images[row]}; {expected}.")


def _read_annotations(root: Path) -> Arrays:
    """Frames with boxes and identities, the pool and the queries as indices into the frames, galleries by size."""
    images, pool = read_images(root / IMAGES), read_pool(root / POOL)
    rows = {name: row for row, name in enumerate(images.names)}
    if unknown := [name for name in pool if name not in rows]:
        raise DataError(f"{root / POOL} lists {unknown[0]}, which is not in Images.mat.")
    protocols = {size: read_protocol(root / file, pool) for size, file in PROTOCOLS.items() if (root / file).is_file()}
    default = protocols[DEFAULT_GALLERY]
    for size, protocol in protocols.items():
        check_queries(root / PROTOCOLS[size], protocol, default)
    identities, doubts = label(images, pool, read_train(root / TRAIN), protocols)
    boxes = annotated_boxes(images.boxes)
    keep = has_area(images.boxes)
    before = np.concatenate([[0], np.cumsum(keep)])
    ends = np.cumsum(images.counts)
    return {
        "names": np.array(images.names, np.str_),
        "counts": before[ends] - before[ends - images.counts],
        "boxes": boxes[keep],
        "identities": identities[keep],
        "left_out": np.array(sum(doubt.left_out for doubt in doubts)),
        "pool": np.array([rows[name] for name in pool], np.int64),
        "query_frames": np.array([rows[name] for name in default.queries.images], np.int64),
        "query_boxes": annotated_boxes(default.queries.boxes),
        "query_identities": default.queries.identities,
        **{f"members_{size}": protocol.members for size, protocol in protocols.items()},
        **{f"counts_{size}": protocol.counts for size, protocol in protocols.items()},
        **{f"found_counts_{size}": protocol.found_counts for size, protocol in protocols.items()},
        **{f"found_items_{size}": protocol.found_items for size, protocol in protocols.items()},
        **{f"found_boxes_{size}": annotated_boxes(protocol.found.boxes) for size, protocol in protocols.items()},
    }


def _located(arrays: Arrays, size: str) -> list[Located]:
    pieces = (cut(arrays[f"found_{what}_{size}"], arrays[f"found_counts_{size}"]) for what in ("items", "boxes"))
    return [Located(items, boxes) for items, boxes in zip(*pieces, strict=True)]


def label(
    images: Images, pool: list[str], train: Appearances | None, protocols: Mapping[str, Protocol]
) -> tuple[NDArray[np.int64], list[Doubt]]:
    """`label_boxes` of what could be read; should the protocols contradict each other, the default one counts."""
    order = sorted(protocols, key=lambda size: size == DEFAULT_GALLERY)
    test = {PROTOCOLS[size]: protocols[size].appearances() for size in order}
    return label_boxes(images, pool, {} if train is None else {TRAIN: train}, test)


def _frames(root: Path, arrays: Arrays) -> list[Frame]:
    images, folder = image_names(root), root / PICTURES
    names = arrays["names"].tolist()
    for name in names:
        if name not in images:
            raise DataError(
                f"{folder / name} is in Images.mat but missing; `psarm data check {root}` names every broken file."
            )
    parts = zip(names, *(cut(arrays[key], arrays["counts"]) for key in ("boxes", "identities")), strict=True)
    return [Frame(name, folder / name, CAMERA, boxes, identities) for name, boxes, identities in parts]
