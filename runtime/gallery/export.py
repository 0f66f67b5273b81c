"""The people of a gallery for other tools: as Parquet, COCO and MOT files.

What a writer has not committed yet is left out. Every function writes a line to the gallery's audit log, raises
`GalleryError` where that cannot be done or the gallery keeps visits only, and leaves nothing half-written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from psarm.errors import GalleryError, UsageError
from psarm.files import atomic_directory, atomic_path, is_taken
from psarm.runtime.gallery.ledger import read_sources
from psarm.runtime.gallery.records import Source, SourceInfo
from psarm.runtime.gallery.schema import VISIT_BITS, visit_name

if TYPE_CHECKING:
    import pyarrow as pa

    from psarm.runtime.gallery.gallery import Gallery
    from psarm.runtime.gallery.store import Store

Row = dict[str, Any]
BATCH_ROWS = 8192
BOX_COLUMNS = ["frame", "person", "time", "visit", "score", "box", "width", "height"]
PERSON = {"id": 1, "name": "person", "supercategory": "person"}


def write_parquet(gallery: Gallery, target: Path) -> int:
    """A row a person in a frame, with its embedding; returns how many.

    The columns are those of the table `people` (`psarm.runtime.gallery.schema`), with the source's name for its number,
    and `visit_name`, the visit as searches show it.
    """
    return _export(gallery, "parquet", target, atomic_path, _write_parquet)


def write_coco(gallery: Gallery, target: Path) -> int:
    """Frames with people as images, people as annotations with box and score; returns how many.

    An annotation's `track_id` is the number of its visit, `visit` the same as searches show it.
    `file_name` is the source's name and the frame's id behind a #. `width` and `height` are null where unknown.
    """
    return _export(gallery, "coco", target, atomic_path, _write_coco)


def write_mot(gallery: Gallery, target: Path, rate: float | None = None) -> dict[str, Path]:
    """A MOT file a source in the new directory `target`; returns them by the source's name.

    Frames are numbered from 1, by the nominal frame rate of the video or else by `rate`; pictures by their place in the
    list. Visits are numbered from 1 in each source; a person in none has -1.

    Raises:
        UsageError: `target` holds something already, or a source has no nominal rate and `rate` is None.
    """
    if is_taken(target):
        raise UsageError(f"{target} holds files already; give a directory that does not exist yet.")
    files: dict[str, Path] = {}

    def write(store: Store, folder: Path) -> int:
        files.clear()
        for path in folder.iterdir():
            path.unlink()
        names, count = _write_mot(store, folder, rate)
        files.update({source: target / name for source, name in names.items()})
        return count

    _export(gallery, "mot", target, atomic_directory, write)
    return files


def _export(
    gallery: Gallery,
    layout: str,
    target: Path,
    atomic: Callable[[Path], AbstractContextManager[Path]],
    write: Callable[[Store, Path], int],
) -> int:
    """`write` to a temporary path, which is put in place once the audit log has its line; returns how many people.

    `write` begins again where a purge comes in between: it replaces what it wrote before.
    """
    if not gallery.facts.people:
        raise GalleryError(f"{gallery.where} keeps visits only, and the people of frames are what is exported.")

    with atomic(target) as temporary, gallery.audit.export(layout, target) as counts:

        def read(store: Store) -> int:
            try:
                return write(store, temporary)
            except OSError as error:
                if error.errno is not None and error.filename is None:  # a full disk, which is not the gallery's
                    error.filename = str(temporary)
                raise

        counts["people"] = count = gallery.store.read(read)
    return count


def _write_parquet(store: Store, target: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = store.people.schema
    schema = schema.set(schema.get_field_index("source"), pa.field("source", pa.string()))
    written = schema.append(pa.field("visit_name", pa.string()))
    count = 0
    with pq.ParquetWriter(target, written) as writer:
        for info in read_sources(store):
            for batch in _committed(store, info, schema.names):
                named = [info.source.name] * batch.num_rows
                columns = [pa.array(named) if name == "source" else batch.column(name) for name in schema.names]
                columns.append(pa.array(map(_visit_name, batch.column("visit").to_pylist()), pa.string()))
                writer.write_table(pa.table(columns, schema=written))
                count += batch.num_rows
    return count


def _write_coco(store: Store, target: Path) -> int:
    infos = read_sources(store)
    with target.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"info": {"gallery": store.where}, "categories": [PERSON]})[:-1])
        file.write(', "images": [')
        _write_items(file, _coco_images(store, infos))
        file.write('], "annotations": [')
        count = _write_items(file, _coco_annotations(store, infos))
        file.write("]}\n")
    return count


def _write_items(file: IO[str], items: Iterator[Row]) -> int:
    """Items of a JSON list, one at a time; returns how many."""
    count = 0
    for item in items:
        file.write(("," if count else "") + "\n" + json.dumps(item))
        count += 1
    return count


def _coco_images(store: Store, infos: list[SourceInfo]) -> Iterator[Row]:
    number = 0
    for info in infos:
        for frame, rows in _frames(store, info):
            number += 1
            yield {
                "id": number,
                "file_name": f"{info.source.name}#{frame}",
                "width": rows[0]["width"],
                "height": rows[0]["height"],
                "source": info.source.name,
                "camera": info.source.camera,
                "frame": frame,
                "time": None if rows[0]["time"] is None else rows[0]["time"].isoformat(),
            }


def _coco_annotations(store: Store, infos: list[SourceInfo]) -> Iterator[Row]:
    image = number = 0
    for info in infos:
        for _, rows in _frames(store, info):
            image += 1
            for row in rows:
                number += 1
                x, y, width, height = _xywh(row)
                yield {
                    "id": number,
                    "image_id": image,
                    "category_id": PERSON["id"],
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": row["score"],
                    "track_id": row["visit"],
                    "visit": _visit_name(row["visit"]),
                }


def _write_mot(store: Store, folder: Path, rate: float | None) -> tuple[dict[str, str], int]:
    """Source → name of its file in `folder`, and how many people are in all of them."""
    names, count = {}, 0
    for info in read_sources(store):
        name = f"{info.progress.source:03d}-{re.sub('[^A-Za-z0-9._-]+', '_', Path(info.source.name).name)}.txt"
        with (folder / name).open("w", encoding="ascii") as file:
            count += _write_mot_source(file, info.source, _frames(store, info), rate)
        names[info.source.name] = name
    return names, count


def _write_mot_source(
    file: IO[str], source: Source, frames: Iterator[tuple[int, list[Row]]], rate: float | None
) -> int:
    """Returns how many people."""
    rate = source.rate or rate
    if rate is None and source.kind != "pictures":
        raise UsageError(f"Nobody knows how many frames a second {source.name} has; say it with --rate.")
    first, count = None, 0
    for frame, rows in frames:
        first = frame if first is None else first
        if source.kind == "pictures":
            number = frame + 1
        else:
            assert rate is not None
            seconds = (frame - (first if source.kind == "live" else 0)) / 1e6
            number = round(seconds * rate) + 1
        for row in rows:
            visit = -1 if row["visit"] is None else (row["visit"] & ((1 << VISIT_BITS) - 1)) + 1
            x, y, width, height = _xywh(row)
            file.write(f"{number},{visit},{x:.2f},{y:.2f},{width:.2f},{height:.2f},{row['score']:.4f},-1,-1,-1\n")
        count += len(rows)
    return count


def _frames(store: Store, info: SourceInfo) -> Iterator[tuple[int, list[Row]]]:
    """Frames of a source with people in them, in order, and these as the detector gave them."""
    import pyarrow as pa

    # A source at a time, without embeddings: some 50 bytes a person.
    table = pa.Table.from_batches(_committed(store, info, BOX_COLUMNS), _schema(store, BOX_COLUMNS))
    table = table.sort_by([("frame", "ascending"), ("person", "ascending")])
    rows = (row for batch in table.to_batches(BATCH_ROWS) for row in batch.to_pylist())
    for frame, people in groupby(rows, lambda row: int(row["frame"])):
        yield frame, list(people)


def _committed(store: Store, info: SourceInfo, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """People of a source, some at a time."""
    progress = info.progress
    query = store.people.search().where(f"source = {progress.source} AND frame <= {progress.last_frame}")
    yield from query.select(columns).to_batches(batch_size=BATCH_ROWS)


def _schema(store: Store, columns: list[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([store.people.schema.field(name) for name in columns])


def _visit_name(visit: int | None) -> str | None:
    return None if visit is None else visit_name(visit)


def _xywh(row: Row) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = row["box"]
    return x1, y1, x2 - x1, y2 - y1
