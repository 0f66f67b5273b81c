"""Arrays of people as rows of a gallery's table, and back.

n people of one frame, N of many, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psarm.runtime.gallery.records import IndexedPeople
from psarm.runtime.gallery.schema import VISIT_BITS, visit_id

if TYPE_CHECKING:
    import pyarrow as pa


def vectors(array: NDArray[np.floating[Any]]) -> pa.FixedSizeListArray:
    """[N,k] as a column of float32 lists of k."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(array).astype(np.float32)), array.shape[1])


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of lists of k as [N,k]."""
    flat: NDArray[np.float32] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)


def people_rows(source: int, camera: str, frames: Sequence[IndexedPeople], schema: pa.Schema) -> pa.Table:
    """A row a person of a source's frames."""
    import pyarrow as pa

    counts = [len(people.scores) for people in frames]
    total = sum(counts)
    numbers = np.concatenate([np.zeros(0, np.int64), *(people.visits for people in frames)])  # [N]
    no_embedding = np.zeros((0, schema.field("embedding").type.list_size), np.float32)
    sizes = [people.size or (None, None) for people, count in zip(frames, counts, strict=True) for _ in range(count)]
    columns = {
        "source": np.full(total, source, np.int32),
        "frame": np.repeat(np.array([people.frame for people in frames], np.int64), counts),
        "person": np.concatenate([np.zeros(0, np.int16), *(np.arange(count, dtype=np.int16) for count in counts)]),
        "camera": [camera] * total,
        "time": [people.time for people, count in zip(frames, counts, strict=True) for _ in range(count)],
        "visit": pa.array(visit_id(source, 0) + numbers, pa.int64(), mask=numbers < 0),
        "score": np.concatenate([np.zeros(0, np.float32), *(people.scores for people in frames)]),
        "box": vectors(np.concatenate([np.zeros((0, 4), np.float32), *(people.boxes for people in frames)])),
        "embedding": vectors(np.concatenate([no_embedding, *(people.embeddings for people in frames)])),
        "width": [width for width, _ in sizes],
        "height": [height for _, height in sizes],
    }
    return pa.table(columns, schema=schema)


def frames_of(rows: pa.Table) -> list[IndexedPeople]:
    """The frames of one source's rows, rising, but those nobody is in; without thumbnails and sizes."""
    if rows.num_rows == 0:
        return []
    rows = rows.sort_by([("frame", "ascending"), ("person", "ascending")])
    frames = rows["frame"].to_numpy()
    visits = rows["visit"].fill_null(-1).to_numpy()
    numbers = np.where(visits < 0, -1, visits & ((1 << VISIT_BITS) - 1))
    scores, boxes, embeddings = rows["score"].to_numpy(), matrix(rows["box"]), matrix(rows["embedding"])
    starts = np.flatnonzero(np.diff(frames, prepend=frames[0] - 1))
    return [
        IndexedPeople(
            frame=int(frames[a]),
            time=rows["time"][a].as_py(),
            boxes=boxes[a:b],
            scores=scores[a:b],
            embeddings=embeddings[a:b],
            visits=numbers[a:b],
        )
        for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(frames)], strict=True)
    ]
