"""What `psarm index` shows: bars and messages while it runs, a table at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from psarm.cli.gallery_times import local, zone
from psarm.cli.gallery_words import counts
from psarm.cli.narrow_tables import SHORTEST, PathCell, new_table, print_fitting, shortened
from psarm.console import err, out, progress
from psarm.errors import StreamError

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.table import Table

    from psarm.runtime.gallery.records import Removed
    from psarm.runtime.indexing.accounting import SourceReport
    from psarm.runtime.indexing.reading import Note

NUMBERS = 60
"""Cells for the bar and the numbers beside a source's name."""


class IndexProgress:
    """A bar a source on a terminal; what went wrong, at once, everywhere."""

    def __init__(self, alone: bool) -> None:
        """`alone`: there is one source only, whose failure ends the command and is told by that."""
        from psarm.runtime.indexing.accounting import Notes

        self.notes = Notes()
        self.purges: list[str] = []
        """A sentence each."""
        self._alone = alone
        self._bars = progress()
        self._tasks: dict[str, TaskID] = {}
        self._failed: set[str] = set()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def note(self, note: Note) -> None:
        """Of a reader, from its thread."""
        self.notes.add(note)
        err.print(note.text, markup=False)

    def purged(self, older_than: datetime, removed: Removed) -> None:
        """People were erased, because they are not to be kept longer."""
        text = f"Purged {counts(removed)}, seen before {local(older_than)} ({zone(older_than)})."
        if removed.index_dropped:
            text += f" The index of {' and '.join(removed.index_dropped)} went with them."
        self.purges.append(text)
        err.print(text, markup=False)

    def change(self, report: SourceReport) -> None:
        """A source went on."""
        done = report.indexed + sum(report.skipped.values())
        if report.name not in self._tasks:
            name = _escaped(shortened(report.name, max(SHORTEST, err.width - NUMBERS)))
            self._tasks[report.name] = self._bars.add_task(name, total=report.due, completed=done)
        self._bars.update(self._tasks[report.name], completed=done)
        if report.error and report.name not in self._failed:
            self._failed.add(report.name)
            if not self._alone:
                err.print(f"Failed: {report.error}", markup=False)


def print_reports(reports: Sequence[SourceReport], gallery: str, purges: Sequence[str], as_json: bool) -> None:
    """A table, or one JSON object."""
    if as_json:
        records = [_record(report) for report in reports]
        click.echo(json.dumps({"gallery": gallery, "sources": records, "purges": list(purges)}))
    elif known := [report for report in reports if _is_known(report)]:
        print_fitting(partial(_table, known), out)


def raise_failures(reports: Sequence[SourceReport]) -> None:
    """End with exit code 1 where a source failed."""
    failed = [report for report in reports if report.error]
    if failed and len(reports) == 1:
        raise StreamError(str(failed[0].error))
    if failed:
        raise StreamError(
            f"{len(failed)} of {len(reports)} sources failed (named above); the same command goes on with them."
        )


def _is_known(report: SourceReport) -> bool:
    """Not of a source that was refused: a row of zeros would look as if what the gallery has of it were gone."""
    return report.due is not None or report.indexed > 0 or bool(report.skipped) or not report.error


def _record(report: SourceReport) -> dict[str, Any]:
    return {
        "source": report.name,
        "camera": report.camera,
        "due": report.due,
        "indexed": report.indexed,
        "skipped": dict(report.skipped),
        "to_do": report.to_do,
        "people": report.people,
        "visits": report.visits,
        "finished": report.finished,
        "error": report.error,
        "new": report.new,
        "seconds": round(report.seconds, 3),
        "frames_per_second": None if report.rate is None else round(report.rate, 3),
        "gone": report.gone,
        "notes": list(report.notes),
    }


def _table(reports: Sequence[SourceReport], narrow: bool) -> Table:
    from rich.text import Text

    table = new_table(narrow)
    table.add_column("source")
    table.add_column("camera", overflow="fold")
    for title in ("due", "indexed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("skipped", no_wrap=True)
    for title in ("to do", "people\nfound", "visits\nfound", "frames/s"):
        table.add_column(title, justify="right", no_wrap=True)
    for report in reports:
        reasons = (f"{count} {reason}" for reason, count in report.skipped.items())
        table.add_row(
            PathCell(report.name),
            Text(report.camera),
            _number(report.due),
            str(report.indexed),
            Text((",\n" if narrow else ", ").join(reasons) or "–"),
            _number(report.to_do),
            str(report.people),
            str(report.visits),
            "–" if report.rate is None else f"{report.rate:.1f}",
        )
    return table


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
