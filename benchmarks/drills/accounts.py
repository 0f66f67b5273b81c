"""What a gallery holds, and whether it adds up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.drills.outcome import Outcome

if TYPE_CHECKING:
    import pyarrow as pa

    from psarm.runtime.gallery.records import SourceInfo

ORDER = [("source", "ascending"), ("frame", "ascending"), ("person", "ascending")]
PIXELS, COSINE = 0.05, 1e-3
"""Most that boxes, and embeddings, of two runs may differ: batches are put together differently."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A gallery at one moment."""

    sources: Mapping[str, SourceInfo]
    """By the file name."""
    people: pa.Table
    """By source, frame and person."""
    visits: pa.Table

    def indexed(self, name: str) -> int:
        """Frames of a source."""
        return self.sources[name].progress.frames

    def to_do(self, name: str) -> int:
        """Frames of a file that are due and neither indexed nor skipped."""
        info = self.sources[name]
        assert info.source.planned is not None
        return info.source.planned - info.progress.frames - info.progress.skipped


def read_contents(where: Path) -> Contents:
    """Read a gallery; raises `GalleryError` where it is damaged."""
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(where) as gallery:
        sources = {Path(info.source.name).name: info for info in gallery.sources()}
        tables = gallery.store.read(lambda store: (store.people.to_arrow(), store.visits.to_arrow()))
    return Contents(sources, tables[0].sort_by(ORDER), tables[1].sort_by("visit"))


def check_account(outcome: Outcome, contents: Contents, finished: bool) -> None:
    """Every frame is indexed, skipped with a reason or still to do; and the tables agree with one another."""
    for name, info in contents.sources.items():
        progress = info.progress
        outcome.check("every skipped frame has a reason", sum(progress.reasons.values()) == progress.skipped)
        if info.source.planned is None:
            continue
        to_do = contents.to_do(name)
        outcome.check("every due frame is indexed, skipped or still to do", to_do >= 0 and (to_do == 0) == finished)
        outcome.check("a source is finished where nothing is left to do", progress.finished == finished)
    check_tables(outcome, contents)


def check_tables(outcome: Outcome, contents: Contents) -> None:
    """No row twice, all rows counted, visits made of their rows."""
    people, visits = contents.people, contents.visits
    keys = rows_of(people)
    outcome.check("no person is there twice", len(np.unique(keys, axis=0)) == len(keys), people=len(keys))
    done = {info.progress.source: info.progress for info in contents.sources.values()}
    committed = [frame <= done[source].last_frame for source, frame, _ in keys.tolist()]
    counted = sum(progress.people for progress in done.values())
    outcome.check("as many people as were committed", sum(committed) == counted)
    in_visits = [visit for visit, there in zip(people["visit"].to_pylist(), committed, strict=True) if there]
    numbers, sizes = np.unique([visit for visit in in_visits if visit is not None], return_counts=True)
    same = numbers.tolist() == visits["visit"].to_pylist() and sizes.tolist() == visits["frames"].to_pylist()
    outcome.check("visits are made of their people", same, visits=len(visits))


def check_same(outcome: Outcome, contents: Contents, reference: Contents) -> None:
    """The same people in the same visits as in a gallery that nothing happened to."""
    people, others = contents.people, reference.people
    same = np.array_equal(rows_of(people), rows_of(others))
    outcome.check("the same people as without the fault", same)
    if not same:
        return
    outcome.check("the same visits as without the fault", people["visit"].to_pylist() == others["visit"].to_pylist())
    boxes = np.abs(matrix(people, "box") - matrix(others, "box")).max(initial=0.0)
    embeddings = np.abs(matrix(people, "embedding") - matrix(others, "embedding")).max(initial=0.0)
    outcome.check("the same boxes and embeddings as without the fault", boxes < PIXELS and embeddings < COSINE)
    of_visits = np.abs(matrix(contents.visits, "embedding") - matrix(reference.visits, "embedding")).max(initial=0.0)
    outcome.check(
        "the same embeddings of visits as without the fault",
        of_visits < COSINE,
        boxes_differ_by=float(boxes),
        embeddings_differ_by=float(max(embeddings, of_visits)),
    )


def rows_of(people: pa.Table) -> NDArray[np.int64]:
    """[n,3] source, frame and person."""
    return np.stack([people[name].to_numpy().astype(np.int64) for name, _ in ORDER], axis=1)


def matrix(table: pa.Table, column: str) -> NDArray[np.float32]:
    """[n,k] of a column of lists of k."""
    values = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float32).reshape(len(table), table.schema.field(column).type.list_size)
