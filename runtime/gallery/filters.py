"""`records.Where` as a predicate that LanceDB applies before the search.

Cameras and sources become ids of sources, so that no name gets into the SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from psarm.errors import UsageError
from psarm.runtime.gallery.records import Where

if TYPE_CHECKING:
    from lancedb.table import Table


@dataclass(frozen=True)
class NamedSource:
    """What a hit says of its source."""

    name: str
    camera: str
    kind: str


def named_sources(sources: Table) -> dict[int, NamedSource]:
    """Id → source, of the table `sources`."""
    rows = sources.search().select(["source", "name", "camera", "kind"]).to_list()
    return {row["source"]: NamedSource(row["name"], row["camera"], row["kind"]) for row in rows}


def people_predicate(where: Where, sources: Mapping[int, NamedSource]) -> str | None:
    """SQL that holds for the people `where` lets a search find; None: all of them.

    Raises:
        UsageError: a camera or a source that the gallery does not have, or a value that cannot work.
    """
    return both(_sources_predicate(where, sources), _seen("time", "time", where), _scored(where))


def visits_predicate(where: Where, sources: Mapping[int, NamedSource]) -> str | None:
    """The same for visits: seen at some time between `start` and `end`, their best score at least `min_score`."""
    return both(_sources_predicate(where, sources), _seen("start", '"end"', where), _scored(where))


def both(*predicates: str | None) -> str | None:
    """SQL that holds where all of `predicates` do; None stands for one that always does."""
    parts = [predicate for predicate in predicates if predicate is not None]
    return " AND ".join(f"({part})" for part in parts) or None


def is_in(column: str, values: Iterable[int]) -> str:
    """SQL that holds where a column of whole numbers has one of `values`."""
    listed = ", ".join(str(value) for value in values)
    return f"{column} IN ({listed})" if listed else "false"


def sql_time(time: datetime) -> str:
    """A time in SQL; `UsageError` for one without time zone, or that UTC does not have."""
    return f"timestamp '{_utc(time).isoformat()}'"


def lowest_score(min_score: float) -> float:
    """The float32 that a score, a float32, is compared with: 0.7 as a double would leave out a score of 0.7."""
    if not np.isfinite(min_score):
        raise UsageError(f"The lowest score must be a number from 0 to 1, got {min_score}.")
    return float(np.float32(min_score))


def _sources_predicate(where: Where, sources: Mapping[int, NamedSource]) -> str | None:
    if where.cameras is None and where.sources is None:
        return None
    chosen = set(sources)
    if where.cameras is not None:
        chosen &= _having(where.cameras, sources, lambda source: source.camera, "camera")
    if where.sources is not None:
        chosen &= _having(where.sources, sources, lambda source: source.name, "source")
    return is_in("source", sorted(chosen))


def _having(
    wanted: tuple[str, ...], sources: Mapping[int, NamedSource], value: Callable[[NamedSource], str], word: str
) -> set[int]:
    """Ids of the sources whose value is among those wanted."""
    if not wanted:
        raise UsageError(f"The {word}s to search must be at least one, or None for all, got {wanted!r}.")
    there = {value(source) for source in sources.values()}
    unknown = sorted(set(wanted) - there)
    if unknown:
        names = ", ".join(sorted(there)) or "none yet"
        raise UsageError(f"The gallery has no {word} {unknown[0]!r}; it has: {names}.")
    return {number for number, source in sources.items() if value(source) in wanted}


def _seen(first: str, last: str, where: Where) -> str | None:
    """SQL that holds where `first` to `last` reaches into the time asked for; never where they are null."""
    if where.start is not None and where.end is not None and _utc(where.start) >= _utc(where.end):
        raise UsageError(f"The time to search must end after it starts, got {where.start} to {where.end}.")
    return both(
        None if where.start is None else f"{last} >= {sql_time(where.start)}",
        None if where.end is None else f"{first} < {sql_time(where.end)}",
    )


def _utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise UsageError(f"A time must have a time zone, got {time}; give it one, such as {time}+00:00.")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise UsageError(f"A time must lie in the years 1 to 9999 of UTC, got {time}.") from error


def _scored(where: Where) -> str | None:
    return None if where.min_score is None else f"score >= {lowest_score(where.min_score)!r}"
