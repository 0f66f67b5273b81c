"""`records.Where` as a predicate that LanceDB applies before the search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psarm.runtime.gallery.records import Where

if TYPE_CHECKING:
    from lancedb.table import Table


def people_predicate(where: Where, sources: Table) -> str | None:
    """SQL that holds for the people `where` lets a search find; None: all of them.

    Raises:
        UsageError: a camera or a source that the gallery does not have, or a time without a time zone.
    """
    raise NotImplementedError


def visits_predicate(where: Where, sources: Table) -> str | None:
    """The same for visits: seen at some time between `start` and `end`, their best score at least `min_score`."""
    raise NotImplementedError
